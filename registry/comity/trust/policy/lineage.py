"""`[lineage]`: what the owner asks of what a model is made from."""

from __future__ import annotations

from dataclasses import dataclass

from comity.trust.policy.table import Table


@dataclass(frozen=True, slots=True)
class LineageRule:
    """Whether each parent has to be named by its digest, and whether licences along the lineage may conflict."""

    by_digest: bool = False
    no_conflicts: bool = False


def read_lineage(table: Table) -> LineageRule:
    default = LineageRule()
    rule = LineageRule(
        by_digest=table.take("parents_by_digest", bool, default.by_digest),
        no_conflicts=table.take("refuse_licence_conflicts", bool, default.no_conflicts),
    )
    table.done()
    return rule
