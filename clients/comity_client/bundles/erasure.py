"""An erasure code over bytes: of k data blocks and m parity blocks, any k restore all data.

The code is systematic (the data blocks are the data) over GF(256) with the polynomial 0x11d, with a Cauchy matrix as in
Blömer and others, "An XOR-Based Erasure-Resilient Coding Scheme" (1995): every square submatrix can be inverted. A
block is multiplied by a constant with `bytes.translate` and added as one large integer, so that the standard library
does the work. Byte n of a parity block depends on byte n of each data block only: any range is restored from the same
range of k others. The code restores what is known to be missing; it finds no errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

from comity.trust.errors import Malformed, NotFound
from comity.trust.frozen import frozen

MOST_BLOCKS: Final = 255
"""Data and parity blocks together."""
_POLYNOMIAL: Final = 0x11D


@frozen
class ErasureCode:
    """A code with `data` blocks that are carried as they are, and `total` blocks together."""

    data: int
    total: int

    def __post_init__(self) -> None:
        if not 1 <= self.data <= self.total <= MOST_BLOCKS:
            why = f"{self.data} of {self.total}; 1 to {MOST_BLOCKS} disks, and not more data than disks"
            raise Malformed("not a number of disks", why=why)

    @classmethod
    def parse(cls, text: str) -> ErasureCode:
        """Read `k/n`, such as `3/5`: any 3 of 5 disks restore the data. Raises Malformed."""
        first, slash, second = text.partition("/")
        if not slash or not all(part.isascii() and part.isdigit() and len(part) <= 3 for part in (first, second)):
            raise Malformed("not a number of disks", why=f"{text!r} is not k/n", hint="write --parity 3/5, for example")
        return cls(int(first), int(second))

    def parity(self, blocks: Sequence[bytes]) -> list[bytes]:
        """The parity blocks of all data blocks, which have one length."""
        return [_combined(self._row(row), blocks) for row in range(self.data, self.total)]

    def restore(self, wanted: int, blocks: Mapping[int, bytes]) -> bytes:
        """The data block `wanted` from any k blocks by number, data first, which have one length.

        Raises NotFound (LOST-DISKS) with fewer than k blocks.
        """
        if wanted in blocks:
            return blocks[wanted]
        if len(blocks) < self.data:
            why = f"{len(blocks)} of {self.total} are here, {self.data} are needed"
            raise NotFound("too few disks of this bundle", why=why, hint="name more of its disks", code="LOST-DISKS")
        numbers = tuple(sorted(blocks)[: self.data])
        return _combined(_inverse_row(self, wanted, numbers), [blocks[number] for number in numbers])

    def _row(self, number: int) -> tuple[int, ...]:
        """The factors of the data blocks in block `number`."""
        if number < self.data:
            return tuple(int(column == number) for column in range(self.data))
        return tuple(_inverse(number ^ column) for column in range(self.data))


@cache
def _inverse_row(code: ErasureCode, wanted: int, numbers: tuple[int, ...]) -> tuple[int, ...]:
    """The factors of the blocks `numbers` in the data block `wanted`: a row of the inverse of their matrix, by
    Gauss-Jordan elimination."""
    size = code.data
    rows = [[*code._row(number), *(int(at == index) for at in range(size))] for index, number in enumerate(numbers)]
    for column in range(size):
        pivot = next(row for row in range(column, size) if rows[row][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        factor = _inverse(rows[column][column])
        rows[column] = [_product(factor, value) for value in rows[column]]
        for row in range(size):
            if row != column and (times := rows[row][column]):
                pairs = zip(rows[row], rows[column], strict=True)
                rows[row] = [value ^ _product(times, other) for value, other in pairs]
    return tuple(rows[wanted][size:])


def _combined(factors: Sequence[int], blocks: Sequence[bytes]) -> bytes:
    """The sum of the blocks, each multiplied by its factor."""
    total = 0
    for factor, block in zip(factors, blocks, strict=True):
        if factor:
            total ^= int.from_bytes(block if factor == 1 else block.translate(_table(factor)), "little")
    return total.to_bytes(len(blocks[0]), "little")


@cache
def _table(factor: int) -> bytes:
    return bytes(_product(factor, value) for value in range(256))


@cache
def _inverse(value: int) -> int:
    return next(other for other in range(1, 256) if _product(value, other) == 1)


def _product(left: int, right: int) -> int:
    result = 0
    while right:
        if right & 1:
            result ^= left
        left <<= 1
        if left & 0x100:
            left ^= _POLYNOMIAL
        right >>= 1
    return result
