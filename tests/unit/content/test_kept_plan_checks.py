"""What a node keeps of the last check of a plan: private, bounded, stale in time, and never half read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from comity.content import kept_plan_checks as module
from comity.content.kept_plan_checks import (
    DAY,
    FOLDER,
    KeptPlanCheck,
    UnreadPlanCheck,
    keep_plan_check,
    kept_plan_checks,
)
from comity.rules.continuity.links import LINK_KINDS
from comity.trust.encoding import canonical
from comity.trust.errors import Malformed, OutOfSpace
from support.continuity_facts import NOW, OWNER, THE_PLAN, all_facts, checked, some_facts

GREEN = checked(all_facts(some_facts()))
AMBER = checked(all_facts(some_facts(drill=None)))


def test_a_check_is_kept_for_its_owner_alone_and_read_again_whole(tmp_path: Path) -> None:
    file = keep_plan_check(tmp_path, AMBER)
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    (kept,) = kept_plan_checks(tmp_path)
    assert isinstance(kept, KeptPlanCheck) and kept == KeptPlanCheck.of(AMBER)
    assert (kept.plan, kept.signer, kept.at, kept.state) == (THE_PLAN.digest, OWNER, NOW, "amber")
    chat, search = kept.services
    assert (chat.state, chat.replaced_by, chat.minutes, chat.longest_outage) == (
        "amber",
        "org/smollm2-chat@v1",
        None,
        60,
    )
    assert [link.kind for link in chat.missing] == ["never-drilled"]
    assert (search.state, search.missing, search.minutes) == ("green", (), 2)
    assert canonical(kept.to_json()) == file.read_bytes()


def test_a_newer_check_replaces_the_one_of_the_same_plan_and_of_no_other(tmp_path: Path) -> None:
    keep_plan_check(tmp_path, AMBER)
    keep_plan_check(tmp_path, GREEN)
    keep_plan_check(tmp_path, replace(AMBER, plan=replace(THE_PLAN, name="Another ministry")))
    assert [(kept.name, kept.state) for kept in kept_plan_checks(tmp_path) if isinstance(kept, KeptPlanCheck)] == [
        ("Another ministry", "amber"),
        ("Ministry of the Interior", "green"),
    ]


@pytest.mark.parametrize(
    ("later", "stale"),
    [(-DAY - 1, True), (-DAY, False), (0, False), (2 * DAY, False), (2 * DAY + 1, True)],
)
def test_a_check_is_stale_after_the_days_of_its_plan_or_where_a_clock_is_wrong(later: int, stale: bool) -> None:
    assert KeptPlanCheck.of(GREEN).stale(NOW + later) == stale


def test_a_check_is_stale_when_its_plan_is_over_whatever_else_it_allows() -> None:
    plan = replace(THE_PLAN, stale_after_days=3650)
    kept = KeptPlanCheck.of(replace(GREEN, plan=plan))
    assert not kept.stale(plan.ends) and kept.stale(plan.ends + 1)
    over = KeptPlanCheck.of(replace(GREEN, plan=replace(plan, until=plan.until - timedelta(days=400))))
    assert over.stale(NOW)


def test_a_damaged_file_is_named_with_its_reason_and_hides_no_other(tmp_path: Path) -> None:
    file = keep_plan_check(tmp_path, GREEN)
    said = json.loads(file.read_bytes())
    for number, wrong in enumerate((b"", b"{}", file.read_bytes() + b" ", canonical({**said, "more": 1}))):
        file.with_name(f"{number:064x}.json").write_bytes(wrong)
    file.with_name("notes.txt").write_text("of the operator")
    first, *unread = kept_plan_checks(tmp_path)
    assert isinstance(first, KeptPlanCheck) and len(unread) == 4
    assert all(isinstance(each, UnreadPlanCheck) and each.why for each in unread)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_plan_check(tmp_path, GREEN)
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    (found,) = kept_plan_checks(tmp_path)
    assert isinstance(found, UnreadPlanCheck)
    with pytest.raises(Malformed):
        keep_plan_check(tmp_path, GREEN)


def test_a_node_keeps_a_bounded_number_of_plans_and_those_it_has_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PLANS", 1)
    keep_plan_check(tmp_path, GREEN)
    with pytest.raises(OutOfSpace) as failure:
        keep_plan_check(tmp_path, replace(GREEN, plan=replace(THE_PLAN, name="Another")))
    assert failure.value.code == "PLANS-KEPT" and str(tmp_path / FOLDER) in failure.value.hint
    keep_plan_check(tmp_path, AMBER)


def test_links_beyond_the_bound_are_counted_and_long_texts_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    service = AMBER.services[0]
    (gap,) = service.problems
    links = tuple(replace(gap, text="x" * 1000 + "\x07", hint="y" * 1000) for _ in range(40))
    many = replace(service, links=(*service.links, *links))
    kept = KeptPlanCheck.of(replace(AMBER, services=(many, *AMBER.services[1:])))
    assert (len(kept.services[0].missing), kept.services[0].dropped) == (module.MAX_LINKS, 41 - module.MAX_LINKS)
    assert KeptPlanCheck.parse(canonical(kept.to_json())) == kept


def test_every_kind_of_link_fits() -> None:
    assert all(len(kind) <= 64 for kind in LINK_KINDS)


def test_no_home_has_no_checks(tmp_path: Path) -> None:
    assert kept_plan_checks(tmp_path) == []
