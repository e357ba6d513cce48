"""What a check leaves: changes of colour are told once, a page and a file of metrics say what was found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from comity.rules.continuity.check import PlanChecked
from comity_client.continuity.results import (
    TYPE,
    colour_changes,
    event_of,
    keep_told,
    metrics_text,
    read_told,
    render_checked,
)
from comity_client.home import Home
from support.continuity_facts import all_facts, checked, some_facts

GREEN_PLAN = checked(all_facts(some_facts()))
RED_PLAN = checked(all_facts(some_facts(check=None)))


def changes_after(home: Home, found: PlanChecked) -> list[tuple[str, str, str]]:
    return [(each.service, each.before, each.now) for each in colour_changes(read_told(home, found), found)]


def test_a_colour_is_told_once_and_a_green_one_at_first_is_none(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert changes_after(home, GREEN_PLAN) == []
    assert changes_after(home, RED_PLAN) == [("chat", "green", "red")]
    keep_told(home, RED_PLAN)
    assert changes_after(home, RED_PLAN) == []
    assert changes_after(home, GREEN_PLAN) == [("chat", "red", "green")]


def test_another_plan_has_its_own_colours_and_a_damaged_file_is_none(tmp_path: Path) -> None:
    home = Home(tmp_path)
    keep_told(home, RED_PLAN)
    other = replace(RED_PLAN, plan=replace(RED_PLAN.plan, name="Another ministry"))
    assert changes_after(home, other) == [("chat", "green", "red")]
    (file,) = home.continuity.iterdir()
    for damaged in (b"{", b"[]", b'{"chat":"blue"}', b'{"chat":3}'):
        file.write_bytes(damaged)
        assert changes_after(home, RED_PLAN) == [("chat", "green", "red")]


def test_the_event_says_what_is_missing_of_the_services_that_changed() -> None:
    event = json.loads(event_of(RED_PLAN, colour_changes({}, RED_PLAN)))
    assert (event["type"], event["data"]["counts"]) == (TYPE, {"green": 1, "amber": 0, "red": 1})
    (service,) = event["data"]["services"]
    assert "never-checked" in [link["kind"] for link in service["links"]]


def test_the_metrics_have_the_state_and_the_minutes_of_each_service() -> None:
    lines = metrics_text(RED_PLAN).splitlines()
    assert 'comity_continuity_service_state{service="chat"} 2' in lines
    assert 'comity_continuity_service_state{service="search"} 0' in lines
    assert 'comity_continuity_drill_minutes{service="search"} 2' in lines
    assert 'comity_continuity_services{state="red"} 1' in lines


def test_the_page_has_a_row_for_each_service_without_scripts_and_escapes_what_the_plan_says() -> None:
    service = replace(RED_PLAN.plan.services[0], used_by=("<b>letters</b>",))
    hostile = replace(RED_PLAN, services=(replace(RED_PLAN.services[0], service=service), RED_PLAN.services[1]))
    page = render_checked(hostile)
    assert "<b>letters" not in page and "&lt;b&gt;letters" in page and "<script" not in page
    assert "never checked on this machine" in page and "2 of 240 allowed" in page
    assert GREEN_PLAN.services[0].where.startswith("own machine, 8 GiB")
