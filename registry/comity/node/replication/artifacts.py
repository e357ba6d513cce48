"""Copies of artifacts: which are wanted here, which are whole, and the `hold` that says so in the own log.

(1) a `published` statement in any log held here, by a publisher whose inception is here, is a claim to follow; so is
    what a node of the federation `observed` of an upstream
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

from comity.ledger.index import MAX_FOUND, Located, Query
from comity.node.core import Core
from comity.node.own_log import OwnLog
from comity.node.publishing.artifact import missing_files, read_artifact
from comity.node.publishing.pending import Want
from comity.node.replication.files import FileFetcher
from comity.node.scan import every
from comity.node.speakers import Speakers
from comity.node.tasks import Rhythm, Supervisor
from comity.trust.digest import Digest, short
from comity.trust.errors import ComityError, NotFound, Unavailable, Untrusted
from comity.trust.manifest import Manifest
from comity.trust.pieces import PieceIndex
from comity.trust.statement import SideObject, parse_entry
from comity.trust.statements.claims import parse_hold, sign_hold
from comity.trust.statements.published import Published, check_published
from comity.trust.upstream.observed import OBSERVED, Observed

WORKERS: Final = 3
"""Artifacts that are copied at once, so that a slow one does not keep the others waiting."""
LONGEST: Final = 7 * 86_400.0
FIRST_REST: Final = 2.0
LONGEST_REST: Final = 600.0
MAX_WANTED: Final = 100_000
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
        self._read: dict[tuple[str, str], Located] = {}
        self._unproven: dict[Digest, Located] = {}
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
        self._read.clear()
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
        """Read what was published since the last look."""
        async with self._scanning:
            fresh = await self._core.pools.ledger(self._published_since)
            waiting, self._unproven = list(self._unproven.values()), {}
            for located in (*waiting, *fresh):
                await self._consider(located)
            self._core.metrics.replica_short.set(len(self._wanted))

    async def _consider(self, located: Located) -> None:
        try:
            name, published = await self._core.pools.ledger(self._prove, located)  # (1)
        except NotFound:
            if len(self._unproven) < MAX_WANTED:
                self._unproven[parse_entry(located.line).digest] = located  # its inception may come with another log
            return
        except ComityError as error:
            _log.info("a claim that counts for nothing", origin=located.origin, index=located.index, why=str(error))
            return
        ours = located.vkey == self._core.log
        if not (ours or self._core.config.replication.wants(name.rpartition("@")[0])):  # (2)
            return
        if published.artifact in self.held and not await self._core.pools.files(self._gaps, published):
            return
        if published.artifact not in self._wanted and len(self._wanted) >= MAX_WANTED:
            return
        wanted = self._wanted.setdefault(published.artifact, _Wanted(name, published.manifest))
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

    def _prove(self, located: Located) -> tuple[str, Published | Observed]:
        entry, speakers = parse_entry(located.line), Speakers(self._core)
        if entry.statement.predicate == OBSERVED:
            speakers.prove(entry)
            observed = Observed.parse(entry.statement)
            return observed.upstream.name, observed
        published = Published.parse(entry.statement)
        proven = check_published(entry, speakers.inception(published.by), speakers.keys(published.by))
        return str(proven.name), proven

    def _gaps(self, published: Published | Observed) -> bool:
        """Whether a file of a held artifact is missing here all the same."""
        try:
            manifest, _ = read_artifact(self._core.store, published.manifest, published.pieces)
            return bool(missing_files(self._core.store, manifest))
        except ComityError:
            return True  # even what says which files there are is gone, or is not what it was

    def _published_since(self) -> list[Located]:
        found: list[Located] = []
        for state in self._core.ledger.logs.all():
            for predicate in FOLLOWED:
                query = Query(predicate=predicate, origin=state.vkey)
                for located in every(self._core.ledger, query, after=self._read.get((state.vkey, predicate))):
                    self._read[state.vkey, predicate] = located
                    found.append(located)
        return found

    def _holds(self) -> set[Digest]:
        """Artifacts that this node has said to hold."""
        query = Query(predicate="hold", by=self._core.seat.record.node.id, origin=self._core.log)
        return {parse_entry(found.line).statement.subject for found in every(self._core.ledger, query)}

    def _held_indexes(self, artifact: Digest) -> list[SideObject]:
        """Piece indexes by which other nodes say that they hold an artifact."""
        named: list[SideObject] = []
        for found in self._core.ledger.index.find(Query(subject=artifact, predicate="hold"), limit=MAX_FOUND):
            statement = parse_entry(found.line).statement
            try:
                hold = parse_hold(statement)
            except ComityError:
                continue
            named.extend(item for item in statement.objects if item.digest == hold.pieces)
        return named

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
