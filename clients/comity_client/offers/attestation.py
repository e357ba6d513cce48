"""Hardware evidence of offers: the challenge for an offer, and the appraisal of what its provider logged.

An attestation counts only if the provider's own node signed it, its log holds it, and its challenge names an earlier
checkpoint of the same log. Then the evidence is appraised by the owner's pins (an add-on does that), each device is
compared with what the offer names and with the devices of other offers, and the devices are counted, each once.

An offer with accelerators counts its accelerators: GPUs whose chip is that of an accelerator that the offer names. An
offer without any counts its nodes: processors with SEV-SNP or TDX. Which of several accelerators with one chip a device
is (an H100 or an H200) is not in its evidence, so they are counted together.

For people it is shown as rows with basis and digest, and as a page of HTML to file. A row that passes or fails was
computed here from the evidence; an unknown one lacks a pin, data or a proof. What a report states about its machine is
verified here only if the device is, else it is the provider's claim.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, TypeAlias

from comity.rules.hardware_evidence import (
    GPUS,
    NVIDIA,
    SEV_SNP,
    TDX,
    AppraisalRow,
    Appraise,
    Attested,
    Challenge,
    DeviceResult,
    HardwareEvidence,
    chip_of,
    signed_devices,
)
from comity.rules.offers.offer import Offer, Slice
from comity.trust.bound_nodes import BoundNode
from comity.trust.encoding import Digest, format_time, sha256, short
from comity.trust.errors import ComityError, NotFound, Untrusted
from comity.trust.evidence import Basis, RowFact
from comity.trust.frozen import frozen
from comity.trust.node_records import signed_by_node
from comity.trust.statement import Entry, parse_entry
from comity.trust.statement_kinds import ATTESTED
from comity.trust.tlog.merkle import verify_consistency
from comity.trust.tlog.note import SignedNote, open_checkpoint
from comity.trust.tlog.proof import TlogProof
from comity.wire.client import NodeClient
from comity.wire.found import Lookup

from comity_client.evidence.held_lines import ask_all
from comity_client.offers.views import ChainView
from comity_client.session import Session

MAX_ATTESTATIONS: Final = 8
"""The newest attestations of one offer that are appraised."""
MAX_CONCURRENT: Final = 16
HardwareState: TypeAlias = Literal["verified", "partly verified", "claimed", "failed", "none"]
_PROCESSORS: Final = "processors"
"""What the nodes of an offer without accelerators are counted as."""


@frozen
class HardwareCoverage:
    """`attested` of the `offered` accelerators (or nodes: `unit`) have evidence that is verified here."""

    attested: int
    offered: int
    unit: Literal["accelerators", "nodes"]

    @property
    def complete(self) -> bool:
        return 0 < self.offered <= self.attested

    def __str__(self) -> str:
        return f"{self.attested} of {self.offered:,} {self.unit if self.offered != 1 else self.unit[:-1]}"


@frozen
class OfferAttestation:
    """One `attested` statement about an offer, appraised.

    Attributes:
        index: of the statement in the provider's log.
        order: whether its log holds it after the checkpoint of its challenge: the proof that the evidence is not old.
        devices: one result a device; empty if the evidence is not at hand, then `missing` says why.
        also_in: other offers whose evidence names one of these devices; the device has a row that fails.
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
        if "failed" in states or self.order.state == "fail":
            return "failed"
        return "verified" if states == {"verified"} and self.order.state == "pass" else "claimed"


@frozen
class OfferHardware:
    """What hardware evidence shows of one offer.

    Attributes:
        attestations: the newest first.
        coverage: the devices of all of them that are verified here, each counted once, by its newest report.
    """

    attestations: tuple[OfferAttestation, ...]
    coverage: HardwareCoverage

    @classmethod
    def of(cls, offer: Offer, attestations: Sequence[OfferAttestation]) -> OfferHardware:
        newest: dict[Digest, bool] = {}
        devices = [(each, device) for each in attestations for device in each.devices if device.device is not None]
        for each, device in devices:
            assert device.device is not None
            newest.setdefault(device.device, device.state == "verified" and each.order.state == "pass")
        verified = [device for _, device in devices if device.device is not None and newest[device.device]]
        return cls(tuple(attestations), coverage(offer, verified))

    @property
    def state(self) -> HardwareState:
        """The state of the newest attestation. If it is verified, `partly verified` where not all that is offered has
        evidence, and `claimed` where nothing of it has."""
        if not self.attestations:
            return "none"
        state = self.attestations[0].state
        if state != "verified" or self.coverage.complete:
            return state
        return "partly verified" if self.coverage.attested else "claimed"


