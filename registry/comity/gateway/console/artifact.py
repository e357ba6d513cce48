"""The page of one artifact: what the node's policy finds, who claims a copy, and who said what.

Every part comes from the functions behind the gateway and the command line: the snapshot of the Hub routes, the rows of
the verdict, the lineage graph, and the verified statements of the ledger. A copy of this node is verified, because each
file was hashed when it arrived; a copy of another member is that member's signed claim.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final, Literal

from markupsafe import Markup

from comity.gateway.console.cards import MAX_CARD, card_html
from comity.gateway.console.index import formats_of
from comity.gateway.console.state import RecentEntry, StateReader
from comity.gateway.hub.catalogue import Catalogue, Repository
from comity.gateway.hub.judge import AnswerCache, Generations
from comity.gateway.hub.model_facts import ModelFacts
from comity.gateway.hub.views import Snapshot, commit_of
from comity.ledger.proven import ProvenLine
from comity.node.copies.counter import CopyAssessor
from comity.node.copies.index import CopiesIndex
from comity.node.home import ServedHome
from comity.rules.artifact_kind import ARTIFACT_KINDS, HUB_DATASETS, hub_types
from comity.rules.audit import DAY
from comity.rules.continuation import ContinuedCommit, continued_repositories
from comity.rules.copy_counts import NOT_COUNTED, STATES, CopyPolicy
from comity.trust.claims import read_claims, verify_vouches
from comity.trust.copies import HoldWithdrawn
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError
from comity.trust.evidence import Evidence, Row, Verdict
from comity.trust.frozen import frozen
from comity.trust.lineage import LineageGraph, lineage_of
from comity.trust.places import Reach, count_reaches
from comity.trust.resolution import Candidate
from comity.trust.rows.findings import member_names
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import HOLD_PREDICATES, HOLD_WITHDRAWN
from comity.trust.statements import Published
from comity.trust.verify import counted_publication

MAX_STATEMENTS: Final = 100
MAX_HOLDS: Final = 1_000
MAX_VOUCHES: Final = 30
MAX_TESTS: Final = 3
"""Results of audits shown for one copy."""
MAX_CARD_FILE: Final = 1024 * 1024
"""Bytes of the largest file that is read for a card."""
MAX_PAGES: Final = 256
"""Artifact pages that are kept."""
CARDS: Final = ("README.md", "readme.md", "MODEL_CARD.md", "model_card.md")

_IDENTITY: Final = re.compile("[0-9a-f]{64}")

Basis = Literal["here", "claimed", "unknown"]


@frozen
class CopyTest:
    """The result of an audit, by `auditor`'s own word and clock unless it was `own`, or a failure that this node found
    `proven`. `day` counts from 1970."""

    auditor: str
    own: bool
    day: int
    outcome: str
    pieces: int
    proven: bool


@frozen
class CopyView:
    """What is known of a member's copy: `here` was verified by this node, `claimed` is the member's signed statement in
    its own log at `index`, `unknown` is the absence of a statement. `withdrawn` is why it withdrew the claim, if it
    said so last. `reach` is as the member declares it; `assessed` is what the audits of others make of the claim, and
    `tests` are their results, the newest first."""

    member: str
    jurisdiction: str
    basis: Basis
    origin: str = ""
    vkey: str = ""
    index: int = 0
    state: str = "unknown"
    last_seen: int = 0
    reach: Reach = ()
    assessed: str = ""
    tests: tuple[CopyTest, ...] = ()
    withdrawn: str = ""

    @property
    def counts(self) -> bool:
        """Whether it counts as a copy: it is here, or claimed, not withdrawn and not proven to be wrong."""
        return self.basis != "unknown" and not self.withdrawn and self.assessed not in NOT_COUNTED


@frozen
class CopyStatement:
    """What a node of a member said last about its copy, in its own log: a claim, or why it withdrew one."""

    line: ProvenLine
    withdrawn: str


@frozen
class VersionView:
    """A version of a repository, newest first in lists."""

    label: str
    artifact: Digest
    withdrawn: bool
    shown: bool


@frozen
class VouchView:
    """A statement that somebody rehashed, evaluated or reproduced the artifact, in the words of its author."""

    kind: str
    text: str
    by: str
    member: bool


@frozen
class ContinuedView:
    """A commit of an upstream that the artifact is said to have been: the members who say so, and whether members name
    other bytes for it."""

    origin: str
    members: str
    disputed: bool

    @classmethod
    def of(cls, commit: ContinuedCommit, artifact: Digest) -> ContinuedView:
        named = commit.members
        others = any(members for other, members in named.items() if other != artifact)
        return cls(commit.origin, member_names(named[artifact]), others)


@frozen
class ArtifactPage:
    """`files_here` of the manifest's files are stored on this node. `card_cut`: only the beginning of it is shown.
    `facts` are what its files say about the model."""

    snapshot: Snapshot
    mirrored: bool
    rows: tuple[Row, ...]
    statements: tuple[RecentEntry, ...]
    more_statements: bool
    versions: tuple[VersionView, ...]
    files_here: int
    formats: tuple[str, ...]
    card: Markup | None
    card_path: str
    card_cut: bool
    lineage: LineageGraph | None
    facts: ModelFacts
    vouches: tuple[VouchView, ...]
    continued: tuple[ContinuedView, ...]

    @property
    def failed(self) -> int:
        """How many checks failed."""
        return sum(row.state == "fail" for row in self.rows)

    @property
    def complete_here(self) -> bool:
        """Whether every file is stored here. The store takes a file only if it has the manifest's hash."""
        return self.files_here == len(self.snapshot.manifest.files)

    @property
    def kind_known(self) -> bool:
        """Whether this version knows the kind that its publisher states."""
        return self.snapshot.kind in ARTIFACT_KINDS

    @property
    def is_dataset(self) -> bool:
        """Whether a Hub has it as a dataset."""
        return hub_types(self.snapshot.kind)[0] == HUB_DATASETS

    @property
    def reference(self) -> str:
        """The name that `comity verify` takes."""
        prefix = "hf:" if self.mirrored else ""
        version = self.snapshot.commit if self.mirrored else self.snapshot.label
        return f"{prefix}{self.snapshot.repository}@{version}"


