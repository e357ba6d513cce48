"""Drill reports: one that passed, and one that failed."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from comity.rules.continuity.drill_report import (
    CHECK,
    CUT_OFF,
    INSTALL,
    PULL,
    RESTORE,
    SAMPLES,
    SELF_TEST,
    START,
    VERIFY,
    CaseCounts,
    DrillPhase,
    DrillReport,
    LeftOut,
)
from comity.rules.parties import Party
from comity.trust.encoding import sha256

STARTED: Final = 1_796_156_000
CH: Final = Party("reach", "CH")
_PASSED: Final = (CUT_OFF, PULL, VERIFY, CHECK, INSTALL, START, SELF_TEST, SAMPLES, RESTORE)


def phases(*names: str) -> tuple[DrillPhase, ...]:
    """Phases of 900 ms each, with pauses of 100 ms."""
    return tuple(DrillPhase(name, n * 1000, n * 1000 + 900, True, f"{name} done") for n, name in enumerate(names))


def a_drill_report() -> DrillReport:
    return DrillReport(
        plan=sha256(b"plan"),
        owner=sha256(b"owner"),
        service="chat",
        fallback=1,
        kit="org/chat@v1",
        kit_artifact=sha256(b"kit"),
        cut_off=(CH, Party("package-index", "")),
        asked=("node-es",),
        left_out=(LeftOut("node-ch", CH),),
        isolation="an empty network namespace",
        phases=phases(*_PASSED),
        self_test=CaseCounts(2, 2),
        samples=CaseCounts(10, 9, ("capital",)),
        threshold="0.9",
        passed=True,
        reason="",
        started=STARTED,
        ended=STARTED + 10,
        before="",
        tool="1.0",
    )


def a_failed_drill_report() -> DrillReport:
    """The engine did not start."""
    ran = phases(CUT_OFF, PULL, VERIFY, CHECK, INSTALL, START, RESTORE)
    failed = tuple(replace(each, passed=each.phase != START) for each in ran)
    nothing = CaseCounts(0, 0)
    return replace(
        a_drill_report(), phases=failed, self_test=nothing, samples=nothing, passed=False, reason="it ended at once"
    )
