"""Many files from many nodes: a few at a time, each under its lock, so that two pulls at once share the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from comity.content.blob_lock import BlobLock
from comity.transfer.fetch import Fetched, fetch_file
from comity.transfer.plan import Limits
from comity.transfer.ranges import offering
from comity.transfer.source import LocalSource, Source, names_of
from comity.transfer.source_key import SourceKey
from comity.transfer.standing import Standing
from comity.trust.digest import Digest
from comity.trust.errors import ComityError, Unavailable, Untrusted
from comity.trust.manifest import FileEntry
from comity.trust.pieces import PieceRecord

from comity_client.events import FileDone, OnEvent, Progress, SourceDropped, SourceFailed, Waiting
from comity_client.groups import first_error
from comity_client.nodes.source import NodeSource, other_ways
from comity_client.pulling.layouts import Layouts
from comity_client.pulling.placed import PlacedPieces

FILES_AT_ONCE: Final = 4
LARGE: Final = 16 * 1024 * 1024
"""Bytes from which a file keeps all sources and buffers busy by itself: one at a time, so that memory stays that of
one transfer."""
LOCK_POLL: Final = 0.2
"""Seconds between two looks at a lock that another process holds."""


@dataclass(slots=True)
class Tally:
    """Where the bytes of a pull came from: by nodes, each under a name that no other one of this pull has; `resumed`
    were left by an earlier try, `reused` found in other files."""

    by_node: dict[str, int] = field(default_factory=dict)
    resumed: int = 0
    reused: int = 0

    def add(self, fetched: Fetched, names: Mapping[SourceKey, str]) -> None:
        for node, count in fetched.bytes_by_host.items():
            self.by_node[names[node]] = self.by_node.get(names[node], 0) + count
        self.resumed += fetched.resumed
        self.reused += fetched.reused


class Fetching:
    """Fetches the files of one pull into `incoming`, verified.

    After `run`, `tally` says where the bytes came from, and `records` how each file was cut.
    """

    def __init__(
        self,
        incoming: Path,
        layouts: Layouts,
        sources: Sequence[NodeSource],
        placed: PlacedPieces,
        limits: Limits,
        on_event: OnEvent,
    ) -> None:
        self._incoming = incoming
        self._layouts = layouts
        self._sources = sources
        self._other_ways = other_ways(sources)
        self._placed = placed
        self._limits = limits
        self._on_event = on_event
        self._standings: dict[SourceKey, Standing] = {}
        self._names = names_of([*sources, *self._other_ways])
        self.tally = Tally()
        self.records: dict[Digest, Sequence[PieceRecord]] = {}

    async def run(self, entries: Sequence[FileEntry]) -> None:
        """Have every one of `entries`, whose digests are distinct, as `incoming/<sha256>`.

        Raises what `fetch_file` raises for the first file that cannot be had; what is verified stays for the next try.
        """
        try:
            await self._run(entries)
        finally:
            for source in self._other_ways:
                source.close()

    async def _run(self, entries: Sequence[FileEntry]) -> None:
        turn, alone = asyncio.Semaphore(FILES_AT_ONCE), asyncio.Lock()

        async def one(entry: FileEntry) -> None:
            room = alone if entry.size >= LARGE else turn
            async with room, locked(self._incoming, entry, self._on_event):
                await self._fetch(entry)

        try:
            async with asyncio.TaskGroup() as tasks:
                for entry in entries:
                    tasks.create_task(one(entry))
        except* ComityError as failures:
            raise first_error(failures) from None

    async def _fetch(self, entry: FileEntry) -> None:
        failure: ComityError = Unavailable(f"{entry.path} cannot be had", why="no way to cut it is known")
        second = await offering(self._other_ways, entry.sha256, entry.size)
        sources: list[Source] = [*self._sources, *second]
        async for want in self._layouts.ways(entry):
            try:
                fetched = await fetch_file(
                    want,
                    sources,
                    self._incoming / entry.sha256,
                    local=LocalSource(self._here),
                    limits=self._limits,
                    on_progress=lambda count: self._on_event(Progress(entry.path, count)),
                    standings=self._standings,
                )
            except Untrusted as error:
                if error.code != "PIECE-INDEX":
                    raise
                failure = error
                continue
            self._done(entry, fetched)
            self.records[entry.sha256] = want.records
            return
        raise failure

    def _here(self, record: PieceRecord) -> list[tuple[Path, int]]:
        try:
            return self._placed.find(record)
        except Unavailable:
            return []  # the index is a hint: without it the piece is fetched

    def _done(self, entry: FileEntry, fetched: Fetched) -> None:
        self.tally.add(fetched, self._names)
        for source, why in fetched.dropped.items():
            self._on_event(SourceDropped(self._names[source], entry.path, why))
        for source, faults in fetched.faults.items():
            if source not in fetched.dropped:
                self._on_event(SourceFailed(self._names[source], entry.path, "; ".join(faults)))
        by_node = {self._names[node]: count for node, count in fetched.bytes_by_host.items()}
        self._on_event(FileDone(entry.path, by_node, fetched.reused))


@asynccontextmanager
async def locked(incoming: Path, entry: FileEntry, on_event: OnEvent) -> AsyncIterator[None]:
    """Hold the lock of one file's digest while the block runs; the event loop goes on while somebody else has it."""
    lock, told = BlobLock(incoming, entry.sha256), False
    while not lock.try_acquire():
        if not told:
            on_event(Waiting(entry.path))
            told = True
        await asyncio.sleep(LOCK_POLL)
    try:
        yield
    finally:
        lock.release()
