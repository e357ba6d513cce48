"""`comity transparency-report`: withdrawn copies by jurisdiction and reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner
from comity.rules.copy_counts import CLAIMED, WITHDRAWN, AssessedCopy, ClaimedCopy, CopyPolicy
from comity.trust.encoding import sha256
from comity.wire.audit import ListedCopies
from comity_cli.commands import transparency_report
from comity_cli.main import command
from comity_cli.output import Output
from comity_client.copies import CopyList
from support.copy_lists import ListingNode


def copy(member: str, jurisdiction: str, withdrawn: str = "") -> AssessedCopy:
    claimed = ClaimedCopy(sha256(member.encode()), sha256(b"node" + member.encode()), jurisdiction, withdrawn)
    return AssessedCopy(claimed, WITHDRAWN if withdrawn else CLAIMED, ())


def listed(*artifacts: tuple[AssessedCopy, ...]) -> CopyList:
    named = tuple(ListedCopies(sha256(b"%d" % at), "", copies) for at, copies in enumerate(artifacts))
    return CopyList("node-a", named, {}, CopyPolicy(1, 1), 20_000, sha256(b"a"))


def run(monkeypatch: pytest.MonkeyPatch, found: CopyList, *arguments: str) -> Any:
    monkeypatch.setattr(transparency_report, "fold_list", ListingNode(found))
    ran = CliRunner().invoke(command, ["transparency-report", *arguments], obj=Output())
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def test_withdrawals_are_counted_by_jurisdiction_and_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    found = listed(
        (copy("a", "CH"), copy("b", "US", "legal-order"), copy("c", "US", "legal-order")),
        (copy("a", "CH", "space"), copy("b", "US", "licence")),
    )
    document = json.loads(run(monkeypatch, found, "--json"))
    assert (document["total"], document["date"], document["artifacts"]) == (4, "2024-10-04", 2)
    assert {(item["jurisdiction"], item["reason"], item["copies"]) for item in document["withdrawn"]} == {
        ("US", "legal-order", 2),
        ("CH", "space", 1),
        ("US", "licence", 1),
    }
    text = run(monkeypatch, found)
    assert "4 withdrawn copies" in text
    assert "LEGAL-ORDER" in text


def test_an_empty_report_says_that_nothing_was_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "0 withdrawn copies" in run(monkeypatch, listed((copy("a", "CH"),)))
