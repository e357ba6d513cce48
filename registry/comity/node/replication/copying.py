"""Which artifact is copied next: a state machine without I/O or clock; seconds are arguments.

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
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from comity.node.replication.fair_queue import FairQueue, Path
from comity.trust.digest import Digest
from comity.trust.statement import SideObject

WORKERS: Final = 6
OF_A_MEMBER: Final = 3
OF_A_PUBLISHER: Final = 2
TURN: Final = 60.0
"""Seconds of a copy's first turn."""
MAX_DOUBLINGS: Final = 12
MOST: Final = 16_384
MAX_PATHS: Final = 16
MAX_INDEXES: Final = 8
"""Piece indexes that are tried for one artifact."""
FIRST_REST: Final = 2.0
LONGEST_REST: Final = 600.0


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
        return TURN * 2.0 ** min(self.copy.turns, MAX_DOUBLINGS)


class Copying:
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
        self._queue.charge(job.path, (now - job.begun) // TURN)

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
