"""Blobs that were taken out of a store: kept by artifact, served to nobody, until they are deleted or put back.

withheld/<artifact>/abcd…     beside `blobs`, in the folder or below the prefix of the bucket
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

from comity.content import durable
from comity.content.durable import disk_errors
from comity.trust.encoding import Digest, parse_digest, short
from comity.trust.errors import Malformed, NotFound

_CHUNK: Final = 1024 * 1024


class WithheldBlobs(Protocol):
    """The blobs of one store that were taken out. Blocking. Only the store's owner uses it.

    All methods raise Unavailable and OutOfSpace where the disk or the service fails; after that, the same call again
    does what is left to do.
    """

    def artifacts(self) -> list[Digest]:
        """The artifacts with a withheld blob, in order."""

    def files(self, artifact: Digest) -> list[Digest]:
        """The withheld blobs of an artifact."""

    def take(self, artifact: Digest, digest: Digest) -> int:
        """Move a blob out of the store. Returns its bytes; 0 if the store does not have it."""

    def give_back(self, artifact: Digest) -> None:
        """Move all blobs of an artifact back into the store."""

    def erase(self, artifact: Digest) -> None:
        """Delete all withheld blobs of an artifact."""

    def read(self, artifact: Digest, digest: Digest, offset: int, length: int) -> Iterator[bytes]:
        """Read a range of a withheld blob. Raises NotFound at once."""


class WithheldFolder:
    """Implements `WithheldBlobs` in a folder on the file system of the blobs.

    Args:
        path: of a blob in the store.
    """

    def __init__(self, root: Path, path: Callable[[Digest], Path]) -> None:
        self._root = root
        self._blob = path

    def artifacts(self) -> list[Digest]:
        with disk_errors("the withheld blobs were not listed"):
            if not self._root.is_dir():
                return []
            return sorted(Digest(path.name) for path in self._root.iterdir() if path.is_dir() and _is_digest(path.name))

    def files(self, artifact: Digest) -> list[Digest]:
        return [Digest(path.name) for path in self._files(artifact)]

    def take(self, artifact: Digest, digest: Digest) -> int:
        source, target = self._blob(digest), self._root / parse_digest(artifact) / parse_digest(digest)
        with disk_errors(f"blob {digest} was not taken aside"):
            if not source.exists():
                return 0
            durable.make_folders(target.parent)
            size = source.stat().st_size
            durable.move(source, target, point="withhold")
            return size

    def give_back(self, artifact: Digest) -> None:
        for path in self._files(artifact):
            with disk_errors(f"blob {path.name} was not put back"):
                durable.move(path, self._blob(Digest(path.name)), point="withhold")
        self._remove_folder(artifact)

    def erase(self, artifact: Digest) -> None:
        for path in self._files(artifact):
            with disk_errors(f"{path} was not deleted"):
                path.unlink(missing_ok=True)
        self._remove_folder(artifact)

    def read(self, artifact: Digest, digest: Digest, offset: int, length: int) -> Iterator[bytes]:
        path = self._root / parse_digest(artifact) / parse_digest(digest)
        if not path.is_file():
            raise NotFound("no such withheld blob", why=short(digest))
        return _chunks(path, offset, length)

    def _files(self, artifact: Digest) -> list[Path]:
        folder = self._root / parse_digest(artifact)
        with disk_errors(f"the withheld blobs of {short(artifact)} were not listed"):
            return sorted(path for path in folder.iterdir() if _is_digest(path.name)) if folder.is_dir() else []

    def _remove_folder(self, artifact: Digest) -> None:
        with disk_errors(f"the folder of {artifact} was not removed"):
            if (self._root / artifact).is_dir():
                (self._root / artifact).rmdir()
                durable.sync(self._root, point="withhold.folder")


def _is_digest(name: str) -> bool:
    try:
        return bool(parse_digest(name))
    except Malformed:
        return False


def _chunks(path: Path, offset: int, length: int) -> Iterator[bytes]:
    with disk_errors(f"{path} was not read"), path.open("rb") as file:
        file.seek(offset)
        while length and (data := file.read(min(_CHUNK, length))):
            length -= len(data)
            yield data
