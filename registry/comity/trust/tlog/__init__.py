"""Transparency logs in the C2SP formats: notes, trees, checkpoints, cosignatures, proofs."""
