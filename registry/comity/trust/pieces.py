"""Pieces: verifiable ranges of a file, the unit of transfer, resume, reuse and audit.

A *piece record* is the piece's length (32-bit, big-endian) and its SHA-256: 36 bytes. The RFC 6962 tree hash over a
file's records is its `root`. The *piece index* lists {layout, count, root} per file; it is a hint beside the manifest:
a wrong one costs a retry, never a wrong file, because the whole-file SHA-256 decides. Source: protocol, section 4.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest, sha256
from comity.trust.encoding import Json, canonical, parse_canonical
from comity.trust.errors import Malformed, Untrusted
from comity.trust.fields import Fields
from comity.trust.manifest import MAX_FILES, MAX_PATH_BYTES, check_path
from comity.trust.tlog.merkle import leaf_hash, root

SCHEMA: Final = "comity/pieces/v1"
PIECE: Final = 4 * 1024 * 1024
SMALL: Final = 256 * 1024
FIXED: Final = "fixed-4MiB/1"
TENSOR: Final = "tensor-4MiB/1"
RECORD_BYTES: Final = 36
MAX_PIECES: Final = 4_000_000  # 16 TB in full pieces; 144 MB of records
MAX_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PieceRecord:
    """One piece: its length in bytes (1 to 4 MiB) and the raw 32-byte SHA-256 of its bytes."""

    length: int
    sha256: bytes

    def encode(self) -> bytes:
        return struct.pack(">I", self.length) + self.sha256


@dataclass(frozen=True, slots=True)
class PieceLayout:
    """How one file is cut: the layout's name, the number of pieces, and the root over their records (hex)."""

    layout: str
    count: int
    root: Digest


def fixed_pieces(size: int) -> list[int]:
    """Lengths under `fixed-4MiB/1`: 4 MiB each, the last one shorter; none for an empty file."""
    full, rest = divmod(size, PIECE)
    return [PIECE] * full + ([rest] if rest else [])


def tensor_pieces(size: int, header_end: int, starts: Sequence[int]) -> list[int]:
    """Lengths under `tensor-4MiB/1`.

    Args:
        size: file size in bytes.
        header_end: where the header region ends and tensor data may begin.
        starts: absolute offsets of tensor starts, ascending, distinct, in [header_end, size).

    The header region is cut every 4 MiB. Consecutive tensors under 256 KiB are joined while the piece stays at most
    4 MiB; a larger tensor is cut every 4 MiB from its own start, so that the same tensor gives the same pieces
    wherever it stands. Raises Malformed where the offsets do not fit the file.
    """
    if not 0 <= header_end <= size or any(a >= b for a, b in itertools.pairwise(starts)):
        raise Malformed("tensor offsets are malformed", why="not ascending, or beyond the file")
    if starts and not (header_end <= starts[0] and starts[-1] < size):
        raise Malformed("tensor offsets are malformed", why="outside the data region")
    lengths = fixed_pieces(header_end)
    bounds = [header_end, *(start for start in starts if start > header_end), size]
    joined = 0
    for start, end in itertools.pairwise(bounds):
        length = end - start
        if length < SMALL and joined + length <= PIECE:
            joined += length
            continue
        if joined:
            lengths.append(joined)
        joined = length if length < SMALL else 0
        if not joined:
            lengths.extend(fixed_pieces(length))
    return lengths + ([joined] if joined else [])


def encode_records(records: Iterable[PieceRecord]) -> bytes:
    return b"".join(record.encode() for record in records)


def parse_records(data: bytes, *, size: int) -> list[PieceRecord]:
    """Parse concatenated records that tile a file of `size` bytes exactly. Raises Malformed."""
    if len(data) % RECORD_BYTES or len(data) > MAX_PIECES * RECORD_BYTES:
        raise Malformed("piece records are malformed", why="not a whole number of records, or too many")
    records = [
        PieceRecord(struct.unpack_from(">I", data, at)[0], data[at + 4 : at + RECORD_BYTES])
        for at in range(0, len(data), RECORD_BYTES)
    ]
    if any(not 1 <= record.length <= PIECE for record in records):
        raise Malformed("piece records are malformed", why=f"a piece has 1 to {PIECE} bytes")
    if sum(record.length for record in records) != size:
        raise Malformed("piece records are malformed", why=f"they do not tile a file of {size} bytes")
    return records


def records_root(records: Iterable[PieceRecord]) -> Digest:
    """RFC 6962 tree hash over the encoded records, in hex."""
    return Digest(root([leaf_hash(record.encode()) for record in records]).hex())


def check_records(data: bytes, *, size: int, expected: PieceLayout) -> list[PieceRecord]:
    """The records that `expected` names, or Malformed/Untrusted: this is how a stranger's records become usable."""
    if len(data) != expected.count * RECORD_BYTES:
        raise Untrusted("piece records refused", why=f"expected {expected.count} records", code="PIECE-RECORDS")
    records = parse_records(data, size=size)
    if records_root(records) != expected.root:
        raise Untrusted("piece records refused", why="their root is not the index's", code="PIECE-RECORDS")
    return records


@dataclass(frozen=True, slots=True)
class PieceIndex:
    """Path and layout of each file of one manifest, in the manifest's order."""

    files: tuple[tuple[str, PieceLayout], ...]

    @classmethod
    def parse(cls, data: bytes) -> PieceIndex:
        """Parse exactly what `encode` writes. Raises Malformed."""
        fields = Fields(parse_canonical(data, limit=MAX_BYTES, what="piece index"), "piece index")
        fields.constant("schema", SCHEMA)
        files = []
        for item in fields.items("files", most=MAX_FILES):
            file = Fields(item, "piece index file")
            path = check_path(file.text("path", most=MAX_PATH_BYTES))
            layout = file.choice("layout", (FIXED, TENSOR))
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
        return canonical({"schema": SCHEMA, "files": files})

    @property
    def digest(self) -> Digest:
        return sha256(self.encode())
