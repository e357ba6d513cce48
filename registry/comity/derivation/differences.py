"""The first place where a way (`steps`) does not lead from the parent's bytes to the child's. Chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from comity.derivation import tools
from comity.derivation.outcome import Difference
from comity.derivation.steps import Step
from comity.formats.tensors import Tensor
from comity.trust.errors import Conflict

CHUNK: Final = 256 * 1024
"""Elements at a time, a multiple of every block: up to 2 MiB a side, and a few times that in between."""
_HEADER: Final = 2
"""Bytes of the scale before the elements of a Q8_0 or Q4_0 block."""


def first_difference(
    step: Step, here: BinaryIO, child: Tensor, there: BinaryIO, parent: Tensor, *, count: bool = True
) -> Difference | None:
    """Where `child` in the file `here` is not what `step` makes of `parent` in the file `there`; None where it is.

    Args:
        count: read on behind the first difference and count all, where numpy is at hand.

    Raises Conflict (CHANGED) for a file that ends too early, OSError where a file does, Unavailable (NO-GGUF).
    """
    first: Difference | None = None
    differing = 0
    for begin, source, found in _chunks(step, here, child, there, parent):
        if not step.numeric and source == found:
            continue
        if not step.numeric and not tools.installed():
            return _difference(child, begin, source, found, _first_unequal(source, found, child.block[1]))
        expected, differ = _judge(step, step.turn(source), found, child)
        if not differ.any():
            continue
        if first is None:
            first = _difference(child, begin, expected, found, int(differ.argmax()))
            if not count:
                return first
        differing += int(differ.sum())
    if first is None:
        return None
    return Difference(first.element, first.offset, first.here, first.expected, differing)


def read_exactly(file: BinaryIO, start: int, length: int) -> bytes:
    """Raises Conflict (CHANGED) where the file has less."""
    file.seek(start)
    data = file.read(length)
    if len(data) != length:
        raise Conflict("a weight file changed while it was read", why="it is shorter than it was", code="CHANGED")
    return data


def _chunks(
    step: Step, here: BinaryIO, child: Tensor, there: BinaryIO, parent: Tensor
) -> Iterator[tuple[int, bytes, bytes]]:
    """(first element, the parent's bytes, the child's), in whole blocks and, where rows are turned, in whole heads."""
    head = step.rows * step.columns
    most = max(CHUNK // head, 1) * head if head else CHUNK
    for begin in range(0, child.elements, most):
        elements = min(most, child.elements - begin)
        yield begin, _part(there, parent, begin, elements), _part(here, child, begin, elements)


def _part(file: BinaryIO, tensor: Tensor, begin: int, elements: int) -> bytes:
    unit, width = tensor.block
    return read_exactly(file, tensor.start + begin // unit * width, elements // unit * width)


def _judge(step: Step, source: bytes, found: bytes, child: Tensor) -> tuple[bytes, Any]:
    """What `step` makes of `source`, and which of its blocks are not what was found."""
    casts = tools.casts()
    import numpy as np

    if step.kind == "copy" or child.block[0] > 1:
        expected = source if step.kind == "copy" else bytes(step.make(source))
        blocks = (np.frombuffer(data, np.uint8).reshape(-1, child.block[1]) for data in (expected, found))
        return expected, np.not_equal(*blocks).any(axis=1)
    words = step.make(source)
    return words.tobytes(), casts.unequal(words, casts.bits(found, child.dtype), child.dtype)


def _first_unequal(one: bytes, other: bytes, width: int) -> int:
    return next(at for at, (left, right) in enumerate(zip(one, other, strict=True)) if left != right) // width


def _difference(child: Tensor, begin: int, expected: bytes, found: bytes, block: int) -> Difference:
    unit, width = child.block
    part = slice(block * width, (block + 1) * width)
    element = begin + block * unit + _inside(child.dtype, expected[part], found[part])
    offset = child.start + (begin // unit + block) * width
    return Difference(element, offset, found[part].hex(), expected[part].hex())


def _inside(dtype: str, expected: bytes, found: bytes) -> int:
    """Which element of a block differs first, where its layout is known here; 0 where the scale does, or is not."""
    at = _first_unequal(expected, found, 1) - _HEADER
    if at < 0 or dtype not in ("Q8_0", "Q4_0"):
        return 0
    high_only = dtype == "Q4_0" and (expected[at + _HEADER] ^ found[at + _HEADER]) & 0x0F == 0
    return at + 16 if high_only else at
