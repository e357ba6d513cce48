"""Which single byte of a page changed, computed from the CRC-32 that the page had before.

A CRC-32 is linear: what a changed byte adds to it depends on the position of the byte and on the changed bits alone.
All 1,044,480 changes of one byte in a page of 4,096 bytes give different sums. In a larger page some may be equal; then
nothing is answered. A page that changed in many places looks like one with a changed byte once in 4,112 times, so the
caller checks it by other means.

Source: RFC 1952, section 8.
"""

from __future__ import annotations

from typing import Final

_POLYNOMIAL: Final = 0xEDB88320


def _of_byte(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE: Final = tuple(map(_of_byte, range(256)))
_LAST: Final = {value: byte for byte, value in enumerate(_TABLE)}
"""The changed bits of the last byte, by what they add to a sum."""
_HIGH: Final = {value >> 24: byte for byte, value in enumerate(_TABLE)}
"""The high bytes of the table are all different."""


def changed_byte(size: int, difference: int) -> tuple[int, int] | None:
    """Returns the offset of the only byte whose change explains `difference`, and its changed bits.

    Args:
        size: of the page, in bytes.
        difference: the sum of the page before, XOR its sum now; not 0.
    """
    found = list[tuple[int, int]]()
    for offset in range(size - 1, -1, -1):
        if (bits := _LAST.get(difference)) is not None:
            found.append((offset, bits))
        byte = _HIGH[difference >> 24]
        difference = (difference ^ _TABLE[byte]) << 8 & 0xFFFFFFFF | byte  # as it was one byte of zeros earlier
    return found[0] if len(found) == 1 else None
