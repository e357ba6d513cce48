"""Which artifacts this node copies: by the patterns of `replication.mirror`, or by the file of mirror rules; and those
that its operator pinned. Publications are read from the logs a page at a time, and the wanted ones are queued.

(1) a proven `published` statement in any stored log is followed, and what a node of the federation `observed`
(2) the operator's patterns or rules decide whether it is wanted; artifacts published at this node always are
(3) the ledger keeps up to where publications are read, and which wanted artifacts are incomplete: a start goes on from
    there (`comity.ledger.copy_tables`)

Rules may copy at an age: since this node knows the statement. An age counts from the mark after the statement was
verified here, at most an hour later (`ledger.copy_tables`). So nobody else decides about it: a publication
names no time, and the clock of its log is not trusted for this.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Collection, Container, Mapping, MutableMapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Final

import structlog

from comity.bounded_file import read_at_most
from comity.content.blobs import BlobStore
from comity.ledger.copy_tables import PUBLICATIONS
from comity.ledger.proven import ProvenLine
from comity.node.context import NodeContext
from comity.node.replication.artifacts import Copy, CopyQueue
from comity.node.replication.copy_charges import ChargedTo, CopyCharges
from comity.node.replication.held_copies import HeldCopies
from comity.node.settings import Replication
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.node.uploads import read_artifact
from comity.rules.artifact_pins import Pin
from comity.rules.mirror_rules import (
    HOUR_SECONDS,
    MirrorClaim,
    MirrorContents,
    MirrorDecision,
    MirrorQuotas,
    parse_mirror_rules,
)
from comity.rules.rule_file import MAX_BYTES
from comity.trust.encoding import Digest, Json, canonical, sha256
from comity.trust.errors import ComityError, NotFound
from comity.trust.frozen import frozen
from comity.trust.statement import Entry, parse_entry
from comity.trust.statement_kinds import OBSERVED, PUBLICATION_PREDICATES
from comity.trust.statements import Published
from comity.trust.upstream import Observed

DUE_PAGE: Final = 256
_log: Final = structlog.get_logger("comity.node.artifacts")


class StatementAges:
    """Not thread-safe: call from the event loop.

    Args:
        clock: POSIX seconds.
    """

    def __init__(self, ledger: AsyncLedger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._numbers: list[int] = []
        self._times: list[int] = []

    async def load(self) -> None:
        """Load the marks, and set one if it is due."""
        marks = await self._ledger.run(self._ledger.tables.proven_times.all)
        self._numbers, self._times = [number for number, _ in marks], [time for _, time in marks]
        await self.mark()

    async def mark(self) -> None:
        """Set a mark if statements were verified and the last mark is an hour old, or of a clock that was ahead."""
        tables, now = self._ledger.tables, int(self._clock())
        if self._times and 0 <= now - self._times[-1] < HOUR_SECONDS:
            return
        number = await self._ledger.read(tables.proven.last_number)
        if not self._numbers or number > self._numbers[-1]:
            await self._ledger.run(tables.proven_times.mark, number, now)
            self._numbers.append(number)
            self._times.append(now)

    def of(self, number: int) -> float:
        """Seconds since the statement of this number is known, at least; 0 before the next mark."""
        at = bisect_left(self._numbers, number)
        return max(0.0, self._clock() - self._times[at]) if at < len(self._times) else 0.0

    async def wait(self, waits: Mapping[Digest, float]) -> None:
        """Keep artifacts with the seconds until they are due."""
        now = self._clock()
        due = {artifact: ceil(now + wait) for artifact, wait in waits.items()}
        await self._ledger.run(self._ledger.tables.waiting_copies.add, due)

    async def take_due(self) -> list[Digest]:
        """Artifacts that are due: they wait no longer. A full page has `DUE_PAGE`."""
        table = self._ledger.tables.waiting_copies
        due = await self._ledger.run(table.due, int(self._clock()), DUE_PAGE)
        if due:
            await self._ledger.run(table.move_to_lacking, due)
        return due


class WantedArtifacts:
    """Decides by the operator's settings. The rules are read once, at the start of the node.

    Args:
        pins: what the operator pinned, by artifact: it is wanted, whatever the rules say. `PinRepair` changes them.

    Raises NotFound, Unavailable, Malformed (MIRROR-RULES).
    """

    def __init__(
        self,
        settings: Replication,
        store: BlobStore,
        pools: Pools,
        ages: StatementAges,
        pins: MutableMapping[Digest, Pin],
    ) -> None:
        self.ages = ages
        self.pins = pins
        self.settings = settings
        self._store = store
        self._pools = pools
        data = read_rules(settings.rules) if settings.rules is not None else None
        self._rules = parse_mirror_rules(data) if data is not None else None
        self.digest = sha256(data if data is not None else canonical(_patterns(settings)))
        """Of the settings and the rules: with another one, other artifacts may be wanted."""
        self.asked: Mapping[Digest, frozenset[Digest]] = {}
        """By artifact, the members that ask for copies of it and are to be answered now."""

    @property
    def answered(self) -> frozenset[str]:
        """The members for which the rules copy what they ask for."""
        return self._rules.answered if self._rules is not None else frozenset()

    async def decide(self, claimed: Published | Observed, number: int) -> MirrorDecision:
        """Whether the artifact of a statement is copied, or when. One whose manifest a rule needs and that cannot be
        read is not copied. `number` is that of the proven statement: its age follows from it."""
        if claimed.artifact in self.pins:
            return MirrorDecision(True)
        claim = replace(MirrorClaim.of(claimed), wanted_by=self.asked.get(claimed.artifact, frozenset()))
        if self._rules is None:
            return MirrorDecision(self.settings.wants(claim.repository))
        age = self.ages.of(number) if self._rules.need_age else 0.0
        decision = self._rules.decide(claim, None, age)
        if decision is None:
            contents = await self._pools.files(self._contents, claimed)
            decision = self._rules.decide(claim, contents, age) if contents is not None else None
        return decision or MirrorDecision(False)

    @property
    def quotas(self) -> MirrorQuotas:
        return MirrorQuotas(self._rules.quotas if self._rules is not None else {})

    def may_want(self, repository: str) -> bool:
        """Whether some version of a repository could be copied."""
        return self.settings.wants(repository) if self._rules is None else self._rules.may_copy(repository)

    def _contents(self, claimed: Published | Observed) -> MirrorContents | None:
        """Blocking."""
        try:
            return MirrorContents.of(read_artifact(self._store, claimed.manifest, claimed.pieces)[0])
        except ComityError as error:
            _log.warning("mirror rules need a manifest that is not here", name=str(claimed.name), why=str(error))
            return None


def _patterns(settings: Replication) -> list[Json]:
    return [settings.mirror] if isinstance(settings.mirror, str) else list(settings.mirror)


def read_rules(file: Path) -> bytes:
    """The bytes of a file of rules, more than `MAX_BYTES` if it is too long. Raises NotFound, Unavailable."""
    try:
        return read_at_most(file, MAX_BYTES + 1)
    except NotFound as error:
        hint = "comity mirror rules --help"
        raise NotFound(f"no mirror rules in {file}", why="replication.rules names it", hint=hint) from error


MAX_CLAIMS: Final = 16
"""Publications of one artifact from which it is queued again."""
REREAD_SECONDS: Final = 300.0
"""Seconds after which publications are read again, if some did not fit into the queue."""
PAGE: Final = 256
"""Publications of one log that are read in one step."""
MAX_NOT_LISTED: Final = 10_000
PREDICATES: Final = PUBLICATION_PREDICATES


@frozen
class _Wanted:
    """A publication whose artifact is wanted here, and the mirror rule that copies it; None for no rule."""

    line: ProvenLine
    published: Published | Observed
    rule: str | None


class PublicationReader:
    """Reads publications and queues what they name, if this node wants and lacks it. Not thread-safe: call from the
    event loop.

    Args:
        copies: the queue.
        unclaimed: artifacts that are complete and whose claim is not logged yet.
        now: monotonic time in seconds.
    """

    def __init__(
        self,
        context: NodeContext,
        wanted: WantedArtifacts,
        charges: CopyCharges,
        held: HeldCopies,
        copies: CopyQueue,
        unclaimed: Container[Digest],
        now: Callable[[], float],
    ) -> None:
        self._ledger = context.ledger
        self._membership = context.membership
        self._wanted = wanted
        self._ages = wanted.ages
        self._charges = charges
        self._held = held
        self._copies = copies
        self._unclaimed = unclaimed
        self._now = now
        self._read: dict[str, int] = {}
        """By log, the number of the last publication that was read. Replaced to read all again."""
        self._forget = False
        """Whether what is kept of publications must be deleted, because all are read again."""
        self._requeue_from: Digest | None = None
        """The artifact after which kept, incomplete artifacts are queued again; None when all are."""
        self._reread_at = 0.0
        self._reading = asyncio.Lock()
        self._not_listed: set[Digest] = set()
        """Published artifacts that the settings do not name: the first `MAX_NOT_LISTED`."""

    @property
    def not_listed(self) -> int:
        """Published artifacts that the settings do not name; counted up to `MAX_NOT_LISTED`."""
        return len(self._not_listed)

    async def load(self) -> None:
        """Go on from what is kept; without it, read all publications."""
        tables = self._ledger.tables
        kept = await self._ledger.run(tables.reader_positions.load, PUBLICATIONS, self.basis)
        if kept.why:
            _log.warning("all publications are read again", why=kept.why)
        self._read, self._forget = dict(kept.numbers), not kept.numbers
        if kept.numbers:
            self._not_listed = await self._ledger.run(tables.replicas.unlisted)
            self._requeue_from = Digest("")

    def read_all_again(self) -> None:
        """Other publications may count now."""
        self._read, self._forget = {}, True

    async def read_page(self) -> bool:
        """Read new publications and queue the wanted ones: at most one page of each log, so that a log with many
        delays neither the copies of others nor their queueing. Returns whether there are more."""
        async with self._reading:
            if self._forget:
                self._forget = False
                self._charges.recount()
                await self._ledger.run(self._ledger.tables.replicas.forget_publications)
            self._reread_left_out()
            behind = await self._requeue_kept()
            read, proven = self._read, self._ledger.tables.proven
            last = await self._ledger.read(proven.last_number)
            for state in await self._ledger.read(self._ledger.tables.logs.all):
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
            return behind or self._read is not read

    async def queue(self, artifacts: Sequence[Digest]) -> None:
        """Queue artifacts by their publications."""
        about = self._ledger.tables.proven.about
        for artifact in artifacts:
            found = await self._ledger.run(about, artifact, PREDICATES, MAX_CLAIMS, self._membership.precedence)
            await self._queue_wanted(found.found)

    async def queue_due(self) -> None:
        """Queue the artifacts that are old enough now for the rule that copies them."""
        await self._ages.mark()
        while due := await self._ages.take_due():
            await self.queue(due)

    async def published_here(self, artifact: Digest) -> bool:
        """Whether the own log publishes an artifact."""
        about = self._ledger.tables.proven.about
        found = await self._ledger.run(about, artifact, PREDICATES, MAX_CLAIMS, self._membership.precedence)
        return any(line.vkey == self._membership.own_node.log for line in found.found)

    async def charge(self, wanted: Copy) -> ChargedTo | None:
        """To what a copy is charged. A copy that is repaired is charged already; what the own log publishes is charged
        to nobody, and what the operator pinned to no member."""
        if wanted.stands or wanted.rule is None or await self.published_here(wanted.artifact):
            return None
        return ChargedTo(wanted.rule, () if wanted.artifact in self._wanted.pins else wanted.members)

    @property
    def basis(self) -> Digest:
        """On what else it depends which publications are wanted."""
        return sha256(canonical([self._wanted.digest, list[Json](sorted(self._membership.node_ids))]))

    async def _keep(self, log: str, number: int, wanted: Collection[Digest], unlisted: Collection[Digest]) -> None:
        """Keep what was read of a log. What did not fit into the queue is read again after a restart too."""
        first_left_out = self._copies.left_out.get(self._member_of(log), number + 1)
        numbers = {log: min(number, first_left_out - 1)}
        table = self._ledger.tables.replicas
        await self._ledger.run(table.publications_read, wanted, unlisted, self.basis, numbers)

    async def _requeue_kept(self) -> bool:
        """Queue a page of the artifacts that were wanted and incomplete when the node ended. Returns whether there are
        more."""
        if self._requeue_from is None:
            return False
        page = await self._ledger.run(self._ledger.tables.replicas.lacking, self._requeue_from or None, PAGE)
        await self.queue(page)
        self._requeue_from = page[-1] if len(page) == PAGE else None
        return self._requeue_from is not None

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
        return self._membership.owner(log) or log

    async def _queue_wanted(self, lines: Sequence[ProvenLine]) -> tuple[set[Digest], set[Digest]]:
        """Queue what these publications name and this node wants and lacks. Returns the artifacts that are queued now,
        and those that the settings do not name."""
        said = list(zip(lines, await self._ledger.run(_parse_publications, lines), strict=True))
        copies = await self._held.copies({published.artifact for _, published in said})
        wanted, unlisted, waits = list[_Wanted](), set[Digest](), dict[Digest, float]()
        for line, published in said:
            artifact, copy = published.artifact, copies.get(published.artifact)
            if isinstance(published, Observed) and published.by not in self._membership.node_ids:
                continue  # no charter lists this node
            ours, held = line.vkey == self._membership.own_node.log, copy is not None and copy.stands
            decision = await self._decide(line, published, ours=ours, held=held)
            if ours or held or decision.copy:
                wanted.append(_Wanted(line, published, None if ours or held else decision.rule))
            elif decision.wait:
                waits[artifact] = min(waits.get(artifact, decision.wait), decision.wait)
            elif len(self._not_listed) < MAX_NOT_LISTED and artifact not in self._not_listed:
                self._not_listed.add(artifact)
                unlisted.add(artifact)
        queued = await self._queue_lacking(wanted)
        if waits := {artifact: wait for artifact, wait in waits.items() if artifact not in self._copies}:
            await self._ages.wait(waits)
        return queued, unlisted - queued

    async def _queue_lacking(self, wanted: Sequence[_Wanted]) -> set[Digest]:
        """Queue those of these artifacts that this node lacks, by what it claims at this moment: a copy may have been
        completed while others were decided. Returns the artifacts that are queued now."""
        copies = await self._held.copies({item.published.artifact for item in wanted}) if wanted else {}
        queued = set[Digest]()
        for item in wanted:
            published, line = item.published, item.line
            artifact, own = published.artifact, copies.get(published.artifact)
            if self._held.has_withdrawn(artifact, own) or artifact in self._unclaimed:
                continue
            if own is not None and own.stands and not own.damaged:
                continue
            member, name = self._member_of(line.vkey), str(published.name)
            copy = Copy(artifact, name, published.manifest, member, line.number, rule=item.rule, own=own)
            self._copies.add(copy, published.pieces, (member, published.by))
            if artifact in self._copies:
                queued.add(artifact)
        return queued

    async def _decide(
        self, line: ProvenLine, published: Published | Observed, *, ours: bool, held: bool
    ) -> MirrorDecision:
        """(2). What is published here or held is copied; what is held counts for the rule that would copy it."""
        asked = held and not ours and self._charges.counting
        counts = asked and not await self.published_here(published.artifact)
        if ours or (held and not counts):
            return MirrorDecision(True)
        decision = await self._wanted.decide(published, line.number)
        if counts and decision.copy:
            members = () if published.artifact in self._wanted.pins else (self._member_of(line.vkey),)
            charge, name = ChargedTo(decision.rule, members), str(published.name)
            await self._charges.charge_held(published.artifact, charge, name, published.manifest)
        return decision


def _parse_publications(lines: Sequence[ProvenLine]) -> list[Published | Observed]:
    """In a thread: a page of them takes long enough to delay the event loop."""
    return [_parse_publication(parse_entry(line.line)) for line in lines]


def _parse_publication(entry: Entry) -> Published | Observed:
    statement = entry.statement
    return Observed.parse(statement) if statement.predicate == OBSERVED else Published.parse(statement)
