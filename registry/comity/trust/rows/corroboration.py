"""Who else checked it, under which policy, and what they say came out: facts that join the row *policy*.

They are claims. Nobody's verdict is taken over, and none of them changes a state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from comity.trust.charter import Body
from comity.trust.digest import short
from comity.trust.judging.reading import Readings
from comity.trust.rows.findings import Findings
from comity.trust.rows.wording import who
from comity.trust.statement import Entry
from comity.trust.statements.verified import RESULTS, Verified, moment
from comity.trust.verdict import Fact


def corroboration_facts(found: Findings) -> tuple[Fact, ...]:
    return check_facts(found.checks, found.readings, found.policy.pins)


def check_facts(checks: Iterable[tuple[Entry, Verified]], readings: Readings, pins: Sequence[Body]) -> tuple[Fact, ...]:
    """Proven checks (`weigh_checks`) as facts: members, under the name that a pinned body gives them, before others,
    who could flood the list."""
    seats = {seat.id for body in pins for seat in body.members}
    ordered = sorted(checks, key=lambda check: check[1].by not in seats)
    return tuple(Fact(_said(said), "claimed", _checker(said, readings, pins), entry.digest) for entry, said in ordered)


def _said(verified: Verified) -> str:
    rows = f"{len(verified.levels)} rows pass" if len(verified.levels) != 1 else "one row passes"
    result = RESULTS[verified.passed]
    return f"checked it on {moment(verified.time)}, policy {short(verified.policy)}: {result}, {rows}"


def _checker(verified: Verified, readings: Readings, pins: Sequence[Body]) -> str:
    seats = [seat for body in pins if (seat := body.member(verified.by)) is not None]
    if seats:
        return f"{seats[-1].name} ({seats[-1].jurisdiction})"
    return who(readings.inceptions[verified.by])
