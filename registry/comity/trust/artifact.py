"""Content of an artifact: the manifest, the piece index, the chained records, and the git object ids for Hub clients.

    {"files":[{"path":"config.json","sha256":"953f…","size":612},…],"schema":"comity/manifest/v1","size":612}

The manifest lists files, without names, licences or people. It is RFC 8785 JSON; its SHA-256 names the artifact, so
equal files give equal names, with any parser or piece layout.

Pieces are verifiable ranges of a file, the unit of transfer, resume, reuse and audit. A *piece record* is the length of
the piece (32-bit, big-endian) and its SHA-256: 36 bytes. `root` is the RFC 6962 tree hash over the records of a file.
The *piece index* lists {layout, count, root} per file. A wrong index costs a retry, never a wrong file, because the
SHA-256 of the whole file decides. Source: protocol, section 4.

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

Hub clients see a deterministic git commit id, computed from the manifest alone: each file is the blob of its Git LFS
pointer (SHA-256 and size), in real tree objects, under a commit with fixed author, date and message. All nodes compute
the same 40 hex digits. Sources: git object format; Git LFS pointer spec v1.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol, TypeAlias

from comity.trust.encoding import MAX_INTEGER, Digest, Fields, Json, canonical, parse_canonical, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.tlog.merkle import leaf_hash, root

MANIFEST_SCHEMA: Final = "comity/manifest/v1"
MAX_FILES: Final = 100_000
MAX_PATH_BYTES: Final = 1024
MAX_MANIFEST: Final = 64 * 1024 * 1024
MAX_FOLDERS: Final = MAX_FILES
"""Folders of an artifact that has git ids. A manifest of 64 MiB could have thirty million."""
RESERVED: Final = (".comity", ".git", ".cache/huggingface")
CHAINED_LAYOUT: Final = "sha256-chain-4MiB/1"
INITIAL_STATE: Final = bytes.fromhex("6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19")
"""The state of SHA-256 before the first byte."""
BLOCK: Final = 64
"""Bytes of a SHA-256 block: a state exists only after a multiple of them."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: relative `path`, `size` in bytes, SHA-256 of the content."""

    path: str
    size: int
    sha256: Digest


def check_path(path: str) -> str:
    """Return `path` if it is valid in a manifest: it names the same file on every system.

    Raises Malformed (BAD-PATH) for absolute paths, `.`, `..` and empty segments, control characters, backslashes, paths
    that are too long, and folders that are never published (`.git/`, `.comity/`, the Hub's cache).
    """
    encoded = path.encode("utf-8", "surrogatepass")
    if len(encoded) > MAX_PATH_BYTES:
        raise _bad_path(path, f"a path has at most {MAX_PATH_BYTES} bytes")
    if any(segment in ("", ".", "..") for segment in path.split("/")):
        raise _bad_path(path, "it has an empty, '.' or '..' segment")
    if "\\" in path or any(unicodedata.category(character) in ("Cc", "Cs") for character in path):
        raise _bad_path(path, "it has a backslash, control character or lone surrogate")
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


PIECES_SCHEMA: Final = "comity/pieces/v1"
PIECE_SIZE: Final = 4 * 1024 * 1024
SMALL_TENSOR: Final = 256 * 1024
FIXED_LAYOUT: Final = "fixed-4MiB/1"
TENSOR_LAYOUT: Final = "tensor-4MiB/1"
RECORD_BYTES: Final = 36
MAX_PIECES: Final = 4_000_000  # 16 TB in full pieces; 144 MB of records
MAX_PIECE_INDEX: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PieceRecord:
    """One piece: length in bytes (1 to 4 MiB) and the raw 32-byte SHA-256 of the content."""

    length: int
    sha256: bytes

    def encode(self) -> bytes:
        return struct.pack(">I", self.length) + self.sha256


@dataclass(frozen=True, slots=True)
class PieceLayout:
    """How one file is split: name of the layout, number of pieces, root over their records (hex)."""

    layout: str
    count: int
    root: Digest


def fixed_pieces(size: int) -> list[int]:
    """Piece lengths for `fixed-4MiB/1`: 4 MiB each, the last one may be shorter; none for an empty file.

    Raises Malformed (FILE-TOO-LARGE) for more than MAX_PIECES pieces: somebody may claim any size.
    """
    if size > MAX_PIECES * PIECE_SIZE:
        raise Malformed("file too large", why=f"{size} bytes, at most {MAX_PIECES * PIECE_SIZE}", code="FILE-TOO-LARGE")
    full, rest = divmod(size, PIECE_SIZE)
    return [PIECE_SIZE] * full + ([rest] if rest else [])