async def make_challenge(node: NodeClient, offer: Digest, provider: BoundNode) -> Challenge:
    """The challenge for an offer with the newest checkpoint of its provider's log. Raises Untrusted, Unavailable."""
    record = provider.record
    note = SignedNote.parse(await node.checkpoint(str(record.log)))
    checkpoint = open_checkpoint(note, record.log)
    return Challenge(offer, record.origin, checkpoint.size, Digest(checkpoint.root.hex()), record.node.id)


@frozen
class _Appraised:
    """An attestation as nodes give it, with the appraisal of its evidence, or why the evidence is not at hand."""

    entry: Entry
    index: int
    attested: Attested
    devices: tuple[DeviceResult, ...]
    missing: str


async def fetch_attestations(
    session: Session, views: Sequence[ChainView], appraise: Appraise, at: int
) -> dict[Digest, OfferHardware]:
    """What hardware evidence shows of the offers in force, by chain.

    Args:
        views: a device that signed for two of these offers is reported in both, and counted in none.
        at: the time at which certificates and revocation data are judged, POSIX seconds.
    """
    limit = asyncio.Semaphore(MAX_CONCURRENT)

    async def appraised(view: ChainView) -> list[_Appraised]:
        async with limit:
            return [] if view.provider is None else await _appraised(session, view, view.provider, appraise, at)

    chains = [view.state.chain for view in views]
    found = dict(zip(chains, await asyncio.gather(*map(appraised, views)), strict=True))
    offers = _offers_by_device(found)
    return {
        view.state.chain: OfferHardware.of(
            view.offer, [await _judged_offer(session, item, view, offers) for item in found[view.state.chain]]
        )
        for view in views
    }


def _offers_by_device(found: Mapping[Digest, Sequence[_Appraised]]) -> dict[Digest, list[Digest]]:
    """The chains for whose offers each device signed."""
    offers: dict[Digest, list[Digest]] = {}
    for chain, items in found.items():
        for device in frozenset[Digest]().union(*(signed_devices(item.devices) for item in items)):
            offers.setdefault(device, []).append(chain)
    return offers


async def _appraised(
    session: Session, view: ChainView, provider: BoundNode, appraise: Appraise, at: int
) -> list[_Appraised]:
    """The newest attestations of an offer. Nodes that do not answer leave them without evidence."""
    found = []
    for line, index in await _attested_lines(session, view.state.offer.id, provider):
        entry = parse_entry(line)
        attested = Attested.parse(entry.statement)
        try:
            evidence = await _fetch_evidence(session, attested)
        except ComityError as error:
            found.append(_Appraised(entry, index, attested, (), str(error)))
        else:
            found.append(_Appraised(entry, index, attested, appraise(evidence, attested.challenge.nonce, at), ""))
    return found


async def _judged_offer(
    session: Session, item: _Appraised, view: ChainView, offers: Mapping[Digest, Sequence[Digest]]
) -> OfferAttestation:
    """The attestation with its order in the log, and each device compared with this offer and with the others."""
    assert view.provider is not None  # a chain without a provider has no attestation
    order = await _check_order(session, item.entry, item.attested.challenge, view.provider)
    devices, also_in = [], dict[Digest, None]()
    for device in item.devices:
        elsewhere = [chain for chain in offers.get(device.device or Digest(""), ()) if chain != view.state.chain]
        rows = [AppraisalRow("device", "fail", f"also in offer {chain}: it is offered twice") for chain in elsewhere]
        if (offered := judge_offered(device, view.offer)) is not None:
            rows.insert(0, offered)
        devices.append(replace(device, findings=(*device.findings, *rows)))
        also_in |= dict.fromkeys(elsewhere)
    return OfferAttestation(
        item.attested, item.entry.digest, item.index, order, tuple(devices), item.missing, tuple(also_in)
    )


