"""The image among the files of an artifact: an OCI image layout in its folder `image`, as an image of a registry.

    image/oci-layout            {"imageLayoutVersion":"1.0.0"}
    image/index.json            names one image, or one for each platform
    image/blobs/sha256/<hex>    manifests, configurations and layers

Nothing is made here: each manifest and blob is a file of the artifact, byte for byte, and its digest is the SHA-256
that the publisher signed. An image is served only if everything that its manifests name is among the files, under its
digest and with its size. Source: OCI image specification 1.1, image-layout.md, image-index.md, manifest.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from comity.addons.oci.registry import Registry
from comity.gateway.access_tokens import Permit
from comity.gateway.hub.files import FileResponses
from comity.gateway.hub.views import Snapshot
from comity.rules.model_pack import IMAGE_INDEX, IMAGE_MANIFEST, Document
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, bare_digest, parse_json
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.trust.frozen import frozen

FOLDER: Final = "image"
INDEX_FILE: Final = f"{FOLDER}/index.json"
LAYOUT_FILE: Final = f"{FOLDER}/oci-layout"
LAYOUT_VERSION: Final = "1.0.0"
MAX_DOCUMENTS: Final = 64
"""Manifests of an image, with those that name others."""
MAX_DOCUMENT_BYTES: Final = 1024 * 1024
"""Bytes of all manifests of an image together; a manifest has some KiB."""
MAX_BLOBS: Final = 4_096
MAX_BYTES: Final = 32 * 1024 * 1024
"""Bytes of the manifests of all images that are kept."""
REFUSED_BYTES: Final = 1024
"""As which an image counts that was refused."""

ReadFile = Callable[[FileEntry], Awaitable[bytes]]
"""Returns the whole of a small file of the artifact."""


@frozen
class LayoutImage:
    """An image whose files are all there.

    Attributes:
        top: the manifest that its tag means.
        documents: every manifest, by digest.
        blobs: every file that a client may ask for as a blob, by digest.
    """

    top: Document
    documents: Mapping[Digest, Document]
    blobs: Mapping[Digest, FileEntry]

    @property
    def size(self) -> int:
        """Bytes of all manifests."""
        return sum(len(document.data) for document in self.documents.values())


def has_image(manifest: Manifest) -> bool:
    """Whether an artifact says that it has an image."""
    return INDEX_FILE in manifest.by_path


async def read_image(manifest: Manifest, read: ReadFile) -> LayoutImage:
    """Return the image of an artifact. Raises NotFound (OCI-IMAGE) if it has none, or one whose files are not all there
    or not what its manifests say; and as `read` does."""
    try:
        return await _Reading(manifest, read).image()
    except Malformed as error:
        raise _no_image(f"{error.what}: {error.why}" if error.why else error.what) from error


def _no_image(why: str) -> NotFound:
    return NotFound("no image of this artifact", why=why, hint="comity pull NAME", code="OCI-IMAGE")


class _Reading:
    """Reads the manifests of one image. `left` are the bytes of manifests that may still be read."""

    def __init__(self, manifest: Manifest, read: ReadFile) -> None:
        self._files = manifest.by_path
        self._read = read
        self._left = MAX_DOCUMENT_BYTES
        self._documents: dict[Digest, Document] = {}
        self._blobs: dict[Digest, FileEntry] = {}

    async def image(self) -> LayoutImage:
        index = await self._document(self._file(INDEX_FILE), IMAGE_INDEX)
        layout = _object(await self._bytes(self._file(LAYOUT_FILE)), LAYOUT_FILE)
        if layout.get("imageLayoutVersion") != LAYOUT_VERSION:
            raise _no_image(f"{LAYOUT_FILE} is not of version {LAYOUT_VERSION}")
        named = list(_described(index, "manifests", INDEX_FILE))
        if not named:
            raise _no_image(f"{INDEX_FILE} names no image")
        waiting = list(named)
        while waiting:
            waiting += await self._further(waiting.pop())
        if len(named) == 1:
            top = self._documents[self._named(named[0], INDEX_FILE).sha256]
        else:  # one for each platform: the client chooses by the index
            top = self._documents[index.digest] = index
        return LayoutImage(top, self._documents, self._blobs)

    async def _further(self, item: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Read what a descriptor names, and return the descriptors of further manifests in it."""
        media = item.get("mediaType")
        if media not in (IMAGE_MANIFEST, IMAGE_INDEX):
            raise _no_image(f"a manifest has the type {str(media)[:80]!r}, not one of the OCI image specification")
        file = self._named(item, "an index")
        if file.sha256 in self._documents:
            return []
        if len(self._documents) >= MAX_DOCUMENTS:
            raise _no_image(f"it has more than {MAX_DOCUMENTS} manifests")
        document = self._documents[file.sha256] = await self._document(file, media)
        self._blobs[file.sha256] = file
        if media == IMAGE_INDEX:
            return list(_described(document, "manifests", file.path))
        for blob in (_config(document, file.path), *_described(document, "layers", file.path)):
            found = self._named(blob, file.path)
            self._blobs[found.sha256] = found
            if len(self._blobs) > MAX_BLOBS:
                raise _no_image(f"it has more than {MAX_BLOBS:,} blobs")
        return []

    def _named(self, item: Mapping[str, Any], where: str) -> FileEntry:
        """Return the file that a descriptor names."""
        text = str(item.get("digest", ""))
        if not text.startswith("sha256:"):
            raise _no_image(f"{where} names {text[:80]!r}: only sha256 digests are served")
        digest = bare_digest(text.removeprefix("sha256:"))
        file = self._file(f"{FOLDER}/blobs/sha256/{digest}")
        if file.sha256 != digest:
            raise _no_image(f"{file.path} has the SHA-256 {file.sha256}")
        if item.get("size") != file.size:
            raise _no_image(f"{where} gives {file.path} another size than it has")
        return file

    def _file(self, path: str) -> FileEntry:
        found = self._files.get(path)
        if found is None:
            raise _no_image(f"it has no file {path}")
        return found

    async def _bytes(self, file: FileEntry) -> bytes:
        if file.size > self._left:
            raise _no_image(f"its manifests have more than {MAX_DOCUMENT_BYTES // 1024:,} KiB")
        self._left -= file.size
        return await self._read(file)

    async def _document(self, file: FileEntry, media: str) -> Document:
        return Document(await self._bytes(file), media)


