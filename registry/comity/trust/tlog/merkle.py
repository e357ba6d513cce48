"""RFC 6962 Merkle trees and C2SP tlog-tiles: roots, proofs of inclusion, consistency and subtrees, and tile layout.

    tile/0/x001/x234/067          hashes of the leaves 1234067 * 256 and the 255 after it
    tile/1/000.p/17               17 hashes, each over a full tile of the level below
    tile/entries/273.p/112        the entries, each after its length in two bytes

Hashes are raw 32-byte SHA-256 values. Proofs are built from any `NodeReader` (memory, tiles, a database), which only
needs complete subtrees; verification needs only the proof. Tiles are immutable files of up to 256 hashes or entries.
Data from tiles is untrusted until a proof built from it verifies. Signatures over roots, and the storage and transfer
of tiles, are in other modules.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias

from comity.trust.errors import Malformed, Untrusted

HASH_SIZE: Final = 32
MAX_SIZE: Final = 2**63 - 1
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

NodeReader: TypeAlias = Callable[[int, int], bytes]
"""`(level, index)` -> the hash over the leaves from `index * 2**level` to before `(index + 1) * 2**level`."""


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """The Merkle Tree Hash over `leaf_hashes` (RFC 6962, 2.1)."""
    level = list(leaf_hashes)
    if not level:
        return EMPTY_ROOT
    while len(level) > 1:
        lone = level[-1:] if len(level) % 2 else []  # has its left sibling on a higher level, or is the root
        level = [node_hash(left, right) for left, right in zip(level[::2], level[1::2], strict=False)] + lone
    return level[0]


def tree_root(size: int, node: NodeReader) -> bytes:
    """The Merkle Tree Hash over the first `size` leaves, from O(log size) reads of complete subtrees."""
    return _range_root(0, size, node) if size else EMPTY_ROOT


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree: the roots of its maximal complete subtrees, largest first.

    At most 63 hashes; enough to append leaves and to compute the root.
    """

    size: int
    hashes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE or len(self.hashes) != self.size.bit_count():
            raise Malformed("not the edge of a tree", why=f"{len(self.hashes)} hashes for a size of {self.size}")
        _check_hashes(self.hashes)

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


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Verify that `leaf` (a leaf hash) is leaf `index` of the tree with `size` leaves and `root` (RFC 9162, 2.1.3.2).

    Raises Untrusted(code="INCLUSION"). The proof does not prove `size`; take it from a signed checkpoint.
    """
    if not 0 <= index < size <= MAX_SIZE:
        raise _no_inclusion(f"no leaf {index} in a tree of {size}")
    sides = list(_siblings_left(index, size - 1))
    if len(proof) != len(sides):
        raise _no_inclusion(f"{len(proof)} hashes instead of {len(sides)}")
    _check_hashes((leaf, root, *proof))
    result = leaf
    for left, sibling in zip(sides, proof, strict=True):
        result = node_hash(sibling, result) if left else node_hash(result, sibling)
    if result != root:
        raise _no_inclusion("it gives another root")


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Verify that the tree (`new`, `new_root`) extends the tree (`old`, `old_root`) (RFC 9162, 2.1.4.2).

    If `old` is 0 or `new`, the proof is empty. Raises Untrusted(code="CONSISTENCY").
    """
    if not 0 <= old <= new <= MAX_SIZE:
        raise _no_consistency(f"bad tree sizes {old} and {new}")
    if (old == 0 and old_root != EMPTY_ROOT) or (old == new and old_root != new_root):
        raise _no_consistency("another root for the same leaves")
    _check_hashes((old_root, new_root))
    if old in (0, new):
        if proof:
            raise _no_consistency(f"{len(proof)} hashes instead of none")
        return
    complete = (old & -old).bit_length() - 1  # levels on which the old tree's right edge is complete
    sides = list(_siblings_left((old - 1) >> complete, (new - 1) >> complete))
    path = (old_root, *proof) if old == 1 << complete else proof
    if len(path) != len(sides) + 1:
        raise _no_consistency(f"{len(path)} hashes on the path instead of {len(sides) + 1}")
    _check_hashes(path)
    start, *siblings = path
    old_result = new_result = start
    for left, sibling in zip(sides, siblings, strict=True):
        if left:
            old_result, new_result = node_hash(sibling, old_result), node_hash(sibling, new_result)
        else:
            new_result = node_hash(new_result, sibling)
    if (old_result, new_result) != (old_root, new_root):
        raise _no_consistency("it gives other roots")


def verify_subtree(start: int, end: int, subtree: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Verify that the leaves from `start` to before `end` of the tree (`size`, `root`) have the root `subtree`.

    Raises Untrusted(code="SUBTREE").
    """
    if not (is_subtree(start, end) and end <= size <= MAX_SIZE):
        raise _no_subtree(f"leaves {start} to {end} are not a subtree of {size}")
    _check_hashes((subtree, root, *proof))
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


def _siblings_left(index: int, last: int) -> Iterator[bool]:
    """For each sibling from node `index` up to the root: whether it is a left one. `last` is the level's last node."""
    while last:
        left = bool(index & 1) or index == last
        while left and not index & 1:  # a right node without sibling moves up until it has one
            index, last = index >> 1, last >> 1
        yield left
        index, last = index >> 1, last >> 1


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


def _check_hashes(hashes: Iterable[bytes]) -> None:
    if any(len(value) != HASH_SIZE for value in hashes):
        raise Malformed("not a tree hash", why=f"expected {HASH_SIZE} bytes")


def _no_inclusion(why: str) -> Untrusted:
    return Untrusted("bad inclusion proof", why=why, code="INCLUSION")


def _no_subtree(why: str) -> Untrusted:
    return Untrusted("bad subtree proof", why=why, code="SUBTREE")


def _no_consistency(why: str) -> Untrusted:
    return Untrusted("bad consistency proof", why=why, code="CONSISTENCY")


WIDTH: Final = 256
MAX_ENTRY: Final = 65_535
ENTRIES: Final = -1
"""The `level` of an entry bundle; bundles have the widths of level 0."""

_HEIGHT: Final = 8
_MAX_LEVEL: Final = 63
_PATH: Final = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?\Z"
)


