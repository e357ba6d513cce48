"""Reads, proofs and checks of the committed entries of a log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

from sqlalchemy import Connection

from comity.ledger import tree
from comity.ledger.database import Database, LogRow, find_log
from comity.ledger.entry_rows import MAX_LINES, pick_entries, read_entries
from comity.ledger.tree import SignedHead, all_heads, corrupt_ledger, newest_head, signed_head
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.trust.tlog import merkle
from comity.trust.tlog.merkle import (
    ENTRIES,
    WIDTH,
    NodeReader,
    Tile,
    encode_entries,
    leaf_hash,
    tile_at,
    tile_node_reader,
)
from comity.trust.tlog.note import SignedNote

MAX_READ: Final = 32 * 1024 * 1024
"""Bytes of entries that one call returns; 256 entries of any size fit."""


class History:
    """Reads of committed entries. Thread-safe.

    Every method takes the verifier key of a log, or its origin (`database.find_log`), and raises
    NotFound(code="NO-SUCH-LOG") for an unknown log, NotFound(code="BEYOND-LOG") for an index or size that the log has
    not reached, and Malformed(code="RANGE") for invalid numbers.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def entries(self, name: str, start: int, end: int) -> list[bytes]:
        """Returns the entries from `start` to before `end`.

        Up to 256 entries are always complete. A longer result ends at 32 MiB or 8,192 entries; read the rest with
        another call.
        """
        if not 0 <= start <= end:
            raise Malformed("no such entries", why=f"from {start} to {end}", code="RANGE")
        with self._database.reading() as connection:
            log = _find_log_of_size(connection, name, end)
            lines: list[bytes] = []
            left = MAX_READ
            for line in islice(read_entries(connection, log, start, end), MAX_LINES):
                lines.append(line)
                left -= len(line)
                if left < 0:
                    break
            return lines

    def entry(self, name: str, index: int) -> bytes:
        (line,) = self.entries(name, index, index + 1)
        return line

    def entries_at(self, positions: Sequence[tuple[str, int]]) -> list[bytes]:
        """Returns the entries at these positions (log, index), in their order, from one snapshot. At most 256."""
        if len(positions) > WIDTH:
            raise Malformed("no such entries", why=f"{len(positions)} positions, at most {WIDTH}", code="RANGE")
        wanted: dict[str, list[int]] = {}
        for name, index in positions:
            wanted.setdefault(name, []).append(index)
        with self._database.reading() as connection:
            found = {name: _entries_at(connection, name, indexes) for name, indexes in wanted.items()}
        return [found[name][index] for name, index in positions]

    def tile(self, name: str, tile: Tile) -> bytes:
        """Returns a hash tile or an entry bundle in the format of tlog-tiles."""
        first = tile.index * WIDTH
        if tile.level == ENTRIES:
            return encode_entries(self.entries(name, first, first + tile.width))
        with self._database.reading() as connection:
            log = _find_log_of_size(connection, name, first + tile.width << 8 * tile.level)
            return tree.read_tile(connection, log, tile)

    def root(self, name: str, size: int) -> bytes:
        with self._database.reading() as connection:
            return tree.root_at(connection, _find_log_of_size(connection, name, size), size)

    def inclusion(self, name: str, index: int, size: int) -> tuple[bytes, ...]:
        """Returns the RFC 6962 audit path of entry `index` in the tree of `size`. Reads O(log size) tiles."""
        with self._database.reading() as connection:
            log = _find_log_of_size(connection, name, size)
            return merkle.inclusion_proof(index, size, tree.node_reader(connection, log, size))

    def consistency(self, name: str, old: int, new: int) -> tuple[bytes, ...]:
        """Returns the RFC 6962 consistency proof between two sizes. Reads O(log size) tiles."""
        with self._database.reading() as connection:
            log = _find_log_of_size(connection, name, new)
            return merkle.consistency_proof(old, new, tree.node_reader(connection, log, new))

    def node_reader(self, name: str, size: int) -> NodeReader:
        """Returns a reader of complete subtrees of the first `size` entries, usable while the ledger is open."""
        with self._database.reading() as connection:
            log = _find_log_of_size(connection, name, size)

        @lru_cache(maxsize=64)
        def load(tile: Tile) -> bytes:
            with self._database.reading() as connection:
                return tree.read_tile(connection, log, tile)

        return tile_node_reader(size, load)

    def verify_right_edge(self, name: str) -> None:
        """The check at start: O(log size). Raises Untrusted(code="LEDGER-CORRUPT"): do not sign a damaged log."""
        with self._database.reading() as connection:
            check_right_edge(connection, find_log(connection, name))

    def verify_all(self, name: str) -> None:
        """Recompute every hash and signed root from the entries. Raises Untrusted(code="LEDGER-CORRUPT")."""
        with self._database.reading() as connection:
            check_all(connection, find_log(connection, name))


