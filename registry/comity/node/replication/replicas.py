"""Copies of artifacts, and the `hold` statements about them.

(1) a proven `published` statement in any stored log is followed, and what a node of the federation `observed`
(2) the operator's patterns or rules decide whether it is wanted; artifacts published at this node always are
(3) manifest and piece indexes are stored already: they are side objects of mirrored entries
(4) each file comes from any peers that have it, and is accepted if its SHA-256 is the manifest's
(5) when every file is stored, that is logged: alone, or with other copies (`own_holds`)
(6) the ledger keeps up to where publications are read, and which wanted artifacts are incomplete: a start goes on from
    there (`comity.ledger.kept_state`)
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import structlog

from comity.content.blobs import BlobStore
from comity.ledger.proven import ProvenLine
from comity.ledger.replica_table import PUBLICATIONS
from comity.node.keys import NodeSigner
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.own_log import OwnLog
from comity.node.replication.artifacts import WORKERS, Copy, CopyQueue, Job, QueueUse
from comity.node.replication.copy_pauses import CopyPauses
from comity.node.replication.files import FileFetcher
from comity.node.replication.held_copies import HeldCopies
from comity.node.replication.own_holds import CompletedCopy, OwnHolds
from comity.node.replication.rule_quotas import QUOTA, RuleQuotas
from comity.node.replication.statement_ages import StatementAges
from comity.node.replication.wanted import WantedArtifacts
from comity.node.settings.sections import Replication
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Pools
from comity.node.uploads import Want, missing_files, read_artifact
from comity.trust.artifact import Manifest, PieceIndex
from comity.trust.encoding import Digest, Json, canonical, sha256, short
from comity.trust.errors import ComityError, OutOfSpace, Unavailable, Untrusted
from comity.trust.holds import HOLD_PREDICATES, hold_of
from comity.trust.mirror_rules import MirrorDecision
from comity.trust.statement import Entry, SideObject, parse_entry
from comity.trust.statements import Published
from comity.trust.upstream import OBSERVED, Observed
from comity.wire.operator import LackingArtifact

STEP_DEADLINE: Final = 7 * 86_400.0
CHECK_SECONDS: Final = 5.0
"""Seconds between two pages of held artifacts whose files are looked for."""
MAX_CLAIMS: Final = 16
"""Publications of one artifact from which it is queued again."""
REREAD_SECONDS: Final = 300.0
"""Seconds after which publications are read again, if some did not fit into the queue."""
PAUSE_SECONDS: Final = 5.0
"""Seconds between two looks at the disk and the hour."""
AGE_SECONDS: Final = 60.0
"""Seconds between two looks for artifacts that are old enough for a rule."""
PAGE: Final = 256
"""Publications of one log that are read in one step."""
MAX_NOT_LISTED: Final = 10_000
MAX_HOLDS: Final = 256
"""Holds of one artifact whose piece indexes are tried."""
PREDICATES: Final = ("published", OBSERVED)
HELD_FILES: Final = "held files"
OWN_HOLDS: Final = "own holds"
HOLD_INTERVALS: Final = 6
"""Intervals for which a claim of a copy may wait for others."""

_log: Final = structlog.get_logger("comity.node.artifacts")


class Replicas:
    """Follows publications and copies wanted artifacts. Not thread-safe: call from the event loop.

    Args:
        on_lost: called when a part of a held artifact is missing.
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
        wanted: WantedArtifacts,
        ages: StatementAges,
        quotas: RuleQuotas,
        pauses: CopyPauses,
        on_lost: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._wanted = wanted
        self._ages = ages
        self._quotas = quotas
        self._pauses = pauses
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
        self._forget = False
        """Whether what is kept of publications must be deleted, because all are read again."""
        self._requeue_from: Digest | None = None
        """The artifact after which kept, incomplete artifacts are queued again; None when all are."""
        self._copies = CopyQueue()
        self._reread_at = 0.0
        self._warned = False
        self._scan_lock = asyncio.Lock()
        self._held = HeldCopies(ledger, store, pools, membership, self._now)
        self._own_holds = OwnHolds(
            ledger,
            membership.seat.log,
            signer,
            own_log,
            self._held,
            settings.hold_batch,
            HOLD_INTERVALS * settings.interval_seconds,
            self._now,
        )
        self._not_listed: set[Digest] = set()
        """Published artifacts that the settings do not name: the first `MAX_NOT_LISTED`."""

    async def begin(self, supervisor: Supervisor) -> None:
        await self._held.open()
        await self._ages.load()
        await self._quotas.load()
        await self._pauses.look()
        await self._load()
        timing = LoopTiming(max(1.0, self._settings.interval_seconds), STEP_DEADLINE)
        supervisor.loop(OWN_HOLDS, self._claim_copies, timing)
        for worker in range(WORKERS):
            supervisor.loop(f"copy {worker}", self._work, timing)
        supervisor.loop("copy pauses", partial(self._look_for_pauses, supervisor), LoopTiming(PAUSE_SECONDS, 60.0))
        supervisor.loop("aged copies", self._queue_due, LoopTiming(AGE_SECONDS, STEP_DEADLINE))
        supervisor.loop(HELD_FILES, self.check_held, LoopTiming(CHECK_SECONDS, STEP_DEADLINE))

    async def _load(self) -> None:
        """Go on from what is kept; without it, read all publications."""
        tables = self._ledger.tables
        kept = await self._ledger.run(tables.kept.load, PUBLICATIONS, self._basis())
        if kept.why:
            _log.warning("all publications are read again", why=kept.why)
        self._read, self._forget = dict(kept.numbers), not kept.numbers
        if kept.numbers:
            self._not_listed = await self._ledger.run(tables.replicas.unlisted)
            self._requeue_from = Digest("")

    def _basis(self) -> Digest:
        """On what else it depends which publications are wanted."""
        return sha256(canonical([self._wanted.digest, list[Json](sorted(self._membership.node_ids))]))

    def wake(self, supervisor: Supervisor) -> None:
        """There may be new publications."""
        for worker in range(WORKERS):
            supervisor.wake(f"copy {worker}")

    def rescan(self, supervisor: Supervisor) -> None:
        """Other publications may count now: read all again."""
        self._read, self._forget = {}, True
        self.wake(supervisor)

    def check_again(self, supervisor: Supervisor) -> None:
        """A stored object was lost: look for the files of all held artifacts now."""
        self._held.check_all()
        supervisor.wake(HELD_FILES)

    async def want_again(self, artifact: Digest) -> None:
        """The operator took back the withdrawal of an artifact: copy it again."""
        self.withdrawn.discard(artifact)
        await self._requeue([artifact])

    async def reconsider(self, artifacts: Collection[Digest]) -> None:
        """Queue those of these artifacts that are wanted now and not here: others may be wanted than before."""
        absent = await self.absent(artifacts)
        await self._requeue([item for item in artifacts if item in absent and item not in self._copies])

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
        await self._quotas.withdrawn()

    @property
    def withdrawn(self) -> set[Digest]:
        """Artifacts whose hold this node withdrew. Always the same object."""
        return self._held.withdrawn

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
        """Wanted artifacts that are not complete."""
        return len(self._copies) + self._quotas.waiting

    @property
    def not_listed(self) -> int:
        """Published artifacts that the settings do not name; counted up to `MAX_NOT_LISTED`."""
        return len(self._not_listed)

    async def standing_page(self, after: Digest | None, most: int) -> list[Digest]:
        """Artifacts with a logged hold, after `after`, in their order."""
        return await self._ledger.run(self._ledger.tables.replicas.standing, after, most)

    async def without_hold(self) -> list[Digest]:
        """The wanted artifacts that are incomplete, without those of which this node has logged a hold."""
        wanted = [copy.artifact for copy in self._copies.incomplete()]
        copies = await self._held.copies(wanted)
        return [artifact for artifact in wanted if artifact not in copies or not copies[artifact].stands]

    async def incomplete_copies(self) -> list[Copy]:
        """Read all new publications. Returns the wanted artifacts that are not complete."""
        while await self._scan():
            pass
        return list(self._copies.incomplete())

    def missing_files(self, copy: Copy) -> list[Want]:
        """The missing files of an artifact whose manifest is stored; none if it is not. Blocking."""
        try:
            manifest, _ = read_artifact(self._store, copy.manifest, next(iter(copy.indexes)))
        except ComityError:
            return []
        return missing_files(self._store, manifest)

    def retry(self, supervisor: Supervisor, artifacts: Collection[Digest]) -> None:
        """There is a new source of these artifacts: try them again now."""
        self._copies.retry(artifacts)
        self.wake(supervisor)

    def incomplete(self, most: int) -> list[LackingArtifact]:
        """Wanted artifacts that are not complete, with the reasons: those that failed most often first."""
        copies = heapq.nlargest(most, self._copies.incomplete(), key=lambda copy: copy.failures)
        return [self._lacking(copy) for copy in copies]

    async def incomplete_examples(self, most: int) -> list[LackingArtifact]:
        """The same, and those that wait for room in a quota, which are no longer in the queue."""
        found = self.incomplete(most)
        return [*found, *await self._quotas.examples(most - len(found))]

    def _lacking(self, copy: Copy) -> LackingArtifact:
        failure, rest = copy.failure, max(0.0, copy.resting_until - self._now()) if copy.resting_until else 0.0
        state = self._copies.state(copy)
        why, code = (str(failure), failure.code) if failure else ("", "")
        if state == "waits" and self._pauses.why:
            why, code = self._pauses.why, ""
        return LackingArtifact(copy.artifact, copy.name, state, why, code, round(rest))

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
            if not behind:
                await self._quotas.count_done()
            await self._requeue(await self._quotas.take_fitting())
            ready = self._quotas.counted and not self._pauses.why
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
                    await self._complete(copy)
        except (ComityError, TimeoutError) as error:
            if turn.expired():
                self._copies.preempted(job, self._now())
                _log.info("copy preempted", name=copy.name, artifact=copy.artifact)
                return
            if isinstance(error, ComityError) and error.code == QUOTA:
                self._copies.done(job, self._now())
                _log.info("copy waits for room", name=copy.name, artifact=copy.artifact, why=error.why)
                return
            failure = error if isinstance(error, ComityError) else Unavailable("the copy timed out", code="PATIENCE")
            rest = self._copies.failed(job, self._now(), failure)
            _log.warning("not copied yet", name=copy.name, artifact=copy.artifact, why=str(error), rest=rest)
        except BaseException:
            self._copies.preempted(job, self._now())
            raise
        else:
            self._copies.done(job, self._now())

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
            if self._forget:
                self._forget = False
                self._quotas.recount()
                await self._ledger.run(self._ledger.tables.replicas.forget_publications)
            self._reread_left_out()
            behind = await self._requeue_kept()
            read, proven = self._read, self._ledger.tables.proven
            last = await self._ledger.run(proven.last_number)
            for state in await self._ledger.run(self._ledger.tables.logs.all):
                log = state.vkey
                if read.get(log, 0) >= last:
                    continue
                page = await self._ledger.run(proven.since, read.get(log, 0), PREDICATES, PAGE, log)
                wanted, unlisted = await self._queue_wanted(page)
                whole = len(page) < PAGE
                read[log] = max([last, *(line.number for line in page[-1:])]) if whole else page[-1].number
                behind = behind or not whole
                if page:
                    await self._keep(log, page[-1].number, wanted, unlisted)
            self._measure()
            return behind or self._read is not read

    async def _keep(self, log: str, number: int, wanted: Collection[Digest], unlisted: Collection[Digest]) -> None:
        """Keep what was read of a log. What did not fit into the queue is read again after a restart too."""
        first_left_out = self._copies.left_out.get(self._member_of(log), number + 1)
        numbers = {log: min(number, first_left_out - 1)}
        table = self._ledger.tables.replicas
        await self._ledger.run(table.publications_read, wanted, unlisted, self._basis(), numbers)

    async def _requeue_kept(self) -> bool:
        """Queue a page of the artifacts that were wanted and incomplete when the node ended. Returns whether there are
        more."""
        if self._requeue_from is None:
            return False
        page = await self._ledger.run(self._ledger.tables.replicas.lacking, self._requeue_from or None, PAGE)
        await self._requeue(page)
        self._requeue_from = page[-1] if len(page) == PAGE else None
        return self._requeue_from is not None

    async def _requeue(self, artifacts: Sequence[Digest]) -> None:
        """Queue artifacts by their publications."""
        about = self._ledger.tables.proven.about
        for artifact in artifacts:
            found = await self._ledger.run(about, artifact, PREDICATES, MAX_CLAIMS)
            await self._queue_wanted(found.found)

    async def _look_for_pauses(self, supervisor: Supervisor) -> None:
        if await self._pauses.look():
            full = {copy.artifact for copy in self._copies.incomplete() if isinstance(copy.failure, OutOfSpace)}
            self.retry(supervisor, full)

    async def _queue_due(self) -> None:
        """Queue the artifacts that are old enough now for the rule that copies them."""
        await self._ages.mark()
        while due := await self._ages.take_due():
            await self._requeue(due)

    async def claim_waiting(self) -> None:
        """Log the claims of complete copies that wait for others."""
        await self._own_holds.log_waiting()

    async def _claim_copies(self) -> None:
        await self._own_holds.log_due()
        await self._requeue(self._own_holds.take_lost())

    async def check_held(self) -> None:
        """Look for the files of held artifacts, and queue those that lost some. Pauses after each page, unless a blob
        was found to be lost."""
        while True:
            missing, more = await self._held.check_page()
            for artifact in missing:
                if artifact not in self._copies:
                    await self._held.set_damaged(artifact, damaged=True)
                    self._on_lost()
                    await self._requeue([artifact])
            if not (more and self._held.hurries):
                return

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

    async def _queue_wanted(self, lines: Sequence[ProvenLine]) -> tuple[set[Digest], set[Digest]]:
        """Queue what these publications name and this node wants and lacks. Returns the artifacts that are queued now,
        and those that the settings do not name."""
        said = [(line, _parse_publication(parse_entry(line.line))) for line in lines]
        copies = await self._held.copies({published.artifact for _, published in said})
        queued, unlisted, waits = set[Digest](), set[Digest](), dict[Digest, float]()
        for line, published in said:
            artifact, copy = published.artifact, copies.get(published.artifact)
            if isinstance(published, Observed) and published.by not in self._membership.node_ids:
                continue  # no charter lists this node
            ours, held = line.vkey == self._membership.seat.log, copy is not None and copy.stands
            decision = await self._decide(line, published, ours=ours, held=held)
            if not (ours or held or decision.copy):
                if decision.wait:
                    waits[artifact] = min(waits.get(artifact, decision.wait), decision.wait)
                elif len(self._not_listed) < MAX_NOT_LISTED and artifact not in self._not_listed:
                    self._not_listed.add(artifact)
                    unlisted.add(artifact)
                continue
            if artifact in self.withdrawn or artifact in self._own_holds:
                continue
            if copy is not None and held and not copy.damaged:
                continue
            path = self._member_of(line.vkey), published.by
            name, number = str(published.name), line.number
            rule = None if ours or held else decision.rule
            self._copies.add(artifact, name, published.manifest, published.pieces, path, number, rule)
            if artifact in self._copies:
                queued.add(artifact)
        if waits := {artifact: wait for artifact, wait in waits.items() if artifact not in self._copies}:
            await self._ages.wait(waits)
        return queued, unlisted - queued

    async def _complete(self, wanted: Copy) -> None:
        """Copy an artifact. Repeats it if an object was lost meanwhile: the round that a loss begins leaves out the
        artifacts in the queue."""
        losses = -1
        while losses != self._held.losses:
            losses = self._held.losses
            await self._copy(wanted)
            await self._held.set_damaged(wanted.artifact, damaged=False)

    async def _decide(
        self, line: ProvenLine, published: Published | Observed, *, ours: bool, held: bool
    ) -> MirrorDecision:
        """(2). What is published here or held is copied; what is held counts for the rule that would copy it."""
        counts = held and not self._quotas.counted and not await self._published_here(published.artifact)
        if ours or (held and not counts):
            return MirrorDecision(True)
        decision = await self._wanted.decide(published, line.number)
        if counts and decision.copy:
            name = str(published.name)
            await self._quotas.charge_held(published.artifact, decision.rule, name, published.manifest)
        return decision

    async def _published_here(self, artifact: Digest) -> bool:
        """Whether the own log publishes an artifact."""
        about = self._ledger.tables.proven.about
        found = await self._ledger.run(about, artifact, PREDICATES, MAX_CLAIMS)
        return any(line.vkey == self._membership.seat.log for line in found.found)

    async def _copy(self, wanted: Copy) -> None:
        indexes = (*wanted.indexes, *await self._ledger.run(self._indexes_in_holds, wanted.artifact))
        failure: ComityError = Unavailable("no piece index", why=short(wanted.artifact))
        for pieces in dict.fromkeys(indexes):
            try:
                await self._copy_by(wanted, pieces)
            except Untrusted as error:
                failure = error
                continue
            await self._own_holds.add(CompletedCopy(wanted.artifact, wanted.name, wanted.manifest, pieces))  # (5)
            return
        raise failure

    async def _copy_by(self, wanted: Copy, pieces: SideObject) -> None:
        """Fetch what is missing, by one piece index. Raises Untrusted if the index does not match the files."""
        await self._files.require_objects((wanted.manifest, pieces))
        manifest, index = await self._pools.files(read_artifact, self._store, wanted.manifest, pieces)  # (3)
        missing = await self._pools.files(missing_files, self._store, manifest)
        layouts = dict(index.files)
        rule = None if self._quotas and await self._published_here(wanted.artifact) else wanted.rule
        files, pace = [(want, layouts[want.path]) for want in missing], self._pauses.pace
        async with self._quotas.charged(wanted.artifact, rule, wanted.name, manifest):
            async with self._pauses.space_for(missing):
                await self._files.fetch(files, name=wanted.name, pace=pace)  # (4)
            await self._remember_pieces(manifest, index)

    async def _remember_pieces(self, manifest: Manifest, index: PieceIndex) -> None:
        """Store the piece records of every file in this layout, also of files stored before."""
        for entry, (_, layout) in zip(manifest.files, index.files, strict=True):
            await self._files.require_records(Want(entry.sha256, entry.size, entry.path), layout)

    def _indexes_in_holds(self, artifact: Digest) -> list[SideObject]:
        """Piece indexes in the holds of other nodes, alternating between logs."""
        found = self._ledger.tables.proven.about(artifact, HOLD_PREDICATES, MAX_HOLDS).found
        holds = (hold_of(parse_entry(line.line).statement, artifact) for line in found)
        return [hold.pieces for hold in holds if hold is not None]

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _parse_publication(entry: Entry) -> Published | Observed:
    statement = entry.statement
    return Observed.parse(statement) if statement.predicate == OBSERVED else Published.parse(statement)
