"""Which artifact is copied next: `CopyQueue`, a state machine without I/O or clock; seconds are arguments.

(1) an artifact waits under each member in whose log it is claimed and its publisher there; members take turns, and so
    do the publishers in a member's logs. A claim about another's artifact takes nothing from either
(2) a member uses at most half of the workers, and one publisher one fewer, so that slow sources leave workers free
(3) a copy that has used its turn yields to a member or publisher that has fewer workers; its next turn is twice as
    long. Its time is charged
(4) a failed copy pauses, longer each time

    grows with                         bound       charged to                         at the bound
    artifacts that wait or pause       MAX_QUEUED  the member whose log claims them   dropped, read again later
    members that claim one artifact    MAX_PATHS   the artifact                       later ones add no turns
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from comity.ledger.copy_tables import OwnCopy
from comity.node.replication.fair_queue import FairQueue, Path
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen
from comity.trust.statement import SideObject
from comity.wire.node_status import LackingState

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
MAX_REST_SECONDS: Final = 600.0


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
    rule: str | None = None
    """The mirror rule that copies it, empty for the default; None for what counts for no rule."""
    own: OwnCopy | None = None
    """What this node claims about it."""
    failures: int = 0
    turns: int = 0
    resting_until: float = 0.0
    failure: ComityError | None = None
    paths: dict[Path, None] = field(default_factory=dict)
    queued_under: set[Path] = field(default_factory=set)

    @property
    def members(self) -> Collection[str]:
        """The members in whose logs it is claimed; a log that no member writes stands for itself."""
        return {str(path[0]) for path in self.paths}

    @property
    def stands(self) -> bool:
        """Whether this node has logged a hold of it: it lost a file, or its copy is about to leave the queue."""
        return self.own is not None and self.own.stands

    @property
    def complete(self) -> bool:
        """Whether a hold of it is logged and no file is known to be missing: it is about to leave the queue."""
        return self.own is not None and self.own.stands and not self.own.damaged


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


@frozen
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
        self._standing = 0
        self._resting: list[tuple[float, Digest]] = []
        self._jobs: dict[Digest, Job] = {}
        self._busy, self._busy_from = 0.0, 0.0
        """Seconds with a running job, before the time from which there is one now."""
        self.left_out: dict[object, int] = {}

    def __len__(self) -> int:
        return len(self._copies)

    def __contains__(self, artifact: Digest) -> bool:
        return artifact in self._copies

    @property
    def without_hold(self) -> int:
        """How many of them this node does not claim to hold."""
        return len(self._copies) - self._standing

    def incomplete(self) -> Iterator[Copy]:
        """The first `MAX_QUEUED` of them, in the order in which they were queued."""
        return itertools.islice((copy for copy in self._copies.values() if not copy.complete), MAX_QUEUED)

    def leaving(self) -> Iterator[Copy]:
        """Those that are complete, and about to leave the queue."""
        return (copy for copy in self._copies.values() if copy.complete)

    def state(self, copy: Copy) -> LackingState:
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

    def add(self, claimed: Copy, pieces: SideObject, path: Path) -> None:
        """Queue an artifact claimed with these piece records under `path`: the member whose log has the claim, and the
        publisher. One that is queued already gets the records and the path, and counts for no rule if this one does."""
        copy = self._copies.get(claimed.artifact)
        if copy is None:
            if self._count_by_source[claimed.source] >= self._max_queued:
                self._leave_out(claimed.source, claimed.number)
                return
            copy = self._copies[claimed.artifact] = claimed
            self._count_by_source[copy.source] += 1
            self._standing += copy.stands
        elif claimed.rule is None:
            copy.rule = None
        if len(copy.indexes) < MAX_INDEXES:
            copy.indexes.setdefault(pieces)
        if path not in copy.paths and len(copy.paths) < MAX_PATHS:
            copy.paths[path] = None
            if copy.artifact not in self._jobs and not copy.resting_until:
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
            if not self._jobs:
                self._busy_from = now
            job = self._jobs[artifact] = Job(copy, path, now)
            return job
        return None

    def busy_seconds(self, now: float) -> float:
        """Seconds in which some job ran, since this queue was made."""
        return self._busy + (now - self._busy_from if self._jobs else 0.0)

    def retry(self, artifacts: Collection[Digest]) -> None:
        """End the pauses of these artifacts."""
        self._resting = [item for item in self._resting if item[1] not in artifacts]
        heapq.heapify(self._resting)
        for artifact in artifacts:
            copy = self._copies.get(artifact)
            if copy is not None and copy.resting_until:
                copy.resting_until = 0.0
                self._enqueue_all(copy)

    def claims_changed(self, copies: Iterable[OwnCopy]) -> None:
        """This node claims something else about these artifacts than before."""
        for own in copies:
            if (copy := self._copies.get(own.artifact)) is not None:
                self._standing -= copy.stands
                copy.own = own
                self._standing += copy.stands

    def should_yield(self, job: Job) -> bool:
        """Whether a worker is needed more by another path, after a turn."""
        member, publisher = self._used(job.path[:1]), self._used(job.path)
        full = len(self._jobs) >= WORKERS

        def more_deserving(path: Path) -> bool:
            if path[0] == job.path[0]:
                return (full or member >= WORKERS_PER_MEMBER) and (len(path) == 1 or self._used(path) < publisher)
            return full and self._used(path[:1]) < member

        return self._queue.has_waiting(more_deserving)

    def done(self, job: Job, now: float, failure: ComityError | None = None) -> None:
        """The artifact is complete, or waits outside the queue because of `failure`."""
        self._end(job, now)
        job.copy.failure = failure.without_traceback() if failure is not None else None
        self._remove(job.copy)

    def failed(self, job: Job, now: float, failure: ComityError | None = None) -> float:
        """The job failed. Returns the seconds until it is tried again."""
        self._end(job, now)
        copy = job.copy
        copy.failure = failure.without_traceback() if failure is not None else None  # its frames have the manifest
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
        if not self._jobs:
            self._busy += now - self._busy_from
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
            self._remove(displaced_copy)

    def _remove(self, copy: Copy) -> None:
        del self._copies[copy.artifact]
        self._count_by_source[copy.source] -= 1
        self._standing -= copy.stands

    def _leave_out(self, member: object, number: int) -> None:
        self.left_out[member] = min(self.left_out.get(member, number), number)

    def _may_start(self, path: Path) -> bool:
        return self._used(path) < (WORKERS_PER_MEMBER if len(path) == 1 else WORKERS_PER_PUBLISHER)

    def _used(self, path: Path) -> int:
        return sum(job.path[: len(path)] == path for job in self._jobs.values())
