"""Finds what a digest means in a repository, and keeps what was made of recent artifacts.

A registry client asks for a manifest by a tag, and for everything else by digest. So the versions of the repository are
searched: first the one that was asked for last, then from the newest on. Only those that have the digest are opened and
judged (`digests`). A search that needs more manifests or statements read than one request may is answered by an error
that asks to retry.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

from comity.addons.oci.digests import DigestSet, PackDigests, PackIndex, SearchLimit
from comity.addons.oci.manifests import (
    ModelPack,
    Referrers,
    Statements,
    claims,
    make_pack,
    make_referrers,
    make_statements,
)
from comity.addons.oci.ollama import MANIFEST as OLLAMA_MANIFEST
from comity.addons.oci.ollama import choose_image
from comity.gateway.access_tokens import Permit
from comity.gateway.hub.judge import AnswerCache, Generations, StatementChanges
from comity.gateway.hub.mirrored import FILE_BYTES, LocalStatements
from comity.gateway.hub.read_through import ReadThroughRoutes
from comity.gateway.hub.views import MAIN, ServedRevision, Snapshot
from comity.node.threads import AsyncLedger, Pools
from comity.rules.model_pack import Document
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound
from comity.trust.frozen import frozen
from comity.trust.statement import SideObject
from comity.trust.statements import Published
from comity.trust.upstream import Observed

LATEST: Final = "latest"
"""The tag of clients that were given none."""
MAX_VERSIONS: Final = 256
"""Versions of a repository that are searched for a digest."""
MAX_FILES: Final = 200_000
"""Maximum number of files in all kept packs, about 150 MB with their manifests."""
MAX_BYTES: Final = 32 * 1024 * 1024
"""Maximum bytes of all kept statements, of all kept referrers, and of all proofs that may be asked for, each."""
MAX_DIGEST_BYTES: Final = 4 * 1024 * 1024
"""Maximum bytes of the digests of statements that are kept."""
MAX_RECENT: Final = 4_096
"""Repositories of which the version that was asked for last is kept."""

_About: TypeAlias = tuple[Digest, Digest | None]
"""An artifact, and the publisher of the name under which it is served."""


@frozen
class _StatementDigests:
    """The digests of the statements about a version, and about what a statement changes them."""

    all: DigestSet
    subjects: Collection[str]


@frozen
class FoundBlob:
    """A blob: a file of `snapshot`, or a document that is made here."""

    snapshot: Snapshot
    content: FileEntry | Document


class Registry:
    """Not thread-safe: call from the event loop."""

    def __init__(
        self,
        read_through: ReadThroughRoutes,
        pools: Pools,
        now: Callable[[], Awaitable[int]],
        changes: StatementChanges,
    ) -> None:
        self._read_through = read_through
        self._catalogue = read_through.catalogue
        self._pools = pools
        self._packs: AnswerCache[Digest, ModelPack] = AnswerCache(
            _never_changes, MAX_FILES, lambda p: 1 + len(p.files), unit=FILE_BYTES
        )
        self._statements: AnswerCache[_About, Statements] = AnswerCache(
            now,
            MAX_BYTES,
            lambda found: 1 + found.size,
            changes,
            lambda found: found.subjects,
            unit=1,
        )
        self._referrers: AnswerCache[_About, Referrers] = AnswerCache(
            now, MAX_BYTES, lambda found: 1 + found.size, unit=1
        )
        self._index = PackIndex(pools, self._stored_manifest)
        self._said: AnswerCache[_About, _StatementDigests] = AnswerCache(
            now,
            MAX_DIGEST_BYTES,
            lambda found: 1024 + 8 * len(found.all),
            changes,
            lambda found: found.subjects,
            unit=1,
        )
        self._listed = _RecentDocuments()
        self._recent: OrderedDict[str, ServedRevision] = OrderedDict()

    async def close(self) -> None:
        await self._packs.close()
        await self._statements.close()
        await self._referrers.close()
        await self._said.close()

    async def tagged(self, repository: str, tag: str, permit: Permit) -> Snapshot:
        """Return the artifact of a tag; `latest` is the newest version, unless a version has that name. Raises as
        `ReadThroughRoutes.snapshot`."""
        snapshot = await self._tagged(repository, tag, permit)
        self._recent[repository.lower()] = _revision(snapshot)
        self._recent.move_to_end(repository.lower())
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        return snapshot

    async def pack(self, snapshot: Snapshot) -> ModelPack:
        """Return what is served of an artifact."""
        return await self._pack(snapshot.manifest)

    async def _pack(self, manifest: Manifest) -> ModelPack:
        async def make() -> ModelPack:
            made = await self._pools.hashing(make_pack, manifest)
            self._index.add(manifest.digest, await self._pools.hashing(PackDigests.of, made))
            return made

        return await self._packs.get(manifest.digest, make)

    async def ollama_image(self, snapshot: Snapshot, tag: str) -> Document:
        """Return Ollama's manifest of the file that `tag` means. Raises NotFound (NO-SUCH-FILE)."""
        return Document(await self._pools.hashing(choose_image, snapshot.manifest, tag), OLLAMA_MANIFEST)

    async def manifest(self, repository: str, digest: Digest, permit: Permit) -> tuple[Document, Snapshot]:
        """Return a manifest by its digest, and the artifact that it is of or about. Raises NotFound (NO-SUCH-REVISION),
        and what hides the last version."""
        missing = NotFound("no such manifest", why=f"sha256:{digest}", code="NO-SUCH-REVISION")
        found = await self._find(repository, digest, missing, permit)
        if not isinstance(found.content, Document):
            raise missing
        return found.content, found.snapshot

    async def blob(self, repository: str, digest: Digest, permit: Permit) -> FoundBlob:
        """Raises NotFound (NO-SUCH-FILE), and what hides the last version."""
        missing = NotFound("no such blob", why=f"sha256:{digest}", code="NO-SUCH-FILE")
        return await self._find(repository, digest, missing, permit)

    async def referrers(self, repository: str, digest: Digest, kind: str | None, permit: Permit) -> bytes:
        """Return the image index of what refers to a manifest, or of those of an artifact type: of nothing, unless it
        is the ModelPack manifest of a version."""
        async for snapshot in self.holding(repository, digest, None, permit):
            manifest = (await self.pack(snapshot)).manifest
            if manifest is not None and manifest.digest == digest:
                found = await self._referrers_of(snapshot, manifest)
                self._listed.add(found)
                withdrawn = await self._catalogue.is_withdrawn(snapshot.own_repository, snapshot.artifact)
                return found.index(kind, withdrawn=withdrawn)
        return Referrers(digest, (), {}, {}).index(kind)

    async def attached(self, repository: str, digest: Digest, what: str, permit: Permit) -> tuple[Document, Snapshot]:
        """Return the manifest at the tag of the signatures (`sig`) or summaries (`att`) of a manifest. Raises NotFound
        (NO-SUCH-REVISION) if it is not the ModelPack manifest of a version, or nobody whose words count signed one; and
        what hides the last version."""
        kind = "signature" if what == "sig" else "verification summary"
        missing = NotFound(f"no {kind} of this image", why=f"sha256:{digest}", code="NO-SUCH-REVISION")
        async for snapshot in self.holding(repository, digest, missing, permit):
            manifest = (await self.pack(snapshot)).manifest
            if manifest is not None and manifest.digest == digest:
                found = (await self._statements_about(snapshot, manifest)).referrers.attached
                if what in found:
                    return found[what], snapshot
        raise missing

    async def holding(
        self,
        repository: str,
        digest: Digest,
        missing: ComityError | None,
        permit: Permit,
        limit: SearchLimit | None = None,
    ) -> AsyncGenerator[Snapshot, None]:
        """Yield the artifacts of the repository that may be served and may have the digest, each once. Raises why the
        last one is not served, unless `missing` is None; and Unavailable (STILL-SEARCHING).

        Args:
            limit: of the request, if it searches further.
        """
        limit, seen = limit or SearchLimit(), set[Digest]()
        failure: ComityError | None = None
        for revision in await self._revisions(repository):
            try:
                if revision.manifest is not None:
                    packed = await self._index.of(revision.manifest, limit)
                    if packed is None or not packed.all.may_have(digest):
                        continue
                snapshot = await self._read_through.snapshot(repository, revision.name, permit)
            except ComityError as error:
                failure = error
                continue
            if snapshot.artifact not in seen:
                seen.add(snapshot.artifact)
                yield snapshot
        if limit.unfinished:
            raise limit.refusal()
        if failure is not None and missing is not None:
            raise failure

    async def _revisions(self, repository: str) -> tuple[ServedRevision, ...]:
        """Return the revisions that are searched, in this order."""
        recent = self._recent.get(repository.lower())
        newest_first = tuple(reversed(await self._read_through.revisions(repository)))[:MAX_VERSIONS]
        return (*([recent] if recent else []), *newest_first)

    async def _find(self, repository: str, digest: Digest, missing: ComityError, permit: Permit) -> FoundBlob:
        withdrawn: FoundBlob | None = None
        limit = SearchLimit()
        async for snapshot in self.holding(repository, digest, missing, permit, limit):
            pack = await self.pack(snapshot)
            content = pack.files.get(digest) or pack.documents.get(digest)
            if content is None:
                continue
            found, local = FoundBlob(snapshot, content), self._catalogue.local_artifacts
            if isinstance(content, Document) or not await local.withdrawn(snapshot.artifact):
                return found
            withdrawn = withdrawn or found  # another version may have the same file
        if withdrawn is not None:
            return withdrawn
        referring, failure = await self._find_referrer(repository, digest, permit, limit)
        if referring is not None:
            return referring
        raise limit.refusal() if limit.unfinished else failure or missing

    async def _find_referrer(
        self, repository: str, digest: Digest, permit: Permit, limit: SearchLimit
    ) -> tuple[FoundBlob | None, ComityError | None]:
        """Return what refers to a version, and what hides the last one that it may refer to. A search for a digest that
        nobody has costs no new proofs whenever a log has grown, but those of one version."""
        first: ServedRevision | None = None
        failure: ComityError | None = None
        for revision in await self._revisions(repository):
            try:
                if revision.manifest is not None:
                    packed = await self._index.of(revision.manifest, limit)
                    if packed is None or packed.image is None:
                        continue
                    first = first or revision
                    if not await self._may_refer(revision, packed.image, digest, limit):
                        continue
                snapshot = await self._read_through.snapshot(repository, revision.name, permit)
                content = await self._referring(snapshot, digest)
            except ComityError as error:
                failure = error
                continue
            if content is not None:
                return FoundBlob(snapshot, content), None
            first = first or revision
        if first is None:
            return None, failure
        try:  # the proof may have been listed by another front end
            snapshot = await self._read_through.snapshot(repository, first.name, permit)
            content = await self._referring(snapshot, digest, proofs=True)
        except ComityError as error:
            return None, error
        return FoundBlob(snapshot, content) if content is not None else None, failure

    async def _may_refer(self, revision: ServedRevision, image: Digest, digest: Digest, limit: SearchLimit) -> bool:
        """Whether something with this digest may refer to the image of a revision."""
        item = revision.manifest
        if item is None or self._listed.get(image, digest) is not None:
            return True

        async def make() -> _StatementDigests:
            limit.made += 1
            manifest = await self._stored_manifest(item)
            subject = (await self._pack(manifest)).manifest
            assert subject is not None  # it has the digest `image`
            found = await self._statements_of(manifest, subject, revision.publisher)
            return _StatementDigests(DigestSet.of([*found.referrers.files, *found.referrers.documents]), found.subjects)

        if not limit.may_make():
            return False
        return (await self._said.get((item.digest, revision.publisher), make)).all.may_have(digest)

    async def _referring(
        self, snapshot: Snapshot, digest: Digest, *, proofs: bool = False
    ) -> FileEntry | Document | None:
        """Return what refers to an artifact and has this digest: a statement, or what was listed; or also a proof."""
        subject = (await self.pack(snapshot)).manifest
        if subject is None:
            return None
        if proofs:
            return _content(digest, await self._referrers_of(snapshot, subject))
        listed = self._listed.get(subject.digest, digest)
        return listed or _content(digest, (await self._statements_about(snapshot, subject)).referrers)

    async def _stored_manifest(self, item: SideObject) -> Manifest:
        return await self._pools.files(self._catalogue.local_artifacts.manifest, item)

    async def _tagged(self, repository: str, tag: str, permit: Permit) -> Snapshot:
        if tag != LATEST:
            return await self._read_through.snapshot(repository, tag, permit)
        try:
            return await self._catalogue.snapshot(repository, tag)
        except NotFound:
            return await self._read_through.snapshot(repository, MAIN, permit)

    async def _referrers_of(self, snapshot: Snapshot, subject: Document) -> Referrers:
        async def make() -> Referrers:
            known = await self._statements_about(snapshot, subject)
            local = self._catalogue.local_artifacts
            proofs = [proof for line in claims(known.entries) for proof in await local.proofs(line)]
            about = subject, snapshot.manifest, known.entries, proofs, known.more, known.of_image
            return await self._pools.hashing(make_referrers, *about)

        return await self._referrers.get((snapshot.artifact, _publisher(snapshot)), make)

    async def _statements_about(self, snapshot: Snapshot, subject: Document) -> Statements:
        return await self._statements_of(snapshot.manifest, subject, _publisher(snapshot))

    async def _statements_of(self, manifest: Manifest, subject: Document, publisher: Digest | None) -> Statements:
        """Return what is valid until a statement about the artifact is proven, however the logs grow."""

        async def make() -> Statements:
            local = self._catalogue.local_artifacts
            try:
                said = await local.statements(manifest.digest)
            except NotFound:  # it is being imported, and nothing is logged yet
                said = LocalStatements()
            found = await local.said_of_image(manifest.digest, publisher, subject.digest)
            return await self._pools.hashing(make_statements, subject, manifest, said, found)

        return await self._statements.get((manifest.digest, publisher), make)


