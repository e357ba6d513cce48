"""`[upstream]`: what nobody whom the owner named has published, and nodes mirrored from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comity.trust.policy.table import Table, wrong

MOST: Final = 100


@dataclass(frozen=True, slots=True)
class UpstreamRule:
    """With `corroborated` above 0, the artifact has to be published by somebody whom the owner's trust names, or
    fetched from its upstream by nodes of so many members, who got the same bytes under one commit."""

    corroborated: int = 0


def read_upstream(table: Table) -> UpstreamRule:
    """Raises Malformed (POLICY-SYNTAX)."""
    corroborated = table.take("corroborated", int, 0)
    table.done()
    if isinstance(corroborated, bool) or not 0 <= corroborated <= MOST:
        raise wrong(table.what, f"corroborated is a number of members, at most {MOST}")
    return UpstreamRule(corroborated)
