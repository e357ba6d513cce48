"""Which charter the members' nodes follow, and the lines that they lack to follow what a client has computed.

A client computes the newest charter from all lines that it knows. A node follows a charter when it has read its votes
and consents itself: in its own log, and in those of the members of the charter that it follows. No member reads a
newcomer's log. So a consent that only the newcomer's node and its client have decides on that machine alone.

    followed_charter   the newest charter that the nodes of a quorum follow, by their signed `adopted` statements
    lacked_lines       the lines that nodes lack, who has them, and the nodes that may take them
    deliver_lacked     submits them

Source: protocol, sections 7.3, 7.7 and 7.9.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from comity.federation_file import Federation
from comity.trust.charter.document import Body, Member, quorum
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound
from comity.trust.frozen import frozen
from comity.trust.node_records import NodeRecord, signed_by_node
from comity.trust.statement import Entry
from comity.trust.statement_kinds import (
    ADOPTED,
    CHARTER_PREDICATES,
    CONSENTED,
    DRAFT,
    INTENT,
    PROVING_PREDICATES,
    RATIFIED,
    VOTE_PREDICATES,
)
from comity.wire.client import NodeClient

from comity_client.charter.joining import carried_nodes
from comity_client.charter.state import CharterMaterial, CharterState, DeliveredLine, deliver_lines, read_entries
from comity_client.session import RemoteNode, Session
from comity_client.uplink import open_uplink

MEMBERS_TOLD: Final = 2
"""Members whose nodes log a line that any node may take. The nodes of the others read it there."""
_WHAT: Final = {INTENT: "INTENT", RATIFIED: "RATIFY", CONSENTED: "the consent", DRAFT: "the draft"}


@frozen
class Following:
    """The newest charter that is `known` here, and the newest one that the nodes of a quorum have `followed`.

    Attributes:
        members: those whose nodes follow `known`.
        needed: how many of the members that decide it; of those whose nodes are known here, if that is less.
    """

    known: Body
    followed: Body
    members: tuple[Digest, ...]
    needed: int

    @property
    def ahead(self) -> bool:
        """Whether this client has computed a charter that the nodes of a quorum do not follow."""
        return self.known.epoch > self.followed.epoch


def followed_charter(federation: Federation, charter_state: CharterState) -> Following:
    """The newest charter that the nodes of a quorum follow, by what these nodes signed. Where no node of the deciding
    members is known, it is the newest one that is known here, because nobody can be asked."""
    path = [*federation.chain, *(each.body for each in charter_state.tally.epochs)]
    known = (*federation.nodes, *carried_nodes(charter_state))
    epochs = _adopted_epochs(path, (node.record for node in known), charter_state.entries)
    nodes_of = {node.record.member for node in known}
    found: list[Following] = []
    for before, body in zip(reversed(path[:-1]), reversed(path[1:]), strict=True):
        asked = [seat.id for seat in before.active if seat.id in nodes_of]
        members = tuple(member for member in asked if epochs.get(member, 0) >= body.epoch)
        needed = before.quorum if len(asked) >= before.quorum else quorum(len(asked)) if asked else 0
        found.append(Following(path[-1], body, members, needed))
        if len(members) >= needed:
            break
    else:
        return Following(path[-1], path[0], found[0].members, found[0].needed) if found else _genesis(path[0])
    return Following(path[-1], found[-1].followed, found[0].members, found[0].needed)


def _genesis(body: Body) -> Following:
    return Following(body, body, tuple(seat.id for seat in body.active), 0)


def _adopted_epochs(
    path: Sequence[Body], records: Iterable[NodeRecord], entries: Iterable[Entry]
) -> Mapping[Digest, int]:
    """By member, the newest epoch of `path` that one of its nodes says it follows."""
    epochs = {body.digest: body.epoch for body in path}
    by_node = {record.node.id: record for record in records}
    found: dict[Digest, int] = {}
    for entry in entries:
        by, subject = entry.statement.by, entry.statement.subject
        if entry.statement.predicate != ADOPTED or by is None or subject not in epochs:
            continue
        record = by_node.get(by.id)
        if record is not None and epochs[subject] > found.get(record.member, 0) and signed_by_node(entry, record):
            found[record.member] = epochs[subject]
    return found


@frozen
class NodeLines:
    """The statements that one node of a member shows about the next charter; None if it does not answer.

    Attributes:
        log: the verifier key of its log, by which a session finds it.
    """

    log: str
    name: str
    member: Digest
    statements: frozenset[Digest] | None

    def has(self, entry: Entry) -> bool:
        return self.statements is not None and entry.statement_digest in self.statements


@frozen
class LackedLine:
    """A line that nodes of members lack.

    Attributes:
        what: its meaning and its author, in words.
        held_by: the nodes of members that show it, from which the others read it; without any, no member knows it.
        takers: the nodes that lack it and take it from anybody: for a vote the nodes of its member.
    """

    entry: Entry
    what: str
    held_by: tuple[str, ...]
    takers: tuple[NodeLines, ...]

    @property
    def stuck(self) -> bool:
        """Whether no member's node has it, so that it stays unknown until somebody delivers it."""
        return not self.held_by


