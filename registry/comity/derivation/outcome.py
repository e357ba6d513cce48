"""What a comparison found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where the child's tensor is not what the parent gives.

    `element` counts from 0 in the tensor's own order; `offset` counts bytes from the beginning of the child's file.
    `here` and `expected` are the bytes of that element (of a quantised tensor: of its block), in hex. `elements` is
    how many elements (or blocks) differ in all; None where that was not counted.
    """

    element: int
    offset: int
    here: str
    expected: str
    elements: int | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """One tensor of the child.

    Args:
        step: by what the parent's bytes become these: `copy`, a cast or a quantisation; empty where nothing does.
        why: why there is no step, where that is not a `difference`: no counterpart, another shape, an unknown pair.
    """

    file: str
    name: str
    parent: str
    length: int
    step: str
    difference: Difference | None = None
    why: str = ""

    @property
    def equal(self) -> bool:
        return bool(self.step)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All tensors of the child, and what of the parent is in none of them.

    Args:
        left_out: tensors of the parent that the child has not, by name.
        dropped: those of them that converters leave out by rule (see `names.is_dropped`).
        unread: weight files of the child in formats that are not compared.
        files: weight files of the child that were read; `parent_files` those of the parent.
        tools: versions of what computed it, by name.
    """

    tensors: tuple[Compared, ...]
    left_out: tuple[str, ...]
    dropped: tuple[str, ...]
    unread: tuple[str, ...]
    files: int
    parent_files: int
    tools: Mapping[str, str]

    @property
    def equal(self) -> tuple[Compared, ...]:
        return tuple(tensor for tensor in self.tensors if tensor.equal)

    @property
    def exact(self) -> bool:
        """Every byte of weights in the child follows from the parent, and nothing of the parent is missing but what
        converters drop by rule."""
        whole = not self.unread and set(self.left_out) <= set(self.dropped)
        return bool(self.tensors) and whole and all(tensor.equal for tensor in self.tensors)

    @property
    def steps(self) -> Mapping[str, int]:
        """Tensors by the step that gives them, most first."""
        return dict(Counter(tensor.step for tensor in self.equal).most_common())

    @property
    def bytes(self) -> int:
        return sum(tensor.length for tensor in self.tensors)

    @property
    def equal_bytes(self) -> int:
        return sum(tensor.length for tensor in self.equal)