class ArtifactPages:
    """Makes and keeps pages. Not thread-safe: call from the event loop."""

    def __init__(self, home: ServedHome, catalogue: Catalogue, states: StateReader, index: CopiesIndex) -> None:
        self._ledger = home.ledger
        self._store = home.store
        self._pools = home.pools
        self._membership = home.membership
        self.catalogue = catalogue
        self._states = states
        self._copies = index
        self._clock = home.clock
        self._pages: AnswerCache[tuple[str, Digest, str], ArtifactPage] = AnswerCache(
            Generations(home.ledger, lambda: catalogue.judge.basis).now, MAX_PAGES
        )

    async def page(self, name: str, revision: str) -> ArtifactPage:
        """Raises as `Catalogue.snapshot` does."""
        snapshot = await self.catalogue.snapshot(name, revision)
        key = snapshot.repository.lower(), snapshot.artifact, snapshot.label
        return await self._pages.get(key, lambda: self._make(snapshot))

    async def close(self) -> None:
        await self._pages.close()

    async def copies(self, page: ArtifactPage) -> list[CopyView]:
        """A line for each member of the charter, in its order."""
        said = await self._ledger.run(self._said, page.snapshot.artifact)
        assessed = await self._assessed(page.snapshot.artifact)
        found, reaches = [], self._membership.reaches()
        for member in (await self._states.now()).members:
            own = said.get(member.id)
            basis: Basis = "claimed" if own else "unknown"
            if member.own and not (own and own.withdrawn):
                basis = "here" if page.complete_here else "unknown"
            origin, vkey, index = (own.line.origin, own.line.vkey, own.line.index) if own else ("", "", 0)
            where = (member.name, member.jurisdiction, basis, origin, vkey, index)
            reach, (state, tests) = reaches.get(member.id, ()), assessed.get(member.id, ("", ()))
            withdrawn = own.withdrawn if own else ""
            found.append(CopyView(*where, member.state, member.last_seen, reach, state, tests, withdrawn))
        return found

    async def _assessed(self, artifact: Digest) -> dict[Digest, tuple[str, tuple[CopyTest, ...]]]:
        """By member, the state of its copy, and the newest results of others. Of several nodes the best one counts."""
        rows = await self._ledger.run(self._copies.copies, artifact)
        assessor = CopyAssessor(self._membership, int(self._clock()) // DAY)
        own = self._membership.own_node.inception.id
        names, found = assessor.names(rows), dict[Digest, tuple[str, tuple[CopyTest, ...]]]()
        for copy in sorted(assessor.assess(rows), key=lambda item: -STATES.index(item.state)):
            tests = tuple(
                CopyTest(
                    names.get(result.auditor, short(result.auditor)),
                    result.auditor == own,
                    result.day,
                    result.outcome,
                    result.pieces,
                    result.proven,
                )
                for result in copy.results[:MAX_TESTS]
            )
            found[copy.copy.member] = copy.state, tests
        return found

    def _said(self, artifact: Digest) -> dict[Digest, CopyStatement]:
        """Blocking. What each member said last about its copy, in the log of its own node; of a member with several
        nodes, a claim that stands comes first."""
        last: dict[str, tuple[Digest, CopyStatement]] = {}
        kinds, precedence = (*HOLD_PREDICATES, HOLD_WITHDRAWN), self._membership.precedence
        for line in self._ledger.tables.proven.about(artifact, kinds, MAX_HOLDS, precedence).found:
            statement = parse_entry(line.line).statement
            record = self._membership.node(statement.by) if statement.by else None
            known = last.get(line.vkey)
            later = known is None or line.index > known[1].line.index
            if record is not None and str(record.log) == line.vkey and later:
                reason = HoldWithdrawn.parse(statement).reason if statement.predicate == HOLD_WITHDRAWN else ""
                last[line.vkey] = record.member, CopyStatement(line, reason)
        return dict(sorted(last.values(), key=lambda item: not item[1].withdrawn))

    async def _make(self, snapshot: Snapshot) -> ArtifactPage:
        publisher = snapshot.claim.by if isinstance(snapshot.claim, Published) else None
        evidence = (await self.catalogue.local_artifacts.evidence(snapshot.manifest, publisher)).evidence
        verdict: Verdict = await self._pools.hashing(
            lambda: self.catalogue.judge.verdict(evidence, commit=commit_of(snapshot.claim), publisher=publisher)
        )
        statements, more = await self._ledger.run(self._statements, snapshot.artifact, publisher)
        card, path, cut = await self._card(snapshot)
        lineage, vouches, repositories = await self._pools.hashing(self._said_of_it, evidence, publisher)
        return ArtifactPage(
            snapshot=snapshot,
            mirrored=publisher is None,
            rows=verdict.rows,
            statements=tuple(statements),
            more_statements=more,
            versions=tuple(await self._versions(snapshot)),
            files_here=len(evidence.files or ()),
            formats=formats_of(snapshot.manifest),
            card=card,
            card_path=path,
            card_cut=cut,
            lineage=lineage,
            facts=await self.catalogue.facts.of(snapshot.artifact, snapshot.manifest),
            vouches=vouches,
            continued=tuple([each async for each in self._continued(snapshot.artifact, repositories)]),
        )

    async def _continued(self, artifact: Digest, repositories: Iterable[str]) -> AsyncIterator[ContinuedView]:
        for repository in repositories:
            for commit in (await self.catalogue.continued.of(repository)).values():
                if artifact in commit.members:
                    yield ContinuedView.of(commit, artifact)

    def _statements(self, artifact: Digest, publisher: Digest | None) -> tuple[list[RecentEntry], bool]:
        """Blocking. Statements of the publisher and of those whom the policy names first, then of members."""
        named = (*([publisher] if publisher else []), *self.catalogue.judge.policy.named)
        precedence = self._membership.precedence.naming(named)
        page = self._ledger.tables.proven.about(artifact, limit=MAX_STATEMENTS, precedence=precedence)
        return [self._states.entry(line) for line in page.found], page.limited

    async def newest_withdrawn(self, name: str) -> str | None:
        """The newest version of a name of which every version is withdrawn; None if one is not, or none is known."""
        try:
            repository = await self.catalogue.repository(name)
        except ComityError:
            return None
        if not repository.candidates or not all(candidate.withdrawn for candidate in repository.candidates):
            return None
        return (await self._newest_first(repository))[0].version

    async def _newest_first(self, repository: Repository) -> list[Candidate]:
        publisher = repository.candidates[0].publisher
        logged = await self._ledger.run(self._ledger.tables.proven.publications, repository.name, publisher)
        numbers = {found.version: found.number for found in logged.found}
        return sorted(repository.candidates, key=lambda found: numbers.get(found.version, 0), reverse=True)

    async def _versions(self, snapshot: Snapshot) -> list[VersionView]:
        try:
            repository = await self.catalogue.repository(snapshot.repository)
        except ComityError:
            return []
        if repository.mirrored:
            return []
        ordered, shown = await self._newest_first(repository), snapshot.artifact
        return [VersionView(c.version, c.artifact, c.withdrawn, c.artifact == shown) for c in ordered[:MAX_STATEMENTS]]

    async def _card(self, snapshot: Snapshot) -> tuple[Markup | None, str, bool]:
        entry = next((snapshot.manifest.by_path[path] for path in CARDS if path in snapshot.manifest.by_path), None)
        if entry is None or entry.size > MAX_CARD_FILE:
            return None, entry.path if entry else "", False
        try:
            data = await self._pools.files(self._read, entry.sha256, entry.size)
        except ComityError:
            return None, entry.path, False
        if sha256(data) != entry.sha256:
            return None, entry.path, False
        return await self._pools.hashing(card_html, data), entry.path, entry.size > MAX_CARD

    def _read(self, digest: Digest, length: int) -> bytes:
        """Blocking. A stored file."""
        return b"".join(self._store.iterate(digest, 0, length)) if length else b""

    def _said_of_it(
        self, evidence: Evidence, publisher: Digest | None
    ) -> tuple[LineageGraph | None, tuple[VouchView, ...], tuple[str, ...]]:
        """The lineage, if any parent is named, the vouches, and the upstream repositories that it is said to
        continue."""
        policy, reader = self.catalogue.judge.policy, self.catalogue.judge.reader
        chosen = counted_publication(evidence, policy, reader, publisher)
        artifact = sha256(evidence.manifest or b"")
        readings = read_claims(evidence.claims, artifact, reader)
        graph, _ = lineage_of(readings, artifact, chosen, policy, readings.bound(policy.pins))
        members = {seat.id for body in policy.pins for seat in body.members}
        vouches = verify_vouches(readings, artifact, readings.authors(policy.pins))[0]
        shown = (
            VouchView(each.vouched.kind, each.vouched.text, each.by.name, each.vouched.by.id in members)
            for each in vouches[:MAX_VOUCHES]
        )
        repositories = continued_repositories(readings.entries, artifact, policy)
        return graph if graph.edges else None, tuple(shown), repositories


def issuers(rows: Sequence[Row]) -> frozenset[Digest]:
    """The identities that are named as who says a fact, without a name."""
    said = (fact.by for row in rows for fact in row.facts)
    return frozenset(Digest(by) for by in said if _IDENTITY.fullmatch(by))


def copies_without(copies: Sequence[CopyView], gone: CopyView, rule: CopyPolicy) -> tuple[int, bool]:
    """The copies that the loss of a member leaves, and whether they meet the rule."""
    left = [copy for copy in copies if copy is not gone and copy.counts]
    return len(left), enough_copies(left, rule)


def enough_copies(copies: Sequence[CopyView], rule: CopyPolicy) -> bool:
    """Whether those that are claimed or here meet the rule."""
    found = [copy for copy in copies if copy.counts]
    jurisdictions, reaches = {copy.jurisdiction for copy in found}, count_reaches(copy.reach for copy in found)
    return (
        len(found) >= rule.min_copies and len(jurisdictions) >= rule.min_jurisdictions and reaches >= rule.min_reaches
    )
