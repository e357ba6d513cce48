"""What this node knows of the charter, for whoever asks: lines and certificates, to be judged by who gets them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from comity.ledger.log_store import EntryQuery
from comity.node.charter.admission import JoinRequests
from comity.node.charter.follower import CharterFollower
from comity.node.charter.inbox import places
from comity.node.context import NodeContext
from comity.trust.charter.equivocation import MISBEHAVIOUR
from comity.trust.charter.votes import ADOPTED
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound
from comity.trust.statement import Entry
from comity.wire.access import Caller
from comity.wire.messages import AskReceipt, Charter, JoinRequest, LocatedEntry

BATCH: Final = 64
MAX_ADOPTED: Final = 4
"""Lines of one node in its own log, that it acts under one body: one says it."""
MAX_ACCUSED: Final = 64
"""Accusations of one log that are handed out."""


class CharterService:
    """Answers `Governance` of the wire."""

    def __init__(self, core: NodeContext, chamber: CharterFollower | None) -> None:
        self._core = core
        self._chamber = chamber
        self._asks = JoinRequests(core, time.monotonic)

    async def epochs(self, start: int) -> AsyncGenerator[Charter, None]:
        annals = self._held().annals
        certificate = await self._core.pools.ledger(annals.certificate, start)
        while True:
            yield Charter(certificate.body.epoch, certificate.body.data, certificate.lines)
            if certificate.body.epoch + 1 >= len(annals.digests):
                return
            certificate = await self._core.pools.ledger(annals.certificate, certificate.body.epoch + 1)

    async def proceedings(self, prev: Digest | None) -> AsyncGenerator[LocatedEntry, None]:
        chamber = self._held()
        body = chamber.annals.newest.digest if prev is None else prev
        if body not in chamber.annals.digests:
            raise NotFound("no such charter", why=f"no body {body} is held here", code="NO-CHARTER")
        entries = await chamber.entries(body)
        for start in range(0, len(entries), BATCH):
            for located in await self._core.pools.ledger(self._located, entries[start : start + BATCH]):
                yield located
        for located in await self._core.pools.ledger(self._around, body):
            yield located

    async def ask(self, caller: Caller, lines: Sequence[bytes]) -> AskReceipt:
        self._held()
        return await self._asks.put(caller, lines)

    async def decide_ask(self, member: Digest, *, keep: bool) -> None:
        """Raises NotFound (NO-ASK), OutOfSpace (ASKS-KEPT)."""
        await self._asks.decide(member, keep=keep)

    async def asks(self) -> AsyncGenerator[JoinRequest, None]:
        async for ask in self._asks.all():
            yield ask

    def _held(self) -> CharterFollower:
        if self._chamber is None:
            raise NotFound("no such charter", why="this node belongs to no federation yet", code="NO-CHARTER")
        return self._chamber

    def _located(self, entries: Sequence[Entry]) -> list[LocatedEntry]:
        """Blocking."""
        return [LocatedEntry(origin, index, entry.line) for entry, origin, index in places(self._core.ledger, entries)]

    def _around(self, body: Digest) -> list[LocatedEntry]:
        """Blocking. Which nodes act under a body, and who is accused: as the logs say it, unproven, a few of each."""
        found = list[LocatedEntry]()
        for log in self._core.ledger.logs.all():
            accused = EntryQuery(predicate=MISBEHAVIOUR, origin=log.vkey)
            wanted = [(accused, MAX_ACCUSED)]
            for node in self._core.membership.writers(log.vkey):
                wanted.append((EntryQuery(subject=body, predicate=ADOPTED, by=node.id, origin=log.vkey), MAX_ADOPTED))
            for query, most in wanted:
                items = self._core.ledger.index.find(query, limit=most)
                found += [LocatedEntry(item.origin, item.index, item.line) for item in items]
        return found
