"""Each link of a plan that a check can name, taken away in turn before a drill: the drill ends at it, or lists it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.rules.continuity.check import next_command
from comity.rules.continuity.drill_report import CUT, DECLARE, PLAN, PULL, RESTORE, DrillReport
from comity.rules.continuity.facts import FallbackFacts
from comity.rules.continuity.links import GREEN, LINK_KINDS, RED, TRIED_AGAIN, Link
from comity.rules.continuity.plan import ContinuityPlan
from comity.trust.errors import ComityError, Malformed, Refused, Unavailable
from comity_client.client import Client
from comity_client.continuity.drill import _Drill, order_drill, rehearse
from comity_client.offers.offer_client import OfferClient
from comity_client.offers.pact_drill import DeclaredDrill
from support.continuity_cases import CASES
from support.continuity_facts import THE_PLAN, chat, some_facts

NEVER: Any = SimpleNamespace(offers=lambda: None)


@pytest.fixture
def pulling(monkeypatch: pytest.MonkeyPatch) -> list[ComityError | type[BaseException]]:
    """A drill whose nodes are all left, and in which the pull raises the first of these."""
    raised: list[ComityError | type[BaseException]] = [Unavailable("no node that is left gave the kit")]

    def cut(drill: _Drill) -> Client:
        with drill.phases.phase(CUT):
            return drill.api

    def pull(drill: _Drill, api: Client, folder: Path) -> None:
        with drill.phases.phase(PULL, "copies-silent"):
            raise raised[0]

    monkeypatch.setattr(_Drill, "_cut_off", cut)
    monkeypatch.setattr(_Drill, "_pull", pull)
    return raised


def drill(
    links: Sequence[Link], plan: ContinuityPlan = THE_PLAN, declaration: DeclaredDrill | None = None
) -> DrillReport:
    order = replace(order_drill(plan, "chat", 1, lambda cut: links), declaration=declaration)
    return rehearse(cast(Client, NEVER), order, on_phase=lambda phase: None, on_event=lambda event: None)


def links_of(facts: FallbackFacts, plan: ContinuityPlan, **changes: Any) -> tuple[Link, ...]:
    """All that a check says of the service and its first fallback."""
    found = chat(facts, plan, **changes)
    return (*found.links, *found.fallbacks[0].links)


@pytest.mark.usefixtures("pulling")
@pytest.mark.parametrize(("name", "facts", "plan", "changes"), CASES)
def test_a_drill_ends_at_a_red_link_in_the_words_of_the_check_and_lists_each_other(
    name: str, facts: FallbackFacts, plan: ContinuityPlan, changes: dict[str, Any]
) -> None:
    links = links_of(facts, plan, **changes)
    report = drill(links, plan)
    kind, phases = LINK_KINDS[name], [each.phase for each in report.phases]
    listed = {each.link: each for each in report.findings}
    assert set(listed) == {link.kind for link in links if link.state != GREEN}
    assert listed[name].said.startswith(kind.means) and listed[name].state == kind.state
    ending = [link.kind for link in links if link.ends_drill]
    assert (name in ending) == (kind.state == RED and kind.subject not in TRIED_AGAIN)
    if ending:
        assert phases == [CUT, PLAN, RESTORE] and report.link == ending[0]
        assert report.reason.startswith(LINK_KINDS[report.link].means)
        assert all(each in report.reason.partition("; these do not hold either: ")[2] for each in ending[1:])
    else:
        assert phases == [CUT, PLAN, PULL, RESTORE] and report.link == "copies-silent"
    service = plan.services[0]
    hint = next_command(name, "plan.toml", service, service.fallbacks[0])
    assert hint.partition(" ")[0] in ("comity", "edit") and "{" not in hint
    assert DrillReport.parse(report.encode()) == report


def test_every_kind_of_link_has_a_drill() -> None:
    assert {name for name, *_ in CASES} == set(LINK_KINDS)


@pytest.mark.usefixtures("pulling")
def test_a_drill_of_a_plan_that_holds_lists_nothing() -> None:
    report = drill(links_of(some_facts(), THE_PLAN))
    plan = report.phase(PLAN)
    assert report.findings == () and plan is not None and plan.said.endswith("all hold")


@pytest.mark.usefixtures("pulling")
def test_what_cannot_be_judged_ends_the_drill() -> None:
    def judge(cut: Client) -> Sequence[Link]:
        raise Malformed("a record on this machine is damaged")

    order = order_drill(THE_PLAN, "chat", 1, judge)
    report = rehearse(cast(Client, NEVER), order, on_phase=lambda phase: None, on_event=lambda event: None)
    assert report.link == "nodes-silent" and "damaged" in report.reason
    assert [each.phase for each in report.phases] == [CUT, PLAN, RESTORE]


class Declared(DeclaredDrill):
    """A declaration that tells what was called."""

    def __init__(self, *fails: str) -> None:
        self.fails, self.calls = fails, list[str]()

    def begin(self, offers: OfferClient) -> str:
        return self._call("begin")

    def end(self) -> str:
        return self._call("end")

    def _call(self, what: str) -> str:
        self.calls.append(what)
        if what in self.fails:
            raise Refused(f"the node refuses to {what} it")
        return f"declaration {what}"


def said(report: DrillReport, name: str) -> str:
    found = report.phase(name)
    return found.said if found else ""


@pytest.mark.usefixtures("pulling")
def test_a_pact_is_declared_before_the_pull_and_ended_with_the_drill_that_failed() -> None:
    declared = Declared()
    report = drill((), declaration=declared)
    assert [each.phase for each in report.phases] == [CUT, PLAN, DECLARE, PULL, RESTORE]
    assert said(report, DECLARE) == "declaration begin" and said(report, RESTORE).endswith("; declaration end")
    assert declared.calls == ["begin", "end"] and report.link == "copies-silent"


def test_a_declaration_is_ended_when_the_drill_is_interrupted(
    pulling: list[ComityError | type[BaseException]],
) -> None:
    pulling[0] = KeyboardInterrupt
    declared = Declared()
    with pytest.raises(KeyboardInterrupt):
        drill((), declaration=declared)
    assert declared.calls == ["begin", "end"]


@pytest.mark.usefixtures("pulling")
def test_a_declaration_that_did_not_begin_or_end_is_in_the_report() -> None:
    report = drill((), declaration=Declared("begin"))
    assert "refuses to begin" in report.reason and [each.phase for each in report.phases][-1] == RESTORE
    report = drill((), declaration=Declared("end"))
    restored = report.phase(RESTORE)
    assert restored is not None and not restored.passed and "refuses to end" in restored.said


@pytest.mark.usefixtures("pulling")
def test_nothing_is_declared_for_a_plan_that_does_not_hold() -> None:
    declared = Declared()
    name, facts, plan, changes = next(case for case in CASES if case[0] == "grant-over")
    assert drill(links_of(facts, plan, **changes), plan, declared).link == name and declared.calls == []
