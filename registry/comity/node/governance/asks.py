"""Requests to join: cards that prove themselves, kept in a bounded list for members to read and draft from.

The list is shared by blocks of addresses (`comity.ledger.asks`); a member's node that hands a request on, and the
operators, are blocks of their own, so that whoever has some way to a member is heard in any flood.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

import structlog

from comity.node.core import Core
from comity.trust.digest import Digest
from comity.trust.errors import Conflict, Malformed, Untrusted
from comity.trust.identity import check_inception
from comity.trust.rotation import Chain, KeyState, follow
from comity.trust.statement import Entry, parse_entry
from comity.trust.statements.claims import parse_addresses, signed_by_node
from comity.trust.statements.node_record import NodeRecord, check_node_record
from comity.wire.address import address_block
from comity.wire.certs import Pin
from comity.wire.doors import Caller
from comity.wire.throttle import Allowance, Throttle
from comity.wire.values import AskReceipt, JoinRequest

ALLOWANCE: Final = Allowance(calls_per_second=1 / 60, burst=5, at_once=2, all_at_once=8)
"""What one caller may ask: a card costs dozens of signatures to prove."""

_log: Final = structlog.get_logger("comity.node.charter")


class Asks:
    """The waiting list. Touched by the event loop only."""

    def __init__(self, core: Core, clock: Callable[[], float]) -> None:
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


def _record(entry: Entry, member: Digest, chain: Chain) -> NodeRecord:
    record = check_node_record(entry, chain.current.keys)
    Pin.of(record.tls)
    if record.member != member:
        raise Untrusted("card refused", why="a node record of another member", code="CARD")
    return record
