"""The ledger of a node: logs, checkpoints, cosignatures, the statement index, piece records, misbehaviour proofs.

All calls are synchronous, thread-safe, and durable when they return; only `sequencer` is asynchronous. The bytes of
artifacts and side objects are in `comity.content`. Verification is in `comity.trust`.
"""
