"""Each link of a plan is taken away in turn: the service is red or amber, the link is named, and none is green."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from comity.rules.continuity.check import PlanChecked, counts
from comity.rules.continuity.facts import (
    FallbackFacts,
    GatheredFacts,
    KitWarning,
    PlanSignature,
    StatedApproval,
    StatedResult,
)
from comity.rules.continuity.links import AMBER, GREEN, LINK_KINDS, RED, SUBJECTS, worst
from comity.rules.continuity.plan import ContinuityPlan, parse_plan
from comity.trust.encoding import Digest
from support.continuity import PLAN
from support.continuity_cases import CASES, PACT, ROOT, kit, lent, signed, warned, weights
from support.continuity_facts import (
    DAY,
    NOW,
    OFFICER,
    OWNER,
    a_copy,
    a_drill,
    a_pact,
    all_facts,
    chat,
    checked,
    some_facts,
    some_kit_facts,
)


def test_a_plan_of_which_everything_holds_is_green() -> None:
    found = checked(all_facts(some_facts()))
    assert found.state == GREEN and counts(found) == {"green": 2, "amber": 0, "red": 0}
    assert all(service.problems == () for service in found.services)
    assert chat(lent(), PACT).state == GREEN
    assert chat(lent(attested=("amd",)), ROOT).state == GREEN


@pytest.mark.parametrize(("name", "facts", "plan", "changes"), CASES)
def test_a_link_that_is_taken_away_is_named_and_not_green(
    name: str, facts: FallbackFacts, plan: ContinuityPlan, changes: dict[str, Any]
) -> None:
    found = chat(facts, plan, **changes)
    kind = LINK_KINDS[name]
    assert name in {link.kind for link in found.problems}
    (link, *_) = (each for each in found.problems if each.kind == name)
    assert (link.subject, link.state) == (kind.subject, kind.state) and link.text.startswith(kind.means)
    assert found.state == RED if kind.state == RED else found.state != GREEN
    assert kind.subject in SUBJECTS and "{" not in link.hint


def test_every_kind_of_link_is_taken_away() -> None:
    assert {name for name, *_ in CASES} == set(LINK_KINDS) and len(LINK_KINDS) >= 30


def test_only_the_link_that_was_taken_away_is_named() -> None:
    alone = {"never-checked", "evaluation-below", "approval-over", "copies-few", "drill-slow", "plan-unsigned"}
    for name, facts, plan, changes in CASES:
        if name in alone:
            problems = chat(facts, plan, **changes).fallbacks[0].links + chat(facts, plan, **changes).links
            assert {link.kind for link in problems if link.state != GREEN} == {name}, name


def test_nothing_that_is_unknown_is_green() -> None:
    nothing = GatheredFacts(NOW, PlanSignature("unsigned"), {})
    found = checked(nothing)
    assert [service.state for service in found.services] == [RED, RED]
    for facts in (all_facts(FallbackFacts(None)), all_facts(FallbackFacts(None, silent=True))):
        assert checked(facts).services[0].state == RED


def test_a_service_is_amber_where_only_a_later_fallback_works() -> None:
    second = replace(some_facts(), agreed=a_pact())
    found = checked(all_facts(some_facts(check=None), second)).services[0]
    assert (found.state, found.chosen.number, found.chosen.minutes) == (AMBER, 2, 2)
    assert "never-checked" in {link.kind for link in found.problems}
    assert checked(all_facts(some_facts(), second)).services[0].state == GREEN


def test_a_stranger_can_turn_no_plan_red() -> None:
    for kind in ("yank", "superseded", "vulnerability", "malware", "licence-change", "key-compromise"):
        assert chat(warned(kind, "other")).state == AMBER
        assert chat(weights(KitWarning(kind, "a stranger", "other"))).state == AMBER


def test_the_newest_result_of_the_evaluator_counts_and_its_others_are_told() -> None:
    old = StatedResult(OWNER, "letters", "pass_rate", "0.99", NOW - 50 * DAY, "first", 2)
    new = StatedResult(OWNER, "letters", "pass_rate", "0.50", NOW - 3 * DAY, "first", 2)
    assert "evaluation-below" in {link.kind for link in chat(kit(results=(old, new))).problems}
    assert chat(kit(results=(new, replace(old, at=NOW)))).state == GREEN
    texts = [link.text for link in chat(kit(results=(old,))).fallbacks[0].links if link.subject == "evaluation"]
    assert "announced 2 evaluations" in texts[0]


def test_officers_count_once_and_as_many_as_are_asked_for() -> None:
    two = parse_plan(
        PLAN.replace(f'["{"3c" * 32}"], at_least = 1', f'["{"3c" * 32}", "{"3d" * 32}"], at_least = 2').encode()
    )
    first = StatedApproval(OFFICER, "ministry-interior", NOW - DAY, NOW + 100 * DAY)
    again, other = replace(first, until=NOW + 200 * DAY), replace(first, by=Digest("3d" * 32), until=NOW + 5 * DAY)
    assert chat(kit(approvals=(first, again)), two).state == RED
    assert "approval-ends-soon" in {link.kind for link in chat(kit(approvals=(first, other)), two).problems}


def test_a_copy_whose_reach_is_not_declared_survives_a_seat_and_no_reach() -> None:
    seat = parse_plan(PLAN.replace('"reach:US", ', '"jurisdiction:US", ').encode())
    copies = (a_copy("node-xx", "f0", "FR"), a_copy("node-yy", "f1", "DE"))
    facts = some_facts(kit=some_kit_facts(copies=copies), drill=a_drill(cut_off=seat.services[0].must_survive))
    assert chat(facts, seat).state == GREEN
    assert "copies-inside" in {link.kind for link in chat(facts).problems}


def test_what_is_wrong_with_the_plan_is_wrong_with_each_service() -> None:
    found: PlanChecked = checked(all_facts(some_facts(), **signed(lost=True)))
    assert [service.state for service in found.services] == [RED, RED]


def test_the_worst_of_no_states_is_green() -> None:
    assert (worst(()), worst((AMBER, GREEN)), worst((AMBER, RED, GREEN))) == (GREEN, AMBER, RED)
