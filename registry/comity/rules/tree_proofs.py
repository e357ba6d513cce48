"""RFC 6962 trees that grow: the edge to append to, roots and proofs made from subtrees, and proofs of subtrees.

Hashes are raw 32-byte SHA-256 values. Proofs are built from any `NodeReader` (memory, tiles, a database), which only
needs complete subtrees; verification needs only the proof. `comity.trust.tlog.merkle` verifies what a verdict needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import TypeAlias

from comity.trust.errors import Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.tlog.merkle import EMPTY_ROOT, MAX_SIZE, check_hashes, node_hash

NodeReader: TypeAlias = Callable[[int, int], bytes]
"""`(level, index)` -> the hash over the leaves from `index * 2**level` to before `(index + 1) * 2**level`."""


def tree_root(size: int, node: NodeReader) -> bytes:
    """The Merkle Tree Hash over the first `size` leaves, from O(log size) reads of complete subtrees."""
    return _range_root(0, size, node) if size else EMPTY_ROOT


@frozen
class Frontier:
    """The right edge of a tree: the roots of its maximal complete subtrees, largest first.

    At most 63 hashes; enough to append leaves and to compute the root.
    """

    size: int
    hashes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE or len(self.hashes) != self.size.bit_count():
            raise Malformed("not the edge of a tree", why=f"{len(self.hashes)} hashes for a size of {self.size}")
        check_hashes(self.hashes)

    @classmethod
    def empty(cls) -> Frontier:
        return cls(0, ())

    @classmethod
    def read(cls, size: int, node: NodeReader) -> Frontier:
        """The right edge of the first `size` leaves of the tree that `node` reads."""
        levels = [level for level in reversed(range(size.bit_length())) if size >> level & 1]
        return cls(size, tuple(node(level, (size >> level) - 1) for level in levels))

    def append(self, leaf: bytes) -> Frontier:
        return self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> Frontier:
        """The right edge after appending `leaves` (leaf hashes, in order)."""
        size, hashes = self.size, list(self.hashes)
        for subtree in leaves:
            carry = size
            while carry & 1:
                subtree = node_hash(hashes.pop(), subtree)
                carry >>= 1
            hashes.append(subtree)
            size += 1
        return Frontier(size, tuple(hashes))

    def root(self) -> bytes:
        if not self.hashes:
            return EMPTY_ROOT
        result = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            result = node_hash(left, result)
        return result


class MemoryTree:
    """An append-only tree in memory with the hash of every complete subtree: two hashes per leaf."""

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]
        for leaf in leaf_hashes:
            self.append(leaf)

    @property
    def size(self) -> int:
        return len(self._levels[0])

    def append(self, leaf: bytes) -> None:
        level = 0
        self._levels[0].append(leaf)
        while len(self._levels[level]) % 2 == 0:
            parent = node_hash(*self._levels[level][-2:])
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(parent)

    def node(self, level: int, index: int) -> bytes:
        """A `NodeReader` over this tree. Raises Malformed (RANGE) if there is no such complete subtree."""
        if not (0 <= level < len(self._levels) and 0 <= index < len(self._levels[level])):
            raise Malformed("no such subtree", why=f"level {level}, index {index} of {self.size} leaves", code="RANGE")
        return self._levels[level][index]

    def root(self, size: int | None = None) -> bytes:
        return tree_root(self.size if size is None else size, self.node)


def inclusion_proof(index: int, size: int, node: NodeReader) -> tuple[bytes, ...]:
    """PATH(index, D[size]) of RFC 6962, 2.1.1; starts with the leaf's sibling. Raises Malformed(code="RANGE")."""
    if not 0 <= index < size:
        raise Malformed("no such leaf", why=f"index {index} in a tree of {size}", code="RANGE")
    return _path(index, index + 1, size, node)


def consistency_proof(old: int, new: int, node: NodeReader) -> tuple[bytes, ...]:
    """PROOF(old, D[new]) of RFC 6962, 2.1.2; empty for `old == 0`. Raises Malformed(code="RANGE")."""
    if not 0 <= old <= new:
        raise Malformed("bad tree sizes", why=f"from {old} to {new} leaves", code="RANGE")
    return _path(0, old, new, node) if old else ()


