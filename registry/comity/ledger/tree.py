"""The Merkle tree over a log's entries, kept as the hash tiles of C2SP tlog-tiles: 256 hashes a row.

A row may hold more hashes than a reader's size covers (the tree grows, and a mirror stages): a reader takes the first
ones. How hashes combine is said in `comity.trust.tlog.merkle`; who may move a root, in `logs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from sqlalchemy import Connection, delete, insert, select

from comity.ledger import schema
from comity.ledger.rows import LogRow
from comity.trust.errors import Untrusted
from comity.trust.tlog import merkle
from comity.trust.tlog.merkle import HASH_SIZE, NodeReader
from comity.trust.tlog.tiles import WIDTH, Tile, tile_node_reader

_ROW = schema.tiles.c


def read_tile(connection: Connection, log: LogRow, tile: Tile) -> bytes:
    """The hashes of `tile`, concatenated. Raises Untrusted(code="LEDGER-CORRUPT") where they are not all there."""
    here = (_ROW.log_id == log.id, _ROW.level == tile.level, _ROW.number == tile.index)
    hashes: bytes = connection.scalar(select(_ROW.hashes).where(*here)) or b""
    if len(hashes) < tile.width * HASH_SIZE:
        raise corrupt(log.origin, f"tile {tile.path} holds {len(hashes) // HASH_SIZE} hashes")
    return hashes[: tile.width * HASH_SIZE]


def node_reader(connection: Connection, log: LogRow, size: int) -> NodeReader:
    """Reads complete subtrees of the first `size` leaves, each tile once, while `connection` is open."""
    return tile_node_reader(size, lru_cache(maxsize=None)(lambda tile: read_tile(connection, log, tile)))


def root_at(connection: Connection, log: LogRow, size: int) -> bytes:
    return merkle.tree_root(size, node_reader(connection, log, size))


def extend(connection: Connection, log: LogRow, size: int, leaves: Sequence[bytes]) -> None:
    """Write the hashes of `leaves` (leaf hashes) after the first `size`; whatever was written there before is gone."""
    level, hashes = 0, list(leaves)
    while hashes:
        number, filled = divmod(size, WIDTH)
        if filled:
            edge = read_tile(connection, log, Tile(level, number, filled))
            hashes = _split(edge) + hashes
        rows = [hashes[start : start + WIDTH] for start in range(0, len(hashes), WIDTH)]
        connection.execute(
            delete(schema.tiles).where(_ROW.log_id == log.id, _ROW.level == level, _ROW.number >= number)
        )
        connection.execute(
            insert(schema.tiles),
            [
                {"log_id": log.id, "level": level, "number": number + nth, "hashes": b"".join(row)}
                for nth, row in enumerate(rows)
            ],
        )
        level, size, hashes = level + 1, number, [merkle.root(row) for row in rows if len(row) == WIDTH]


def corrupt(origin: str, why: str) -> Untrusted:
    return Untrusted(
        f"the log {origin} is damaged on this disk",
        why=why,
        hint="restore the ledger from a backup, and let the node ask its cosigners for its newest checkpoint",
        code="LEDGER-CORRUPT",
    )


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[start : start + HASH_SIZE] for start in range(0, len(hashes), HASH_SIZE)]
