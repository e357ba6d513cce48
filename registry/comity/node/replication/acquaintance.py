"""What logs say about nodes: new ones, by records that a charter proves, and where known ones listen."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from comity.ledger.index import Located, Query
from comity.ledger.ledger import Ledger
from comity.node.core import Core
from comity.node.membership import ELSEWHERE, Peer, Told
from comity.node.scan import newest_addresses
from comity.trust.errors import ComityError, NotFound
from comity.trust.statement import Entry, parse_entry
from comity.trust.statements.claims import Addresses, parse_addresses, signed_by_node
from comity.trust.statements.node_record import NodeRecord, parse_node_record

PAGE: Final = 32
"""Records that are proven before others get their turn: each costs several signatures."""


class Acquaintance:
    """Reads each log's node records once; `forget` has all of them read again. Touched by the event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._after: dict[str, int] = {}

    async def read(self, log: str) -> tuple[Peer, ...]:
        """What a log says since it was read last; the peers that were new."""
        members, new = self._core.membership, list[Peer]()
        while page := await self._core.pools.ledger(_records, self._core.ledger, log, self._after.get(log)):
            self._after[log] = page[-1].index
            new += members.learn(told for item in page if (told := _told(item)) is not None)
            await asyncio.sleep(0)
        for peer in members.peers:
            if str(peer.record.log) == log or not (peer.mutual or peer.open):
                said = await self._core.pools.ledger(_addresses, self._core.ledger, peer.record)
                if said is not None:
                    members.relocate(peer.key, said.mutual, said.open)
        return tuple(new)

    def forget(self) -> None:
        """Records that proved nothing may do so now: an epoch was taken up, or keys were rotated."""
        self._after.clear()


def read_addresses(entry: Entry, record: NodeRecord) -> Addresses | None:
    """Where a node says that it listens, if it says so here."""
    try:
        return parse_addresses(entry.statement) if signed_by_node(entry, record) else None
    except ComityError:
        return None


def _records(ledger: Ledger, log: str, after: int | None) -> list[Located]:
    query = Query(predicate="node-record", origin=log)
    return ledger.index.find(query, limit=PAGE, after=None if after is None else (log, after))


def _told(item: Located) -> Told | None:
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
    copies = ledger.index.find(Query(predicate="addresses", by=record.node.id), limit=PAGE)
    said = (read_addresses(parse_entry(copy.line), record) for copy in copies)
    return next((addresses for addresses in said if addresses is not None), None)
