"""What the operator's retention rules say about this node's own copies, and the removal of what they let go.

A copy may go if the rules say so (`comity.rules.retention`), and if other members hold as many copies as the charter
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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from comity.bounded_file import read_at_most
from comity.ledger.copy_tables import OwnCopy
from comity.ledger.ledger import Ledger
from comity.node.context import NodeContext
from comity.node.copies.counter import CopyAssessor
from comity.node.copies.held_files import HeldFiles, HeldFilesReader
from comity.node.copies.index import CopiesIndex, CopyRow
from comity.node.copies.withdrawal import Withdrawals
from comity.node.threads import Clock
from comity.node.uploads import read_manifest
from comity.rules.audit import DAY
from comity.rules.copy_counts import CopyCount, CopyPolicy, holders
from comity.rules.retention import (
    NamedArtifact,
    RetentionDecision,
    RetentionRules,
    parse_retention_rules,
)
from comity.rules.rule_file import MAX_BYTES
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound
from comity.trust.frozen import frozen
from comity.trust.statement import SideObject
from comity.wire.audit import HoldOrder, RetainedCopy, RetentionPage

REASON: Final = "retention"
MAX_NAMES: Final = 64
MAX_REPOSITORIES: Final = 4_096
NEWEST_SECONDS: Final = 300.0
PAGE: Final = 200
"""Artifacts that the node's own rounds look at in one step."""
FILES: Final = 4_096
"""Files of manifests that are looked up together; more if one manifest has more."""

_log: Final = structlog.get_logger("comity.node.retention")


def read_rules(file: Path | None) -> RetentionRules:
    """Raises NotFound (NO-RETENTION-RULES), Unavailable, Malformed (RETENTION-RULES). Blocking."""
    hint = "write the rules to a file, and set retention.rules in node.toml: see docs/operations/copies.md"
    if file is None:
        why = "without rules nothing is removed"
        raise NotFound("no retention rules", why=why, hint=hint, code="NO-RETENTION-RULES")
    try:
        return parse_retention_rules(read_at_most(file, MAX_BYTES + 1))
    except NotFound as error:
        why = f"retention.rules names {file}, which does not exist"
        raise NotFound("no retention rules", why=why, hint=hint, code="NO-RETENTION-RULES") from error


@frozen
class _Newest:
    """The list of the newest so many artifacts of a repository and publisher that this node holds."""

    repository: str
    publisher: Digest
    count: int


@frozen
class _NamedCopy:
    """An own copy with the names of its artifact, and for how many days it is held. `limited`: it has more names."""

    artifact: Digest
    names: tuple[NamedArtifact, ...]
    limited: bool
    days: int

    @property
    def name(self) -> str:
        return self.names[0].name if self.names else ""


class NewestVersions:
    """Whether an artifact is among the newest of its repository and publisher that this node holds. Blocking."""

    def __init__(self, ledger: Ledger, monotonic: Clock) -> None:
        self._ledger = ledger
        self._monotonic = monotonic
        self._kept: OrderedDict[_Newest, tuple[float, frozenset[Digest]]] = OrderedDict()

    def forget(self) -> None:
        self._kept.clear()

    def load(self, wanted: Iterable[_Newest]) -> None:
        """Read the lists of repositories with few versions together. The others are read when they are asked for."""
        missing = [key for key in dict.fromkeys(wanted) if self._fresh(key) is None]
        found = self._ledger.proven.artifacts_under({(key.repository, key.publisher) for key in missing})
        copies = self._ledger.replicas.copies({item.artifact for items in found.values() for item in items})
        for key in missing:
            if (items := found.get((key.repository, key.publisher))) is not None:
                self._keep(key, [item.artifact for item in items if _stands(copies, item.artifact)])

    def newest(self, key: _Newest) -> frozenset[Digest]:
        known = self._fresh(key)
        if known is not None:
            self._kept.move_to_end(key)
            return known
        return self._keep(key, self._read(key))

    def _fresh(self, key: _Newest) -> frozenset[Digest] | None:
        known = self._kept.get(key)
        return known[1] if known is not None and self._monotonic() - known[0] <= NEWEST_SECONDS else None

    def _keep(self, key: _Newest, held: Iterable[Digest]) -> frozenset[Digest]:
        newest = frozenset(list(dict.fromkeys(held))[: key.count])
        self._kept[key] = self._monotonic(), newest
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_REPOSITORIES:
            self._kept.popitem(last=False)
        return newest

    def _read(self, key: _Newest) -> Iterable[Digest]:
        found = dict[Digest, None]()
        after: int | None = None
        while page := self._ledger.proven.newest_artifacts(key.repository, key.publisher, PAGE, after):
            copies = self._ledger.replicas.copies({item.artifact for item in page})
            found |= dict.fromkeys(item.artifact for item in page if _stands(copies, item.artifact))
            if len(found) >= key.count:
                break
            after = page[-1].number
        return found


