"""An import, from an operator's or a reader's wish to a line in the log.

(1) the commit that is wanted is pinned; one that this node observed before, and still has, is not fetched again
(2) its files are listed, and fetched into a folder of the node's own: resumed, hashed, held against the listing
(3) every file is hashed again, from the disk, cut into pieces, and taken into the store
(4) manifest, piece index and file-by-file observations are made of what was hashed here
(5) the desk logs the `observed` statement like anybody's: only with every object and every file here, whole
(6) the folder is removed

Whatever ends it in between leaves the folder to the next call for the same commit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import structlog

from comity.content.layout import piece_lengths
from comity.node.core import Core
from comity.node.holding import Holding
from comity.node.importing.news import Watch
from comity.node.importing.recorded import own
from comity.node.importing.statement import Described, describe
from comity.node.importing.ticker import Ticker
from comity.node.importing.workplace import clear, workplace
from comity.node.own_log import OwnLog
from comity.node.publishing.arrivals import Arrivals
from comity.node.publishing.artifact import missing_files, read_artifact
from comity.node.publishing.desk import Desk
from comity.node.publishing.pending import Want
from comity.trust.errors import ComityError, Conflict, Unavailable
from comity.trust.manifest import FileEntry
from comity.trust.pieces import PieceLayout, parse_records, records_root
from comity.trust.upstream.naming import Upstream, Wanted
from comity.trust.upstream.observed import FETCHED, Observed, sign_observed
from comity.upstream import folder, mirror
from comity.upstream.audience import Audience, Nobody
from comity.upstream.listing import Listing, Standing
from comity.upstream.mirror import Mirrored, Order
from comity.upstream.reach import HUB_ENDPOINT, Reach
from comity.wire.doors import Caller
from comity.wire.upstream_values import ImportDone, ImportEvent, ImportOrder, ImportStarted, UpstreamCheck

OPERATOR: Final = Caller("operator", operator=True)
ADOPTED_AT_ONCE: Final = 3
BUSY_TRIES: Final = 60
BUSY_PAUSE: Final = 0.5

_log: Final = structlog.get_logger("comity.node.importing")


class Importer:
    """Imports, of one commit one at a time: for the node's operators, and for readers (`passages`)."""

    def __init__(self, core: Core, desk: Desk, own_log: OwnLog) -> None:
        self._core = core
        self._desk = desk
        self._arrivals = Arrivals(core)
        self._watch = Watch(core, own_log)
        self._under_way = Holding()

    async def check(self, name: str, token: str) -> UpstreamCheck:
        """Raises as `Watch.check` does."""
        return await self._watch.check(name, token)

    async def run(self, order: ImportOrder) -> AsyncGenerator[ImportEvent, None]:
        """What happens, `ImportDone` last. Raises what `upstream` and the desk raise."""
        ticker = Ticker()
        started: asyncio.Queue[ImportStarted] = asyncio.Queue()
        task = asyncio.create_task(self._run(order, ticker, started), name="import")
        try:
            async for event in ticker.until(task):
                while not started.empty():
                    yield started.get_nowait()
                yield event
            while not started.empty():
                yield started.get_nowait()
            yield await task
        finally:
            ticker.stop()
            await asyncio.gather(task, return_exceptions=True)

    async def standing(self, order: Order, ticker: Ticker) -> Standing:
        """Step (1). Raises as `mirror.pin` does."""
        return await self._core.pools.imports(mirror.pin, order, ticker)

    async def mirror(self, order: Order, standing: Standing, ticker: Ticker, audience: Audience) -> ImportDone:
        """Steps (2) to (6). The audience expects nothing where all of it is here already."""
        async with self._claimed(standing.upstream) as work:
            if (before := await self._before(standing.upstream, work)) is not None:
                return before
            listing = await self._core.pools.imports(mirror.listed, order, standing, ticker)
            begun = int(self._core.clock())
            mirrored = await self._core.pools.imports(mirror.fetch, order, listing, work, ticker, audience)  # (2)
            return await self._log_it(mirrored, Described(FETCHED, begun, order.terms), work)

    async def _run(self, order: ImportOrder, ticker: Ticker, started: asyncio.Queue[ImportStarted]) -> ImportDone:
        if order.folder:
            return await self._carried(order, ticker, started)
        reach = Reach.to(order.endpoint or HUB_ENDPOINT, order.hosts, order.token)
        wanted = Order(Wanted.parse(order.name), reach, order.terms)
        standing = await self.standing(wanted, ticker)
        return await self.mirror(wanted, standing, ticker, _Announcing(asyncio.get_running_loop(), started))

    async def _carried(self, order: ImportOrder, ticker: Ticker, started: asyncio.Queue[ImportStarted]) -> ImportDone:
        """The same for a folder: steps (1) and (2) read it, and ask nobody."""
        named = Wanted.parse(order.name) if order.name else None
        found = await self._core.pools.imports(folder.recognise, Path(order.folder), named)
        upstream = found.listing.standing.upstream
        async with self._claimed(upstream) as work:
            started.put_nowait(ImportStarted(upstream.name, len(found.files), found.listing.size))
            begun = int(self._core.clock())
            mirrored = await self._core.pools.imports(folder.take, found, work, ticker)
            return await self._log_it(mirrored, Described(found.how, begun, order.terms), work)

    async def _before(self, upstream: Upstream, work: Path) -> ImportDone | None:
        """What this node said of the commit when it fetched it, if all of it is still here."""
        for found in await self._core.pools.ledger(own, self._core, upstream.name):
            if found.observed.fetched and not await self._core.pools.files(self._gaps, found.observed):
                await self._core.pools.files(clear, work)
                return ImportDone(found.line, found.origin, found.index, before=True)
        return None

    async def _log_it(self, mirrored: Mirrored, described: Described, work: Path) -> ImportDone:
        """Steps (3) to (6)."""
        turn = asyncio.Semaphore(ADOPTED_AT_ONCE)

        async def one(number: int) -> PieceLayout:
            async with turn:
                return await self._adopt(mirrored.observations[number].entry, mirrored.paths[number])

        layouts = await asyncio.gather(*(one(number) for number in range(len(mirrored.paths))))
        node, now = self._core.seat.record.node.id, int(self._core.clock())
        observed, objects = await self._core.pools.files(describe, node, mirrored, layouts, described, now)  # (4)
        for digest, data in objects.items():
            await self._arrivals.put(digest, data)
        entry = sign_observed(observed, self._core.keys.online)
        submitted = await self._desk.submit(OPERATOR, [entry.line], [])  # (5)
        if not submitted.receipts:
            why = f"{len(submitted.missing)} objects went away meanwhile"
            raise Unavailable("nothing was logged", why=why, hint="import it again", code="IMPORT-INCOMPLETE")
        receipt = submitted.receipts[0]
        _log.info("observed", name=observed.upstream.name, artifact=observed.artifact, index=receipt.index)
        await self._core.pools.files(clear, work)  # (6)
        return ImportDone(entry.line, receipt.origin, receipt.index, before=False)

    async def _adopt(self, entry: FileEntry, path: Path) -> PieceLayout:
        """Step (3) for one file."""
        want = Want(entry.sha256, entry.size, entry.path)
        for _ in range(BUSY_TRIES):
            try:
                await self._arrivals.adopt(path, want)
                break
            except Conflict as error:  # the same bytes are on their way from a peer
                if error.code != "BLOB-BUSY":
                    raise
                await asyncio.sleep(BUSY_PAUSE)
        return await self._core.pools.hashing(self._layout, want, path)

    def _layout(self, want: Want, path: Path) -> PieceLayout:
        with path.open("rb") as file:
            layout, lengths = piece_lengths(want.path, file, want.size)
        known = self._core.ledger.pieces.records(want.digest, layout)
        if known is None:  # the blob was here before, cut in another way
            self._arrivals.records(want)
            known = self._core.ledger.pieces.records(want.digest, layout) or b""
        return PieceLayout(layout, len(lengths), records_root(parse_records(known, size=want.size)))

    def _gaps(self, observed: Observed) -> bool:
        try:
            manifest, _ = read_artifact(self._core.store, observed.manifest, observed.pieces)
            return bool(missing_files(self._core.store, manifest))
        except ComityError:
            return True

    @contextlib.asynccontextmanager
    async def _claimed(self, upstream: Upstream) -> AsyncIterator[Path]:
        """The folder in which a commit of one endpoint is collected; one import at a time has it."""
        async with self._under_way.holding([(upstream.endpoint, upstream.name)]):
            yield await self._core.pools.files(workplace, self._core.store, upstream)


class _Announcing(Nobody):
    """Tells an operator what is about to come."""

    def __init__(self, loop: asyncio.AbstractEventLoop, started: asyncio.Queue[ImportStarted]) -> None:
        self._loop = loop
        self._started = started

    def expected(self, listing: Listing, paths: Sequence[Path]) -> None:
        said = ImportStarted(listing.standing.upstream.name, len(listing.files), listing.size)
        self._loop.call_soon_threadsafe(self._started.put_nowait, said)
