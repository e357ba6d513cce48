"""Positions of the rows that readers of the proven tables keep in this ledger, so that a start goes on from there.

A reader computes rows from verified statements, and keeps for each log the number of the last statement that it has
read. Rows and numbers change in one transaction: after a crash both are old or both are new. Beside a number stand the
size and the root that the log had then. If the log here has another root at this size, or fewer statements are
verified here, the rows were computed from another ledger: the reader computes them again. `basis` stands for everything
else on which the rows depend, such as settings; it is compared too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from comity.ledger import schema, tree
from comity.ledger.database import Database, LogRow, find_log
from comity.ledger.intake import last_number
from comity.trust.encoding import Digest

_KEPT, _LOG = schema.kept_positions.c, schema.logs.c


@dataclass(frozen=True, slots=True)
class KeptPositions:
    """The number of the last statement that a reader has read of each log (its verifier key). `why`: why kept rows
    cannot be used, empty if they can or if there are none."""

    numbers: Mapping[str, int]
    why: str = ""


class KeptState:
    """The positions of all readers. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, reader: str, basis: Digest) -> KeptPositions:
        """Returns the positions of a reader, checked against the logs. Without numbers, the reader must forget its
        rows and read every log from the beginning."""
        wanted = select(_KEPT.log_id, _KEPT.number, _KEPT.size, _KEPT.root, _KEPT.basis).where(_KEPT.reader == reader)
        numbers: dict[str, int] = {}
        with self._database.reading() as connection:
            last = last_number(connection)
            for row in connection.execute(wanted.order_by(_KEPT.log_id)).all():
                log = _log(connection, row.log_id)
                if row.basis != basis:
                    return KeptPositions({}, "the settings, or the nodes of the federation, have changed")
                if log is None or row.number > last or row.size > log.size:
                    return KeptPositions({}, "the ledger has fewer entries than were read")
                if tree.root_at(connection, log, row.size) != bytes(row.root):
                    return KeptPositions({}, f"{log.origin} has another root at size {row.size} than when it was read")
                numbers[log.vkey] = row.number
        return KeptPositions(numbers)


def write_positions(connection: Connection, reader: str, basis: Digest, numbers: Mapping[str, int]) -> None:
    """Set the positions of a reader in these logs, inside the transaction that writes its rows."""
    for vkey, number in numbers.items():
        log = find_log(connection, vkey)
        here = (_KEPT.reader == reader, _KEPT.log_id == log.id)
        connection.execute(delete(schema.kept_positions).where(*here))
        row = {"reader": reader, "log_id": log.id, "number": number, "size": log.size, "root": log.root, "basis": basis}
        connection.execute(insert(schema.kept_positions).values(row))


def forget_positions(connection: Connection, reader: str) -> None:
    """Forget the positions of a reader, inside the transaction that deletes its rows."""
    connection.execute(delete(schema.kept_positions).where(_KEPT.reader == reader))


def _log(connection: Connection, log_id: int) -> LogRow | None:
    row = connection.execute(select(schema.logs).where(_LOG.id == log_id)).mappings().one_or_none()
    return None if row is None else LogRow(**row)
