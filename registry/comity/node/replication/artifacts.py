"""Who brings a log on: one member at a time, claimed without a wait, and for no longer than its rate is worth.

(1) a turn that has lasted is ended for a member that was never tried with this log, or brought it on more than twice as
    fast; one that has lasted four times as long, for any other
(2) who was put off rests for a turn, so that the other one gets in; who failed rests longer each time
(3) as long as nothing of the log is kept, its turns grow, so that what is slow but honest gets to the end of a step

The nodes of a member count as one: who runs many of them gets no more turns. Nothing here does I/O or reads a clock.


Which artifact is copied next: a state machine without I/O or clock; seconds are arguments.

(1) an artifact waits under each member in whose log it is claimed, and its publisher there: members take turns, and the
    publishers in a member's logs. Who claims what another one published takes nothing from either
(2) of the workers a member has half at most, and one publisher of it fewer, whoever else waits: what is slow leaves
    workers to everybody else
(3) a copy that has lasted a turn gives way to a member or publisher that has fewer workers and gets none; its next turn
    is twice as long, so that it comes to an end. Its time is charged
(4) what failed rests, longer each time

    grows with                         bound      charged to                         at the bound
    artifacts that wait or rest        MOST       the member whose log claims them   left out, read again later
    members that claim one artifact    MAX_PATHS  the artifact                       later ones bring no more turns


Copies of artifacts: which are wanted here, which are whole, and the `hold` that says so in the own log.

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
import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from comity.ledger.intake import HOLD
from comity.ledger.log_store import EntryQuery
from comity.ledger.proven import ProvenLine
from comity.node.context import NodeContext
from comity.node.own_log import OwnLog, every
from comity.node.replication.fair_queue import FairQueue, Path
from comity.node.replication.files import FileFetcher
from comity.node.supervisor import Rhythm, Supervisor
from comity.node.uploads import Want, missing_files, read_artifact
from comity.trust.artifact import Manifest, PieceIndex
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, Unavailable, Untrusted
from comity.trust.statement import Entry, SideObject, parse_entry
from comity.trust.statements import Published, parse_hold, sign_hold
from comity.trust.upstream import OBSERVED, Observed

TURN_SECONDS: Final = 20.0
"""Seconds of a log's first turn."""
LONGEST_TURN: Final = 1_200.0
LAST: Final = 4
"""Turns' lengths after which any member may take over."""
LONGEST_REST: Final = 600.0
MAX_KNOWN: Final = 16_384
"""Pairs of a member and a log that are remembered; what was longest not tried is forgotten first."""


@dataclass(slots=True, eq=False)
class LogTurn:
    """A member at work on a log. `received` counts bytes as they come; `end` is called if another one is to go on."""

    log: str
    member: Digest
    since: float
    received: int = 0
    put_off: bool = False
    end: Callable[[], None] = field(default=lambda: None)

    def rate(self, now: float) -> float:
        return self.received / max(now - self.since, 1e-6)


@dataclass(slots=True)
class _LogProgress:
    """What is known of a member as a source of one log."""

    failures: int = 0
    rests_until: float = 0.0
    rate: float | None = None


class LogTurns:
    """The turns of all logs.

    Args:
        interval: seconds of the first rest after a failure.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._turns: dict[str, LogTurn] = {}
        self._lengths: dict[str, float] = {}
        self._known: dict[tuple[Digest, str], _LogProgress] = {}

    def begin(self, log: str, member: Digest, now: float) -> LogTurn | None:
        """The member's turn with a log; None while it rests, or a node is at it. It may be that one's last moment: then
        this member's nodes ask again."""
        known = self._known.get((member, log))
        if known is not None and now < known.rests_until:
            return None
        holder = self._turns.get(log)
        if holder is None:
            turn = self._turns[log] = LogTurn(log, member, now)
            return turn
        if holder.member != member and not holder.put_off and self._gives_way(holder, known, now):
            holder.put_off = True
            holder.end()
        return None

    def kept(self, turn: LogTurn) -> None:
        """A step is kept: the log's turns are short again."""
        self._lengths.pop(turn.log, None)

    def over(self, turn: LogTurn, now: float, *, failed: bool = False) -> None:
        """The turn has ended: because another one's begins, well, or because the member `failed`."""
        del self._turns[turn.log]
        known = self._known.pop((turn.member, turn.log), _LogProgress())
        self._known[turn.member, turn.log] = known
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
        known.rate = turn.rate(now)
        if turn.put_off:
            length = self._lengths[turn.log] = min(LONGEST_TURN, 2 * self._length(turn.log))
            known.rests_until = now + length
        elif failed:
            known.failures += 1
            known.rests_until = now + min(self._interval * 2 ** min(known.failures, 16), LONGEST_REST)
        else:
            known.failures = 0

    def _length(self, log: str) -> float:
        return self._lengths.get(log, TURN_SECONDS)

    def _gives_way(self, holder: LogTurn, known: _LogProgress | None, now: float) -> bool:
        lasted, length = now - holder.since, self._length(holder.log)
        if lasted < length:
            return False
        untried = known is None or known.rate is None
        return untried or lasted >= LAST * length or (known is not None and (known.rate or 0) > 2 * holder.rate(now))


WORKERS: Final = 6
OF_A_MEMBER: Final = 3
OF_A_PUBLISHER: Final = 2
COPY_SECONDS: Final = 60.0
"""Seconds of a copy's first turn."""
MAX_DOUBLINGS: Final = 12
MOST: Final = 16_384
MAX_PATHS: Final = 16
MAX_INDEXES: Final = 8
"""Piece indexes that are tried for one artifact."""
FIRST_REST: Final = 2.0