@dataclass(frozen=True, slots=True)
class Tile:
    """Tile `index` of `level` with `width` hashes: 256 if full, 1 to 255 if partial.

    Raises Malformed(code="TILE") if a number is out of range.
    """

    level: int
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        if not (ENTRIES <= self.level <= _MAX_LEVEL and 0 <= self.index <= MAX_SIZE and 1 <= self.width <= WIDTH):
            raise Malformed("no such tile", why="level, index or width out of bounds", code="TILE")

    @property
    def full(self) -> bool:
        return self.width == WIDTH

    @property
    def path(self) -> str:
        """The path below the log's prefix; inverse of `parse_tile_path`."""
        digits = str(self.index)
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
        level = "entries" if self.level == ENTRIES else str(self.level)
        index = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
        return f"tile/{level}/{index}" + ("" if self.full else f".p/{self.width}")


def parse_tile_path(path: str) -> Tile:
    """The tile or entry bundle of `path`. Raises Malformed(code="TILE") also for a path that is not canonical."""
    match = _PATH.match(path)
    if not match:
        raise Malformed("not a tile path", why=f"{path[:80]!r}", code="TILE")
    level = ENTRIES if match["level"] == "entries" else int(match["level"])
    tile = Tile(level, int(match["index"].replace("x", "").replace("/", "")), int(match["width"] or WIDTH))
    if tile.path != path:
        raise Malformed("not a tile path", why=f"its canonical path is {tile.path}", code="TILE")
    return tile


def tile_at(size: int, level: int, index: int) -> Tile:
    """Tile `index` of `level` in a log of `size` entries. Raises Malformed(code="TILE") if it is empty."""
    return Tile(level, index, min(WIDTH, _count(size, level) - index * WIDTH))


def tiles_between(old: int, new: int) -> list[Tile]:
    """The hash tiles that a log of `new` entries has and the log of `old` entries does not have, lower levels first.

    A partial tile is the last of its level. Entry bundles are the tiles of level 0 with level `ENTRIES`.
    """
    if not 0 <= old <= new <= MAX_SIZE:
        raise Malformed("bad tree sizes", why=f"from {old} to {new} entries", code="RANGE")
    tiles: list[Tile] = []
    level = 0
    while (before := _count(old, level)) < (after := _count(new, level)):
        tiles.extend(tile_at(new, level, index) for index in range(before // WIDTH, -(-after // WIDTH)))
        level += 1
    return tiles


def encode_tile(tile: Tile, node: NodeReader) -> bytes:
    """The content of a hash tile, read from a tree that contains all of the tile."""
    first = tile.index * WIDTH
    return b"".join(node(_HEIGHT * tile.level, first + i) for i in range(tile.width))


def tile_node_reader(size: int, load: Callable[[Tile], bytes]) -> NodeReader:
    """A `NodeReader` over the tiles of a log of `size` entries; calls `load` once per node, so `load` should cache.

    The reader raises Malformed: code "RANGE" for a node outside the log, "TILE" if `load` returns another length.
    """

    def node(level: int, index: int) -> bytes:
        if not (0 <= level < size.bit_length() and index >= 0 and (index + 1) << level <= size):
            raise Malformed("no such subtree", why=f"level {level}, index {index} of {size} leaves", code="RANGE")
        tile_level, height = divmod(level, _HEIGHT)
        tile_index, first = divmod(index << height, WIDTH)
        tile = tile_at(size, tile_level, tile_index)
        data = load(tile)
        if len(data) != tile.width * HASH_SIZE:
            why = f"{tile.path} has {len(data)} bytes instead of {tile.width * HASH_SIZE}"
            raise Malformed("broken tile", why=why, code="TILE")
        hashes = range(first * HASH_SIZE, (first + (1 << height)) * HASH_SIZE, HASH_SIZE)
        return root([data[at : at + HASH_SIZE] for at in hashes])

    return node


def encode_entries(entries: Sequence[bytes]) -> bytes:
    """An entry bundle: at most 256 entries of at most 65,535 bytes. Raises Malformed(code="ENTRIES")."""
    if len(entries) > WIDTH or any(len(entry) > MAX_ENTRY for entry in entries):
        why = f"at most {WIDTH} entries of at most {MAX_ENTRY} bytes"
        raise Malformed("entry bundle too large", why=why, code="ENTRIES")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def decode_entries(data: bytes) -> list[bytes]:
    """Inverse of `encode_entries`. Raises Malformed(code="ENTRIES")."""
    entries: list[bytes] = []
    start = 0
    while start < len(data):
        end = start + 2 + int.from_bytes(data[start : start + 2], "big")
        if end > len(data):
            raise Malformed("broken entry bundle", why=f"it ends within entry {len(entries)}", code="ENTRIES")
        if len(entries) == WIDTH:
            raise Malformed("broken entry bundle", why=f"more than {WIDTH} entries", code="ENTRIES")
        entries.append(data[start + 2 : end])
        start = end
    return entries


def _count(size: int, level: int) -> int:
    """Number of hashes on a tile level of a log of `size` entries."""
    return size >> _HEIGHT * max(level, 0)
