"""Pieces: verifiable ranges of a file, the unit of transfer, resume, reuse and audit.

`root` is the RFC 6962 tree hash over the records of a file (`comity.trust.artifact`). The *piece index* lists
{layout, count, root} per file. A wrong index costs a retry, never a wrong file, because the SHA-256 of the whole file
decides. Source: protocol, section 4.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Final

from comity.trust.artifact import (
    MAX_FILES,
    MAX_PATH_BYTES,
    MAX_PIECE_INDEX,
    MAX_PIECES,
    PIECE_SIZE,
    RECORD_BYTES,
    PieceRecord,
    check_path,
    parse_records,
)
from comity.trust.encoding import Digest, Fields, Json, canonical, parse_canonical, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.tlog.merkle import leaf_hash, root

CHAINED_LAYOUT: Final = "sha256-chain-4MiB/1"
PIECES_SCHEMA: Final = "comity/pieces/v1"
SMALL_TENSOR: Final = 256 * 1024
FIXED_LAYOUT: Final = "fixed-4MiB/1"
TENSOR_LAYOUT: Final = "tensor-4MiB/1"


@frozen
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


def lowest_pieces(records: Iterable[PieceRecord], most: int) -> list[bytes]:
    """The lowest digests of pieces of at least SMALL_TENSOR bytes, at most `most`: two files that have much in common
    have some of these in common too."""
    return sorted({record.sha256 for record in records if record.length >= SMALL_TENSOR})[:most]


def encode_records(records: Iterable[PieceRecord]) -> bytes:
    return b"".join(record.encode() for record in records)


def records_root(records: Iterable[PieceRecord]) -> Digest:
    """RFC 6962 tree hash over the encoded records, in hex."""
    return Digest(root([leaf_hash(record.encode()) for record in records]).hex())


def check_records(data: bytes, *, size: int, expected: PieceLayout) -> list[PieceRecord]:
    """Parse untrusted records and verify them against `expected`. Those of TENSOR_LAYOUT may still cut the file
    elsewhere than its header says. Raises Malformed/Untrusted (PIECE-RECORDS)."""
    if len(data) != expected.count * RECORD_BYTES:
        raise Untrusted("piece records refused", why=f"expected {expected.count} records", code="PIECE-RECORDS")
    records = parse_records(data, size=size)
    if expected.layout != TENSOR_LAYOUT and [record.length for record in records] != fixed_pieces(size):
        why = f"they do not cut {size} bytes as {expected.layout} does"
        raise Untrusted("piece records refused", why=why, code="PIECE-RECORDS")
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


@frozen
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


def chained_records(size: int, states: Sequence[bytes], digest: Digest) -> list[PieceRecord]:
    """The records of a file of `size` bytes with this SHA-256.

    Args:
        states: the states after each piece but the last, in order.
    """
    values = [*states, bytes.fromhex(digest)] if size else []
    return [PieceRecord(length, value) for length, value in zip(fixed_pieces(size), values, strict=True)]
