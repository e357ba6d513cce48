"""Which bytes a request asks for. Source: RFC 9110, sections 13.1.5 (If-Range) and 14 (Range)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_ONE_RANGE: Final = re.compile(
    r"bytes=[ \t]*(?P<first>[0-9]{0,19})-(?P<last>[0-9]{0,19})[ \t]*", re.ASCII | re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes offset <= i < offset + length of a file; `partial` where the answer has to say so (206)."""

    offset: int
    length: int
    partial: bool


def requested(size: int, wanted: str | None, condition: str | None, etag: str) -> Span | None:
    """What to send of a file of `size` bytes; None where nothing of it was asked for (416).

    Args:
        wanted: the Range field. One that is malformed, of another unit or of several ranges is ignored, as the RFC
            allows: the whole file is sent.
        condition: the If-Range field. Only the very `etag` keeps the range: dates and weak tags cannot vouch for bytes.
    """
    whole = Span(0, size, partial=False)
    if wanted is None or (condition is not None and condition != etag):
        return whole
    found = _ONE_RANGE.fullmatch(wanted)
    if found is None or not (found["first"] or found["last"]):
        return whole
    if not found["first"]:
        length = min(int(found["last"]), size)
        return Span(size - length, length, partial=True) if length else None
    first = int(found["first"])
    last = min(int(found["last"]), size - 1) if found["last"] else size - 1
    if found["last"] and int(found["last"]) < first:
        return whole
    return Span(first, last - first + 1, partial=True) if first < size else None
