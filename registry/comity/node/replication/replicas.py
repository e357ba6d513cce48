"""Copies of artifacts at this node: the loops that read publications, copy what is wanted, claim what is complete, and
look for the files of what is held.

What is wanted is read and decided in `wanted`; `ArtifactCopier` copies one artifact; `held_copies` claims copies, and
knows what is here.

(1) manifest and piece indexes are stored already: they are side objects of mirrored entries
(2) each file comes from any peers that have it, and is accepted if its SHA-256 is the manifest's
(3) when every file is stored, that is logged: alone, or with other copies
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import structlog

from comity.node.context import NodeContext
from comity.node.own_log import OwnLog
from comity.node.replication.artifacts import WORKERS, Copy, CopyQueue, Job, QueueUse
from comity.node.replication.copy_charges import PATIENCE, WAITS, ChargedTo, CopyCharges
from comity.node.replication.copy_limits import PACED_LIMITS, CopyPauses
from comity.node.replication.files import FileFetcher
from comity.node.replication.held_copies import CompletedCopy, HeldCopies, OwnHolds
from comity.node.replication.wanted import PublicationReader, WantedArtifacts
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.uploads import Want, missing_files, read_artifact
from comity.trust.copies import hold_of
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, Malformed, NotFound, OutOfSpace, Unavailable, Untrusted
from comity.trust.statement import SideObject, parse_entry
from comity.trust.statement_kinds import HOLD_PREDICATES
from comity.wire.node_status import LackingArtifact, MemberCopies

MAX_HOLDS: Final = 256
"""Holds of one artifact whose piece indexes are tried."""
STEP_DEADLINE: Final = 7 * 86_400.0
CHECK_SECONDS: Final = 5.0
"""Seconds between two pages of held artifacts whose files are looked for."""
PAUSE_SECONDS: Final = 5.0
"""Seconds between two looks at the disk and the hour."""
AGE_SECONDS: Final = 60.0
"""Seconds between two looks for artifacts that are old enough for a rule."""
NO_RECORDS: Final = "NO-RECORDS"
HELD_FILES: Final = "held files"
OWN_HOLDS: Final = "own holds"
HOLD_INTERVALS: Final = 6
"""Intervals for which a claim of a copy may wait for others."""

_log: Final = structlog.get_logger("comity.node.artifacts")


class ArtifactCopier:
    """Copies artifacts. Not thread-safe: call from the event loop.

    Args:
        charge: to what a copy is charged.
    """

    def __init__(
        self,
        context: NodeContext,
        files: FileFetcher,
        held: HeldCopies,
        own_holds: OwnHolds,
        charges: CopyCharges,
        pauses: CopyPauses,
        charge: Callable[[Copy], Awaitable[ChargedTo | None]],
    ) -> None:
        self._ledger = context.ledger
        self._store = context.store
        self._pools = context.pools
        self._files = files
        self._held = held
        self._own_holds = own_holds
        self._charges = charges
        self._pauses = pauses
        self._charge = charge
        self._membership = context.membership

    async def complete(self, wanted: Copy) -> None:
        """Copy an artifact. Repeats it if an object was lost meanwhile: the round that a loss begins leaves out the
        artifacts in the queue."""
        losses = -1
        while losses != self._held.losses:
            losses = self._held.losses
            await self._copy(wanted)
            await self._held.set_damaged(wanted.artifact, damaged=False)

    async def _copy(self, wanted: Copy) -> None:
        in_holds = await self._ledger.run(self._indexes_in_holds, wanted.artifact)
        indexes = deque(dict.fromkeys((*wanted.indexes, *in_holds)))
        # Each try begins with another one: a node may serve records for a false index, and then no bytes for ever.
        indexes.rotate(-wanted.failures)
        failure: ComityError = Unavailable("no piece index", why=short(wanted.artifact))
        for pieces in indexes:
            try:
                await self._copy_by(wanted, pieces)
            except ComityError as error:
                if not isinstance(error, Untrusted | Malformed) and error.code != NO_RECORDS:
                    raise
                failure = error
                continue
            await self._own_holds.add(CompletedCopy(wanted.artifact, wanted.name, wanted.manifest, pieces))  # (3)
            return
        raise failure

    async def _copy_by(self, wanted: Copy, pieces: SideObject) -> None:
        """Fetch what is missing, by one piece index. Raises Untrusted, Malformed, and NotFound (NO-RECORDS) if that is
        of no use: anybody may name an index for any artifact."""
        await self._files.require_objects((wanted.manifest,))
        try:
            await self._files.require_objects((pieces,))
        except (ComityError, TimeoutError) as error:
            why = f"{short(pieces.digest)}: {error}"
            raise NotFound("no piece index", why=why, code="NO-RECORDS") from error
        manifest, index = await self._pools.files(read_artifact, self._store, wanted.manifest, pieces)  # (1)
        missing = await self._pools.files(missing_files, self._store, manifest)
        layouts = dict(index.files)
        files, pace = [(want, layouts[want.path]) for want in missing], self._pauses.pace
        patience = PATIENCE if pace is None else PACED_LIMITS.patience
        charge = await self._charge(wanted)
        async with self._charges.admitted(
            wanted.artifact, charge, wanted.name, manifest, missing, patience
        ) as received:
            await self._files.fetch(files, name=wanted.name, pace=pace, received=received)  # (2)
            await self._files.require_records(manifest, index)  # also of files that were stored before

    def _indexes_in_holds(self, artifact: Digest) -> list[SideObject]:
        """Piece indexes in the holds of other nodes, those of members first, alternating between logs."""
        precedence = self._membership.precedence
        found = self._ledger.tables.proven.about(artifact, HOLD_PREDICATES, MAX_HOLDS, precedence).found
        holds = (hold_of(parse_entry(line.line).statement, artifact) for line in found)
        return [hold.pieces for hold in holds if hold is not None]


class Replicas:
    """Follows publications and copies wanted artifacts. Not thread-safe: call from the event loop.

    Args:
        on_lost: called when a part of a held artifact is missing.
    """

    def __init__(
        self,
        context: NodeContext,
        own_log: OwnLog,
        files: FileFetcher,
        wanted: WantedArtifacts,
        charges: CopyCharges,
        pauses: CopyPauses,
        on_lost: Callable[[], None],
    ) -> None:
        self._ledger = context.ledger
        self._ages = wanted.ages
        self.pins = wanted.pins
        self._charges = charges
        self._pauses = pauses
        self._store = context.store
        self._metrics = context.metrics
        settings = self._settings = wanted.settings
        self._on_lost = on_lost
        self._warned = False
        self._wake_loop: Callable[[str], None] = lambda name: None
        """Runs a loop now; before `begin` there is none."""
        self._copies = CopyQueue()
        self._completions: list[dict[Digest, Copy]] = []
        self._loaded = asyncio.Event()
        self._held = HeldCopies(
            context.ledger, context.store, context.pools, context.membership, self._now, self._copies.claims_changed
        )
        wait = HOLD_INTERVALS * settings.interval_seconds
        own_holds = OwnHolds(context.ledger, own_log, self._held, settings.hold_batch, wait, self._now)
        self._own_holds = own_holds
        self._publications = PublicationReader(context, wanted, charges, self._held, self._copies, own_holds, self._now)
        self._copier = ArtifactCopier(
            context,
            files,
            self._held,
            own_holds,
            charges,
            pauses,
            self._publications.charge,
        )

    async def load(self) -> None:
        """Go on from what the ledger keeps."""
        await self._held.open()
        await self._ages.load()
        await self._charges.load(self._publications.basis)
        await self._publications.load()
        self._loaded.set()

    async def begin(self, supervisor: Supervisor) -> None:
        self._wake_loop = supervisor.wake
        await self.load()
        await self._pauses.look()
        timing = LoopTiming(max(1.0, self._settings.interval_seconds), STEP_DEADLINE)
        supervisor.loop(OWN_HOLDS, self._claim_copies, timing)
        for worker in range(WORKERS):
            supervisor.loop(f"copy {worker}", self._work, timing)
        supervisor.loop("copy pauses", self._look_for_pauses, LoopTiming(PAUSE_SECONDS, 60.0))
        supervisor.loop("aged copies", self._publications.queue_due, LoopTiming(AGE_SECONDS, STEP_DEADLINE))
        supervisor.loop(HELD_FILES, self.check_held, LoopTiming(CHECK_SECONDS, STEP_DEADLINE))

    def wake(self) -> None:
        """There may be new publications."""
        for worker in range(WORKERS):
            self._wake_loop(f"copy {worker}")

    def rescan(self) -> None:
        """Other publications may count now: read all again."""
        self._publications.read_all_again()
        self.wake()

    def check_again(self) -> None:
        """A stored object was lost: look for the files of all held artifacts now."""
        self._held.check_all()
        self._wake_loop(HELD_FILES)

    async def want_again(self, artifact: Digest) -> None:
        """The operator took back the withdrawal of an artifact: copy it again."""
        self._held.take_back(artifact)
        await self._publications.queue([artifact])

    async def reconsider(self, artifacts: Collection[Digest]) -> None:
        """Queue those of these artifacts that are wanted now and not here: others may be wanted than before. Waits for
        `load`: a node answers its operator before that."""
        await self._loaded.wait()
        absent = await self.absent(artifacts)
        await self._publications.queue([item for item in artifacts if item in absent and item not in self._copies])

    async def absent(self, artifacts: Collection[Digest]) -> set[Digest]:
        """Those of these artifacts of which this node claims no copy."""
        copies = await self._held.copies(artifacts)
        return {item for item in artifacts if not (item in copies and copies[item].stands)}

    async def whole(self, artifacts: Collection[Digest]) -> set[Digest]:
        """Those of these artifacts that this node holds, of which no file is known to be missing."""
        copies = await self._held.copies(artifacts)
        return {item for item, copy in copies.items() if copy.stands and not copy.damaged}

    async def own_claims_logged(self) -> None:
        """A hold of this node, or a withdrawal, was logged."""
        await self._held.read_new()
        await self._charges.withdrawn(self._held.take_withdrawn())

    async def has_withdrawn(self, artifact: Digest) -> bool:
        """Whether this node withdrew its copy, or is about to: it is not copied again until the operator says so."""
        return artifact in await self._held.withdrawn([artifact])

    def begin_withdrawal(self, artifact: Digest) -> None:
        """A copy is about to be withdrawn."""
        self._held.begin_withdrawal(artifact)

    def end_withdrawal(self, artifact: Digest) -> None:
        """The copy was withdrawn, or is kept."""
        self._held.end_withdrawal(artifact)

    @property
    def standing(self) -> int:
        """Artifacts with a logged hold that was not withdrawn."""
        return self._held.standing

    @property
    def held(self) -> int:
        """Artifacts with a logged hold of which no file is known to be missing."""
        return self._held.complete

    @property
    def lacking(self) -> int:
        """Wanted artifacts that are not complete: those without a hold, and those held that lost a file. None of them
        is counted in `held` at the same moment."""
        return self._copies.without_hold + self._held.damaged + self._charges.waiting

    @property
    def not_listed(self) -> int:
        """Published artifacts that the settings do not name; counted up to a bound."""
        return self._publications.not_listed

    async def standing_page(self, after: Digest | None, most: int) -> list[Digest]:
        """Artifacts with a logged hold, after `after`, in their order."""
        return await self._ledger.run(self._ledger.tables.replicas.standing, after, most)

    async def without_hold(self) -> list[Digest]:
        """The wanted artifacts that are incomplete, without those of which this node has logged a hold."""
        wanted = [copy.artifact for copy in self._copies.incomplete()]
        copies = await self._held.copies(wanted)
        return [artifact for artifact in wanted if artifact not in copies or not copies[artifact].stands]

    async def incomplete_copies(self) -> list[Copy]:
        """Read all new publications. Returns the wanted artifacts that are not complete. Waits for `load`: a node
        answers its operator before that, and would say that nothing is left to copy."""
        await self._loaded.wait()
        while await self._publications.read_page():
            pass
        self._measure()
        return list(self._copies.incomplete())

    @contextmanager
    def completed(self) -> Iterator[Mapping[Digest, Copy]]:
        """The copies that are completed inside the block, as they are; after it, those too that were about to leave
        the queue at its end, which are among the incomplete ones no more."""
        completed: dict[Digest, Copy] = {}
        self._completions.append(completed)
        try:
            yield completed
        finally:
            self._completions = [other for other in self._completions if other is not completed]
            completed.update((copy.artifact, copy) for copy in self._copies.leaving())

    def missing_files(self, copy: Copy) -> list[Want]:
        """The missing files of an artifact whose manifest is stored; none if it is not. Blocking."""
        try:
            manifest, _ = read_artifact(self._store, copy.manifest, next(iter(copy.indexes)))
        except ComityError:
            return []
        return missing_files(self._store, manifest)

    def retry(self, artifacts: Collection[Digest]) -> None:
        """There is a new source of these artifacts: try them again now."""
        self._copies.retry(artifacts)
        self.wake()

    def incomplete(self, most: int) -> list[LackingArtifact]:
        """Wanted artifacts that are not complete, with the reasons: those that failed most often first."""
        copies = heapq.nlargest(most, self._copies.incomplete(), key=lambda copy: copy.failures)
        return [self._lacking(copy) for copy in copies]

    async def incomplete_examples(self, most: int) -> list[LackingArtifact]:
        """The same, and those that wait for room in a quota, which are no longer in the queue."""
        waiting = await self._charges.examples(most)
        return [*self.incomplete(most), *waiting][:most]

    def _lacking(self, copy: Copy) -> LackingArtifact:
        failure, rest = copy.failure, max(0.0, copy.resting_until - self._now()) if copy.resting_until else 0.0
        state = self._copies.state(copy)
        why, code = (str(failure), failure.code) if failure else ("", "")
        if state == "waits" and self._pauses.why:
            why, code = self._pauses.why, ""
        return LackingArtifact(copy.artifact, copy.name, state, why, code, round(rest))

    async def member_copies(self) -> list[MemberCopies]:
        """How the copies of each member use the disk, the largest user first."""
        return await self._charges.member_copies()

    @property
    def queue_use(self) -> QueueUse:
        """The member with most artifacts in the queue. Those that do not fit wait in the logs: they are not counted as
        wanted here until they are read."""
        return self._copies.fullest

    @property
    def copying_seconds(self) -> float:
        """Seconds in which this node was copying artifacts, since it started."""
        return self._copies.busy_seconds(self._now())

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
            behind = await self._publications.read_page()
            self._measure()
            if not behind:
                await self._charges.count_done(self._publications.basis)
            await self._publications.queue(await self._charges.take_fitting())
            ready = self._charges.ready and not self._pauses.why
            if ready and (job := self._copies.next(self._now())) is not None:
                await self._run_job(job)
                self._measure()
            elif not behind:
                return

    async def _run_job(self, job: Job) -> None:
        """One turn of an artifact, or more while no other path needs the worker."""
        copy = job.copy
        try:
            async with asyncio.timeout(None) as turn:
                with self._watch_turn(job, turn), self._pauses.running(turn):
                    await self._copier.complete(copy)
        except (ComityError, TimeoutError) as error:
            if turn.expired():
                self._copies.preempted(job, self._now())
                _log.info("copy preempted", name=copy.name, artifact=copy.artifact)
                return
            if isinstance(error, ComityError) and error.code in WAITS:
                self._copies.done(job, self._now(), error)
                _log.info("copy waits for room", name=copy.name, artifact=copy.artifact, why=error.why)
                return
            failure = error if isinstance(error, ComityError) else Unavailable("the copy timed out", code="PATIENCE")
            rest = self._copies.failed(job, self._now(), failure)
            _log.warning("not copied yet", name=copy.name, artifact=copy.artifact, why=str(error), rest=rest)
        except Exception:  # it rests as after any failure, so that it does not take every turn of the workers
            self._copies.failed(job, self._now())
            raise
        except BaseException:
            self._copies.preempted(job, self._now())
            raise
        else:
            self._copies.done(job, self._now())
            for completed in self._completions:
                completed[copy.artifact] = copy

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

    async def _look_for_pauses(self) -> None:
        freed = await self._charges.look()
        self._metrics.set_copy_space(self._charges.spaces())
        if await self._pauses.look() or freed:
            full = {copy.artifact for copy in self._copies.incomplete() if isinstance(copy.failure, OutOfSpace)}
            self.retry(full)

    async def claim_waiting(self) -> None:
        """Log the claims of complete copies that wait for others."""
        await self._own_holds.log_waiting()

    async def _claim_copies(self) -> None:
        await self._own_holds.log_due()
        await self._publications.queue(self._own_holds.take_lost())

    async def check_held(self) -> None:
        """Look for the files of held artifacts, and queue those that lost some. Pauses after each page, unless a blob
        was found to be lost."""
        while True:
            missing, more = await self._held.check_page()
            for artifact in missing:
                if artifact not in self._copies:
                    await self._held.set_damaged(artifact, damaged=True)
                    self._on_lost()
                    await self._publications.queue([artifact])
            if not (more and self._held.hurries):
                return

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
