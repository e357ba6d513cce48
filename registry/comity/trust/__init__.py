"""The trust core: what may be believed, and why.

Pure functions over bytes and frozen values. No I/O, no clock, no globals, no randomness but in key generation and
signing; it imports `cryptography` and the standard library only, so that it can be read in an evening and run on a
machine that holds nothing else.
"""
