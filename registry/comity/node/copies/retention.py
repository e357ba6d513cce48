"""What the operator's retention rules say about this node's own copies, and the removal of what they let go.

A copy may go if the rules say so (`comity.trust.retention`), and if other members hold as many copies as the charter
asks for that an audit tested lately: what has no other tested copy stays, whatever the rules say. That is the plan;
each removal still asks the others, under leases, like any other (`withdrawal`). The plan is made page by page, from
indexed reads.

    grows with                  bound
    artifacts held              one page of them in memory
    names of an artifact        MAX_NAMES: an artifact with more stays
    repositories with versions  MAX_REPOSITORIES lists of the newest versions are kept, each for NEWEST_SECONDS
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Final

import structlog

from comity.bounded_file import read_at_most
from comity.content.blobs import BlobStore
from comity.ledger.ledger import Ledger
from comity.ledger.replica_table import OwnCopy
from comity.node.copies.assessor import CopyAssessor
from comity.node.copies.held_files import HeldFiles, HeldFilesReader
from comity.node.copies.index import CopiesIndex, CopyRow
from comity.node.copies.withdrawal import Withdrawals
from comity.node.members import Membership
from comity.node.threads import AsyncLedger, Clock
from comity.node.uploads import read_manifest
from comity.trust.audit import DAY
from comity.trust.copies import CopyCount, CopyPolicy, holders
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound
from comity.trust.retention import (
    NamedArtifact,
    RetentionDecision,
    RetentionRules,
    parse_retention_rules,
)
from comity.trust.rule_file import MAX_BYTES
from comity.wire.audit import HoldOrder, RetainedCopy, RetentionPage

REASON: Final = "retention"
MAX_NAMES: Final = 64
MAX_REPOSITORIES: Final = 4_096
NEWEST_SECONDS: Final = 300.0
PAGE: Final = 200
"""Artifacts that the node's own rounds look at in one step."""

_log: Final = structlog.get_logger("comity.node.retention")


def read_rules(file: Path | None) -> RetentionRules:
    """Raises NotFound (NO-RETENTION-RULES), Unavailable, Malformed (RETENTION-RULES). Blocking."""
    hint = "write the rules to a file, and set retention.rules in node.toml: see docs/operations.md, on retention"
    if file is None:
        why = "without rules nothing is removed"
        raise NotFound("no retention rules", why=why, hint=hint, code="NO-RETENTION-RULES")
    try:
        return parse_retention_rules(read_at_most(file, MAX_BYTES + 1))
    except NotFound as error:
        why = f"retention.rules names {file}, which does not exist"
        raise NotFound("no retention rules", why=why, hint=hint, code="NO-RETENTION-RULES") from error


class NewestVersions:
    """Whether an artifact is among the newest of its repository and publisher that this node holds. Blocking."""

    def __init__(self, ledger: Ledger, monotonic: Clock) -> None:
        self._ledger = ledger
        self._monotonic = monotonic
        self._kept: OrderedDict[tuple[str, Digest, int], tuple[float, frozenset[Digest]]] = OrderedDict()

    def forget(self) -> None:
        self._kept.clear()

    def newest(self, repository: str, publisher: Digest, count: int) -> frozenset[Digest]:
        key, now = (repository, publisher, count), self._monotonic()
        known = self._kept.get(key)
        if known is None or now - known[0] > NEWEST_SECONDS:
            known = self._kept[key] = now, self._read(repository, publisher, count)
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_REPOSITORIES:
            self._kept.popitem(last=False)
        return known[1]

    def _read(self, repository: str, publisher: Digest, count: int) -> frozenset[Digest]:
        found = dict[Digest, None]()
        after: int | None = None
        while page := self._ledger.proven.newest_artifacts(repository, publisher, PAGE, after):
            copies = self._ledger.replicas.copies({item.artifact for item in page})
            found |= dict.fromkeys(item.artifact for item in page if _stands(copies, item.artifact))
            if len(found) >= count:
                break
            after = page[-1].number
        return frozenset(list(found)[:count])


