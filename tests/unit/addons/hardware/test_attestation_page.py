"""The page about the machines of an offer that an institution files: every row with its basis and digest."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from comity.addons.hardware.appraisal import HardwarePins, appraise
from comity.rules.hardware_evidence import KINDS, AppraisalRow, Attested, Challenge, HardwareEvidence
from comity.trust.encoding import sha256
from comity.trust.statement import SideObject
from comity_cli.offers.evidence import attestation_json, show_hardware
from comity_cli.output import Output
from comity_client.offers.attestation import OfferAttestation, OfferHardware, attestation_rows, render_attestations
from support.case import nodes
from support.hardware import AT, gpu, snp, tdx, vendor
from support.offers import a_slice, an_offer

NODE = nodes(1)[0]
CA = vendor()
PINS = HardwarePins(roots=dict.fromkeys(KINDS, (CA.above[0].der,)))
OFFER = sha256(b"offer")
CHALLENGE = Challenge(OFFER, NODE.record.origin, 7, sha256(b"root"), NODE.record.node.id)
DOCUMENT = an_offer(slices=(a_slice(count=1, nodes=1, amount=10),))
EVIDENCE = HardwareEvidence(tuple(make(CA, CHALLENGE.nonce) for make in (gpu, snp, tdx)))
ATTESTED = Attested(NODE.record.node, CHALLENGE, SideObject.of(EVIDENCE.encode()))
LINE = sha256(b"line")


def attestation(pins: HardwarePins = PINS, evidence: HardwareEvidence = EVIDENCE) -> OfferAttestation:
    order = AppraisalRow("order", "pass", "entry 9, 3 after the challenge's checkpoint")
    return OfferAttestation(ATTESTED, LINE, 9, order, appraise(evidence, CHALLENGE.nonce, pins, AT))


def test_each_row_has_a_basis_and_the_digest_of_its_document() -> None:
    found = attestation()
    rows = attestation_rows(found)
    assert found.state == "verified"
    assert rows[0].fact.evidence == LINE
    assert {row.fact.evidence for row in rows[1:]} == {ATTESTED.evidence.digest}
    identifiers = [row.fact.text for row in rows if row.name == "identifier"]
    assert identifiers == [f"sha256:{device.device}" for device in found.devices]
    assert all((row.fact.basis == "stale or absent") == (row.state == "unknown") for row in rows)
    assert {row.fact.basis for row in rows if row.name == "driver"} == {"verified here"}


def test_statements_of_an_unverified_device_are_only_claimed() -> None:
    rows = attestation_rows(attestation(HardwarePins()))
    stated = {(row.fact.basis, row.fact.by) for row in rows if row.state == ""}
    assert stated == {("claimed", "the provider")}


def test_missing_evidence_is_reported() -> None:
    missing = replace(attestation(), devices=(), missing="no node gives the evidence")
    assert [(row.state, row.fact.basis) for row in attestation_rows(missing)][1:] == [("unknown", "stale or absent")]


@pytest.mark.parametrize("pins", [PINS, HardwarePins()], ids=["verified", "claimed"])
def test_the_page_has_the_texts_of_the_rows_escaped(pins: HardwarePins) -> None:
    hostile = gpu(CA, CHALLENGE.nonce, driver="<script>alert(1)</script>")
    found = attestation(pins, HardwareEvidence((*EVIDENCE.devices, hostile)))
    hardware = OfferHardware.of(DOCUMENT, (found,))
    page = render_attestations(OFFER, "Institute <b>CH</b>", hardware, AT)
    assert "<script" not in page and "<b>CH" not in page and "&lt;script&gt;" in page
    for row in attestation_rows(found):
        assert row.fact.evidence is None or row.fact.evidence in page
    assert ("VERIFIED HERE" in page) == (pins is PINS)
    assert "claimed by the provider" in page or pins is PINS
    assert page == render_attestations(OFFER, "Institute <b>CH</b>", hardware, AT)


def test_a_page_without_evidence_says_so() -> None:
    none = OfferHardware.of(DOCUMENT, ())
    assert "No evidence is logged for this offer" in render_attestations(OFFER, "Institute", none, AT)


def test_the_page_and_the_terminal_say_how_much_is_attested(capsys: pytest.CaptureFixture[str]) -> None:
    for document, state, words in (
        (DOCUMENT, "VERIFIED HERE", "1 of 1 accelerator"),
        (an_offer(), "PARTLY VERIFIED HERE", "1 of 32 accelerators"),
    ):
        hardware = OfferHardware.of(document, (attestation(),))
        page = render_attestations(OFFER, "Institute", hardware, AT)
        assert f"<strong>{state}" in page and words in page
        assert ('class="verdict accepted"' in page) == (document is DOCUMENT)
        show_hardware(Output(), hardware)
        shown = capsys.readouterr()
        assert f"{words} attested" in shown.out + shown.err


def test_the_terminal_and_the_document_name_the_digests(capsys: pytest.CaptureFixture[str]) -> None:
    show_hardware(Output(), OfferHardware.of(DOCUMENT, (attestation(),)))
    shown = capsys.readouterr()
    assert f"sha256:{LINE}" in shown.out + shown.err
    assert f"sha256:{ATTESTED.evidence.digest}" in shown.out + shown.err
    document = json.loads(json.dumps(attestation_json(attestation())))
    assert [fact["row"] for fact in document["facts"]] == [row.name for row in attestation_rows(attestation())]