def wanted_entries(
    federation: Federation, charter_state: CharterState, following: Following, own: CharterMaterial
) -> list[Entry]:
    """The lines that nodes need next: those that certify the epoch after the followed one; if this client is not ahead,
    those that its user delivered or signed (`own`) about the current charter."""
    if following.ahead:
        lines = _certificate_after(federation, charter_state, following.followed)
        return [*_drafts_after(charter_state, following.followed), *read_entries(lines)]
    current = charter_state.current
    about = [
        entry
        for entry in read_entries(own.lines)
        if entry.statement.predicate in CHARTER_PREDICATES and entry.statement.body.get("prev") == current.digest
    ]
    authors = {by.id for entry in about if (by := entry.statement.by) is not None} - {s.id for s in current.members}
    proofs = [
        entry
        for entry in charter_state.entries
        if entry.statement.predicate in PROVING_PREDICATES and (by := entry.statement.by) is not None
        if by.id in authors
    ]
    return [*proofs, *about]


def _drafts_after(charter_state: CharterState, body: Body) -> Iterator[Entry]:
    """The drafts of the successor of `body`: a node takes what a newcomer signed once it knows a draft with it."""
    for entry in charter_state.entries:
        if entry.statement.predicate == DRAFT and entry.statement.body.get("prev") == body.digest:
            yield entry


def _certificate_after(federation: Federation, charter_state: CharterState, body: Body) -> Iterable[bytes]:
    for each, lines in zip(federation.chain, federation.certificates, strict=True):
        if each.prev == body.digest:
            return lines
    return next((each.lines for each in charter_state.tally.epochs if each.body.prev == body.digest), ())


def lacked_lines(
    entries: Iterable[Entry], followed: Body, nodes: Sequence[NodeLines], known: Mapping[Digest, str]
) -> list[LackedLine]:
    """Which of `entries` nodes lack that have to be told: a vote that its own member's node does not show, and another
    line that fewer than `MEMBERS_TOLD` members' nodes show.

    Args:
        followed: the charter that these nodes follow; those of other members do not count, because nobody reads them.
        known: names of seats, by id.
    """
    nodes = [node for node in nodes if followed.member(node.member) is not None]
    found = []
    for entry in entries:
        by = entry.statement.by
        holders = [node for node in nodes if node.has(entry)]
        if by is None or len({node.member for node in holders}) >= MEMBERS_TOLD:
            continue
        if entry.statement.predicate in VOTE_PREDICATES and holders:
            continue
        told = {node.member for node in holders}
        takers = [node for node in nodes if node.member not in told and _takes(node, entry, by.id)]
        if takers:
            what = (
                f"{_WHAT.get(entry.statement.predicate, entry.statement.predicate)} of {known.get(by.id, by.id[:12])}"
            )
            found.append(LackedLine(entry, what, tuple(node.name for node in holders), tuple(takers)))
    return found


def _takes(node: NodeLines, entry: Entry, author: Digest) -> bool:
    return entry.statement.predicate not in VOTE_PREDICATES or node.member == author


def known_seats(charter_state: CharterState) -> dict[Digest, str]:
    """Names of the seats of the current charter and of the open drafts, by id."""
    bodies = (charter_state.start, *(draft.body for draft in charter_state.tally.drafts), charter_state.current)
    seats: Iterator[Member] = (seat for body in bodies for seat in body.members)
    return {seat.id: f"{seat.name} ({seat.jurisdiction})" for seat in seats}


async def lines_of_nodes(session: Session, followed: Body) -> list[NodeLines]:
    """What each node of a member shows about the successor of `followed`; nothing, if it does not know that charter."""
    answers = await session.ask(lambda client: _lines_about(client, followed))
    return [
        NodeLines(str(node.record.log), node.name, node.member.id, answers.found.get(node)) for node in _nodes(session)
    ]


async def _lines_about(client: NodeClient, followed: Body) -> frozenset[Digest]:
    try:
        shown = await client.next_epoch_entries(followed.digest)
    except NotFound:
        return frozenset()
    return frozenset(entry.statement_digest for entry in read_entries(located.line for located in shown))


def _nodes(session: Session) -> list[RemoteNode]:
    return [node for node in session.nodes if not node.former]


async def deliver_lacked(
    session: Session, lacked: Sequence[LackedLine], objects: Mapping[Digest, bytes]
) -> dict[str, list[DeliveredLine]]:
    """Submit each line to its takers, a vote to one and any other line until `MEMBERS_TOLD` members' nodes have it.
    Returns the results by node; a node that does not answer has none."""
    told = {line.entry.digest: len(line.held_by) for line in lacked}
    results: dict[str, list[DeliveredLine]] = {}
    for taker in dict.fromkeys(node for line in lacked for node in line.takers):
        wanted = [line.entry.line for line in lacked if taker in line.takers and told[line.entry.digest] < MEMBERS_TOLD]
        if not wanted:
            continue
        try:
            async with open_uplink(session, taker.log) as uplink:
                delivered = await deliver_lines(uplink, CharterMaterial(frozenset(wanted), objects))
        except ComityError:
            continue  # another node is asked
        accepted = {item.line for item in delivered if item.index is not None}
        if accepted:
            results[taker.name] = delivered
        for line in lacked:
            told[line.entry.digest] += line.entry.line in accepted
    return results