async def _attested_lines(session: Session, offer: Digest, provider: BoundNode) -> list[tuple[bytes, int]]:
    """Attestations of an offer by its provider, with their indexes in its log, from all nodes, the newest first."""
    answers = await ask_all(session, Lookup.about(offer, (provider.record.node.id, provider.record.member)))
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
        Attested.parse(entry.statement)
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
    "verified": "VERIFIED HERE: the newest evidence passes every row that it needs; all that is offered has some",
    "partly verified": "PARTLY VERIFIED HERE: the newest evidence passes every row; not all that is offered has some",
    "claimed": "CLAIMED: nothing fails, but a pin, a proof or evidence of what is offered is missing",
    "failed": "FAILED: something in the newest evidence is wrong",
    "none": "No evidence",
}
STATES: Final = {
    "verified": "verified here",
    "partly verified": "partly verified here",
    "claimed": "claimed by the provider",
    "failed": "FAILED",
    "none": "no evidence",
}


@frozen
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


def _device_rows(device: DeviceResult, document: Digest) -> Iterator[AttestationRow]:
    subject = f"{device.kind} {short(device.device)}" if device.device else device.kind
    for finding in device.findings:
        yield _judged(subject, finding, document)
    verified = device.state == "verified"
    if device.device is not None:
        certified: Basis = "verified here" if device.certified else "claimed"
        by = "" if device.certified else THE_PROVIDER
        yield AttestationRow(subject, "identifier", "", RowFact(f"sha256:{device.device}", certified, by, document))
    for name, value in device.facts:
        basis: Basis = "verified here" if verified else "claimed"
        yield AttestationRow(subject, name, "", RowFact(value, basis, "" if verified else THE_PROVIDER, document))


def _judged(subject: str, finding: AppraisalRow, evidence: Digest) -> AttestationRow:
    basis: Basis = "stale or absent" if finding.state == "unknown" else "verified here"
    return AttestationRow(subject, finding.name, finding.state, RowFact(finding.text, basis, "", evidence))


def render_attestations(offer: Digest, provider: str, found: OfferHardware, at: int) -> str:
    """Return the page about the hardware evidence of an offer, appraised at `at` (POSIX seconds).

    It has no script and fetches nothing, as that of a verdict.
    """
    from comity_client.reports import BASIS_MEANS, page_template

    return page_template("attestation.html").render(
        offer=offer,
        provider=provider,
        attestations=found.attestations,
        coverage=found.coverage,
        state=found.state,
        headlines=HEADLINES,
        states=STATES,
        rows=attestation_rows,
        terms=BASIS_MEANS,
        at=format_time(at),
    )


def coverage(offer: Offer, verified: Iterable[DeviceResult]) -> HardwareCoverage:
    """Count distinct devices, at most as many of each chip as the offer names."""
    wanted = _wanted(offer)
    devices: dict[Digest, str] = {}
    for result in verified:
        if result.device is not None:
            devices.setdefault(result.device, _counted_as(result))
    found = Counter(devices.values())
    attested = sum(min(count, found[chip]) for chip, count in wanted.items())
    return HardwareCoverage(attested, sum(wanted.values()), "nodes" if _PROCESSORS in wanted else "accelerators")


def judge_offered(result: DeviceResult, offer: Offer) -> AppraisalRow | None:
    """Whether a GPU is what the offer names; None for a processor, which runs the node, and where no model is known."""
    if result.kind != NVIDIA or result.model not in GPUS:
        return None
    named = [part for part in offer.slices if part.count]
    if result.model in _wanted(offer):
        return AppraisalRow("offer", "pass", f"the chip {result.model} is that of an accelerator that the offer names")
    unknown = [part.accelerator for part in named if chip_of(part.vendor, part.accelerator) is None]
    if unknown:
        return AppraisalRow("offer", "unknown", f"the chip of {unknown[0]}, which the offer names, is not known here")
    names = ", ".join(dict.fromkeys(part.accelerator for part in named)) or "no accelerator"
    return AppraisalRow("offer", "fail", f"the chip is {result.model}, and the offer names {names}")


def _wanted(offer: Offer) -> Mapping[str, int]:
    """Number of accelerators by chip, or by name where the chip is not known; of nodes if there are none."""
    wanted: Counter[str] = Counter()
    for part in offer.slices:
        if part.count:
            wanted[_chip(part)] += part.nodes * part.count
    return wanted or {_PROCESSORS: sum(part.nodes for part in offer.slices)}


def _chip(part: Slice) -> str:
    return chip_of(part.vendor, part.accelerator) or f"{part.vendor} {part.accelerator}"


def _counted_as(result: DeviceResult) -> str:
    return _PROCESSORS if result.kind in (SEV_SNP, TDX) else result.model
