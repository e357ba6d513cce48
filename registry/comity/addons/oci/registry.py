"""Finds what a digest means in a repository, and keeps what was made of recent artifacts.

A registry client asks for a manifest by a tag, and for everything else by digest. So the versions of the repository are
searched: first the one that was asked for last, then from the newest on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

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
from comity.gateway.hub.views import MAIN, Snapshot
from comity.node.threads import AsyncLedger, Pools
from comity.rules.model_pack import Document
from comity.trust.artifact import FileEntry
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound
from comity.trust.frozen import frozen
from comity.trust.statements import Published

LATEST: Final = "latest"
"""The tag of clients that were given none."""
MAX_VERSIONS: Final = 256
"""Versions of a repository that are searched for a digest."""
MAX_FILES: Final = 200_000
"""Maximum number of files in all kept packs, about 150 MB with their manifests."""
MAX_BYTES: Final = 32 * 1024 * 1024
"""Maximum bytes of all kept statements, of all kept referrers, and of all proofs that may be asked for, each."""
MAX_RECENT: Final = 4_096
"""Repositories of which the version that was asked for last is kept."""

_About: TypeAlias = tuple[Digest, Digest | None]
"""An artifact, and the publisher of the name under which it is served."""


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
        self._listed = _RecentDocuments()
        self._recent: OrderedDict[str, str] = OrderedDict()

    async def close(self) -> None:
        await self._packs.close()
        await self._statements.close()
        await self._referrers.close()

    async def tagged(self, repository: str, tag: str, permit: Permit) -> Snapshot:
        """Return the artifact of a tag; `latest` is the newest version, unless a version has that name. Raises as
        `ReadThroughRoutes.snapshot`."""
        snapshot = await self._tagged(repository, tag, permit)
        self._recent[repository.lower()] = snapshot.commit
        self._recent.move_to_end(repository.lower())
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        return snapshot

    async def pack(self, snapshot: Snapshot) -> ModelPack:
        """Return what is served of an artifact."""

        async def make() -> ModelPack:
            return await self._pools.hashing(make_pack, snapshot.manifest)

        return await self._packs.get(snapshot.artifact, make)

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
        async for snapshot in self.versions(repository, None, permit):
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
        async for snapshot in self.versions(repository, missing, permit):
            manifest = (await self.pack(snapshot)).manifest
            if manifest is not None and manifest.digest == digest:
                found = (await self._statements_about(snapshot, manifest)).referrers.attached
                if what in found:
                    return found[what], snapshot
        raise missing

    async def _find(self, repository: str, digest: Digest, missing: ComityError, permit: Permit) -> FoundBlob:
        withdrawn: FoundBlob | None = None
        async for snapshot in self.versions(repository, missing, permit):
            pack = await self.pack(snapshot)
            content = pack.files.get(digest) or pack.documents.get(digest)
            if content is None:
                continue
            found, local = FoundBlob(snapshot, content), self._catalogue.local_artifacts
            if isinstance(content, Document) or not await local.withdrawn(snapshot.artifact):
                return found
            withdrawn = withdrawn or found  # another version may have the same file
        return withdrawn or await self._find_referrer(repository, digest, missing, permit)

    async def _find_referrer(self, repository: str, digest: Digest, missing: ComityError, permit: Permit) -> FoundBlob:
        """As `_find`, of what refers to a version. A search for a digest that nobody has costs no new proofs whenever a
        log has grown, but those of one version."""
        first: tuple[Snapshot, Document] | None = None
        async for snapshot in self.versions(repository, missing, permit):
            subject = (await self.pack(snapshot)).manifest
            if subject is None:
                continue
            first = first or (snapshot, subject)
            listed = self._listed.get(subject.digest, digest)
            content = listed or _content(digest, (await self._statements_about(snapshot, subject)).referrers)
            if content is not None:
                return FoundBlob(snapshot, content)
        if first is not None:  # the proof may have been listed by another front end
            content = _content(digest, await self._referrers_of(*first))
            if content is not None:
                return FoundBlob(first[0], content)
        raise missing

    async def versions(
        self, repository: str, missing: ComityError | None, permit: Permit
    ) -> AsyncGenerator[Snapshot, None]:
        """Yield the artifacts of the repository that may be served, each once. Raises why the last one is not served,
        unless `missing` is None."""
        recent, seen = self._recent.get(repository.lower()), set[Digest]()
        newest_first = tuple(reversed(await self._read_through.revisions(repository)))[:MAX_VERSIONS]
        failure: ComityError | None = None
        for revision in (*([recent] if recent else []), *newest_first):
            try:
                snapshot = await self._read_through.snapshot(repository, revision, permit)
            except ComityError as error:
                failure = error
                continue
            if snapshot.artifact not in seen:
                seen.add(snapshot.artifact)
                yield snapshot
        if failure is not None and missing is not None:
            raise failure

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
        """Return what is valid until a statement about the artifact is proven, however the logs grow."""

        publisher = _publisher(snapshot)

        async def make() -> Statements:
            local = self._catalogue.local_artifacts
            try:
                said = await local.statements(snapshot.artifact)
            except NotFound:  # it is being imported, and nothing is logged yet
                said = LocalStatements()
            found = await local.said_of_image(snapshot.artifact, publisher, subject.digest)
            return await self._pools.hashing(make_statements, subject, snapshot.manifest, said, found)

        return await self._statements.get((snapshot.artifact, publisher), make)


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
