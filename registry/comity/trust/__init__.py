"""The kernel: pure functions that verify statements, logs, charters and artifacts. README.md says what it promises.

Pure functions over bytes and frozen values: no I/O, no clock, no globals, no randomness except in key generation and
signing. It imports only `cryptography` and the standard library, so that it is short to review and runs on any machine.
"""
