"""Answers what concerns a publisher (`GetConcerns`), from the rows that the node keeps."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from comity.ledger.proven import ProvenLine
from comity.node.publisher_watch import WatchReader
from comity.node.services.author_lines import keys_of
from comity.node.threads import AsyncLedger, Pools
from comity.trust.encoding import Digest
from comity.wire import limits
from comity.wire.concerns import KEYS, ConcernPart
from comity.wire.messages import LocatedEntry


class ConcernFinder:
    """Not thread-safe: call from the event loop."""

    def __init__(self, ledger: AsyncLedger, pools: Pools, reader: WatchReader) -> None:
        self._ledger = ledger
        self._pools = pools
        self._reader = reader

    async def find(self, publisher: Digest) -> AsyncGenerator[ConcernPart, None]:
        """As `ArtifactService.concerns`."""
        progress = await self._pools.files(self._reader.progress)
        unread = (progress.total or 0) - progress.done
        found = await self._pools.files(self._reader.watch.concerns, publisher, limits.CONCERNS_LISTED)
        yield ConcernPart(unread, found.more)
        proven, times = self._ledger.tables.proven, await self._ledger.run(self._ledger.tables.proven_times.times)
        numbers = {each.number for each in found.found}
        lines = {line.number: line for line in await self._ledger.run(proven.numbered, numbers)}
        for each in found.found:
            if (line := lines.get(each.number)) is not None:
                yield ConcernPart(unread, found.more, each.why, (_located(line, times.at(line.number)),))
        keys = await self._ledger.run(keys_of, proven, [each.author for each in found.found])
        for _, line in keys.found:
            yield ConcernPart(unread, found.more, KEYS, (_located(line, 0),))


def _located(line: ProvenLine, time: int) -> LocatedEntry:
    return LocatedEntry(line.origin, line.index, line.line, known_since=time)
