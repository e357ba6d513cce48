"""What a node remembers: logs, checkpoints and cosignatures, the index over statements, piece records, misbehaviour.

Everything here is synchronous, thread-safe and durable when a call returns; `sequencer` alone is asynchronous. Bytes
of artifacts and side objects live in `comity.content`; what may be believed is decided in `comity.trust`.
"""
