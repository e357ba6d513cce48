"""Certificates of devices and revocation data: bounds, moments, and what is said about them."""

from __future__ import annotations

import datetime

import pytest
from comity.addons.hardware import certificates
from comity.addons.hardware.certificates import MAX_REVOCATIONS, RevocationData, VendorChain, check_revocation, load_pem
from comity.rules.hardware_evidence import MAX_CERTIFICATE, MAX_CERTIFICATES
from comity.trust.errors import Malformed, Untrusted
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from support.hardware import AT, DAY, NOW, Issuer, issue, ocsp_response, revocation_list, vendor

CA = vendor()
ROOT = CA.above[0]
LEAF = issue("GPU", CA, ca=False)
SECOND = datetime.timedelta(seconds=1)
PEM = ROOT.certificate.public_bytes(Encoding.PEM)
SIGNS_CERTIFICATES = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
SERVES = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


def chain(*above: Issuer) -> VendorChain:
    return VendorChain.parse_der([issuer.der for issuer in above])


def under(issuer: Issuer) -> VendorChain:
    return chain(issue("leaf", issuer, ca=False), issuer, *issuer.above[:-1])


def certificate(name: x509.Name, key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> x509.Certificate:
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(ROOT.certificate.subject).public_key(key)
    builder = builder.serial_number(7).not_valid_before(NOW).not_valid_after(NOW + DAY)
    return builder.sign(ROOT.key, hashes.SHA384())


def test_the_number_and_the_size_of_certificates_are_bounded() -> None:
    assert len(VendorChain.parse_der([ROOT.der] * MAX_CERTIFICATES).certificates) == MAX_CERTIFICATES
    for several, why in (
        ([], "expected 1 to 8 certificates, got 0"),
        ([ROOT.der] * (MAX_CERTIFICATES + 1), "got 9"),
        ([bytes(MAX_CERTIFICATE + 1)], "at most 8192 bytes, got 8193"),
        ([bytes(MAX_CERTIFICATE)], "cannot be read"),
    ):
        with pytest.raises(Malformed, match=why) as caught:
            VendorChain.parse_der(several)
        assert caught.value.code == "HARDWARE-EVIDENCE"


def test_a_text_of_certificates_is_bounded() -> None:
    most = MAX_CERTIFICATES * MAX_CERTIFICATE * 2
    assert len(load_pem((PEM * MAX_CERTIFICATES).ljust(most, b"\n"))) == MAX_CERTIFICATES
    assert VendorChain.parse_pem(PEM).to_der() == (ROOT.der,)
    for text, why in (
        (PEM * (MAX_CERTIFICATES + 1), "at most 8 certificates are allowed, got 9"),
        (PEM.ljust(most + 1, b"\n"), "are too many"),
        (b"", "cannot be read"),
    ):
        with pytest.raises(Malformed, match=why):
            load_pem(text)


def test_a_leaf_is_named_by_the_start_of_its_subject() -> None:
    names = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, str(at) * 64) for at in range(3)]
    key = LEAF.key.public_key()
    long = VendorChain((certificate(x509.Name(names), key),))
    assert long.leaf_name == long.leaf.subject.rfc4514_string()[:100]
    assert VendorChain((certificate(x509.Name([]), key),)).leaf_name == "a certificate without a subject"


def test_a_leaf_has_a_key_on_a_curve() -> None:
    assert chain(LEAF, CA).leaf_key == LEAF.key.public_key()
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    with pytest.raises(Malformed, match="not an ECDSA key"):
        _ = VendorChain((certificate(x509.Name([]), other),)).leaf_key


def test_an_authority_may_have_as_many_authorities_below_it_as_it_allows() -> None:
    assert under(issue("a", ROOT, path_length=0)).check([ROOT.der], AT)
    assert under(issue("b", issue("a", ROOT, path_length=1))).check([ROOT.der], AT)
    with pytest.raises(Untrusted, match="allows 1 authorities below it, and 2 are there"):
        under(issue("c", issue("b", issue("a", ROOT, path_length=1)))).check([ROOT.der], AT)


def test_usages_that_are_known_may_be_critical() -> None:
    signs = issue("a", ROOT, extensions=[(SIGNS_CERTIFICATES, True)])
    leaf = issue("leaf", signs, ca=False, extensions=[(SERVES, True)])
    assert chain(leaf, signs).check([ROOT.der], AT)


@pytest.mark.parametrize(("at", "valid"), [(AT - 1, False), (AT, True), (AT + 86_400, True), (AT + 86_401, False)])
def test_a_certificate_is_valid_on_the_first_and_the_last_second_of_its_period(at: int, valid: bool) -> None:
    leaf = issue("leaf", CA, ca=False, valid=(NOW, NOW + DAY))
    if valid:
        assert chain(leaf, CA).check([ROOT.der], at)
        return
    with pytest.raises(Untrusted, match="is valid from 2026-11-18 to 2026-11-19, not on"):
        chain(leaf, CA).check([ROOT.der], at)


def said(*data: bytes, at: int = AT) -> tuple[str, str]:
    found = check_revocation(chain(LEAF, CA).check([ROOT.der], at), data, at)
    return found.state, found.text


