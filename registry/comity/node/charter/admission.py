"""Who may have words about the charter logged here and is no operator: members, and those whom drafts would admit.

Nobody needs anybody's leave to vote, to change keys, or to agree to a seat; so these lines are taken at the open door
and at the mutual one, whatever the operator says about publishing. Whether they are their author's is proven
afterwards, as for all lines, and only what was proven and logged counts against anybody: a statement once, however many
copies of it come, and each kind of statement by itself, so that nobody who hands in what a member once signed uses up
what that member has yet to say. To its own node's log a member's statements are always admitted.

    grows with                                    bound             charged to      at the bound
    a member's words about the newest charter     MAX_WORDS         the member      CHARTER-QUOTA, but at home
    other statements of a member, of one kind     MAX_OF_A_KIND     the member      CHARTER-QUOTA, but at home
    statements of one whom a draft would admit    MAX_HOPEFUL       that identity   CHARTER-QUOTA
    rotations of others whose inception is here   MAX_ROTATIONS     that identity   CHARTER-QUOTA
    the same, of all others together              ROTATING          who calls       RATE


Requests to join: cards that prove themselves, kept in a bounded list for members to read and draft from.

The list is shared by blocks of addresses (`comity.ledger.quotas`); a member's node that hands a request on, and the
operators, are blocks of their own, so that whoever has some way to a member is heard in any flood.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from comity.ledger.log_store import EntryQuery
from comity.node.charter.follower import CharterFollower
from comity.node.charter.inbox import SPOKEN, about, inception
from comity.node.context import NodeContext
from comity.trust.charter.votes import CONSENTED, INTENT, RATIFIED
from comity.trust.encoding import Digest
from comity.trust.errors import Conflict, Malformed, OutOfSpace, Refused, Untrusted
from comity.trust.identity import check_inception
from comity.trust.rotation import KeyState, RotationChain, follow
from comity.trust.statement import Entry, parse_entry
from comity.trust.statements import NodeRecord, check_node_record, parse_addresses, signed_by_node
from comity.wire.access import CALLER, Caller
from comity.wire.limits import Allowance, Throttle
from comity.wire.messages import AskReceipt, JoinRequest
from comity.wire.tls import CertificatePin, address_block

INTRODUCTIONS: Final = ("inception", "rotated", "node-record")
MAX_WORDS: Final = 128
MAX_OF_A_KIND: Final = 64
MAX_HOPEFUL: Final = 16
MAX_ROTATIONS_SUBMITTED: Final = 8
ROTATING: Final = Allowance(calls_per_second=1 / 60, burst=8)
"""How many rotations of identities without a seat one caller hands in: anybody can make identities."""


@dataclass(frozen=True, slots=True)
class _StatementClass:
    """Statements of one author that are counted together. `kind` is a predicate, or empty: all of the author's, or what
    is said about the newest charter."""

    author: Digest
    kind: str
    most: int


class CharterAdmission:
    """Says which entries are words about the charter that may be logged. Touched by the event loop only."""

    def __init__(
        self, core: NodeContext, chamber: CharterFollower | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._core = core
        self._chamber = chamber
        self._rotating = Throttle(ROTATING, clock)
        self._about: Digest | None = None
        self._logged: dict[Digest, set[Digest]] = {}
        """What was logged here about the successor of `_about`, by author: reading the log again takes a moment."""

    async def granted(self, entries: Iterable[Entry]) -> frozenset[Digest]:
        """Digests of the entries that need no other permission.

        Raises Refused (NOT-HOME) for a reading whose member keeps its readings elsewhere, (RATE) for a caller who
        brings too many rotations of strangers, and OutOfSpace (CHARTER-QUOTA) where its author has had enough logged.
        """
        found: set[Digest] = set()
        more: dict[_StatementClass, set[Digest]] = {}
        for entry in entries if self._chamber else ():
            if await self._may(entry):
                await self._require_quota(entry, more)
                found.add(entry.digest)
        return frozenset(found)

    def logged(self, entries: Iterable[Entry]) -> None:
        """Note what was proven and logged."""
        newest = self._newest
        if newest != self._about:
            self._about, self._logged = newest, {}
        for entry in entries:
            by = entry.statement.by
            if by is not None and entry.statement.predicate in SPOKEN and about(entry.statement) == newest:
                self._logged.setdefault(by.id, set()).add(entry.statement_digest)

    async def _may(self, entry: Entry) -> bool:
        predicate, by = entry.statement.predicate, entry.statement.by
        if by is None or predicate not in (*SPOKEN, *INTRODUCTIONS, "addresses"):
            return False
        if predicate == "addresses":
            return self._core.membership.node(by) is not None
        seated = self._core.membership.member(by.id) is not None
        if predicate in (INTENT, RATIFIED):
            return seated and await self._is_home(entry)
        if predicate in SPOKEN:
            return seated or (predicate == CONSENTED and by.id in self._hopefuls)
        if seated or by.id in self._hopefuls:
            return True
        return predicate == "rotated" and await self._is_known(by.id)

    @property
    def _hopefuls(self) -> set[Digest]:
        """Who would get a seat by a draft that is open."""
        council = self._chamber.outlook.council if self._chamber else None
        return {seat.id for draft in council.drafts for seat in draft.body.members} if council else set()

    @property
    def _newest(self) -> Digest | None:
        return self._chamber.annals.newest.digest if self._chamber else None

    async def _is_known(self, identity: Digest) -> bool:
        return await self._core.pools.ledger(inception, self._core.ledger, identity) is not None

    async def _is_home(self, entry: Entry) -> bool:
        """Readings have their order in their member's home log, and are handed out from there: here they are taken if
        this is it, or if they stand in a log already."""
        member = entry.statement.by
        assert member is not None
        if member.id == self._core.seat.inception.id:
            return True
        if await self._core.pools.ledger(self._core.ledger.index.places, entry.digest):
            return True
        homes = sorted(peer.name for peer in self._core.membership.nodes_of(member.id))
        raise Refused(
            "this is not the home of that reading",
            why="a reading is logged by its own member's node before it is handed out",
            hint=f"send it to {' or '.join(homes) or 'its own node'}, or give it to an operator here",
            code="NOT-HOME",
        )

    async def _require_quota(self, entry: Entry, more: dict[_StatementClass, set[Digest]]) -> None:
        """Raises OutOfSpace (CHARTER-QUOTA), Refused (RATE). `more`: what the same submission has brought so far."""
        by = entry.statement.by
        assert by is not None
        if by.id == self._core.seat.inception.id:
            return
        counted = self._class(entry, by.id)
        coming = more.setdefault(counted, set())
        stands = await self._standing(entry, counted) | coming
        if entry.statement_digest in stands:
            return
        if len(stands) >= counted.most:
            why = f"{counted.most} such statements of its author are logged here"
            hint = "log it at its author's own node, or ask the operator of this one"
            raise OutOfSpace("enough said", why=why, hint=hint, code="CHARTER-QUOTA")
        if counted.most == MAX_ROTATIONS_SUBMITTED:
            with self._rotating.call(CALLER.get(Caller("elsewhere")).name):
                pass
        coming.add(entry.statement_digest)

    def _class(self, entry: Entry, author: Digest) -> _StatementClass:
        seated = self._core.membership.chains(author) or entry.statement.predicate == "addresses"
        if not seated:
            hopeful = author in self._hopefuls
            return _StatementClass(
                author, "" if hopeful else "rotated", MAX_HOPEFUL if hopeful else MAX_ROTATIONS_SUBMITTED
            )
        if entry.statement.predicate in SPOKEN and about(entry.statement) == self._newest:
            return _StatementClass(author, "", MAX_WORDS)
        return _StatementClass(author, entry.statement.predicate, MAX_OF_A_KIND)

    async def _standing(self, entry: Entry, counted: _StatementClass) -> set[Digest]:
        """Digests of the statements in the own log that count in a class; at most a few more than it may have."""
        if counted.most == MAX_WORDS:
            return self._words(counted.author)
        return await self._core.pools.ledger(self._find, counted)

    def _words(self, author: Digest) -> set[Digest]:
        assert self._chamber is not None
        newest = self._newest
        share = self._chamber.proceedings.about(newest).shares.get((self._core.log, author)) if newest else None
        logged = self._logged.get(author, set()) if self._about == newest else set()
        return logged | set(share.counted if share else ())

    def _find(self, counted: _StatementClass) -> set[Digest]:
        """Blocking."""
        found = set[Digest]()
        for kind in (counted.kind,) if counted.kind else (*INTRODUCTIONS, CONSENTED):
            mine = EntryQuery(predicate=kind, by=counted.author, origin=self._core.log)
            lines = self._core.ledger.index.find(mine, limit=counted.most)
            found |= {parse_entry(item.line).statement_digest for item in lines}
        return found


ALLOWANCE: Final = Allowance(calls_per_second=1 / 60, burst=5, at_once=2, all_at_once=8)
"""What one caller may ask: a card costs dozens of signatures to prove."""

_log: Final = structlog.get_logger("comity.node.charter")


class JoinRequests:
    """The waiting list. Touched by the event loop only."""

    def __init__(self, core: NodeContext, clock: Callable[[], float]) -> None:
        self._core = core
        self._throttle = Throttle(ALLOWANCE, clock)

    async def put(self, caller: Caller, lines: Sequence[bytes]) -> AskReceipt:
        """Note a card. Raises Malformed, Untrusted, Conflict (MEMBER-ALREADY), and Refused (RATE, TOO-MANY-CALLS) where
        the caller asks too often; operators may ask for whomever they like."""
        if caller.operator:
            return await self._put(caller, lines)
        with self._throttle.call(caller.name):
            return await self._put(caller, lines)

    async def all(self) -> AsyncGenerator[JoinRequest, None]:
        """Requests that wait, one card in memory at a time."""
        for member in await self._core.pools.ledger(self._core.ledger.asks.waiting):
            ask = await self._core.pools.ledger(self._core.ledger.asks.get, member)
            if ask is not None:
                yield JoinRequest(ask.member, ask.since, ask.lines)

    async def decide(self, member: Digest, *, keep: bool) -> None:
        """Keep a request whatever else comes, or dismiss it. Raises NotFound (NO-ASK), OutOfSpace (ASKS-KEPT)."""
        asks = self._core.ledger.asks
        await self._core.pools.ledger(asks.keep if keep else asks.dismiss, member)
        _log.info("a request to join is kept" if keep else "a request to join is dismissed", member=member)

    async def _put(self, caller: Caller, lines: Sequence[bytes]) -> AskReceipt:
        member = await self._core.pools.hashing(check_card, lines)
        if self._core.membership.member(member) is not None:
            hint = "wait for the next head of this log; nothing more has to be asked"
            raise Conflict("this identity has a seat already", why=member, hint=hint, code="MEMBER-ALREADY")
        kept, gone = await self._core.pools.ledger(self._core.ledger.asks.put, member, lines, self._block(caller))
        waiting = await self._core.pools.ledger(self._core.ledger.asks.count)
        _log.info("somebody asks to join", member=member, block=kept.block, waiting=waiting)
        if gone is not None:
            _log.warning("a request to join had to go", member=gone.member, block=gone.block, since=gone.since)
        return AskReceipt(member, kept.since, waiting)

    def _block(self, caller: Caller) -> str:
        """What a caller's requests are counted by."""
        if caller.operator:
            return "operator"
        peer = self._core.membership.by_certificate(caller.certificate) if caller.certificate else None
        return f"member {peer.member.id}" if peer else address_block(caller.name.partition("/")[0])


