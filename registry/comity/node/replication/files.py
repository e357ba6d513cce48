"""Single files from peers: who has them, by which pieces they are checked, and into the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

import structlog

from comity.content.blob_lock import lock_if_free
from comity.content.folder import FolderStore
from comity.node.core import Core
from comity.node.publishing.arrivals import Arrivals
from comity.node.publishing.pending import Want
from comity.node.replication.flight import Flight, Flights
from comity.node.replication.link import Link
from comity.node.replication.side_objects import SideObjects, absent
from comity.transfer.fetch import Fetched, fetch_file
from comity.transfer.plan import Limits, Wanted
from comity.transfer.ranges import RangeSource, offering
from comity.transfer.source import LocalSource, Source
from comity.transfer.source_key import SourceKey
from comity.transfer.standing import Standing
from comity.trust.digest import Digest, short
from comity.trust.errors import ComityError, NotFound, Unavailable, Untrusted
from comity.trust.pieces import PieceLayout, PieceRecord, check_records, encode_records
from comity.trust.statement import SideObject
from comity.wire.limits import STAT_DIGESTS

AT_LEISURE: Final = Limits(patience=60.0, streams=4, buffers=6)
"""A file of which no verified piece comes for a minute is left for a later try. 24 MiB of buffers a copy."""
LEISURE: Final = 30.0
"""Seconds that a peer has to say which files of an artifact it has, and to give the records of one."""
LOCK_POLL: Final = 0.2

_log: Final = structlog.get_logger("comity.node.artifacts")


class _Ways:
    """What the files of one artifact share: what is known of each source, and the second ways to the holders."""

    def __init__(self) -> None:
        self.standings: dict[SourceKey, Standing] = {}
        self.names: dict[SourceKey, str] = {}
        self._over_https: dict[SourceKey, RangeSource] = {}

    async def to(self, holders: Sequence[Link], want: Want) -> list[Source]:
        """Every source of a blob that the holders are, or know of."""
        for link in holders:
            if link.key not in self._over_https:
                self._over_https[link.key] = link.over_https()
        second = await offering((self._over_https[link.key] for link in holders), want.digest, want.size)
        sources: list[Source] = [*holders, *second]
        self.names |= {source.key: source.name for source in sources}
        return sources

    def close(self) -> None:
        for source in self._over_https.values():
            source.close()


class FileFetcher:
    """Fetches files into the store. Several calls may run at once.

    Args:
        links: the peers there are now.

    Attributes:
        flights: the files that are being fetched.
    """

    def __init__(self, core: Core, links: Callable[[], Iterable[Link]], side_objects: SideObjects) -> None:
        self._core = core
        self._side_objects = side_objects
        self._links = links
        self._arrivals = Arrivals(core)
        self.flights = Flights()

    async def fetch(
        self,
        files: Sequence[tuple[Want, PieceLayout]],
        *,
        name: str,
        limits: Limits = AT_LEISURE,
        answer: float = LEISURE,
    ) -> None:
        """Have every file, whole, verified and durable.

        Args:
            answer: seconds that a peer has to say which of them it has.

        Raises Unavailable and NotFound where no peer gives one, Untrusted where the pieces are not the file's,
        OutOfSpace. What was verified is kept for the next try.
        """
        if not files:
            return
        holders = await self._holders([want.digest for want, _ in files], answer)
        with closing(_Ways()) as ways:
            for want, layout in files:
                async with self._claim(want.digest):
                    with self.flights.driven((want.digest, layout)) as flight:
                        if not await self._core.pools.files(self._core.store.has, want.digest):
                            fetched = await self._fetch(want, layout, holders[want.digest], ways, flight, limits)
                            self._account(want, fetched, name, ways.names)

    async def require_objects(self, objects: Sequence[SideObject]) -> None:
        """Have side objects, each from whoever has it. Raises the last peer's failure, or NotFound (NO-HOLDER)."""
        for item in await self._core.pools.files(absent, self._core.store, objects):
            await self._require_object(item)

    async def _require_object(self, item: SideObject) -> None:
        why = f"no peer answers that has {short(item.digest)}"
        failure: Exception = NotFound("a side object is nowhere to be had", why=why, code="NO-HOLDER")
        for link in sorted(self._links(), key=lambda link: not link.state.reachable):
            try:
                await self._side_objects.fetch_all(link.client, (item,), link.peer_key)
                return
            except (ComityError, TimeoutError) as error:
                failure = error
        raise failure

    async def require_records(self, want: Want, layout: PieceLayout) -> None:
        """Make sure of the piece records of a blob that is here. Raises Untrusted where `layout` is not its own."""
        if await self._known(want, layout) is None:
            await self._core.pools.hashing(self._arrivals.records, want)
            if await self._known(want, layout) is None:
                why = f"{want.path} is not cut as {layout.layout}"
                raise Untrusted("piece index refused", why=why, code="PIECE-INDEX")

    async def _fetch(
        self,
        want: Want,
        layout: PieceLayout,
        holders: Sequence[Link],
        ways: _Ways,
        flight: Flight,
        limits: Limits,
    ) -> Fetched:
        if not holders:
            why = f"no peer that answers has it ({short(want.digest)})"
            raise NotFound(f"{want.path} is nowhere whole", why=why, code="NO-HOLDER")
        records = await self._records(want, layout, holders)
        partial = await self._core.pools.files(self._core.store.scratch, want.digest)
        wanted = Wanted(want.digest, want.size, records)
        flight.depart(wanted, partial)
        fetched = await fetch_file(
            wanted,
            await ways.to(holders, want),
            partial,
            local=self._local(),
            limits=limits,
            audience=flight,
            standings=ways.standings,
            executor=self._core.pools.hashing_threads,
        )
        # The records first: a node that dies in between has some of no blob, and never a blob without any.
        remember = self._core.ledger.pieces.remember_records
        await self._core.pools.ledger(remember, want.digest, want.size, layout.layout, encode_records(records))
        await self._core.pools.files(self._core.store.admit, partial, want.digest, want.size)
        return fetched

    def _account(self, want: Want, fetched: Fetched, name: str, names: Mapping[SourceKey, str]) -> None:
        for peer, count in fetched.bytes_by_host.items():
            self._core.metrics.pull_bytes.labels(names[peer]).inc(count)
        for source in fetched.dropped:
            self._core.metrics.verify_failures.labels("piece").inc()
            _log.warning("source dropped", peer=names[source], blob=want.digest, why=fetched.dropped[source])
        for source, faults in fetched.faults.items():
            if source not in fetched.dropped:
                _log.warning("source failed", peer=names[source], blob=want.digest, why="; ".join(faults))
        _log.info(
            "fetched",
            name=name,
            path=want.path,
            blob=want.digest,
            size=want.size,
            sources={names[source]: count for source, count in fetched.bytes_by_source.items()},
            reused=fetched.reused,
            resumed=fetched.resumed,
        )

    async def _holders(self, digests: Sequence[Digest], answer: float) -> dict[Digest, list[Link]]:
        """Which peers say that they have each blob. All are asked at once; who does not answer has nothing."""
        links = [link for link in self._links() if link.address]
        answers = await asyncio.gather(*(self._held_by(link, digests, answer) for link in links))
        return {
            digest: [link for link, held in zip(links, answers, strict=True) if digest in held] for digest in digests
        }

    async def _held_by(self, link: Link, digests: Sequence[Digest], answer: float) -> set[Digest]:
        held: set[Digest] = set()
        try:
            async with asyncio.timeout(answer):
                for start in range(0, len(digests), STAT_DIGESTS):
                    stats = await link.client.stat(digests[start : start + STAT_DIGESTS])
                    held.update(stat.digest for stat in stats if stat.have)
        except (ComityError, TimeoutError) as error:
            _log.info("a peer was not asked", peer=link.name, why=str(error) or f"no answer in {answer:g} s")
        return held

    async def _records(self, want: Want, layout: PieceLayout, holders: Sequence[Link]) -> list[PieceRecord]:
        """The records that the piece index names: from here, or from the first peer that has them."""
        known = await self._known(want, layout)
        if known is not None:
            return known
        failure: ComityError = NotFound("no piece records", why=short(want.digest), code="NO-RECORDS")
        for link in holders:
            try:
                async with asyncio.timeout(LEISURE):
                    data = await link.client.records(want.digest, layout.layout)
                return check_records(data, size=want.size, expected=layout)
            except ComityError as error:
                failure = error
            except TimeoutError:
                failure = Unavailable("no piece records yet", why=f"{link.name} is slow", code="SLOW")
        raise failure

    async def _known(self, want: Want, layout: PieceLayout) -> list[PieceRecord] | None:
        data = await self._core.pools.ledger(self._core.ledger.pieces.records, want.digest, layout.layout)
        return None if data is None else check_records(data, size=want.size, expected=layout)

    def _local(self) -> LocalSource | None:
        """Pieces of files that are here already; their bytes are hashed like anybody's."""
        store, pieces = self._core.store, self._core.ledger.pieces
        if not isinstance(store, FolderStore):
            return None

        def find(record: PieceRecord) -> Iterator[tuple[Path, int]]:
            for place in pieces.find_piece(record.sha256):
                yield store.path(place.blob), place.offset

        return LocalSource(find)

    @asynccontextmanager
    async def _claim(self, digest: Digest) -> AsyncIterator[None]:
        """The right to write the partial file of a blob, once nobody else has it."""
        while True:
            with lock_if_free(self._core.store.scratch(digest).parent, digest) as free:
                if free:
                    yield
                    return
            await asyncio.sleep(LOCK_POLL)
