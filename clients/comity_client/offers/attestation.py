"""Hardware evidence of offers: the challenge for an offer, and the appraisal of what its provider logged.

An attestation counts only if the provider's own node signed it, its log holds it, and its challenge names an earlier
checkpoint of the same log. Then the evidence is appraised by the owner's pins (`comity.trust.hardware.appraisal`).

For people it is shown as rows with basis and digest, and as a page of HTML to file. A row that passes or fails was
computed here from the evidence; an unknown one lacks a pin, data or a proof. What a report states about its machine is
verified here only if the device is, else it is the provider's claim.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from comity.trust.bound_nodes import BoundNode
from comity.trust.encoding import Digest, format_time, sha256, short
from comity.trust.errors import ComityError, NotFound, Untrusted
from comity.trust.evidence import Basis, RowFact
from comity.trust.hardware.appraisal import AppraisalRow, DeviceResult, HardwarePins, appraise, signed_devices
from comity.trust.hardware.evidence import ATTESTED, Attested, Challenge, HardwareEvidence, parse_attested
from comity.trust.node_records import signed_by_node
from comity.trust.statement import Entry, parse_entry
from comity.trust.tlog.merkle import verify_consistency
from comity.trust.tlog.note import SignedNote, open_checkpoint
from comity.trust.tlog.proof import TlogProof
from comity.wire.client import NodeClient
from comity_client.offers.views import ChainView
from comity_client.session import Session

MAX_ATTESTATIONS: Final = 8
"""The newest attestations of one offer that are appraised."""
MAX_CONCURRENT: Final = 16


@dataclass(frozen=True, slots=True)
class OfferAttestation:
    """One `attested` statement about an offer, appraised.

    Attributes:
        index: of the statement in the provider's log.
        order: whether its log holds it after the checkpoint of its challenge: the proof that the evidence is not old.
        devices: one result a device; empty if the evidence is not at hand, then `missing` says why.
        also_in: other offers whose evidence names one of these devices.
    """

    attested: Attested
    line: Digest
    index: int
    order: AppraisalRow
    devices: tuple[DeviceResult, ...]
    missing: str = ""
    also_in: tuple[Digest, ...] = ()

    @property
    def state(self) -> Literal["verified", "claimed", "failed"]:
        """`verified` here if every device is and the order is proven; `failed` if anything fails."""
        states = {device.state for device in self.devices}
        if "failed" in states or self.order.state == "fail" or self.also_in:
            return "failed"
        return "verified" if states == {"verified"} and self.order.state == "pass" else "claimed"


async def make_challenge(node: NodeClient, offer: Digest, provider: BoundNode) -> Challenge:
    """The challenge for an offer with the newest checkpoint of its provider's log. Raises Untrusted, Unavailable."""
    record = provider.record
    note = SignedNote.parse(await node.checkpoint(str(record.log)))
    checkpoint = open_checkpoint(note, record.log)
    return Challenge(offer, record.origin, checkpoint.size, Digest(checkpoint.root.hex()), record.node.id)


@dataclass(frozen=True, slots=True)
class _Logged:
    """An attestation as nodes give it: the evidence, or why it is not at hand."""

    entry: Entry
    index: int
    attested: Attested
    evidence: HardwareEvidence | None
    missing: str

    @property
    def devices(self) -> frozenset[Digest]:
        """The devices that signed the challenge of this attestation."""
        return signed_devices(self.evidence, self.attested.challenge.nonce) if self.evidence else frozenset()


async def fetch_attestations(
    session: Session, views: Sequence[ChainView], pins: HardwarePins, at: int
) -> dict[Digest, tuple[OfferAttestation, ...]]:
    """The newest attestations of the offers in force, the newest first, by chain.

    Args:
        views: a device that signed for two of these offers is reported in both.
        at: the time at which certificates and revocation data are judged, POSIX seconds.
    """
    limit = asyncio.Semaphore(MAX_CONCURRENT)

    async def logged(view: ChainView) -> list[_Logged]:
        async with limit:
            return [] if view.provider is None else await _logged(session, view.state.offer.id, view.provider)

    chains = [view.state.chain for view in views]
    found = dict(zip(chains, await asyncio.gather(*map(logged, views)), strict=True))
    named = {chain: frozenset[Digest]().union(*(item.devices for item in found[chain])) for chain in chains}
    return {
        view.state.chain: tuple(
            [
                await _appraised(session, item, view, pins, at, _others(named, view.state.chain))
                for item in found[view.state.chain]
            ]
        )
        for view in views
    }


