"""Transparency logs as the C2SP specifications write them: notes, trees, checkpoints, cosignatures, proofs."""
