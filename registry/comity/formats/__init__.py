"""Readers of weight-file headers: just enough to know where each tensor starts.

A header is a stranger's: readers raise Malformed for everything they cannot make sense of, and each states how much it
reads and holds at most. Nothing here looks at tensor data, and nothing is unpickled.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """Where the header region ends, and where tensors start: absolute offsets, ascending, distinct, inside the file
    and not before `header_end`. Tensors without elements are left out."""

    header_end: int
    starts: tuple[int, ...]