class RetentionPlan:
    """Not thread-safe: call from the event loop.

    Args:
        rules: the file of rules, which is read when a plan begins.
    """

    def __init__(
        self,
        rules: Path | None,
        ledger: AsyncLedger,
        store: BlobStore,
        membership: Membership,
        clock: Clock,
        monotonic: Clock,
        index: CopiesIndex,
        held: HeldFiles,
        files: HeldFilesReader,
    ) -> None:
        self._file = rules
        self._ledger = ledger
        self._store = store
        self._membership = membership
        self._clock = clock
        self._index = index
        self._held = held
        self._files = files
        self._newest = NewestVersions(ledger.tables, monotonic)
        self._rules: RetentionRules | None = None

    async def page(self, after: Digest | None, limit: int) -> RetentionPage:
        """The next `limit` own copies after `after`. Raises NotFound (NO-RETENTION-RULES), Malformed
        (RETENTION-RULES)."""
        if after is None or self._rules is None:
            self._rules = await self._ledger.run(read_rules, self._file)
            self._newest.forget()
        await self._files.read()
        artifacts = await self._ledger.run(self._ledger.tables.replicas.standing, after, limit + 1)
        assessor = CopyAssessor(self._membership, self._today)
        copies = await self._ledger.run(self._decide_all, artifacts[:limit], self._rules, assessor)
        return RetentionPage(tuple(copies), len(artifacts) > limit)

    @property
    def _today(self) -> int:
        return int(self._clock()) // DAY

    def _decide_all(self, artifacts: list[Digest], rules: RetentionRules, assessor: CopyAssessor) -> list[RetainedCopy]:
        """Blocking."""
        pinned = {pin.artifact for pin in self._ledger.tables.pins.all()}
        return [
            RetainedCopy(artifact, self._name(artifact), False, "your node has it pinned: comity pin ls")
            if artifact in pinned
            else self._decide(artifact, rules, assessor)
            for artifact in artifacts
        ]

    def _name(self, artifact: Digest) -> str:
        found = self._ledger.tables.proven.publications_of(artifact, 1).found
        return found[0].name if found else ""

    def _decide(self, artifact: Digest, rules: RetentionRules, assessor: CopyAssessor) -> RetainedCopy:
        since = self._held.since(artifact)
        days = max(0, self._today - since) if since is not None else 0
        page = self._ledger.tables.proven.publications_of(artifact, MAX_NAMES)
        names = [NamedArtifact(item.repository, item.version, item.publisher) for item in page.found]
        name = names[0].name if names else ""
        if page.limited:
            decision = RetentionDecision(False, f"it has more than {MAX_NAMES} names")
        else:
            decision = rules.decide(
                names,
                days,
                lambda named, count: artifact in self._newest.newest(named.repository, named.publisher, count),
            )
        if not decision.goes:
            return RetainedCopy(artifact, name, False, decision.why, decision.rule, 0, days)
        rows = self._index.copies(artifact)
        if lacking := self._lacks(rows, assessor):
            return RetainedCopy(artifact, name, False, lacking, decision.rule, 0, days)
        return RetainedCopy(artifact, name, True, decision.why, decision.rule, self._freed(artifact, rows), days)

    def _lacks(self, rows: list[CopyRow], assessor: CopyAssessor) -> str:
        """Why the federation cannot do without this copy; empty if it can."""
        own = self._membership.seat.inception.id
        others = [holder for holder in holders(assessor.assess(rows)) if holder.member != own]
        body = self._membership.body
        asked, count = CopyPolicy.of(body.policy if body else None), CopyCount.of(others)
        if count.tested and count.tested_meets(asked):
            return ""
        return (
            f"tested copies of other members: {count.tested} in {count.tested_jurisdictions} jurisdictions; the charter"
            f" asks for {asked}"
        )

    def _freed(self, artifact: Digest, rows: list[CopyRow]) -> int:
        """Bytes of files that no other held artifact and no log has; 0 if the manifest cannot be read."""
        row = next((row for row in rows if row.log == self._membership.seat.log), None)
        if row is None:
            return 0
        try:
            files = {entry.sha256: entry.size for entry in read_manifest(self._store, row.manifest).files}
        except ComityError:
            return 0
        shared = self._held.shared(artifact, files) | self._ledger.tables.side_object_positions.named(sorted(files))
        return sum(size for digest, size in files.items() if digest not in shared)


class RetentionRounds:
    """Removes what the rules let go, if the operator has set `retention.every_hours`. Not thread-safe."""

    def __init__(self, plan: RetentionPlan, withdrawals: Withdrawals) -> None:
        self._plan = plan
        self._withdrawals = withdrawals
        self._started = False

    async def step(self) -> None:
        """One round over all own copies. The first call does nothing: a round begins an interval after the start."""
        if not self._started:
            self._started = True
            return
        after: Digest | None = None
        removed = refused = 0
        while True:
            page = await self._plan.page(after, PAGE)
            for copy in page.copies:
                if copy.goes:
                    gone = await self._remove(copy)
                    removed, refused = removed + gone, refused + (not gone)
            if not page.more:
                break
            after = page.copies[-1].artifact
        _log.info("retention round", removed=removed, refused=refused)

    async def _remove(self, copy: RetainedCopy) -> bool:
        try:
            await self._withdrawals.decide(HoldOrder(copy.artifact, REASON, f"retention rule: {copy.rule}"))
        except ComityError as error:
            _log.info("not removed", artifact=copy.artifact, name=copy.name, why=str(error), code=error.code)
            return False
        return True


def _stands(copies: dict[Digest, OwnCopy], artifact: Digest) -> bool:
    return artifact in copies and copies[artifact].stands
