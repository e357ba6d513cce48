"""The Merkle tree of a log, stored as hash tiles (C2SP tlog-tiles, 256 hashes per row), and its signed checkpoints.

A row may hold more hashes than the size of a reader covers, because the tree grows and a mirror stages entries. A
reader uses the first hashes only. `comity.trust.tlog.merkle` computes hashes; `log_store` alone changes roots.

Checkpoints are kept for ever: one root for each size, with the signature of the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from sqlalchemy import Connection, Select, bindparam, delete, insert, select

from comity.ledger import schema
from comity.ledger.database import LogRow
from comity.rules.tiles import WIDTH, Tile, tile_node_reader
from comity.rules.tree_proofs import NodeReader, tree_root
from comity.trust.errors import Equivocation, Untrusted
from comity.trust.frozen import frozen
from comity.trust.tlog.merkle import HASH_SIZE, root
from comity.trust.tlog.note import SignedNote, open_checkpoint

_ROW = schema.tiles.c
_HASHES = select(_ROW.hashes).where(
    _ROW.log_id == bindparam("log"), _ROW.level == bindparam("tile_level"), _ROW.number == bindparam("tile_number")
)
"""Built once: a proof reads several tiles, and building the query takes longer than reading one."""


def read_tile(connection: Connection, log: LogRow, tile: Tile) -> bytes:
    """Returns the hashes of `tile`, concatenated. Raises Untrusted(code="LEDGER-CORRUPT") if hashes are missing."""
    here = {"log": log.id, "tile_level": tile.level, "tile_number": tile.index}
    hashes: object = connection.scalar(_HASHES, here) or b""
    if not isinstance(hashes, bytes):
        raise corrupt_ledger(log.origin, f"tile {tile.path} has no bytes")
    if len(hashes) < tile.width * HASH_SIZE:
        raise corrupt_ledger(log.origin, f"tile {tile.path} has {len(hashes) // HASH_SIZE} hashes")
    return hashes[: tile.width * HASH_SIZE]


def node_reader(connection: Connection, log: LogRow, size: int) -> NodeReader:
    """Returns a reader of complete subtrees of the first `size` leaves, for as long as `connection` is open."""
    return tile_node_reader(size, lru_cache(maxsize=None)(lambda tile: read_tile(connection, log, tile)))


def root_at(connection: Connection, log: LogRow, size: int) -> bytes:
    return tree_root(size, node_reader(connection, log, size))


def extend_tree(connection: Connection, log: LogRow, size: int, leaves: Sequence[bytes]) -> None:
    """Write `leaves` (leaf hashes) after the first `size` leaves; replaces all hashes after that size."""
    level, hashes = 0, list(leaves)
    while hashes:
        number, filled = divmod(size, WIDTH)
        if filled:
            edge = read_tile(connection, log, Tile(level, number, filled))
            hashes = split_hashes(edge) + hashes
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
        level, size, hashes = level + 1, number, [root(row) for row in rows if len(row) == WIDTH]


def corrupt_ledger(origin: str, why: str) -> Untrusted:
    return schema.damaged_ledger(why, f"the log {origin} is damaged in this ledger")


def split_hashes(hashes: bytes) -> list[bytes]:
    """The hashes of a row, which are stored one after the other."""
    return [hashes[start : start + HASH_SIZE] for start in range(0, len(hashes), HASH_SIZE)]


_CHECKPOINT = schema.checkpoints.c


@frozen
class SignedHead:
    """A size and root that the log signed. `note` has the signature of the log and no other signature."""

    size: int
    root: bytes
    note: bytes


def signed_head(log: LogRow, note: SignedNote) -> SignedHead:
    """Verify the log's signature on `note`; other signatures are removed. Raises Malformed, Untrusted."""
    key = log.key
    checkpoint = open_checkpoint(note, key)
    signature = next(line for line in note.signatures if line.by(key))
    return SignedHead(checkpoint.size, checkpoint.root, SignedNote(note.text, (signature,)).encode())


_LARGEST = (
    select(_CHECKPOINT.size, _CHECKPOINT.root, _CHECKPOINT.note)
    .where(_CHECKPOINT.log_id == bindparam("log"))
    .order_by(_CHECKPOINT.size.desc())
    .limit(1)
)
_AT = _LARGEST.where(_CHECKPOINT.size == bindparam("size"))
_NEWEST = _LARGEST.where(_CHECKPOINT.size > bindparam("covering"), _CHECKPOINT.size <= bindparam("up_to"))
"""Built once: whatever is done with a log begins with one of them."""


def head_at(connection: Connection, log: LogRow, size: int) -> SignedHead | None:
    return _first(connection, _AT, log, size=size)


def newest_head(
    connection: Connection, log: LogRow, *, covering: int = -1, up_to: int = 2**63 - 1
) -> SignedHead | None:
    """Returns the largest checkpoint of at most `up_to` entries, if it covers entry `covering`."""
    return _first(connection, _NEWEST, log, covering=covering, up_to=up_to)


def all_heads(connection: Connection, log: LogRow) -> list[SignedHead]:
    wanted = select(_CHECKPOINT.size, _CHECKPOINT.root, _CHECKPOINT.note).where(_CHECKPOINT.log_id == log.id)
    return [SignedHead(*row) for row in connection.execute(wanted.order_by(_CHECKPOINT.size))]


def store_head(connection: Connection, log: LogRow, head: SignedHead, root: bytes) -> None:
    """Store `head`. Its root must be `root`, computed from the entries. Raises the errors of `root_mismatch`."""
    if head.root != root:
        raise root_mismatch(connection, log, head, root)
    if head_at(connection, log, head.size) is None:
        row = {"log_id": log.id, "size": head.size, "root": head.root, "note": head.note}
        connection.execute(insert(schema.checkpoints).values(row))


def root_mismatch(connection: Connection, log: LogRow, head: SignedHead, root: bytes) -> Untrusted:
    """Returns the error for a signed root that is not `root`, the root computed from the entries.

    Returns Equivocation, with both notes as its proof, if another checkpoint of that size is stored. Otherwise the
    entries may be wrong: returns Untrusted(code="ROOT-MISMATCH").
    """
    stored = head_at(connection, log, head.size)
    if stored is not None:
        return Equivocation(
            f"the log {log.origin} has signed two roots of size {head.size}", proof=(stored.note, head.note)
        )
    why = f"at size {head.size} the root of the entries is {root.hex()}, the note has {head.root.hex()}"
    return Untrusted(f"the log {log.origin} has signed another root", why=why, code="ROOT-MISMATCH")


def _first(connection: Connection, wanted: Select[int, bytes, bytes], log: LogRow, **sizes: int) -> SignedHead | None:
    row = connection.execute(wanted, {"log": log.id, **sizes}).one_or_none()
    return None if row is None else SignedHead(*row)
