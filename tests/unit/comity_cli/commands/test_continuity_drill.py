"""`comity continuity drill`: what it refuses before anything is cut off."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from comity.rules.continuity.drill_report import DrillReport
from comity.rules.continuity.links import LINK_KINDS
from comity.trust.errors import NotFound, Untrusted
from comity.trust.exit_statuses import FAILED
from comity_cli.commands.continuity_drill import command
from comity_client.client import Client
from comity_client.continuity.drill import DrillOrder
from comity_client.continuity.drill_files import last_drill
from comity_client.home import Home
from comity_client.offers.pact_drill import DeclaredDrill
from support.continuity import PLAN
from support.drill_reports import a_drill_report, a_failed_drill_report
from support.run_command import printed, refused, run


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


def test_a_policy_that_is_not_the_one_of_the_plan_is_refused(plan: Path) -> None:
    plan.with_name("policy.toml").write_text("another policy")
    error = refused(command, "chat", "--plan", plan)
    assert isinstance(error, Untrusted) and error.code == "PLAN-POLICY"
    assert error.what == LINK_KINDS["policy-changed"].means
    plan.with_name("policy.toml").unlink()
    assert refused(command, "chat", "--plan", plan).what == LINK_KINDS["policy-missing"].means


def test_a_service_that_the_plan_does_not_have_is_refused(plan: Path) -> None:
    error = refused(command, "mail", "--plan", plan)
    assert isinstance(error, NotFound) and error.code == "DRILL-SERVICE"


def test_only_the_pact_of_a_plan_is_declared_and_by_its_owner(plan: Path) -> None:
    plan.write_text(re.sub(r"\[policy\]\n.*\n.*\n", "", PLAN))
    error = refused(command, "chat", "--plan", plan, "--declare")
    assert error.code == "DRILL-PACT" and "own ones" in error.why
    error = refused(command, "chat", "--plan", plan, "--declare", "--fallback", 2)
    assert "none of your identities" in error.what


def test_a_pact_is_declared_by_the_owner_who_was_asked(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[DrillOrder] = []

    def rehearse(api: Client, order: DrillOrder, **_: object) -> DrillReport:
        orders.append(order)
        return a_drill_report()

    monkeypatch.setattr("comity_client.continuity.drill.rehearse", rehearse)
    owner = Client(Home(plan.with_name("home"))).new_publisher("Ministry", "CH", "node-ch.example/log")
    plan.write_text(re.sub(r"\[policy\]\n.*\n.*\n", "", PLAN).replace("51" * 32, owner.id))
    words = ("chat", "--plan", plan, "--fallback", 2, "--out", plan.with_name("drill.json"))
    assert run(command, *words, "--declare", answer="n\n").exit_code and not orders
    printed(command, *words, "--declare", "--yes")
    printed(command, *words)
    declared, none = (order.declaration for order in orders)
    assert isinstance(declared, DeclaredDrill) and none is None
    assert (declared.pact, declared.signer.identity, declared.node) == ("ab" * 32, owner.id, "")


def test_an_unsigned_report_is_not_logged(plan: Path) -> None:
    assert isinstance(run(command, "chat", "--plan", plan, "--log", "node-es").exception, click.UsageError)


@pytest.mark.parametrize(("report", "status"), [(a_drill_report(), 0), (a_failed_drill_report(), FAILED)])
def test_the_report_is_written_kept_and_printed(
    plan: Path, monkeypatch: pytest.MonkeyPatch, report: DrillReport, status: int
) -> None:
    monkeypatch.setattr("comity_client.continuity.drill.rehearse", lambda *_, **__: report)
    plan.write_text(re.sub(r"\[policy\]\n.*\n.*\n", "", PLAN))
    file, page = plan.with_name("drill.json"), plan.with_name("drill.html")
    document = printed(command, "chat", "--plan", plan, "--out", file, "--html", page, status=status)
    assert (document["answered"], document["quality"]) == (report.answered, report.quality)
    assert DrillReport.parse(file.read_bytes()) == report
    assert report.kit in page.read_text("utf-8")
    assert last_drill(Home(plan.with_name("home")), "chat", report.kit_artifact) == report
