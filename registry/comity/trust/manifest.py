"""The manifest: which bytes, at which paths. It says nothing about names, licences or people.

    {"files":[{"path":"config.json","sha256":"953f…","size":612},…],"schema":"comity/manifest/v1","size":612}

RFC 8785 JSON; the artifact is named by the SHA-256 of these bytes, so that everybody who has the same files gets the
same name, whatever parser or piece layout they use. Source: protocol, section 4.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from comity.trust.digest import Digest, sha256
from comity.trust.encoding import MAX_INTEGER, canonical, parse_canonical
from comity.trust.errors import Malformed
from comity.trust.fields import Fields

SCHEMA: Final = "comity/manifest/v1"
MAX_FILES: Final = 100_000
MAX_PATH_BYTES: Final = 1024
MAX_BYTES: Final = 64 * 1024 * 1024
RESERVED: Final = (".comity", ".git", ".cache/huggingface")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: relative `path`, `size` in bytes, SHA-256 of its content."""

    path: str
    size: int
    sha256: Digest


def check_path(path: str) -> str:
    """Return `path` if it may stand in a manifest, so that it means the same file on every system.

    Raises Malformed for absolute paths, `.`, `..` and empty segments, control characters, backslashes, names that are
    too long, and the folders that a publisher's tree never contributes (`.git/`, `.comity/`, the Hub's cache).
    """
    encoded = path.encode("utf-8", "surrogatepass")
    if not 1 <= len(encoded) <= MAX_PATH_BYTES:
        raise _bad_path(path, f"a path has 1 to {MAX_PATH_BYTES} bytes")
    if any(segment in ("", ".", "..") for segment in path.split("/")):
        raise _bad_path(path, "an empty, '.' or '..' segment")
    if "\\" in path or any(unicodedata.category(character) in ("Cc", "Cs") for character in path):
        raise _bad_path(path, "a backslash, control character or lone surrogate")
    if any(f"{_folded(path)}/".startswith(f"{folder}/") for folder in RESERVED):
        raise _bad_path(path, "a reserved folder")
    return path


@dataclass(frozen=True)
class Manifest:
    """Files in order of the UTF-8 bytes of their paths. Build with `of` or `parse`; no invalid instance exists."""

    files: tuple[FileEntry, ...]

    def __post_init__(self) -> None:
        if len(self.files) > MAX_FILES:
            raise Malformed("manifest too large", why=f"{len(self.files)} files, at most {MAX_FILES}")
        keys = [entry.path.encode("utf-8", "surrogatepass") for entry in self.files]
        if any(left >= right for left, right in itertools.pairwise(keys)):
            raise Malformed("manifest is malformed", why="paths are not in strict UTF-8 byte order")
        for entry in self.files:
            check_path(entry.path)
        _refuse_collisions(entry.path for entry in self.files)

    @classmethod
    def of(cls, files: Iterable[FileEntry]) -> Manifest:
        return cls(tuple(sorted(files, key=lambda entry: entry.path.encode("utf-8", "surrogatepass"))))

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Parse exactly what `encode` writes, at most 64 MiB. Raises Malformed."""
        fields = Fields(parse_canonical(data, limit=MAX_BYTES, what="manifest"), "manifest")
        fields.constant("schema", SCHEMA)
        files = []
        for item in fields.items("files", most=MAX_FILES):
            file = Fields(item, "manifest file")
            files.append(FileEntry(file.text("path", most=MAX_PATH_BYTES), file.integer("size"), file.digest("sha256")))
            file.done()
        manifest = cls(tuple(files))
        if fields.integer("size") != manifest.size:
            raise Malformed("manifest is malformed", why="its size is not the sum of its files' sizes")
        fields.done()
        return manifest

    def encode(self) -> bytes:
        return canonical(
            {
                "schema": SCHEMA,
                "files": [{"path": e.path, "size": e.size, "sha256": e.sha256} for e in self.files],
                "size": self.size,
            }
        )

    @cached_property
    def digest(self) -> Digest:
        """The artifact digest."""
        return sha256(self.encode())

    @cached_property
    def size(self) -> int:
        total = sum(entry.size for entry in self.files)
        if total > MAX_INTEGER:
            raise Malformed("manifest is malformed", why="sizes beyond 2**53 - 1")
        return total

    @cached_property
    def by_path(self) -> dict[str, FileEntry]:
        return {entry.path: entry for entry in self.files}


def _refuse_collisions(paths: Iterable[str]) -> None:
    """Two paths that one file system would merge (case, Unicode form), or a file that is another's folder.

    With NUL, which no path holds, for the slash, whatever collides stands side by side in sorted order.
    """
    keys = sorted((_folded(path).replace("/", "\0"), path) for path in paths)
    for (left, path), (right, other) in itertools.pairwise(keys):
        if right == left:
            raise _bad_path(other, f"differs from {path!r} only by case or Unicode form")
        if right.startswith(left + "\0"):
            raise _bad_path(path, "it is both a file and a folder")
        folders = zip(path.split("/")[:-1], other.split("/")[:-1], strict=False)
        if any(a != b for a, b in itertools.takewhile(lambda pair: _folded(pair[0]) == _folded(pair[1]), folders)):
            raise _bad_path(other, f"a folder of it differs from one of {path!r} only by case or Unicode form")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _bad_path(path: str, why: str) -> Malformed:
    shown = path.encode("utf-8", "backslashreplace").decode("utf-8", "replace")[:120]
    return Malformed(f"path {shown!r} cannot be published", why=why, code="BAD-PATH")