@dataclass(slots=True, eq=False)
class Copy:
    """An artifact to copy. `indexes` are the piece indexes that somebody named for it: hints, tried in turn."""

    artifact: Digest
    name: str
    manifest: SideObject
    source: object
    indexes: dict[SideObject, None] = field(default_factory=dict)
    failures: int = 0
    turns: int = 0
    rests_until: float = 0.0
    paths: dict[Path, None] = field(default_factory=dict)
    places: set[Path] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Job:
    """A copy under way, and under which path it was taken."""

    copy: Copy
    path: Path
    begun: float

    @property
    def seconds(self) -> float:
        """How long its turn is."""
        return COPY_SECONDS * 2.0 ** min(self.copy.turns, MAX_DOUBLINGS)


class CopyQueue:
    """The artifacts that are wanted here and not whole yet.

    Attributes:
        left_out: members of whose claims some found no place: their logs are to be read again.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._queue: FairQueue[Digest] = FairQueue(most)
        self._copies: dict[Digest, Copy] = {}
        self._of_source: Counter[object] = Counter()
        self._resting: list[tuple[float, Digest]] = []
        self._jobs: dict[Digest, Job] = {}
        self.left_out: set[object] = set()

    def __len__(self) -> int:
        return len(self._copies)

    def waiting(self, source: object) -> int:
        return self._queue.waiting(source)

    def want(self, artifact: Digest, name: str, manifest: SideObject, pieces: SideObject, path: Path) -> None:
        """Copy an artifact that is claimed under `path`: the member whose log says so, and the publisher."""
        copy = self._copies.get(artifact)
        if copy is None:
            if self._of_source[path[0]] >= self._most:
                self.left_out.add(path[0])
                return
            copy = self._copies[artifact] = Copy(artifact, name, manifest, path[0])
            self._of_source[copy.source] += 1
        if len(copy.indexes) < MAX_INDEXES:
            copy.indexes.setdefault(pieces)
        if path not in copy.paths and len(copy.paths) < MAX_PATHS:
            copy.paths[path] = None
            if artifact not in self._jobs and not copy.rests_until:
                self._put(copy, path)

    def next(self, now: float) -> Job | None:
        """What a free worker does now; None where nothing is due."""
        while self._resting and self._resting[0][0] <= now:
            copy = self._copies.get(heapq.heappop(self._resting)[1])
            if copy is not None:
                copy.rests_until = 0.0
                self._put_all(copy)
        while (taken := self._queue.take(self._allowed)) is not None:
            path, artifact = taken
            copy = self._copies.get(artifact)
            if copy is None or path not in copy.places:
                continue  # it was copied under another path
            copy.places.discard(path)
            if artifact in self._jobs or copy.rests_until:
                continue
            job = self._jobs[artifact] = Job(copy, path, now)
            return job
        return None

    def gives_way(self, job: Job) -> bool:
        """Whether a worker is worth more to somebody else, after a turn."""
        member, publisher = self._used(job.path[:1]), self._used(job.path)
        full = len(self._jobs) >= WORKERS

        def better(path: Path) -> bool:
            if path[0] == job.path[0]:
                return (full or member >= OF_A_MEMBER) and (len(path) == 1 or self._used(path) < publisher)
            return full and self._used(path[:1]) < member

        return self._queue.waits(better)

    def done(self, job: Job, now: float) -> None:
        self._end(job, now)
        del self._copies[job.copy.artifact]
        self._of_source[job.copy.source] -= 1

    def failed(self, job: Job, now: float) -> float:
        """It did not succeed; how long it rests."""
        self._end(job, now)
        copy = job.copy
        copy.failures += 1
        rest = min(LONGEST_REST, FIRST_REST * 2.0 ** min(copy.failures - 1, 16))
        copy.rests_until = now + rest
        heapq.heappush(self._resting, (copy.rests_until, copy.artifact))
        return rest

    def put_off(self, job: Job, now: float) -> None:
        """It has given way, and waits for its next turn."""
        self._end(job, now)
        job.copy.turns += 1
        self._put_all(job.copy)

    def _end(self, job: Job, now: float) -> None:
        del self._jobs[job.copy.artifact]
        self._queue.charge(job.path, (now - job.begun) // COPY_SECONDS)

    def _put_all(self, copy: Copy) -> None:
        for path in copy.paths:
            if path not in copy.places:
                self._put(copy, path)

    def _put(self, copy: Copy, path: Path) -> None:
        copy.places.add(path)
        out = self._queue.put(path, copy.artifact)
        if out is None:
            return
        self.left_out.add(path[0])
        lost, artifact = out
        if (loser := self._copies.get(artifact)) is None:
            return
        loser.places.discard(lost)
        if not loser.places and artifact not in self._jobs and not loser.rests_until:
            del self._copies[artifact]
            self._of_source[loser.source] -= 1

    def _allowed(self, path: Path) -> bool:
        return self._used(path) < (OF_A_MEMBER if len(path) == 1 else OF_A_PUBLISHER)

    def _used(self, path: Path) -> int:
        return sum(job.path[: len(path)] == path for job in self._jobs.values())


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

    def __init__(self, core: NodeContext, own_log: OwnLog, files: FileFetcher, lost: Callable[[], None]) -> None:
        self._core = core
        self._own_log = own_log
        self._files = files
        self._lost = lost
        self._read = 0
        """The number of the last publication that was looked at."""
        self._copying = CopyQueue()
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

    async def _consider(self, line: ProvenLine) -> None:
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
        query = EntryQuery(predicate="hold", by=self._core.seat.record.node.id, origin=self._core.log)
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
