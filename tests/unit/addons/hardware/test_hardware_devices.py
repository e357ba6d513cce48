"""Which device evidence is of: one identifier whatever the certificates, and the kind that the vendor's names say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from comity.addons.hardware.appraisal import HardwarePins, appraise
from comity.addons.hardware.certificates import VendorChain
from comity.addons.hardware.devices import device_id
from comity.addons.hardware.reports import GpuReport
from comity.rules.hardware_evidence import (
    KINDS,
    NVIDIA,
    AppraisalRow,
    Device,
    DeviceResult,
    HardwareEvidence,
    chip_of,
    signed_devices,
)
from comity.trust.encoding import sha256
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from support.hardware import (
    AT,
    CHIP_ID,
    Issuer,
    chip_authority,
    gpu,
    gpu_leaf,
    issue,
    snp,
    tdx,
    twin,
    vendor,
)

NONCE = bytes(range(32))
CA = vendor()
ROOT = CA.above[0]
PINS = HardwarePins(roots=dict.fromkeys(KINDS, (ROOT.der,)))


def appraised(*devices: Device, pins: HardwarePins = PINS) -> tuple[DeviceResult, ...]:
    return appraise(HardwareEvidence(devices), NONCE, pins, AT)


def kind_row(device: Device, pins: HardwarePins = PINS) -> AppraisalRow:
    (result,) = appraised(device, pins=pins)
    (row,) = (finding for finding in result.findings if finding.name == "kind")
    return row


def with_twin(device: Device, number: int) -> Device:
    """The device with the other form of the signature in one of its certificates."""
    certificates = list(device.certificates)
    certificates[number] = twin(certificates[number])
    return replace(device, certificates=tuple(certificates))


def same_gpu_twice() -> tuple[Device, Device]:
    own = chip_authority(CA)
    return gpu(CA, NONCE, leaf=gpu_leaf(own)), gpu(CA, NONCE, leaf=gpu_leaf(own))


TWINS: dict[str, Callable[[], tuple[Device, Device]]] = {
    "the other form of a leaf's signature": lambda: (made := gpu(CA, NONCE), with_twin(made, 0)),
    "the other form of the chip's own": lambda: (made := gpu(CA, NONCE), with_twin(made, 1)),
    "the other form of a VCEK's": lambda: (made := snp(CA, NONCE), with_twin(made, 0)),
    "a GPU with keys of two versions of firmware": same_gpu_twice,
    "a chip with two VCEKs": lambda: (snp(CA, NONCE), snp(CA, NONCE)),
    "a platform with two PCKs": lambda: (tdx(CA, NONCE), tdx(CA, NONCE, version=5)),
}


@pytest.mark.parametrize("name", TWINS)
def test_a_device_with_two_certificates_is_one_device(name: str) -> None:
    one, other = TWINS[name]()
    assert (one.certificates, one.report) != (other.certificates, other.report)
    first, second = appraised(one, other)
    assert (first.state, second.state) == ("verified", "failed")
    assert second.findings[-1] == AppraisalRow("device", "fail", "the same device is stated twice")
    assert signed_devices([first]) == signed_devices([second]) != frozenset()


def test_two_devices_are_two() -> None:
    """Of one vendor, of one line, and with reports of the same content."""
    results = appraised(
        gpu(CA, NONCE), gpu(CA, NONCE),
        snp(CA, NONCE), snp(CA, NONCE, chip_id=bytes(64)),
        tdx(CA, NONCE), tdx(CA, NONCE, ppid=b"p" * 16),
    )  # fmt: skip
    assert [result.state for result in results] == ["verified"] * 6
    assert len({result.device for result in results}) == 6


def test_a_chip_id_or_an_authority_that_no_pinned_root_certifies_names_no_device() -> None:
    """Otherwise a stranger with certificates of its own could state another's device, and have both refused."""
    stranger = vendor()
    real = chip_authority(CA)
    forged = issue(
        "GH100 A01 GSP FMC LF", Issuer(real.certificate, ec.generate_private_key(ec.SECP384R1()), real.above)
    )
    victims = appraised(snp(CA, NONCE), gpu(CA, NONCE, leaf=gpu_leaf(real)))
    for pins in (PINS, HardwarePins()):
        others = appraised(snp(stranger, NONCE, chip_id=CHIP_ID), gpu(CA, NONCE, leaf=forged), pins=pins)
        assert all(result.state != "verified" for result in others)
        assert not signed_devices(victims) & signed_devices(others)
        assert not signed_devices(appraised(snp(CA, NONCE), pins=pins)) & signed_devices(others)


