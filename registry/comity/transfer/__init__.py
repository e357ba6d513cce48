"""Transfers one file from many untrusted sources into one verified file.

    scheduler   which source fetches which pieces next: a state machine without I/O or clock; limits, source health
    sources     the protocol of a remote source, HTTPS ranges beside a node's gRPC streams, and pieces on this machine
    partial     the partial file
    receiver    buffers, the proof of the whole file, and what becomes of each piece
    fetch       `fetch_file`, which drives the sources

The caller decides which sources exist, which piece index to use and where the finished file goes.
"""
