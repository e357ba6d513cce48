"""Hardware evidence of attested machines: strict parsers, signatures and chains, and an offline appraisal.

The words are those of RFC 9334 (RATS): an *attester* makes *evidence*; a *verifier* appraises it by *reference values*
and states an *attestation result*. No vendor root is trusted by itself: the owner pins roots, and evidence under other
roots is not accepted. Nothing here does I/O or reads a clock.

    certificates  vendor chains up to a pinned root, at a given time, with revocation data at hand
    reports       what machines sign: AMD SEV-SNP, Intel TDX, NVIDIA GPUs
    devices       which device: its kind, its model, and one identifier, by its vendor's certificates
    evidence      the document that carries evidence, its kinds, its challenge, and the `attested` statement
    appraisal     what an owner's pins, reference values and revocation data say about evidence
"""
