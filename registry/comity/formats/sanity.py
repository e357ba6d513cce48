"""What a loader could not make sense of, or could be led astray by, in a weight file's header: sizes and places.

Each finding is one sentence about a file that may still load somewhere; nothing here decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

MAX_FINDINGS: Final = 8
"""Findings about one file: whoever reads the first ones needs no more."""
MAX_FINDING: Final = 200
"""Characters of one."""
MAX_ELEMENTS: Final = 2**48
"""Elements of a tensor beyond which nobody means it."""


@dataclass(slots=True)
class Looked:
    """What was found in a header. `templates` are the chat templates in it."""

    findings: list[str] = field(default_factory=list)
    templates: list[bytes] = field(default_factory=list)

    def say(self, finding: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding[:MAX_FINDING])


@dataclass(frozen=True, slots=True)
class Range:
    """The bytes of a tensor, counted from where data begins. `end` is None where the type's size is not known."""

    name: str
    begin: int
    end: int | None


def count_elements(looked: Looked, name: str, shape: Sequence[object]) -> int | None:
    elements = 1
    for side in shape:
        if not isinstance(side, int) or isinstance(side, bool) or side < 0:
            looked.say(f"{name[:80]!r} has a side that is no count: {str(side)[:40]}")
            return None
        elements *= side
        if elements > MAX_ELEMENTS:
            looked.say(f"{name[:80]!r} has more than {MAX_ELEMENTS} elements")
            return None
    return elements


def tile(looked: Looked, ranges: Iterable[Range], room: int, *, tight: bool) -> None:
    """Tensors lie one behind the other and inside the file; where they are not `tight` there may be padding."""
    position = 0
    for tensor in sorted(ranges, key=lambda tensor: (tensor.begin, tensor.end or tensor.begin)):
        end = tensor.begin if tensor.end is None else tensor.end
        if tensor.begin < 0 or end < tensor.begin or end > room:
            looked.say(f"{tensor.name[:80]!r} lies outside the file: {tensor.begin} to {end} of {room}")
        elif tensor.begin < position:
            looked.say(f"{tensor.name[:80]!r} overlaps the tensor before it")
        elif tight and tensor.begin > position:
            looked.say(f"{tensor.begin - position} bytes before {tensor.name[:80]!r} belong to no tensor")
        position = max(position, min(end, room))
    if tight and position < room:
        looked.say(f"{room - position} bytes behind the last tensor belong to none")
