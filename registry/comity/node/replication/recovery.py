"""The own log, brought back to what peers have seen of it. A ledger restored from a backup lacks entries that were
signed and mirrored; they are taken back from mirrors, checked against the log's own signature, before any is added."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from comity.ledger.ledger import Ledger
from comity.node import continuity
from comity.node.core import Core
from comity.node.membership import PeerKey
from comity.node.replication.link import Link
from comity.node.replication.mirror import Head, fetch_entries
from comity.node.replication.quota import statement_of
from comity.node.replication.side_objects import SideObjects
from comity.node.replication.start import Start
from comity.trust.errors import ComityError, Untrusted
from comity.trust.tlog.merkle import Frontier, leaf_hash, verify_consistency

_log: Final = structlog.get_logger("comity.node")


class Recovery:
    """Compares the own log with what peers hold of it. Touched by the event loop only."""

    def __init__(self, core: Core, start: Start, side_objects: SideObjects) -> None:
        self._core = core
        self._side_objects = side_objects
        self._start = start
        self._offers: dict[PeerKey, tuple[Link, Head]] = {}
        self._newest: Head | None = None

    def offer(self, link: Link, head: Head) -> None:
        """What a peer holds of this node's log, signed by this node."""
        self._offers[link.peer_key] = (link, head)
        if self._newest is None or self._newest.checkpoint.size < head.checkpoint.size:
            self._newest = head

    async def run(self) -> None:
        """Return once the log holds everything that peers were shown of it.

        Raises Untrusted (LOG-DIVERGED) where it holds something else: its key must not sign again.
        """
        await self._start.wait()
        while (missing := await self._missing()) is not None:
            for link, head in sorted(self._offers.values(), key=lambda offer: -offer[1].checkpoint.size):
                try:
                    await self._take_back(link, head)
                    break
                except (ComityError, TimeoutError) as error:
                    _log.warning("the own log was not taken back yet", peer=link.name, size=missing, why=str(error))
            else:
                await asyncio.sleep(self._core.config.replication.interval_seconds)
        if self._newest is not None:
            await self._check(self._newest)
        await self._core.pools.files(self._core.mark(continuity.NAME).renew)

    async def _missing(self) -> int | None:
        """The size of the log as peers know it, where that is more than is here."""
        size = (await self._core.pools.ledger(self._core.ledger.logs.get, self._core.log)).size
        newest = self._newest.checkpoint.size if self._newest else 0
        return newest if newest > size else None

    async def _check(self, head: Head) -> None:
        size, root = head.checkpoint.size, head.checkpoint.root
        if await self._core.pools.ledger(self._core.ledger.history.root, self._core.log, size) != root:
            raise Untrusted(
                "this node's log is not the one it signed",
                why=f"at size {size} peers hold another root, with this log's signature",
                hint="restore a newer backup of the ledger; until then the node reads out, and signs nothing",
                code="LOG-DIVERGED",
            )

    async def _take_back(self, link: Link, head: Head) -> None:
        """Append the entries that are missing, each stretch proven to lead to the signed head."""
        log, target = self._core.log, head.checkpoint
        edge = await self._core.pools.ledger(_edge, self._core.ledger, log)
        while edge.size < target.size:
            lines = await fetch_entries(link.client, log, edge.size, target.size)
            grown = edge.extend(map(leaf_hash, lines))
            whole = grown.size == target.size
            proof = () if whole else await link.client.consistency(log, grown.size, target.size)
            verify_consistency(grown.size, grown.root(), target.size, target.root, proof)
            statements = [statement for line in lines if (statement := statement_of(line))]
            await self._side_objects.fetch(link.client, statements, link.peer_key)
            await self._core.pools.ledger(self._core.ledger.logs.append, log, lines)
            edge = grown
        await self._core.pools.ledger(self._core.ledger.logs.set_note, log, head.note)
        _log.warning("the own log was taken back from a peer", peer=link.name, size=target.size)


def _edge(ledger: Ledger, log: str) -> Frontier:
    size = ledger.logs.get(log).size
    return Frontier.read(size, ledger.history.node_reader(log, size))
