"""What is sent to a mirror (C2SP tlog-mirror): the parts of an `add-entries` body, and what a mirror says of itself.

    u16 length, origin, u64 start, u64 end, u16 length, ticket                               the head
    {u16 length, entry} ..., u8 count, {hash} ...                                            a package, and the next one

The entries `start` up to `end` of a log come in packages that end at multiples of 256. The hashes of a package prove
that all of its 256 leaves so far are in the tree of `end` leaves. Reading from a connection is done elsewhere.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.encoding import b64decode, b64encode, parse_decimal
from comity.trust.errors import Malformed
from comity.trust.tlog.merkle import MAX_SIZE, leaf_hash, root, verify_subtree
from comity.trust.tlog.note import check_name
from comity.trust.tlog.tiles import WIDTH, encode_entries

MAX_HASHES: Final = 63
MAX_PACKAGE: Final = WIDTH * (2 + 65_535) + 1 + MAX_HASHES * 32
"""Bytes of the largest package."""


@dataclass(frozen=True, slots=True)
class Upload:
    """The entries `start` up to `end` of a log. `ticket` is what the mirror gave before, or empty. Raises Malformed."""

    origin: str
    start: int
    end: int
    ticket: bytes = b""

    def __post_init__(self) -> None:
        check_name(self.origin)
        if not 0 <= self.start <= self.end <= MAX_SIZE or len(self.ticket) > 65_535:
            raise Malformed("not an upload", why=f"entries {self.start} to {self.end}", code="ADD-ENTRIES")

    def encode(self) -> bytes:
        name = self.origin.encode()
        head = struct.pack(">H", len(name)) + name + struct.pack(">QQ", self.start, self.end)
        return head + struct.pack(">H", len(self.ticket)) + self.ticket

    def packages(self) -> Iterator[Package]:
        """The packages in their order; none where the upload is empty."""
        rounded = self.start - self.start % WIDTH
        for first in range(rounded, self.end if self.start < self.end else rounded, WIDTH):
            yield Package(first, max(first, self.start), min(first + WIDTH, self.end))


@dataclass(frozen=True, slots=True)
class Package:
    """The entries `start` up to `end`, of which 256 begin at `first`."""

    first: int
    start: int
    end: int

    def encode(self, entries: Sequence[bytes], proof: Sequence[bytes]) -> bytes:
        return encode_entries(entries) + bytes([len(proof)]) + b"".join(proof)

    def verify(
        self, before: Sequence[bytes], entries: Sequence[bytes], proof: Sequence[bytes], size: int, top: bytes
    ) -> None:
        """Return if `entries`, after the leaf hashes `before` from `first` on, are in the tree (`size`, `top`).

        Raises Untrusted(code="SUBTREE").
        """
        verify_subtree(self.first, self.end, root([*before, *map(leaf_hash, entries)]), size, top, proof)


@dataclass(frozen=True, slots=True)
class MirrorInfo:
    """What a mirror waits for: the size of a checkpoint that it takes entries for, and the next entry."""

    pending: int
    next_entry: int
    ticket: bytes = b""

    @classmethod
    def parse(cls, data: bytes) -> MirrorInfo:
        """Inverse of `encode`. Raises Malformed."""
        lines = data.decode("ascii", "replace").split("\n")
        if len(lines) != 4 or lines[3]:
            raise Malformed("not a mirror's answer", why="expected three lines", code="ADD-ENTRIES")
        return cls(parse_decimal(lines[0]), parse_decimal(lines[1]), b64decode(lines[2]))

    def encode(self) -> bytes:
        return f"{self.pending}\n{self.next_entry}\n{b64encode(self.ticket)}\n".encode("ascii")
