"""`[documents]`: which documents a publisher has to put beside an artifact. Their words are nobody's business here."""

from __future__ import annotations

from comity.trust.errors import Malformed
from comity.trust.policy.table import Table
from comity.trust.statements.published import DOCUMENTS


def read_documents(table: Table) -> tuple[str, ...]:
    """Raises Malformed (POLICY-SYNTAX)."""
    required = table.each("require", _kind)
    table.done()
    return tuple(dict.fromkeys(required))


def _kind(text: str) -> str:
    if text not in DOCUMENTS:
        raise Malformed(f"{text[:40]!r} is no document", why=f"kinds are {', '.join(DOCUMENTS)}")
    return text
