"""Artifacts by the OCI distribution protocol, read-only: manifests by tag and digest, tags, blobs and referrers.

A layer is a file of the artifact as it is, so that its digest is the SHA-256 that the publisher signed and nothing is
packed again. Clients that accept OCI manifests get a CNCF ModelPack; Ollama, which does not, gets its own manifest from
`comity.addons.oci.ollama`. An artifact with an OCI image layout in its folder `image` is also served as that image,
byte for byte (`comity.addons.oci.images`).
"""