def _object(data: bytes, path: str) -> dict[str, Any]:
    found = parse_json(data, limit=MAX_DOCUMENT_BYTES, what=path, text_fractions=True)
    if not isinstance(found, dict):
        raise _no_image(f"{path} is no JSON object")
    return found


def _described(document: Document, member: str, path: str) -> Iterator[Mapping[str, Any]]:
    """Return the descriptors in a list of a manifest."""
    items = _object(document.data, path).get(member)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _no_image(f"{path} has no list {member!r} of descriptors")
    yield from items


def _config(document: Document, path: str) -> Mapping[str, Any]:
    found = _object(document.data, path).get("config")
    if not isinstance(found, dict):
        raise _no_image(f"{path} has no configuration")
    return found


class ImageRegistry:
    """The images of artifacts, in the repositories that `registry` has. Not thread-safe: call from the event loop."""

    def __init__(self, registry: Registry, files: FileResponses) -> None:
        self._registry = registry
        self._files = files
        self._kept: OrderedDict[Digest, LayoutImage | NotFound] = OrderedDict()
        self._bytes = 0

    async def tagged(self, repository: str, tag: str, permit: Permit) -> tuple[Document, Snapshot]:
        """Return the manifest of a version's image. Raises as `Registry.tagged`; NotFound (OCI-IMAGE) if the version
        has no image, or one that is not whole; and as `FileResponses.content` if its manifests cannot be read here."""
        snapshot = await self._registry.tagged(repository, tag, permit)
        return (await self._image(snapshot)).top, snapshot

    async def manifest(self, repository: str, digest: Digest, permit: Permit) -> tuple[Document, Snapshot]:
        """Return a manifest by its digest. Raises NotFound (NO-SUCH-REVISION), and why the image that has it is
        refused."""
        missing = NotFound("no such manifest", why=f"sha256:{digest}", code="NO-SUCH-REVISION")
        image, snapshot = await self._with(repository, digest, missing, permit)
        if digest not in image.documents:
            raise missing
        return image.documents[digest], snapshot

    async def blob(self, repository: str, digest: Digest, permit: Permit) -> tuple[FileEntry, Snapshot]:
        """As `manifest`, of a blob. Raises NotFound (NO-SUCH-FILE)."""
        missing = NotFound("no such blob", why=f"sha256:{digest}", code="NO-SUCH-FILE")
        image, snapshot = await self._with(repository, digest, missing, permit)
        if digest not in image.blobs:
            raise missing
        return image.blobs[digest], snapshot

    async def with_image(self, repository: str, tags: Sequence[str], permit: Permit) -> list[str]:
        """Return those of the tags whose artifact says that it has an image and may be served."""
        found = []
        for tag in tags:
            try:
                snapshot = await self._registry.tagged(repository, tag, permit)
            except ComityError:
                continue
            if has_image(snapshot.manifest):
                found.append(tag)
        return found

    async def _with(
        self, repository: str, digest: Digest, missing: NotFound, permit: Permit
    ) -> tuple[LayoutImage, Snapshot]:
        """Return the image of a version that has a file of this digest, preferably in its image."""
        refused: ComityError = missing
        async for snapshot in self._registry.holding(repository, digest, missing, permit):
            if not has_image(snapshot.manifest) or digest not in (await self._registry.pack(snapshot)).files:
                continue
            try:
                image = await self._image(snapshot)
            except ComityError as error:
                refused = error
                continue
            if digest in image.documents or digest in image.blobs:
                return image, snapshot
        raise refused

    async def _image(self, snapshot: Snapshot) -> LayoutImage:
        await self._files.require_held(snapshot.claim, snapshot.repository)
        known = self._kept.get(snapshot.artifact)
        if known is None:

            async def read(file: FileEntry) -> bytes:
                return await self._files.content(snapshot.claim, file)

            try:
                known = await read_image(snapshot.manifest, read)
            except NotFound as error:
                if error.code != "OCI-IMAGE":  # what is not here now may be here later
                    raise
                known = error
            self._keep(snapshot.artifact, known)
        self._kept.move_to_end(snapshot.artifact)
        if isinstance(known, NotFound):
            raise known.without_traceback()
        return known

    def _keep(self, artifact: Digest, image: LayoutImage | NotFound) -> None:
        self._bytes += _weight(image) - (_weight(self._kept[artifact]) if artifact in self._kept else 0)
        self._kept[artifact] = image
        while self._bytes > MAX_BYTES and len(self._kept) > 1:
            self._bytes -= _weight(self._kept.popitem(last=False)[1])


def _weight(image: LayoutImage | NotFound) -> int:
    return REFUSED_BYTES + (image.size if isinstance(image, LayoutImage) else 0)
