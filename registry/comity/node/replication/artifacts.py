"""Replication of artifacts: which are copied next, which log is fetched from which member, and the `hold` statements.

`LogTurns`: one member at a time catches a log up; the nodes of a member count as one.
(1) a turn is ended after its length for a member that was never tried with this log or was more than twice as fast,
    and after four lengths for any other member
(2) a member whose turn was ended pauses for one turn; a member that failed pauses longer each time
(3) while no step of the log is stored, its turns grow, so that a slow honest peer can finish a step

`CopyQueue`: a state machine without I/O or clock; seconds are arguments.
(1) an artifact waits under each member in whose log it is claimed and its publisher there; members take turns, and so
    do the publishers in a member's logs. A claim about another's artifact takes nothing from either
(2) a member uses at most half of the workers, and one publisher one fewer, so that slow sources leave workers free
(3) a copy that has used its turn yields to a member or publisher that has fewer workers; its next turn is twice as
    long. Its time is charged
(4) a failed copy pauses, longer each time

    grows with                         bound       charged to                         at the bound
    artifacts that wait or pause       MAX_QUEUED  the member whose log claims them   dropped, read again later
    members that claim one artifact    MAX_PATHS   the artifact                       later ones add no turns

`Replicas`: copies of artifacts.
(1) a proven `published` statement in any stored log is followed, and what a node of the federation `observed`
(2) the operator's patterns decide whether it is wanted; artifacts published at this node always are
(3) manifest and piece indexes are stored already: they are side objects of mirrored entries
(4) each file comes from any peers that have it, and is accepted if its SHA-256 is the manifest's
(5) `hold` is logged when every file is stored
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from comity.content.blobs import BlobStore
from comity.ledger.intake import HOLD
from comity.ledger.log_store import EntryQuery
from comity.ledger.proven import ProvenLine
from comity.node.config import Replication
from comity.node.keys import NodeSigner
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.own_log import OwnLog, iterate_entries
from comity.node.replication.fair_queue import FairQueue, Path
from comity.node.replication.files import FileFetcher
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Pools
from comity.node.uploads import Want, missing_files, read_artifact
from comity.trust.artifact import Manifest, PieceIndex
from comity.trust.copies import HOLD_WITHDRAWN
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, Unavailable, Untrusted
from comity.trust.statement import Entry, SideObject, parse_entry
from comity.trust.statements import Published, parse_hold, sign_hold
from comity.trust.upstream import OBSERVED, Observed
from comity.wire.operator import LackingArtifact

TURN_SECONDS: Final = 20.0
"""Seconds of a log's first turn."""
MAX_TURN_SECONDS: Final = 1_200.0
TAKEOVER_TURNS: Final = 4
"""Turn lengths after which any member may take over."""
MAX_REST_SECONDS: Final = 600.0
MAX_REMEMBERED: Final = 16_384
"""Remembered pairs of a member and a log; the one unused longest is dropped first."""


@dataclass(slots=True, eq=False)
class LogTurn:
    """A member that fetches a log. `received` counts bytes; `end` is called when another member is to continue."""

    log: str
    member: Digest
    since: float
    received: int = 0
    preempted: bool = False
    end: Callable[[], None] = field(default=lambda: None)

    def rate(self, now: float) -> float:
        return self.received / max(now - self.since, 1e-6)


@dataclass(slots=True)
class _LogProgress:
    """What is known of a member as a source of one log."""

    failures: int = 0
    resting_until: float = 0.0
    rate: float | None = None


