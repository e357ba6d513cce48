"""HTTPS between those who pin each other's certificates: the same rule as for gRPC, for range requests.

Equal bytes of the certificate, or a stranger. No authority, host name or validity is looked at: the node-record says
which certificate a node shows, and integrity comes from hashes.
"""

from __future__ import annotations

import os
import ssl

from comity.wire.certs import TlsIdentity


def server_context(identity: TlsIdentity) -> ssl.SSLContext:
    """For a server that shows the node's certificate, as the open port does. TLS 1.3 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    key, chain = identity.pem()
    # OpenSSL's binding reads files only; this one is in memory, without a name, and gone at the end of the block.
    with os.fdopen(os.memfd_create("comity-tls", os.MFD_CLOEXEC), "wb") as file:
        file.write(key + chain)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    return context