def _revision(snapshot: Snapshot) -> ServedRevision:
    """The revision under which an artifact is asked for again: that of a publisher by its digest, because to find a
    commit the manifests of all versions may have to be read."""
    claim, publisher = snapshot.claim, _publisher(snapshot)
    if snapshot.continues or not isinstance(claim, Published | Observed):
        return ServedRevision(snapshot.commit)
    return ServedRevision(f"sha256:{snapshot.artifact}" if publisher else snapshot.commit, claim.manifest, publisher)


def _publisher(snapshot: Snapshot) -> Digest | None:
    """Whose signatures of the image count: the same bytes may have other names, of others or of none."""
    return snapshot.claim.by if isinstance(snapshot.claim, Published) else None


def _content(digest: Digest, referrers: Referrers) -> FileEntry | Document | None:
    return referrers.files.get(digest) or referrers.documents.get(digest)


class _RecentDocuments:
    """The manifests and proofs that were listed last, by artifact: a list names the digest of a proof, and the log may
    have grown before the client asks for it."""

    def __init__(self) -> None:
        self._found: OrderedDict[Digest, tuple[Digest, Document]] = OrderedDict()
        self._bytes = 0

    def add(self, referrers: Referrers) -> None:
        for digest, document in referrers.documents.items():
            if digest not in self._found:
                self._found[digest] = referrers.subject, document
                self._bytes += len(document.data)
            self._found.move_to_end(digest)
        while self._bytes > MAX_BYTES:
            _, (_, document) = self._found.popitem(last=False)
            self._bytes -= len(document.data)

    def get(self, subject: Digest, digest: Digest) -> Document | None:
        """Return a document that was listed for the manifest `subject`."""
        found = self._found.get(digest)
        return found[1] if found is not None and found[0] == subject else None


async def _never_changes() -> int:
    return 0


@asynccontextmanager
async def registry_of_node(
    ledger: AsyncLedger, read_through: ReadThroughRoutes, pools: Pools
) -> AsyncIterator[Registry]:
    """Open the registry of a running node."""
    catalogue = read_through.catalogue
    now = Generations(ledger, lambda: catalogue.judge.basis).now
    registry = Registry(read_through, pools, now, catalogue.changes)
    try:
        yield registry
    finally:
        await registry.close()
