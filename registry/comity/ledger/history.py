"""Reads, proofs and checks of the committed entries of a log, and repair of entries and hashes that were damaged on the
disk.

`LogRepair` checks a log in parts. A part is the 256 entries of one hash tile. Its entries give the hashes of the tile,
and a complete tile gives one hash of the tile above. `check` compares them; after the last part, `check_upper` compares
the tiles above, the root and every signed root.

`mend` writes the entries of one part again, from this ledger or from a peer, and the hashes that follow from them. It
commits only if an inclusion proof leads from them to the newest checkpoint that the log signed: bytes from a peer are
never believed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from comity.ledger import schema, tree
from comity.ledger.database import Database, LogRow, find_log
from comity.ledger.entry_rows import MAX_LINES, pick_entries, read_entries
from comity.ledger.tree import SignedHead, all_heads, corrupt_ledger, newest_head, signed_head
from comity.rules.tiles import ENTRIES, WIDTH, Tile, encode_entries, tile_at, tile_node_reader
from comity.rules.tree_proofs import NodeReader, consistency_proof, inclusion_proof
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Untrusted
from comity.trust.frozen import frozen
from comity.trust.tlog.merkle import HASH_SIZE, leaf_hash, root, verify_inclusion
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

    def entries(self, name: str, start: int, end: int, most: int = MAX_READ) -> list[bytes]:
        """Returns the entries from `start` to before `end`.

        Up to 256 entries are always complete, unless `most` is given. A longer result ends with the entry that reaches
        `most` bytes, by default 32 MiB, or after 8,192 entries; read the rest with another call.
        """
        if not 0 <= start <= end:
            raise Malformed("no such entries", why=f"from {start} to {end}", code="RANGE")
        with self._database.reading() as connection:
            log = _find_log_of_size(connection, name, end)
            lines: list[bytes] = []
            left = most
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
            return inclusion_proof(index, size, tree.node_reader(connection, log, size))

    def consistency(self, name: str, old: int, new: int) -> tuple[bytes, ...]:
        """Returns the RFC 6962 consistency proof between two sizes. Reads O(log size) tiles."""
        with self._database.reading() as connection:
            log = _find_log_of_size(connection, name, new)
            return consistency_proof(old, new, tree.node_reader(connection, log, new))

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
                above.append(root(row))
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


_ENTRY, _TILE = schema.entries.c, schema.tiles.c


@frozen
class DamagedPart:
    """Entries of a log, from `start` to before `end`, that do not fit the hashes of the tree."""

    log: str
    origin: str
    start: int
    end: int

    def error(self) -> Untrusted:
        return corrupt_ledger(self.origin, f"entries {self.start} to {self.end - 1} do not fit the tree of the log")


class LogRepair:
    """Checks and mends logs. Thread-safe. Methods take the verifier key of a log, or its origin."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def check(self, name: str, number: int) -> DamagedPart | None:
        """Check part `number` (256 entries). Returns it if it is damaged. Raises NotFound(code="NO-SUCH-LOG")."""
        with self._database.reading() as connection:
            log = find_log(connection, name)
            start, end = number * WIDTH, min(log.size, (number + 1) * WIDTH)
            if start >= end or _is_sound(connection, log, start, end):
                return None
            return DamagedPart(log.vkey, log.origin, start, end)

    def check_upper(self, name: str) -> None:
        """Check the tiles above the entries, the root, and every checkpoint with its signature. Reads one hash for each
        256 entries. Raises Untrusted(code="LEDGER-CORRUPT")."""
        with self._database.reading() as connection:
            log = find_log(connection, name)
            level, size = 1, log.size // WIDTH
            while size:
                for number in range(-(-size // WIDTH)):
                    width = min(WIDTH, size - number * WIDTH)
                    _check_upper_tile(connection, log, Tile(level, number, width))
                level, size = level + 1, size // WIDTH
            check_signed_roots(connection, log)

    def readable(self, part: DamagedPart) -> list[bytes]:
        """The entries of a damaged part as they are here; empty if they cannot be read."""
        try:
            with self._database.reading() as connection:
                lines = [line for line, _ in _rows(connection, find_log(connection, part.log).id, part.start, part.end)]
        except (ComityError, TypeError, ValueError):
            return []
        return lines if len(lines) == part.end - part.start else []

    def mend(self, part: DamagedPart, lines: Sequence[bytes]) -> None:
        """Write the entries of a damaged part, and the hashes that follow from them. All or nothing.

        Raises Untrusted (INCLUSION) if the entries are not those under the newest signed root, Refused
        (LEDGER-CORRUPT) if no signed root covers them, and Untrusted (LEDGER-CORRUPT) if the file is damaged too much.
        """
        if len(lines) != part.end - part.start:
            raise Malformed("not the entries to mend", why=f"{len(lines)} lines for {part.end - part.start} entries")
        with self._database.writing("mend") as connection:
            log = find_log(connection, part.log)
            for index, line in enumerate(lines, part.start):
                _write_line(connection, log, index, line)
            hashes = [leaf_hash(line) for line in lines]
            _write_hashes(connection, log, part.start // WIDTH, hashes)
            _prove(connection, log, part, hashes[0])


def _is_sound(connection: Connection, log: LogRow, start: int, end: int) -> bool:
    try:
        rows = _rows(connection, log.id, start, end)
        hashes = [leaf_hash(line) for line, _ in rows]
        if len(rows) != end - start or any(sha256(line) != digest for line, digest in rows):
            return False
        number = start // WIDTH
        if b"".join(hashes) != tree.read_tile(connection, log, Tile(0, number, len(hashes))):
            return False
        if len(hashes) < WIDTH:
            return True
        upper, place = divmod(number, WIDTH)
        above = tree.read_tile(connection, log, Tile(1, upper, place + 1))
        return above[place * HASH_SIZE :] == root(hashes)
    except (ComityError, TypeError, ValueError):
        return False  # a page that SQLite cannot read, or a value of another type


def _rows(connection: Connection, log_id: int, start: int, end: int) -> list[tuple[bytes, Digest]]:
    inside = (_ENTRY.log_id == log_id, _ENTRY.index >= start, _ENTRY.index < end)
    found = connection.execute(select(_ENTRY.line, _ENTRY.digest).where(*inside).order_by(_ENTRY.index))
    return [(line, digest) for line, digest in found]


def _check_upper_tile(connection: Connection, log: LogRow, tile: Tile) -> None:
    hashes = tree.read_tile(connection, log, tile)
    for nth in range(tile.width):
        below = tree.read_tile(connection, log, Tile(tile.level - 1, tile.index * WIDTH + nth, WIDTH))
        if root(tree.split_hashes(below)) != hashes[nth * HASH_SIZE : (nth + 1) * HASH_SIZE]:
            raise corrupt_ledger(log.origin, f"tile {tile.path} does not have the hashes of its children")


def _write_line(connection: Connection, log: LogRow, index: int, line: bytes) -> None:
    here = (_ENTRY.log_id == log.id, _ENTRY.index == index)
    values = {"line": line, "digest": sha256(line)}
    if not connection.execute(update(schema.entries).where(*here).values(values)).rowcount:
        connection.execute(insert(schema.entries).values(log_id=log.id, index=index, **values))


def _write_hashes(connection: Connection, log: LogRow, number: int, hashes: Sequence[bytes]) -> None:
    """Write the hashes of a tile of entries, and the hash of each complete tile in the tile above."""
    level, row = 0, _row(connection, log, 0, number)
    row = b"".join(hashes) + row[len(hashes) * HASH_SIZE :]  # staged hashes may follow
    _write_row(connection, log, level, number, row)
    while len(row) == WIDTH * HASH_SIZE:
        parent, (number, place) = root(tree.split_hashes(row)), divmod(number, WIDTH)
        level, row = level + 1, _row(connection, log, level + 1, number)
        if len(row) < place * HASH_SIZE:
            raise corrupt_ledger(log.origin, f"tile {level}/{number} lacks hashes")
        row = row[: place * HASH_SIZE] + parent + row[(place + 1) * HASH_SIZE :]
        _write_row(connection, log, level, number, row)


def _row(connection: Connection, log: LogRow, level: int, number: int) -> bytes:
    here = (_TILE.log_id == log.id, _TILE.level == level, _TILE.number == number)
    hashes: object = connection.scalar(select(_TILE.hashes).where(*here))
    return hashes if isinstance(hashes, bytes) else b""


def _write_row(connection: Connection, log: LogRow, level: int, number: int, hashes: bytes) -> None:
    here = (_TILE.log_id == log.id, _TILE.level == level, _TILE.number == number)
    connection.execute(delete(schema.tiles).where(*here))
    connection.execute(insert(schema.tiles).values(log_id=log.id, level=level, number=number, hashes=hashes))


def _prove(connection: Connection, log: LogRow, part: DamagedPart, leaf: bytes) -> None:
    """Prove the first entry of the part under the newest signed root. The proof of one entry has the hashes of all
    others of its tile."""
    stored = newest_head(connection, log)
    try:
        head = None if stored is None else signed_head(log, SignedNote.parse(stored.note))
    except ComityError as error:
        raise corrupt_ledger(log.origin, f"its newest checkpoint is damaged: {error.what}") from error
    if head is None or head.size < part.end:
        raise Refused(
            f"the log {log.origin} cannot be repaired",
            why=f"no signed checkpoint covers entries {part.start} to {part.end - 1}",
            hint="comity backup restore BACKUP --node HOME, into a new home",
            code="LEDGER-CORRUPT",
        )
    path = inclusion_proof(part.start, head.size, tree.node_reader(connection, log, head.size))
    verify_inclusion(leaf, part.start, head.size, path, head.root)
