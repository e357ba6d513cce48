"""TLS certificates of nodes. The certificate itself is the pin: equal bytes, or a stranger.

A node shows one self-signed ECDSA P-256 certificate: gRPC's BoringSSL has no Ed25519 certificates, and a validity that
spans all clocks keeps time out of the matter. The node-record, signed by the member's keys, binds its DER.

gRPC knows no pins, only roots, and whatever it trusts as a root it also trusts to *issue*. A critical keyUsage without
keyCertSign takes that away. basicConstraints does not: with grpcio 1.78 and 1.85 alike, certificates issued by a pinned
CA:false certificate without keyUsage were accepted on both sides. So a certificate that could issue is never pinned,
and the server compares what a client shows byte for byte besides (`guards`).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from comity.trust.errors import Malformed, Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.node_record import certificate_key

MAX_DER: Final = 4_096
_NOT_BEFORE: Final = datetime(1970, 1, 1)
_NOT_AFTER: Final = datetime(9999, 12, 31, 23, 59, 59)
_SIGNATURES_ONLY: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """What this side shows in a handshake: its certificate (DER), and the ecdsa-p256 key to it."""

    certificate: bytes
    key: PrivateKey

    def pem(self) -> tuple[bytes, bytes]:
        """Key and certificate, as gRPC takes them."""
        return self.key.to_pem(), to_pem(self.certificate)


@dataclass(frozen=True, slots=True)
class Pin:
    """A certificate that the other side must show, and the DNS name in it that gRPC wants to hear."""

    certificate: bytes
    server_name: str

    @classmethod
    def of(cls, certificate: bytes) -> Pin:
        """Pin a certificate (DER). Raises Malformed for what is no node certificate, and Untrusted
        (CERTIFICATE-CAN-ISSUE) for one that gRPC would trust to issue others."""
        certificate_key(certificate)
        extensions = x509.load_der_x509_certificate(certificate).extensions
        try:
            names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            usage = extensions.get_extension_for_class(x509.KeyUsage)
        except x509.ExtensionNotFound as error:
            raise Malformed("not a node certificate", why=f"it has no {error.oid._name}") from error
        if usage.value.key_cert_sign or not usage.critical:
            raise Untrusted(
                "the certificate may issue others",
                why="a pin needs a critical keyUsage without keyCertSign",
                code="CERTIFICATE-CAN-ISSUE",
            )
        dns = names.get_values_for_type(x509.DNSName)
        if len(dns) != 1:
            raise Malformed("not a node certificate", why="it has not exactly one DNS name")
        return cls(certificate, dns[0])


def make_certificate(key: PrivateKey) -> bytes:
    """A self-signed node certificate, DER, named `n-<key id>.comity.invalid`. ECDSA signatures are random, so a node
    makes one and keeps it. Raises Malformed unless the key is ecdsa-p256."""
    signer = serialization.load_pem_private_key(key.to_pem(), password=None)
    if key.alg != "ecdsa-p256" or not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise Malformed("wrong kind of TLS key", why=f"node certificates are ecdsa-p256, not {key.alg}")
    label = f"n-{key.public.id[:32]}.comity.invalid"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(signer.public_key())
        .serial_number(int(key.public.id[:32], 16) | 1)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_SIGNATURES_ONLY, critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(label)]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.DER)


def to_pem(certificate: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(certificate).encode("ascii")


def from_pem(pem: bytes) -> bytes:
    """The bytes in the one PEM block of `pem`; whether they are a certificate, `Pin.of` says. Raises Malformed."""
    if len(pem) > 2 * MAX_DER:
        raise Malformed("certificate too large", why=f"at most {2 * MAX_DER} bytes are read")
    try:
        return ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))
    except ValueError as error:
        raise Malformed("not a certificate", why="expected one PEM block") from error
