"""Attestations of other tools: SLSA and in-toto statements in DSSE envelopes and Sigstore bundles, read and written.

They are side evidence with a verdict of their own: no row of a verdict depends on them.

    predicates   SLSA verification summary and provenance, in-toto test results
    envelopes    DSSE envelopes and Sigstore bundles, the keys that sign them, the verdict on one
    files        what is beside an artifact, the owner's pinned keys, and exports
    command      `comity attestation`
"""
