"""Admission of charter statements into this log without an operator's permission, and the queue of join requests.

Members may always vote, change keys and consent to seats, at the mutual and the open port. The author's signature is
verified afterwards, as for every line. Only verified, logged statements are counted, each statement once for any
number of copies, and each kind separately, so others cannot use up a member's quota. A member's statements are
always admitted to the log of its own node.

    grows with                                    limit                    charged to     above the limit
    a member's statements on the newest charter   MAX_NEWEST               the member     CHARTER-QUOTA, not at home
    other statements of a member, of one kind     MAX_OF_A_KIND            the member     CHARTER-QUOTA, not at home
    statements of a newcomer named by a draft     MAX_NEWCOMER             that identity  CHARTER-QUOTA
    rotations of other logged identities          MAX_ROTATIONS_SUBMITTED  that identity  CHARTER-QUOTA
    rotations of all of those together            ROTATION_RATE            the caller     RATE

A join request is a node card that proves itself. The queue is bounded and shared by address block
(`comity.ledger.quotas`). Requests forwarded by a member's node, and those of operators, are blocks of their own, so
a request that a member forwards is kept during a flood.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Final

import structlog

from comity.ledger.entry_index import EntryQuery
from comity.node.charter.follower import CharterFollower
from comity.node.charter.inbox import find_inception, prev_of
from comity.node.members import Membership
from comity.node.threads import AsyncLedger, Pools
from comity.trust.encoding import Digest
from comity.trust.errors import Conflict, Malformed, OutOfSpace, Refused, Untrusted
from comity.trust.frozen import frozen
from comity.trust.identity import check_inception
from comity.trust.node_records import Addresses, NodeRecord, check_node_record, signed_by_node
from comity.trust.places import check_new_jurisdiction
from comity.trust.rotation import KeyState, RotationChain, follow
from comity.trust.statement import Entry, parse_entry
from comity.trust.statement_kinds import (
    ADDRESSES,
    CHARTER_PREDICATES,
    CONSENTED,
    INCEPTION,
    NODE_RECORD,
    PROVING_PREDICATES,
    ROTATED,
    VOTE_PREDICATES,
)
from comity.wire.access import CALLER, Caller
from comity.wire.addresses import address_block
from comity.wire.charter import AskReceipt, JoinRequest
from comity.wire.throttle import Allowance, Throttle
from comity.wire.tls import CertificatePin

INTRODUCTIONS: Final = PROVING_PREDICATES
MAX_NEWEST: Final = 128
MAX_OF_A_KIND: Final = 64
MAX_NEWCOMER: Final = 16
MAX_ROTATIONS_SUBMITTED: Final = 8
ROTATION_RATE: Final = Allowance(calls_per_second=1 / 60, burst=8)
"""Rate limit of one caller for rotations of identities without a seat: anyone can make identities."""


@frozen
class _StatementClass:
    """Statements of one author that share a limit. `kind` is a predicate, or empty: all statements of a newcomer, or
    a member's statements about the newest charter."""

    author: Digest
    kind: str
    limit: int


