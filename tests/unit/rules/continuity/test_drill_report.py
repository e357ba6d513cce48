"""Drill reports: what must fit together in them, what signs them, and between which times a drill took place."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from comity.rules.continuity.drill_report import (
    CUT,
    LOG_SECONDS,
    PULL,
    RESTORE,
    SELF_TEST,
    CaseCounts,
    DrillPhase,
    DrillReport,
    DrillTimes,
    check_drilled,
    check_times,
    summarise_drill,
)
from comity.rules.signing import sign_content
from comity.trust.encoding import canonical, sha256
from comity.trust.errors import Malformed, Untrusted
from support.drill_reports import STARTED, a_drill_report, a_failed_drill_report, phases
from support.world import identity

GOOD = a_drill_report()
OFFICER = identity("Continuity desk")
AFTER = GOOD.ended + 5


@pytest.mark.parametrize("report", [a_drill_report(), a_failed_drill_report()])
def test_a_report_reads_as_it_was_written(report: DrillReport) -> None:
    assert DrillReport.parse(report.encode()) == report


def test_a_report_says_in_how_many_seconds_it_answered_and_reached_the_quality() -> None:
    assert (GOOD.answered, GOOD.quality) == (7, 8)
    late = replace(GOOD, phases=tuple(replace(p, began=p.began + 400, ended=p.ended + 400) for p in GOOD.phases))
    assert late.answered == 7, "seconds count from the cut, not from the start"
    failed = a_failed_drill_report()
    assert (failed.answered, failed.quality) == (None, None)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"phases": phases(PULL, CUT, SELF_TEST)}, "not in their order"),
        ({"phases": phases(CUT, CUT, SELF_TEST)}, "not in their order"),
        ({"phases": (DrillPhase(CUT, 0, 9, True, ""), DrillPhase(PULL, 8, 20, True, ""))}, "overlap"),
        ({"phases": (DrillPhase(CUT, 0, 60_000, True, ""),)}, "last longer"),
        ({"ended": STARTED - 1}, "last longer"),
        ({"reason": "it was slow"}, "needs a reason"),
        ({"passed": False}, "needs a reason"),
        ({"phases": phases(CUT, PULL, RESTORE)}, "without a verified answer"),
        ({"phases": phases(CUT, PULL, SELF_TEST, RESTORE)}, "without the agreed quality"),
        ({"phases": (*GOOD.phases[:-1], replace(GOOD.phases[-1], passed=False))}, "a phase failed"),
        ({"self_test": CaseCounts(2, 1, ("a",))}, "without all answers"),
        ({"self_test": CaseCounts(0, 0)}, "without all answers"),
        ({"samples": CaseCounts(10, 8, ("a", "b"))}, "fewer answers"),
        ({"samples": CaseCounts(10, 9)}, "counts of cases"),
        ({"samples": CaseCounts(10, 11)}, "counts of cases"),
        ({"samples": CaseCounts(10, 9, ("a", "b"))}, "counts of cases"),
    ],
)
def test_a_report_that_contradicts_itself_is_neither_written_nor_read(changes: dict[str, Any], why: str) -> None:
    report = replace(GOOD, **changes)
    with pytest.raises(Malformed, match=why):
        report.encode()
    with pytest.raises(Malformed, match=why):
        DrillReport.parse(canonical(report.to_json()))


@pytest.mark.parametrize("threshold", ["1.1", "0.", ".5", "90%", "-0.5", "1e-3", "0.1234567"])
def test_a_threshold_is_a_share(threshold: str) -> None:
    with pytest.raises(Malformed):
        DrillReport.parse(canonical(GOOD.to_json() | {"threshold": threshold}))


def test_a_share_is_compared_exactly() -> None:
    assert CaseCounts(10, 9, ("a",)).reaches("0.9")
    assert not CaseCounts(1_000, 899, ("a",)).reaches("0.9")
    assert not CaseCounts(0, 0).reaches("")


def test_a_report_in_another_form_is_refused() -> None:
    for data in (json.dumps(GOOD.to_json(), indent=1).encode(), GOOD.encode() + b"\n", b"{}", b""):
        with pytest.raises(Malformed):
            DrillReport.parse(data)
    with pytest.raises(Malformed):
        DrillReport.parse(canonical(GOOD.to_json() | {"note": "more"}))


def test_the_signed_summary_follows_from_the_report() -> None:
    said = summarise_drill(GOOD, OFFICER.id, AFTER)
    assert (said.artifact, said.plan, said.passed, said.answered, said.quality) == (
        *(GOOD.kit_artifact, GOOD.plan, True),
        *(7, 8),
    )
    assert check_drilled(sign_content(said, OFFICER.signer), GOOD) == said


def test_a_summary_of_another_report_is_refused() -> None:
    """Replayed: the signature of one drill beside the report of another plan, kit or result."""
    entry = sign_content(summarise_drill(GOOD, OFFICER.id, AFTER), OFFICER.signer)
    for other in (
        replace(GOOD, plan=sha256(b"another plan")),
        replace(GOOD, kit_artifact=sha256(b"another kit")),
        replace(GOOD, service="search"),
        replace(GOOD, started=GOOD.started - 86_400, ended=GOOD.ended - 86_400),
        a_failed_drill_report(),
    ):
        with pytest.raises(Untrusted, match="another report"):
            check_drilled(entry, other)


@pytest.mark.parametrize(
    "changes",
    [
        {"passed": False},
        {"answered": 1},
        {"quality": None},
        {"plan": sha256(b"another plan")},
        {"artifact": sha256(b"another kit")},
        {"service": "search"},
        {"kit": "org/other@v1"},
    ],
)
def test_a_summary_that_says_something_else_is_refused(changes: dict[str, Any]) -> None:
    said = replace(summarise_drill(GOOD, OFFICER.id, AFTER), **changes)
    with pytest.raises(Untrusted, match="differs from the report"):
        check_drilled(sign_content(said, OFFICER.signer), GOOD)


def test_a_report_cannot_be_signed_before_its_drill_ended() -> None:
    entry = sign_content(summarise_drill(GOOD, OFFICER.id, GOOD.ended - 1), OFFICER.signer)
    with pytest.raises(Untrusted, match="before the drill ended"):
        check_drilled(entry, GOOD)


def test_cosigners_prove_between_which_times_a_drill_took_place() -> None:
    before, logged = (STARTED - 30, STARTED - 5), (GOOD.ended + 3, GOOD.ended + 9)
    assert check_times(GOOD, before, logged) == DrillTimes(STARTED - 5, GOOD.ended + 9)


def test_the_clock_of_one_member_proves_nothing() -> None:
    assert check_times(GOOD, (STARTED,), (GOOD.ended,)) == DrillTimes(None, None)
    assert check_times(GOOD, (STARTED + 86_400,), (GOOD.ended - 86_400,)) == DrillTimes(None, None)
    assert check_times(GOOD, (STARTED - 5, STARTED + 86_400), ()).begun_after == STARTED - 5


@pytest.mark.parametrize(
    ("before", "logged", "why"),
    [
        ((STARTED + 601, STARTED + 700), (), "before the checkpoint"),
        ((), (GOOD.ended - 700, GOOD.ended - 601), "after it was logged"),
        ((), (GOOD.ended + LOG_SECONDS + 1, GOOD.ended + LOG_SECONDS + 2), "more than a day after"),
    ],
)
def test_a_report_with_other_times_than_its_cosigners_is_refused(
    before: tuple[int, ...], logged: tuple[int, ...], why: str
) -> None:
    with pytest.raises(Untrusted, match=why) as caught:
        check_times(GOOD, before, logged)
    assert caught.value.code == "DRILL-TIME"
