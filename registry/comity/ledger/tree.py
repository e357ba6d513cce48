"""The Merkle tree over a log's entries, kept as the hash tiles of C2SP tlog-tiles: 256 hashes a row.

A row may hold more hashes than a reader's size covers (the tree grows, and a mirror stages): a reader takes the first
ones. How hashes combine is said in `comity.trust.tlog.merkle`; who may move a root, in `logs`.


The log-signed checkpoints that a ledger keeps for ever: one root for each size, with the log's signature on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import ColumnElement, Connection, delete, insert, select

from comity.ledger import schema
from comity.ledger.database import LogRow
from comity.trust.errors import Equivocation, Untrusted
from comity.trust.tlog import merkle
from comity.trust.tlog.merkle import HASH_SIZE, WIDTH, NodeReader, Tile, tile_node_reader
from comity.trust.tlog.note import SignedNote, open_checkpoint

_ROW = schema.tiles.c


def read_tile(connection: Connection, log: LogRow, tile: Tile) -> bytes:
    """The hashes of `tile`, concatenated. Raises Untrusted(code="LEDGER-CORRUPT") where they are not all there."""
    here = (_ROW.log_id == log.id, _ROW.level == tile.level, _ROW.number == tile.index)
    hashes: bytes = connection.scalar(select(_ROW.hashes).where(*here)) or b""
    if len(hashes) < tile.width * HASH_SIZE:
        raise corrupt_ledger(log.origin, f"tile {tile.path} holds {len(hashes) // HASH_SIZE} hashes")
    return hashes[: tile.width * HASH_SIZE]


def node_reader(connection: Connection, log: LogRow, size: int) -> NodeReader:
    """Reads complete subtrees of the first `size` leaves, each tile once, while `connection` is open."""
    return tile_node_reader(size, lru_cache(maxsize=None)(lambda tile: read_tile(connection, log, tile)))


def root_at(connection: Connection, log: LogRow, size: int) -> bytes:
    return merkle.tree_root(size, node_reader(connection, log, size))


def extend_tree(connection: Connection, log: LogRow, size: int, leaves: Sequence[bytes]) -> None:
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


def corrupt_ledger(origin: str, why: str) -> Untrusted:
    return Untrusted(
        f"the log {origin} is damaged on this disk",
        why=why,
        hint="restore the ledger from a backup, and let the node ask its cosigners for its newest checkpoint",
        code="LEDGER-CORRUPT",
    )


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[start : start + HASH_SIZE] for start in range(0, len(hashes), HASH_SIZE)]


_KEPT = schema.checkpoints.c


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A size and root that the log has signed; `note` carries its signature and no other."""

    size: int
    root: bytes
    note: bytes


def signed_head(log: LogRow, note: SignedNote) -> SignedHead:
    """What the log says in `note`; other signatures on it are left out. Raises Malformed, Untrusted."""
    key = log.key
    checkpoint = open_checkpoint(note, key)
    signature = next(line for line in note.signatures if line.by(key))
    return SignedHead(checkpoint.size, checkpoint.root, SignedNote(note.text, (signature,)).encode())


def head_at(connection: Connection, log: LogRow, size: int) -> SignedHead | None:
    return _first(connection, log, _KEPT.size == size)


def newest_head(connection: Connection, log: LogRow, *, covering: int = -1) -> SignedHead | None:
    """The largest that covers entry `covering`."""
    return _first(connection, log, _KEPT.size > covering)


def all_heads(connection: Connection, log: LogRow) -> list[SignedHead]:
    kept = select(_KEPT.size, _KEPT.root, _KEPT.note).where(_KEPT.log_id == log.id).order_by(_KEPT.size)
    return [SignedHead(*row) for row in connection.execute(kept)]


def keep_head(connection: Connection, log: LogRow, head: SignedHead, root: bytes) -> None:
    """Keep `head`, whose root must be `root`, the one that the entries give. Raises what `mismatch` returns."""
    if head.root != root:
        raise root_mismatch(connection, log, head, root)
    if head_at(connection, log, head.size) is None:
        row = {"log_id": log.id, "size": head.size, "root": head.root, "note": head.note}
        connection.execute(insert(schema.checkpoints).values(row))


def root_mismatch(connection: Connection, log: LogRow, head: SignedHead, root: bytes) -> Untrusted:
    """The log has signed a root that is not `root`, the one that the entries at hand give.

    An Equivocation, with both notes as its proof, where a checkpoint of that size is kept; else the entries may be at
    fault, and it is Untrusted(code="ROOT-MISMATCH").
    """
    kept = head_at(connection, log, head.size)
    if kept is not None:
        return Equivocation(
            f"the log {log.origin} has signed two roots of size {head.size}", proof=(kept.note, head.note)
        )
    why = f"at size {head.size} the entries give {root.hex()}, and the note says {head.root.hex()}"
    return Untrusted(f"the log {log.origin} has signed another root", why=why, code="ROOT-MISMATCH")


def _first(connection: Connection, log: LogRow, wanted: ColumnElement[bool]) -> SignedHead | None:
    kept = select(_KEPT.size, _KEPT.root, _KEPT.note).where(_KEPT.log_id == log.id, wanted)
    row = connection.execute(kept.order_by(_KEPT.size.desc()).limit(1)).one_or_none()
    return None if row is None else SignedHead(*row)