def chained(*names: str) -> Device:
    """A GPU's report, and certificates with these names of authorities, from the vendor's down, and of the leaf."""
    above = ROOT
    for name in names[:-1]:
        above = issue(name, above)
    return gpu(CA, NONCE, leaf=issue(names[-1], above, ca=False))


GH100 = ("NVIDIA GH100 Provisioner ICA 1", "GH100 A01 GSP BROM", "GH100 A01 GSP FMC LF")
LS10 = ("NVIDIA GH100 Identity", "NVIDIA LS_10 Provisioner ICA 1", "LS_10 A01 FSP BROM", "LS_10 A01 FSP FMC LF")
SWITCH = "the certificates are of an NVLink switch (LS_10), not of a GPU"


@pytest.mark.parametrize(
    ("names", "state", "text"),
    [
        (GH100, "pass", "a GPU with the chip GH100 (H100, H200, H800, H20, GH200)"),
        (("NVIDIA GH100 Identity", *GH100), "pass", "a GPU with the chip GH100"),
        (LS10, "fail", SWITCH),
        ((*GH100[:2], LS10[3]), "fail", SWITCH),
        ((*LS10[:3], GH100[2]), "fail", SWITCH),
        ((*LS10[:2], *GH100[1:]), "fail", SWITCH),
        ((GH100[0], "GB100 A01 GSP BROM", "GB100 A01 GSP FMC LF"), "fail", "the certificates name different chips"),
        (GH100[1:], "fail", "not of an NVIDIA GPU: GH100 A01 GSP FMC LF under GH100 A01 GSP BROM under Vendor root"),
        ((GH100[0], GH100[2]), "fail", "not of an NVIDIA GPU"),
        ((*GH100, "GH100 A01 GSP FMC LF"), "fail", "not of an NVIDIA GPU"),
        ((*GH100[:2], "GH100 A01 GSP FMC LF2"), "fail", "not of an NVIDIA GPU"),
        (("NVIDIA GX900 Provisioner ICA 1", "GX900 A01 GSP BROM", "GX900 A01 GSP FMC LF"), "unknown", "GX900"),
    ],
)  # fmt: skip
def test_a_gpu_is_what_every_name_up_to_its_vendor_says(names: tuple[str, ...], state: str, text: str) -> None:
    row = kind_row(chained(*names))
    assert row.state == state and text in row.text, row


def test_a_name_given_twice_is_none() -> None:
    names = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name) for name in (LS10[3], GH100[2])])
    own = chip_authority(CA)
    leaf = issue(names, own, ca=False)
    assert kind_row(gpu(CA, NONCE, leaf=leaf)).state == "fail"


def test_a_device_without_a_pinned_root_is_of_no_known_kind() -> None:
    row = kind_row(gpu(CA, NONCE), HardwarePins())
    assert (row.state, "under no pinned root" in row.text) == ("unknown", True)
    assert kind_row(chained(*LS10), HardwarePins()).state == "fail"


def test_a_device_of_an_unknown_model_is_claimed_and_not_verified() -> None:
    (result,) = appraised(chained("NVIDIA GX900 Provisioner ICA 1", "GX900 A01 GSP BROM", "GX900 A01 GSP FMC LF"))
    assert (result.state, result.model) == ("claimed", "GX900")


