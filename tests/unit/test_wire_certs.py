from __future__ import annotations

import pytest
from comity.trust.errors import Malformed, Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.node_record import certificate_key
from comity.wire.certs import MAX_DER, Pin, from_pem, make_certificate, to_pem
from cryptography import x509
from support.certificates import crafted

KEY = PrivateKey.generate("ecdsa-p256")
CERTIFICATE = make_certificate(KEY)


def test_a_node_certificate_carries_its_key_and_its_name() -> None:
    pin = Pin.of(CERTIFICATE)
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


@pytest.mark.parametrize(
    ("ca", "may_sign", "critical"), [(True, True, True), (False, True, True), (False, False, False)]
)
def test_a_certificate_that_may_issue_others_is_not_pinned(ca: bool, may_sign: bool, critical: bool) -> None:
    with pytest.raises(Untrusted) as caught:
        Pin.of(crafted("a.invalid", ca=ca, may_sign=may_sign, critical=critical).certificate)
    assert caught.value.code == "CERTIFICATE-CAN-ISSUE"


def test_a_certificate_that_does_not_say_what_it_may_is_not_pinned() -> None:
    with pytest.raises(Malformed):
        Pin.of(crafted("a.invalid").certificate)


def test_a_certificate_without_a_name_is_not_pinned() -> None:
    with pytest.raises(Malformed):
        Pin.of(crafted("a.invalid", may_sign=False, san=False).certificate)


@pytest.mark.parametrize("data", [b"", b"\x30", CERTIFICATE[:-1], CERTIFICATE + b"\x00", b"x" * (MAX_DER + 1)])
def test_what_is_no_certificate_is_not_pinned(data: bytes) -> None:
    with pytest.raises(Malformed):
        Pin.of(data)


def test_pem_and_der_are_the_same_certificate() -> None:
    assert from_pem(to_pem(CERTIFICATE)) == CERTIFICATE
    assert x509.load_pem_x509_certificate(to_pem(CERTIFICATE)) == x509.load_der_x509_certificate(CERTIFICATE)


@pytest.mark.parametrize("pem", [b"", b"not pem", b"\xff", to_pem(CERTIFICATE)[:-40], b"x" * 10_000])
def test_what_is_no_pem_is_malformed(pem: bytes) -> None:
    with pytest.raises(Malformed):
        from_pem(pem)
