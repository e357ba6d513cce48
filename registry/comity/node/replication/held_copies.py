"""The artifacts of which this node claims a copy: what it claims, new claims, and rounds in which it looks whether the
files are still here.

The claims are the node's own `hold`, `holds` and `hold-withdrawn` statements. They are kept in the ledger with their
position: a start reads only what was logged since, and memory does not grow with the number of copies.

A complete copy is claimed alone at once, or with many others in one statement:

    the first after a while     a `hold`, at once
    completed soon after it     wait until there are as many as a statement takes, or for some time; then `holds`

A waiting claim is in memory only. Its artifact stays in the ledger among those that are incomplete
(`comity.ledger.copy_tables`) until the claim is logged: after a crash it is found to be complete, and claimed then.

A start does not look at any file. A round reads all holds in the log's order, a page in each step, from where it was
when it began; then the next round waits for a day. A round also finds a kept row that is wrong: the rows are then
computed again. After a blob was lost, a round begins at once and does not pause.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import structlog

from comity.content.blobs import BlobStore
from comity.ledger.copy_tables import HOLDS, CopyChange, CopyNumbers, OwnClaim, OwnCopy
from comity.ledger.entry_index import EntryQuery
from comity.ledger.proven import ProvenLine
from comity.node.members import Membership
from comity.node.own_log import OwnLog, last_entry
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.node.uploads import missing_files, read_manifest
from comity.rules.signing import sign_content
from comity.trust.copies import HeldArtifact, Holds, read_holds
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, Untrusted
from comity.trust.frozen import frozen
from comity.trust.statement import Entry, SideObject, Statement, parse_entry
from comity.trust.statement_kinds import HOLD_PREDICATES, HOLD_WITHDRAWN

PAGE: Final = 256
"""Claims read in one step."""
CHECKED: Final = 128
"""Held artifacts whose files are looked for in one step; more if one statement names more."""
ROUND_SECONDS: Final = 86_400.0
"""Seconds between the begins of two rounds."""

_log: Final = structlog.get_logger("comity.node.artifacts")


class HeldCopies:
    """Not thread-safe: call from the event loop.

    Args:
        clock: seconds that never go back.
        on_change: called with own copies whose claims or damage have changed, in the step of the event loop in which
            the counts change.

    Attributes:
        hurries: whether this round does not pause.
        losses: how often stored objects were lost since the start.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        store: BlobStore,
        pools: Pools,
        membership: Membership,
        clock: Clock,
        on_change: Callable[[Iterable[OwnCopy]], None] = lambda copies: None,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._membership = membership
        self._clock = clock
        self._on_change = on_change
        self._leaving: set[Digest] = set()
        """Artifacts whose hold is about to be withdrawn; nothing is logged yet."""
        self._taken_back: set[Digest] = set()
        """Artifacts whose withdrawal the operator took back; no hold is logged yet."""
        self._ended: set[Digest] = set()
        """Artifacts whose hold was withdrawn since the last `take_withdrawn`."""
        self._position = 0
        self._numbers = CopyNumbers(0, 0)
        self._round_at: int | None = 0
        """The number of the last statement that this round has read; None between rounds."""
        self.hurries = False
        self.losses = 0
        self._next_round = 0.0

    @property
    def standing(self) -> int:
        """Artifacts with a logged hold that was not withdrawn."""
        return self._numbers.standing

    @property
    def complete(self) -> int:
        """Those of which no file is known to be missing."""
        return self._numbers.standing - self._numbers.damaged

    @property
    def damaged(self) -> int:
        return self._numbers.damaged

    async def open(self) -> None:
        """Load what is kept, and read what was logged since."""
        table = self._ledger.tables.replicas
        kept = await self._ledger.run(self._ledger.tables.reader_positions.load, HOLDS, self._basis())
        if kept.why:
            _log.warning("the list of own copies is computed again", why=kept.why)
        if not kept.numbers:
            await self._ledger.run(table.forget_holds)
        self._position = kept.numbers.get(self._membership.own_node.log, 0)
        self._numbers = await self._ledger.run(table.numbers)
        await self.read_new()
        self._begin_round()

    async def read_new(self) -> None:
        """Read the statements that this node has logged since."""
        while lines := await self._next_claims(self._position):
            claims = [claim for line in lines if self._is_own(line) for claim in _claims(line)]
            numbers = {self._membership.own_node.log: lines[-1].number}
            table = self._ledger.tables.replicas
            self._add(await self._ledger.run(table.add_claims, claims, self._basis(), numbers))
            for claim in claims:
                self._leaving.discard(claim.artifact)
                self._taken_back.discard(claim.artifact)
            self._position = lines[-1].number
            if len(lines) < PAGE:
                return

    def take_withdrawn(self) -> list[Digest]:
        """Artifacts of which a withdrawal was read since the last call, and no hold after it."""
        taken, self._ended = list(self._ended), set()
        return taken

    async def copies(self, artifacts: Iterable[Digest]) -> Mapping[Digest, OwnCopy]:
        """The claims about these artifacts; without the others."""
        return await self._ledger.run(self._ledger.tables.replicas.copies, list(artifacts))

    async def withdrawn(self, artifacts: Iterable[Digest]) -> set[Digest]:
        """Those of these artifacts that are not copied, as `has_withdrawn` says."""
        wanted = list(artifacts)
        copies = await self.copies(wanted)
        return {artifact for artifact in wanted if self.has_withdrawn(artifact, copies.get(artifact))}

    def has_withdrawn(self, artifact: Digest, copy: OwnCopy | None) -> bool:
        """Whether this node withdrew its hold, or is about to, and the operator has not taken that back; `copy` are its
        claims."""
        if artifact in self._leaving:
            return True
        return copy is not None and not copy.stands and artifact not in self._taken_back

    def begin_withdrawal(self, artifact: Digest) -> None:
        """From now on it counts as withdrawn: until `end_withdrawal`, or until the operator takes it back."""
        self._leaving.add(artifact)

    def end_withdrawal(self, artifact: Digest) -> None:
        """What is logged counts."""
        self._leaving.discard(artifact)

    def take_back(self, artifact: Digest) -> None:
        """The operator wants a copy again."""
        self._leaving.discard(artifact)
        self._taken_back.add(artifact)

    async def set_damaged(self, artifact: Digest, *, damaged: bool) -> None:
        """A file of a held artifact is missing, or all are here again."""
        table = self._ledger.tables.replicas
        self._add(await self._ledger.run(lambda: table.set_damaged(artifact, damaged=damaged)))

    def check_all(self) -> None:
        """A stored object was lost: begin a round now."""
        self.losses += 1
        self._begin_round()
        self.hurries = True

    async def check_page(self) -> tuple[list[Digest], bool]:
        """Look at the files of the next page of holds. Returns the artifacts of which one is missing, and whether the
        round goes on. Raises what the store raises that does not answer; the next call looks at the same page."""
        if self._round_at is None:
            if self._clock() < self._next_round:
                return [], False
            self._begin_round()
        at = self._round_at or 0
        page = await self._next_holds(at)
        lines = _first(page, CHECKED)
        self._round_at = lines[-1].number if len(page) == CHECKED or len(lines) < len(page) else None
        self.hurries = self.hurries and self._round_at is not None
        own = [line for line in lines if self._is_own(line) and line.number <= self._position]
        try:
            missing = await self._missing(own)
        except ComityError:
            self._round_at = at if self._round_at is None else min(at, self._round_at)
            raise
        return missing, self._round_at is not None

    async def _missing(self, lines: list[ProvenLine]) -> list[Digest]:
        holds = {item.artifact: (line.index, item) for line in lines for item in read_holds(_statement(line))}
        copies = await self.copies(holds)
        if any(artifact not in copies or copies[artifact].held < index for artifact, (index, _) in holds.items()):
            _log.error("the list of own copies is wrong and is computed again")
            await self._ledger.run(self._ledger.tables.replicas.forget_holds)
            await self.open()
            copies = await self.copies(holds)
        return await self.with_gaps([item for artifact, (_, item) in holds.items() if copies[artifact].stands])

    async def with_gaps(self, held: list[HeldArtifact]) -> list[Digest]:
        """Those of these artifacts of which a file is missing. Raises what a store raises that does not answer."""
        return await self._pools.files(self._incomplete, held)

    def _incomplete(self, held: list[HeldArtifact]) -> list[Digest]:
        """Blocking."""
        return [item.artifact for item in held if self._has_gaps(item)]

    def _has_gaps(self, held: HeldArtifact) -> bool:
        """Whether a file of a held artifact is missing. Blocking."""
        try:
            if not self._store.has(held.pieces.digest):
                return True
            return bool(missing_files(self._store, read_manifest(self._store, held.manifest)))
        except (NotFound, Malformed, Untrusted):
            return True  # the manifest is missing or damaged

    def _begin_round(self) -> None:
        self._round_at, self._next_round = 0, self._clock() + ROUND_SECONDS

    def _add(self, change: CopyChange) -> None:
        now, more = self._numbers, change.numbers
        self._numbers = CopyNumbers(now.standing + more.standing, now.damaged + more.damaged)
        self._ended -= {copy.artifact for copy in change.copies if copy.stands}
        self._ended |= {copy.artifact for copy in change.copies if not copy.stands}
        self._on_change(change.copies)

    def _is_own(self, line: ProvenLine) -> bool:
        by = parse_entry(line.line).statement.by
        return by == self._membership.own_node.record.node

    async def _next_claims(self, number: int) -> list[ProvenLine]:
        since, log = self._ledger.tables.proven.since, self._membership.own_node.log
        return await self._ledger.run(since, number, (*HOLD_PREDICATES, HOLD_WITHDRAWN), PAGE, log)

    async def _next_holds(self, number: int) -> list[ProvenLine]:
        since, log = self._ledger.tables.proven.since, self._membership.own_node.log
        return await self._ledger.run(since, number, HOLD_PREDICATES, CHECKED, log)

    def _basis(self) -> Digest:
        return sha256(self._membership.own_node.record.node.id.encode())