def test_a_list_counts_from_its_second_on_up_to_that_of_the_next() -> None:
    of_ca = revocation_list(ROOT)
    assert said(revocation_list(CA, made=NOW), of_ca)[0] == "good"
    assert said(revocation_list(CA, made=NOW + SECOND), of_ca)[0] == "unknown"
    assert said(revocation_list(CA, due=NOW), of_ca)[0] == "good"
    assert said(revocation_list(CA, due=NOW - SECOND), of_ca)[0] == "stale"


def test_a_response_counts_from_its_second_on_up_to_that_of_the_next() -> None:
    of_ca, leaf = revocation_list(ROOT), LEAF.certificate
    assert said(ocsp_response(CA, leaf, made=NOW), of_ca)[0] == "good"
    assert said(ocsp_response(CA, leaf, made=NOW + SECOND, due=NOW + DAY), of_ca)[0] == "unknown"
    assert said(ocsp_response(CA, leaf, due=NOW), of_ca)[0] == "good"
    assert said(ocsp_response(CA, leaf, due=NOW - SECOND), of_ca)[0] == "stale"
    assert said(ocsp_response(CA, leaf, due=None), of_ca)[0] == "stale"


def test_a_list_revokes_from_the_second_that_it_says() -> None:
    of_ca = revocation_list(ROOT)
    later = revocation_list(CA, [LEAF.certificate], revoked_at=NOW + SECOND)
    assert said(later, of_ca)[0] == "good"
    with pytest.raises(Untrusted, match="CN=GPU is on hold, by data of 2026-11-17"):
        said(revocation_list(CA, [LEAF.certificate], revoked_at=NOW), of_ca)


@pytest.mark.parametrize(
    ("reason", "shown"),
    [(None, "revoked .no reason given."), (x509.ReasonFlags.key_compromise, "revoked .keyCompromise.")],
)
def test_why_a_certificate_was_revoked_is_said(reason: x509.ReasonFlags | None, shown: str) -> None:
    leaf, revoked = LEAF.certificate, ocsp.OCSPCertStatus.REVOKED
    for data in (revocation_list(CA, [leaf], reason=reason), ocsp_response(CA, leaf, revoked, reason=reason)):
        with pytest.raises(Untrusted, match=shown) as caught:
            said(data)
        assert caught.value.code == "HARDWARE-UNTRUSTED"


def test_the_oldest_data_and_what_is_not_covered_are_named() -> None:
    old = revocation_list(ROOT, made=NOW - 5 * DAY)
    assert said(revocation_list(CA), old) == ("good", "no certificate is revoked by data of 2026-11-13 and later")
    assert said(old) == ("unknown", "no revocation data at hand for CN=GPU")
    assert said() == ("unknown", "no revocation data at hand for CN=GPU, CN=NVIDIA GH100 Provisioner ICA 1")
    alone = chain(ROOT).check([ROOT.der], AT)
    assert check_revocation(alone, [old], AT).text == "no revocation data at hand for the chain"


def test_the_number_and_the_size_of_revocation_data_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    of_leaf, of_ca = revocation_list(CA), revocation_list(ROOT)
    assert said(*[of_leaf] * (MAX_REVOCATIONS - 1), of_ca)[0] == "good"
    assert said(*[of_leaf] * MAX_REVOCATIONS, of_ca)[0] == "unknown"
    monkeypatch.setattr(certificates, "MAX_REVOCATION", max(len(of_leaf), len(of_ca)))
    assert said(of_leaf, of_ca)[0] == "good"
    monkeypatch.setattr(certificates, "MAX_REVOCATION", len(of_ca) - 1)
    assert said(of_ca, of_leaf)[0] == "unknown"


def test_what_a_file_of_revocation_data_is_can_be_read_without_its_chain() -> None:
    made, due = AT - 86_400, AT + 30 * 86_400
    assert RevocationData.parse(revocation_list(CA)) == RevocationData(
        "list", "CN=NVIDIA GH100 Provisioner ICA 1", made, due
    )
    response = ocsp_response(CA, LEAF.certificate)
    assert RevocationData.parse(response) == RevocationData("response", "an OCSP responder", made, AT + 86_400)
    undated = ocsp_response(CA, LEAF.certificate, due=None)
    assert RevocationData.parse(undated) == RevocationData("response", "an OCSP responder", made, None)
    failed = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
    for data in (b"", b"x", ROOT.der, failed.public_bytes(Encoding.DER)):
        with pytest.raises(Malformed) as caught:
            RevocationData.parse(data)
        assert caught.value.code == "HARDWARE-EVIDENCE"


def test_the_issuer_of_a_list_is_named_by_the_start_of_its_subject() -> None:
    names = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, str(at) * 64) for at in range(3)]
    builder = x509.CertificateRevocationListBuilder().issuer_name(x509.Name(names))
    made = builder.last_update(NOW).next_update(NOW + DAY).sign(CA.key, hashes.SHA384())
    shown = x509.Name(names).rfc4514_string()[:100]
    assert RevocationData.parse(made.public_bytes(Encoding.DER)).issuer == shown


def test_a_response_may_come_with_the_certificate_of_its_issuer() -> None:
    builder = ocsp.OCSPResponseBuilder().add_response(
        LEAF.certificate, CA.certificate, hashes.SHA256(), ocsp.OCSPCertStatus.GOOD, NOW, NOW + DAY, None, None
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, CA.certificate)
    made = builder.certificates([CA.certificate]).sign(CA.key, hashes.SHA384())
    assert said(made.public_bytes(Encoding.DER), revocation_list(ROOT))[0] == "good"