def _others(named: Mapping[Digest, frozenset[Digest]], chain: Digest) -> dict[Digest, frozenset[Digest]]:
    return {other: devices for other, devices in named.items() if other != chain}


async def _logged(session: Session, offer: Digest, provider: BoundNode) -> list[_Logged]:
    """The newest attestations of an offer, with their evidence. Nodes that do not answer leave it empty."""
    found = []
    for line, index in await _attested_lines(session, offer, provider):
        entry = parse_entry(line)
        attested = parse_attested(entry.statement)
        try:
            found.append(_Logged(entry, index, attested, await _fetch_evidence(session, attested), ""))
        except ComityError as error:
            found.append(_Logged(entry, index, attested, None, str(error)))
    return found


async def _appraised(
    session: Session,
    item: _Logged,
    view: ChainView,
    pins: HardwarePins,
    at: int,
    others: Mapping[Digest, frozenset[Digest]],
) -> OfferAttestation:
    assert view.provider is not None  # a chain without a provider has no attestation
    order = await _check_order(session, item.entry, item.attested.challenge, view.provider)
    devices = appraise(item.evidence, item.attested.challenge.nonce, pins, at) if item.evidence else ()
    also_in = tuple(chain for chain, known in others.items() if item.devices & known)
    return OfferAttestation(item.attested, item.entry.digest, item.index, order, devices, item.missing, also_in)


async def _attested_lines(session: Session, offer: Digest, provider: BoundNode) -> list[tuple[bytes, int]]:
    """Attestations of an offer by its provider, with their indexes in its log, from all nodes, the newest first."""
    answers = await session.ask(lambda node: node.claims(offer))
    found: dict[bytes, int] = {}
    for located in (item for items in answers.found.values() for item in items):
        if located.origin == provider.record.origin and _is_attestation(located.line, provider):
            found[located.line] = located.index
    return sorted(found.items(), key=lambda item: -item[1])[:MAX_ATTESTATIONS]


def _is_attestation(line: bytes, provider: BoundNode) -> bool:
    try:
        entry = parse_entry(line)
        if entry.statement.predicate != ATTESTED:
            return False
        parse_attested(entry.statement)
    except ComityError:
        return False
    return signed_by_node(entry, provider.record)


async def _fetch_evidence(session: Session, attested: Attested) -> HardwareEvidence:
    digest = attested.evidence.digest
    data = await session.first(lambda node: node.object(digest), f"no node gives the evidence {short(digest)}")
    if sha256(data) != digest:  # the client checks it too; a verdict rests on it
        raise Untrusted("evidence refused", why="its bytes do not match the statement")
    return HardwareEvidence.parse(data)


async def _check_order(session: Session, entry: Entry, challenge: Challenge, provider: BoundNode) -> AppraisalRow:
    """Whether the provider's log holds the entry after the checkpoint that its challenge names."""
    if challenge.origin != provider.record.origin:
        return AppraisalRow("order", "fail", f"its challenge is of another log, {challenge.origin}")
    answers = await session.ask(lambda node: _prove_order(node, entry, challenge, provider))
    if not answers.found:  # a node that lies here proves nothing, and makes nothing fail
        return AppraisalRow("order", "unknown", "no node proves that its log holds it after its challenge")
    index = max(answers.found.values())
    if index < challenge.size:
        return AppraisalRow("order", "fail", f"its challenge is of entry {challenge.size}, and it is entry {index}")
    return AppraisalRow(
        "order", "pass", f"entry {index}, {index - challenge.size + 1} after the challenge's checkpoint"
    )


async def _prove_order(node: NodeClient, entry: Entry, challenge: Challenge, provider: BoundNode) -> int:
    """The proven index. Raises NotFound without a proof, Untrusted if the challenge's root is not of this log."""
    log = str(provider.record.log)
    proofs = await node.proofs(entry.digest, log)
    if not proofs:
        raise NotFound("no proof of the attestation", why="no checkpoint covers it yet")
    proof = TlogProof.parse(proofs[0].proof)
    checkpoint = proof.verify(entry.line, provider.record.log)
    path = await node.consistency(log, challenge.size, checkpoint.size)
    verify_consistency(challenge.size, bytes.fromhex(challenge.root), checkpoint.size, checkpoint.root, path)
    return proof.index


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
    """Return the page about the attestations of an offer, the newest first, appraised at `at` (POSIX seconds).

    It has no script and fetches nothing, as that of a verdict.
    """
    from comity_client.reports import BASIS_MEANS, page_template

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
