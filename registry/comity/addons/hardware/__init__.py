"""Hardware evidence of attested machines: strict parsers, signatures and chains, and an offline appraisal.

The words are those of RFC 9334 (RATS): an *attester* makes *evidence*; a *verifier* appraises it by *reference values*
and states an *attestation result*. No vendor root is trusted by itself: the owner pins roots, and evidence under other
roots is not accepted. The document that carries evidence, its challenge, and what an appraisal says are the core's
(`comity.rules.hardware_evidence`).

    certificates    vendor chains up to a pinned root, at a given time, with revocation data at hand
    reports         what machines sign: AMD SEV-SNP, Intel TDX, NVIDIA GPUs
    devices         which device: its kind, its model, and one identifier, by its vendor's certificates
    appraisal       what an owner's pins, reference values and revocation data say about evidence
    pins            these pins, in the owner's state folder
    evidence_files  evidence as vendors' tools write it
    trust_command   `comity trust hardware`
    attest_command  `comity offer challenge` and `comity offer attest`
"""