class CharterAdmission:
    """Decides which entries are charter statements that may be logged. Not thread-safe: call from the event loop."""

    def __init__(
        self,
        ledger: AsyncLedger,
        membership: Membership,
        follower: CharterFollower | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._follower = follower
        self._rotation_throttle = Throttle(ROTATION_RATE, clock)
        self._newest_seen: Digest | None = None
        self._logged: dict[Digest, set[Digest]] = {}
        """Statements logged here about the successor of `_newest_seen`, by author, until the log is read again."""

    async def granted(self, entries: Iterable[Entry]) -> frozenset[Digest]:
        """Digests of the entries that need no other permission.

        Raises Refused (NOT-HOME) for a vote of a member with another home log, Refused (RATE) for too many rotations of
        identities without a seat from one caller, and OutOfSpace (CHARTER-QUOTA) if the author's limit is reached.
        """
        found: set[Digest] = set()
        more: dict[_StatementClass, set[Digest]] = {}
        for entry in entries if self._follower else ():
            if await self._is_eligible(entry):
                await self._require_quota(entry, more)
                found.add(entry.digest)
        return frozenset(found)

    def logged(self, entries: Iterable[Entry]) -> None:
        """Record verified entries that were logged."""
        newest = self._newest
        if newest != self._newest_seen:
            self._newest_seen, self._logged = newest, {}
        for entry in entries:
            by = entry.statement.by
            if (
                by is not None
                and entry.statement.predicate in CHARTER_PREDICATES
                and prev_of(entry.statement) == newest
            ):
                self._logged.setdefault(by.id, set()).add(entry.statement_digest)

    async def _is_eligible(self, entry: Entry) -> bool:
        predicate, by = entry.statement.predicate, entry.statement.by
        if by is None or predicate not in (*CHARTER_PREDICATES, *INTRODUCTIONS, ADDRESSES):
            return False
        if predicate == ADDRESSES:
            return self._membership.node(by) is not None
        seated = self._membership.member(by.id) is not None
        if predicate in VOTE_PREDICATES:
            return seated and await self._check_home(entry)
        if predicate in CHARTER_PREDICATES:
            return seated or (predicate == CONSENTED and by.id in self._newcomers)
        if seated or by.id in self._newcomers:
            return True
        return predicate == ROTATED and await self._is_known(by.id)

    @property
    def _newcomers(self) -> set[Digest]:
        """Identities with a seat in an open draft."""
        tally = self._follower.findings.tally if self._follower else None
        return {seat.id for draft in tally.drafts for seat in draft.body.members} if tally else set()

    @property
    def _newest(self) -> Digest | None:
        return self._follower.epoch_store.newest.digest if self._follower else None

    async def _is_known(self, identity: Digest) -> bool:
        return await self._ledger.run(find_inception, self._ledger.tables, identity) is not None

    async def _check_home(self, entry: Entry) -> bool:
        """Return True for a vote that this log may take: this is the member's home log, which gives its votes their
        order, or the vote is in a log already. Raises Refused (NOT-HOME) otherwise."""
        member = entry.statement.by
        assert member is not None
        if member.id == self._membership.own_node.inception.id:
            return True
        if await self._ledger.run(self._ledger.tables.index.positions, entry.digest):
            return True
        homes = sorted(peer.name for peer in self._membership.nodes_of(member.id))
        raise Refused(
            "this node is not the home of this vote",
            why="a vote is logged first by its own member's node",
            hint=f"send it to {' or '.join(homes) or 'its own node'}, or ask an operator here to log it",
            code="NOT-HOME",
        )

    async def _require_quota(self, entry: Entry, more: dict[_StatementClass, set[Digest]]) -> None:
        """Raises OutOfSpace (CHARTER-QUOTA), Refused (RATE). `more`: statements of the same submission so far."""
        by = entry.statement.by
        assert by is not None
        if by.id == self._membership.own_node.inception.id:
            return
        counted = self._class_of(entry, by.id)
        added = more.setdefault(counted, set())
        known = await self._counted(entry, counted) | added
        if entry.statement_digest in known:
            return
        if len(known) >= counted.limit:
            why = f"{counted.limit} such statements of its author are logged here"
            hint = "log it at its author's own node, or ask the operator of this node"
            raise OutOfSpace("quota of charter statements reached", why=why, hint=hint, code="CHARTER-QUOTA")
        if counted.limit == MAX_ROTATIONS_SUBMITTED:
            with self._rotation_throttle.call(CALLER.get(Caller("elsewhere")).name):
                pass
        added.add(entry.statement_digest)

    def _class_of(self, entry: Entry, author: Digest) -> _StatementClass:
        seated = self._membership.chains(author) or entry.statement.predicate == ADDRESSES
        if not seated:
            newcomer = author in self._newcomers
            return _StatementClass(
                author, "" if newcomer else ROTATED, MAX_NEWCOMER if newcomer else MAX_ROTATIONS_SUBMITTED
            )
        if entry.statement.predicate in CHARTER_PREDICATES and prev_of(entry.statement) == self._newest:
            return _StatementClass(author, "", MAX_NEWEST)
        return _StatementClass(author, entry.statement.predicate, MAX_OF_A_KIND)

    async def _counted(self, entry: Entry, counted: _StatementClass) -> set[Digest]:
        """Digests of the statements of a class in the own log; at most a few more than its limit."""
        if counted.limit == MAX_NEWEST:
            return self._newest_statements(counted.author)
        return await self._ledger.run(self._find, counted)

    def _newest_statements(self, author: Digest) -> set[Digest]:
        assert self._follower is not None
        newest = self._newest
        inbox = self._follower.vote_reader.inbox(newest) if newest else None
        usage = inbox.usage.get((self._membership.own_node.log, author)) if inbox else None
        logged = self._logged.get(author, set()) if self._newest_seen == newest else set()
        return logged | set(usage.counted if usage else ())

    def _find(self, counted: _StatementClass) -> set[Digest]:
        """Blocking."""
        found = set[Digest]()
        for kind in (counted.kind,) if counted.kind else (*INTRODUCTIONS, CONSENTED):
            query = EntryQuery(predicate=kind, by=counted.author, origin=self._membership.own_node.log)
            lines = self._ledger.tables.index.find(query, limit=counted.limit)
            found |= {parse_entry(item.line).statement_digest for item in lines}
        return found


ALLOWANCE: Final = Allowance(calls_per_second=1 / 60, burst=5, at_once=2, all_at_once=8)
"""Rate limit of one caller: a card takes dozens of signature checks."""

_log: Final = structlog.get_logger("comity.node.charter")


class JoinRequests:
    """The queue of join requests. Not thread-safe: call from the event loop."""

    def __init__(self, ledger: AsyncLedger, pools: Pools, membership: Membership, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._pools = pools
        self._membership = membership
        self._throttle = Throttle(ALLOWANCE, clock)

    async def put(self, caller: Caller, lines: Sequence[bytes]) -> AskReceipt:
        """Add a card to the queue. Raises Malformed, Untrusted, Conflict (MEMBER-ALREADY), and Refused (RATE,
        TOO-MANY-CALLS) if the caller asks too often; operators have no rate limit."""
        if caller.operator:
            return await self._put(caller, lines)
        with self._throttle.call(caller.name):
            return await self._put(caller, lines)

    async def all(self) -> AsyncGenerator[JoinRequest, None]:
        """All waiting requests, with one card in memory at a time."""
        for member in await self._ledger.run(self._ledger.tables.join_requests.waiting):
            request = await self._ledger.run(self._ledger.tables.join_requests.get, member)
            if request is not None:
                yield JoinRequest(request.member, request.since, request.lines)

    async def decide(self, member: Digest, *, keep: bool) -> None:
        """Keep a request permanently, or dismiss it. Raises NotFound (NO-ASK), OutOfSpace (ASKS-KEPT)."""
        requests = self._ledger.tables.join_requests
        await self._ledger.run(requests.keep if keep else requests.dismiss, member)
        _log.info("join request kept" if keep else "join request dismissed", member=member)

    async def _put(self, caller: Caller, lines: Sequence[bytes]) -> AskReceipt:
        member = await self._pools.hashing(check_card, lines)
        if self._membership.member(member) is not None:
            hint = "wait for the next checkpoint of this log; no request is needed"
            raise Conflict("this identity already has a seat", why=member, hint=hint, code="MEMBER-ALREADY")
        kept, dropped = await self._ledger.run(
            self._ledger.tables.join_requests.put, member, lines, self._block(caller)
        )
        waiting = await self._ledger.run(self._ledger.tables.join_requests.count)
        _log.info("join request received", member=member, block=kept.block, waiting=waiting)
        if dropped is not None:
            _log.warning(
                "join request evicted",
                member=dropped.member,
                block=dropped.block,
                since=dropped.since,
            )
        return AskReceipt(member, kept.since, waiting)

    def _block(self, caller: Caller) -> str:
        """The block to which a caller's requests are charged."""
        if caller.operator:
            return "operator"
        peer = self._membership.by_certificate(caller.certificate) if caller.certificate else None
        return f"member {peer.member.id}" if peer else address_block(caller.name.partition("/")[0])


def check_card(lines: Sequence[bytes]) -> Digest:
    """Verify a card, and return its member. It holds one inception of a member, rotations from there on, at least one
    node record under the newest keys, and addresses of those nodes. Raises Malformed, Untrusted (CARD)."""
    entries = [parse_entry(line) for line in dict.fromkeys(lines)]
    by_kind: dict[str, list[Entry]] = {}
    for entry in entries:
        by_kind.setdefault(entry.statement.predicate, []).append(entry)
    if unknown := set(by_kind) - {INCEPTION, ROTATED, NODE_RECORD, ADDRESSES}:
        raise Malformed("not a card", why=f"a {sorted(unknown)[0][:60]!r} statement does not belong in it", code="CARD")
    if len(by_kind.get(INCEPTION, ())) != 1 or not by_kind.get(NODE_RECORD):
        raise Malformed("not a card", why="it must hold one inception and at least one node record", code="CARD")
    inception = check_inception(by_kind[INCEPTION][0])
    if inception.kind != "member":
        why = "the identity is a publisher, not a member"
        raise Untrusted("card refused", why=why, hint="make a member identity: comity init --help", code="CARD")
    check_new_jurisdiction(inception.jurisdiction)
    chain = follow(KeyState.of_inception(inception), by_kind.get(ROTATED, ()))
    if len(chain.steps) != len(by_kind.get(ROTATED, ())) or chain.disputes:
        raise Untrusted("card refused", why="its rotations are not one chain from the inception", code="CARD")
    records = [_record(entry, inception.id, chain) for entry in by_kind[NODE_RECORD]]
    for entry in by_kind.get(ADDRESSES, ()):
        Addresses.parse(entry.statement)
        if not any(signed_by_node(entry, record) for record in records):
            raise Untrusted("card refused", why="it holds addresses of a node without a record in it", code="CARD")
    return inception.id


def _record(entry: Entry, member: Digest, chain: RotationChain) -> NodeRecord:
    record = check_node_record(entry, chain.current.keys)
    CertificatePin.of(record.tls)
    if record.member != member:
        raise Untrusted("card refused", why="it holds a node record of another member", code="CARD")
    return record
