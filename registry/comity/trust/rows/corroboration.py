"""Who else checked it, under which policy, and what they say came out: facts that join the row *policy*.

They are claims. Nobody's verdict is taken over, and none of them changes a state.
"""

from __future__ import annotations

from comity.trust.digest import short
from comity.trust.rows.findings import Findings
from comity.trust.rows.wording import who
from comity.trust.verdict import Fact
from comity.trust.verified import RESULTS, Verified, moment


def corroboration_facts(found: Findings) -> tuple[Fact, ...]:
    return tuple(
        Fact(_said(verified), "claimed", _checker(found, verified), entry.digest) for entry, verified in found.checks
    )


def _said(verified: Verified) -> str:
    rows = f"{len(verified.levels)} rows pass" if len(verified.levels) != 1 else "one row passes"
    result = RESULTS[verified.passed]
    return f"checked it on {moment(verified.time)}, policy {short(verified.policy)}: {result}, {rows}"


def _checker(found: Findings, verified: Verified) -> str:
    seats = [seat for body in found.policy.pins if (seat := body.member(verified.by)) is not None]
    if seats:
        return f"{seats[-1].name} ({seats[-1].jurisdiction})"
    return who(found.readings.inceptions[verified.by])