class RetentionPlan:
    """Not thread-safe: call from the event loop.

    Args:
        rules: the file of rules, which is read when a plan begins.
    """

    def __init__(
        self,
        rules: Path | None,
        context: NodeContext,
        monotonic: Clock,
        index: CopiesIndex,
        held: HeldFiles,
        files: HeldFilesReader,
    ) -> None:
        self._file = rules
        self._ledger = context.ledger
        self._store = context.store
        self._membership = context.membership
        self._clock = context.clock
        self._index = index
        self._held = held
        self._files = files
        self._newest = NewestVersions(context.ledger.tables, monotonic)
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
        decided, manifests = list[RetainedCopy](), dict[Digest, SideObject]()
        for copy in self._decide_by_rules(self._read(artifacts), rules, pinned):
            rows = self._index.copies(copy.artifact) if copy.goes else []
            if copy.goes and (lacking := self._lacks(rows, assessor)):
                decided.append(replace(copy, goes=False, why=lacking))
                continue
            decided.append(copy)
            own = next((row for row in rows if row.log == self._membership.own_node.log), None)
            if own is not None:
                manifests[copy.artifact] = own.manifest
        freed = self._freed(manifests)
        return [replace(copy, bytes=freed[copy.artifact]) if copy.artifact in freed else copy for copy in decided]

    def _read(self, artifacts: list[Digest]) -> list[_NamedCopy]:
        names = self._ledger.tables.proven.names_of(artifacts, MAX_NAMES)
        since, today = self._held.days(artifacts), self._today
        return [
            _NamedCopy(item, names[item].found, names[item].limited, max(0, today - since.get(item, today)))
            for item in artifacts
        ]

    def _decide_by_rules(
        self, copies: list[_NamedCopy], rules: RetentionRules, pinned: Collection[Digest]
    ) -> Iterator[RetainedCopy]:
        """What the pins and the rules say. The lists of newest versions that they ask for are read together: only the
        copies for which they ask are looked at twice."""
        asked, decided = list[_Newest](), list[RetainedCopy | None]()

        def note(key: _Newest) -> frozenset[Digest]:
            asked.append(key)
            return frozenset()

        for copy in copies:
            before = len(asked)
            found = _decide(copy, rules, pinned, note)
            decided.append(found if len(asked) == before else None)
        self._newest.load(asked)
        for copy, known in zip(copies, decided, strict=True):
            yield known or _decide(copy, rules, pinned, self._newest.newest)

    def _lacks(self, rows: list[CopyRow], assessor: CopyAssessor) -> str:
        """Why the federation cannot do without this copy; empty if it can."""
        own = self._membership.own_node.inception.id
        others = [holder for holder in holders(assessor.assess(rows)) if holder.member != own]
        body = self._membership.body
        asked, count = CopyPolicy.of(body.policy if body else None), CopyCount.of(others)
        if count.tested and count.tested_meets(asked):
            return ""
        return (
            f"tested copies of other members: {count.tested} in {count.tested_jurisdictions} jurisdictions; the charter"
            f" asks for {asked}"
        )

    def _freed(self, manifests: Mapping[Digest, SideObject]) -> dict[Digest, int]:
        """By artifact, the bytes of files that no other held artifact and no log has; 0 if the manifest cannot be
        read."""
        freed, some = dict[Digest, int](), dict[Digest, dict[Digest, int]]()
        for artifact, manifest in manifests.items():
            some[artifact] = self._sizes(manifest)
            if sum(map(len, some.values())) >= FILES:
                freed |= self._freed_together(some)
                some = {}
        return freed | self._freed_together(some)

    def _freed_together(self, files: Mapping[Digest, Mapping[Digest, int]]) -> dict[Digest, int]:
        logged = self._ledger.tables.side_object_positions.named(
            sorted({name for sizes in files.values() for name in sizes})
        )
        freed = dict[Digest, int]()
        for artifact, sizes in files.items():
            kept = logged | self._held.shared(artifact, sizes)
            freed[artifact] = sum(size for name, size in sizes.items() if name not in kept)
        return freed

    def _sizes(self, manifest: SideObject) -> dict[Digest, int]:
        try:
            return {entry.sha256: entry.size for entry in read_manifest(self._store, manifest).files}
        except ComityError:
            return {}


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


def _decide(
    copy: _NamedCopy,
    rules: RetentionRules,
    pinned: Collection[Digest],
    newest: Callable[[_Newest], Collection[Digest]],
) -> RetainedCopy:
    if copy.artifact in pinned:
        return RetainedCopy(copy.artifact, copy.name, False, "your node has it pinned: comity pin ls")
    decision = RetentionDecision(False, f"it has more than {MAX_NAMES} names")
    if not copy.limited:

        def is_newest(named: NamedArtifact, count: int) -> bool:
            if _among_few(named, count):
                return True
            return copy.artifact in newest(_Newest(named.repository, named.publisher, count))

        decision = rules.decide(copy.names, copy.days, is_newest)
    return RetainedCopy(copy.artifact, copy.name, decision.goes, decision.why, decision.rule, 0, copy.days)


def _among_few(named: NamedArtifact, count: int) -> bool:
    """Whether its repository and publisher have no more publications than so many, so that each is of the newest."""
    return 0 < named.versions <= count


def _stands(copies: dict[Digest, OwnCopy], artifact: Digest) -> bool:
    return artifact in copies and copies[artifact].stands
