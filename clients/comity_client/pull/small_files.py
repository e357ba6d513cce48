"""The small files of a pull: those that are here already, those that were asked for before the verdict (`first_files`),
and the others in batches (`comity.transfer.batches`).

They are verified in memory and written to `incoming` as whole files, which are not synced before they are placed: a
crash can lose them, and what the next pull finds there is hashed. What costs a step of the disk or of the index of
placed files for each large file is done for all small ones together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.content.durable import disk_errors
from comity.transfer.batches import FINAL, ObjectSource, SmallFile, fetch_batches
from comity.transfer.fetch import FetchOptions, FetchResult
from comity.transfer.sources import SourceKey, names_of
from comity.trust.artifact import FileEntry, PieceRecord
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Refused, Unavailable, Untrusted
from comity.wire.limits import SMALL_OBJECT

from comity_client.events import FileDone, OnEvent, Progress, SourceDropped, SourceFailed
from comity_client.pull.destinations import READ_ONLY, has_file
from comity_client.pull.first_files import FirstFiles
from comity_client.pull.placed_pieces import PlacedPieces

SMALL_FILES: Final = sha256(b"small files")
"""The name of the lock that the small files of a destination have together."""


def is_small(entry: FileEntry) -> bool:
    return entry.size <= SMALL_OBJECT


def whole_record(entry: FileEntry) -> PieceRecord:
    """The file as one piece, by which later pulls find it."""
    return PieceRecord(entry.size, bytes.fromhex(entry.sha256))


@dataclass(slots=True)
class BytesBySource:
    """Origin of the bytes of a pull: by node, each under a unique name; `resumed` from an earlier attempt, `reused`
    from other files."""

    by_node: dict[str, int] = field(default_factory=dict)
    resumed: int = 0
    reused: int = 0

    def add(self, more: BytesBySource) -> None:
        for node, count in more.by_node.items():
            self.by_node[node] = self.by_node.get(node, 0) + count
        self.resumed += more.resumed
        self.reused += more.reused

    def add_fetched(self, fetched: FetchResult, names: Mapping[SourceKey, str]) -> None:
        by_node = {names[node]: count for node, count in fetched.bytes_by_host.items()}
        self.add(BytesBySource(by_node, fetched.resumed, fetched.reused))


class SmallFiles:
    """Brings small files into `incoming`, each as `incoming/<sha256>`. The caller holds the lock `SMALL_FILES`.

    Args:
        place_of: where a file is placed. One that another pull has placed there since is hashed, and not fetched.

    After `fetch`, `tally` has the origin of the bytes.
    """

    def __init__(
        self, incoming: Path, place_of: Callable[[FileEntry], Path], placed: PlacedPieces, on_event: OnEvent
    ) -> None:
        self._incoming = incoming
        self._place_of = place_of
        self._placed = placed
        self._on_event = on_event
        self.tally = BytesBySource()

    async def fetch(
        self, entries: Sequence[FileEntry], sources: Sequence[ObjectSource], options: FetchOptions, first: FirstFiles
    ) -> Sequence[FileEntry]:
        """Fetch `entries`, whose digests are distinct. Returns those that no source gives in a batch.

        Raises Unavailable (PATIENCE, DISK) and OutOfSpace; what was verified is kept for the next attempt.
        """
        left = {entry.sha256: entry for entry in entries}
        for entry, resumed in await asyncio.to_thread(self._here, entries):
            self._is_here(left.pop(entry.sha256), resumed=resumed)
        names = names_of(sources)
        arrived = {entry: file for entry in left.values() if (file := await first.take(entry)) is not None}
        await asyncio.to_thread(self._keep, {entry.sha256: file.data for entry, file in arrived.items()})
        for entry, file in arrived.items():
            self._arrived(left.pop(entry.sha256), names[next(iter(file.by_source))])

        def kept(files: Sequence[SmallFile], source: str) -> None:
            for file in files:
                self._arrived(left.pop(file.digest), source)

        files = [SmallFile(entry.sha256, entry.size) for entry in left.values()]
        try:
            if files:
                fetched = await fetch_batches(files, sources, self._keep, on_kept=kept, options=options)
                self._tell_faults(fetched, names, f"{len(files)} small files")
        except (Unavailable, Refused, Untrusted) as error:
            if error.code in FINAL:
                raise
        return tuple(left.values())

    def _here(self, entries: Sequence[FileEntry]) -> list[tuple[FileEntry, bool]]:
        """The files that need not be fetched, and whether an earlier attempt left them in `incoming`. Blocking."""
        found = list[tuple[FileEntry, bool]]()
        places = self._places([entry for entry in entries if entry.size])
        for entry in entries:
            if not entry.size:
                self._keep({entry.sha256: b""})
                found.append((entry, False))
            elif has_file(self._incoming / entry.sha256, entry):
                found.append((entry, True))
            elif has_file(self._place_of(entry), entry) or self._reused(entry, places):
                found.append((entry, False))
        return found

    def _places(self, entries: Sequence[FileEntry]) -> Mapping[bytes, Sequence[tuple[Path, int]]]:
        try:
            return self._placed.find_all([bytes.fromhex(entry.sha256) for entry in entries])
        except Unavailable:
            return {}  # the index is a hint: without it the files are fetched

    def _reused(self, entry: FileEntry, places: Mapping[bytes, Sequence[tuple[Path, int]]]) -> bool:
        """Whether another file on this machine has these bytes, which are then in `incoming`."""
        for data in _copies(places.get(bytes.fromhex(entry.sha256), ()), entry.size):
            if sha256(data) == entry.sha256:
                self._keep({entry.sha256: data})
                return True
        return False

    def _keep(self, files: Mapping[Digest, bytes]) -> None:
        with disk_errors(f"{len(files)} files were not written"):
            durable.write_unsynced({self._incoming / digest: data for digest, data in files.items()}, mode=READ_ONLY)

    def _is_here(self, entry: FileEntry, *, resumed: bool) -> None:
        self.tally.add(BytesBySource(resumed=entry.size * resumed, reused=entry.size * (not resumed)))
        self._on_event(Progress(entry.path, entry.size))
        self._on_event(FileDone(entry.path, {}, 0 if resumed else entry.size))

    def _arrived(self, entry: FileEntry, source: str) -> None:
        self.tally.add(BytesBySource({source: entry.size}))
        self._on_event(Progress(entry.path, entry.size))
        self._on_event(FileDone(entry.path, {source: entry.size}, 0))

    def _tell_faults(self, fetched: FetchResult, names: Mapping[SourceKey, str], what: str) -> None:
        for source, why in fetched.dropped.items():
            self._on_event(SourceDropped(names[source], what, why))
        for source, faults in fetched.faults.items():
            if source not in fetched.dropped:
                self._on_event(SourceFailed(names[source], what, "; ".join(faults)))


def _copies(places: Sequence[tuple[Path, int]], size: int) -> Iterator[bytes]:
    """The bytes at these places, not verified; an unreadable file is skipped."""
    for path, offset in places:
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(offset)
                yield file.read(size)
        except OSError:
            continue
