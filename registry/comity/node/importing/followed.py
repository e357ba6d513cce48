"""Imports `main` of the Hub's repositories that the operator follows, on a schedule.

Each is an ordinary import from the endpoint of `[upstream]`, without token or terms, up to `largest_bytes`, signed with
the node's own key as every import. A commit that was imported before costs one request. A repository that the Hub has
renamed is not imported under its other name: the operator named this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import structlog

from comity.node.importing.importer import ImportCounter, Importer
from comity.node.settings import ReadThrough
from comity.node.supervisor import LoopTiming, Supervisor
from comity.trust.errors import ComityError, Refused
from comity.upstream.download import NoImportObserver
from comity.upstream.guarded import AllowedHosts
from comity.upstream.listed_files import UpstreamRequest
from comity.upstream.mirror import MirrorOrder

STEP_DEADLINE: Final = 7 * 86_400.0

_log: Final = structlog.get_logger("comity.node.importing")


class FollowedRepositories:
    """Not thread-safe: call from the event loop.

    Args:
        paused: why nothing may be copied now; empty if it may.
    """

    def __init__(self, settings: ReadThrough, importer: Importer, paused: Callable[[], str]) -> None:
        self._settings = settings
        self._importer = importer
        self._paused = paused
        self._failures: dict[str, ComityError] = {}

    def begin(self, supervisor: Supervisor) -> None:
        if self._settings.follow:
            timing = LoopTiming(self._settings.follow_hours * 3600.0, STEP_DEADLINE)
            supervisor.loop("followed repositories", self.step, timing)

    async def step(self) -> None:
        """Import each repository's newest commit, one after the other. A failure does not stop the others."""
        for repository in self._settings.follow:
            if why := self._paused():
                _log.info("followed repositories are not imported now", why=why)
                return
            try:
                await self._import(repository)
            except ComityError as error:
                self._failures[repository] = error
                _log.warning("followed repository was not imported", name=repository, why=str(error), code=error.code)
            else:
                self._failures.pop(repository, None)

    def warnings(self) -> Iterator[str]:
        """A sentence for each repository whose last import failed."""
        for repository, error in self._failures.items():
            yield f"hf:{repository} is followed, and its last import failed: {error}"

    async def _import(self, repository: str) -> None:
        settings, counter = self._settings, ImportCounter()
        hosts = AllowedHosts.to(settings.endpoint, settings.hosts)
        order = MirrorOrder(UpstreamRequest(repository, "main"), hosts, max_bytes=settings.largest_bytes)
        try:
            found = await self._importer.pin(order, counter)
            named = found.upstream.repository
            if named.lower() != repository.lower():
                raise Refused("the Hub gives another repository", why=f"hf:{repository} is now hf:{named}")
            await self._importer.mirror(order, found, counter, NoImportObserver())
        finally:
            counter.stop()
