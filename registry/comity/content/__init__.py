"""Bytes on this machine: blob stores, piece layouts and ingest.

Nothing here talks to a peer or knows who said what; a blob is named by its hash and that is all that is known of it.
"""
