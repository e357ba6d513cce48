"""Resolve a repository and a revision, as Hub clients write them, to an artifact; list the repositories.

main                       the newest version that its publisher has not withdrawn
v1                         that version
sha256:9f2c…               the artifact with this digest
41c2… (40 hex digits)      the artifact with this commit id (`comity.trust.artifact`)

A repository mirrored from an upstream has the commit ids of the upstream, and its own branches (`mirrored`). The owner
of a name is the publisher that the pinned charter binds to the namespace, else the claimant that this node saw first,
which may be the mirror of an upstream repository of that name. Other claimants are rivals: they are listed but change
nothing; a digest or commit is served, no matter who published it. Lists read names in pages from the ledger; a listed
name is only a claim, so callers resolve each and drop those that do not resolve.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import eq
from typing import Final

from comity.content.blobs import BlobStore
from comity.content.gateway_tokens import ALL_REPOSITORIES
from comity.content.inspections import KeptInspections
from comity.gateway.http import ConnectionSlots
from comity.gateway.hub.continued_commits import ContinuedCommits
from comity.gateway.hub.judge import (
    AnswerCache,
    Generations,
    PolicyDecision,
    PolicyJudge,
    StatementChanges,
    changed_name,
)
from comity.gateway.hub.mirrored import FILE_BYTES, MAX_FILES, LocalArtifacts, MirroredRepositories, snapshot_weight
from comity.gateway.hub.model_facts import KnownFacts
from comity.gateway.hub.views import MAIN, Refs, ServedRevision, Snapshot
from comity.ledger.intake import fold_name
from comity.ledger.ledger import Ledger
from comity.ledger.proven import MAX_ANSWER
from comity.ledger.proven import ProvenPublication as Published
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.services.artifact import ArtifactServicer
from comity.node.services.log import LogServicer
from comity.node.services.selections import first_claimants
from comity.node.threads import AsyncLedger, Pools
from comity.rules.artifact_kind import MODEL
from comity.rules.git_ids import commit_id, tree_ids
from comity.trust.artifact import Manifest
from comity.trust.claims import Publication, proven_advisories, read_claims
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.trust.evidence import entry_weight
from comity.trust.frozen import frozen
from comity.trust.home_logs import named_homes
from comity.trust.names import UPSTREAM, Reference, check_segment, is_upstream, origin_of
from comity.trust.resolution import (
    MIRROR,
    Candidate,
    Preference,
    PublisherClaim,
    bound_claimant,
    claimant_label,
    resolved_versions,
    select_candidate,
)
from comity.trust.statement import Author, parse_entry
from comity.trust.statements import Published as StatedName

MAX_OTHERS: Final = 256
"""Maximum number of artifacts of other claimants that are checked for a commit."""
MAX_RIVALS: Final = 8
"""Maximum number of other claimants that are listed."""

CHANGING: Final = frozenset({"cosigners", "stale"})
"""Topics of notices that end when more cosignatures arrive."""
REPOSITORY_BYTES: Final = 8 * 1024 * 1024
PROVEN_BYTES: Final = 2 * 1024 * 1024
"""Bytes of memory of the repositories, and of the statements about artifacts, that are kept between answers."""
MAX_COMMITS: Final = 100_000

_COMMIT: Final = re.compile(r"[0-9a-f]{40}\Z")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}\Z")
_REF: Final = re.compile(r"refs/(?:heads|tags)/")


@dataclass(frozen=True)
class Repository:
    """The proven publications of one publisher under a name, in its own spelling; never empty.

    `preference` is the owner of the name: the publisher, or, if `mirrored`, an upstream repository that nodes mirrored;
    then the publications are of a rival. `rivals` are other claimants, as text.
    """

    name: str
    candidates: tuple[Candidate, ...]
    preference: Preference
    rivals: tuple[str, ...] = ()

    @property
    def subjects(self) -> frozenset[str]:
        """The name, artifacts and publishers that it depends on."""
        found: set[str] = {changed_name(self.name)}
        for candidate in self.candidates:
            found |= {candidate.artifact, candidate.publisher}
        return frozenset(found)

    @property
    def mirrored(self) -> bool:
        return self.preference.claimant == MIRROR

    def newest(self) -> Candidate:
        """Return the candidate of the name without a version. Raises as `select_candidate`."""
        return select_candidate(Reference(self.name, None, None), self.candidates, [self.preference])

    def version(self, version: str) -> Candidate:
        """Return the candidate of a version. Raises as `select_candidate`."""
        found = self.versions.get(version)
        if found is not None:
            return found
        return select_candidate(Reference(self.name, version, None), self.candidates, [self.preference])

    def notices(self) -> tuple[tuple[str, str], ...]:
        """Return a notice about other claimants of the name."""
        if not self.rivals or self.preference.decided:
            return ()
        listed = ", ".join(self.rivals)
        return (
            (
                "name",
                f"{listed} claim {self.name} too; shown is the claimant that this node saw first: claimed, not bound",
            ),
        )

    @functools.cached_property
    def versions(self) -> Mapping[str, Candidate]:
        """Candidates by version; versions that do not resolve are left out."""
        return resolved_versions(self.candidates, self.preference.claimant)


@contextlib.asynccontextmanager
async def open_catalogue(
    ledger: AsyncLedger,
    store: BlobStore,
    pools: Pools,
    membership: Membership,
    judge: PolicyJudge,
    metrics: Metrics,
    inspections: KeptInspections,
) -> AsyncIterator[Catalogue]:
    """Open the catalogue of a running node."""
    catalogue = Catalogue(ledger, store, pools, membership, judge, metrics, inspections)
    try:
        yield catalogue
    finally:
        await catalogue.close()


@frozen
class _Proven:
    """Proven statements about one artifact, as far as names depend on them."""

    publications: tuple[Publication, ...]
    withdrawals: frozenset[Author]

    @property
    def subjects(self) -> frozenset[str] | None:
        """The artifact and its publishers; None if nothing is known of it."""
        found = {publication.publisher.id for publication in self.publications}
        return frozenset(found | {self.publications[0].published.artifact}) if found else None


def branch_or_tag(revision: str) -> str:
    """Return a revision without the prefix refs/heads/ or refs/tags/."""
    return _REF.sub("", revision, count=1)


def publications_weight(publications: Iterable[Publication]) -> int:
    """Bytes of memory, at most: each statement as it was logged and parsed, and the keys of its publisher."""
    return 1024 + sum(2 * entry_weight(each.entry.line) for each in publications)


class Catalogue:
    """The repositories that this node serves as a Hub. Not thread-safe: call from the event loop.

    Attributes:
        judge: decides what is served.
        local_artifacts: local evidence and manifests.
        continued: who says which bytes the commits of upstreams had.
        facts: what files say about a model.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        store: BlobStore,
        pools: Pools,
        membership: Membership,
        judge: PolicyJudge,
        metrics: Metrics,
        inspections: KeptInspections,
    ) -> None:
        self._ledger = ledger
        self._pools = pools
        self._membership = membership
        self.judge = judge
        self._artifacts = ArtifactServicer(ledger, membership, metrics)
        self.local_artifacts = LocalArtifacts(
            ledger, store, pools, self._artifacts, LogServicer(ledger), judge, inspections
        )
        now = Generations(ledger, self._basis).now
        self._mirrors = MirroredRepositories(ledger, pools, membership, judge, self.local_artifacts, now)
        self.changes = changes = StatementChanges(ledger, membership, self._basis)
        self._repositories: AnswerCache[str, Repository] = AnswerCache(
            now,
            REPOSITORY_BYTES,
            lambda found: publications_weight(each.publication for each in found.candidates),
            changes,
            lambda found: found.subjects,
            unit=1,
        )
        self._proven: AnswerCache[tuple[Digest, frozenset[Digest]], _Proven] = AnswerCache(
            now,
            PROVEN_BYTES,
            lambda found: publications_weight(found.publications),
            changes,
            lambda found: found.subjects,
            unit=1,
        )
        self._snapshots: AnswerCache[tuple[str, Digest], Snapshot] = AnswerCache(
            now, MAX_FILES, snapshot_weight, changes, self._subjects_of, unit=FILE_BYTES
        )
        self.continued = ContinuedCommits(self.local_artifacts, now, changes)
        self._commits: dict[Digest, str] = {}
        self.facts = KnownFacts(store, pools)

    def _basis(self) -> str:
        return self.judge.basis

    def _subjects_of(self, snapshot: Snapshot) -> tuple[str, ...] | None:
        """What a snapshot depends on; None if proofs or files that are missing yet may change it."""
        if self.judge.inspects_files or any(topic in CHANGING for topic, _ in snapshot.notices):
            return None
        if not isinstance(snapshot.claim, StatedName):
            return None
        return changed_name(snapshot.repository), snapshot.artifact, snapshot.claim.by, *snapshot.subjects

    async def repository(self, name: str) -> Repository:
        """Raises NotFound (NO-SUCH-REPOSITORY)."""
        parts = name.split("/")
        try:
            for part in parts:
                check_segment(part, "name")
        except Malformed as error:
            raise _no_repository(name) from error
        if len(parts) != 2:
            raise _no_repository(name)
        return await self._repositories.get(name.lower(), lambda: self._find(name))

    async def snapshot(self, name: str, revision: str) -> Snapshot:
        """Raises NotFound (NO-SUCH-REPOSITORY, NO-SUCH-REVISION), and PolicyNotMet, Untrusted or Unavailable if it must
        not be served."""
        try:
            repository = await self.repository(name)
            candidate = await self._candidate(repository, revision)
        except NotFound as error:
            mirrored = await self._mirrors.snapshot(name, branch_or_tag(revision))
            if mirrored is not None:
                return mirrored
            if await self._mirrors.repository(name) is None:
                raise
            raise NotFound(f"{name} has no {revision[:80]!r}", why=error.why, code="NO-SUCH-REVISION") from error
        key = repository.name, candidate.publication.entry.digest  # two versions may have the same bytes
        return await self._snapshots.get(key, lambda: self._open(repository, candidate))

    async def canonical_name(self, name: str) -> str:
        """Return the name of a repository as its publisher or upstream writes it. Raises NotFound
        (NO-SUCH-REPOSITORY)."""
        try:
            return (await self.repository(name)).name
        except NotFound:
            mirrored = await self._mirrors.repository(name)
            if mirrored is None:
                raise
            return mirrored.name

    async def refs(self, name: str) -> Refs:
        """Return the versions of a repository, and its main one. Raises NotFound (NO-SUCH-REPOSITORY)."""
        await self.canonical_name(name)
        mirrored = await self._mirrors.repository(name)
        commits = dict(mirrored.refs) if mirrored else {}
        main = commits.pop(MAIN, None) or (mirrored.commit(MAIN) if mirrored else None)
        withdrawn, kind = frozenset[str](), MODEL
        with contextlib.suppress(NotFound):
            repository = await self.repository(name)
            if repository.mirrored:
                return Refs(commits, main)
            own = {version: await self.commit(found) for version, found in repository.versions.items()}
            commits |= {version: commit for version, commit in own.items() if commit}
            withdrawn = frozenset(version for version, found in repository.versions.items() if found.withdrawn)
            try:
                newest = repository.newest()
                main, kind = (
                    await self.commit(newest),
                    await self.local_artifacts.kind(newest.artifact, newest.publisher),
                )
            except ComityError:
                main = None  # withdrawn or disputed: the name has no main version
        return Refs(commits, main, withdrawn, kind)

    async def is_withdrawn(self, name: str, artifact: Digest) -> bool:
        """Whether the publisher of a name yanked or superseded an artifact. `name`: the artifact's own, as
        `Snapshot.own_repository`."""
        try:
            repository = await self.repository(name)
        except NotFound:
            return False
        return any(each.withdrawn for each in repository.candidates if each.artifact == artifact)

    async def revisions(self, name: str) -> list[ServedRevision]:
        """Return all served revisions of a repository, the newest last. Raises NotFound (NO-SUCH-REPOSITORY)."""
        await self.canonical_name(name)
        mirrored = await self._mirrors.repository(name)
        commits = mirrored.commits if mirrored else ()
        found = [ServedRevision(commit, mirrored.selected(commit).observed.manifest) for commit in commits if mirrored]
        with contextlib.suppress(NotFound):
            for version, own in (await self.repository(name)).versions.items():
                found.append(ServedRevision(version, own.publication.published.manifest, own.publisher))
        return found

    async def commit(self, candidate: Candidate) -> str | None:
        """Return the commit id of a version; None if its manifest is missing or corrupt."""
        if candidate.artifact not in self._commits:
            try:
                await self._manifest_of(candidate)
            except ComityError:
                return None
        return self._commits.get(candidate.artifact)

    async def close(self) -> None:
        await self._repositories.close()
        await self._proven.close()
        await self._snapshots.close()
        await self.continued.close()
        await self._mirrors.close()

    async def _find(self, name: str) -> Repository:
        decision = bound_claimant(self.judge.policy, name)
        bound = decision.claimant.publisher if decision else None
        first = await self._ledger.run(
            first_claimants, self._ledger.tables.proven, self._membership.node_ids, name, MAX_RIVALS + 1
        )
        publisher = bound or next((found.identity for found in first if found.identity is not None), None)
        if publisher is None:
            raise _no_repository(name)
        positions = await self._ledger.run(self._claims, name, publisher)
        candidates = await self._candidates(name, positions)
        if not candidates:
            raise _no_repository(name)
        canonical_name = candidates[0].publication.published.name.repository
        preference = decision or Preference(PublisherClaim(first[0].identity), "first seen")
        labels = {found.identity: found.label for found in first if found.identity is not None}
        others = (PublisherClaim(found.identity) for found in first)
        rivals = tuple(claimant_label(each, canonical_name, labels) for each in others if each != preference.claimant)
        return Repository(canonical_name, candidates, preference, rivals[:MAX_RIVALS])

    async def _candidates(self, name: str, positions: Mapping[bytes, list[tuple[str, int]]]) -> tuple[Candidate, ...]:
        """Return what the authors of the lines in `positions` are proven to have published under the name."""
        artifacts: dict[Digest, set[Digest]] = {}
        for entry in map(parse_entry, positions):
            if entry.statement.by is not None:
                artifacts.setdefault(entry.statement.subject, set()).add(entry.statement.by.id)
        found: list[Candidate] = []
        for artifact, publishers in artifacts.items():
            key = artifact, frozenset(publishers)
            proven = await self._proven.get(key, functools.partial(self._prove, *key))
            stated = (p for p in proven.publications if p.published.name.repository.lower() == name.lower())
            for publication in (p for p in stated if p.publisher.id in publishers):
                home = self._membership.home_logs(named_homes(publication.chain))
                position = home.position(positions.get(publication.entry.line, ()))
                found.append(Candidate(publication, position, publication.publisher.author in proven.withdrawals))
        return tuple(found)

    async def _others(self, name: str, artifact: Digest | None) -> tuple[Candidate, ...]:
        """Return publications of any publisher under the name: of the given artifact, or up to a limit."""
        positions = await self._ledger.run(self._claims, name, None, artifact, MAX_OTHERS)
        return await self._candidates(name, positions)

    async def _candidate(self, repository: Repository, revision: str) -> Candidate:
        revision = branch_or_tag(revision)
        try:
            if revision == MAIN:
                return repository.newest()
            if _DIGEST.match(revision):
                artifact = Digest(revision.removeprefix("sha256:"))
                own = [c for c in repository.candidates if c.artifact == artifact]
                return _first(own or await self._others(repository.name, artifact))
            if _COMMIT.match(revision):
                own = [c for c in repository.candidates if await self.commit(c) == revision]
                others = () if own else await self._others(repository.name, None)
                return _first(own or [c for c in others if await self.commit(c) == revision])
            return repository.version(check_segment(revision, "version"))
        except (NotFound, Malformed) as error:
            why = str(error) or "its publisher has no such version"
            raise NotFound(f"{repository.name} has no {revision[:80]!r}", why=why, code="NO-SUCH-REVISION") from error

    async def _open(self, repository: Repository, candidate: Candidate) -> Snapshot:
        manifest, commit = await self._manifest_of(candidate)
        judgement, subjects = await self._judged(candidate, manifest)
        if judgement.refusal is not None:
            raise judgement.refusal
        trees = await self._pools.hashing(tree_ids, manifest)
        publication = candidate.publication
        known = await self._ledger.run(self._ledger.tables.proven_times.known_since, [candidate.artifact])
        kind = await self.local_artifacts.kind(candidate.artifact, candidate.publisher)
        return Snapshot(
            repository=repository.name,
            artifact=candidate.artifact,
            claim=publication.published,
            label=candidate.version,
            licence=publication.published.licence.spdx,
            author=publication.publisher.display,
            manifest=manifest,
            commit=commit,
            trees=trees,
            notices=(*repository.notices(), *judgement.notices),
            subjects=subjects,
            known_since=known.get(candidate.artifact, 0),
            kind=kind,
        )

    async def _judged(self, candidate: Candidate, manifest: Manifest) -> tuple[PolicyDecision, frozenset[str]]:
        """The decision, and the subjects on which it depends."""
        found = await self.local_artifacts.evidence(manifest, candidate.publisher)
        title = str(candidate.publication.published.name)
        decision = await self._pools.hashing(self.judge.judge, found.evidence, title, candidate.publisher)
        return decision, found.subjects

    async def _manifest_of(self, candidate: Candidate) -> tuple[Manifest, str]:
        manifest = await self._pools.files(self.local_artifacts.manifest, candidate.publication.published.manifest)
        commit = self._commits.get(candidate.artifact)
        if commit is None:
            commit = await self._pools.hashing(commit_id, manifest)
            if len(self._commits) >= MAX_COMMITS:
                self._commits.clear()
            self._commits[candidate.artifact] = commit
        return manifest, commit

    async def _prove(self, artifact: Digest, publishers: Collection[Digest]) -> _Proven:
        lines = [located.line async for located in self._artifacts.claims(artifact, publishers)]
        readings = await self._pools.hashing(read_claims, lines, artifact, self.judge.reader)
        said = proven_advisories(readings, artifact)
        return _Proven(readings.publications, frozenset(each.by for each in said if each.withdraws_for(each.by.id)))

    def _claims(
        self, name: str, publisher: Digest | None, artifact: Digest | None = None, most: int = MAX_ANSWER
    ) -> dict[bytes, list[tuple[str, int]]]:
        """Return the lines that claim the name, with their places (verifier key of a log, index); only those of
        `publisher` if given."""
        positions: dict[bytes, list[tuple[str, int]]] = {}
        for found in self._published(name, publisher, artifact, most):
            positions.setdefault(found.line, []).append((found.vkey, found.index))
        return positions

    def _published(
        self, name: str, publisher: Digest | None, artifact: Digest | None, most: int
    ) -> Iterator[Published]:
        proven = self._ledger.tables.proven
        if artifact is not None:
            publications = proven.publications_of(artifact, most, self._membership.precedence).found
            yield from (found for found in publications if fold_name(found.repository) == fold_name(name))
            return
        claimants = [publisher] if publisher else [first.publisher for first in proven.claimants(name).found]
        for claimant in claimants:
            yield from proven.publications(name, claimant, None, max(1, most // len(claimants))).found


def _first(candidates: Iterable[Candidate]) -> Candidate:
    for candidate in candidates:
        return candidate
    raise NotFound("")


def _no_repository(name: str) -> NotFound:
    return NotFound(f"this node serves no {name[:200]!r}", code="NO-SUCH-REPOSITORY")


PAGE: Final = 500
"""Names read from the ledger per page."""
LAST: Final = "\U0010ffff"
MAX_RARE: Final = 2_000
"""Publications with the words of a search that are sorted by name; with more, names are read in order."""
SEARCHES: Final = 3
"""Lists that are read at once for readers: the eight threads of the ledger serve the whole node."""
SCANNED: Final = 20_000
"""Maximum number of names scanned per request. A page may be short, with a cursor to continue."""


class RepositoryList:
    """Repository names, without case: in their order, or, for people, in one in which publishers take turns.

    Attributes:
        ledger: has the names.
        searches: a request holds one of these slots while it reads names.
    """

    def __init__(self, ledger: AsyncLedger) -> None:
        self.ledger = ledger
        self.searches = ConnectionSlots(SEARCHES, "lists")

    async def names(
        self, words: str, author: str, after: str, most: int, reach: Sequence[str], *, in_turn: bool = False
    ) -> tuple[list[str], str]:
        """Return at most `most` names after `after` that contain all of `words`, and are of `author` if given; and the
        cursor to continue, empty at the end.

        With `in_turn`, publishers take turns if everything is listed; an author's or a token's part of it is in the
        order of the names. Only names within `reach` (as `Token.reach`) are returned, used as a cursor, which the
        reader sees, or read.
        """
        within = _parts_within(f"{fold_name(author)}/" if author else "", reach)
        find = _in_turn if in_turn and within == [""] else functools.partial(_with_words, within=within)
        return await self.ledger.run(self._find, words, after, most, find)

    def _find(
        self, words: str, after: str, most: int, find: Callable[[Ledger, Sequence[str], str], Iterator[str]]
    ) -> tuple[list[str], str]:
        wanted, found = fold_name(words).split(), list[str]()
        for scanned, name in enumerate(find(self.ledger.tables, wanted, fold_name(after)), 1):
            if all(word in name for word in wanted):
                found.append(name)
            if len(found) == most or scanned >= SCANNED:
                return found, name
        return found, ""


def _parts_within(prefix: str, reach: Sequence[str]) -> list[str]:
    """Return what is to be read for names with a prefix, in order: names, and prefixes that end in a slash or are
    empty, none within another."""
    parts = {"" if each == ALL_REPOSITORIES else fold_name(each).removesuffix("*") for each in reach}
    wanted = {prefix if prefix.startswith(part) else part for part in parts if _overlap(prefix, part)}
    return sorted(part for part in wanted if not any(_is_within(part, other) for other in wanted - {part}))


def is_within_reach(name: str, reach: Sequence[str]) -> bool:
    """Whether a folded name is within `reach` (as `Token.reach`)."""
    return any(name == part or _is_within(name, part) for part in _parts_within("", reach))


def _overlap(prefix: str, part: str) -> bool:
    return part.startswith(prefix) or _is_within(prefix, part)


def _is_within(name: str, part: str) -> bool:
    """Whether a name, or a prefix, is within a part that is a prefix."""
    return (not part or part.endswith("/")) and name.startswith(part)


def _with_words(ledger: Ledger, words: Sequence[str], after: str, within: Sequence[str]) -> Iterator[str]:
    """Yield the names after `after` within these parts, in order; if few names have the words, those alone."""
    rare = ledger.proven.names_with(words, MAX_RARE) if within else []
    if rare is None:
        for part in within:
            names = _all(ledger, after, part)
            yield from names if _is_within(part, part) else itertools.takewhile(functools.partial(eq, part), names)
        return
    for name in sorted({name.removeprefix(UPSTREAM) for name in rare}):
        if name > after and not is_upstream(name) and any(name == part or _is_within(name, part) for part in within):
            yield name


def _in_turn(ledger: Ledger, words: Sequence[str], after: str) -> Iterator[str]:
    """Yield the names after `after`, publishers in turn; if few names have the words, those alone."""
    rare = ledger.proven.names_with(words, MAX_RARE)
    if rare is None:
        while page := ledger.proven.names_in_turn(after, PAGE):
            yield from (name for name in page if not is_upstream(name))
            after = page[-1]
        return
    places = ledger.proven.name_places([*{name.removeprefix(UPSTREAM) for name in rare}, *([after] if after else [])])
    first = places.get(after, (-1, ""))
    yield from (
        name
        for place, name in sorted((place, name) for name, place in places.items())
        if place > first and not is_upstream(name)
    )


def _all(ledger: Ledger, after: str, prefix: str) -> Iterator[str]:
    """Yield names after `after` that begin with `prefix`, published here or mirrored, without duplicates."""
    last = ""
    mirrored = (name.removeprefix(UPSTREAM) for name in _named(ledger, UPSTREAM + after, UPSTREAM + prefix))
    for name in heapq.merge(_published(ledger, after, prefix), mirrored):
        if name != last and name > after:
            yield name
        last = name


def _published(ledger: Ledger, after: str, prefix: str) -> Iterator[str]:
    """Yield names that are not of an upstream; those of one origin are contiguous in the order and skipped at once."""
    skipped = True
    while skipped:
        skipped = False
        for name in _named(ledger, after, prefix):
            if origin := origin_of(name):
                after, skipped = origin + LAST, True
                break
            yield name


def _named(ledger: Ledger, after: str, prefix: str) -> Iterator[str]:
    while page := ledger.proven.repositories(after, prefix, PAGE):
        yield from page
        after = page[-1]
