"""What it was made from."""

from __future__ import annotations

from comity.trust.rows.findings import Findings
from comity.trust.verdict import Row


def lineage_row(found: Findings) -> Row:
    return Row("lineage", "not-checked", "not checked in this version", 8)
