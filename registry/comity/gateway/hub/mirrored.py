"""What this node has of an artifact, and the evidence about it, for the judge. Blocking, but for `evidence`.

Repositories that nodes mirrored from an upstream, served under their own names with the upstream's commit ids.

    6c12… (40 hex digits)   the commit, by any node of this federation that observed it
    main, v1.0, …           what this node itself mirrored last under that name; without that, `main` is the commit that
                            most members fetched, of equally many the one that was proven here first

No publisher signed them: readers are told so. Where nodes saw different bytes under one commit, a node serves what it
fetched itself; else what most members fetched, each member once; of equally many, what was proven here first: a later
observation never takes an earlier one away. Readers are told of the others.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from comity.content.blobs import look_into
from comity.gateway.hub.judge import AnswerCache, PolicyJudge
from comity.gateway.hub.views import MAIN, Snapshot
from comity.node.context import NodeContext
from comity.node.services.artifacts import ArtifactService
from comity.node.services.logs import LogService
from comity.trust.artifact import MAX_MANIFEST, FileEntry, Manifest, tree_ids
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import Malformed, NotFound, Unavailable
from comity.trust.evidence import Evidence, FoundFile, InclusionEvidence
from comity.trust.names import UPSTREAM
from comity.trust.statement import Author, Entry, SideObject, parse_entry
from comity.trust.upstream import Observed, is_commit


class LocalArtifacts:
    """Reads manifests and files of this node."""

    def __init__(self, core: NodeContext, judge: PolicyJudge) -> None:
        self._core = core
        self._judge = judge
        self._artifacts, self._logs = ArtifactService(core), LogService(core)

    async def evidence(self, manifest: Manifest, line: Digest | None) -> Evidence:
        """All that is said here about an artifact, proofs of one line, if any, and which of its files are here."""
        lines = [located.line async for located in self._artifacts.claims(manifest.digest)]
        proofs: list[InclusionEvidence] = []
        if line is not None:
            with contextlib.suppress(NotFound):  # not under a checkpoint yet: the policy says whether that matters
                proofs += [InclusionEvidence(line, located.proof) async for located in self._logs.proofs(line, None)]
        files = await self._core.pools.files(self._held, manifest)
        return Evidence(manifest.encode(), files, tuple(lines), tuple(proofs), partial=True)

    def manifest(self, item: SideObject) -> Manifest:
        """Raises NotFound, Malformed, and Unavailable (BLOB-DAMAGED) for one that is not what it is called."""
        if item.size > MAX_MANIFEST:
            raise Malformed("document too large", why=f"{item.size} bytes, at most {MAX_MANIFEST} are read")
        manifest = Manifest.parse(b"".join(self._core.store.iterate(item.digest, 0, item.size)))
        if manifest.digest != item.digest:
            why = f"what is stored as {short(item.digest)} hashes to something else"
            raise Unavailable("a manifest is damaged here", why=why, code="BLOB-DAMAGED")
        return manifest

    def _held(self, manifest: Manifest) -> tuple[FoundFile, ...]:
        """The files that are here: what a store has was right when it came in."""
        store = self._core.store
        return tuple(self._found(entry) for entry in manifest.files if entry.size == 0 or store.has(entry.sha256))

    def _found(self, entry: FileEntry) -> FoundFile:
        """Looked into only where this node's policy asks for that: what nobody judges costs nobody a read."""
        seen = None
        if self._judge.looks_into_files:
            seen = look_into(self._core.store, entry.sha256, entry.path, entry.size)
        return FoundFile(entry.path, entry.size, entry.sha256, inspection=seen)


MAX_CLAIMS: Final = 1_000
MAX_FILES: Final = 300_000


@dataclass(frozen=True, slots=True)
class ObservedArtifact:
    """One artifact as it was observed under a commit: by one statement (this node's own if it has one), and the
    `members` whose nodes fetched it; `here` says that this node itself did."""

    entry: Entry
    observed: Observed
    members: frozenset[Digest]
    here: bool

    def also(self, other: ObservedArtifact) -> ObservedArtifact:
        best = other if other.here and not self.here else self
        return replace(best, members=self.members | other.members, here=self.here or other.here)


