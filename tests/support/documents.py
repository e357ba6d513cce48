"""One real document of each kind that the product writes, made by the code, and the function that reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from comity.federation_file import Federation
from comity.rules.artifact_kind import KindStated
from comity.rules.charter_drafts import draft
from comity.rules.continuation import Continues
from comity.rules.continuity.drill_report import DrillReport, summarise_drill
from comity.rules.equivocation import check_equivocation, misbehaviour_statement
from comity.rules.hardware_evidence import Attested, Challenge, HardwareEvidence
from comity.rules.image_signature import sign_image
from comity.rules.image_summary import summarise_image
from comity.rules.kits.cases import KitCases
from comity.rules.kits.description import Kit
from comity.rules.offers.amounts import DefaultAnswer, Usage
from comity.rules.offers.fault_proof import FaultProof, OfferFault, ProvenRecord
from comity.rules.offers.offer import Eligibility, Offer, Terms, Window
from comity.rules.offers.records import (
    Acceptance,
    Accepted,
    Agreement,
    ChainLink,
    CutOff,
    Default,
    GivingBack,
    Grant,
    GrantRequest,
    Lapsed,
    Offered,
    Pact,
    Redeemed,
    Redemption,
    Rejected,
    Released,
    Withdrawn,
)
from comity.rules.pieces import PieceIndex
from comity.rules.signing import sign_content, statement_of
from comity.rules.statement_readers import read_content
from comity.trust.approvals import ApprovalConditions, ApprovalEnded, Approved
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.charter.document import Body
from comity.trust.charter.votes import (
    Intent,
    Ratify,
    RoundBody,
    adopted_statement,
    consent_statement,
    draft_statement,
    draft_withdrawn_statement,
    left_statement,
)
from comity.trust.encoding import Json, canonical, parse_canonical, sha256
from comity.trust.identity import Inception
from comity.trust.keys import VerifyingKey
from comity.trust.names import Name
from comity.trust.node_records import Addresses
from comity.trust.places import Place
from comity.trust.report import VerdictReport, Verified, summarise_report
from comity.trust.rotation import LogCut
from comity.trust.statement import PAYLOAD_TYPE, Entry, Envelope, SideObject, Statement, parse_entry, sign_statement
from comity.trust.statements import Advisory, Compromise, Parent, Vouched
from comity.trust.tlog.proof import TlogProof
from comity.trust.upstream import Changed, Gone, Observed
from comity.upstream.listed_files import ListedFile, Observation, encode_observations, parse_observations
from comity_client.inventory.inventory import Inventory
from comity_client.node_card import NodeCard
from comity_client.offers.bundle import OfferBundle, PlacedLine
from comity_client.release_parts import ProductRelease
from comity_client.signing.votes import Ceremony, SigningPanel
from support import audits, hardware, offers
from support.case import case, nodes, release
from support.derivations import derived_line
from support.drill_reports import a_drill_report, a_failed_drill_report
from support.file_indexes import state_of
from support.inventories import an_inventory
from support.kits import a_kit, some_cases
from support.observations import NAME, observation
from support.rotations import begun
from support.samples import derived_samples
from support.world import NOW, identity, signer

Document = Any
"""Parsed JSON."""

_CASE = case()
_NODE, _OTHER = nodes(2)
_SEAT, _OFFICER = _NODE.seat, identity("Security officer", "ES")
_BODY = _CASE.federation.body
_NEXT = draft(_BODY, policy=replace(_BODY.policy, min_copies=1))
_DIGEST = sha256(b"something")
_VENDOR = hardware.vendor()
_EVIDENCE = HardwareEvidence((hardware.gpu(_VENDOR, bytes(32)), hardware.snp(_VENDOR, bytes(32))))
_ATTESTED = Attested(
    _NODE.record.node,
    Challenge(_DIGEST, _NODE.record.origin, 1, _DIGEST, _NODE.record.node.id),
    SideObject.of(_EVIDENCE.encode()),
)
_LOG = offers.Written()
_CHAIN = _LOG.post(
    offers.an_offer(eligibility=Eligibility("listed", (offers.GRANTEE,)), terms=Terms("price", 5, "CHF"))
)
_LINK = ChainLink(_CHAIN, 1, _DIGEST, offers.START, (1000,))
_WANTED = (offers.hours(0, 10),)


def _payload(line: bytes) -> bytes:
    return parse_entry(line).envelope.payload


def _votes() -> Iterator[bytes]:
    me, prev, body = _SEAT.id, _BODY.digest, _NEXT.digest
    yield Intent(me, prev, 1, 1, body).statement().encode()
    yield Intent(me, prev, 1, 3, body, RoundBody(1, body), 2).statement().encode()
    yield Ratify(me, prev, 1, 1, body).statement().encode()
    first, second = (
        sign_statement(Intent(me, prev, 1, 1, each).statement(), _SEAT.signer).line for each in (body, _DIGEST)
    )
    proof = check_equivocation("intents", first, second, _SEAT.inception.keys)
    yield misbehaviour_statement(proof, _NODE.record.node).encode()
    yield draft_statement(_NEXT, _SEAT.id, "because\nof this").encode()
    yield consent_statement(_BODY, _SEAT.id).encode()
    yield left_statement(_BODY, _SEAT.id).encode()
    yield draft_withdrawn_statement(_NEXT, _SEAT.id, "a mistake").encode()
    yield adopted_statement(_NEXT, _NODE.record.node.id).encode()


def _records() -> Iterator[bytes]:
    first = ChainLink(_CHAIN, 0, None, offers.START, (1000,))
    records = (
        Offered(first, _LOG.chain(_CHAIN).state.offer),
        Withdrawn(_LINK, "sold"),
        Grant(_LINK, _DIGEST, offers.GRANTEE, _WANTED, offers.START),
        Pact(_LINK, _DIGEST, offers.GRANTEE, _WANTED, offers.START),
        Rejected(_LINK, _DIGEST, "no"),
        Accepted(_LINK, _DIGEST, _DIGEST),
        Lapsed(_LINK, _DIGEST),
        Redeemed(_LINK, _DIGEST, _DIGEST, (8,)),
        Redeemed(_LINK, _DIGEST, _DIGEST, (8,), _DIGEST),
        Released(_LINK, _DIGEST),
        Released(_LINK, _DIGEST, _DIGEST),
    )
    yield from (statement_of(record, offers.NODE).encode() for record in records)
    said = (offers.GRANTEE, _CHAIN, _DIGEST)
    party = (
        GrantRequest(offers.GRANTEE, _CHAIN, _WANTED, 1, True, "please"),
        Acceptance(*said),
        Redemption(*said, (8,), _DIGEST, "ssh-ed25519 AAAA"),
        GivingBack(*said),
        CutOff(*said, True),
        Default(*said, "nothing came"),
        Agreement(*said, _DIGEST),
    )
    yield from (statement_of(statement).encode() for statement in party)
    yield statement_of(Usage(_CHAIN, _DIGEST, Window(1, 2), (0, 3)), offers.NODE).encode()
    yield statement_of(DefaultAnswer(_CHAIN, _DIGEST, _DIGEST, "a fire"), offers.NODE).encode()
    yield statement_of(OfferFault(_CHAIN, str(offers.LOG), 4, _DIGEST, "forked"), offers.NODE).encode()


def _about_artifacts() -> Iterator[bytes]:
    parents = Parent("finetune", "a/b@v1", _DIGEST), Parent("merge", "somewhere")
    yield _payload(_CASE.publication.line)
    yield release(lineage=parents)[1].envelope.payload
    compromise = Compromise(_DIGEST, "node-ch.example/log", 7)
    for advisory in (
        Advisory(_OFFICER.inception.author, _CASE.artifact, "yank", "info", ""),
        Advisory(_OFFICER.inception.author, _OFFICER.id, "key-compromise", "critical", "stolen\nlaptop", compromise),
    ):
        yield sign_content(advisory, _OFFICER.signer).envelope.payload
    for document in (None, SideObject.of(b"scores")):
        vouched = Vouched(_OFFICER.inception.author, _CASE.artifact, "evaluated", "well", document)
        yield sign_content(vouched, _OFFICER.signer).envelope.payload
    kind = KindStated(_OFFICER.id, Name.parse("swiss-ai/questions@v1"), _CASE.artifact, "dataset", 1)
    yield sign_content(kind, _OFFICER.signer).envelope.payload
    for author in (_OFFICER.inception.author, _NODE.record.node):
        yield Continues(author, _CASE.artifact, NAME, 2, author.kind == "node").statement().encode()
    image = sign_image(_OFFICER.id, Name.parse("swiss-ai/tiny@v1"), _CASE.artifact, sha256(b"image"), _OFFICER.signer)
    yield sign_content(image, _OFFICER.signer).envelope.payload
    levels, made = ("COMITY_BYTES",), SideObject.of(b"{}")
    verified = Verified(_OFFICER.id, "a", _CASE.artifact, NOW, _DIGEST, True, levels, (), made, "1.0")
    yield sign_content(summarise_image(verified, _DIGEST, _OFFICER.signer), _OFFICER.signer).envelope.payload
    for conditions in (None, ApprovalConditions("a.txt", SideObject.of(b"a"))):
        approved = Approved(_OFFICER.id, _CASE.artifact, "hospital-bern", NOW, NOW + 9, NOW, conditions, "tiny")
        yield sign_content(approved, _OFFICER.signer).envelope.payload
    yield ApprovalEnded(_OFFICER.id, _CASE.artifact, _DIGEST, NOW, "a new\nversion").statement().encode()
    report = VerdictReport.of(_CASE.verdict(), "1.0")
    yield sign_content(summarise_report(report, _OFFICER.id, NOW), _OFFICER.signer).envelope.payload
    for drill in (a_drill_report(), a_failed_drill_report()):
        yield sign_content(summarise_drill(drill, _OFFICER.id, NOW), _OFFICER.signer).envelope.payload
    yield _payload(derived_line(_CASE.artifact))
    yield _payload(derived_line(_CASE.artifact, exact=False))
    yield _payload(_CASE.claims[-1])
    for how in ("fetched", "cache", "carried"):
        yield observation(_NODE, _CASE.artifact, how=how).envelope.payload
    for line in (
        audits.FAILURE,
        audits.SUMMARY,
        audits.ANSWER,
        audits.HELD_TOGETHER,
        state_of(_NODE, []),
    ):
        yield _payload(line)
    yield _ATTESTED.statement().encode()
    upstream = Observed.parse(observation(_NODE, _CASE.artifact).statement).upstream
    by = _NODE.record.node.id
    yield sign_content(Changed(by, upstream, _CASE.artifact, "2e" * 20, 1), _NODE.online).envelope.payload
    yield sign_content(Gone(by, upstream, _CASE.artifact, "commit", 1), _NODE.online).envelope.payload


def _about_identities() -> Iterator[bytes]:
    yield _payload(_OFFICER.entry.line)
    owned = begun()
    yield owned.to("next", cut=(LogCut("node-ch.example/log", 8, bytes(32)),), home="node-ch.example/log")[
        1
    ].envelope.payload
    yield _payload(_NODE.entry.line)
    placed = replace(_NODE.record, place=Place("Example Hosting", "Example Cloud", ("CH", "US")))
    yield placed.statement().encode()
    yield sign_content(Addresses.of(_NODE.record, ["node.example:7443"], ["[::1]:7444"]), _NODE.online).envelope.payload


def statements() -> tuple[bytes, ...]:
    """Payloads: at least one of every predicate, by every kind of author that is allowed."""
    return (*_about_identities(), *_about_artifacts(), *_votes(), *_records(), *derived_samples())


def read_statement(payload: bytes) -> object:
    """Read the payload as strictly as the reader of its predicate does. Raises Malformed."""
    statement = Statement.parse(payload)
    entry = Entry(b"", Envelope(PAYLOAD_TYPE, payload, ()), statement)
    return read_content(entry)


def _observations() -> bytes:
    entry = FileEntry("a", 1, _DIGEST)
    lfs = Observation(entry, ListedFile("a", 1, "1" * 40, _DIGEST, "x"), "sha256", True)
    return encode_observations([lfs, Observation(replace(entry, path="b"), ListedFile("b", 1), "none", False)])


def _signing_file() -> bytes:
    statement = draft_statement(_NEXT, _SEAT.id, "because")
    panel = SigningPanel("governance", _SEAT.inception.keys)
    begun_ = Ceremony(statement.encode(), (panel,), (), (_NEXT.data,), (_SEAT.entry.line,))
    return begun_.with_signature(_SEAT.signer).encode()


def _bundle() -> bytes:
    lines = PlacedLine(_NODE.entry.line), PlacedLine(_SEAT.entry.line, "node-ch.example/log", 3)
    return OfferBundle(lines, ((_DIGEST, b"c2sp.org/tlog-proof@v1\n"),)).encode("comity offer load FILE")


def _fault_proof() -> bytes:
    proof = TlogProof.parse(_CASE.proofs_of(_CASE.publication.line)[0].data)
    record = ProvenRecord(_CASE.publication.line, proof.index, proof.hashes, 0)
    return FaultProof((proof.checkpoint,), (record,)).encode()


def _card() -> bytes:
    entry = _NODE.entry.line
    return NodeCard.of(_SEAT.entry.line, (), entry, ("node.example:7443",), ("node.example:7444",)).encode()


def _later_body() -> bytes:
    heir = replace(_OTHER.seat.member, id=_DIGEST, name="An observer", status="observer", successor_of=_OTHER.seat.id)
    seats = [seat for seat in _BODY.members if seat.id != _OTHER.seat.id]
    body = draft(_BODY, members=[*seats, heir], policy=replace(_BODY.policy, quorum_change=3), note_digest=_DIGEST)
    return body.data


def documents() -> tuple[tuple[str, bytes, Callable[[bytes], object]], ...]:
    """The name of the schema, the bytes of a document, and its reader, which raises ComityError."""
    offer = offers.an_offer(slices=(offers.a_slice(attributes=(("rack", "7"),), strict=True),), supersedes=_DIGEST)
    return (
        ("envelope", _CASE.publication.line, Envelope.parse),
        ("inception", canonical(_OFFICER.inception.to_json()), _of_json(Inception.from_json)),
        ("manifest", _CASE.manifest, Manifest.parse),
        ("manifest", Manifest.of(()).encode(), Manifest.parse),
        ("pieces", _CASE.pieces, PieceIndex.parse),
        ("charter", _BODY.data, Body.parse),
        ("charter", _later_body(), Body.parse),
        ("federation", _CASE.federation.encode(), Federation.parse),
        ("node-card", _card(), NodeCard.parse),
        ("observation", _observations(), parse_observations),
        ("offer", offer.encode(), Offer.parse),
        ("offer", offers.an_offer(terms=Terms("price", 5, "CHF")).encode(), Offer.parse),
        ("offer-bundle", _bundle(), OfferBundle.parse),
        ("offer-fault-proof", _fault_proof(), FaultProof.parse),
        ("signing-file", _signing_file(), Ceremony.parse),
        ("public-key", canonical(signer("anybody").public.to_json()), _of_json(VerifyingKey.from_json)),
        ("hardware-evidence", _EVIDENCE.encode(), HardwareEvidence.parse),
        ("report", VerdictReport.of(_CASE.verdict(), "1.0").encode(), VerdictReport.parse),
        ("drill-report", a_drill_report().encode(), DrillReport.parse),
        ("inventory", an_inventory().encode(), Inventory.parse),
        ("kit", a_kit().encode(), Kit.parse),
        ("kit-cases", some_cases().encode(), KitCases.parse),
        ("release", ProductRelease("0.2.0", "5a" * 20, 1_764_000_000, ("node", "s3")).encode(), ProductRelease.parse),
    )


def _of_json(read: Callable[[Json], object]) -> Callable[[bytes], object]:
    return lambda data: read(parse_canonical(data, limit=1 << 20))


def broken(document: Document) -> Iterator[tuple[str, Document]]:
    """Copies of a document, each with one member removed, added, or of another type; and the position of the change."""
    text = json.dumps(document)
    for place in _places(document):
        for change in ("remove", "add", "type", "value"):
            copy = json.loads(text)
            where = _at(copy, place[:-1])
            if change == "type":
                where[place[-1]] = _another_type(where[place[-1]])
            elif change == "value" and not isinstance(where[place[-1]], dict | bool | None):
                where[place[-1]] = _out_of_bounds(where[place[-1]])
            elif change == "remove" and isinstance(where, dict):
                del where[place[-1]]
            elif change == "add" and isinstance(where[place[-1]], dict):
                where[place[-1]]["unheard-of"] = 1
            else:
                continue
            yield f"{change} {'/'.join(map(str, place))}", copy


def _places(value: Document, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The positions of every member, and of the first item of every list."""
    items: list[tuple[str | int, Document]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = [(0, value[0])] if value else []
    for name, item in items:
        yield (*at, name)
        yield from _places(item, (*at, name))


def _at(value: Document, place: tuple[str | int, ...]) -> Document:
    for name in place:
        value = value[name]
    return value


def _out_of_bounds(value: Document) -> Document:
    """A negative number, an empty list, a text that is in no enumeration and is no base64."""
    return -1 if isinstance(value, int) else [] if isinstance(value, list) else value.upper() + "\u0007"


def _another_type(value: Document) -> Document:
    if isinstance(value, bool):
        return "true"
    if isinstance(value, str):
        return 7
    if isinstance(value, int):
        return f"{value}"
    return [] if isinstance(value, dict) else {} if isinstance(value, list) else True