def test_processors_are_named_too() -> None:
    assert kind_row(snp(CA, NONCE)) == AppraisalRow("kind", "pass", "a processor of the line Milan")
    assert kind_row(tdx(CA, NONCE)) == AppraisalRow("kind", "pass", "a processor with TDX")
    bare = snp(CA, NONCE, leaf=issue("SEV-VLEK", CA, ca=False))
    assert "not of a chip with SEV-SNP: SEV-VLEK under" in kind_row(bare).text


def test_a_quote_of_another_enclave_that_the_machine_certified_is_refused() -> None:
    """The owner of a machine with SGX may run an enclave that signs any quote, and its PCK certifies it."""
    (result,) = appraised(tdx(CA, NONCE, enclave=bytes(32)))
    assert result.state == "failed"
    assert [row.name for row in result.findings if row.state == "fail"] == ["kind"]
    assert "not of Intel's quoting enclave for trust domains" in kind_row(tdx(CA, NONCE, enclave=bytes(32))).text


@pytest.mark.parametrize("ppid", [b"", b"p" * 15, b"p" * 17])
def test_a_pck_that_names_no_platform_is_refused(ppid: bytes) -> None:
    (result,) = appraised(tdx(CA, NONCE, ppid=ppid))
    assert [(row.name, row.state) for row in result.findings] == [("evidence", "fail")]
    assert "names no platform" in result.findings[0].text


def test_a_model_is_a_fact_that_reference_values_may_name() -> None:
    for accepted, state in (("GH100", "verified"), ("GB100", "failed")):
        reference = {NVIDIA: {"model": frozenset({accepted})}}
        (result,) = appraised(gpu(CA, NONCE), pins=replace(PINS, reference=reference))
        assert (result.state, dict(result.facts)["model"]) == (state, "GH100")


def test_the_identifier_of_a_gpu_is_the_public_key_of_its_own_authority() -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    own = chip_authority(CA)
    (result,) = appraised(gpu(CA, NONCE, leaf=gpu_leaf(own)))
    key = own.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert result.device == sha256(key)
    assert appraised(snp(CA, NONCE))[0].device == sha256(CHIP_ID)


@pytest.mark.parametrize(
    ("vendor_name", "accelerator", "chip"),
    [
        ("NVIDIA", "H100", "GH100"),
        ("nvidia", "H100-SXM", "GH100"),
        ("NVIDIA", "h200", "GH100"),
        ("NVIDIA", "GH200", "GH100"),
        ("NVIDIA", "B200", "GB100"),
        ("NVIDIA", "A100-80GB", None),
        ("NVIDIA", "H1000", None),
        ("AMD", "H100", None),
        ("NVIDIA", "", None),
    ],
)
def test_an_accelerator_of_an_offer_has_a_known_chip(vendor_name: str, accelerator: str, chip: str | None) -> None:
    assert chip_of(vendor_name, accelerator) == chip


@pytest.mark.parametrize("made", [gpu(CA, NONCE), snp(CA, NONCE), tdx(CA, NONCE)], ids=["gpu", "snp", "tdx"])
def test_surplus_bytes_after_a_report_are_named_as_that(made: Device) -> None:
    for surplus, what in ((b"\n", "1 surplus byte follows"), (b"\nx", "2 surplus bytes follow")):
        (result,) = appraised(replace(made, report=made.report + surplus))
        assert result.findings[0].text.endswith(f"{what} its end at byte {len(made.report)}")


def test_a_chain_under_no_pinned_root_is_known_by_its_leaf_alone() -> None:
    own = chip_authority(CA)
    leaf = gpu_leaf(own)
    chain = VendorChain.parse_der((leaf.der, own.der))
    report: Any = GpuReport.parse(gpu(CA, NONCE, leaf=leaf).report)
    assert device_id(report, chain, certified=False) != device_id(report, chain, certified=True)
    assert device_id(report, chain, certified=True) == device_id(
        report, VendorChain.parse_der((own.der,)), certified=False
    )
    alone = VendorChain.parse_der((leaf.der,))
    assert device_id(report, alone, certified=True) == device_id(report, alone, certified=False)
