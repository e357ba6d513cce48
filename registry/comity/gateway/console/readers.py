"""The pages that everybody who may read sees, at a node and at a front end alike; and those of a front end.

A front end reads the same proven statements from the database, and keeps lists of its own. What only the process that
writes knows, such as which peers answer, is not on its pages; each says so in its place. Nobody signs in there.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Final

from starlette.responses import Response

from comity.gateway.access_tokens import GatewayAccess
from comity.gateway.console.artifact import ArtifactPages
from comity.gateway.console.descent import DescentPages
from comity.gateway.console.feeds import Feeds
from comity.gateway.console.identify import IdentifyPages
from comity.gateway.console.index import ArtifactIndex
from comity.gateway.console.log_pages import LogPages
from comity.gateway.console.page import CONTINUITY, NODE, PREFIX, PageMaker, Reader
from comity.gateway.console.publisher_feed import PublisherFeeds
from comity.gateway.console.recent import RecentStatements
from comity.gateway.console.routes import Console
from comity.gateway.console.state import StateReader, WriterFacts
from comity.gateway.console.words import prepare_templates
from comity.gateway.declared_routes import DeclaredRoute
from comity.gateway.hub.catalogue import Catalogue
from comity.node.copies.auditor import StatementReader
from comity.node.copies.controller import INDEX_FILE
from comity.node.copies.index import CopiesIndex
from comity.node.copies.own_copies import OwnPieces, WithheldFiles
from comity.node.front_end import RunningFrontEnd
from comity.node.home import ServedHome
from comity.node.reading import ReadingProgress
from comity.node.statement_groups import StatementGroups
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import Pools
from comity.trust.frozen import frozen

COPIES: Final = LoopTiming(interval=1.0, deadline=86_400.0)
"""Of looks for claims and audits of copies; the first one may read a million."""
SIGN_IN: Final = f"{PREFIX}/sign-in"


@frozen
class ReadersPages:
    """What makes the pages. `routes` mounts them for those whom `access` lets in."""

    home: ServedHome
    writer: WriterFacts | None
    index: ArtifactIndex
    states: StateReader
    artifacts: ArtifactPages
    groups: StatementGroups
    supervisor: Supervisor

    def routes(self, access: GatewayAccess, maker: PageMaker) -> list[DeclaredRoute]:
        """Call it once: it begins the feeds, and the counts of roots."""
        feeds = Feeds(self.home, self.states, access, self.groups)
        feeds.begin(self.supervisor)
        console = Console(self.home, self.writer, self.index, self.states, self.artifacts, access, maker)
        files, watch = (self.writer.files, self.writer.watch) if self.writer else (None, None)
        catalogue = self.artifacts.catalogue
        descent = DescentPages(self.home, self.writer.descent if self.writer else None, self.states, access, maker)
        descent.begin(self.supervisor)
        return [
            *feeds.routes(),
            *PublisherFeeds(self.home, watch, self.states, access).routes(),
            *IdentifyPages(self.home, files, catalogue, self.states, access, maker).routes(),
            *LogPages(self.home.ledger, self.states, access, maker).routes(),
            *descent.routes(),
            *console.routes(),
        ]


@contextlib.asynccontextmanager
async def readers_pages(
    home: ServedHome,
    process: WriterFacts | RunningFrontEnd,
    catalogue: Catalogue,
    copies: CopiesIndex,
    reading: ReadingProgress,
) -> AsyncIterator[ReadersPages]:
    """Follow the ledger while the block lasts. Raises as `ArtifactIndex` does."""
    folder, local = home.config.storage.ledger.parent, catalogue.local_artifacts
    index = await asyncio.to_thread(
        ArtifactIndex, folder, home.ledger, home.pools, home.membership, local, copies, home.clock
    )
    reading.follow("names for the console", index.progress)
    groups = StatementGroups(home.ledger.tables.proven, home.membership, lambda: catalogue.judge.policy.named)
    recent = RecentStatements(home.ledger, groups)
    states = StateReader(home, process, index, recent)
    artifacts = ArtifactPages(home, catalogue, states, copies)
    supervisor = Supervisor(home.metrics)
    index.begin(supervisor)
    recent.begin(supervisor)
    preparing = asyncio.create_task(_prepare(home.pools, states), name="console templates")
    writer = process if isinstance(process, WriterFacts) else None
    try:
        yield ReadersPages(home, writer, index, states, artifacts, groups, supervisor)
    finally:
        preparing.cancel()
        await asyncio.gather(preparing, supervisor.stop(), return_exceptions=True)
        await artifacts.close()
        await asyncio.to_thread(index.close)


async def _prepare(pools: Pools, states: StateReader) -> None:
    """Do at the start what the first page would wait for."""
    await pools.files(prepare_templates)
    await states.now()


@contextlib.asynccontextmanager
async def front_end_pages(
    front_end: RunningFrontEnd, catalogue: Catalogue, access: GatewayAccess
) -> AsyncIterator[list[DeclaredRoute]]:
    """The routes of the console of a front end, while the block lasts. Raises as `ArtifactIndex` and `CopiesIndex`
    do."""
    home = front_end.home
    own_node = home.membership.own_node
    async with (
        _followed_copies(front_end) as copies,
        readers_pages(home, front_end, catalogue, copies, front_end.reading) as pages,
    ):
        maker = PageMaker(own_node.record.name, home.config.gateway.url, pages.states, None)

        async def refuse(reader: Reader) -> Response:
            raise front_end.writer.refusal()

        readers = access.for_readers()
        at_the_writer = (SIGN_IN, NODE, f"{NODE}/{{rest:path}}", CONTINUITY)
        yield [*(maker.route(path, refuse, readers) for path in at_the_writer), *pages.routes(access, maker)]


@contextlib.asynccontextmanager
async def _followed_copies(front_end: RunningFrontEnd) -> AsyncIterator[CopiesIndex]:
    """The index of copies, read from the database in the background, while the block lasts. Nothing is audited."""
    home, chance = front_end.home, random.SystemRandom()
    file, own_log = home.config.storage.ledger.with_name(INDEX_FILE), home.membership.own_node.log
    index = await asyncio.to_thread(CopiesIndex, file, own_log, lambda: chance.getrandbits(62))
    pieces = OwnPieces(home.ledger.tables, home.store, WithheldFiles(home.store), lambda: None)
    reader = StatementReader(home.ledger, home.membership, index, pieces)
    front_end.reading.follow("claims and audits of copies", reader.progress)
    supervisor = Supervisor(home.metrics)
    supervisor.loop("copies", reader.read, COPIES)
    try:
        yield index
    finally:
        await supervisor.stop()
        await asyncio.to_thread(index.close)
