"""Which documents its publisher put beside it, and whether they are here."""

from __future__ import annotations

from comity.trust.rows.findings import Findings
from comity.trust.verdict import Row


def documents_row(found: Findings) -> Row:
    return Row("documents", "not-checked", "not checked in this version", 11)
