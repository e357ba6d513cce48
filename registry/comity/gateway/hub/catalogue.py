"""From a repository and a revision, as Hub clients write them, to the artifact that this node stands by.

    main                       the newest version that its publisher has not withdrawn
    v1                         that version
    sha256:9f2c…               the artifact with this digest
    41c2… (40 hex digits)      the artifact with this commit id (`comity.trust.artifact`)

A repository that was mirrored from an upstream has the upstream's commit ids, and its own branches (`mirrored`).
Whose word a name is follows the node's pins: the publisher that its charter binds to the namespace, else the claimant
that this node saw first, which may be the mirror of an upstream repository of that name. Others who claim it are
rivals: they are told, and change nothing; what is asked for by digest or commit is served whoever published it.


The repositories there are, for lists and search: names that somebody proves to claim, read from the ledger's tables.

A name here is a claim. Whoever lists it asks the catalogue what it stands for, and leaves out what stands for nothing.
Names are read in pages and kept nowhere, however many there are.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from comity.gateway.hub.judge import AnswerCache, Generations, PolicyDecision, PolicyJudge
from comity.gateway.hub.mirrored import LocalArtifacts, MirroredRepositories
from comity.gateway.hub.views import MAIN, Snapshot
from comity.ledger.intake import fold
from comity.ledger.ledger import Ledger
from comity.ledger.proven import MAX_ANSWER
from comity.ledger.proven import ProvenPublication as Published
from comity.node.context import NodeContext
from comity.node.services.artifacts import ArtifactService, first_claimants
from comity.trust.artifact import Manifest, commit_id, tree_ids
from comity.trust.claims import Publication, proven_advisories, read_claims
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.trust.names import UPSTREAM, Reference, check_segment
from comity.trust.resolution import MIRROR, Candidate, Preference, PublisherClaim, decide, decided, named
from comity.trust.statement import Author, parse_entry
from comity.trust.statements import STATE_SETTING

MAX_OTHERS: Final = 256
"""Artifacts of other claimants that are looked at for one that is asked for by its commit."""
MAX_RIVALS: Final = 8
"""Other claimants that are told."""

MAX_COMMITS: Final = 100_000
MAX_FILES: Final = 300_000
"""Files of all manifests that are kept at hand: about 150 MB."""

_COMMIT: Final = re.compile(r"[0-9a-f]{40}\Z")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}\Z")
_REF: Final = re.compile(r"refs/(?:heads|tags)/")


@dataclass(frozen=True, slots=True)
class Repository:
    """What one publisher is proven to have published under a name, in its own spelling; never empty.

    `preference` says whose the name is: the publisher's, or, where it is `occupied`, that of an upstream repository
    that nodes mirrored; then the publications are a rival's. `rivals` are others who claim it, for people.
    """

    name: str
    candidates: tuple[Candidate, ...]
    preference: Preference
    rivals: tuple[str, ...] = ()

    @property
    def occupied(self) -> bool:
        return self.preference.claimant == MIRROR

    def newest(self) -> Candidate:
        """What the bare name stands for. Raises as `decide`."""
        return decide(Reference(self.name, None, None), self.candidates, [self.preference])

    def version(self, version: str) -> Candidate:
        return decide(Reference(self.name, version, None), self.candidates, [self.preference])

    def notices(self) -> tuple[tuple[str, str], ...]:
        """Who else claims the name, for whoever gets something by it."""
        if not self.rivals or self.preference.decided:
            return ()
        listed = ", ".join(self.rivals)
        return (("name", f"{listed} claim {self.name} too; shown is whom this node saw first: claimed, not bound"),)

    @property
    def versions(self) -> Mapping[str, Candidate]:
        """What each version stands for, those left out that stand for nothing."""
        found: dict[str, Candidate] = {}
        for version in sorted({candidate.version for candidate in self.candidates}):
            try:
                found[version] = self.version(version)
            except ComityError:
                continue
        return found


@contextlib.asynccontextmanager
async def opened(core: NodeContext) -> AsyncIterator[Catalogue]:
    """The catalogue of a running node. Raises NotFound, Malformed and Untrusted for its policy file."""
    catalogue = Catalogue(core, await core.pools.files(PolicyJudge, core))
    try:
        yield catalogue
    finally:
        await catalogue.close()


@dataclass(frozen=True, slots=True)
class _Proven:
    """What is proven to be said of one artifact, as far as names depend on it."""

    publications: tuple[Publication, ...]
    withdrawals: frozenset[Author]


def branch_or_tag(revision: str) -> str:
    """A revision without the folder that git keeps it in."""
    return _REF.sub("", revision, count=1)


class Catalogue:
    """What this node serves as a Hub. One event loop uses it.

    Attributes:
        judge: decides what is served.
        holdings: what there is of it.
    """

    def __init__(self, core: NodeContext, judge: PolicyJudge) -> None:
        self._core = core
        self.judge = judge
        self._artifacts, self.holdings = ArtifactService(core), LocalArtifacts(core, judge)
        now = Generations(core).now
        self._mirrors = MirroredRepositories(core, judge, self.holdings, now)
        self._repositories: AnswerCache[str, Repository] = AnswerCache(now, 4_096, lambda found: len(found.candidates))
        self._proven: AnswerCache[Digest, _Proven] = AnswerCache(now, 4_096, lambda found: 1 + len(found.publications))
        self._snapshots: AnswerCache[tuple[str, Digest], Snapshot] = AnswerCache(
            now, MAX_FILES, lambda made: len(made.manifest.files)
        )
        self._commits: dict[Digest, str] = {}

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
        """Raises NotFound (NO-SUCH-REPOSITORY, NO-SUCH-REVISION), and PolicyNotMet, Untrusted or Unavailable for what
        must not be served."""
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
        key = repository.name, candidate.artifact
        return await self._snapshots.get(key, lambda: self._open(repository, candidate))

    async def spelling(self, name: str) -> str:
        """A repository's name as its publisher or upstream writes it. Raises NotFound (NO-SUCH-REPOSITORY)."""
        try:
            return (await self.repository(name)).name
        except NotFound:
            mirrored = await self._mirrors.repository(name)
            if mirrored is None:
                raise
            return mirrored.name

    async def refs(self, name: str) -> tuple[dict[str, str], str | None]:
        """The commits of all versions, and that of the newest, if any is. Raises NotFound (NO-SUCH-REPOSITORY)."""
        await self.spelling(name)
        mirrored = await self._mirrors.repository(name)
        commits = dict(mirrored.refs) if mirrored else {}
        main = commits.pop(MAIN, None) or (mirrored.commit(MAIN) if mirrored else None)
        with contextlib.suppress(NotFound):
            repository = await self.repository(name)
            if repository.occupied:
                return commits, main
            own = {version: await self.commit(found) for version, found in repository.versions.items()}
            commits |= {version: commit for version, commit in own.items() if commit}
            try:
                main = await self.commit(repository.newest())
            except ComityError:
                main = None  # withdrawn or disputed: the bare name stands for nothing
        return commits, main

    async def revisions(self, name: str) -> list[str]:
        """All that is served of a repository, the newest last. Raises NotFound (NO-SUCH-REPOSITORY)."""
        await self.spelling(name)
        mirrored = await self._mirrors.repository(name)
        found = list(mirrored.commits) if mirrored else []
        with contextlib.suppress(NotFound):
            found += (await self.repository(name)).versions
        return found

    async def commit(self, candidate: Candidate) -> str | None:
        """The commit id of a version; None where its manifest is not here, or damaged."""
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
        await self._mirrors.close()

    async def _find(self, name: str) -> Repository:
        decision = decided(self.judge.policy, name)
        bound = decision.claimant.publisher if decision else None
        first = await self._core.pools.ledger(first_claimants, self._core, name, MAX_RIVALS + 1)
        publisher = bound or next((found.identity for found in first if found.identity is not None), None)
        if publisher is None:
            raise _no_repository(name)
        places = await self._core.pools.ledger(self._claims, name, publisher)
        candidates = await self._candidates(name, places)
        if not candidates:
            raise _no_repository(name)
        spelling = candidates[0].publication.published.name.repository
        preference = decision or Preference(PublisherClaim(first[0].identity), "first seen")
        called = {found.identity: found.label for found in first if found.identity is not None}
        others = (PublisherClaim(found.identity) for found in first)
        rivals = tuple(named(each, spelling, called) for each in others if each != preference.claimant)
        return Repository(spelling, candidates, preference, rivals[:MAX_RIVALS])

    async def _candidates(self, name: str, places: Mapping[bytes, list[tuple[str, int]]]) -> tuple[Candidate, ...]:
        """What those who published the lines in `places` are proven to have published under the name."""
        artifacts: dict[Digest, set[Digest]] = {}
        for entry in map(parse_entry, places):
            if entry.statement.by is not None:
                artifacts.setdefault(entry.statement.subject, set()).add(entry.statement.by.id)
        found: list[Candidate] = []
        for artifact, publishers in artifacts.items():
            proven = await self._proven.get(artifact, functools.partial(self._prove, artifact))
            found += (c for c in _candidates(proven, name, places) if c.publisher in publishers)
        return tuple(found)

    async def _others(self, name: str, artifact: Digest | None) -> tuple[Candidate, ...]:
        """What anybody published under the name: the artifact that is asked for, or as much as is looked at."""
        places = await self._core.pools.ledger(self._claims, name, None, artifact, MAX_OTHERS)
        return await self._candidates(name, places)

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
        judgement = await self._judged(candidate, manifest)
        if judgement.refusal is not None:
            raise judgement.refusal
        trees = await self._core.pools.hashing(tree_ids, manifest)
        publication = candidate.publication
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
        )

    async def _judged(self, candidate: Candidate, manifest: Manifest) -> PolicyDecision:
        evidence = await self.holdings.evidence(manifest, candidate.publication.entry.digest)
        title = str(candidate.publication.published.name)
        return await self._core.pools.hashing(self.judge.judge, evidence, title)

    async def _manifest_of(self, candidate: Candidate) -> tuple[Manifest, str]:
        manifest = await self._core.pools.files(self.holdings.manifest, candidate.publication.published.manifest)
        commit = self._commits.get(candidate.artifact)
        if commit is None:
            commit = await self._core.pools.hashing(commit_id, manifest)
            if len(self._commits) >= MAX_COMMITS:
                self._commits.clear()
            self._commits[candidate.artifact] = commit
        return manifest, commit

    async def _prove(self, artifact: Digest) -> _Proven:
        lines = [located.line async for located in self._artifacts.claims(artifact)]
        readings = await self._core.pools.hashing(read_claims, lines, artifact)
        setting = (a.by for a in proven_advisories(readings, artifact) if a.kind in STATE_SETTING)
        return _Proven(readings.publications, frozenset(setting))

    def _claims(
        self, name: str, publisher: Digest | None, artifact: Digest | None = None, most: int = MAX_ANSWER
    ) -> dict[bytes, list[tuple[str, int]]]:
        """The lines that claim the name, and where they stand; those of `publisher` alone where one is given."""
        places: dict[bytes, list[tuple[str, int]]] = {}
        for found in self._published(name, publisher, artifact, most):
            places.setdefault(found.line, []).append((found.origin, found.index))
        return places

    def _published(
        self, name: str, publisher: Digest | None, artifact: Digest | None, most: int
    ) -> Iterator[Published]:
        proven = self._core.ledger.proven
        if artifact is not None:
            said = proven.publications_of(artifact, most).found
            yield from (found for found in said if fold(found.repository) == fold(name))
            return
        claimants = [publisher] if publisher else [first.publisher for first in proven.claimants(name).found]
        for claimant in claimants:
            yield from proven.publications(name, claimant, None, max(1, most // len(claimants))).found


def _candidates(proven: _Proven, name: str, places: Mapping[bytes, list[tuple[str, int]]]) -> Iterator[Candidate]:
    for publication in proven.publications:
        if publication.published.name.repository.lower() == name.lower():
            standing, home = places.get(publication.entry.line, []), publication.publisher.home
            index = max((index for origin, index in standing if origin == home), default=None)
            yield Candidate(publication, index, publication.publisher.author in proven.withdrawals)


def _first(candidates: Iterable[Candidate]) -> Candidate:
    for candidate in candidates:
        return candidate
    raise NotFound("")


def _no_repository(name: str) -> NotFound:
    return NotFound(f"this node serves no {name[:200]!r}", code="NO-SUCH-REPOSITORY")


PAGE: Final = 500
"""Names that are read from the ledger at a time."""
LAST: Final = "\U0010ffff"
SCANNED: Final = 20_000
"""Names that one request looks at. A page of a search may come back short, with a cursor to go on from."""


class RepositoryList:
    """Repository names in order, without case."""

    def __init__(self, core: NodeContext) -> None:
        self._core = core

    async def names(
        self, words: str, author: str, after: str, most: int, readable: Callable[[str], bool]
    ) -> tuple[list[str], str]:
        """At most `most` names after `after` that hold every one of `words`, and are `author`'s where one is given; and
        the cursor to go on from, empty at the end.

        Only `readable` names are given or become a cursor, which the reader sees.
        """
        return await self._core.pools.ledger(self._find, words, author, after, most, readable)

    def _find(
        self, words: str, author: str, after: str, most: int, readable: Callable[[str], bool]
    ) -> tuple[list[str], str]:
        wanted, prefix = fold(words).split(), f"{fold(author)}/" if author else ""
        found: list[str] = []
        for scanned, name in enumerate(_all(self._core.ledger, fold(after), prefix), 1):
            if not readable(name):
                continue
            if all(word in name for word in wanted):
                found.append(name)
            if len(found) == most or scanned >= SCANNED:
                return found, name
        return found, ""


def _all(ledger: Ledger, after: str, prefix: str) -> Iterator[str]:
    """Names after `after` that begin with `prefix`, each once, whether published here or mirrored from an upstream."""
    last = ""
    mirrored = (name.removeprefix(UPSTREAM) for name in _named(ledger, UPSTREAM + after, UPSTREAM + prefix))
    for name in heapq.merge(_published(ledger, after, prefix), mirrored):
        if name != last and name > after:
            yield name
        last = name


def _published(ledger: Ledger, after: str, prefix: str) -> Iterator[str]:
    """Names of which none is an upstream's: those stand together in the order, and are passed over at once."""
    for name in _named(ledger, after, prefix):
        if name.startswith(UPSTREAM):
            yield from _named(ledger, UPSTREAM + LAST, prefix)
            return
        yield name


def _named(ledger: Ledger, after: str, prefix: str) -> Iterator[str]:
    while page := ledger.proven.repositories(after, prefix, PAGE):
        yield from page
        after = page[-1]
