"""Hardware evidence of invented devices: what is verified, what is claimed, and the finding for each tampering."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from comity.addons.hardware.appraisal import HardwarePins, appraise
from comity.addons.hardware.certificates import VendorChain, check_revocation
from comity.addons.hardware.evidence_files import read_gpu_list
from comity.rules.hardware_evidence import (
    KINDS,
    SEV_SNP,
    Attested,
    Challenge,
    Device,
    DeviceResult,
    HardwareEvidence,
    signed_devices,
)
from comity.rules.signing import sign_content
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.statement import SideObject, parse_entry
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from support.case import nodes
from support.hardware import (
    AT,
    DAY,
    NOW,
    Issuer,
    authority,
    certificates_checked_once,
    flipped,
    gpu,
    gpu_leaf,
    issue,
    ocsp_responder,
    ocsp_response,
    revocable,
    revocation_list,
    snp,
    tdx,
    vendor,
)

NONCE = bytes(range(32))
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
NO_SIGNING = x509.KeyUsage(True, False, False, False, False, False, True, False, False)
CA = vendor()
ROOT = CA.above[0]
PINS = HardwarePins(roots=dict.fromkeys(KINDS, (ROOT.der,)))
GPU, SNP, QUOTE = gpu(CA, NONCE), snp(CA, NONCE), tdx(CA, NONCE)
DEVICES = {"gpu": GPU, "snp": SNP, "tdx 4": QUOTE, "tdx 5": tdx(CA, NONCE, version=5)}


def appraised(device: Device, pins: HardwarePins = PINS, nonce: bytes = NONCE, at: int = AT) -> DeviceResult:
    (result,) = appraise(HardwareEvidence((device,)), nonce, pins, at)
    return result


def failed(result: DeviceResult) -> list[str]:
    return [finding.name for finding in result.findings if finding.state == "fail"]


def text_of(result: DeviceResult, name: str) -> str:
    (text,) = (finding.text for finding in result.findings if finding.name == name)
    return text


@pytest.fixture(autouse=True, scope="module")
def _certificates_are_checked_once() -> Iterator[None]:
    """Thousands of changed reports have the same few certificates."""
    with certificates_checked_once():
        yield


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_a_device_under_a_pinned_root_with_this_challenge_is_verified(device: Device) -> None:
    result = appraised(device)
    assert result.state == "verified", result
    assert failed(result) == []


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_without_a_pinned_root_a_device_is_only_claimed(device: Device) -> None:
    result = appraised(device, HardwarePins())
    assert (result.state, failed(result)) == ("claimed", [])


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_another_vendors_root_is_refused(device: Device) -> None:
    other = HardwarePins(roots=dict.fromkeys(KINDS, (vendor().above[0].der,)))
    assert failed(appraised(device, other)) == ["chain"]


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_another_challenge_is_refused(device: Device) -> None:
    assert failed(appraised(device, nonce=bytes(32))) == ["challenge"]


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
@pytest.mark.parametrize("days", [-2000, 2000])
def test_a_certificate_that_is_not_valid_at_the_time_is_refused(device: Device, days: int) -> None:
    result = appraised(device, at=AT + days * 86_400)
    assert failed(result) == ["chain"]
    assert "is valid from" in text_of(result, "chain")


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_every_byte_of_a_report_is_bound(device: Device) -> None:
    """Every changed bit of a report gives a failed finding, or the parser refuses it."""
    pem = device.report.find(b"-----BEGIN")
    end = len(device.report) if pem < 0 else pem  # certificates are judged by their own signatures
    for offset in range(end):
        assert appraised(flipped(device, offset, offset % 8)).state == "failed", offset


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_a_truncated_or_overlong_report_is_refused(device: Device) -> None:
    for size in range(0, len(device.report), 7):
        assert failed(appraised(replace(device, report=device.report[:size]))) == ["evidence"]
    assert failed(appraised(replace(device, report=device.report + b"x"))) == ["evidence"]


@pytest.mark.parametrize("device", [GPU, SNP], ids=["gpu", "snp"])
def test_a_leaf_of_another_device_is_refused(device: Device) -> None:
    other = gpu(CA, NONCE) if device is GPU else snp(CA, NONCE)
    assert failed(appraised(replace(device, certificates=other.certificates))) == ["signature"]


def test_a_chip_or_a_tcb_that_the_certificate_does_not_name_is_refused() -> None:
    """A report that is signed under a certificate without these names proves nothing about the chip."""
    leaf = issue("SEV-VCEK", authority(CA, SEV_SNP), ca=False)
    bare = snp(CA, NONCE, leaf=leaf)
    assert failed(appraised(bare)) == ["signature"]
    assert "its chip is not the certificate's" in text_of(appraised(bare), "signature")


@pytest.mark.parametrize("device", [snp(CA, NONCE, policy=0x80000), tdx(CA, NONCE, attributes=1)], ids=["snp", "tdx"])
def test_a_machine_that_the_host_may_debug_fails(device: Device) -> None:
    assert failed(appraised(device)) == ["isolation"]


@pytest.mark.parametrize(
    ("reference", "state"),
    [
        pytest.param({"driver": frozenset({"550.90.07"})}, "pass", id="accepted"),
        pytest.param({"driver": frozenset({"535.1"})}, "fail", id="another driver"),
        pytest.param({"firmware": frozenset({"1"})}, "unknown", id="not stated"),
    ],
)
def test_reference_values_are_compared(reference: dict[str, frozenset[str]], state: str) -> None:
    result = appraised(GPU, replace(PINS, reference={GPU.kind: reference}))
    assert [f.state for f in result.findings if f.name.startswith("reference")] == [state]
    assert result.state == ("failed" if state == "fail" else "verified")


def test_a_device_that_is_stated_twice_fails_the_second_time() -> None:
    first, second, third = appraise(HardwareEvidence((GPU, SNP, GPU)), NONCE, PINS, AT)
    assert (first.state, second.state, third.state) == ("verified", "verified", "failed")
    assert failed(third) == ["device"]


def test_one_malformed_device_does_not_change_the_others() -> None:
    results = appraise(HardwareEvidence((replace(GPU, report=b""), SNP)), NONCE, PINS, AT)
    assert [result.state for result in results] == ["failed", "verified"]


def test_a_device_counts_as_offered_twice_only_if_it_signed_both_challenges() -> None:
    mine = HardwareEvidence((GPU, QUOTE))
    assert signed_devices(appraise(mine, NONCE, PINS, AT)) == {appraised(GPU).device, appraised(QUOTE).device}
    assert signed_devices(appraise(mine, bytes(32), PINS, AT)) == frozenset()  # copied from another offer
    assert signed_devices([appraised(replace(QUOTE, report=b"x"))]) == frozenset()


def chain(*above: Issuer) -> VendorChain:
    return VendorChain.parse_der([issuer.der for issuer in above])


def test_a_chain_may_carry_its_root_or_leave_it_out() -> None:
    leaf = issue("leaf", CA, ca=False)
    assert chain(leaf, CA, ROOT).check([ROOT.der], AT) == chain(leaf, CA).check([ROOT.der], AT)
    assert len(chain(leaf, CA).check([CA.der], AT).certificates) == 2


def test_of_several_pinned_roots_of_one_name_the_one_that_signed_counts() -> None:
    leaf, other = issue("leaf", CA, ca=False), vendor().above[0]
    for roots in ([other.der, ROOT.der], [ROOT.der, other.der]):
        assert chain(leaf, CA).check(roots, AT).certificates[-1] == ROOT.certificate
    with pytest.raises(Untrusted, match="is not signed by"):
        chain(leaf, CA).check([other.der], AT)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: chain(issue("x", issue("no CA", ROOT, ca=False), ca=False), issue("no CA", ROOT, ca=False)), "issued"),
        (lambda: under(issue("no CA", ROOT, ca=False)), "may not sign certificates"),
        (lambda: under(issue("b", issue("a", ROOT, path_length=0))), "allows 0 authorities below it"),
        (lambda: under(issue("a", ROOT, extensions=[(UNKNOWN, True)])), "critical extension 1.2.3.4"),
        (lambda: under(issue("old", ROOT, valid=(NOW - 9 * DAY, NOW - DAY))), "is valid from"),
        (lambda: chain(issue("x", CA, ca=False), issue("NVIDIA GH100 Provisioner ICA 1", ROOT)), "is not signed by"),
        (lambda: under(issue("a", ROOT, extensions=[(NO_SIGNING, True)])), "may not sign certificates"),
    ],
    ids=["other issuer", "not a CA", "path length", "critical", "expired", "same name", "usage"],
)
def test_a_chain_that_breaks_a_rule_is_refused(make: Callable[[], VendorChain], why: str) -> None:
    with pytest.raises(Untrusted) as caught:
        make().check([ROOT.der], AT)
    assert why in str(caught.value) or why == "issued"


def test_a_chain_under_roots_of_other_names_names_the_issuer_that_is_not_pinned() -> None:
    leaf = issue("leaf", CA, ca=False)
    for roots in ([], [vendor("Elsewhere").above[0].der]):
        with pytest.raises(Untrusted, match=r"no pinned root issued .*; its issuer is ") as refused:
            chain(leaf, CA).check(roots, AT)
        assert refused.value.code == "HARDWARE-UNTRUSTED"


def under(issuer: Issuer) -> VendorChain:
    return chain(issue("leaf", issuer, ca=False), issuer, *issuer.above[:-1])


def test_a_key_on_another_curve_is_refused() -> None:
    leaf = gpu_leaf(CA, curve=ec.SECP256R1())
    assert failed(appraised(gpu(CA, NONCE, leaf=leaf))) == ["signature"]


def revocation(device: Device, data: Sequence[bytes], at: int = AT) -> str:
    path = VendorChain.parse_der(device.certificates[1:]).check([ROOT.der], at)
    return check_revocation(path, data, at).state


def test_revocation_is_unknown_until_data_cover_every_certificate() -> None:
    of_leaf, of_ca = revocation_list(CA), revocation_list(ROOT)
    assert revocation(GPU, []) == "unknown"
    assert revocation(GPU, [of_leaf]) == "unknown"
    assert revocation(GPU, [of_leaf, of_ca]) == "good"
    assert appraised(GPU, replace(PINS, revocations=(of_leaf, of_ca))).state == "verified"


def test_a_partial_list_revokes_its_certificates_and_covers_no_others() -> None:
    delta = (x509.DeltaCRLIndicator(7), True)
    authorities = (x509.IssuingDistributionPoint(None, None, False, True, None, False, False), True)
    for part in (delta, authorities):
        of_leaf = revocation_list(CA, extensions=[(x509.CRLNumber(8), False), part])
        assert revocation(GPU, [of_leaf, revocation_list(ROOT)]) == "unknown"
        listing = revocation_list(CA, [revocable(GPU)], extensions=[part])
        assert failed(appraised(GPU, replace(PINS, revocations=(listing,)))) == ["revocation"]
    whole = revocation_list(CA, extensions=[(x509.CRLNumber(8), False)])
    assert revocation(GPU, [whole, revocation_list(ROOT)]) == "good"


def test_a_certificate_on_hold_is_refused_by_a_list_and_by_a_response() -> None:
    for data in (
        revocation_list(CA, [revocable(GPU)]),
        ocsp_response(CA, revocable(GPU), ocsp.OCSPCertStatus.REVOKED),
        ocsp_response(CA, revocable(GPU), ocsp.OCSPCertStatus.REVOKED, responder=ocsp_responder(CA)),
    ):
        result = appraised(GPU, replace(PINS, revocations=(data,)))
        assert failed(result) == ["revocation"]
        assert "is on hold" in text_of(result, "revocation")


def test_a_revoked_authority_is_refused() -> None:
    data = revocation_list(ROOT, [CA.certificate], reason=None)
    result = appraised(GPU, replace(PINS, revocations=(data,)))
    assert "revoked (no reason given)" in text_of(result, "revocation")


@pytest.mark.parametrize("responder", [None, ocsp_responder(CA)], ids=["issuer", "responder"])
def test_a_response_counts_as_a_list_does(responder: Issuer | None) -> None:
    assert revocation(GPU, [ocsp_response(CA, revocable(GPU), responder=responder), revocation_list(ROOT)]) == "good"


def test_revocation_data_of_strangers_and_of_the_future_count_as_absent() -> None:
    stranger = vendor()
    held = [revocable(GPU)]
    useless = (
        b"",
        b"x" * 100,
        revocation_list(CA, held, signer=stranger),
        revocation_list(CA, held, made=NOW + DAY),
        ocsp_response(CA, revocable(GPU), ocsp.OCSPCertStatus.UNKNOWN),
        ocsp_response(CA, revocable(GPU), ocsp.OCSPCertStatus.REVOKED, responder=issue("no OCSP", CA, ca=False)),
        ocsp_response(CA, revocable(GPU), ocsp.OCSPCertStatus.REVOKED, responder=ocsp_responder(stranger)),
        ocsp_response(CA, revocable(gpu(CA, NONCE)), ocsp.OCSPCertStatus.REVOKED),
    )
    assert revocation(GPU, useless) == "unknown"
    assert appraised(GPU, replace(PINS, revocations=useless)).state == "verified"


def test_old_data_still_revoke_and_no_longer_confirm() -> None:
    old = revocation_list(CA, made=NOW - 9 * DAY, due=NOW - DAY)
    assert revocation(GPU, [old, revocation_list(ROOT)]) == "stale"
    held = revocation_list(CA, [revocable(GPU)], made=NOW - 9 * DAY, due=NOW - DAY)
    assert failed(appraised(GPU, replace(PINS, revocations=(held,)))) == ["revocation"]
    assert revocation(GPU, [old, revocation_list(CA), revocation_list(ROOT)]) == "good"


NODE = nodes(1)[0]
CHALLENGE = Challenge(sha256(b"offer"), NODE.record.origin, 7, sha256(b"root"), NODE.record.node.id)
EVIDENCE = HardwareEvidence((GPU, SNP, QUOTE))
ATTESTED = Attested(NODE.record.node, CHALLENGE, SideObject.of(EVIDENCE.encode()))


def test_evidence_and_its_statement_read_back() -> None:
    assert HardwareEvidence.parse(EVIDENCE.encode()) == EVIDENCE
    entry = parse_entry(sign_content(ATTESTED, NODE.online).line)
    assert Attested.parse(entry.statement) == ATTESTED


def test_every_part_of_a_challenge_changes_its_nonce() -> None:
    others = (
        replace(CHALLENGE, subject=sha256(b"another")),
        replace(CHALLENGE, origin="other/log"),
        replace(CHALLENGE, size=8),
        replace(CHALLENGE, root=sha256(b"another")),
        replace(CHALLENGE, key=sha256(b"another")),
    )
    assert len({CHALLENGE.nonce, *(other.nonce for other in others)}) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"predicate": "vouched"},
        {"objects": ()},
        {"objects": (SideObject.of(b"x"),)},
        {"body": {"challenge": CHALLENGE.to_json()}},
        {"body": {"challenge": {**CHALLENGE.to_json(), "size": 0}, "evidence": ATTESTED.evidence.to_json()}},
        {"body": {"challenge": {**CHALLENGE.to_json(), "key": "0" * 64}, "evidence": ATTESTED.evidence.to_json()}},
        {"body": {"challenge": {**CHALLENGE.to_json(), "x": 1}, "evidence": ATTESTED.evidence.to_json()}},
    ],
)
def test_a_statement_that_is_not_of_the_form_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        Attested.parse(replace(ATTESTED.statement(), **change))  # type: ignore[arg-type]  # each is a field


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        EVIDENCE.encode() + b" ",
        b'{"devices":[],"schema":"comity/hardware-evidence/v1"}',
        b'{"devices":[{"certificates":[],"kind":"other","report":"AA=="}],"schema":"comity/hardware-evidence/v1"}',
        b'{"devices":[{"certificates":["A"],"kind":"intel-tdx","report":"AA=="}],"schema":"comity/hardware-evidence/v1"}',
    ],
)
def test_a_document_that_is_not_of_the_form_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        HardwareEvidence.parse(data)


@pytest.mark.parametrize(
    "data", [b"[]", b"{}", b'[{"arch":"HOPPER","certificate":"AA==","evidence":"AA==","nonce":"00"}]']
)
def test_a_list_of_gpus_that_is_not_of_the_form_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_gpu_list(data)