class LogTurns:
    """The turns of all logs. No I/O, no clock.

    Args:
        interval: seconds of the first pause after a failure.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._turns: dict[str, LogTurn] = {}
        self._lengths: dict[str, float] = {}
        self._progress: dict[tuple[Digest, str], _LogProgress] = {}

    def begin(self, log: str, member: Digest, now: float) -> LogTurn | None:
        """The member's turn with a log; None while the member pauses or another turn runs. That turn may be ended by
        this call; then this member's nodes ask again."""
        known = self._progress.get((member, log))
        if known is not None and now < known.resting_until:
            return None
        current = self._turns.get(log)
        if current is None:
            turn = self._turns[log] = LogTurn(log, member, now)
            return turn
        if current.member != member and not current.preempted and self._should_yield(current, known, now):
            current.preempted = True
            current.end()
        return None

    def step_stored(self, turn: LogTurn) -> None:
        """A step was stored: the log's turns are short again."""
        self._lengths.pop(turn.log, None)

    def finish(self, turn: LogTurn, now: float, *, failed: bool = False) -> None:
        """The turn has ended: preempted, successful, or because the member `failed`."""
        del self._turns[turn.log]
        known = self._progress.pop((turn.member, turn.log), _LogProgress())
        self._progress[turn.member, turn.log] = known
        if len(self._progress) > MAX_REMEMBERED:
            del self._progress[next(iter(self._progress))]
        known.rate = turn.rate(now)
        if turn.preempted:
            length = self._lengths[turn.log] = min(MAX_TURN_SECONDS, 2 * self._length(turn.log))
            known.resting_until = now + length
        elif failed:
            known.failures += 1
            known.resting_until = now + min(self._interval * 2 ** min(known.failures, 16), MAX_REST_SECONDS)
        else:
            known.failures = 0

    def _length(self, log: str) -> float:
        return self._lengths.get(log, TURN_SECONDS)

    def _should_yield(self, current: LogTurn, known: _LogProgress | None, now: float) -> bool:
        lasted, length = now - current.since, self._length(current.log)
        if lasted < length:
            return False
        untried = known is None or known.rate is None
        return (
            untried
            or lasted >= TAKEOVER_TURNS * length
            or (known is not None and (known.rate or 0) > 2 * current.rate(now))
        )


WORKERS: Final = 6
WORKERS_PER_MEMBER: Final = 3
WORKERS_PER_PUBLISHER: Final = 2
COPY_SECONDS: Final = 60.0
"""Seconds of a copy's first turn."""
MAX_DOUBLINGS: Final = 12
MAX_QUEUED: Final = 16_384
WARN_SHARE: Final = 0.8
"""The share of a member's part of the queue from which operators are warned."""
MAX_PATHS: Final = 16
MAX_INDEXES: Final = 8
"""Piece indexes tried for one artifact."""
FIRST_REST_SECONDS: Final = 2.0


@dataclass(slots=True, eq=False)
class Copy:
    """An artifact to copy. `indexes` are the piece indexes named for it: hints, tried in turn. `number` is that of the
    proven statement for which it was queued."""

    artifact: Digest
    name: str
    manifest: SideObject
    source: object
    number: int = 0
    indexes: dict[SideObject, None] = field(default_factory=dict)
    failures: int = 0
    turns: int = 0
    resting_until: float = 0.0
    failure: ComityError | None = None
    paths: dict[Path, None] = field(default_factory=dict)
    queued_under: set[Path] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Job:
    """A running copy, and the path under which it was taken from the queue."""

    copy: Copy
    path: Path
    begun: float

    @property
    def seconds(self) -> float:
        """The length of its turn."""
        return COPY_SECONDS * 2.0 ** min(self.copy.turns, MAX_DOUBLINGS)


@dataclass(frozen=True, slots=True)
class QueueUse:
    """Artifacts of one member in the queue, and the most that fit. Further ones wait in the logs."""

    member: object
    used: int
    most: int

    @property
    def nearly_full(self) -> bool:
        return self.used >= WARN_SHARE * self.most


