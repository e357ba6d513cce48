"""Repositories that nodes mirrored from an upstream, under their own names and commit ids; and local evidence and
files.

6c12… (40 hex digits)   the commit, if any node of this federation observed it
main, v1.0, …           what this node mirrored last under that name; else `main` is the commit that most members
                        fetched, and of equals the one that was proven here first

No publisher signed them, and readers get a notice. If nodes saw different bytes for one commit, a node serves what it
fetched itself; else what most members fetched, each member once; of equals, what was proven here first, so a later
observation never replaces an earlier one. Readers get a notice of the others.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

from comity.content.blobs import BlobStore
from comity.content.inspections import KeptInspections
from comity.gateway.hub.judge import AnswerCache, PolicyJudge, changed_name
from comity.gateway.hub.views import MAIN, Snapshot
from comity.node.evidence import LedgerCollector
from comity.node.members import Membership
from comity.node.services.artifact import ArtifactServicer
from comity.node.services.log import LogServicer
from comity.node.threads import AsyncLedger, Pools
from comity.rules.artifact_kind import claimed_kind, kind_of
from comity.rules.collector import Question
from comity.rules.continuation import ContinuedCommit, continued_commits, upstream_key
from comity.rules.git_ids import tree_ids
from comity.rules.image_summary import SaidOfImage, of_images
from comity.rules.precedence import Precedence
from comity.trust.artifact import MAX_MANIFEST, Manifest
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import Malformed, NotFound, Unavailable
from comity.trust.evidence import MAX_MODEL_SIG, MODEL_SIG, Evidence, FoundFile, InclusionEvidence
from comity.trust.frozen import frozen
from comity.trust.key_validity import KeyCircumstances
from comity.trust.names import UPSTREAM
from comity.trust.statement import Author, Entry, SideObject, parse_entry
from comity.trust.statement_kinds import ADVISORY, IMAGE_SIGNED, IMAGE_VERIFIED
from comity.trust.upstream import Observed, is_commit


@frozen
class JudgedEvidence:
    """What a judgement is made from, and the subjects on which it depends (`StatementChanges`)."""

    evidence: Evidence
    subjects: frozenset[str]


@frozen
class LocalStatements:
    """Lines about an artifact; `more`: a limit left others out."""

    lines: tuple[bytes, ...] = ()
    more: bool = False


class LocalArtifacts:
    """Reads manifests, files and evidence of this node. Blocking, except what is a coroutine."""

    def __init__(
        self,
        ledger: AsyncLedger,
        store: BlobStore,
        pools: Pools,
        artifacts: ArtifactServicer,
        logs: LogServicer,
        judge: PolicyJudge,
        inspections: KeptInspections,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._artifacts = artifacts
        self._judge = judge
        self._inspections = inspections
        self._collector = LedgerCollector(artifacts, logs, store, pools, judge.reader)

    async def evidence(self, manifest: Manifest, publisher: Digest | None = None) -> JudgedEvidence:
        """Return everything here on which a verdict about an artifact depends, and the files that are here. Raises
        NotFound if nothing is said here about it.

        Args:
            publisher: the identity to whose name the artifact belongs.
        """
        found = await self._collector.collect(manifest.digest, self._judge.policy, publisher)
        files = await self._pools.files(self._stored_files, manifest)
        model_sig = await self._pools.files(self._model_sig, manifest)
        evidence = found.evidence(manifest.encode(), files, partial=True, model_sig=model_sig)
        return JudgedEvidence(evidence, frozenset(map(_subject, found.collector.asked)))

    async def statements(self, artifact: Digest) -> LocalStatements:
        """Return the proven lines here about an artifact, and the lines that prove their authors. Raises NotFound."""
        found = [located async for located in self._artifacts.claims(artifact)]
        return LocalStatements(tuple(each.line for each in found), any(each.more or each.others for each in found))

    async def kind(self, artifact: Digest, publisher: Digest) -> str:
        """Return what the publisher of an artifact states of its kind; where it reports the loss of a key, by the
        evidence here."""
        pair = artifact, publisher
        stated = (await self._ledger.run(self._ledger.tables.listed.stated_kinds, [pair])).get(pair, ())
        if not stated or not await self._ledger.run(self._has_warned_of_itself, publisher):
            return kind_of(stated)
        found = await self._collector.collect(artifact, self._judge.policy, publisher)
        given = found.circumstances(self._judge.reader)
        return await self._pools.hashing(claimed_kind, given, publisher, artifact)

    async def said_of_image(self, artifact: Digest, publisher: Digest | None, image: Digest) -> SaidOfImage:
        """Return what counts here of what is signed about the image manifest `image`: the signatures by the publisher
        of the artifact, and the summaries by members and by those whom the policy names.

        Args:
            publisher: None for a repository that was mirrored.
        """
        policy = self._judge.policy
        members = {member.id for body in policy.pins for member in body.members}
        authors = frozenset({*members, *policy.named, *([publisher] if publisher else [])})
        if not await self._ledger.run(self._has_said_of_image, artifact, authors):
            return SaidOfImage()
        found = await self._collector.collect(artifact, policy, publisher)
        proofs = list[InclusionEvidence]()
        for entry in of_images(found.claims, authors, artifact):
            proofs += [InclusionEvidence(entry.digest, data) for data in await self.proofs(entry.digest)]
        given = KeyCircumstances(found.claims, tuple(proofs), found.bound, policy, {}, self._judge.reader)
        return await self._pools.hashing(SaidOfImage.of, given, authors, publisher, artifact, image)

    async def continued_commits(self, repository: str) -> Mapping[str, ContinuedCommit]:
        """Return who says here which bytes the commits of an upstream repository (`hf:org/name`) had, by the name of
        the commit in lower case."""
        policy = self._judge.policy
        try:
            found = await self._collector.collect(upstream_key(repository), policy)
        except NotFound:  # nobody says anything
            return {}
        return await self._pools.hashing(continued_commits, found.circumstances(self._judge.reader))

    def _has_said_of_image(self, artifact: Digest, authors: frozenset[Digest]) -> bool:
        """Blocking. Whether one of these identities signed something about an image of the artifact, whatever others
        sign."""
        kinds = (IMAGE_SIGNED, IMAGE_VERIFIED)
        about = self._ledger.tables.proven.about(artifact, kinds, 1, Precedence(authors))
        said = (parse_entry(found.line).statement.by for found in about.found)
        return any(by is not None and by.id in authors for by in said)

    def _has_warned_of_itself(self, publisher: Digest) -> bool:
        """Blocking. Whether an identity signed an advisory about itself, as one about a lost key is."""
        about = self._ledger.tables.proven.about(publisher, (ADVISORY,), 1, Precedence(frozenset({publisher})))
        said = (parse_entry(found.line).statement.by for found in about.found)
        return any(by is not None and by.id == publisher for by in said)

    async def withdrawn(self, artifact: Digest) -> bool:
        """Return whether this node withdrew its copy, by its own log, and claims no new one there."""
        claims = await self._ledger.run(self._ledger.tables.replicas.copies, [artifact])
        return artifact in claims and not claims[artifact].stands

    async def proofs(self, line: Digest) -> tuple[bytes, ...]:
        """As `LedgerCollector.proofs`."""
        return await self._collector.proofs(line)

    def _model_sig(self, manifest: Manifest) -> bytes | None:
        entry = manifest.by_path.get(MODEL_SIG)
        if entry is None or entry.size > MAX_MODEL_SIG or not self._store.has(entry.sha256):
            return None
        data = b"".join(self._store.iterate(entry.sha256, 0, entry.size))
        return data if sha256(data) == entry.sha256 else None

    def manifest(self, item: SideObject) -> Manifest:
        """Raises NotFound, Malformed, and Unavailable (BLOB-DAMAGED) if its hash does not match."""
        if item.size > MAX_MANIFEST:
            raise Malformed("document too large", why=f"{item.size} bytes, at most {MAX_MANIFEST} are read")
        manifest = Manifest.parse(b"".join(self._store.iterate(item.digest, 0, item.size)))
        if manifest.digest != item.digest:
            why = f"the object stored as {short(item.digest)} has another hash"
            raise Unavailable("a stored manifest is corrupt", why=why, code="BLOB-DAMAGED")
        return manifest

    def _stored_files(self, manifest: Manifest) -> tuple[FoundFile, ...]:
        """Return the files that are stored here, each with its inspection; the store verified them on receipt. Without
        a policy of this node that needs them, at most `MAX_INSPECTED` are inspected now."""
        store, found, made = self._store, list[FoundFile](), 0
        for entry in manifest.files:
            if entry.size and not store.has(entry.sha256):
                continue
            seen = self._inspections.kept(entry.sha256, entry.path)
            if seen is None and (self._judge.inspects_files or made < MAX_INSPECTED):
                seen, made = self._inspections.inspect(store, entry), made + 1
            found.append(FoundFile(entry.path, entry.size, entry.sha256, inspection=seen))
        return tuple(found)


MAX_INSPECTED: Final = 64
"""Files that an answer waits for; the node inspects the others in the background."""


def _subject(question: Question) -> str:
    return changed_name(question.subject) if question.kind in ("name", "commit") else question.subject


MAX_CLAIMS: Final = 1_000
MAX_FILES: Final = 300_000
"""Maximum number of files in all cached manifests, about 150 MB."""
FILE_BYTES: Final = 512
"""Bytes of memory of a file in a cached manifest."""
SNAPSHOT_FILES: Final = 16
"""Files that weigh as much as the rest of a snapshot: names, claim, notices, folders."""


@frozen
class ObservedArtifact:
    """One artifact observed for a commit: one statement (preferably of this node), and the `members` whose nodes
    fetched it; `here`: this node fetched it."""

    entry: Entry
    observed: Observed
    members: frozenset[Digest]
    here: bool

    def merged(self, other: ObservedArtifact) -> ObservedArtifact:
        best = other if other.here and not self.here else self
        return replace(best, members=self.members | other.members, here=self.here or other.here)


@frozen
class MirroredRepository:
    """Proven observations of one repository: by commit, the artifacts, both in the order in which they were proven
    here; and the branches and tags of this node. `name` has the spelling of the upstream."""

    name: str
    commits: Mapping[str, Mapping[Digest, ObservedArtifact]]
    refs: Mapping[str, str]

    def commit(self, revision: str) -> str | None:
        """Return the commit of a revision."""
        if revision in self.commits:
            return revision
        if revision == MAIN and MAIN not in self.refs:
            return max(self.commits, key=lambda commit: len(self._fetched(commit)))  # ties: the first
        named = (c for c, found in self.commits.items() if any(f"sha256:{artifact}" == revision for artifact in found))
        return self.refs.get(revision) or next(named, None)

    def selected(self, commit: str) -> ObservedArtifact:
        """Return the artifact to serve for a commit: what this node fetched, else what most members fetched, else what
        was proven first. A member that fetched different bytes for one commit is not counted."""
        found = self.commits[commit]
        counts = Counter(member for seen in found.values() for member in seen.members)
        return max(found.values(), key=lambda seen: _priority(seen, counts))

    def _fetched(self, commit: str) -> frozenset[Digest]:
        """Return the members that fetched the commit, with any bytes."""
        return frozenset(member for seen in self.commits[commit].values() for member in seen.members)

    def notices(self, commit: str, artifact: Digest) -> tuple[tuple[str, str], ...]:
        """Return a notice if other bytes were observed for the commit."""
        others = {digest: seen for digest, seen in self.commits[commit].items() if digest != artifact}
        if not others:
            return ()
        listed = "; ".join(f"sha256:{short(digest)} by {len(seen.members)}" for digest, seen in sorted(others.items()))
        return (("upstream", f"other bytes were observed for this commit, by number of members: {listed}"),)


def _priority(seen: ObservedArtifact, counts: Counter[Digest]) -> tuple[bool, int]:
    return seen.here, sum(counts[member] == 1 for member in seen.members)


def snapshot_weight(made: Snapshot) -> int:
    """What a snapshot weighs in a cache, counted in files."""
    return SNAPSHOT_FILES + len(made.manifest.files)


class MirroredRepositories:
    """The mirrored repositories of this node. Not thread-safe: call from the event loop."""

    def __init__(
        self,
        ledger: AsyncLedger,
        pools: Pools,
        membership: Membership,
        judge: PolicyJudge,
        local_artifacts: LocalArtifacts,
        now: Callable[[], Awaitable[int]],
    ) -> None:
        self._ledger = ledger
        self._pools = pools
        self._membership = membership
        self._judge = judge
        self._local_artifacts = local_artifacts
        self._repositories: AnswerCache[str, MirroredRepository | None] = AnswerCache(now, 4_096)
        self._snapshots: AnswerCache[Digest, Snapshot] = AnswerCache(now, MAX_FILES, snapshot_weight, unit=FILE_BYTES)

    async def repository(self, name: str) -> MirroredRepository | None:
        """Return None if no node mirrored a repository of that name."""
        work = functools.partial(self._ledger.run, self._find, name)
        return await self._repositories.get(name.lower(), work)

    async def snapshot(self, name: str, revision: str) -> Snapshot | None:
        """Return None for an unknown repository or revision. Raises PolicyNotMet, Untrusted or Unavailable if it must
        not be served."""
        repository = await self.repository(name)
        commit = repository.commit(revision) if repository else None
        if repository is None or commit is None:
            return None
        seen = repository.selected(commit)
        key = sha256(f"{seen.entry.digest} {sorted(repository.commits[commit])}".encode())
        return await self._snapshots.get(key, lambda: self._open(repository, seen.entry, seen.observed))

    async def close(self) -> None:
        await self._repositories.close()
        await self._snapshots.close()

    async def _open(self, repository: MirroredRepository, entry: Entry, observed: Observed) -> Snapshot:
        manifest = await self._pools.files(self._local_artifacts.manifest, observed.manifest)
        found = await self._local_artifacts.evidence(manifest)
        title = observed.upstream.name
        judgement = await self._pools.hashing(self._judge.judge_mirrored, found.evidence, title, entry.digest)
        if judgement.refusal is not None:
            raise judgement.refusal
        known = await self._ledger.run(self._ledger.tables.proven_times.known_since, [observed.artifact])
        return Snapshot(
            repository=repository.name,
            artifact=observed.artifact,
            claim=observed,
            label=observed.upstream.requested,
            licence=observed.conditions.licence,
            author=repository.name.partition("/")[0],
            manifest=manifest,
            commit=observed.upstream.commit,
            trees=await self._pools.hashing(tree_ids, manifest),
            notices=(*repository.notices(observed.upstream.commit, observed.artifact), *judgement.notices),
            subjects=found.subjects,
            known_since=known.get(observed.artifact, 0),
        )

    def _find(self, name: str) -> MirroredRepository | None:
        """Blocking."""
        canonical_name, nodes = "", self._membership.node_ids
        commits: dict[str, dict[Digest, ObservedArtifact]] = {}
        refs: dict[str, str] = {}
        share = max(16, MAX_CLAIMS // len(nodes))
        answer = self._ledger.tables.proven.observations(f"{UPSTREAM}{name}", nodes, None, share)
        for found in sorted(answer.found, key=lambda found: found.number):
            entry = parse_entry(found.line)
            observed = Observed.parse(entry.statement)
            upstream = observed.upstream
            canonical_name = canonical_name or upstream.repository
            seen = self._seen(entry, observed)
            under = commits.setdefault(upstream.commit, {})
            under[observed.artifact] = under[observed.artifact].merged(seen) if observed.artifact in under else seen
            if found.vkey == self._membership.own_node.log and not is_commit(upstream.requested):
                refs[upstream.requested] = upstream.commit
        return MirroredRepository(canonical_name, commits, refs) if commits else None

    def _seen(self, entry: Entry, observed: Observed) -> ObservedArtifact:
        record = self._membership.node(Author("node", observed.by))
        seat = self._membership.member(record.member) if record and observed.fetched else None
        members = frozenset({seat.lineage}) if seat is not None and seat.active else frozenset[Digest]()
        return ObservedArtifact(
            entry, observed, members, observed.fetched and observed.by == self._membership.own_node.record.node.id
        )
