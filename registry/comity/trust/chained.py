"""The chained piece layout: every piece of a file is checked, and the whole file with it, by one SHA-256 of each byte.

SHA-256 is a chain: its state after a number of bytes that is a multiple of 64, and the bytes that follow, give the next
state. `sha256-chain-4MiB/1` cuts a file every 4 MiB. A record has the form of a piece record: the length of the piece
(32-bit, big-endian), then 32 bytes: the SHA-256 state after the piece (eight big-endian words). The record of the last
piece has the SHA-256 of the file instead, so a last piece of any length needs no special rule. Root and transport are
those of other records.

A piece is right if hashing it from the state of its predecessor gives its own record. The first piece starts from the
constant of the standard and the last record is the known SHA-256 of the file. So when all pieces are right, in any
order, the file has that SHA-256, by induction, whoever made the records: they need no signature. *One* right piece
proves nothing: who chooses both states of a piece can choose its bytes too. Therefore such records serve readers who
wait for the whole file. A reader of single pieces needs records whose root was signed.

This module has the format. `comity.hashing` computes states. Source: FIPS 180-4, sections 5.3.3 and 6.2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from comity.trust.artifact import PIECE_SIZE, RECORD_BYTES, PieceRecord, fixed_pieces, parse_records
from comity.trust.encoding import Digest
from comity.trust.errors import Untrusted

CHAINED_LAYOUT: Final = "sha256-chain-4MiB/1"
INITIAL_STATE: Final = bytes.fromhex("6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19")
"""The state of SHA-256 before the first byte."""
BLOCK: Final = 64
"""Bytes of a SHA-256 block: a state exists only after a multiple of them."""


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


def first_wrong(pieces: Iterable[bytes], records: Sequence[PieceRecord], continue_from: ContinueFrom) -> int | None:
    """The first of all pieces of a file, in order, whose bytes do not lead to its record; None if all do, which proves
    that the file has the SHA-256 in the last record. Pieces that are missing at the end count as wrong."""
    checked = 0
    for piece, (data, record) in enumerate(zip(pieces, records, strict=False)):
        hashed = continue_from(*start_of(records, piece))
        hashed.update(data)
        if len(data) != record.length or result_of(records, piece, hashed) != record.sha256:
            return piece
        checked += 1
    return None if checked == len(records) else checked
