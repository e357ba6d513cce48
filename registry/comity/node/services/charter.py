"""The charter service: the statements and certificates that this node holds about the charter. Callers verify them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final

from comity.ledger.entry_index import EntryQuery
from comity.node.charter.admission import JoinRequests
from comity.node.charter.follower import CharterFollower
from comity.node.charter.inbox import first_locations
from comity.node.epochs import EpochStore
from comity.node.members import Membership
from comity.node.threads import AsyncLedger
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound
from comity.trust.statement import Entry
from comity.trust.statement_kinds import ADOPTED, MISBEHAVIOUR
from comity.wire.access import Caller
from comity.wire.charter import AskReceipt, JoinRequest
from comity.wire.messages import LocatedEntry
from comity.wire.node import Charter

BATCH: Final = 64
MAX_ADOPTED: Final = 4
"""Limit of `adopted` lines of one node in its own log for one body. One is enough."""
MAX_MISBEHAVIOUR: Final = 64
"""Limit of `misbehaviour` statements returned from one log."""


async def certified_epochs(ledger: AsyncLedger, epoch_store: EpochStore, start: int) -> AsyncGenerator[Charter, None]:
    """The followed epochs from `start` on, in order. Raises NotFound (NO-CHARTER)."""
    certificate = await ledger.run(epoch_store.certificate, start)
    while True:
        yield Charter(certificate.body.epoch, certificate.body.data, certificate.lines)
        if certificate.body.epoch + 1 >= len(epoch_store.digests):
            return
        certificate = await ledger.run(epoch_store.certificate, certificate.body.epoch + 1)


class CharterServicer:
    """Implements `CharterService`."""

    def __init__(
        self, ledger: AsyncLedger, membership: Membership, follower: CharterFollower | None, requests: JoinRequests
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._follower = follower
        self._asks = requests

    async def epochs(self, start: int = 0) -> AsyncGenerator[Charter, None]:
        async for charter in certified_epochs(self._ledger, self._require_follower().epoch_store, start):
            yield charter

    async def next_epoch_entries(self, prev: Digest | None = None) -> AsyncGenerator[LocatedEntry, None]:
        follower = self._require_follower()
        body = follower.epoch_store.newest.digest if prev is None else prev
        if body not in follower.epoch_store.digests:
            raise NotFound("no such charter", why=f"this node does not hold the body {body}", code="NO-CHARTER")
        entries = await follower.entries(body)
        for start in range(0, len(entries), BATCH):
            for located in await self._ledger.run(self._located, entries[start : start + BATCH]):
                yield located
        for located in await self._ledger.run(self._adopted_and_misbehaviour, body):
            yield located

    async def ask(self, caller: Caller, lines: Sequence[bytes]) -> AskReceipt:
        self._require_follower()
        return await self._asks.put(caller, lines)

    async def decide_ask(self, member: Digest, *, keep: bool) -> None:
        """Raises NotFound (NO-ASK), OutOfSpace (ASKS-KEPT)."""
        await self._asks.decide(member, keep=keep)

    async def asks(self) -> AsyncGenerator[JoinRequest, None]:
        async for ask in self._asks.all():
            yield ask

    def _require_follower(self) -> CharterFollower:
        if self._follower is None:
            raise NotFound("no such charter", why="this node belongs to no federation yet", code="NO-CHARTER")
        return self._follower

    def _located(self, entries: Sequence[Entry]) -> list[LocatedEntry]:
        """Blocking."""
        return [
            LocatedEntry(origin, index, entry.line)
            for entry, origin, index in first_locations(self._ledger.tables, entries)
        ]

    def _adopted_and_misbehaviour(self, body: Digest) -> list[LocatedEntry]:
        """Blocking. `adopted` statements about a body, and `misbehaviour` statements; unverified, a few of each log."""
        found = list[LocatedEntry]()
        for log in self._ledger.tables.logs.all():
            misbehaviour = EntryQuery(predicate=MISBEHAVIOUR, origin=log.vkey)
            wanted = [(misbehaviour, MAX_MISBEHAVIOUR)]
            for node in self._membership.writers(log.vkey):
                wanted.append((EntryQuery(subject=body, predicate=ADOPTED, by=node.id, origin=log.vkey), MAX_ADOPTED))
            for query, most in wanted:
                items = self._ledger.tables.index.find(query, limit=most)
                found += [LocatedEntry(item.origin, item.index, item.line) for item in items]
        return found