def _first(lines: list[ProvenLine], most: int) -> list[ProvenLine]:
    """As many of the first lines as name at most `most` artifacts, at least one. The others are not parsed."""
    counts = itertools.accumulate(len(_statement(line).subjects) for line in lines)
    first = itertools.takewhile(lambda count: count <= most, counts)
    return lines[: max(1, sum(1 for _ in first))]


def _claims(line: ProvenLine) -> list[OwnClaim]:
    statement = _statement(line)
    hold = statement.predicate in HOLD_PREDICATES
    return [OwnClaim(subject.digest, line.index, hold) for subject in statement.subjects]


def _statement(line: ProvenLine) -> Statement:
    return parse_entry(line.line).statement


@frozen
class CompletedCopy:
    """A complete copy that is not claimed yet."""

    artifact: Digest
    name: str
    manifest: SideObject
    pieces: SideObject


class OwnHolds:
    """Not thread-safe: call from the event loop.

    Args:
        most: artifacts of one statement; with 1, nothing waits.
        seconds: how long a claim may wait.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        own_log: OwnLog,
        held: HeldCopies,
        most: int,
        seconds: float,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._signer = own_log.signer
        self._own_log = own_log
        self._held = held
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._waiting: dict[Digest, CompletedCopy] = {}
        self._lost: set[Digest] = set()
        self._logged_at = float("-inf")
        self._lock = asyncio.Lock()

    def __contains__(self, artifact: object) -> bool:
        """Whether a claim about the artifact waits."""
        return artifact in self._waiting

    async def add(self, copy: CompletedCopy) -> None:
        """Claim a copy, now or later. Raises what the own log raises; then this claim does not wait any more."""
        self._waiting[copy.artifact] = copy
        try:
            await self.log_due()
        except BaseException:
            self._waiting.pop(copy.artifact, None)
            raise

    def take_lost(self) -> list[Digest]:
        """Artifacts that lost a file before they were claimed, each once."""
        lost = sorted(self._lost)
        self._lost.clear()
        return lost

    async def log_due(self) -> None:
        """Log the waiting claims if there are enough, or if the last ones were logged long enough ago."""
        async with self._lock:
            while self._waiting and self._is_due():
                await self._log_some(list(self._waiting.values())[: self._most])

    async def log_waiting(self) -> None:
        """Log all waiting claims now."""
        async with self._lock:
            while self._waiting:
                await self._log_some(list(self._waiting.values())[: self._most])

    def _is_due(self) -> bool:
        return len(self._waiting) >= self._most or self._clock() - self._logged_at >= self._seconds

    async def _log_some(self, copies: Sequence[CompletedCopy]) -> None:
        await self._held.read_new()  # an append that was cut short may have logged some
        losses = self._held.losses
        copies = await self._complete(copies)
        unclaimed = await self._unclaimed(copies)
        if unclaimed:
            entry = await self._ledger.run(self._sign, unclaimed)
            index = await self._own_log.append(entry.line)
            self._logged_at = self._clock()
            await self._held.read_new()
            if losses != self._held.losses:
                self._held.check_all()  # the round that the loss began did not see these
            for copy in unclaimed:
                _log.info("hold logged", name=copy.name, artifact=copy.artifact, index=index)
        for copy in copies:
            await self._ledger.run(self._ledger.tables.replicas.completed, copy.artifact)
            self._waiting.pop(copy.artifact, None)

    async def _complete(self, copies: Sequence[CompletedCopy]) -> list[CompletedCopy]:
        """Those that have lost no file while they waited; the others are `lost`."""
        lost = await self._held.with_gaps([self._held_artifact(copy) for copy in copies])
        for artifact in lost:
            self._waiting.pop(artifact, None)
        self._lost.update(lost)
        return [copy for copy in copies if copy.artifact not in lost]

    async def _unclaimed(self, copies: Sequence[CompletedCopy]) -> list[CompletedCopy]:
        """Those without a claim that stands, and that the operator has not withdrawn."""
        known = await self._held.copies([copy.artifact for copy in copies])
        withdrawn = {
            copy.artifact for copy in copies if self._held.has_withdrawn(copy.artifact, known.get(copy.artifact))
        }
        return [
            copy
            for copy in copies
            if copy.artifact not in withdrawn and not (copy.artifact in known and known[copy.artifact].stands)
        ]

    def _sign(self, copies: Sequence[CompletedCopy]) -> Entry:
        """Blocking."""
        held = [self._held_artifact(copy, self._label(copy.artifact)) for copy in copies]
        together = Holds.of(self._signer.record.node, held) if len(held) > 1 else held[0]
        return sign_content(together, self._signer.online)

    def _held_artifact(self, copy: CompletedCopy, label: str = "") -> HeldArtifact:
        return HeldArtifact(self._signer.record.node, copy.manifest, copy.pieces, label)

    def _label(self, artifact: Digest) -> str:
        """The label of a claim after a withdrawal: a log has no statement twice, so the claim must differ. Blocking."""
        query = EntryQuery(artifact, HOLD_WITHDRAWN, self._signer.record.node.id, str(self._signer.record.log))
        last = last_entry(self._ledger.tables, query)
        return "" if last is None else f"held again after entry {last}"
