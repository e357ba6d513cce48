"""Whether what lies in the database is still the log that was committed: a quick look at the edge, and all of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from sqlalchemy import Connection

from comity.ledger import checkpoints, entries, tree
from comity.ledger.checkpoints import SignedHead
from comity.ledger.rows import LogRow
from comity.ledger.tree import corrupt
from comity.trust.tlog import merkle
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.tiles import WIDTH, Tile, tile_at


def check_right_edge(connection: Connection, log: LogRow) -> None:
    """Re-derive the root from the tree's right edge, the last tile from its entries, and the newest checkpoint's root.

    O(log size) reads. Raises Untrusted(code="LEDGER-CORRUPT"). Not checked: entries and hashes left of the edge.
    """
    if tree.root_at(connection, log, log.size) != log.root:
        raise corrupt(log.origin, f"its right edge does not give the root of size {log.size}")
    if log.size:
        last = tile_at(log.size, 0, (log.size - 1) // WIDTH)
        leaves = map(leaf_hash, entries.read(connection, log, last.index * WIDTH, log.size))
        _check_tile(connection, log, last, list(leaves))
    newest = checkpoints.newest(connection, log)
    if newest is not None:
        _check_head(connection, log, newest)


def check_all(connection: Connection, log: LogRow) -> None:
    """Re-derive every tile from the entries, and from the tiles the root and every root that the log has signed.

    Reads the whole log, holding one hash in 256 in memory. Raises Untrusted(code="LEDGER-CORRUPT").
    """
    level, count = 0, log.size
    hashes: Iterator[bytes] = map(leaf_hash, entries.read(connection, log, 0, log.size))
    while count:
        above = []
        for number in range(-(-count // WIDTH)):
            row = list(islice(hashes, WIDTH))
            _check_tile(connection, log, Tile(level, number, len(row)), row)
            if len(row) == WIDTH:
                above.append(merkle.root(row))
        level, count, hashes = level + 1, len(above), iter(above)
    if tree.root_at(connection, log, log.size) != log.root:
        raise corrupt(log.origin, f"its entries do not give the root of size {log.size}")
    for head in checkpoints.all_of(connection, log):
        _check_head(connection, log, head)


def _check_tile(connection: Connection, log: LogRow, tile: Tile, hashes: list[bytes]) -> None:
    if b"".join(hashes) != tree.read_tile(connection, log, tile):
        raise corrupt(log.origin, f"{tile.path} does not hold the hashes of what is below it")


def _check_head(connection: Connection, log: LogRow, head: SignedHead) -> None:
    if head.size > log.size or tree.root_at(connection, log, head.size) != head.root:
        raise corrupt(log.origin, f"it does not contain the checkpoint of size {head.size} that was signed")
