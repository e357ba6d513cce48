"""Copies of artifacts: which are wanted here, which are whole, and the `hold` that says so in the own log.

(1) a proven `published` statement in any log held here is a claim to follow; so is what a node of the federation
    `observed` of an upstream
(2) the operator's patterns say whether it is wanted; what was published here always is
(3) manifest and piece indexes are here already: they are side objects of mirrored entries
(4) each file comes from whichever peers have it, and counts once its SHA-256 is the manifest's
(5) only when every file is in the store, `hold` is logged
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

import structlog

from comity.ledger.facts import HOLD
from comity.ledger.index import Query
from comity.ledger.proven import Line
from comity.node.core import Core
from comity.node.own_log import OwnLog
from comity.node.publishing.artifact import missing_files, read_artifact
from comity.node.publishing.pending import Want
from comity.node.replication.files import FileFetcher
from comity.node.scan import every
from comity.node.tasks import Rhythm, Supervisor
from comity.trust.digest import Digest, short
from comity.trust.errors import ComityError, Unavailable, Untrusted
from comity.trust.manifest import Manifest
from comity.trust.pieces import PieceIndex
from comity.trust.statement import Entry, SideObject, parse_entry
from comity.trust.statements.claims import parse_hold, sign_hold
from comity.trust.statements.published import Published
from comity.trust.upstream.observed import OBSERVED, Observed

WORKERS: Final = 3
"""Artifacts that are copied at once, so that a slow one does not keep the others waiting."""
LONGEST: Final = 7 * 86_400.0
FIRST_REST: Final = 2.0
LONGEST_REST: Final = 600.0
MAX_WANTED: Final = 10_000
"""Artifacts to copy that are kept at hand; the next ones are read from the ledger when some of them are here."""
MAX_INDEXES: Final = 8
"""Piece indexes of one artifact that publishers named and that are kept at hand."""
MAX_HOLDS: Final = 256
"""Holds of one artifact whose piece indexes are tried."""
FOLLOWED: Final = ("published", OBSERVED)

_log: Final = structlog.get_logger("comity.node.artifacts")


@dataclass(slots=True)
class _Wanted:
    """An artifact to copy. `indexes` are the piece indexes that somebody named for it: hints, tried in turn."""

    name: str
    manifest: SideObject
    indexes: dict[SideObject, None] = field(default_factory=dict)
    failures: int = 0
    rests_until: float = 0.0
    busy: bool = False


class Replicas:
    """Follows what is published, and copies what is wanted. Touched by the event loop only."""

    def __init__(self, core: Core, own_log: OwnLog, files: FileFetcher) -> None:
        self._core = core
        self._own_log = own_log
        self._files = files
        self._read = 0
        """The number of the last publication that was looked at."""
        self._wanted: dict[Digest, _Wanted] = {}
        self._scanning = asyncio.Lock()
        self.held: set[Digest] = set()

    async def begin(self, supervisor: Supervisor) -> None:
        self.held = await self._core.pools.ledger(self._holds)
        rhythm = Rhythm(max(1.0, self._core.config.replication.interval_seconds), LONGEST)
        for worker in range(WORKERS):
            supervisor.loop(f"copy {worker}", self._work, rhythm)

    def look(self, supervisor: Supervisor) -> None:
        """Something new may have been published."""
        for worker in range(WORKERS):
            supervisor.ring(f"copy {worker}")

    def look_again(self, supervisor: Supervisor) -> None:
        """Something that was here is not: go through everything published once more."""
        self._read = 0
        self.look(supervisor)

    async def _work(self) -> None:
        """Copy what is due, one artifact after the other, until nothing is."""
        await self._scan()
        while (due := self._due()) is not None:
            artifact, wanted = due
            wanted.busy = True
            try:
                await self._copy(artifact, wanted)
                del self._wanted[artifact]
            except (ComityError, TimeoutError) as error:
                wanted.failures += 1
                rest = min(LONGEST_REST, FIRST_REST * 2 ** min(wanted.failures - 1, 16))
                wanted.rests_until = self._now() + rest
                _log.warning("not copied yet", name=wanted.name, artifact=artifact, why=str(error), rest=rest)
            finally:
                wanted.busy = False
                self._core.metrics.replica_short.set(len(self._wanted))
            await self._scan()

    async def _scan(self) -> None:
        """Read what was proven to be published since the last look, as far as there is room for what is wanted."""
        async with self._scanning:
            while len(self._wanted) < MAX_WANTED:
                read = self._read
                page = await self._core.pools.ledger(self._core.ledger.proven.since, read, FOLLOWED)
                for line in page:
                    await self._consider(line)
                if not page or self._read != read:  # begun anew meanwhile
                    break
                self._read = page[-1].number
            self._core.metrics.replica_short.set(len(self._wanted))

    async def _consider(self, line: Line) -> None:
        entry = parse_entry(line.line)
        published = _reading(entry)
        if isinstance(published, Observed) and published.by not in self._core.membership.node_ids:
            return  # whose node it is, no charter says
        ours = line.vkey == self._core.log
        if not (ours or self._core.config.replication.wants(_repository(published))):  # (2)
            return
        if published.artifact in self.held and not await self._core.pools.files(self._gaps, published):
            return
        wanted = self._wanted.setdefault(published.artifact, _Wanted(str(published.name), published.manifest))
        if len(wanted.indexes) < MAX_INDEXES:
            wanted.indexes.setdefault(published.pieces)

    def _due(self) -> tuple[Digest, _Wanted] | None:
        now = self._now()
        ready = ((a, w) for a, w in self._wanted.items() if not w.busy and w.rests_until <= now)
        return min(ready, key=lambda item: item[1].failures, default=None)

    async def _copy(self, artifact: Digest, wanted: _Wanted) -> None:
        indexes = (*wanted.indexes, *await self._core.pools.ledger(self._held_indexes, artifact))
        failure: ComityError = Unavailable("no piece index", why=short(artifact))
        for pieces in dict.fromkeys(indexes):
            try:
                await self._copy_by(wanted, pieces)
            except Untrusted as error:
                failure = error
                continue
            await self._hold(artifact, wanted, pieces)
            return
        raise failure

    async def _copy_by(self, wanted: _Wanted, pieces: SideObject) -> None:
        """Fetch what is missing, by one piece index. Raises Untrusted where the index is not these files'."""
        await self._files.require_objects((wanted.manifest, pieces))
        manifest, index = await self._core.pools.files(read_artifact, self._core.store, wanted.manifest, pieces)  # (3)
        missing = await self._core.pools.files(missing_files, self._core.store, manifest)
        layouts = dict(index.files)
        await self._files.fetch([(want, layouts[want.path]) for want in missing], name=wanted.name)  # (4)
        await self._remember_pieces(manifest, index)

    async def _remember_pieces(self, manifest: Manifest, index: PieceIndex) -> None:
        """Have the records of every file in this layout, those included that were here before."""
        for entry, (_, layout) in zip(manifest.files, index.files, strict=True):
            await self._files.require_records(Want(entry.sha256, entry.size, entry.path), layout)

    async def _hold(self, artifact: Digest, wanted: _Wanted, pieces: SideObject) -> None:
        if artifact not in self.held:
            entry = sign_hold(self._core.seat.record, artifact, wanted.manifest, pieces, self._core.keys.online)
            index = await self._own_log.append(entry.line)  # (5)
            self.held.add(artifact)
            _log.info("held", name=wanted.name, artifact=artifact, index=index)

    def _gaps(self, published: Published | Observed) -> bool:
        """Whether a file of a held artifact is missing here all the same."""
        try:
            manifest, _ = read_artifact(self._core.store, published.manifest, published.pieces)
            return bool(missing_files(self._core.store, manifest))
        except ComityError:
            return True  # even what says which files there are is gone, or is not what it was

    def _holds(self) -> set[Digest]:
        """Artifacts that this node has said to hold."""
        query = Query(predicate="hold", by=self._core.seat.record.node.id, origin=self._core.log)
        return {parse_entry(found.line).statement.subject for found in every(self._core.ledger, query)}

    def _held_indexes(self, artifact: Digest) -> list[SideObject]:
        """Piece indexes by which other nodes say that they hold an artifact, in turn over logs."""
        named: list[SideObject] = []
        for found in self._core.ledger.proven.about(artifact, (HOLD,), MAX_HOLDS).found:
            statement = parse_entry(found.line).statement
            hold = parse_hold(statement)
            named.extend(item for item in statement.objects if item.digest == hold.pieces)
        return named

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _reading(entry: Entry) -> Published | Observed:
    said = entry.statement
    return Observed.parse(said) if said.predicate == OBSERVED else Published.parse(said)


def _repository(published: Published | Observed) -> str:
    return str(published.name).rpartition("@")[0]
