"""`[upstream]`: what nobody whom the owner named has published, and nodes mirrored from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.charter import Body
from comity.trust.policy.table import Table, wrong

MOST: Final = 100


@dataclass(frozen=True, slots=True)
class UpstreamRule:
    """With `corroborated` above 0, the artifact has to be published by somebody whom the owner's trust names, or
    fetched from its upstream by nodes of so many members, who got the same bytes under one commit."""

    corroborated: int = 0


def read_upstream(table: Table, pins: Sequence[Body]) -> UpstreamRule:
    """Raises Malformed (POLICY-SYNTAX), also for more members than the pinned charters have."""
    corroborated = table.take("corroborated", int, 0)
    table.done()
    if isinstance(corroborated, bool) or not 0 <= corroborated <= MOST:
        raise wrong(table.what, f"corroborated is a number of members, at most {MOST}")
    members = len({seat.lineage for body in pins for seat in body.active})
    if pins and corroborated > members:
        why = f"it can never match: {corroborated} members are asked for, and the pinned charters have {members}"
        raise table.wrong("corroborated", why, f"set corroborated to {members} or less")
    return UpstreamRule(corroborated)
