"""Real evidence of AMD, Intel and NVIDIA hardware (`support.real_hardware`), and the finding for each tampering."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from comity.addons.hardware.appraisal import HardwarePins, appraise
from comity.addons.hardware.evidence_files import read_gpu_list
from comity.addons.hardware.pins import HardwarePinStore
from comity.rules.hardware_evidence import NVIDIA, SEV_SNP, TDX, Device, DeviceResult, HardwareEvidence
from support.hardware import AT, flipped, twin
from support.real_hardware import real_certificates, real_gpu, real_quote, real_snp, sample


@dataclass(frozen=True)
class Sample:
    device: Callable[[], Device]
    challenge: slice
    signature: slice
    """Parts of the report."""


SAMPLES = {
    "SEV-SNP": Sample(real_snp, slice(0x50, 0x90), slice(0x2A0, 0x330)),
    "TDX 4": Sample(lambda: real_quote(4), slice(48 + 520, 48 + 584), slice(636, 700)),
    "TDX 5": Sample(lambda: real_quote(5), slice(54 + 520, 54 + 584), slice(706, 770)),
    "Hopper": Sample(lambda: real_gpu("hopper"), slice(4, 36), slice(-96, None)),
    "Blackwell": Sample(lambda: real_gpu("blackwell"), slice(4, 36), slice(-96, None)),
}
each_sample = pytest.mark.parametrize("of", SAMPLES.values(), ids=SAMPLES)


def pins() -> HardwarePins:
    return HardwarePins(
        roots={
            SEV_SNP: real_certificates("amd-milan-ask-ark.pem")[1:],
            TDX: real_certificates("intel-sgx-root.pem"),
            NVIDIA: real_certificates("nv-device-root.pem"),
        }
    )


def appraised(device: Device, nonce: bytes, at: int = AT) -> DeviceResult:
    (result,) = appraise(HardwareEvidence((device,)), nonce, pins(), at)
    return result


def failed(result: DeviceResult) -> set[str]:
    """The SEV-SNP sample is of a guest that may be debugged, and says so."""
    return {finding.name for finding in result.findings if finding.state == "fail"} - {"isolation"}


@each_sample
def test_a_sample_verifies_under_its_vendors_root(of: Sample) -> None:
    device = of.device()
    result = appraised(device, device.report[of.challenge])
    assert {f.name for f in result.findings if f.state == "pass"} == {"chain", "kind", "signature", "challenge"}
    assert failed(result) == set()
    assert all(value for _, value in result.facts)


@each_sample
def test_a_sample_with_a_changed_bit_is_refused(of: Sample) -> None:
    """One bit in each 64 bytes of what is signed, and in every fourth byte of the signature."""
    device = of.device()
    nonce = device.report[of.challenge]
    end = of.signature.start % len(device.report)
    places = [*range(0, end, 64), *range(len(device.report))[of.signature][::4]]
    for offset in places:
        assert failed(appraised(flipped(device, offset, offset % 8), nonce)) & {"signature", "evidence"}, offset


@each_sample
def test_a_sample_with_another_challenge_is_refused(of: Sample) -> None:
    assert failed(appraised(of.device(), bytes(32))) == {"challenge"}


@each_sample
def test_a_truncated_or_overlong_sample_is_refused(of: Sample) -> None:
    device = of.device()
    for report in (device.report[:-1], device.report[:100], b"", device.report + b"x"):
        assert failed(appraised(replace(device, report=report), bytes(32))) == {"evidence"}


@each_sample
def test_a_sample_before_its_certificates_is_refused(of: Sample) -> None:
    device = of.device()
    assert failed(appraised(device, device.report[of.challenge], at=1_500_000_000)) == {"chain"}


def test_a_leaf_of_another_gpu_is_refused() -> None:
    hopper, blackwell = real_gpu("hopper"), real_gpu("blackwell")
    mixed = replace(hopper, certificates=blackwell.certificates)
    assert failed(appraised(mixed, hopper.report[4:36])) == {"signature"}


def test_every_name_in_a_samples_certificates_is_that_of_its_kind() -> None:
    models = {name: appraised(of.device(), bytes(32)).model for name, of in SAMPLES.items()}
    assert models == {"SEV-SNP": "Milan", "TDX 4": "TDX", "TDX 5": "TDX", "Hopper": "GH100", "Blackwell": "GB100"}


def test_the_other_form_of_a_certificates_signature_is_the_same_gpu() -> None:
    device = real_gpu("hopper")
    twins = [replace(device, certificates=(twin(device.certificates[0]), *device.certificates[1:])), device]
    first, second = appraise(HardwareEvidence(tuple(twins)), device.report[4:36], pins(), AT)
    assert (first.state, second.state, first.device) == ("verified", "failed", second.device)


def test_the_vendors_chain_file_with_ask_and_ark_is_pinned(tmp_path: Path) -> None:
    file = tmp_path / "cert_chain"
    file.write_bytes(sample("amd-milan-ask-ark.pem"))
    store = HardwarePinStore(tmp_path)
    assert "ARK-Milan" in store.pin(SEV_SNP, file).subject
    assert store.load().roots[SEV_SNP] == pins().roots[SEV_SNP]


def test_the_facts_are_those_that_the_vendors_tools_print() -> None:
    facts = dict(appraised(real_gpu("hopper"), bytes(32)).facts)
    assert facts["VBIOS"].startswith("96.00.")
    assert dict(appraised(real_snp(), bytes(32)).facts)["microcode version"] == "68"


@pytest.mark.parametrize(("name", "gpus"), [("", 1), ("-4gpus", 4), ("-cert-hold", 1)])
def test_a_vendors_list_of_gpus_is_read_and_every_gpu_verified(name: str, gpus: int) -> None:
    """The certificate on hold verifies too: only revocation data, which is not at hand, shows the hold."""
    evidence = read_gpu_list(sample(f"nv-hopper-evidence{name}.json"))
    results = appraise(evidence, evidence.devices[0].report[4:36], pins(), AT)
    assert [result.state for result in results] == ["verified"] * gpus
    assert len({result.device for result in results}) == gpus
    assert all(f.state == "unknown" for result in results for f in result.findings if f.name == "revocation")
