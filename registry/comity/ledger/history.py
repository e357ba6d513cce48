"""What the logs of a ledger say and how it is proven: entries, tiles, roots and proofs. Nothing here is written.

Entries and hashes below a log's size never change, so that answers given at different moments fit together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

from sqlalchemy import Connection

from comity.ledger import entries, tree
from comity.ledger.check import check_all, check_right_edge
from comity.ledger.database import Database
from comity.ledger.rows import LogRow, find_log
from comity.trust.errors import Malformed, NotFound
from comity.trust.tlog import merkle
from comity.trust.tlog.merkle import NodeReader
from comity.trust.tlog.tiles import ENTRIES, WIDTH, Tile, encode_entries, tile_node_reader

MAX_READ: Final = 32 * 1024 * 1024
"""Bytes of entries that one call gathers; 256 entries of any size fit."""


class History:
    """Reads of committed entries. Thread-safe.

    Every method takes the verifier key of a log, or an origin alone (`rows.find_log`), and raises
    NotFound(code="NO-SUCH-LOG") for an unknown one, NotFound(code="BEYOND-LOG") for an index or
    a size that the log has not reached, and Malformed(code="RANGE") for numbers that no log has.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def entries(self, name: str, start: int, end: int) -> list[bytes]:
        """The entries `start` up to `end`, `end` not included.

        Complete for up to 256 entries. A longer answer ends early once it has 32 MiB or 8,192 entries: ask again from
        there.
        """
        if not 0 <= start <= end:
            raise Malformed("no such entries", why=f"from {start} to {end}", code="RANGE")
        with self._database.reading() as connection:
            log = _reaching(connection, name, end)
            lines: list[bytes] = []
            left = MAX_READ
            for line in islice(entries.read(connection, log, start, end), entries.MAX_LINES):
                lines.append(line)
                left -= len(line)
                if left < 0:
                    break
            return lines

    def entry(self, name: str, index: int) -> bytes:
        (line,) = self.entries(name, index, index + 1)
        return line

    def at(self, places: Sequence[tuple[str, int]]) -> list[bytes]:
        """The entries at these places, a log and an index each, in their order: at most 256, in one look."""
        if len(places) > WIDTH:
            raise Malformed("no such entries", why=f"{len(places)} places, at most {WIDTH}", code="RANGE")
        wanted: dict[str, list[int]] = {}
        for name, index in places:
            wanted.setdefault(name, []).append(index)
        with self._database.reading() as connection:
            found = {name: _some(connection, name, indexes) for name, indexes in wanted.items()}
        return [found[name][index] for name, index in places]

    def tile(self, name: str, tile: Tile) -> bytes:
        """The contents of a hash tile or an entry bundle, as tlog-tiles serves them."""
        first = tile.index * WIDTH
        if tile.level == ENTRIES:
            return encode_entries(self.entries(name, first, first + tile.width))
        with self._database.reading() as connection:
            log = _reaching(connection, name, first + tile.width << 8 * tile.level)
            return tree.read_tile(connection, log, tile)

    def root(self, name: str, size: int) -> bytes:
        with self._database.reading() as connection:
            return tree.root_at(connection, _reaching(connection, name, size), size)

    def inclusion(self, name: str, index: int, size: int) -> tuple[bytes, ...]:
        """RFC 6962 audit path of entry `index` in the tree of `size`, from O(log size) tiles."""
        with self._database.reading() as connection:
            log = _reaching(connection, name, size)
            return merkle.inclusion_proof(index, size, tree.node_reader(connection, log, size))

    def consistency(self, name: str, old: int, new: int) -> tuple[bytes, ...]:
        """RFC 6962 consistency proof between two sizes, from O(log size) tiles."""
        with self._database.reading() as connection:
            log = _reaching(connection, name, new)
            return merkle.consistency_proof(old, new, tree.node_reader(connection, log, new))

    def node_reader(self, name: str, size: int) -> NodeReader:
        """Reads complete subtrees of the first `size` entries for as long as the ledger is open."""
        with self._database.reading() as connection:
            log = _reaching(connection, name, size)

        @lru_cache(maxsize=64)
        def load(tile: Tile) -> bytes:
            with self._database.reading() as connection:
                return tree.read_tile(connection, log, tile)

        return tile_node_reader(size, load)

    def verify_right_edge(self, name: str) -> None:
        """The check of start-up: O(log size). Raises Untrusted(code="LEDGER-CORRUPT"): do not sign for this log."""
        with self._database.reading() as connection:
            check_right_edge(connection, find_log(connection, name))

    def verify_all(self, name: str) -> None:
        """Re-derive every hash and signed root from the entries. Raises Untrusted(code="LEDGER-CORRUPT")."""
        with self._database.reading() as connection:
            check_all(connection, find_log(connection, name))


def _some(connection: Connection, name: str, indexes: Sequence[int]) -> dict[int, bytes]:
    if min(indexes) < 0:
        raise Malformed("no such entries", why=f"there is no entry {min(indexes)}", code="RANGE")
    log = _reaching(connection, name, max(indexes) + 1)
    return entries.pick(connection, log, indexes)


def _reaching(connection: Connection, name: str, size: int) -> LogRow:
    if size < 0:
        raise Malformed("no such size", why=str(size), code="RANGE")
    log = find_log(connection, name)
    if size > log.size:
        raise NotFound("not in the log", why=f"{log.origin} has {log.size} entries here, not {size}", code="BEYOND-LOG")
    return log
