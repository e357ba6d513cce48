"""Files that were taken out of the blob store: kept where nothing serves them, until they are deleted or put back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from comity.content import durable
from comity.content.blobs import CHUNK, BlobStore, FolderStore
from comity.content.durable import disk_errors
from comity.trust.encoding import Digest, short
from comity.trust.errors import NotFound, Refused


class WithheldFiles:
    """Files that were taken out of the store, in a folder beside the blobs, by artifact. Blocking.

    Raises Unavailable and OutOfSpace where the disk fails.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._root = store.root / "withheld" if isinstance(store, FolderStore) else None

    def require_folder(self) -> None:
        """Raises Refused (NO-WITHHOLDING) for a store that is no folder."""
        if self._root is None:
            why = "the blobs are in a bucket, from which files cannot be taken aside"
            raise Refused("this node cannot withdraw copies", why=why, code="NO-WITHHOLDING")

    def artifacts(self) -> list[Digest]:
        if self._root is None or not self._root.is_dir():
            return []
        return sorted(Digest(path.name) for path in self._root.iterdir() if path.is_dir() and len(path.name) == 64)

    def take(self, artifact: Digest, digest: Digest) -> int:
        """Move a blob out of the store. Returns its bytes; 0 if the store does not have it."""
        assert isinstance(self._store, FolderStore)
        source, target = self._store.path(digest), self._path(artifact, digest)
        with disk_errors(f"blob {digest} was not taken aside"):
            if not source.exists():
                return 0
            durable.make_folders(target.parent)
            size = source.stat().st_size
            durable.move(source, target, point="withhold")
            return size

    def give_back(self, artifact: Digest) -> None:
        """Move all files of an artifact back into the store."""
        assert isinstance(self._store, FolderStore)
        for path in self._files(artifact):
            with disk_errors(f"blob {path.name} was not put back"):
                durable.move(path, self._store.path(Digest(path.name)), point="withhold")
        self._remove_folder(artifact)

    def erase(self, artifact: Digest) -> None:
        for path in self._files(artifact):
            with disk_errors(f"{path} was not deleted"):
                path.unlink(missing_ok=True)
        self._remove_folder(artifact)

    def read_any(self, digest: Digest, offset: int, length: int) -> Iterator[bytes]:
        """Read a file that was taken aside, for any artifact. Raises NotFound."""
        paths = (self._path(artifact, digest) for artifact in self.artifacts())
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise NotFound("no such blob", why=short(digest))
        return _chunks(path, offset, length)

    def _files(self, artifact: Digest) -> list[Path]:
        assert self._root is not None
        folder = self._root / artifact
        return sorted(path for path in folder.iterdir() if len(path.name) == 64) if folder.is_dir() else []

    def _remove_folder(self, artifact: Digest) -> None:
        assert self._root is not None
        with disk_errors(f"the folder of {artifact} was not removed"):
            if (self._root / artifact).is_dir():
                (self._root / artifact).rmdir()
                durable.sync(self._root, point="withhold.folder")

    def _path(self, artifact: Digest, digest: Digest) -> Path:
        assert self._root is not None
        return self._root / artifact / digest


def _chunks(path: Path, offset: int, length: int) -> Iterator[bytes]:
    with disk_errors(f"{path} was not read"), path.open("rb") as file:
        file.seek(offset)
        while length and (data := file.read(min(CHUNK, length))):
            length -= len(data)
            yield data
