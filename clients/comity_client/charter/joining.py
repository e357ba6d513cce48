"""Joining a federation: requests to join, the drafts that admit an applicant, and federation files for invitations.

A join request promises nothing: a member has to draft a charter that admits the applicant. An invitation is a
federation file built from verified material: all charters with their certificates, and the nodes. Its reader
verifies all of it, except that it *is* the intended federation: so the reader gets it from two members over separate
channels and compares the spoken words. Source: protocol, section 7.9.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from comity.content.secrets import read_signer
from comity.federation_file import Federation
from comity.rules.signing import sign_content
from comity.trust.charter.federation import FederationNode, prove_record
from comity.trust.encoding import Digest, sha256, syllables
from comity.trust.errors import ComityError, Untrusted
from comity.trust.frozen import frozen
from comity.trust.identity import check_inception
from comity.trust.node_records import Addresses, NodeRecord, newest_first, read_addresses
from comity.trust.rotation import RotationChains
from comity.trust.statement import Entry, parse_entry
from comity.trust.statement_kinds import ADDRESSES, INCEPTION, NODE_RECORD, PROVING_PREDICATES, ROTATED
from comity.wire.charter import AskReceipt, JoinRequest
from comity.wire.found import Lookup

from comity_client.charter.state import CharterState
from comity_client.evidence.held_lines import ask_all, pinned_entries
from comity_client.node_card import NodeCard
from comity_client.node_home import not_a_home
from comity_client.session import Session


@frozen
class JoinAnswer:
    """The result of a join request: the nodes where it waits, and the nodes that refused it."""

    member: Digest
    waiting: tuple[tuple[str, AskReceipt], ...]
    refused: tuple[tuple[str, ComityError], ...]


@frozen
class AdmissionDraft:
    """A draft that would admit an applicant: whether the applicant consented, and the number of INTENT and RATIFY votes
    of `quorum` in the draft's newest round."""

    body: Digest
    by: str
    text: str
    consented: bool
    round: int
    intents: int
    ratified: int
    quorum: int


@frozen
class Applicant:
    """An applicant, with a verified card. `since` is the node's statement, not verified."""

    card: NodeCard
    since: int


def card_of(home: Path) -> NodeCard:
    """Read the card in a node's home. Raises NotFound (NO-HOME), Malformed, Untrusted."""
    card = home / "node-card.json"
    if not card.exists():
        raise not_a_home(home, card.name)
    return NodeCard.read(card)


def card_lines(home: Path) -> tuple[bytes, ...]:
    """The lines of a request: those of the card, and the node's signed addresses.

    Raises NotFound, Refused, Malformed, Untrusted if the home is incomplete.
    """
    card = card_of(home)
    online = read_signer(home / "keys" / "online.pem")
    return (*card.lines, sign_content(Addresses.of(card.record, card.mutual, card.open), online).line)


async def ask_to_join(session: Session, lines: Sequence[bytes]) -> JoinAnswer:
    """Send a request to every node of the session. Raises Unavailable, Refused if no node accepts it."""
    answers = await session.ask(lambda client: client.ask(lines))
    if not answers.found:
        raise answers.failure("no node accepted the join request")
    waiting = tuple((node.name, receipt) for node, receipt in answers.found.items())
    member = parse_entry(lines[0]).statement.subject
    if any(receipt.member != member for _, receipt in waiting):
        raise Untrusted(
            "the join request was registered for another identity", why="a node returned its id", code="ASK"
        )
    return JoinAnswer(member, waiting, tuple((node.name, error) for node, error in answers.failed.items()))


async def applicants(session: Session) -> list[Applicant]:
    """The waiting applicants, from all nodes; cards that do not verify are left out. Raises Unavailable."""
    answers = await session.ask(lambda client: client.asks())
    if not answers.found:
        raise answers.failure("no node gave its join requests")
    found: dict[Digest, Applicant] = {}
    for requests in answers.found.values():
        for request in requests:
            if (card := _card(request)) is not None:
                found.setdefault(card.inception.id, Applicant(card, request.since))
    return list(found.values())


def admission_drafts(charter_state: CharterState, member: Digest) -> list[AdmissionDraft]:
    """The open drafts that would give `member` a seat; none if it already has one."""
    if charter_state.current.member(member) is not None:
        return []
    found = []
    for draft in charter_state.tally.drafts:
        if draft.body.member(member) is None:
            continue
        at = max((*draft.intents, *draft.ratified), default=0)
        by = charter_state.current.member(draft.by) if draft.by else None
        consented = all(seat.id != member for seat in draft.missing)
        counts = len(draft.intents.get(at, ())), len(draft.ratified.get(at, ()))
        name = by.name if by else ""
        found.append(
            AdmissionDraft(draft.body.digest, name, draft.text, consented, at, *counts, charter_state.current.quorum)
        )
    return found


