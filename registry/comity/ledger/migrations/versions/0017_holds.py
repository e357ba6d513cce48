"""Claims of many copies that an older version stored without knowing them are found by their artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op
from comity.ledger.schema import DigestBytes
from comity.trust.encoding import Digest
from comity.trust.statement import parse_entry

revision = "0017"
down_revision = "0014"

HOLDS = "holds"
UNKNOWN = ""


def _table(name: str, *columns: str, digest: str = "") -> Any:
    typed: list[sa.ColumnClause[Any]] = [sa.column(each) for each in columns]
    return sa.table(name, *typed, *([sa.column(digest, DigestBytes())] if digest else []))


_SUBJECTS = _table("subjects", "kind", "log_id", "turn", "index", digest="digest")
_STATEMENTS = _table("statements", "log_id", "index", "predicate")
_ENTRIES = _table("entries", "log_id", "index", "line")


def upgrade() -> None:
    connection = op.get_bind()
    for log_id, subject in dict.fromkeys(_claimed(connection)):
        _move(connection, log_id, subject)


def _claimed(connection: sa.Connection) -> Iterator[tuple[int, Digest]]:
    """Each artifact of each stored claim."""
    said, entry = _STATEMENTS.c, _ENTRIES.c
    here = sa.and_(entry.log_id == said.log_id, entry.index == said.index)
    wanted = sa.select(entry.log_id, entry.line).join_from(_STATEMENTS, _ENTRIES, here).where(said.predicate == HOLDS)
    for log_id, line in connection.execute(wanted).all():
        yield from ((log_id, subject.digest) for subject in parse_entry(bytes(line)).statement.subjects)


def _move(connection: sa.Connection, log_id: int, subject: Digest) -> None:
    """Give the rows of a subject their kinds again, each counted from 0."""
    row, said = _SUBJECTS.c, _STATEMENTS.c
    rows = (row.digest == subject, row.log_id == log_id, row.kind.in_((UNKNOWN, HOLDS)))
    joined = sa.and_(said.log_id == row.log_id, said.index == row.index)
    wanted = sa.select(row.index, said.predicate).join_from(_SUBJECTS, _STATEMENTS, joined).where(*rows)
    found = connection.execute(wanted.order_by(row.turn)).all()
    connection.execute(sa.delete(_SUBJECTS).where(*rows))
    of_kind = {HOLDS: [i for i, name in found if name == HOLDS], UNKNOWN: [i for i, name in found if name != HOLDS]}
    _insert(connection, log_id, subject, of_kind.items())


def _insert(connection: sa.Connection, log_id: int, subject: Digest, of_kind: Iterable[tuple[str, list[int]]]) -> None:
    for kind, indexes in of_kind:
        for turn, index in enumerate(indexes):
            values = {"digest": subject, "kind": kind, "log_id": log_id, "turn": turn, "index": index}
            connection.execute(sa.insert(_SUBJECTS).values(values))
