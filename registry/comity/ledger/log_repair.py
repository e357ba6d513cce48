"""Checks the logs of a ledger in parts, and puts back entries and hashes that were damaged on the disk.

A part is the 256 entries of one hash tile. Its entries give the hashes of the tile, and a complete tile gives one hash
of the tile above. `LogRepair.check` compares them; after the last part, `check_upper` compares the tiles above, the
root and every signed root.

`mend` writes the entries of one part again, from this ledger or from a peer, and the hashes that follow from them. It
commits only if an inclusion proof leads from them to the newest checkpoint that the log signed: bytes from a peer are
never believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from comity.ledger import schema, tree
from comity.ledger.database import Database, LogRow, find_log
from comity.ledger.history import check_signed_roots
from comity.ledger.tree import corrupt_ledger, newest_head, signed_head
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed, Refused, Untrusted
from comity.trust.tlog import merkle
from comity.trust.tlog.merkle import HASH_SIZE, WIDTH, Tile, leaf_hash, verify_inclusion
from comity.trust.tlog.note import SignedNote

_ENTRY, _TILE = schema.entries.c, schema.tiles.c


@dataclass(frozen=True, slots=True)
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
        return above[place * HASH_SIZE :] == merkle.root(hashes)
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
        if merkle.root(tree.split_hashes(below)) != hashes[nth * HASH_SIZE : (nth + 1) * HASH_SIZE]:
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
        parent, (number, place) = merkle.root(tree.split_hashes(row)), divmod(number, WIDTH)
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
    path = merkle.inclusion_proof(part.start, head.size, tree.node_reader(connection, log, head.size))
    verify_inclusion(leaf, part.start, head.size, path, head.root)
