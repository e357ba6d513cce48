"""Copies of artifacts: which are wanted here, which are whole, and the `hold` that says so in the own log.

(1) a proven `published` statement in any log held here is a claim to follow; so is what a node of the federation
    `observed` of an upstream
(2) the operator's patterns say whether it is wanted; what was published here always is
(3) manifest and piece indexes are here already: they are side objects of mirrored entries
(4) members and publishers take turns (`copying`); each file comes from whichever peers have it, and counts once its
    SHA-256 is the manifest's
(5) only when every file is in the store, `hold` is logged
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from comity.ledger.facts import HOLD
from comity.ledger.index import Query
from comity.ledger.proven import Line
from comity.node.core import Core
from comity.node.own_log import OwnLog
from comity.node.publishing.artifact import missing_files, read_artifact
from comity.node.publishing.pending import Want
from comity.node.replication.copying import WORKERS, Copy, Copying, Job
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

LONGEST: Final = 7 * 86_400.0
READ_AGAIN: Final = 300.0
"""Seconds after which publications are read again of which some found no place."""
MAX_HOLDS: Final = 256
"""Holds of one artifact whose piece indexes are tried."""
FOLLOWED: Final = ("published", OBSERVED)

_log: Final = structlog.get_logger("comity.node.artifacts")


class Replicas:
    """Follows what is published, and copies what is wanted. Touched by the event loop only.

    Args:
        lost: called when something of a held artifact is found to be gone.
    """

    def __init__(self, core: Core, own_log: OwnLog, files: FileFetcher, lost: Callable[[], None]) -> None:
        self._core = core
        self._own_log = own_log
        self._files = files
        self._lost = lost
        self._read = 0
        """The number of the last publication that was looked at."""
        self._copying = Copying()
        self._read_again = 0.0
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
        while (job := self._copying.next(self._now())) is not None:
            await self._do(job)
            self._core.metrics.replica_short.set(len(self._copying))
            await self._scan()

    async def _do(self, job: Job) -> None:
        """A turn of an artifact, or as many as nobody else needs."""
        copy = job.copy
        try:
            async with asyncio.timeout(None) as turn:
                with self._looking(job, turn):
                    await self._copy(copy)
        except (ComityError, TimeoutError) as error:
            if turn.expired():
                self._copying.put_off(job, self._now())
                _log.info("others go first", name=copy.name, artifact=copy.artifact)
                return
            rest = self._copying.failed(job, self._now())
            _log.warning("not copied yet", name=copy.name, artifact=copy.artifact, why=str(error), rest=rest)
        except BaseException:
            self._copying.put_off(job, self._now())
            raise
        else:
            self._copying.done(job, self._now())

    @contextmanager
    def _looking(self, job: Job, turn: asyncio.Timeout) -> Iterator[None]:
        """At the end of each turn inside the block, look whether somebody else needs the worker more."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal timer
            if self._copying.gives_way(job):
                turn.reschedule(loop.time())
            else:
                timer = loop.call_later(job.seconds, look)

        timer = loop.call_later(job.seconds, look)
        try:
            yield
        finally:
            timer.cancel()

    async def _scan(self) -> None:
        """Read what was proven to be published since the last look, as far as there is room for what is wanted."""
        async with self._scanning:
            self._read_left_out()
            while True:
                read = self._read
                page = await self._core.pools.ledger(self._core.ledger.proven.since, read, FOLLOWED)
                for line in page:
                    await self._consider(line)
                if not page or self._read != read:  # begun anew meanwhile
                    break
                self._read = page[-1].number
            self._core.metrics.replica_short.set(len(self._copying))

    def _read_left_out(self) -> None:
        """Begin anew where claims of a member found no place, once there is place."""
        left_out, now = self._copying.left_out, self._now()
        free = {member for member in left_out if not self._copying.waiting(member)}
        if free and now >= self._read_again:
            self._read_again = now + READ_AGAIN
            left_out -= free
            self._read = 0

    def _writer(self, log: str) -> Digest | str:
        """The member whose log it is; of a log that no member writes, the log itself."""
        membership = self._core.membership
        if log == self._core.log:
            return membership.seat.inception.id
        return next((peer.member.id for peer in membership.peers if str(peer.record.log) == log), log)

    async def _consider(self, line: Line) -> None:
        published = _reading(parse_entry(line.line))
        if isinstance(published, Observed) and published.by not in self._core.membership.node_ids:
            return  # whose node it is, no charter says
        ours = line.vkey == self._core.log
        if not (ours or self._core.config.replication.wants(_repository(published))):  # (2)
            return
        if published.artifact in self.held:
            if not await self._core.pools.files(self._gaps, published):
                return
            self._lost()
        path = self._writer(line.vkey), published.by
        self._copying.want(published.artifact, str(published.name), published.manifest, published.pieces, path)

    async def _copy(self, wanted: Copy) -> None:
        indexes = (*wanted.indexes, *await self._core.pools.ledger(self._held_indexes, wanted.artifact))
        failure: ComityError = Unavailable("no piece index", why=short(wanted.artifact))
        for pieces in dict.fromkeys(indexes):
            try:
                await self._copy_by(wanted, pieces)
            except Untrusted as error:
                failure = error
                continue
            await self._hold(wanted, pieces)
            return
        raise failure

    async def _copy_by(self, wanted: Copy, pieces: SideObject) -> None:
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

    async def _hold(self, wanted: Copy, pieces: SideObject) -> None:
        artifact = wanted.artifact
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
