"""`[rows]`: which rows have to pass. What is no row, or could not pass under this very policy, is refused at once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from comity.trust.errors import Malformed
from comity.trust.policy.names import DEFAULT_REQUIRED, ROWS
from comity.trust.policy.table import Table
from comity.trust.policy.values import Policy


def read_required(table: Table) -> tuple[str, ...]:
    required = table.strings("require", DEFAULT_REQUIRED)
    table.done()
    return required


def check_required(policy: Policy) -> None:
    """Raises Malformed for a required row that does not exist, or that could not pass."""
    never = hopeless(policy)
    for row in policy.require:
        if row in never:
            why = f"it could not pass: {never[row]}"
            raise Malformed(f"policy cannot require {row!r}", why=why, code="POLICY-SYNTAX")
        if row not in ROWS[:-1]:
            close = difflib.get_close_matches(row, ROWS, 1)
            why = f"did you mean {close[0]!r}?" if close else f"rows are {', '.join(ROWS[:-1])}"
            raise Malformed(f"policy requires an unknown row {row!r}", why=why, code="POLICY-SYNTAX")


def hopeless(policy: Policy) -> Mapping[str, str]:
    """The rows that could not pass whatever the evidence, and why."""
    reasons = {
        "disputes and advisories": "nobody can prove that there is none; name issuers in advisories.refuse_from",
    }
    if not policy.documents:
        reasons["documents"] = "documents.require names none"
    if not policy.licences:
        reasons["licence"] = "licences.accept names none"
    if policy.freshness is None:
        reasons["time"] = "time.as_of names no moment"
    return reasons
