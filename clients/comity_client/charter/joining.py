"""Asking to be admitted, and how far that is. A request promises nothing: some member has to draft the charter.

A federation file out of what was verified here: for a newcomer, or for one's own next pin.

It brings the whole chain of charters with their certificates, so that whoever reads it proves it again, and the nodes.
What it cannot prove is that this *is* the federation they were told about: they take it from two members by separate
ways, and have the words read out. Source: protocol, section 7.9.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from comity.content.secrets import read_signer
from comity.trust.charter.federation import Federation, FederationNode, prove_record
from comity.trust.encoding import Digest, sha256, syllables
from comity.trust.errors import ComityError, Untrusted
from comity.trust.identity import check_inception
from comity.trust.rotation import RotationChains
from comity.trust.statement import Entry, parse_entry
from comity.trust.statements import NodeRecord, parse_addresses, parse_node_record, sign_addresses, signed_by_node
from comity.wire.messages import AskReceipt, JoinRequest
from comity_client.charter.state import CharterState
from comity_client.evidence.prove import readable
from comity_client.founding import NodeCard
from comity_client.session import Session


@dataclass(frozen=True, slots=True)
class JoinAnswer:
    """What the nodes did with a request: where it waits, and who did not take it."""

    member: Digest
    waiting: tuple[tuple[str, AskReceipt], ...]
    refused: tuple[tuple[str, ComityError], ...]


@dataclass(frozen=True, slots=True)
class AdmissionDraft:
    """A draft that would admit somebody: whether they consented, and how many of `quorum` intend and ratified it in
    the round in which it is farthest."""

    body: Digest
    by: str
    text: str
    consented: bool
    round: int
    intents: int
    ratified: int
    quorum: int


@dataclass(frozen=True, slots=True)
class Applicant:
    """Who asks to be admitted, by a card that proves itself; `since` is what the node says."""

    card: NodeCard
    since: int


def card_of(home: Path) -> NodeCard:
    """The card in a node's home. Raises NotFound, Malformed, Untrusted."""
    return NodeCard.read(home / "node-card.json")


def card_lines(home: Path) -> tuple[bytes, ...]:
    """What a request holds: the card's lines, and the node's addresses under its own signature.

    Raises NotFound, Refused, Malformed, Untrusted for what the home lacks.
    """
    card = card_of(home)
    online = read_signer(home / "keys" / "online.pem")
    return (*card.lines, sign_addresses(card.record, card.mutual, card.open, online).line)


async def ask_to_join(session: Session, lines: Sequence[bytes]) -> JoinAnswer:
    """Put a request to every node of the session. Raises Unavailable, Refused where none takes it."""
    answers = await session.ask(lambda client: client.ask(lines))
    if not answers.found:
        raise answers.failure("nobody took the request to join")
    waiting = tuple((node.name, receipt) for node, receipt in answers.found.items())
    member = parse_entry(lines[0]).statement.subject
    if any(receipt.member != member for _, receipt in waiting):
        raise Untrusted("the request was taken for somebody else's", why="a node names another identity", code="ASK")
    return JoinAnswer(member, waiting, tuple((node.name, error) for node, error in answers.failed.items()))


async def applicants(session: Session) -> list[Applicant]:
    """Who waits, as the nodes tell; cards that do not prove themselves are left out. Raises Unavailable."""
    answers = await session.ask(lambda client: client.asks())
    if not answers.found:
        raise answers.failure("nobody says who asks to join")
    found: dict[Digest, Applicant] = {}
    for requests in answers.found.values():
        for request in requests:
            if (card := _card(request)) is not None:
                found.setdefault(card.inception.id, Applicant(card, request.since))
    return list(found.values())


def admission_drafts(sitting: CharterState, member: Digest) -> list[AdmissionDraft]:
    """The open drafts that would give `member` a seat; none where nobody drafted one, or where it has one."""
    if sitting.current.member(member) is not None:
        return []
    found = []
    for draft in sitting.council.drafts:
        if draft.body.member(member) is None:
            continue
        at = max((*draft.intents, *draft.ratified), default=0)
        by = sitting.current.member(draft.by) if draft.by else None
        consented = all(seat.id != member for seat in draft.missing)
        counts = len(draft.intents.get(at, ())), len(draft.ratified.get(at, ()))
        name = by.name if by else ""
        found.append(
            AdmissionDraft(draft.body.digest, name, draft.text, consented, at, *counts, sitting.current.quorum)
        )
    return found


