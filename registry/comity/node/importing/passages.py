"""Imports that nobody ordered but readers: repositories that the node's settings let them have mirrored here.

(1) only what `[upstream] allow` names, from the one endpoint that `[upstream]` names, without token and terms, so that
    what is gated or private is refused, and within `largest_bytes`
(2) a revision is pinned to a commit; the answer, also that there is none, is remembered for a moment
(3) of a commit there is one import, however many wait for it, and it is an import like an operator's: nobody has to
    stay for it to go on, and one that was killed is taken up by the next request
(4) what failed is not tried again at once
"""

from __future__ import annotations

import asyncio
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Final

import structlog

from comity.node.core import Core
from comity.node.importing.importer import Importer
from comity.node.importing.passage import Passage
from comity.node.importing.ticker import Ticker
from comity.trust.digest import Digest
from comity.trust.errors import ComityError, NotFound, Unavailable
from comity.trust.upstream.naming import Wanted
from comity.trust.upstream.observed import Observed
from comity.upstream.download import Patience
from comity.upstream.listing import Standing
from comity.upstream.mirror import Order
from comity.upstream.reach import Reach

AT_ONCE: Final = 2
"""Repositories that are imported, and as many that are asked about: half of the threads for imports are operators'."""
MAX_WAITING: Final = 16
"""Repositories that are imported or wait for their turn."""
MAX_PINS: Final = 1_024
ASKING: Final = Patience(silence=5.0, later=2.0, pause=0.25)
"""For the first question: somebody waits."""
PINNED: Final = 60.0
"""Seconds for which a branch stands where it stood."""
REFUSED: Final = 10.0
"""Seconds for which what the upstream refused, or did not answer, is not asked again."""
LINGER: Final = 30.0
"""Seconds for which an import that ended is remembered: a failure, or what the catalogue has yet to read in the log."""
MAX_SPOILED: Final = 4_096

_log: Final = structlog.get_logger("comity.node.importing")


class Passages:
    """Touched by the event loop only.

    Attributes:
        on: whether readers may have anything mirrored.
    """

    def __init__(self, core: Core, importer: Importer) -> None:
        self._core = core
        self._importer = importer
        self._settings = core.config.upstream
        self.on = core.config.gateway.cold == "upstream"
        self._room, self._counter = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(AT_ONCE)
        self._pins: dict[tuple[str, str], asyncio.Task[Standing]] = {}
        self._passages: dict[tuple[str, str], Passage] = {}
        self._work: dict[asyncio.Task[Any], Ticker] = {}
        self._spoiled: dict[Digest, None] = {}

    def allows(self, repository: str) -> bool:
        """Whether readers may have `org/name` mirrored."""
        name = repository.lower()
        return self.on and any(fnmatchcase(name, pattern.lower()) for pattern in self._settings.allow)

    def spoiled(self, digest: Digest) -> bool:
        """Whether somebody may have a beginning of this file that is not its own: who goes on from there would put a
        wrong file together."""
        return digest in self._spoiled

    async def standing(self, repository: str, revision: str) -> Standing:
        """The commit that a revision stands for. Raises NotFound (UPSTREAM-NOT-ALLOWED) where readers may not have it
        mirrored, Unavailable (COLD-BUSY), and as `mirror.pin`."""
        self._require_allowed(repository)
        known = self._passages.get((repository.lower(), revision))
        if known is not None:
            return known.standing
        key = repository.lower(), revision
        if key not in self._pins:
            if len(self._pins) >= MAX_PINS:
                raise _busy(f"{MAX_PINS} names were asked for just now")
            order, ticker = self._order(repository, revision, ASKING), Ticker()
            pin = self._pins[key] = asyncio.create_task(self._ask(order, ticker))
            self._attend(pin, ticker)
            pin.add_done_callback(partial(self._pinned, key))
        standing = await asyncio.shield(self._pins[key])
        self._require_allowed(standing.upstream.repository)  # it may have another name by now
        return standing

    def passage(self, standing: Standing) -> Passage:
        """The import of a commit: the one that is under way, or one that begins. Raises Unavailable (COLD-BUSY)."""
        key = standing.upstream.repository.lower(), standing.upstream.commit
        if key not in self._passages:
            if sum(not passage.over for passage in self._passages.values()) >= MAX_WAITING:
                raise _busy(f"{MAX_WAITING} repositories are being mirrored, or wait")
            passage = self._passages[key] = Passage(standing, self._spoil)
            ticker = Ticker()
            self._attend(asyncio.create_task(self._run(passage, ticker)), ticker)
        return self._passages[key]

    async def again(self, observed: Observed) -> Passage:
        """The import of a commit that somebody mirrored before. Raises as `standing` and `passage`."""
        return self.passage(await self.standing(observed.upstream.repository, observed.upstream.commit))

    async def close(self) -> None:
        """End what is under way; what it has is kept for the next request."""
        for task, ticker in self._work.items():
            ticker.stop()
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    async def _ask(self, order: Order, ticker: Ticker) -> Standing:
        """A task."""
        async with self._counter:
            return await self._importer.standing(order, ticker)

    async def _run(self, passage: Passage, ticker: Ticker) -> None:
        """A task."""
        upstream = passage.standing.upstream
        log = _log.bind(name=upstream.name)
        failure: ComityError = Unavailable("the import was not ended", why="the node stopped", code="GIVEN-UP")
        try:
            async with self._room:
                log.info("mirroring for a reader")
                order = self._order(upstream.repository, upstream.requested, Patience())
                await self._importer.mirror(order, passage.standing, ticker, passage)
            passage.end()
        except ComityError as error:
            log.warning("not mirrored", why=str(error), code=error.code)
            failure = error
        except Exception:
            log.exception("an import broke")
        finally:
            if not passage.over:
                passage.end(failure)
            key = upstream.repository.lower(), upstream.commit
            asyncio.get_running_loop().call_later(LINGER, self._passages.pop, key, None)

    def _order(self, repository: str, revision: str, patience: Patience) -> Order:
        settings = self._settings
        reach = Reach.to(settings.endpoint, settings.hosts)
        return Order(Wanted(repository, revision), reach, patience=patience, most=settings.largest_bytes)

    def _attend(self, task: asyncio.Task[Any], ticker: Ticker) -> None:
        self._work[task] = ticker
        task.add_done_callback(self._work.pop)

    def _pinned(self, key: tuple[str, str], pin: asyncio.Task[Standing]) -> None:
        well = not pin.cancelled() and pin.exception() is None
        pin.get_loop().call_later(PINNED if well else REFUSED, self._pins.pop, key, None)

    def _require_allowed(self, repository: str) -> None:
        if not self.allows(repository):
            why = "nobody here has it, and readers may not have it mirrored"
            raise NotFound(f"this node serves no {repository[:200]!r}", why=why, code="UPSTREAM-NOT-ALLOWED")

    def _spoil(self, digest: Digest) -> None:
        if len(self._spoiled) >= MAX_SPOILED:
            self._spoiled.pop(next(iter(self._spoiled)))
        self._spoiled[digest] = None


def _busy(why: str) -> Unavailable:
    return Unavailable("too much is asked for at once", why=why, code="COLD-BUSY")
