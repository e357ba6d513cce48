"""`[cosigners]`: how many other members must have seen the statement in its log, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comity.trust.identity import check_jurisdiction
from comity.trust.policy.table import Table, wrong

PUBLISHER: Final = "publisher"


@dataclass(frozen=True, slots=True)
class CosignerRule:
    """`at_least` distinct members, in `jurisdictions` distinct jurisdictions, none of them in `outside`."""

    at_least: int = 2
    jurisdictions: int = 0
    outside: tuple[str, ...] = (PUBLISHER,)
    post_quantum: bool = False


def read_cosigners(table: Table) -> CosignerRule:
    default = CosignerRule()
    rule = CosignerRule(
        at_least=table.take("at_least", int, default.at_least),
        jurisdictions=table.take("jurisdictions", int, default.jurisdictions),
        outside=table.each(
            "outside", lambda code: code if code == PUBLISHER else check_jurisdiction(code), default.outside
        ),
        post_quantum=table.take("post_quantum", bool, default.post_quantum),
    )
    table.done()
    if rule.at_least < 0 or rule.jurisdictions < 0:
        raise wrong(table.what, "a count is negative")
    return rule
