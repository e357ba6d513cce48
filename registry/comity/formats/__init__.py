"""What a file is, by its bytes: where the tensors of weight files are, and what there is that a loader would run.

A file is a stranger's: readers raise Malformed for everything they cannot make sense of, `inspecting` states it, and
each says how much it reads and holds at most. Nothing is executed, unpickled or rendered.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """Where the header region ends, and where tensors start: absolute offsets, ascending, distinct, inside the file
    and not before `header_end`. Tensors without elements are left out."""

    header_end: int
    starts: tuple[int, ...]
