"""Attestations of an offer as rows with basis and digest, and as a page of HTML that a person can file.

A row that passes or fails was computed here from the evidence; an unknown one lacks a pin, data or a proof. What a
report states about its machine is verified here only if the device is, else it is the provider's claim. The page has no
script and fetches nothing, as that of a verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from comity.trust.encoding import Digest, format_time, short
from comity.trust.evidence import Basis, RowFact
from comity.trust.hardware.appraisal import AppraisalRow, DeviceResult
from comity_client.offers.attestation import OfferAttestation
from comity_client.reports import BASIS_MEANS, page_template

THE_PROVIDER: Final = "the provider"
HEADLINES: Final = {
    "verified": "VERIFIED HERE: the newest evidence passes every row that it needs",
    "claimed": "CLAIMED: nothing fails, but a pin or a proof is missing",
    "failed": "FAILED: something in the newest evidence is wrong",
    "none": "No evidence",
}
STATES: Final = {"verified": "verified here", "claimed": "claimed by the provider", "failed": "FAILED"}


@dataclass(frozen=True, slots=True)
class AttestationRow:
    """One row about `subject`, a device or the statement; `state` is empty for what a report only states."""

    subject: str
    name: str
    state: str
    fact: RowFact

    def to_json(self) -> dict[str, Any]:
        return {"subject": self.subject, "row": self.name, "state": self.state, **self.fact.to_json()}


def attestation_rows(found: OfferAttestation) -> tuple[AttestationRow, ...]:
    """Return every row of one attestation, in the order in which it is judged."""
    return tuple(_rows(found))


def _rows(found: OfferAttestation) -> Iterator[AttestationRow]:
    statement, document = "statement", found.attested.evidence.digest
    yield _judged(statement, found.order, found.line)
    if found.missing:
        absent = RowFact(found.missing, "stale or absent", evidence=document)
        yield AttestationRow(statement, "evidence", "unknown", absent)
    for device in found.devices:
        yield from _device_rows(device, document)
    for chain in found.also_in:
        text = f"also in offer {chain}: one device is offered twice"
        yield AttestationRow(statement, "device", "fail", RowFact(text, "verified here", evidence=document))


def _device_rows(device: DeviceResult, document: Digest) -> Iterator[AttestationRow]:
    subject = f"{device.kind} {short(device.device)}" if device.device else device.kind
    for finding in device.findings:
        yield _judged(subject, finding, document)
    if device.device is not None:
        yield AttestationRow(subject, "certificate", "", RowFact("of the device", "verified here", "", device.device))
    verified = device.state == "verified"
    for name, value in device.facts:
        basis: Basis = "verified here" if verified else "claimed"
        yield AttestationRow(subject, name, "", RowFact(value, basis, "" if verified else THE_PROVIDER, document))


def _judged(subject: str, finding: AppraisalRow, evidence: Digest) -> AttestationRow:
    basis: Basis = "stale or absent" if finding.state == "unknown" else "verified here"
    return AttestationRow(subject, finding.name, finding.state, RowFact(finding.text, basis, "", evidence))


def render_attestations(offer: Digest, provider: str, found: Sequence[OfferAttestation], at: int) -> str:
    """Return the page about the attestations of an offer, the newest first, appraised at `at` (POSIX seconds)."""
    return page_template("attestation.html").render(
        offer=offer,
        provider=provider,
        attestations=found,
        newest=found[0].state if found else "none",
        headlines=HEADLINES,
        states=STATES,
        rows=attestation_rows,
        terms=BASIS_MEANS,
        at=format_time(at),
    )