def check_card(lines: Sequence[bytes]) -> Digest:
    """Whose card it is, proven by its own signatures: one inception of a member, rotations that lead on from it, at
    least one node record under its newest keys, and addresses of those nodes. Raises Malformed, Untrusted (CARD)."""
    entries = [parse_entry(line) for line in dict.fromkeys(lines)]
    by_kind: dict[str, list[Entry]] = {}
    for entry in entries:
        by_kind.setdefault(entry.statement.predicate, []).append(entry)
    if unknown := set(by_kind) - {"inception", "rotated", "node-record", "addresses"}:
        raise Malformed("not a card", why=f"a {sorted(unknown)[0][:60]!r} statement has no place in it", code="CARD")
    if len(by_kind.get("inception", ())) != 1 or not by_kind.get("node-record"):
        raise Malformed("not a card", why="it holds one inception and at least one node record", code="CARD")
    inception = check_inception(by_kind["inception"][0])
    if inception.kind != "member":
        why = "the identity is a publisher's"
        raise Untrusted("card refused", why=why, hint="make a member's: comity init --help", code="CARD")
    chain = follow(KeyState.of_inception(inception), by_kind.get("rotated", ()))
    if len(chain.steps) != len(by_kind.get("rotated", ())) or chain.disputes:
        raise Untrusted("card refused", why="its rotations do not lead on from one another", code="CARD")
    records = [_record(entry, inception.id, chain) for entry in by_kind["node-record"]]
    for entry in by_kind.get("addresses", ()):
        parse_addresses(entry.statement)
        if not any(signed_by_node(entry, record) for record in records):
            raise Untrusted("card refused", why="addresses of a node that it does not list", code="CARD")
    return inception.id


def _record(entry: Entry, member: Digest, chain: RotationChain) -> NodeRecord:
    record = check_node_record(entry, chain.current.keys)
    CertificatePin.of(record.tls)
    if record.member != member:
        raise Untrusted("card refused", why="a node record of another member", code="CARD")
    return record
