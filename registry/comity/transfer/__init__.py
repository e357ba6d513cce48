"""Transfers one file from many untrusted sources into one verified file.

    pieces        a wanted file and its pieces: their records, the hash of one, buffers
    scheduler     which source fetches which pieces next: a state machine without I/O or clock; limits, source health
    sources       the protocol of a remote source, streams with bounds, and pieces on this machine
    range_source  a node's blobs by HTTPS ranges, beside its gRPC streams
    range_client  one connection for ranges
    range_answer, parallel_range   one open range, over one connection or, from a host that is far, over several
    receiver      the partial file, the proof of the whole file, and what becomes of each piece
    fetch         `fetch_file`, which drives the sources

The caller decides which sources exist, which piece index to use and where the finished file goes.
"""
