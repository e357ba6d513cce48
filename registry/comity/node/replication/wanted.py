"""Which artifacts this node copies: by the patterns of `replication.mirror`, or by the file of mirror rules; and those
that its operator pinned.

Rules may copy at an age: since this node knows the statement. An age counts from the mark after the statement was
verified here, at most an hour later (`ledger.copy_tables`). So nobody else decides about it: a publication
names no time, and the clock of its log is not trusted for this.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Final

import structlog

from comity.bounded_file import read_at_most
from comity.content.blobs import BlobStore
from comity.node.settings import Replication
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.node.uploads import read_artifact
from comity.trust.encoding import Digest, Json, canonical, sha256
from comity.trust.errors import ComityError, NotFound
from comity.trust.mirror_rules import (
    HOUR_SECONDS,
    MirrorClaim,
    MirrorContents,
    MirrorDecision,
    MirrorQuotas,
    parse_mirror_rules,
)
from comity.trust.rule_file import MAX_BYTES
from comity.trust.statements import Published
from comity.trust.upstream import Observed

PAGE: Final = 256
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
        """Artifacts that are due: they wait no longer. A full page has `PAGE`."""
        table = self._ledger.tables.waiting_copies
        due = await self._ledger.run(table.due, int(self._clock()), PAGE)
        if due:
            await self._ledger.run(table.move_to_lacking, due)
        return due


class WantedArtifacts:
    """Decides by the operator's settings. The rules are read once, at the start of the node.

    Raises NotFound, Unavailable, Malformed (MIRROR-RULES).
    """

    def __init__(self, settings: Replication, store: BlobStore, pools: Pools, ages: StatementAges) -> None:
        self._ages = ages
        self._settings = settings
        self._store = store
        self._pools = pools
        data = read_rules(settings.rules) if settings.rules is not None else None
        self._rules = parse_mirror_rules(data) if data is not None else None
        self.digest = sha256(data if data is not None else canonical(_patterns(settings)))
        """Of the settings and the rules: with another one, other artifacts may be wanted."""
        self.pinned: Collection[Digest] = ()
        """Artifacts that this node's operator pinned: they are wanted, whatever the rules say."""
        self.asked: Mapping[Digest, frozenset[Digest]] = {}
        """By artifact, the members that ask for copies of it and are to be answered now."""

    @property
    def answered(self) -> frozenset[str]:
        """The members for which the rules copy what they ask for."""
        return self._rules.answered if self._rules is not None else frozenset()

    async def decide(self, claimed: Published | Observed, number: int) -> MirrorDecision:
        """Whether the artifact of a statement is copied, or when. One whose manifest a rule needs and that cannot be
        read is not copied. `number` is that of the proven statement: its age follows from it."""
        if claimed.artifact in self.pinned:
            return MirrorDecision(True)
        claim = replace(MirrorClaim.of(claimed), wanted_by=self.asked.get(claimed.artifact, frozenset()))
        if self._rules is None:
            return MirrorDecision(self._settings.wants(claim.repository))
        age = self._ages.of(number) if self._rules.need_age else 0.0
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
        return self._settings.wants(repository) if self._rules is None else self._rules.may_copy(repository)

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
