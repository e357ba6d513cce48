"""Many sources, some of them silent or lying, into one verified file.

    plan        what is wanted, what is missing, and the bounds of one transfer
    schedule    who fetches which pieces next: a state machine without I/O or clock
    standing    what is known of a source
    request     one run of pieces, asked of one source
    source_key  what a source is, whatever people call it
    source      where bytes come from: the protocol of a remote source, and pieces that are here already
    ranges      a source over HTTPS, beside a node's gRPC streams
    partial     the file under way; it is its own journal
    trail       the whole-file hash, in file order, behind the pieces; the buffers
    intake      where verified pieces come in: written, counted, hashed
    fetch       drives the sources: the one function that other rooms call

Which sources exist, which piece index to believe and where the finished file goes is decided upstairs.
"""