@dataclass(frozen=True, slots=True)
class MirroredRepository:
    """What is proven to be observed of one repository: by commit, the artifacts, both in the order in which they were
    proven here; and what this node's own branches and tags stand for. `name` is in the upstream's spelling."""

    name: str
    commits: Mapping[str, Mapping[Digest, ObservedArtifact]]
    refs: Mapping[str, str]

    def commit(self, revision: str) -> str | None:
        """The commit that a revision stands for."""
        if revision in self.commits:
            return revision
        if revision == MAIN and MAIN not in self.refs:
            return max(self.commits, key=lambda commit: len(self._fetched(commit)))  # of equally many the first
        named = (c for c, found in self.commits.items() if any(f"sha256:{artifact}" == revision for artifact in found))
        return self.refs.get(revision) or next(named, None)

    def decided(self, commit: str) -> ObservedArtifact:
        """What is served of a commit: what this node fetched, else what most members did, else what was proven here
        first. A member that fetched different bytes under one commit counts for none."""
        found = self.commits[commit]
        said = Counter(member for seen in found.values() for member in seen.members)
        return max(found.values(), key=lambda seen: _merit(seen, said))

    def _fetched(self, commit: str) -> frozenset[Digest]:
        """The members that fetched the commit, whatever bytes they saw."""
        return frozenset(member for seen in self.commits[commit].values() for member in seen.members)

    def notices(self, commit: str, artifact: Digest) -> tuple[tuple[str, str], ...]:
        """That others observed other bytes under the commit."""
        others = {digest: seen for digest, seen in self.commits[commit].items() if digest != artifact}
        if not others:
            return ()
        said = "; ".join(f"sha256:{short(digest)} by {len(seen.members)}" for digest, seen in sorted(others.items()))
        return (("upstream", f"other bytes were observed under this commit, by so many members: {said}"),)


def _merit(seen: ObservedArtifact, said: Counter[Digest]) -> tuple[bool, int]:
    return seen.here, sum(said[member] == 1 for member in seen.members)


class MirroredRepositories:
    """The mirrored repositories of this node. One event loop uses it."""

    def __init__(
        self, core: NodeContext, judge: PolicyJudge, holdings: LocalArtifacts, now: Callable[[], Awaitable[int]]
    ) -> None:
        self._core = core
        self._judge = judge
        self._holdings = holdings
        self._repositories: AnswerCache[str, MirroredRepository | None] = AnswerCache(now, 4_096)
        self._snapshots: AnswerCache[Digest, Snapshot] = AnswerCache(
            now, MAX_FILES, lambda made: len(made.manifest.files)
        )

    async def repository(self, name: str) -> MirroredRepository | None:
        """None where nobody mirrored one of that name."""
        work = functools.partial(self._core.pools.ledger, self._find, name)
        return await self._repositories.get(name.lower(), work)

    async def snapshot(self, name: str, revision: str) -> Snapshot | None:
        """None where there is no such repository or revision. Raises PolicyNotMet, Untrusted or Unavailable for what
        must not be served."""
        repository = await self.repository(name)
        commit = repository.commit(revision) if repository else None
        if repository is None or commit is None:
            return None
        seen = repository.decided(commit)
        key = sha256(f"{seen.entry.digest} {sorted(repository.commits[commit])}".encode())
        return await self._snapshots.get(key, lambda: self._open(repository, seen.entry, seen.observed))

    async def close(self) -> None:
        await self._repositories.close()
        await self._snapshots.close()

    async def _open(self, repository: MirroredRepository, entry: Entry, observed: Observed) -> Snapshot:
        manifest = await self._core.pools.files(self._holdings.manifest, observed.manifest)
        evidence = await self._holdings.evidence(manifest, entry.digest)
        title = observed.upstream.name
        judgement = await self._core.pools.hashing(self._judge.judge_mirrored, evidence, title, entry.digest)
        if judgement.refusal is not None:
            raise judgement.refusal
        return Snapshot(
            repository=repository.name,
            artifact=observed.artifact,
            claim=observed,
            label=observed.upstream.requested,
            licence=observed.conditions.licence,
            author=repository.name.partition("/")[0],
            manifest=manifest,
            commit=observed.upstream.commit,
            trees=await self._core.pools.hashing(tree_ids, manifest),
            notices=(*repository.notices(observed.upstream.commit, observed.artifact), *judgement.notices),
        )

    def _find(self, name: str) -> MirroredRepository | None:
        """Blocking."""
        spelling, nodes = "", self._core.membership.node_ids
        commits: dict[str, dict[Digest, ObservedArtifact]] = {}
        refs: dict[str, str] = {}
        share = max(16, MAX_CLAIMS // len(nodes))
        answer = self._core.ledger.proven.observations(f"{UPSTREAM}{name}", nodes, None, share)
        for found in sorted(answer.found, key=lambda found: found.number):
            entry = parse_entry(found.line)
            observed = Observed.parse(entry.statement)
            upstream = observed.upstream
            spelling = spelling or upstream.repository
            seen = self._seen(entry, observed)
            under = commits.setdefault(upstream.commit, {})
            under[observed.artifact] = under[observed.artifact].also(seen) if observed.artifact in under else seen
            if found.vkey == self._core.log and not is_commit(upstream.requested):
                refs[upstream.requested] = upstream.commit
        return MirroredRepository(spelling, commits, refs) if commits else None

    def _seen(self, entry: Entry, observed: Observed) -> ObservedArtifact:
        record = self._core.membership.node(Author("node", observed.by))
        seat = self._core.membership.member(record.member) if record and observed.fetched else None
        members = frozenset({seat.lineage}) if seat is not None and seat.active else frozenset[Digest]()
        return ObservedArtifact(
            entry, observed, members, observed.fetched and observed.by == self._core.seat.record.node.id
        )
