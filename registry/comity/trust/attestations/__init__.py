"""Attestations in the formats of others: standard in-toto predicates, and foreign envelopes as side evidence.

predicates    SLSA verification summary and provenance, in-toto test-result, the proposed eval-result
foreign       DSSE envelopes and Sigstore bundles of others: what they are, whose pinned key signed them, and about what
"""
