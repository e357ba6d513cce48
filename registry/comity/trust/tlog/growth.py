"""That a log grew from one size to another: a consistency proof as a small file, for evidence packs and disks.

    comity/growth/v1
    node-a.example/log
    3 8
    CTtplUjEBYtS3TAZNWgVjZEiXD3Ow49VE2C5rqqDY74=

The roots are not in it: whoever checks it has them from elsewhere, and from elsewhere comes the trust.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.encoding import b64decode, b64encode, parse_decimal
from comity.trust.errors import Malformed
from comity.trust.tlog.merkle import HASH_SIZE, MAX_SIZE, verify_consistency
from comity.trust.tlog.note import check_name

MAX_HASHES: Final = 127
MAX_BYTES: Final = 8192
_HEADER: Final = b"comity/growth/v1\n"


@dataclass(frozen=True, slots=True)
class Growth:
    """RFC 9162 consistency `hashes` from `old` to `new` leaves of the log `origin`; nothing is checked. Raises
    Malformed out of bounds."""

    origin: str
    old: int
    new: int
    hashes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        check_name(self.origin)
        if not 0 <= self.old <= self.new <= MAX_SIZE or len(self.hashes) > MAX_HASHES:
            raise Malformed("not a proof of growth", why=f"sizes in order, and at most {MAX_HASHES} hashes")

    @classmethod
    def parse(cls, data: bytes) -> Growth:
        """Inverse of `encode`. Raises Malformed."""
        if len(data) > MAX_BYTES or not data.startswith(_HEADER) or not data.endswith(b"\n"):
            raise Malformed("not a proof of growth", why=f"expected {_HEADER!r} and at most {MAX_BYTES} bytes of lines")
        try:
            origin, sizes, *hashes = data[len(_HEADER) : -1].decode("utf-8").split("\n")
            old, new = sizes.split(" ")
        except ValueError as error:
            raise Malformed("not a proof of growth", why="expected an origin, two sizes and hashes") from error
        return cls(
            origin, parse_decimal(old), parse_decimal(new), tuple(b64decode(item, size=HASH_SIZE) for item in hashes)
        )

    def encode(self) -> bytes:
        lines = [self.origin, f"{self.old} {self.new}", *(b64encode(item) for item in self.hashes)]
        return _HEADER + "\n".join(lines).encode() + b"\n"

    def verify(self, old_root: bytes, new_root: bytes) -> None:
        """Raises Untrusted (CONSISTENCY)."""
        verify_consistency(self.old, old_root, self.new, new_root, self.hashes)


def is_growth(data: bytes) -> bool:
    """Whether the bytes are those of a proof of growth. Nothing is proven by that."""
    try:
        Growth.parse(data)
    except Malformed:
        return False
    return True


def growths(objects: Iterable[bytes]) -> Mapping[tuple[str, int, int], Sequence[Growth]]:
    """The proofs of growth among side objects, by origin and sizes; whatever else is there is passed over."""
    found: dict[tuple[str, int, int], list[Growth]] = {}
    for data in objects:
        if not data.startswith(_HEADER):
            continue
        with contextlib.suppress(Malformed):
            growth = Growth.parse(data)
            found.setdefault((growth.origin, growth.old, growth.new), []).append(growth)
    return found
