"""C2SP tlog-tiles: the layout of a log as files.

    tile/0/x001/x234/067          hashes of the leaves 1234067 * 256 and the 255 after it
    tile/1/000.p/17               17 hashes, each over a full tile of the level below
    tile/entries/273.p/112        the entries, each after its length in two bytes

Tiles are immutable files of up to 256 hashes or entries. Data from tiles is untrusted until a proof built from it
verifies. The storage and transfer of tiles are in other modules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from comity.rules.tree_proofs import NodeReader
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.tlog.merkle import HASH_SIZE, MAX_SIZE, root

WIDTH: Final = 256
MAX_ENTRY: Final = 65_535
ENTRIES: Final = -1
"""The `level` of an entry bundle; bundles have the widths of level 0."""

_HEIGHT: Final = 8
_MAX_LEVEL: Final = 63
_PATH: Final = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?\Z"
)


@frozen
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
