"""What a node says about the charter in its own log, with its online key: that it took up an epoch, and who lied."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import structlog

from comity.ledger.index import Query
from comity.node.core import Core
from comity.node.own_log import OwnLog
from comity.trust.charter import Body, Lie, Member, accusation, adopted_statement
from comity.trust.charter.lies import MISBEHAVIOUR
from comity.trust.charter.proposing import ADOPTED
from comity.trust.digest import Digest
from comity.trust.statement import SideObject, parse_entry, sign_statement

MAX_ACCUSATIONS: Final = 8
"""Statements of one member's lies that this node logs: one convicts."""

_log: Final = structlog.get_logger("comity.node.charter")


class Word:
    """Says each thing once, whatever happens between: the log itself is asked what was said."""

    def __init__(self, core: Core, own_log: OwnLog) -> None:
        self._core = core
        self._own_log = own_log
        self._told: set[Lie] = set()
        """Lies that were said, of each member a few."""

    async def adopted(self, body: Body) -> None:
        """This node acts under `body`. A genesis needs no such word: all its members consented."""
        if body.epoch == 0 or await self._core.pools.ledger(self._said, body.digest):
            return
        await self._core.pools.files(self._core.store.put, body.digest, body.data)
        said = adopted_statement(body, self._core.seat.record.node.id)
        await self._own_log.append(sign_statement(said, self._core.keys.online).line)
        _log.info("epoch adopted", epoch=body.epoch, body=body.digest)

    async def introduce(self, members: Iterable[Member]) -> None:
        """Say again, where all will read it, the card of who asked here and has a seat now; then it waits no longer."""
        seats = {seat.id for seat in members}
        for member in seats.intersection(await self._core.pools.ledger(self._core.ledger.asks.waiting)):
            ask = await self._core.pools.ledger(self._core.ledger.asks.get, member)
            if ask is not None:
                await self._own_log.append_all(list(dict.fromkeys(ask.lines)))
                await self._core.pools.ledger(self._core.ledger.asks.drop, ask.member)
                _log.info("newcomer introduced", member=ask.member)

    async def accuse(self, lies: Iterable[Lie]) -> None:
        """Members have signed what excludes one another.

        The protocol (section 5) has a member say it; a node holds no governance key, and does not wait for somebody
        who does. Nobody has to believe it: the two lines convict by themselves.
        """
        for lie in lies:
            if lie in self._told:
                continue
            said = accusation(lie, self._core.seat.record.node)
            if not await self._core.pools.ledger(self._accused, lie.member, said.objects):
                for item, line in zip(said.objects, (lie.first, lie.second), strict=True):
                    await self._core.pools.files(self._core.store.put, item.digest, line)
                await self._own_log.append(sign_statement(said, self._core.keys.online).line)
            self._told.add(lie)

    def _said(self, body: Digest) -> bool:
        """Blocking."""
        return bool(self._core.ledger.index.find(self._mine(body, ADOPTED), limit=1))

    def _accused(self, member: Digest, shown: tuple[SideObject, ...]) -> bool:
        """Blocking. Whether the own log accuses a member of this already, or often enough."""
        known = self._core.ledger.index.find(self._mine(member, MISBEHAVIOUR), limit=MAX_ACCUSATIONS)
        return len(known) >= MAX_ACCUSATIONS or shown in [parse_entry(item.line).statement.objects for item in known]

    def _mine(self, subject: Digest, predicate: str) -> Query:
        return Query(subject=subject, predicate=predicate, by=self._core.seat.record.node.id, origin=self._core.log)
