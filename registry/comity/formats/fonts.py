"""Checks fonts: the tables of TrueType and OpenType, and the lengths of WOFF. Sources: OpenType, WOFF 2.

A font has programs for its outlines, which a renderer interprets; they draw, and can call nothing.
"""

from __future__ import annotations

import re
from typing import Final

from comity.formats.source import BoundedFile
from comity.trust.errors import Malformed

MAX_TABLES: Final = 128
PADDING: Final = 3
"""Bytes that may follow the last table."""
_SFNT: Final = (b"\0\1\0\0", b"OTTO", b"true")
_WOFF: Final = (b"wOFF", b"wOF2")
_TAG: Final = re.compile(rb"[A-Za-z][A-Za-z0-9/ ]{3}")
_REQUIRED: Final = frozenset({b"head", b"maxp", b"cmap", b"name"})


def is_font(head: bytes) -> bool:
    """Whether the file begins as a font: for TrueType also its number of tables, and the first tag."""
    if head[:4] in _WOFF:
        return True
    tables = int.from_bytes(head[4:6], "big")
    return head[:4] in _SFNT and 0 < tables <= MAX_TABLES and _TAG.fullmatch(head[12:16]) is not None


def check_font(source: BoundedFile) -> None:
    """Raises Malformed if the tables of the font do not fill the file."""
    head = source.read_at(0, 48)
    if head[:4] in _WOFF:
        if int.from_bytes(head[8:12], "big") != source.size:
            raise Malformed("font: its length is not that of the file")
        return
    tables, end, tags = int.from_bytes(head[4:6], "big"), 0, set[bytes]()
    for place in range(tables):
        entry = source.read_exactly(12 + 16 * place, 16)
        if _TAG.fullmatch(entry[:4]) is None or entry[:4] in tags:
            raise Malformed("font: a table without a name")
        tags.add(entry[:4])
        end = max(end, int.from_bytes(entry[8:12], "big") + int.from_bytes(entry[12:], "big"))
    if not tags >= _REQUIRED:
        raise Malformed("font: a table is missing")
    if not end <= source.size <= end + PADDING:
        raise Malformed("font: its tables do not fill the file")
