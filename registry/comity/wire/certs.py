"""TLS certificates of nodes. The certificate itself is the pin: equal bytes, or a stranger.

A node shows one self-signed ECDSA P-256 certificate: gRPC's BoringSSL has no Ed25519 certificates, and a validity that
spans all clocks keeps time out of the matter. The node-record, signed by the member's keys, binds its DER.

A node certificate is a function of its key, up to the signature, and nothing else is ever pinned. Two reasons, both
tried with grpcio 1.78 and 1.85:
- gRPC knows no pins, only roots, and whatever it trusts as a root it also trusts to *issue*. A critical keyUsage
  without keyCertSign takes that away. basicConstraints does not: what a pinned CA:false certificate without keyUsage
  had issued was accepted on both sides.
- A server hands all its pins to BoringSSL in one bundle, and one that BoringSSL cannot read, though `cryptography` can,
  ends the reading of the bundle: a single member could lock out all whose pins come after its own.

The server compares what a client shows byte for byte besides (`guards`).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from comity.trust.errors import Malformed
from comity.trust.keys import PrivateKey, PublicKey
from comity.trust.statements.node_record import certificate_key

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

# A builder tells its bytes only by signing them; whose signature it is does not matter there.
_SOME_KEY: Final = ec.derive_private_key(1, ec.SECP256R1())


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
        """Pin a certificate (DER). Raises Malformed unless it is one that `make_certificate` makes."""
        if len(certificate) > MAX_DER:
            raise Malformed("certificate too large", why=f"at most {MAX_DER} bytes are read")
        key = certificate_key(certificate)
        expected = _template(key).sign(_SOME_KEY, hashes.SHA256())
        shown = x509.load_der_x509_certificate(certificate)
        spelled_once = certificate.endswith(b"\0" + shown.signature)  # no unused bits, which `cryptography` ignores
        if shown.tbs_certificate_bytes != expected.tbs_certificate_bytes or not spelled_once:
            raise Malformed(
                "not a node certificate",
                why="nothing in one is free but its key and its signature, and this one differs elsewhere",
                code="CERTIFICATE-PROFILE",
            )
        try:
            shown.verify_directly_issued_by(shown)
        except (ValueError, InvalidSignature) as error:
            raise Malformed("not a node certificate", why="it is not signed by its own key") from error
        return cls(certificate, _name(key))


def make_certificate(key: PrivateKey) -> bytes:
    """The self-signed node certificate of an ecdsa-p256 key, DER. ECDSA signatures are random, so a node makes it once
    and keeps it. Raises Malformed for a key of another kind.

    X.509 v3; serial: the first 128 bits of the key id, lowest bit set; signature ecdsa-with-SHA256; issuer and subject
    CN=`n-<32 hex digits of the key id>.comity.invalid`; valid 1970-01-01T00:00:00Z to 9999-12-31T23:59:59Z; extensions
    basicConstraints (critical) CA:false, keyUsage (critical) digitalSignature, subjectAltName the same name.
    """
    signer = serialization.load_pem_private_key(key.to_pem(), password=None)
    if key.alg != "ecdsa-p256" or not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise Malformed("wrong kind of TLS key", why=f"node certificates are ecdsa-p256, not {key.alg}")
    return _template(key.public).sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _name(key: PublicKey) -> str:
    return f"n-{key.id[:32]}.comity.invalid"


def _template(key: PublicKey) -> x509.CertificateBuilder:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _name(key))])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key.raw))
        .serial_number(int(key.id[:32], 16) | 1)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_SIGNATURES_ONLY, critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_name(key))]), critical=False)
    )


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
