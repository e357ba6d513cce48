"""Certificates of nodes, made from their keys."""

from __future__ import annotations

import pytest
from comity.node.members import Membership, OwnNode
from comity.trust.errors import Malformed
from comity.trust.keys import PrivateKey
from comity.trust.node_records import certificate_key
from comity.wire.tls import MAX_DER, CertificatePin, from_pem, make_certificate, to_pem
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import example, given
from hypothesis import strategies as st
from support.certificates import crafted
from support.world import found, node, seat

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group of P-256."""
KEY = PrivateKey.generate("ecdsa-p256")
CERTIFICATE = make_certificate(KEY)
FIRST_VERSION = b"""\
-----BEGIN CERTIFICATE-----
MIIB1zCCAX2gAwIBAgIRAJmKEtbFQxMd4v42x70KB0EwCgYIKoZIzj0EAwIwPDE6
MDgGA1UEAwwxbi05OThhMTJkNmM1NDMxMzFkZTJmZTM2YzdiZDBhMDc0MS5jb21p
dHkuaW52YWxpZDAgFw03MDAxMDEwMDAwMDBaGA85OTk5MTIzMTIzNTk1OVowPDE6
MDgGA1UEAwwxbi05OThhMTJkNmM1NDMxMzFkZTJmZTM2YzdiZDBhMDc0MS5jb21p
dHkuaW52YWxpZDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABOEF7PFeNp0TYa7w
ekpUCsBBpyXsze//eKywYrvsZe+iU7oRk/H08fmR+qA4RHsSYrVXU7EgG5G+F+nf
iwGMYWGjXjBcMAwGA1UdEwEB/wQCMAAwDgYDVR0PAQH/BAQDAgeAMDwGA1UdEQQ1
MDOCMW4tOTk4YTEyZDZjNTQzMTMxZGUyZmUzNmM3YmQwYTA3NDEuY29taXR5Lmlu
dmFsaWQwCgYIKoZIzj0EAwIDSAAwRQIgKiPh3DYiaY8plRJJpNTHknf6ue6HdSUU
G69xlqu67hMCIQCRLj+dNi/k4ijOQHWx0xsTCyRjiZjIHC2GjFbkFoWa0A==
-----END CERTIFICATE-----
"""


def test_a_node_certificate_carries_its_key_and_its_name() -> None:
    pin = CertificatePin.of(CERTIFICATE)
    assert certificate_key(pin.certificate) == KEY.public
    assert pin.server_name == f"n-{KEY.public.id[:32]}.comity.invalid"


def test_no_clock_decides_about_a_node_certificate() -> None:
    certificate = x509.load_der_x509_certificate(CERTIFICATE)
    assert certificate.not_valid_before_utc.year == 1970
    assert certificate.not_valid_after_utc.year == 9999


def test_a_node_certificate_signs_itself_and_may_sign_no_other() -> None:
    certificate = x509.load_der_x509_certificate(CERTIFICATE)
    certificate.verify_directly_issued_by(certificate)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert not usage.value.key_cert_sign


@pytest.mark.parametrize("alg", ["ed25519", "ecdsa-p384", "ml-dsa-65"])
def test_keys_of_other_kinds_get_no_certificate(alg: str) -> None:
    with pytest.raises(Malformed):
        make_certificate(PrivateKey.generate(alg))


def test_the_certificate_of_a_key_never_changes() -> None:
    """A certificate made by the first version: another encoding of the fields would lock its node out."""
    pin = CertificatePin.of(from_pem(FIRST_VERSION))
    assert pin.server_name == "n-998a12d6c543131de2fe36c7bd0a0741.comity.invalid"


@pytest.mark.parametrize("ca", [True, False])
@pytest.mark.parametrize("may_sign", [True, False, None])
@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize("san", [True, False])
def test_certificates_of_another_form_are_not_pinned(
    ca: bool, may_sign: bool | None, critical: bool, san: bool
) -> None:
    with pytest.raises(Malformed):
        CertificatePin.of(crafted("a.invalid", ca=ca, may_sign=may_sign, critical=critical, san=san).certificate)


def test_a_certificate_with_another_signature_than_its_own_keys_is_not_pinned() -> None:
    other = make_certificate(PrivateKey.generate("ecdsa-p256"))
    tbs = x509.load_der_x509_certificate(CERTIFICATE).tbs_certificate_bytes
    foreign = x509.load_der_x509_certificate(other).signature
    own = x509.load_der_x509_certificate(CERTIFICATE).signature
    assert tbs in CERTIFICATE
    with pytest.raises(Malformed):
        CertificatePin.of(CERTIFICATE.replace(own, (foreign + bytes(8))[: len(own)]))


def test_a_second_spelling_of_the_signature_is_not_pinned() -> None:
    even = next(made for made in iter(lambda: make_certificate(KEY), b"") if made[-1] % 2 == 0)
    signature = x509.load_der_x509_certificate(even).signature
    assert even.endswith(b"\x00" + signature)
    with pytest.raises(Malformed):
        CertificatePin.of(even[: -len(signature) - 1] + b"\x01" + signature)


def turned(certificate: bytes) -> bytes:
    """The certificate with the other one of its two valid signatures, which anybody can make."""
    shown = x509.load_der_x509_certificate(certificate)
    r, s = decode_dss_signature(shown.signature)
    signature, tbs = encode_dss_signature(r, ORDER - s), shown.tbs_certificate_bytes
    algorithm = certificate[4 + len(tbs) : 4 + len(tbs) + 12]
    body = tbs + algorithm + bytes((3, len(signature) + 1, 0)) + signature
    return b"\x30\x82" + len(body).to_bytes(2, "big") + body


def test_the_other_signature_of_a_certificate_is_another_certificate() -> None:
    """It verifies too. Nodes are known by the bytes in their record, so it is the certificate of no node."""
    own, other = node(seat("CH")), node(seat("SG"))
    members = Membership(OwnNode.parse(own.seat.entry.line, own.entry.line), found([own, other]))
    known = other.record.tls
    twin = turned(known)
    assert CertificatePin.of(twin).server_name == CertificatePin.of(known).server_name
    assert (members.by_certificate(known) is None, members.by_certificate(twin) is None) == (False, True)
    assert CertificatePin.of(twin) not in members.pins()


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(st.integers(0, len(CERTIFICATE) - 1), st.integers(1, 255))
@example(12, 0x20)  # the version
def test_every_changed_byte_of_a_certificate_is_detected(at: int, change: int) -> None:
    """A certificate that BoringSSL reads otherwise than `cryptography` cannot be pinned; this matters most
    for issuers.
    """
    changed = bytearray(CERTIFICATE)
    changed[at] ^= change
    with pytest.raises(Malformed):
        CertificatePin.of(bytes(changed))


@pytest.mark.parametrize("data", [b"", b"\x30", CERTIFICATE[:-1], CERTIFICATE + b"\x00", b"x" * (MAX_DER + 1)])
def test_an_invalid_certificate_is_not_pinned(data: bytes) -> None:
    with pytest.raises(Malformed):
        CertificatePin.of(data)


def test_pem_and_der_are_the_same_certificate() -> None:
    assert from_pem(to_pem(CERTIFICATE)) == CERTIFICATE
    assert x509.load_pem_x509_certificate(to_pem(CERTIFICATE)) == x509.load_der_x509_certificate(CERTIFICATE)


@pytest.mark.parametrize("pem", [b"", b"not pem", b"\xff", to_pem(CERTIFICATE)[:-40], b"x" * 10_000])
def test_an_invalid_pem_is_malformed(pem: bytes) -> None:
    with pytest.raises(Malformed):
        from_pem(pem)
