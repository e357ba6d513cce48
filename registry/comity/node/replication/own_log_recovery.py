"""Recovers the node's own log from peers before the node signs.

A ledger restored from a backup lacks entries of the own log that were signed and mirrored: they are fetched from
mirrors and verified against the log's own signature before they are appended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import structlog

from comity.ledger.ledger import Ledger
from comity.node.members import PeerKey
from comity.node.replication.link import STEP_DEADLINE, CopySource, PeerLink, StartBarrier, fetch_entries
from comity.node.replication.mirror import STEP_SECONDS, PeerHead, named_in
from comity.node.replication.questions import PeerQuestions
from comity.node.replication.side_objects import SideObjectFetcher
from comity.node.threads import AsyncLedger
from comity.rules.tree_proofs import Frontier
from comity.trust.errors import ComityError, NotFound, Untrusted
from comity.trust.frozen import frozen
from comity.trust.tlog.merkle import leaf_hash, verify_consistency

_log: Final = structlog.get_logger("comity.node")


class OwnLogRecovery:
    """Compares the own log with the peers' copies. Not thread-safe: call from the event loop."""

    def __init__(
        self,
        ledger: AsyncLedger,
        log: str,
        mark: Callable[[], Awaitable[None]],
        interval: float,
        start: StartBarrier,
        side_objects: SideObjectFetcher,
        questions: PeerQuestions,
    ) -> None:
        self._questions = questions
        self._ledger = ledger
        self._log = log
        self._mark = mark
        self._interval = interval
        self._side_objects = side_objects
        self._start = start
        self._heads: dict[PeerKey, tuple[PeerLink, PeerHead]] = {}
        self._newest: PeerHead | None = None

    def add_head(self, link: PeerLink, head: PeerHead) -> None:
        """Add a head of this node's log that a peer holds, signed by this node."""
        self._heads[link.peer_key] = (link, head)
        if self._newest is None or self._newest.checkpoint.size < head.checkpoint.size:
            self._newest = head

    async def run(self) -> None:
        """Return when the ledger holds everything that peers have of the own log.

        Raises Untrusted (LOG-DIVERGED) if it holds a different history: then the log key must not sign again.
        """
        await self._start.wait()
        while (missing := await self._missing()) is not None:
            try:
                await self._restore()
            except ComityError as error:
                _log.warning("own log not restored yet", size=missing, why=str(error))
                await asyncio.sleep(self._interval)
        if self._newest is not None:
            await self._check(self._newest)
        await self._mark()

    async def _missing(self) -> int | None:
        """The size of the log at peers, if that is larger than the stored log; else None."""
        size = (await self._ledger.run(self._ledger.tables.logs.get, self._log)).size
        newest = self._newest.checkpoint.size if self._newest else 0
        return newest if newest > size else None

    async def _check(self, head: PeerHead) -> None:
        size, root = head.checkpoint.size, head.checkpoint.root
        if await self._ledger.run(self._ledger.tables.history.root, self._log, size) != root:
            raise Untrusted(
                "this node's log differs from what it signed",
                why=f"at size {size} peers hold another root, with this log's signature",
                hint="restore a newer backup of the ledger; until then the node serves reads and signs nothing",
                code="LOG-DIVERGED",
            )

    async def _restore(self) -> None:
        """Append the missing entries, in batches, each from any peer and proven to lead to a head that this log signed.
        Raises what the peers fail with."""
        frontier = await self._ledger.run(_frontier, self._ledger.tables, self._log)
        while ahead := [link for link, head in self._heads.values() if head.checkpoint.size > frontier.size]:
            nothing = NotFound("no peer has the missing entries", why=f"{frontier.size} are here", code="NO-HOLDER")
            batch = await self._questions.first(partial(self._next_entries, frontier), nothing, ahead)
            await self._ledger.run(self._ledger.tables.logs.append, self._log, batch.lines)
            frontier = batch.frontier
            if frontier.size == batch.head.checkpoint.size:
                await self._ledger.run(self._ledger.tables.logs.set_note, self._log, batch.head.note)
        _log.warning("own log restored from a peer", size=frontier.size)

    async def _next_entries(self, frontier: Frontier, source: CopySource) -> _OwnEntries:
        """The next entries that a peer has, with their side objects. Raises Untrusted if they lead to another."""
        log, head = self._log, self._heads[source.peer_key][1]
        client, target = source.client, head.checkpoint
        async with asyncio.timeout(STEP_DEADLINE):
            lines = await fetch_entries(client, log, frontier.size, target.size, seconds=STEP_SECONDS)
            extended = frontier.extend(map(leaf_hash, lines))
            whole = extended.size == target.size
            proof = () if whole else await client.consistency(log, extended.size, target.size)
        verify_consistency(extended.size, extended.root(), target.size, target.root, proof)
        await self._side_objects.fetch_all(client, named_in(lines), source.peer_key)
        return _OwnEntries(lines, extended, head)


@frozen
class _OwnEntries:
    """Entries of the own log that lead to a head, and the right edge of the tree after them."""

    lines: Sequence[bytes]
    frontier: Frontier
    head: PeerHead


def _frontier(ledger: Ledger, log: str) -> Frontier:
    size = ledger.logs.get(log).size
    return Frontier.read(size, ledger.history.node_reader(log, size))