def tensor_pieces(size: int, header_end: int, starts: Sequence[int]) -> list[int]:
    """Piece lengths for `tensor-4MiB/1`.

    Args:
        size: file size in bytes.
        header_end: where the header region ends and tensor data may begin.
        starts: absolute offsets of tensor starts, ascending, distinct, in [header_end, size).

    The header region is split every 4 MiB. Consecutive tensors under 256 KiB are joined while the piece has at most
    4 MiB. A larger tensor is split every 4 MiB from its start, so that the same tensor gives the same pieces at any
    offset. Raises Malformed if the offsets do not fit the file.
    """
    if not 0 <= header_end <= size or any(a >= b for a, b in itertools.pairwise(starts)):
        raise Malformed("tensor offsets are malformed", why="not ascending, or beyond the end of the file")
    if starts and not (header_end <= starts[0] and starts[-1] < size):
        raise Malformed("tensor offsets are malformed", why="outside the data region")
    lengths = fixed_pieces(header_end)
    bounds = [header_end, *starts, size]
    joined = 0
    for start, end in itertools.pairwise(bounds):
        length = end - start
        if length < SMALL_TENSOR and joined + length <= PIECE_SIZE:
            joined += length
            continue
        if joined:
            lengths.append(joined)
        joined = length if length < SMALL_TENSOR else 0
        if not joined:
            lengths.extend(fixed_pieces(length))
    return lengths + ([joined] if joined else [])


def encode_records(records: Iterable[PieceRecord]) -> bytes:
    return b"".join(record.encode() for record in records)


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


def records_root(records: Iterable[PieceRecord]) -> Digest:
    """RFC 6962 tree hash over the encoded records, in hex."""
    return Digest(root([leaf_hash(record.encode()) for record in records]).hex())


def check_records(data: bytes, *, size: int, expected: PieceLayout) -> list[PieceRecord]:
    """Parse untrusted records and verify them against `expected`. Raises Malformed/Untrusted (PIECE-RECORDS)."""
    if len(data) != expected.count * RECORD_BYTES:
        raise Untrusted("piece records refused", why=f"expected {expected.count} records", code="PIECE-RECORDS")
    records = parse_records(data, size=size)
    if records_root(records) != expected.root:
        raise Untrusted(
            "piece records refused", why="their root differs from the root in the index", code="PIECE-RECORDS"
        )
    return records


def derived_records(size: int, digest: Digest, layout: PieceLayout) -> list[PieceRecord] | None:
    """The records of a file of at most one piece: the piece is the file, whose SHA-256 is known. None if it has more.
    Raises Malformed/Untrusted (PIECE-RECORDS) if `layout` is not that of such a file."""
    if layout.count > 1:
        return None
    only = [PieceRecord(size, bytes.fromhex(digest))] if 0 < size <= PIECE_SIZE else []
    return check_records(encode_records(only), size=size, expected=layout)


@dataclass(frozen=True, slots=True)
class PieceIndex:
    """Path and layout of each file of one manifest, in manifest order."""

    files: tuple[tuple[str, PieceLayout], ...]

    @classmethod
    def parse(cls, data: bytes) -> PieceIndex:
        """Inverse of `encode`. Raises Malformed."""
        fields = Fields(parse_canonical(data, limit=MAX_PIECE_INDEX, what="piece index"), "piece index")
        fields.constant("schema", PIECES_SCHEMA)
        files = []
        for item in fields.items("files", most=MAX_FILES):
            file = Fields(item, "piece index file")
            path = check_path(file.text("path", most=MAX_PATH_BYTES))
            layout = file.choice("layout", (FIXED_LAYOUT, TENSOR_LAYOUT))
            files.append((path, PieceLayout(layout, file.integer("count", most=MAX_PIECES), file.digest("root"))))
            file.done()
        fields.done()
        if any(left.encode() >= right.encode() for (left, _), (right, _) in itertools.pairwise(files)):
            raise Malformed("piece index is malformed", why="paths are not in strict UTF-8 byte order")
        return cls(tuple(files))

    def encode(self) -> bytes:
        files: list[Json] = [
            {"path": path, "layout": p.layout, "count": p.count, "root": p.root} for path, p in self.files
        ]
        return canonical({"schema": PIECES_SCHEMA, "files": files})

    @property
    def digest(self) -> Digest:
        return sha256(self.encode())


_TreeRows: TypeAlias = list[tuple[bytes, bytes, bytes]]
_OpenFolder: TypeAlias = tuple[str, str, _TreeRows]
"""Name, path and rows."""


def lfs_pointer(entry: FileEntry) -> bytes:
    """The Git LFS pointer file of a manifest entry."""
    return (f"version https://git-lfs.github.com/spec/v1\noid sha256:{entry.sha256}\nsize {entry.size}\n").encode()


def blob_id(entry: FileEntry) -> str:
    """Git blob id (40 hex digits) of the entry's pointer."""
    return _object_id("blob", lfs_pointer(entry)).hex()


