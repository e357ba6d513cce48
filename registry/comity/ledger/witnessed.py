"""The newest checkpoint that was submitted of each log, for ever: what a witness must not go back behind.

State belongs to the pair of origin and key. A log whose entries are held here counts with its newest kept checkpoint as
well, whichever is larger, where both are one history. Whoever moves a state has verified the checkpoint and that it
continues the one before.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from comity.ledger import checkpoints, schema, tree
from comity.ledger.database import Database
from comity.ledger.rows import LogRow, find_log
from comity.trust.errors import Conflict, NotFound, Untrusted
from comity.trust.tlog.checkpoint import Checkpoint
from comity.trust.tlog.merkle import EMPTY_ROOT
from comity.trust.tlog.note import SignedNote, VerifierKey

_SEEN = schema.witnessed.c


@dataclass(frozen=True, slots=True)
class Seen:
    """A log as it was last seen; `note` is empty where no checkpoint was."""

    size: int
    root: bytes
    note: bytes


NOTHING = Seen(0, EMPTY_ROOT, b"")


class Witnessed:
    """Newest checkpoints by log. Thread-safe; durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def latest(self, log: VerifierKey) -> Seen:
        """Raises Untrusted(code="SPLIT-VIEW") where what is held is not what was submitted."""
        with self._database.reading() as connection:
            return _latest(connection, log)

    def submitted(self, log: VerifierKey) -> SignedNote | None:
        """The newest checkpoint that was moved to, with the cosignatures that were made on it."""
        with self._database.reading() as connection:
            row = _submitted(connection, log)
            return None if row is None else SignedNote.parse(row.note)

    def move(self, log: VerifierKey, old: Seen, note: SignedNote) -> None:
        """Go from `old` to the checkpoint in `note`, which may be the same one with fresh cosignatures.

        One step with the look at what is there: of two that come from one state, one finds it moved. Raises
        Conflict(code="LOG-MOVED") then, and as `latest` does.
        """
        checkpoint = Checkpoint.parse(note.text)
        with self._database.writing("witness") as connection:
            now = _latest(connection, log)
            if (now.size, now.root) != (old.size, old.root):
                why = f"the newest checkpoint seen is of size {now.size}, not {old.size}"
                raise Conflict(f"the log {log.name} stands elsewhere", why=why, code="LOG-MOVED")
            row = {"vkey": str(log), "size": checkpoint.size, "root": checkpoint.root, "note": note.encode()}
            connection.execute(delete(schema.witnessed).where(_SEEN.vkey == str(log)))
            connection.execute(insert(schema.witnessed).values(row))


def _latest(connection: Connection, log: VerifierKey) -> Seen:
    submitted, row = _submitted(connection, log), _row(connection, log)
    held = None if row is None else checkpoints.newest(connection, row)
    if row is None or held is None or (submitted and held.size <= submitted.size):
        return submitted or NOTHING
    if submitted and tree.root_at(connection, row, submitted.size) != submitted.root:
        why = f"the checkpoint of size {submitted.size} that was submitted is not of the log that is held"
        raise Untrusted(f"the log {log.name} has shown two histories", why=why, code="SPLIT-VIEW")
    return Seen(held.size, held.root, held.note)


def _submitted(connection: Connection, log: VerifierKey) -> Seen | None:
    row = connection.execute(select(_SEEN.size, _SEEN.root, _SEEN.note).where(_SEEN.vkey == str(log))).one_or_none()
    return None if row is None else Seen(*row)


def _row(connection: Connection, log: VerifierKey) -> LogRow | None:
    try:
        return find_log(connection, str(log))
    except NotFound:
        return None