class CopyQueue:
    """The wanted artifacts that are not complete.

    Attributes:
        left_out: members with claims that did not fit into the queue, and the number of the first of these statements:
            their logs are read again from there.
    """

    def __init__(self, max_queued: int = MAX_QUEUED) -> None:
        self._max_queued = max_queued
        self._queue: FairQueue[Digest] = FairQueue(max_queued)
        self._copies: dict[Digest, Copy] = {}
        self._count_by_source: Counter[object] = Counter()
        self._resting: list[tuple[float, Digest]] = []
        self._jobs: dict[Digest, Job] = {}
        self.left_out: dict[object, int] = {}

    def __len__(self) -> int:
        return len(self._copies)

    def incomplete(self) -> Iterator[Copy]:
        """The first `MAX_QUEUED` of them, in the order in which they were queued."""
        return itertools.islice(self._copies.values(), MAX_QUEUED)

    def state(self, copy: Copy) -> str:
        """`copying`, `paused` after a failure, or `waits` for a turn."""
        if copy.artifact in self._jobs:
            return "copying"
        return "paused" if copy.resting_until else "waits"

    def waiting(self, source: object) -> int:
        return self._queue.waiting(source)

    @property
    def fullest(self) -> QueueUse:
        """The member that uses most of its part of the queue."""
        member, used = max(self._count_by_source.items(), key=lambda item: item[1], default=(None, 0))
        return QueueUse(member, used, self._max_queued)

    def add(
        self, artifact: Digest, name: str, manifest: SideObject, pieces: SideObject, path: Path, number: int = 0
    ) -> None:
        """Queue an artifact claimed under `path`: the member whose log has the claim, and the publisher. `number` is
        that of the proven statement."""
        copy = self._copies.get(artifact)
        if copy is None:
            if self._count_by_source[path[0]] >= self._max_queued:
                self._leave_out(path[0], number)
                return
            copy = self._copies[artifact] = Copy(artifact, name, manifest, path[0], number)
            self._count_by_source[copy.source] += 1
        if len(copy.indexes) < MAX_INDEXES:
            copy.indexes.setdefault(pieces)
        if path not in copy.paths and len(copy.paths) < MAX_PATHS:
            copy.paths[path] = None
            if artifact not in self._jobs and not copy.resting_until:
                self._enqueue(copy, path)

    def next(self, now: float) -> Job | None:
        """The next job for a free worker; None if nothing is due."""
        while self._resting and self._resting[0][0] <= now:
            copy = self._copies.get(heapq.heappop(self._resting)[1])
            if copy is not None:
                copy.resting_until = 0.0
                self._enqueue_all(copy)
        while (taken := self._queue.take(self._may_start)) is not None:
            path, artifact = taken
            copy = self._copies.get(artifact)
            if copy is None or path not in copy.queued_under:
                continue  # copied under another path
            copy.queued_under.discard(path)
            if artifact in self._jobs or copy.resting_until:
                continue
            job = self._jobs[artifact] = Job(copy, path, now)
            return job
        return None

    def should_yield(self, job: Job) -> bool:
        """Whether a worker is needed more by another path, after a turn."""
        member, publisher = self._used(job.path[:1]), self._used(job.path)
        full = len(self._jobs) >= WORKERS

        def more_deserving(path: Path) -> bool:
            if path[0] == job.path[0]:
                return (full or member >= WORKERS_PER_MEMBER) and (len(path) == 1 or self._used(path) < publisher)
            return full and self._used(path[:1]) < member

        return self._queue.has_waiting(more_deserving)

    def done(self, job: Job, now: float) -> None:
        self._end(job, now)
        del self._copies[job.copy.artifact]
        self._count_by_source[job.copy.source] -= 1

    def failed(self, job: Job, now: float, failure: ComityError | None = None) -> float:
        """The job failed. Returns the seconds until it is tried again."""
        self._end(job, now)
        copy = job.copy
        copy.failure = failure
        copy.failures += 1
        rest = min(MAX_REST_SECONDS, FIRST_REST_SECONDS * 2.0 ** min(copy.failures - 1, 16))
        copy.resting_until = now + rest
        heapq.heappush(self._resting, (copy.resting_until, copy.artifact))
        return rest

    def preempted(self, job: Job, now: float) -> None:
        """The job yielded: queue it for its next turn."""
        self._end(job, now)
        job.copy.turns += 1
        self._enqueue_all(job.copy)

    def _end(self, job: Job, now: float) -> None:
        del self._jobs[job.copy.artifact]
        self._queue.charge(job.path, (now - job.begun) // COPY_SECONDS)

    def _enqueue_all(self, copy: Copy) -> None:
        for path in copy.paths:
            if path not in copy.queued_under:
                self._enqueue(copy, path)

    def _enqueue(self, copy: Copy, path: Path) -> None:
        copy.queued_under.add(path)
        displaced = self._queue.put(path, copy.artifact)
        if displaced is None:
            return
        path_displaced, artifact = displaced
        displaced_copy = self._copies.get(artifact)
        self._leave_out(path[0], displaced_copy.number if displaced_copy else 0)
        if displaced_copy is None:
            return
        displaced_copy.queued_under.discard(path_displaced)
        if not displaced_copy.queued_under and artifact not in self._jobs and not displaced_copy.resting_until:
            del self._copies[artifact]
            self._count_by_source[displaced_copy.source] -= 1

    def _leave_out(self, member: object, number: int) -> None:
        self.left_out[member] = min(self.left_out.get(member, number), number)

    def _may_start(self, path: Path) -> bool:
        return self._used(path) < (WORKERS_PER_MEMBER if len(path) == 1 else WORKERS_PER_PUBLISHER)

    def _used(self, path: Path) -> int:
        return sum(job.path[: len(path)] == path for job in self._jobs.values())


STEP_DEADLINE: Final = 7 * 86_400.0
REREAD_SECONDS: Final = 300.0
"""Seconds after which publications are read again, if some did not fit into the queue."""
PAGE: Final = 256
"""Publications of one log that are read in one step."""
MAX_NOT_LISTED: Final = 10_000
MAX_HOLDS: Final = 256
"""Holds of one artifact whose piece indexes are tried."""
PREDICATES: Final = ("published", OBSERVED)

_log: Final = structlog.get_logger("comity.node.artifacts")


class Replicas:
    """Follows publications and copies wanted artifacts. Not thread-safe: call from the event loop.

    Args:
        on_lost: called when a part of a complete artifact is missing.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        store: BlobStore,
        pools: Pools,
        membership: Membership,
        metrics: Metrics,
        signer: NodeSigner,
        settings: Replication,
        own_log: OwnLog,
        files: FileFetcher,
        on_lost: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._membership = membership
        self._metrics = metrics
        self._signer = signer
        self._settings = settings
        self._own_log = own_log
        self._files = files
        self._on_lost = on_lost
        self._read: dict[str, int] = {}
        """By log, the number of the last publication that was read. Replaced to read all again."""
        self._whole: set[Digest] = set()
        """Artifacts with a logged hold that were found complete. Replaced when a stored object was lost."""
        self._copies = CopyQueue()
        self._reread_at = 0.0
        self._warned = False
        self._scan_lock = asyncio.Lock()
        self.holds: set[Digest] = set()
        self._damaged: set[Digest] = set()
        """Artifacts with a logged hold of which a file is missing."""
        self._not_listed: set[Digest] = set()
        """Published artifacts that the settings do not name: the first `MAX_NOT_LISTED`."""
        self.withdrawn: set[Digest] = set()
        """Artifacts whose hold this node withdrew: not copied again until the operator says so. Always this object."""

    async def begin(self, supervisor: Supervisor) -> None:
        self.holds, withdrawn = await self._ledger.run(self._read_holds)
        self.withdrawn |= withdrawn
        timing = LoopTiming(max(1.0, self._settings.interval_seconds), STEP_DEADLINE)
        for worker in range(WORKERS):
            supervisor.loop(f"copy {worker}", self._work, timing)

    def wake(self, supervisor: Supervisor) -> None:
        """There may be new publications."""
        for worker in range(WORKERS):
            supervisor.wake(f"copy {worker}")

    def rescan(self, supervisor: Supervisor) -> None:
        """A stored object was lost: read all publications again."""
        self._read, self._whole = {}, set()
        self.wake(supervisor)

    @property
    def held(self) -> int:
        """Artifacts with a logged hold of which no file is known to be missing."""
        return len(self.holds) - len(self._damaged)

    @property
    def lacking(self) -> int:
        """Wanted artifacts that are not complete."""
        return len(self._copies)

    @property
    def not_listed(self) -> int:
        """Published artifacts that the settings do not name; counted up to `MAX_NOT_LISTED`."""
        return len(self._not_listed)

    def wanted(self) -> list[Digest]:
        """The artifacts that are held, or wanted and incomplete."""
        return [*self.holds, *(copy.artifact for copy in self._copies.incomplete() if copy.artifact not in self.holds)]

    def incomplete(self, most: int) -> list[LackingArtifact]:
        """Wanted artifacts that are not complete, with the reasons: those that failed most often first."""
        copies = heapq.nlargest(most, self._copies.incomplete(), key=lambda copy: copy.failures)
        return [self._lacking(copy) for copy in copies]

    def _lacking(self, copy: Copy) -> LackingArtifact:
        failure, rest = copy.failure, max(0.0, copy.resting_until - self._now()) if copy.resting_until else 0.0
        why, code = (str(failure), failure.code) if failure else ("", "")
        return LackingArtifact(copy.artifact, copy.name, self._copies.state(copy), why, code, round(rest))

    @property
    def queue_use(self) -> QueueUse:
        """The member with most artifacts in the queue. Those that do not fit wait in the logs: they are not counted as
        wanted here until they are read."""
        return self._copies.fullest

    @property
    def left_out(self) -> bool:
        """Whether wanted artifacts wait in the logs, because the queue was full when they were read."""
        return bool(self._copies.left_out)

    def _measure(self) -> None:
        use = self.queue_use
        self._metrics.replica_short.set(len(self._copies))
        self._metrics.replica_queue.set(use.used / use.most)
        if use.nearly_full and not self._warned:
            _log.warning("copies of one member fill its part of the queue", used=use.used, most=use.most)
        self._warned = use.nearly_full

    async def _work(self) -> None:
        """Copy due artifacts, one after the other, until all publications are read and no artifact is due."""
        while True:
            behind = await self._scan()
            if (job := self._copies.next(self._now())) is not None:
                await self._run_job(job)
                self._measure()
            elif not behind:
                return

    async def _run_job(self, job: Job) -> None:
        """One turn of an artifact, or more while no other path needs the worker."""
        copy = job.copy
        try:
            async with asyncio.timeout(None) as turn:
                with self._watch_turn(job, turn):
                    await self._copy(copy)
        except (ComityError, TimeoutError) as error:
            if turn.expired():
                self._copies.preempted(job, self._now())
                _log.info("copy preempted", name=copy.name, artifact=copy.artifact)
                return
            failure = error if isinstance(error, ComityError) else Unavailable("the copy timed out", code="PATIENCE")
            rest = self._copies.failed(job, self._now(), failure)
            _log.warning("not copied yet", name=copy.name, artifact=copy.artifact, why=str(error), rest=rest)
        except BaseException:
            self._copies.preempted(job, self._now())
            raise
        else:
            self._copies.done(job, self._now())
            self._damaged.discard(copy.artifact)

    @contextmanager
    def _watch_turn(self, job: Job, turn: asyncio.Timeout) -> Iterator[None]:
        """At the end of each turn inside the block, end the job if another path needs the worker."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None

        def check() -> None:
            nonlocal timer
            if self._copies.should_yield(job):
                turn.reschedule(loop.time())
            else:
                timer = loop.call_later(job.seconds, check)

        timer = loop.call_later(job.seconds, check)
        try:
            yield
        finally:
            timer.cancel()

    async def _scan(self) -> bool:
        """Read new publications and queue the wanted ones: at most one page of each log, so that a log with many
        delays neither the copies of others nor their queueing. Returns whether there are more."""
        async with self._scan_lock:
            self._reread_left_out()
            read, behind, proven = self._read, False, self._ledger.tables.proven
            last = await self._ledger.run(proven.last_number)
            for state in await self._ledger.run(self._ledger.tables.logs.all):
                log = state.vkey
                if read.get(log, 0) >= last:
                    continue
                page = await self._ledger.run(proven.since, read.get(log, 0), PREDICATES, PAGE, log)
                for line in page:
                    await self._queue_if_wanted(line)
                whole = len(page) < PAGE
                read[log] = max([last, *(line.number for line in page[-1:])]) if whole else page[-1].number
                behind = behind or not whole
            self._measure()
            return behind or self._read is not read

    def _reread_left_out(self) -> None:
        """Read publications again for members whose claims did not fit, when their queue is empty: from the first of
        these claims on."""
        left_out, now = self._copies.left_out, self._now()
        free = {member for member in left_out if not self._copies.waiting(member)}
        if free and now >= self._reread_at:
            self._reread_at = now + REREAD_SECONDS
            first = {member: left_out.pop(member) for member in free}
            self._read = {
                log: min(read, first.get(self._member_of(log), read + 1) - 1) for log, read in self._read.items()
            }

    def _member_of(self, log: str) -> Digest | str:
        """The member whose log it is; the log itself if no member writes it."""
        membership = self._membership
        if log == self._membership.seat.log:
            return membership.seat.inception.id
        return next((peer.member.id for peer in membership.peers if str(peer.record.log) == log), log)

    async def _queue_if_wanted(self, line: ProvenLine) -> None:
        published = _parse_publication(parse_entry(line.line))
        if isinstance(published, Observed) and published.by not in self._membership.node_ids:
            return  # no charter lists this node
        ours = line.vkey == self._membership.seat.log
        if not (ours or self._settings.wants(_repository(published))):  # (2)
            if len(self._not_listed) < MAX_NOT_LISTED and published.artifact not in self.holds:
                self._not_listed.add(published.artifact)
            return
        if published.artifact in self.withdrawn or published.artifact in (whole := self._whole):
            return
        if published.artifact in self.holds:
            if not await self._pools.files(self._gaps, published):
                whole.add(published.artifact)
                self._damaged.discard(published.artifact)
                return
            self._damaged.add(published.artifact)
            self._on_lost()
        path = self._member_of(line.vkey), published.by
        self._copies.add(
            published.artifact, str(published.name), published.manifest, published.pieces, path, line.number
        )

    async def _copy(self, wanted: Copy) -> None:
        indexes = (*wanted.indexes, *await self._ledger.run(self._indexes_in_holds, wanted.artifact))
        failure: ComityError = Unavailable("no piece index", why=short(wanted.artifact))
        for pieces in dict.fromkeys(indexes):
            try:
                await self._copy_by(wanted, pieces)
            except Untrusted as error:
                failure = error
                continue
            await self._log_hold(wanted, pieces)
            return
        raise failure

    async def _copy_by(self, wanted: Copy, pieces: SideObject) -> None:
        """Fetch what is missing, by one piece index. Raises Untrusted if the index does not match the files."""
        await self._files.require_objects((wanted.manifest, pieces))
        manifest, index = await self._pools.files(read_artifact, self._store, wanted.manifest, pieces)  # (3)
        missing = await self._pools.files(missing_files, self._store, manifest)
        layouts = dict(index.files)
        await self._files.fetch([(want, layouts[want.path]) for want in missing], name=wanted.name)  # (4)
        await self._remember_pieces(manifest, index)

    async def _remember_pieces(self, manifest: Manifest, index: PieceIndex) -> None:
        """Store the piece records of every file in this layout, also of files stored before."""
        for entry, (_, layout) in zip(manifest.files, index.files, strict=True):
            await self._files.require_records(Want(entry.sha256, entry.size, entry.path), layout)

    async def _log_hold(self, wanted: Copy, pieces: SideObject) -> None:
        artifact = wanted.artifact
        if artifact not in self.holds and artifact not in self.withdrawn:
            label = await self._ledger.run(self._hold_label, artifact)
            entry = sign_hold(self._signer.record, artifact, wanted.manifest, pieces, self._signer.online, label)
            index = await self._own_log.append(entry.line)  # (5)
            self.holds.add(artifact)
            _log.info("hold logged", name=wanted.name, artifact=artifact, index=index)

    def _hold_label(self, artifact: Digest) -> str:
        """The label of a hold after a withdrawal: a log has no statement twice, so the hold must differ. Blocking."""
        query = EntryQuery(artifact, HOLD_WITHDRAWN, self._signer.record.node.id, self._membership.seat.log)
        last = max((found.index for found in iterate_entries(self._ledger.tables, query)), default=None)
        return "" if last is None else f"held again after entry {last}"

    def _gaps(self, published: Published | Observed) -> bool:
        """Whether a file of an artifact with a logged hold is missing."""
        try:
            manifest, _ = read_artifact(self._store, published.manifest, published.pieces)
            return bool(missing_files(self._store, manifest))
        except ComityError:
            return True  # the manifest or piece index is missing or damaged

    def _read_holds(self) -> tuple[set[Digest], set[Digest]]:
        """Artifacts for which this node has logged a hold that stands, and those whose hold it withdrew later."""
        last: dict[Digest, tuple[int, bool]] = {}
        for predicate in (HOLD, HOLD_WITHDRAWN):
            query = EntryQuery(predicate=predicate, by=self._signer.record.node.id, origin=self._membership.seat.log)
            for found in iterate_entries(self._ledger.tables, query):
                artifact = parse_entry(found.line).statement.subject
                last[artifact] = max(last.get(artifact, (-1, False)), (found.index, predicate == HOLD))
        held = {artifact for artifact, (_, stands) in last.items() if stands}
        return held, last.keys() - held

    def _indexes_in_holds(self, artifact: Digest) -> list[SideObject]:
        """Piece indexes in the holds of other nodes, alternating between logs."""
        named: list[SideObject] = []
        for found in self._ledger.tables.proven.about(artifact, (HOLD,), MAX_HOLDS).found:
            statement = parse_entry(found.line).statement
            hold = parse_hold(statement)
            named.extend(item for item in statement.objects if item.digest == hold.pieces)
        return named

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _parse_publication(entry: Entry) -> Published | Observed:
    statement = entry.statement
    return Observed.parse(statement) if statement.predicate == OBSERVED else Published.parse(statement)


def _repository(published: Published | Observed) -> str:
    return str(published.name).rpartition("@")[0]
