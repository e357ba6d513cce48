"""Content of an artifact: the manifest, and the records of pieces by which a file is hashed on several cores.

    {"files":[{"path":"config.json","sha256":"953f…","size":612},…],"schema":"comity/manifest/v1","size":612}

The manifest lists files, without names, licences or people. It is RFC 8785 JSON; its SHA-256 names the artifact, so
equal files give equal names, with any parser or piece layout.

A *piece record* is the length of a piece (32-bit, big-endian) and its SHA-256: 36 bytes. Layouts, and the index of the
pieces of an artifact, are in `comity.rules.pieces`. Source: protocol, section 4.

In the *chained* layout one SHA-256 of each byte checks every piece of a file, and the whole file with it. SHA-256 is a
chain: its state after a number of bytes that is a multiple of 64, and the bytes that follow, give the next state.
`sha256-chain-4MiB/1` cuts a file every 4 MiB. A record has the form of a piece record: the length of the piece
(32-bit, big-endian), then 32 bytes: the SHA-256 state after the piece (eight big-endian words). The record of the last
piece has the SHA-256 of the file instead, so a last piece of any length needs no special rule. Root and transport are
those of other records.

A piece is right if hashing it from the state of its predecessor gives its own record. The first piece starts from the
constant of the standard and the last record is the known SHA-256 of the file. So when all pieces are right, in any
order, the file has that SHA-256, by induction; the records need no signature. *One* right piece
proves nothing: who chooses both states of a piece can choose its bytes too. Therefore such records serve readers who
wait for the whole file. A reader of single pieces needs records whose root was signed.

`comity.hashing` computes states. Source: FIPS 180-4, sections 5.3.3 and 6.2.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from comity.trust.encoding import CONTROLS, MAX_INTEGER, Digest, Fields, canonical, parse_canonical, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.frozen import frozen

MANIFEST_SCHEMA: Final = "comity/manifest/v1"
MAX_FILES: Final = 100_000
MAX_PATH_BYTES: Final = 1024
MAX_MANIFEST: Final = 64 * 1024 * 1024
RESERVED: Final = (".comity", ".git", ".cache/huggingface")


@frozen
class FileEntry:
    """One file: relative `path`, `size` in bytes, SHA-256 of the content."""

    path: str
    size: int
    sha256: Digest


def check_path(path: str) -> str:
    """Return `path` if it is valid in a manifest: it names the same file on every system.

    Raises Malformed (BAD-PATH) for absolute paths, `.`, `..` and empty segments, characters that can break a line,
    backslashes, paths that are too long, and folders that are never published (`.git/`, `.comity/`, the Hub's cache).
    """
    encoded = path.encode("utf-8", "surrogatepass")
    if len(encoded) > MAX_PATH_BYTES:
        raise _bad_path(path, f"a path has at most {MAX_PATH_BYTES} bytes")
    if any(segment in ("", ".", "..") for segment in path.split("/")):
        raise _bad_path(path, "it has an empty, '.' or '..' segment")
    if "\\" in path or any(unicodedata.category(character) in (*CONTROLS, "Cs") for character in path):
        raise _bad_path(path, "it has a backslash, control character, line separator or lone surrogate")
    if f"{_folded(path)}/".startswith(tuple(f"{folder}/" for folder in RESERVED)):
        raise _bad_path(path, "it is in a reserved folder")
    return path


@dataclass(frozen=True)
class Manifest:
    """Files sorted by the UTF-8 bytes of their paths. Build with `of` or `parse`; the constructor validates."""

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
        """Inverse of `encode`; at most 64 MiB. Raises Malformed."""
        fields = Fields(parse_canonical(data, limit=MAX_MANIFEST, what="manifest"), "manifest")
        fields.constant("schema", MANIFEST_SCHEMA)
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
                "schema": MANIFEST_SCHEMA,
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
    """Raise Malformed (BAD-PATH) for two paths that differ only by case or Unicode form, or a path that is both a file
    and a folder.

    The sort key has NUL, which no path contains, for the slash; so colliding paths are neighbours in sorted order.
    """
    keys = sorted((_folded(path).replace("/", "\0"), path) for path in paths)
    for (left, path), (right, other) in itertools.pairwise(keys):
        if right == left:
            raise _bad_path(other, f"differs from {path!r} only by case or Unicode form")
        if right.startswith(left + "\0"):
            raise _bad_path(path, "it is both a file and a folder")
        folders = zip(path.split("/")[:-1], other.split("/")[:-1], strict=False)
        first = next((pair for pair in folders if pair[0] != pair[1]), None)
        if first is not None and _folded(first[0]) == _folded(first[1]):
            raise _bad_path(other, f"one of its folders differs from a folder of {path!r} only by case or Unicode form")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _bad_path(path: str, why: str) -> Malformed:
    shown = path.encode("utf-8", "backslashreplace").decode("utf-8", "replace")[:120]
    return Malformed(f"path {shown!r} cannot be published", why=why, code="BAD-PATH")


PIECE_SIZE: Final = 4 * 1024 * 1024
RECORD_BYTES: Final = 36
MAX_PIECES: Final = 4_000_000  # 16 TB in full pieces; 144 MB of records
MAX_PIECE_INDEX: Final = 64 * 1024 * 1024


@frozen
class PieceRecord:
    """One piece: length in bytes (1 to 4 MiB) and the raw 32-byte SHA-256 of the content."""

    length: int
    sha256: bytes

    def encode(self) -> bytes:
        return struct.pack(">I", self.length) + self.sha256


def parse_records(data: bytes, *, size: int) -> list[PieceRecord]:
    """Parse concatenated records whose lengths add up to `size` bytes. Raises Malformed."""
    if len(data) % RECORD_BYTES or len(data) > MAX_PIECES * RECORD_BYTES:
        raise Malformed("piece records are malformed", why="not a whole number of records, or too many")
    records = [
        PieceRecord(struct.unpack_from(">I", data, at)[0], data[at + 4 : at + RECORD_BYTES])
        for at in range(0, len(data), RECORD_BYTES)
    ]
    if any(not 1 <= record.length <= PIECE_SIZE for record in records):
        raise Malformed("piece records are malformed", why=f"a piece has 1 to {PIECE_SIZE} bytes")
    if sum(record.length for record in records) != size:
        raise Malformed(
            "piece records are malformed", why=f"their lengths do not add up to the file size of {size} bytes"
        )
    return records


def records_bytes(size: int) -> int:
    """The length of the records of a file of `size` bytes. Sizes of strangers are only divided, never allocated."""
    return -(-size // PIECE_SIZE) * RECORD_BYTES


def check_chained(data: bytes, *, size: int, digest: Digest) -> list[PieceRecord]:
    """Parse untrusted records for a file whose SHA-256 is known. Their states are not proven: a wrong one is found when
    the pieces are hashed. Raises Malformed, Untrusted (PIECE-RECORDS)."""
    if len(data) != records_bytes(size):
        raise Untrusted("piece records refused", why=f"expected {records_bytes(size)} bytes", code="PIECE-RECORDS")
    records = parse_records(data, size=size)
    if any(record.length != PIECE_SIZE for record in records[:-1]):
        raise Untrusted("piece records refused", why=f"not cut every {PIECE_SIZE} bytes", code="PIECE-RECORDS")
    last = records[-1].sha256.hex() if records else hashlib.sha256().hexdigest()
    if last != digest:
        raise Untrusted("piece records refused", why="they lead to another file", code="PIECE-RECORDS")
    return records
