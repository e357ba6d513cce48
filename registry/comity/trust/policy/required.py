"""`[rows]`: which rows have to pass. What is no row, or could not pass under this very policy, is refused at once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from comity.trust.errors import Malformed
from comity.trust.policy.names import DEFAULT_REQUIRED, ROWS
from comity.trust.policy.table import Table
from comity.trust.policy.values import Policy

_SIGNED: Final = frozenset({"signatures", "key policy", "transparency", "cosigners", "licence", "documents", "time"})
"""Rows that pass only for what somebody signed."""


def read_required(table: Table) -> tuple[str, ...]:
    required = table.strings("require", DEFAULT_REQUIRED)
    table.done()
    return required


def check_required(policy: Policy, table: Table) -> None:
    """Raises Malformed for a required row that does not exist, or that could not pass, and for rows that an unsigned
    folder passes."""
    never = hopeless(policy)
    for row in policy.require:
        if row in never:
            why = f"{_at(table, row)}it could not pass: {never[row]}"
            hint = f"take {row!r} out of rows.require, or write the other"
            raise Malformed(f"policy cannot require {row!r}", why=why, hint=hint, code="POLICY-SYNTAX")
        if row not in ROWS[:-1]:
            close = difflib.get_close_matches(row, ROWS, 1)
            why = f"did you mean {close[0]!r}?" if close else f"rows are {', '.join(ROWS[:-1])}"
            why = f"{_at(table, row)}{why}"
            raise Malformed(f"policy requires an unknown row {row!r}", why=why, code="POLICY-SYNTAX")
    if not (set(policy.require) & _SIGNED or ("artifact" in policy.require and policy.upstream.corroborated)):
        raise table.wrong(
            "require",
            "nothing that it requires proves a signature, so a model that nobody signed would be accepted",
            'add "signatures" to rows.require',
        )


def _at(table: Table, row: str) -> str:
    line = table.lines.find("rows", "require", row)
    return f"line {line}: " if line else ""


def hopeless(policy: Policy) -> Mapping[str, str]:
    """The rows that could not pass whatever the evidence, and why."""
    reasons = {
        "disputes and advisories": "nobody can prove that there is none; name issuers in advisories.refuse_from",
    }
    if not policy.documents:
        reasons["documents"] = "documents.require names none"
    if not policy.licences:
        reasons["licence"] = "licences.accept names none"
    nobody = not (policy.publishers or policy.bindings or any(body.namespaces for body in policy.pins))
    if policy.pins and nobody:
        reasons["key policy"] = "publishers.accept and publishers.names name nobody, nor does a pinned charter"
    if policy.freshness is None:
        reasons["time"] = "time.as_of names no moment"
    return reasons
