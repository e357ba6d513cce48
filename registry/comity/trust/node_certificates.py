"""The one form of a node's TLS certificate, in DER: all of its fields but the signature follow from its key. Pure.

X.509 v3; serial: the first 128 bits of the key id, lowest bit set; signature ecdsa-with-SHA256; issuer and subject
CN=`n-<32 hex digits of the key id>.comity.invalid`; valid 1970-01-01T00:00:00Z to 9999-12-31T23:59:59Z; extensions
basicConstraints (critical) CA:false, keyUsage (critical) digitalSignature, subjectAltName the same name.

So a certificate is read by making the same one from its key and comparing bytes: no parser of X.509 decides, and a
command that only reads node records loads none. Source: RFC 5280, section 4.1; RFC 5480, section 2.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.keys import PublicKey

ALGORITHM: Final = "ecdsa-p256"
_POINT: Final = 65
"""Bytes of an uncompressed point of P-256."""
_INTEGER, _BITS, _OCTETS, _TEXT, _SEQUENCE, _SET = 0x02, 0x03, 0x04, 0x0C, 0x30, 0x31
_DNS_NAME, _EXTENSIONS = 0x82, 0xA3
_VERSION: Final = bytes.fromhex("a003020102")
_ECDSA_WITH_SHA256: Final = bytes.fromhex("300a06082a8648ce3d040302")
_VALIDITY: Final = b"\x30\x20\x17\x0d700101000000Z\x18\x0f99991231235959Z"
_KEY_BEGINS: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
"""Of a subjectPublicKeyInfo: all before the coordinates of the point."""
_CONSTRAINTS: Final = bytes.fromhex("300c0603551d130101ff04023000300e0603551d0f0101ff040403020780")
_COMMON_NAME: Final = bytes.fromhex("0603550403")
_ALTERNATIVE_NAME: Final = bytes.fromhex("0603551d11")


@frozen
class NodeCertificate:
    """A certificate of this form. Whether its signature holds, `verify` says."""

    key: PublicKey
    signature: bytes

    @property
    def der(self) -> bytes:
        """The whole certificate."""
        return _item(_SEQUENCE, signed_part(self.key), _ECDSA_WITH_SHA256, _item(_BITS, b"\0", self.signature))

    def verify(self) -> None:
        """Raises Malformed unless its own key signed it."""
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), self.key.raw)
        try:
            point.verify(self.signature, signed_part(self.key), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise Malformed("not a node certificate", why="it is not signed by its own key") from error


def read_node_certificate(der: bytes) -> NodeCertificate | None:
    """The certificate, if it has exactly this form; None if any byte outside key and signature differs, or if its key
    is no point of the curve."""
    begins = der.find(_KEY_BEGINS) + len(_KEY_BEGINS) - 1
    raw = der[begins : begins + _POINT]
    if len(raw) != _POINT:
        return None
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
    except ValueError:
        return None
    key = PublicKey(ALGORITHM, raw)
    head = len(_item(_SEQUENCE, signed_part(key), _ECDSA_WITH_SHA256, _item(_BITS, b"\0")))
    found = NodeCertificate(key, der[head:])
    return found if found.der == der else None


def server_name(key: PublicKey) -> str:
    """The DNS name in the certificate of this key."""
    return f"n-{key.id[:32]}.comity.invalid"


def signed_part(key: PublicKey) -> bytes:
    """The tbsCertificate of this ecdsa-p256 key."""
    name = server_name(key).encode("ascii")
    whole = _item(_SEQUENCE, _item(_SET, _item(_SEQUENCE, _COMMON_NAME, _item(_TEXT, name))))
    alternative = _item(_SEQUENCE, _ALTERNATIVE_NAME, _item(_OCTETS, _item(_SEQUENCE, _item(_DNS_NAME, name))))
    return _item(
        _SEQUENCE,
        _VERSION,
        _serial(key),
        _ECDSA_WITH_SHA256,
        whole,
        _VALIDITY,
        whole,
        _KEY_BEGINS[:-1] + key.raw,
        _item(_EXTENSIONS, _item(_SEQUENCE, _CONSTRAINTS, alternative)),
    )


def _serial(key: PublicKey) -> bytes:
    number = int(key.id[:32], 16) | 1
    return _item(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _item(tag: int, *parts: bytes) -> bytes:
    """A value in DER, of less than 64 KiB."""
    body = b"".join(parts)
    if len(body) < 128:
        return bytes((tag, len(body))) + body
    size = len(body).to_bytes(1 if len(body) < 256 else 2, "big")
    return bytes((tag, 0x80 | len(size))) + size + body