def tree_id(manifest: Manifest) -> str:
    """Git tree id (40 hex digits) of the artifact's root folder."""
    return tree_ids(manifest)[""]


def tree_ids(manifest: Manifest) -> dict[str, str]:
    """Git tree ids of all folders by path; the root folder has the empty path. Raises Malformed for an artifact with
    more than MAX_FOLDERS folders."""
    return git_tree_ids(manifest, blob_id)


def git_tree_ids(manifest: Manifest, blob_id_of: Callable[[FileEntry], str]) -> dict[str, str]:
    """As `tree_ids`; `blob_of` returns the git blob id of a file. Every file has mode 100644."""
    ids: dict[str, str] = {}
    open_folders: list[_OpenFolder] = [("", "", [])]  # from the root inwards; no recursion: up to 512 levels
    count = 0
    for entry in manifest.files:  # in byte order: the files of one folder are consecutive
        *folders, name = entry.path.split("/")
        current = [folder for folder, _, _ in open_folders[1:]]
        pairs = zip(current, folders, strict=False)
        shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        count += len(folders) - shared
        if count > MAX_FOLDERS:
            why = f"more than {MAX_FOLDERS} folders"
            raise Malformed("the artifact has no git id", why=why, hint="comity pull REF --out DIR")
        _close_folders(open_folders, shared + 1, ids)
        for folder in folders[shared:]:
            above = open_folders[-1][1]
            open_folders.append((folder, f"{above}/{folder}" if above else folder, []))
        open_folders[-1][2].append((name.encode(), b"100644", bytes.fromhex(blob_id_of(entry))))
    _close_folders(open_folders, 1, ids)
    ids[""] = _tree_hash(open_folders[0][2]).hex()
    return ids


def commit_id(manifest: Manifest) -> str:
    """Git commit id (40 lower-case hex digits) of this artifact for Hub clients. Raises Malformed as `tree_ids`."""
    text = (
        f"tree {tree_id(manifest)}\n"
        "author Comity <comity@invalid> 0 +0000\n"
        "committer Comity <comity@invalid> 0 +0000\n"
        f"\nsha256:{manifest.digest}\n"
    )
    return _object_id("commit", text.encode()).hex()


def _close_folders(open_folders: list[_OpenFolder], depth: int, ids: dict[str, str]) -> None:
    """Close the innermost folders until `depth` are open; each becomes a row of its parent folder."""
    while len(open_folders) > depth:
        folder, path, rows = open_folders.pop()
        oid = _tree_hash(rows)
        ids[path] = oid.hex()
        open_folders[-1][2].append((folder.encode() + b"/", b"40000", oid))


def _tree_hash(rows: _TreeRows) -> bytes:
    """Raw id of a git tree object.

    Git sorts a folder as if its name ended with a slash: that is the order of a manifest, by the bytes of whole paths.
    """
    lines = (mode + b" " + name.removesuffix(b"/") + b"\0" + oid for name, mode, oid in rows)
    return _object_id("tree", b"".join(lines))


def _object_id(kind: str, data: bytes) -> bytes:
    return hashlib.sha1(b"%b %d\0" % (kind.encode(), len(data)) + data, usedforsecurity=False).digest()


class ContinuedHash(Protocol):
    """A SHA-256 that continues from a state. Not thread-safe."""

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes."""
        ...

    def state(self) -> bytes:
        """The state, 32 bytes. Defined only after a multiple of 64 bytes."""
        ...

    def digest(self) -> bytes:
        """The SHA-256 of all bytes since the start of the file. May be called once; nothing may follow."""
        ...


class ContinueFrom(Protocol):
    """Makes a hash that continues after `offset` bytes, a multiple of 64, which led to `state`."""

    def __call__(self, state: bytes, offset: int) -> ContinuedHash: ...


def chained_records(size: int, states: Sequence[bytes], digest: Digest) -> list[PieceRecord]:
    """The records of a file of `size` bytes with this SHA-256.

    Args:
        states: the states after each piece but the last, in order.
    """
    values = [*states, bytes.fromhex(digest)] if size else []
    return [PieceRecord(length, value) for length, value in zip(fixed_pieces(size), values, strict=True)]


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


def start_of(records: Sequence[PieceRecord], piece: int) -> tuple[bytes, int]:
    """(state, offset) from which `piece` is hashed."""
    return (records[piece - 1].sha256 if piece else INITIAL_STATE), piece * PIECE_SIZE


def result_of(records: Sequence[PieceRecord], piece: int, hashed: ContinuedHash) -> bytes:
    """What is compared with the record of `piece`, after its bytes were added to a hash begun at its start."""
    return hashed.digest() if piece == len(records) - 1 else hashed.state()
