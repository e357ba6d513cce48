"""What logs say about nodes: new ones, by records that a charter proves, and where known ones listen."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from comity.ledger.facts import ADDRESSES, NODE_RECORD
from comity.ledger.ledger import Ledger
from comity.ledger.proven import Line
from comity.node.core import Core
from comity.node.membership import ELSEWHERE, Peer, PeerKey, Told
from comity.node.scan import newest_addresses
from comity.trust.errors import ComityError, NotFound
from comity.trust.statement import Entry, parse_entry
from comity.trust.statements.claims import Addresses, parse_addresses, signed_by_node
from comity.trust.statements.node_record import NodeRecord, parse_node_record

PAGE: Final = 32
"""Records that are proven before others get their turn: each costs several signatures."""


class Acquaintance:
    """Reads each proven node record once; `forget` has all of them read again. Touched by the event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._read = self._heard = 0
        """The numbers of the last node record and the last addresses that were read."""
        self._reading = asyncio.Lock()

    async def read(self) -> tuple[Peer, ...]:
        """What is proven since the last look; the peers that were new."""
        members, new = self._core.membership, list[Peer]()
        async with self._reading:
            while page := await self._since(self._read, NODE_RECORD):
                self._read = page[-1].number
                new += members.learn(told for item in page if (told := _told(item)) is not None)
                await asyncio.sleep(0)
            speakers = {peer.record.node.id for peer in new}
            while page := await self._since(self._heard, ADDRESSES):
                self._heard = page[-1].number
                speakers |= {by.id for item in page if (by := parse_entry(item.line).statement.by)}
            for peer in members.peers:
                if peer.record.node.id in speakers:
                    said = await self._core.pools.ledger(_addresses, self._core.ledger, peer.record)
                    if said is not None:
                        members.relocate(PeerKey.of(peer.record), said.mutual, said.open)
        return tuple(new)

    def forget(self) -> None:
        """Records that proved nothing may do so now: an epoch was taken up, or keys were rotated."""
        self._read = self._heard = 0

    async def _since(self, number: int, predicate: str) -> list[Line]:
        return await self._core.pools.ledger(self._core.ledger.proven.since, number, (predicate,), PAGE)


def read_addresses(entry: Entry, record: NodeRecord) -> Addresses | None:
    """Where a node says that it listens, if it says so here."""
    try:
        return parse_addresses(entry.statement) if signed_by_node(entry, record) else None
    except ComityError:
        return None


def _told(item: Line) -> Told | None:
    entry = parse_entry(item.line)
    try:
        own = str(parse_node_record(entry).log) == item.vkey
    except ComityError:
        return None
    return Told(entry, item.index if own else ELSEWHERE)


def _addresses(ledger: Ledger, record: NodeRecord) -> Addresses | None:
    """What a node says last in its own log; before that is here, what a copy elsewhere says: addresses are hints."""
    with contextlib.suppress(NotFound):  # its log is not here yet
        if (line := newest_addresses(ledger, record)) is not None:
            return read_addresses(parse_entry(line), record)
    copies = ledger.proven.by(record.node.id, ADDRESSES, PAGE).found
    said = (read_addresses(parse_entry(copy.line), record) for copy in copies)
    return next((addresses for addresses in said if addresses is not None), None)
