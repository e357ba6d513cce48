"""`comity copies`, `impact`, `audit ls` and `whereis`: what they print about copies, and which member claims it."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from comity.rules.copy_counts import (
    CLAIMED,
    FAILED,
    MISSED,
    PASSED,
    STATES,
    TESTED,
    WITHDRAWN,
    AssessedCopy,
    AuditResult,
    ClaimedCopy,
    CopyPolicy,
)
from comity.rules.copy_questions import CopyQuestion
from comity.rules.parties import Party
from comity.trust.encoding import Digest, sha256
from comity.wire.audit import CheckedCopy, HoldDecision, HoldOrder, ListedCopies
from comity_cli.commands import audit, copies, impact, whereis
from comity_cli.main import command
from comity_cli.output import Output
from comity_client.copies import CopyList, LoggedResult
from comity_client.evidence.artifact_info import Replica
from support.command_documents import faults
from support.copy_lists import ListingNode

A, B, C, D = (sha256(b"member %d" % at) for at in range(4))
WIDE, NARROW = sorted((sha256(b"wide"), sha256(b"narrow")))
NAMES = {A: "Institute A", B: "Institute B", C: "Institute C", D: "Institute D"}


PLACES = {"CH": (("CH", "US"), "Example Cloud"), "ES": (("ES", "US"), "Example Cloud")}
"""Declared reach and cloud, by jurisdiction; KR declares nothing."""


def held(member: Digest, jurisdiction: str, state: str = TESTED, *results: AuditResult) -> AssessedCopy:
    withdrawn = "space" if state == WITHDRAWN else ""
    reach, cloud = PLACES.get(jurisdiction, ((), ""))
    copy = ClaimedCopy(member, sha256(member.encode()), jurisdiction, withdrawn, reach, cloud)
    return AssessedCopy(copy, state, results)


LIST = CopyList(
    "node-a",
    (
        ListedCopies(
            WIDE,
            "lab/wide@v1",
            (
                held(A, "CH"),
                held(B, "ES", TESTED, AuditResult(A, 20_000, PASSED, 10)),
                held(C, "KR", CLAIMED),
            ),
        ),
        ListedCopies(
            NARROW,
            "",
            (
                held(A, "CH"),
                held(B, "ES", FAILED, AuditResult(A, 20_000, "digest", 10, proven=True)),
                held(C, "KR", WITHDRAWN),
            ),
        ),
    ),
    NAMES,
    CopyPolicy(2, 2),
    20_000,
    A,
)


@pytest.fixture(name="node", params=[False, True], ids=["this version", "older"], autouse=True)
def _node(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ListingNode:
    """The node that is asked; an older one answers every question with its whole list."""
    node = ListingNode(LIST, older=request.param)
    monkeypatch.setattr(copies, "fold_list", node)
    monkeypatch.setattr(impact, "fold_list", node)
    return node


def run(monkeypatch: pytest.MonkeyPatch, module: Any, *arguments: str) -> Any:
    monkeypatch.setattr(audit, "read_list", lambda *_: LIST)
    ran = CliRunner().invoke(command, arguments, obj=Output())
    assert ran.exit_code == 0, ran.output
    return ran.output


def document(monkeypatch: pytest.MonkeyPatch, module: Any, *arguments: str) -> Any:
    return json.loads(run(monkeypatch, module, *arguments, "--json"))


def test_copies_counts_claimed_and_tested_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    wide, narrow = document(monkeypatch, copies, "copies")["artifacts"]
    assert wide["count"] == {
        "copies": 3,
        "jurisdictions": 3,
        "tested": 2,
        "tested_jurisdictions": 2,
        "reaches": 1,
        "tested_reaches": 1,
        "undeclared": 1,
    }
    assert (wide["meets_policy"], narrow["meets_policy"]) == (True, False)
    assert [copy["state"] for copy in narrow["copies"]] == [TESTED, FAILED, WITHDRAWN]
    (short,) = document(monkeypatch, copies, "copies", "--short")["artifacts"]
    assert short["artifact"] == NARROW
    assert document(monkeypatch, copies, "copies", "--untested")["artifacts"] == []
    assert "1 artifact of 2 with too few copies" in run(monkeypatch, copies, "copies")


@pytest.mark.parametrize("state", STATES)
def test_the_schema_knows_every_state_of_a_copy(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    only = replace(LIST, artifacts=(ListedCopies(WIDE, "", (held(A, "CH", state),)),))
    monkeypatch.setattr(copies, "fold_list", ListingNode(only))
    ran = CliRunner().invoke(command, ["copies", "--json"], obj=Output())
    assert faults("copies", json.loads(ran.stdout)) == []


def test_audits_that_were_made_now_are_listed_with_their_results(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [
        CheckedCopy("Institute B", "node-b", "ES", PASSED, "", 10),
        CheckedCopy("Institute C", "node-c", "KR", MISSED),
    ]
    monkeypatch.setattr("comity_client.own_node.check_copies", lambda socket, artifact: made)
    monkeypatch.setattr(audit, "socket_of", lambda *_: None)
    ran = CliRunner().invoke(command, ["audit", "run", f"sha256:{WIDE}", "--json"], obj=Output())
    assert ran.exit_code == audit.MISSED_STATUS
    assert json.loads(ran.stdout)["audits"] == [
        {"member": "Institute B", "node": "node-b", "jurisdiction": "ES", "outcome": PASSED, "why": "", "pieces": 10},
        {"member": "Institute C", "node": "node-c", "jurisdiction": "KR", "outcome": MISSED, "why": "", "pieces": 0},
    ]


def test_impact_of_all_parties_and_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    parties = {
        (party["kind"], party["name"]): (party["below_policy"], party["gone"])
        for party in document(monkeypatch, impact, "impact", "--all")["parties"]
    }
    assert parties == {
        ("member", "Institute A"): (1, 1),
        ("member", "Institute B"): (0, 0),
        ("member", "Institute C"): (0, 0),
        ("jurisdiction", "CH"): (1, 1),
        ("jurisdiction", "ES"): (0, 0),
        ("jurisdiction", "KR"): (0, 0),
        ("reach", "CH"): (1, 1),
        ("reach", "ES"): (0, 0),
        ("reach", "US"): (2, 1),
        ("cloud", "Example Cloud"): (2, 1),
    }
    for name in ("CH", "Institute A", A[:8], A, "reach:US", "cloud:Example Cloud"):
        assert "no copy left" in run(monkeypatch, impact, "impact", name)
    assert "Nothing would fall" in run(monkeypatch, impact, "impact", D)  # a publisher without a copy


def test_what_is_not_shown_is_not_asked_for(monkeypatch: pytest.MonkeyPatch, node: ListingNode) -> None:
    asked = {
        ("copies", "--short"): [CopyQuestion(("short",), named=True)],
        ("copies", "--short", "--untested"): [CopyQuestion(("short", "untested"), named=True)],
        ("impact", "--all"): [CopyQuestion()],
        ("impact", D): [CopyQuestion()],
        ("impact", "CH"): [CopyQuestion(), CopyQuestion(("lost",), party=Party("jurisdiction", "CH"), named=True)],
    }
    for arguments, questions in asked.items():
        node.asked.clear()
        run(monkeypatch, copies, *arguments)
        assert node.asked == questions


def test_the_losses_of_all_parties_are_named_in_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    parties = document(monkeypatch, impact, "impact", "--all")["parties"]
    (cloud,) = [party for party in parties if party["kind"] == "cloud"]
    assert [(loss["name"], loss["after"]["copies"], loss["gone"]) for loss in cloud["losses"]] == [
        *sorted([("lab/wide@v1", 1, False), (f"sha256:{NARROW}", 0, True)], key=lambda loss: loss[0] != "lab/wide@v1")
    ]


def test_copies_outside_a_jurisdiction_count_neither_its_reach_nor_what_is_undeclared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wide, narrow = document(monkeypatch, copies, "copies", "--outside", "US")["artifacts"]
    assert (wide["count"]["copies"], narrow["count"]["copies"]) == (0, 0)
    wide, _ = document(monkeypatch, copies, "copies", "--outside", "FR")["artifacts"]
    assert wide["count"]["copies"] == 2  # the third one declares no place
    assert "outside FR" in run(monkeypatch, copies, "copies", "--outside", "FR")


def test_impact_wants_one_party_or_all() -> None:
    for arguments in (("impact",), ("impact", "CH", "--all")):
        assert CliRunner().invoke(command, arguments, obj=Output()).exit_code == 2


def test_audit_ls_names_the_author_of_each_result(monkeypatch: pytest.MonkeyPatch) -> None:
    passed, failed = document(monkeypatch, audit, "audit", "ls")["results"]
    assert (passed["outcome"], passed["auditor_name"], passed["date"]) == (PASSED, "Institute A", "2024-10-04")
    assert (failed["outcome"], failed["proven"]) == ("digest", True)
    (only,) = document(monkeypatch, audit, "audit", "ls", "--failed")["results"]
    assert only == failed


def test_whereis_names_the_auditor_of_each_result(monkeypatch: pytest.MonkeyPatch) -> None:
    note = LoggedResult("node-b", sha256(A.encode()), AuditResult(B, 20_000, PASSED, 10))
    lie = LoggedResult("node-c", sha256(A.encode()), AuditResult(C, 20_000, "not-held"))
    today = LoggedResult("node-d", sha256(A.encode()), AuditResult(C, 20_001, PASSED, 3), logged=False)
    told = Replica("node-a", "Institute A", "CH", True, 3, 3, audits=(note, lie, today))
    gone = Replica("node-d", "Institute D", "BR", False, 0, 3, withdrawn="legal-order")
    monkeypatch.setattr(whereis, "user", lambda: SimpleNamespace(whereis=lambda _: [told, gone]))
    ran = CliRunner().invoke(command, ["whereis", "a/b"], obj=Output(), env={"COLUMNS": "400"})
    assert "passed 10 pieces on 2024-10-04, says node-b; failed: not-held on 2024-10-04, says node-c" in ran.output
    assert "passed 3 pieces on 2024-10-05, says node-d, not logged yet" in ran.output
    assert "withdrawn: legal-order" in ran.output


def test_whereis_names_auditors_with_the_same_result_together(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = [LoggedResult(f"node-{n}", sha256(A.encode()), AuditResult(B, 20_000, PASSED, 10)) for n in range(5)]
    tested = Replica("node-a", "Institute A", "CH", True, 3, 3, audits=(*notes[:2],))
    often = Replica("node-b", "Institute B", "FR", True, 3, 3, audits=(*notes,))
    monkeypatch.setattr(whereis, "user", lambda: SimpleNamespace(whereis=lambda _: [tested, often]))
    ran = CliRunner().invoke(command, ["whereis", "a/b"], obj=Output())
    assert "passed 10 pieces on 2024-10-04, say node-0, node-1\n" in ran.output
    assert "passed 10 pieces on 2024-10-04, say node-0, node-1, node-2 and 2 more\n" in ran.output


def test_whereis_does_not_count_a_copy_that_failed_its_audits(monkeypatch: pytest.MonkeyPatch) -> None:
    good = Replica("node-a", "Institute A", "CH", True, 3, 3, state=CLAIMED)
    bad = Replica("node-b", "Institute B", "FR", True, 3, 3, state=FAILED)
    monkeypatch.setattr(whereis, "user", lambda: SimpleNamespace(whereis=lambda _: [good, bad]))
    ran = CliRunner().invoke(command, ["whereis", "a/b"], obj=Output())
    assert "full copy, which failed its audits" in ran.output
    assert "A full copy is claimed or answered in 1 jurisdiction." in ran.output


def test_rm_asks_before_it_removes_and_names_the_nodes_that_proved_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[HoldOrder] = []

    def decide(_: object, order: HoldOrder) -> HoldDecision:
        orders.append(order)
        return HoldDecision(b"" if order.trial else b"line", 7, ("node-b",), ("node-c: no answer",), 4096)

    monkeypatch.setattr("comity_client.own_node.decide_hold", decide)
    at = ("--socket", "operator.sock")

    def ran(*arguments: str) -> Any:
        return CliRunner().invoke(command, [*arguments, *at], obj=Output())

    assert ran("rm", A).exit_code == 130  # no node confirmed it
    assert orders == []
    assert "would ask" in ran("rm", A, "--dry-run").output
    assert "entry 7" in ran("rm", A, "--yes").output
    assert ran("withdraw", A, "--reason", "legal-order", "--basis", "order 12", "--yes").exit_code == 0
    assert orders == [
        HoldOrder(A, "space", trial=True),
        HoldOrder(A, "space"),
        HoldOrder(A, "legal-order", "order 12", keep=True, force=True),
    ]
