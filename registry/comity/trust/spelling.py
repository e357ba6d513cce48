"""How things are shown to people: a 256-bit id as grouped base32 with check digits, and as syllables to read out on the
phone; a stranger's words on one harmless line.

Ids are computed and never parsed back into trust. The syllables carry the first 64 bits of the id and say so: enough
that nobody can aim for a given phrase by chance, not a substitute for the full id in a file.
"""

from __future__ import annotations

import base64
import zlib
from typing import Final

from comity.trust.digest import Digest

SYLLABLE_BITS: Final = 64
_CONSONANTS: Final = "bdfghjklmnprstvz"
_VOWELS: Final = "aiou"


def grouped(identifier: Digest) -> str:
    """`MFZWI3D-…`: 52 base32 digits and 4 check digits (CRC-32, 20 bits) in groups of seven."""
    raw = bytes.fromhex(identifier)
    check = (zlib.crc32(raw) & 0xFFFFF) << 4
    text = base64.b32encode(raw).decode().rstrip("=") + base64.b32encode(check.to_bytes(3, "big")).decode()[:4]
    return "-".join(text[at : at + 7] for at in range(0, len(text), 7))


def syllables(identifier: Digest) -> str:
    """Four words of five letters, 16 bits each, for the first 64 bits."""
    raw = bytes.fromhex(identifier)[: SYLLABLE_BITS // 8]
    return "-".join(_word(int.from_bytes(raw[at : at + 2], "big")) for at in range(0, len(raw), 2))


def plain(text: str) -> str:
    """`text` on one line, with nothing in it that a terminal obeys: file names and claims are a stranger's words."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _word(value: int) -> str:
    letters = (
        _CONSONANTS[value >> 12 & 15],
        _VOWELS[value >> 10 & 3],
        _CONSONANTS[value >> 6 & 15],
        _VOWELS[value >> 4 & 3],
        _CONSONANTS[value & 15],
    )
    return "".join(letters)