def _card(request: JoinRequest) -> NodeCard | None:
    """The card of a request: inception, rotations, a node record; its addresses are the asker's own claim."""
    try:
        entries = [parse_entry(line) for line in request.lines]
        lines = {kind: [e.line for e in entries if e.statement.predicate == kind] for kind in _KINDS}
        said = [parse_addresses(entry.statement) for entry in entries if entry.statement.predicate == "addresses"]
        mutual, open_ = (said[-1].mutual, said[-1].open) if said else ((), ())
        return NodeCard.of(lines["inception"][0], lines["rotated"], lines["node-record"][-1], mutual, open_)
    except (ComityError, IndexError):
        return None


_KINDS = ("inception", "rotated", "node-record")


@dataclass(frozen=True, slots=True)
class Invitation:
    """A federation file, and what both sides read out to each other."""

    federation: Federation
    data: bytes
    spoken: tuple[tuple[str, str], ...]


def make_invitation(federation: Federation) -> Invitation:
    """`federation` as a file, with the words that name it and its newest charter."""
    spoken = (
        ("federation", syllables(federation.id)),
        (f"epoch {federation.body.epoch}", syllables(federation.body.digest)),
    )
    return Invitation(federation, federation.encode(), spoken)


def extended_federation(
    federation: Federation, sitting: CharterState, nodes: Iterable[FederationNode] = ()
) -> Federation:
    """The file with the epochs that the sitting certified, and with `nodes`; the newest record of a node wins.

    Raises Malformed/Untrusted where a node does not prove itself.
    """
    epochs = sitting.council.epochs
    known = {node.record.name: node for node in (*federation.nodes, *nodes)}
    return Federation.assemble(
        (*federation.chain, *(certificate.body for certificate in epochs)),
        (*federation.certificates, *(certificate.lines for certificate in epochs)),
        known.values(),
    )


def carried_nodes(sitting: CharterState) -> list[FederationNode]:
    """Nodes of current members whose records are among the lines at hand, with the addresses that they gave."""
    records = [entry for entry in sitting.entries if entry.statement.predicate == "node-record"]
    return list(_proven(sitting, records, sitting.entries))


async def announced_nodes(session: Session, sitting: CharterState) -> list[FederationNode]:
    """Nodes of current members, by what the session's nodes say about each member's home log. Proven here."""
    records, said = list[Entry](), list[Entry]()
    for home in _homes(sitting):
        records += await _about(session, sha256(home.encode()), "node-record")
    for entry in records:
        said += await _about(session, parse_node_record(entry).node.id, "addresses")
    return list(_proven(sitting, records, said))


def _homes(sitting: CharterState) -> list[str]:
    """Home logs of current members, by their inceptions at hand."""
    homes = dict[str, None]()
    for entry in sitting.entries:
        if entry.statement.predicate == "inception":
            with contextlib.suppress(ComityError):
                record = check_inception(entry)
                if record.home and sitting.current.member(record.id) is not None:
                    homes[record.home] = None
    return list(homes)


async def _about(session: Session, subject: Digest, predicate: str) -> list[Entry]:
    answers = await session.ask(lambda client: client.claims(subject))
    lines = dict.fromkeys(located.line for found in answers.found.values() for located in found)
    entries = (readable(line) for line in lines)
    return [entry for entry in entries if entry is not None and entry.statement.predicate == predicate]


def _proven(sitting: CharterState, records: Iterable[Entry], said: Iterable[Entry]) -> Iterable[FederationNode]:
    """Records that a current member signed, with the newest addresses that the node itself signed."""
    chains, entries = RotationChains(sitting.entries), list(said)
    for entry in records:
        try:
            record = prove_record(entry, sitting.current, chains)
        except ComityError:
            continue
        given = [parse_addresses(other.statement) for other in entries if _addresses_of(other, record)]
        mutual, open_ = (given[-1].mutual, given[-1].open) if given else ((), ())
        yield FederationNode(record, entry.line, mutual, open_)


def _addresses_of(entry: Entry, record: NodeRecord) -> bool:
    return entry.statement.predicate == "addresses" and signed_by_node(entry, record)
