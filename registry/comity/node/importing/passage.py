"""A commit of an upstream on its way into the store, for those who wait for it.

Its manifest is known long before its bytes are: what is in LFS is listed with its SHA-256, and the small files beside
it are fetched first. It is the manifest that the import will log, if the upstream keeps its word about every file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from pathlib import Path

from comity.node.importing.inflow import Inflow
from comity.node.pools import Pools
from comity.trust.digest import Digest
from comity.trust.errors import ComityError, NotFound
from comity.trust.manifest import FileEntry, Manifest
from comity.trust.upstream.comparing import Observation
from comity.upstream.audience import FileAudience
from comity.upstream.listing import Listing, Standing


class Passage:
    """The `Audience` of an import. Made, and asked, on the event loop.

    Args:
        on_lost: called with the digest of a file of which a reader may have bytes that were thrown away.

    Attributes:
        manifest: what it will be; None until the files outside LFS are here.
        over: whether the import has ended, well or not.
    """

    def __init__(self, standing: Standing, on_lost: Callable[[Digest], None]) -> None:
        self.standing = standing
        self.manifest: Manifest | None = None
        self.over = False
        self._failure: ComityError | None = None
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._known = asyncio.Event()
        self._inflows: tuple[Inflow, ...] = ()
        self._numbers: dict[Digest, int] = {}
        self._entries: list[FileEntry | None] = []
        self._unknown = 0

    @property
    def proven(self) -> bool:
        """Whether the upstream gave all that it listed."""
        return self.over and self._failure is None

    async def described(self) -> Manifest | None:
        """The manifest, as soon as it is known; None where all of it turns out to be here already. Raises what ended
        the import."""
        await self._known.wait()
        if self._failure is not None:
            raise self._failure
        return self.manifest

    async def read(self, entry: FileEntry, offset: int, length: int, pools: Pools) -> AsyncGenerator[bytes, None]:
        """A range of one of its files, as `Inflow.read` gives it. Raises NotFound (NO-HOLDER) for any other file."""
        await self.described()
        number = self._numbers.get(entry.sha256)
        if number is None:
            if self.over and self.manifest is None:
                return
            why = f"{self.standing.upstream.name} has no such file"
            raise NotFound(f"{entry.path[:200]} is nowhere whole", why=why, code="NO-HOLDER")
        inflow = self._inflows[number]
        inflow.readers += 1
        try:
            async with aclosing(inflow.read(offset, length, pools)) as parts:
                async for part in parts:
                    yield part
        finally:
            inflow.readers -= 1

    def end(self, failure: ComityError | None = None) -> None:
        """All of it is in the store and logged, or will not be."""
        self.over, self._failure = True, failure
        for inflow in self._inflows:
            inflow.end(failure)
        self._known.set()

    def expected(self, listing: Listing, paths: Sequence[Path]) -> None:
        """In the import's thread, like all that follows."""
        inflows = [
            self._inflow(listed.lfs, listed.size, path) for listed, path in zip(listing.files, paths, strict=True)
        ]
        self._inflows = tuple(inflows)
        self._entries = [
            FileEntry(listed.path, listed.size, listed.lfs) if listed.lfs else None for listed in listing.files
        ]
        self._unknown = self._entries.count(None)
        if not self._unknown:
            self._describe()

    def awaited(self) -> Collection[int]:
        return [number for number, inflow in enumerate(self._inflows) if inflow.readers]

    def of(self, number: int) -> FileAudience:
        return self._inflows[number]

    def whole(self, number: int, observation: Observation) -> None:
        if self._entries[number] is None:
            self._entries[number] = observation.entry
            self._unknown -= 1
            if not self._unknown:
                self._describe()
        self._loop.call_soon_threadsafe(self._inflows[number].verified)

    def _inflow(self, lfs: Digest | None, size: int, path: Path) -> Inflow:
        def lost() -> None:
            if lfs is not None:  # of what had no listed SHA-256 nobody was given anything
                self._on_lost(lfs)

        return Inflow(path, size, self._loop, lost)

    def _describe(self) -> None:
        entries = [entry for entry in self._entries if entry is not None]
        manifest = Manifest.of(entries)
        numbers = {entry.sha256: number for number, entry in enumerate(entries)}
        self._loop.call_soon_threadsafe(self._tell, manifest, numbers)

    def _tell(self, manifest: Manifest, numbers: dict[Digest, int]) -> None:
        self.manifest, self._numbers = manifest, numbers
        self._known.set()
