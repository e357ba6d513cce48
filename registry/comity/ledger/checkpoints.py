"""The log-signed checkpoints that a ledger keeps for ever: one root for each size, with the log's signature on it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, insert, select

from comity.ledger import schema
from comity.ledger.rows import LogRow
from comity.trust.errors import Equivocation, Untrusted
from comity.trust.tlog.checkpoint import open_checkpoint
from comity.trust.tlog.note import SignedNote

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


def at(connection: Connection, log: LogRow, size: int) -> SignedHead | None:
    return _first(connection, log, _KEPT.size == size)


def newest(connection: Connection, log: LogRow, *, covering: int = -1) -> SignedHead | None:
    """The largest that covers entry `covering`."""
    return _first(connection, log, _KEPT.size > covering)


def all_of(connection: Connection, log: LogRow) -> list[SignedHead]:
    kept = select(_KEPT.size, _KEPT.root, _KEPT.note).where(_KEPT.log_id == log.id).order_by(_KEPT.size)
    return [SignedHead(*row) for row in connection.execute(kept)]


def keep(connection: Connection, log: LogRow, head: SignedHead, root: bytes) -> None:
    """Keep `head`, whose root must be `root`, the one that the entries give. Raises what `mismatch` returns."""
    if head.root != root:
        raise mismatch(connection, log, head, root)
    if at(connection, log, head.size) is None:
        row = {"log_id": log.id, "size": head.size, "root": head.root, "note": head.note}
        connection.execute(insert(schema.checkpoints).values(row))


def mismatch(connection: Connection, log: LogRow, head: SignedHead, root: bytes) -> Untrusted:
    """The log has signed a root that is not `root`, the one that the entries at hand give.

    An Equivocation, with both notes as its proof, where a checkpoint of that size is kept; else the entries may be at
    fault, and it is Untrusted(code="ROOT-MISMATCH").
    """
    kept = at(connection, log, head.size)
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