def subtree_proof(start: int, end: int, size: int, node: NodeReader) -> tuple[bytes, ...]:
    """Proof that the leaves from `start` to before `end` are a subtree of a tree of `size` leaves.

    SUBTREE_PROOF of draft-ietf-plants-merkle-tree-certs, which C2SP tlog-mirror uses. Raises Malformed(code="RANGE")
    unless `is_subtree(start, end)` and `end <= size`.
    """
    if not (is_subtree(start, end) and end <= size):
        raise Malformed("no such subtree", why=f"leaves {start} to {end} of {size}", code="RANGE")
    return _path(start, end, size, node)


def is_subtree(start: int, end: int) -> bool:
    """Whether `start` is a multiple of the smallest power of two that is not less than `end - start`."""
    return 0 <= start < end and start % (1 << (end - start - 1).bit_length()) == 0


def verify_subtree(start: int, end: int, subtree: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Verify that the leaves from `start` to before `end` of the tree (`size`, `root`) have the root `subtree`.

    Raises Untrusted(code="SUBTREE").
    """
    if not (is_subtree(start, end) and end <= size <= MAX_SIZE):
        raise _no_subtree(f"leaves {start} to {end} are not a subtree of {size}")
    check_hashes((subtree, root, *proof))
    sides, whole = _sides(start, end, size)
    if len(proof) != len(sides) + (not whole):
        raise _no_subtree(f"{len(proof)} hashes instead of {len(sides) + (not whole)}")
    inner = outer = subtree if whole else proof[0]
    for side, sibling in zip(reversed(sides), proof if whole else proof[1:], strict=True):
        outer = node_hash(outer, sibling) if side is _Side.RIGHT else node_hash(sibling, outer)
        if side is _Side.INSIDE:
            inner = node_hash(sibling, inner)
    if (inner, outer) != (subtree, root):
        raise _no_subtree("it gives other roots")


class _Side(Enum):
    """Position of a sibling: right or left of the subtree, or in the left part of the subtree."""

    RIGHT = auto()
    LEFT = auto()
    INSIDE = auto()


def _sides(start: int, end: int, size: int) -> tuple[list[_Side], bool]:
    """The siblings from the root down to the leaves `start` to `end`, and whether these leaves are one node."""
    low, high, whole = 0, size, True
    sides: list[_Side] = []
    while (low, high) != (start, end):
        middle = low + _split(high - low)
        if end <= middle:
            sides.append(_Side.RIGHT)
            high = middle
        elif middle <= start:
            sides.append(_Side.LEFT)
            low = middle
        else:  # the verifier knows the root of [start, end), not of its right part
            sides.append(_Side.INSIDE)
            low = start = middle
            whole = False
    return sides, whole


def _path(start: int, end: int, size: int, node: NodeReader) -> tuple[bytes, ...]:
    """SUBPROOF of draft-ietf-plants-merkle-tree-certs: inclusion for one leaf, consistency for `start == 0`."""
    low, high = 0, size
    path: list[bytes] = []
    sides, whole = _sides(start, end, size)
    for side in sides:
        middle = low + _split(high - low)
        if side is _Side.RIGHT:
            path.append(_range_root(middle, high, node))
            high = middle
        else:
            path.append(_range_root(low, middle, node))
            low = middle
    if not whole:
        path.append(_range_root(low, high, node))
    return tuple(reversed(path))


def _range_root(start: int, end: int, node: NodeReader) -> bytes:
    width = end - start
    if width & (width - 1) == 0:
        level = width.bit_length() - 1
        return node(level, start >> level)
    middle = start + _split(width)
    return node_hash(_range_root(start, middle, node), _range_root(middle, end, node))


def _split(width: int) -> int:
    """The largest power of two smaller than `width`."""
    return 1 << (width - 1).bit_length() - 1


def _no_subtree(why: str) -> Untrusted:
    return Untrusted("bad subtree proof", why=why, code="SUBTREE")
