"""How many of the offered accelerators have evidence: each device once, and only such as the offer names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from comity.addons.hardware.appraisal import HardwarePins, appraise
from comity.rules.hardware_evidence import (
    KINDS,
    NVIDIA,
    SEV_SNP,
    TDX,
    AppraisalRow,
    Attested,
    Challenge,
    DeviceResult,
    HardwareEvidence,
)
from comity.rules.offers.offer import Offer
from comity.trust.encoding import sha256
from comity.trust.statement import SideObject
from comity_client.offers.attestation import OfferAttestation, OfferHardware, coverage, judge_offered
from support import hardware
from support.case import nodes
from support.offers import a_slice, an_offer

NODE = nodes(1)[0]
OFFER = sha256(b"offer")
CHALLENGE = Challenge(OFFER, NODE.record.origin, 7, sha256(b"root"), NODE.record.node.id)
CA = hardware.vendor()
PINS = HardwarePins(roots=dict.fromkeys(KINDS, (CA.above[0].der,)))
ORDER = AppraisalRow("order", "pass", "entry 9, 3 after the challenge's checkpoint")
PASSED = tuple(AppraisalRow(name, "pass", "") for name in ("chain", "kind", "signature", "challenge"))


def gpus(count: int, model: str = "GH100", first: int = 0) -> list[DeviceResult]:
    names = range(first, first + count)
    return [DeviceResult(NVIDIA, sha256(f"{model} {name}".encode()), model, (), PASSED) for name in names]


def processors(count: int, kind: str = SEV_SNP) -> list[DeviceResult]:
    return [DeviceResult(kind, sha256(f"{kind} {name}".encode()), "Milan", (), PASSED) for name in range(count)]


def offered(*slices: dict[str, Any]) -> Offer:
    made = [a_slice(**{"name": f"part-{number}", "amount": 10, **each}) for number, each in enumerate(slices)]
    return an_offer(slices=tuple(made), measure="node-hours")


CPUS = {"accelerator": "", "vendor": "", "count": 0, "memory_gib": 0}


@pytest.mark.parametrize(
    ("offer", "devices", "text", "complete"),
    [
        (an_offer(), gpus(1), "1 of 32 accelerators", False),
        (an_offer(), gpus(32), "32 of 32 accelerators", True),
        (an_offer(), gpus(40), "32 of 32 accelerators", True),
        (an_offer(), gpus(1) * 32, "1 of 32 accelerators", False),
        (an_offer(), gpus(32, "GB100"), "0 of 32 accelerators", False),
        (an_offer(), gpus(32, "LS_10"), "0 of 32 accelerators", False),
        (an_offer(), processors(32), "0 of 32 accelerators", False),
        (an_offer(), [], "0 of 32 accelerators", False),
        (offered({"nodes": 1, "count": 1}), gpus(1), "1 of 1 accelerator", True),
        (offered({"accelerator": "A100"}), gpus(32), "0 of 32 accelerators", False),
        (offered({"vendor": "AMD"}), gpus(32), "0 of 32 accelerators", False),
        (offered({}, {"accelerator": "H200"}), gpus(40), "40 of 64 accelerators", False),
        (offered({}, {"accelerator": "B200", "nodes": 1}), gpus(40), "32 of 40 accelerators", False),
        (offered({}, {"accelerator": "B200", "nodes": 1}), gpus(32) + gpus(8, "GB100"), "40 of 40 accelerators", True),
        (offered({}, CPUS), gpus(32), "32 of 32 accelerators", True),
        (offered(CPUS), processors(3), "3 of 4 nodes", False),
        (offered(CPUS), processors(2) + processors(2, TDX), "4 of 4 nodes", True),
        (offered(CPUS), gpus(4), "0 of 4 nodes", False),
        (offered({"nodes": 10**6, "count": 1024}), gpus(1), "1 of 1,024,000,000 accelerators", False),
    ],
)
def test_devices_are_counted_against_what_the_offer_names(
    offer: Offer, devices: list[DeviceResult], text: str, complete: bool
) -> None:
    found = coverage(offer, devices)
    assert (str(found), found.complete) == (text, complete)


@pytest.mark.parametrize(
    ("offer", "model", "state", "text"),
    [
        (an_offer(), "GH100", "pass", "GH100 is that of an accelerator that the offer names"),
        (an_offer(), "GB100", "fail", "the chip is GB100, and the offer names H100"),
        (offered({"accelerator": "A100"}), "GH100", "unknown", "the chip of A100"),
        (offered(CPUS), "GH100", "fail", "the offer names no accelerator"),
    ],
)
def test_a_gpu_is_one_that_the_offer_names(offer: Offer, model: str, state: str, text: str) -> None:
    row = judge_offered(gpus(1, model)[0], offer)
    assert row is not None and row.state == state and text in row.text, row


def test_a_processor_and_a_device_of_no_known_model_are_not_compared_with_the_accelerators() -> None:
    assert judge_offered(processors(1)[0], an_offer()) is None
    assert judge_offered(gpus(1, "")[0], an_offer()) is None


def attestation(devices: list[DeviceResult], *, order: AppraisalRow = ORDER, index: int = 9) -> OfferAttestation:
    attested = Attested(NODE.record.node, CHALLENGE, SideObject.of(b"evidence"))
    return OfferAttestation(attested, sha256(b"%d" % index), index, order, tuple(devices))


def failing(result: DeviceResult) -> DeviceResult:
    return replace(result, findings=(*result.findings, AppraisalRow("isolation", "fail", "")))


def test_the_devices_of_all_statements_are_counted_once_each() -> None:
    """An offer may have more devices than one document of evidence holds."""
    found = OfferHardware.of(an_offer(), [attestation(gpus(16)), attestation(gpus(20, first=12), index=8)])
    assert (found.state, str(found.coverage)) == ("verified", "32 of 32 accelerators")


def test_the_newest_report_of_a_device_counts() -> None:
    newest = [failing(gpus(1)[0]), *gpus(15, first=1)]
    found = OfferHardware.of(an_offer(), [attestation(newest), attestation(gpus(32), index=8)])
    assert (found.state, str(found.coverage)) == ("failed", "31 of 32 accelerators")


def test_a_statement_without_its_order_counts_for_nothing() -> None:
    unproven = replace(ORDER, state="unknown")
    found = OfferHardware.of(an_offer(), [attestation(gpus(32), order=unproven)])
    assert (found.state, str(found.coverage)) == ("claimed", "0 of 32 accelerators")


@pytest.mark.parametrize(
    ("attestations", "state"),
    [
        ([], "none"),
        ([attestation(gpus(32))], "verified"),
        ([attestation(gpus(1))], "partly verified"),
        ([attestation(processors(4))], "claimed"),
        ([attestation([failing(gpus(1)[0])])], "failed"),
        ([attestation([])], "claimed"),
    ],
)
def test_the_state_says_how_much_is_attested(attestations: list[OfferAttestation], state: str) -> None:
    assert OfferHardware.of(an_offer(), attestations).state == state


def test_made_up_gpus_are_counted_as_they_were_appraised() -> None:
    evidence = HardwareEvidence(tuple(hardware.gpu(CA, CHALLENGE.nonce) for _ in range(3)))
    results = appraise(evidence, CHALLENGE.nonce, PINS, hardware.AT)
    assert str(coverage(an_offer(), [each for each in results if each.state == "verified"])) == "3 of 32 accelerators"