def _entries_at(connection: Connection, name: str, indexes: Sequence[int]) -> dict[int, bytes]:
    if min(indexes) < 0:
        raise Malformed("no such entries", why=f"there is no entry {min(indexes)}", code="RANGE")
    log = _find_log_of_size(connection, name, max(indexes) + 1)
    return pick_entries(connection, log, indexes)


def _find_log_of_size(connection: Connection, name: str, size: int) -> LogRow:
    if size < 0:
        raise Malformed("no such size", why=str(size), code="RANGE")
    log = find_log(connection, name)
    if size > log.size:
        raise NotFound("not in the log", why=f"{log.origin} has {log.size} entries here, not {size}", code="BEYOND-LOG")
    return log


def check_right_edge(connection: Connection, log: LogRow) -> None:
    """Recompute the root from the tree's right edge, the last tile from its entries, and the newest checkpoint's root.

    O(log size) reads. Raises Untrusted(code="LEDGER-CORRUPT"). Not checked: entries and hashes left of the edge.
    """
    if tree.root_at(connection, log, log.size) != log.root:
        raise corrupt_ledger(log.origin, f"the root of its right edge is not the root of size {log.size}")
    if log.size:
        last = tile_at(log.size, 0, (log.size - 1) // WIDTH)
        hashes = map(leaf_hash, read_entries(connection, log, last.index * WIDTH, log.size))
        _check_tile(connection, log, last, list(hashes))
    newest = newest_head(connection, log)
    if newest is not None:
        _check_head(connection, log, newest)


def check_all(connection: Connection, log: LogRow) -> None:
    """Recompute every tile from the entries, and from the tiles the root and every root that the log signed.

    Reads the whole log, holding one hash in 256 in memory. Raises Untrusted(code="LEDGER-CORRUPT").
    """
    level, count = 0, log.size
    hashes: Iterator[bytes] = map(leaf_hash, read_entries(connection, log, 0, log.size))
    while count:
        above = []
        for number in range(-(-count // WIDTH)):
            row = list(islice(hashes, WIDTH))
            _check_tile(connection, log, Tile(level, number, len(row)), row)
            if len(row) == WIDTH:
                above.append(merkle.root(row))
        level, count, hashes = level + 1, len(above), iter(above)
    check_signed_roots(connection, log)


def check_signed_roots(connection: Connection, log: LogRow) -> None:
    """Compute from the tiles the root of the log and every root that it signed, and verify the signatures. Raises
    Untrusted(code="LEDGER-CORRUPT")."""
    if tree.root_at(connection, log, log.size) != log.root:
        raise corrupt_ledger(log.origin, f"the root of its entries is not the root of size {log.size}")
    for head in all_heads(connection, log):
        _check_head(connection, log, head)


def _check_tile(connection: Connection, log: LogRow, tile: Tile, hashes: list[bytes]) -> None:
    if b"".join(hashes) != tree.read_tile(connection, log, tile):
        raise corrupt_ledger(log.origin, f"tile {tile.path} does not have the hashes of its children")


def _check_head(connection: Connection, log: LogRow, head: SignedHead) -> None:
    try:
        signed = signed_head(log, SignedNote.parse(head.note))
    except ComityError as error:
        raise corrupt_ledger(log.origin, f"its checkpoint of size {head.size} is damaged: {error.what}") from error
    if (signed.size, signed.root) != (head.size, head.root):
        raise corrupt_ledger(log.origin, f"its checkpoint of size {head.size} is not the one that it signed")
    if head.size > log.size or tree.root_at(connection, log, head.size) != head.root:
        raise corrupt_ledger(log.origin, f"the tree does not have the signed root of size {head.size}")
