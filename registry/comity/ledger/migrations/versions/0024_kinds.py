"""The row of a publication has the kind of its artifact, so that a search reads the publications of one kind alone."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op
from comity.ledger.schema import bytewise
from comity.ledger.stated_kinds import write_kinds
from comity.ledger.stored_lines import unpack_line
from comity.trust.encoding import Digest
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import ARTIFACT_KIND

revision = "0024"
down_revision = "0023"

PAGE = 1_000
STATED = sa.text(
    'SELECT t.number, t."by", e.line FROM statements t JOIN entries e ON e.log_id = t.log_id AND e."index" = t."index"'
    " WHERE t.predicate = :predicate AND t.number > :after ORDER BY t.number LIMIT :most"
)


def upgrade() -> None:
    op.add_column("publications", sa.Column("kind", bytewise(40), nullable=False, server_default="model"))
    op.create_index(op.f("ix_publications_kind_turn_log_id"), "publications", ["kind", "turn", "log_id"])
    connection = op.get_bind()
    for page in _pages(connection):
        write_kinds(connection, page)


def _pages(connection: sa.Connection) -> Iterator[list[tuple[Digest, Digest]]]:
    """Every artifact and author of a statement about a kind, a page at a time."""
    after, full = 0, True
    while full:
        values = {"predicate": ARTIFACT_KIND, "after": after, "most": PAGE}
        rows = connection.execute(STATED, values).all()
        yield [(parse_entry(unpack_line(row.line)).statement.subject, Digest(row.by.hex())) for row in rows]
        full = len(rows) == PAGE
        after = rows[-1].number if full else after
