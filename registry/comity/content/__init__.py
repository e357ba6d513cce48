"""Local content: blob stores, piece layouts, ingest, durable files and secret files.

This package does not talk to peers and knows nothing of publishers. A blob is identified by its hash only.
"""