def _card(request: JoinRequest) -> NodeCard | None:
    """The card of a request: inception, rotations, a node record. Its addresses are claims of the applicant."""
    try:
        entries = [parse_entry(line) for line in request.lines]
        lines = {kind: [e.line for e in entries if e.statement.predicate == kind] for kind in PROVING_PREDICATES}
        addresses = [Addresses.parse(entry.statement) for entry in entries if entry.statement.predicate == ADDRESSES]
        mutual, open_ = (addresses[-1].mutual, addresses[-1].open) if addresses else ((), ())
        return NodeCard.of(lines[INCEPTION][0], lines[ROTATED], lines[NODE_RECORD][-1], mutual, open_)
    except (ComityError, IndexError):
        return None


@frozen
class Invitation:
    """What a federation file will hold, and the spoken words that both sides compare."""

    federation: Federation
    spoken: tuple[tuple[str, str], ...]


def make_invitation(federation: Federation) -> Invitation:
    """The file of `federation`, with the spoken words of its id and its newest charter."""
    spoken = (
        ("federation", syllables(federation.id)),
        (f"epoch {federation.body.epoch}", syllables(federation.body.digest)),
    )
    return Invitation(federation, spoken)


def extended_federation(
    federation: Federation, charter_state: CharterState, nodes: Iterable[FederationNode] = ()
) -> Federation:
    """`federation` with the epochs certified in `charter_state` and with `nodes`. For one node, the last record wins,
    and of its addresses the last ones that are known.

    Raises Malformed/Untrusted if a node does not verify.
    """
    known = dict[tuple[Digest, str], FederationNode]()
    for node in (*federation.nodes, *nodes):
        key = node.record.member, node.record.name
        before = known.get(key)
        if before is not None and not (node.mutual or node.open):
            node = replace(node, mutual=before.mutual, open=before.open)
        known[key] = node
    return federation.extended(charter_state.tally.epochs, known.values())


def carried_nodes(charter_state: CharterState) -> list[FederationNode]:
    """Nodes of current members with a record in the charter state, with their addresses there."""
    records = [entry for entry in charter_state.entries if entry.statement.predicate == NODE_RECORD]
    return list(_verified_nodes(charter_state, records, charter_state.entries))


async def announced_nodes(session: Session, charter_state: CharterState) -> list[FederationNode]:
    """Nodes of current members, fetched from the session's nodes by home log, and verified here."""
    records, addresses = list[Entry](), list[Entry]()
    for home in _home_logs(charter_state):
        records += await _about(session, sha256(home.encode()), NODE_RECORD)
    for entry in records:
        addresses += await _about(session, NodeRecord.parse(entry.statement).node.id, ADDRESSES)
    return list(_verified_nodes(charter_state, records, addresses))


def _home_logs(charter_state: CharterState) -> list[str]:
    """Home logs of current members, from the known inceptions."""
    homes = dict[str, None]()
    for entry in charter_state.entries:
        if entry.statement.predicate == INCEPTION:
            with contextlib.suppress(ComityError):
                record = check_inception(entry)
                if record.home and charter_state.current.member(record.id) is not None:
                    homes[record.home] = None
    return list(homes)


async def _about(session: Session, subject: Digest, predicate: str) -> list[Entry]:
    answers = await ask_all(session, Lookup.about(subject))
    said = (located.line for found in answers.found.values() for located in found)
    lines = dict.fromkeys((*said, *(entry.line for entry in pinned_entries(session))))
    entries = (session.reader.readable(line) for line in lines)
    return [entry for entry in entries if entry is not None and entry.statement.predicate == predicate]


def _verified_nodes(
    charter_state: CharterState, records: Iterable[Entry], addresses: Iterable[Entry]
) -> Iterable[FederationNode]:
    """Records that a current member signed, with the last addresses that the node signed."""
    chains, entries = RotationChains(charter_state.entries), list(addresses)
    for entry in records:
        try:
            record = prove_record(entry, charter_state.current, chains)
        except ComityError:
            continue
        yield _addressed(FederationNode(record, entry.line, (), ()), entries)


async def addressed_nodes(session: Session, nodes: Iterable[FederationNode]) -> list[FederationNode]:
    """Nodes with the addresses that they announced, as the session's nodes have them."""
    return [_addressed(node, await _about(session, node.record.node.id, ADDRESSES)) for node in nodes]


def _addressed(node: FederationNode, entries: Sequence[Entry]) -> FederationNode:
    """The node with the addresses in the last statement of these that it signed."""
    read = [(entry.line, found) for entry in entries if (found := read_addresses(entry, node.record)) is not None]
    newest = next((found for _, found in newest_first(read[::-1])), None)
    return replace(node, mutual=newest.mutual, open=newest.open) if newest else node
