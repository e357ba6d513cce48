"""The decided epochs of a federation: what each changed, who voted for it, and since when cosigners have seen it.

Changes and votes come from the certificates, which prove them, and from more votes that nodes show; a certificate names
as many members as decide. Statements have no time. The date of an epoch is when enough members had cosigned a log of
another one with its node's statement that it follows that epoch (`adopted`), by their clocks: it was decided by then,
and may have been earlier. Nodes keep the newest cosignatures of a log, so this date becomes later as logs grow; what
nodes say of when they knew these statements does not. Source: protocol, sections 7.2, 7.3 and 8.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Final

from comity.federation_file import Federation
from comity.rules.cosigned_times import time_of_quorum, verified_cosigners
from comity.trust.charter.certificate import StatementSet, ValidVotes
from comity.trust.charter.document import Body
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, NotFound
from comity.trust.frozen import frozen
from comity.trust.node_records import NodeRecord, signed_by_node
from comity.trust.statement import Entry
from comity.trust.statement_kinds import ADOPTED, DRAFT, VOTE_PREDICATES
from comity.trust.tlog.note import VerifierKey
from comity.trust.tlog.proof import TlogProof
from comity.wire.client import NodeClient
from comity.wire.messages import LocatedEntry

from comity_client.charter.joining import carried_nodes
from comity_client.charter.state import CharterState, read_entries
from comity_client.evidence.known_since import ClaimedTimes, KnownSince
from comity_client.session import Session

MAX_DATED: Final = 32
"""Limit of the newest epochs whose dates are asked for."""
ASKED: Final = 3
"""Nodes that are asked, and `adopted` statements of each epoch whose proofs are asked for."""


@frozen
class PastEpoch:
    """One epoch that was decided.

    Attributes:
        before: the charter before it; None for a genesis, to which all members consented.
        by, text: of the draft; empty if it is not known any more.
        intents, ratified: the members whose votes for it are known, of the round that decided.
        seen: the POSIX seconds by which enough cosigners had seen that a node follows it; None if no node shows that.
        known_since: since when members' nodes say that they knew it, by their clocks; None if none says a time.
    """

    body: Body
    before: Body | None
    by: Digest | None
    text: str
    intents: tuple[Digest, ...]
    ratified: tuple[Digest, ...]
    seen: int | None = None
    known_since: KnownSince | None = None


@frozen
class ShownPast:
    """What nodes show of decided bodies: statements, not verified yet; by body, `seen` and `known_since` of
    `PastEpoch`."""

    entries: Sequence[Entry] = ()
    seen: Mapping[Digest, int] = field(default_factory=dict)
    known_since: Mapping[Digest, KnownSince] = field(default_factory=dict)


def past_epochs(federation: Federation, charter_state: CharterState, shown: ShownPast | None = None) -> list[PastEpoch]:
    """The epochs that are certified here, the newest first."""
    shown = shown or ShownPast()
    more = [*charter_state.entries, *shown.entries]
    certified = [*zip(federation.chain, federation.certificates, strict=True),
                 *((each.body, each.lines) for each in charter_state.tally.epochs)]  # fmt: skip
    first = certified[0][0]
    found = [PastEpoch(first, None, None, "", (), tuple(seat.id for seat in first.active))]
    for (before, _), (body, lines) in itertools.pairwise(certified):
        found.append(_past_epoch(before, body, [*read_entries(lines), *more]))
    dated = (
        replace(each, seen=shown.seen.get(each.body.digest), known_since=shown.known_since.get(each.body.digest))
        for each in reversed(found)
    )
    return list(dated)


def _past_epoch(before: Body, body: Body, entries: Sequence[Entry]) -> PastEpoch:
    drafts = [
        entry for entry in entries if entry.statement.predicate == DRAFT and entry.statement.subject == body.digest
    ]
    about = [entry for entry in entries if _counts(entry, body)]
    votes = ValidVotes(before, StatementSet.sort(about))
    proposed = next((entry for entry in drafts if _of_member(votes, entry)), None)
    by, text = (proposed.statement.by, proposed.statement.body.get("text")) if proposed else (None, "")
    ratified = max(votes.ratified(body.digest).items(), key=lambda each: len(each[1]), default=(0, {}))
    intents = votes.intents(body.digest).get(ratified[0], {})
    return PastEpoch(
        body,
        before,
        by.id if by else None,
        text if isinstance(text, str) else "",
        tuple(sorted(intents)),
        tuple(sorted(ratified[1])),
    )


def _counts(entry: Entry, body: Body) -> bool:
    """Whether a statement is a vote for `body`, or says which keys an author has."""
    return entry.statement.predicate not in VOTE_PREDICATES or entry.statement.subject == body.digest


def _of_member(votes: ValidVotes, entry: Entry) -> bool:
    by = entry.statement.by
    return by is not None and by.id in votes.voters and votes.is_signed_by(by.id, entry.envelope)


async def gather_past(session: Session, federation: Federation, charter_state: CharterState) -> ShownPast:
    """What a few nodes show about the newest certified bodies. Nodes that do not answer, or do not know a body, are
    skipped."""
    bodies = [*federation.chain, *(each.body for each in charter_state.tally.epochs)][1:][-MAX_DATED:]
    records = {node.record.node.id: node.record for node in (*federation.nodes, *carried_nodes(charter_state))}
    owners = {key: record.member for record in records.values() for key in record.cosigners}
    asked = session.soonest((node for node in session.nodes if not node.former), ASKED)
    answers = await session.ask_each(
        lambda node: lambda client: _about(client, bodies, records, owners), asked, enough=lambda found: False
    )
    entries, seen, claimed = list[Entry](), dict[Digest, int](), ClaimedTimes()
    for node, (located, times) in answers.found.items():
        entries += read_entries(each.line for each in located)
        claimed.add(node.member.id, located)
        for body, at in times.items():
            seen[body] = min(at, seen.get(body, at))
    known = {body.digest: claimed.of(*(e.line for e, _ in adoptions(entries, body, records))) for body in bodies}
    return ShownPast(entries, seen, {body: since for body, since in known.items() if since is not None})


async def _about(
    client: NodeClient,
    bodies: Iterable[Body],
    records: Mapping[Digest, NodeRecord],
    owners: Mapping[VerifierKey, Digest],
) -> tuple[list[LocatedEntry], dict[Digest, int]]:
    found: list[LocatedEntry] = []
    seen: dict[Digest, int] = {}
    for body in bodies:
        try:
            claims = await client.claims(body.digest)
        except NotFound:
            continue
        found += claims
        shown = list(read_entries(each.line for each in claims))
        for entry, record in [*adoptions(shown, body, records)][:ASKED]:
            with contextlib.suppress(NotFound):
                for located in await client.proofs(sha256(entry.line)):
                    at = cosigned_by(located.proof, entry, record, owners, body.policy.cosigner_quorum)
                    if at is not None:
                        seen[body.digest] = min(at, seen.get(body.digest, at))
    return found, seen


def adoptions(
    entries: Iterable[Entry], body: Body, records: Mapping[Digest, NodeRecord]
) -> Iterator[tuple[Entry, NodeRecord]]:
    """The statements in which a node says itself that it follows `body`, each with its record."""
    for entry in entries:
        by = entry.statement.by
        record = records.get(by.id) if by else None
        adopts = entry.statement.predicate == ADOPTED and entry.statement.subject == body.digest
        if adopts and record is not None and signed_by_node(entry, record):
            yield entry, record


def cosigned_by(
    proof: bytes, entry: Entry, record: NodeRecord, owners: Mapping[VerifierKey, Digest], needed: int
) -> int | None:
    """When, by their clocks, `needed` members beside the log's own had cosigned it; None if fewer did, or the proof is
    not valid."""
    try:
        parsed = TlogProof.parse(proof)
        checkpoint = parsed.verify(entry.line, record.log)
        cosigned = verified_cosigners(parsed.checkpoint, owners, checkpoint)
    except ComityError:
        return None
    times: dict[Digest, int] = {}
    for key, at in cosigned.items():
        times[owners[key]] = min(at, times.get(owners[key], at))
    times.pop(record.member, None)
    return time_of_quorum(times.values(), needed)
