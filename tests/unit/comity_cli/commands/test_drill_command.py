"""`comity drill`: what it prints, writes and returns for given answers of the nodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from comity.rules.copy_counts import CLAIMED, AssessedCopy, ClaimedCopy, CopyPolicy, Holder
from comity.rules.copy_questions import CopyQuestion
from comity.rules.parties import Party
from comity.trust.encoding import Digest, sha256
from comity.wire.audit import CopiesPage, ListedCopies
from comity.wire.log import LogHead
from comity_cli.commands import drill as command_module
from comity_cli.main import command
from comity_cli.output import Output
from comity_client import party_drill as drill_module
from comity_client.copies import AskedArtifact, CountedCopies, CountedSet, ShowArtifacts
from comity_client.dependents import Dependents
from comity_client.party_drill import (
    DrillArtifact,
    DrillGroup,
    DrillInput,
    DrillNode,
    FederationDrill,
    declared_places,
    drill,
    render_drill,
)
from comity_client.session import Answers
from support.logs import LogKeys

A, B = sha256(b"a"), sha256(b"b")
LOGS = {"node-a/log": 3}
NODES = (DrillNode("node-a", A, "CH", entries=LOGS), DrillNode("node-b", B, "ES", entries=LOGS))
BOTH = (Holder(A, "CH", True), Holder(B, "ES", False))
HOSTILE = "<script>alert(1)</script>"


def group(name: str, holders: tuple[Holder, ...]) -> DrillGroup:
    """One artifact."""
    return DrillGroup(holders, 1, (DrillArtifact(sha256(b"x"), name),))


def drilled(*groups: DrillGroup, silent: tuple[str, ...] = ()) -> FederationDrill:
    policy = CopyPolicy(2, 2)
    outcomes = drill(DrillInput(NODES, groups, policy, LOGS, (sha256(b"p"),)))
    return FederationDrill("node-a", outcomes, silent, {A: "Institute A", B: "Institute B"}, policy, len(groups))


def run(monkeypatch: pytest.MonkeyPatch, found: FederationDrill, *arguments: str) -> Any:
    monkeypatch.setattr(command_module, "client", lambda: SimpleNamespace(drill=lambda node, hubs: found))
    return CliRunner().invoke(
        command, ["drill", *arguments], obj=Output(), env={"COLUMNS": "200"}, standalone_mode=False
    )


def test_the_newest_declared_place_of_a_node_counts_and_not_that_of_an_older_pin() -> None:
    copy = ClaimedCopy(A, sha256(b"node a"), "CH", reach=("CH", "US"), cloud="Example Cloud")
    held = (AssessedCopy(copy, CLAIMED, ()),)
    found = CountedCopies("node-a", {held: 1}, {}, CopyPolicy(1, 1), 20_000, A, CopyQuestion())
    assert declared_places(found) == {sha256(b"node a"): (("CH", "US"), "Example Cloud")}


def test_a_federation_that_survives_every_loss_says_so_with_status_0(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = run(monkeypatch, drilled(group("lab/x@v1", BOTH)))
    assert ran.return_value == 0, ran.output
    assert "survives the loss of any one of" in ran.output
    assert "below the policy" in ran.output  # one copy is left, and the charter asks for two


def test_artifacts_that_would_be_lost_are_named_with_status_8(monkeypatch: pytest.MonkeyPatch) -> None:
    found = drilled(group("lab/x@v1", BOTH[:1]))
    ran = run(monkeypatch, found)
    assert ran.return_value == 8
    assert "lab/x@v1 falls without member Institute A" in ran.output
    document = json.loads(run(monkeypatch, found, "--json").stdout)
    lost = [outcome for outcome in document["outcomes"] if not outcome["survived"]]
    assert {(outcome["party"]["kind"], outcome["pulls"]) for outcome in lost} == {
        ("member", 0),
        ("jurisdiction", 0),
        ("reach", 0),
    }


def test_nothing_to_lose_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = run(monkeypatch, drilled())
    assert ran.return_value == 8
    assert "says nothing" in ran.output


def test_the_page_says_the_same_and_no_name_becomes_markup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "drill.html"
    found = drilled(group(HOSTILE, BOTH[:1]), silent=("node-b",))
    assert run(monkeypatch, found, "--html", str(page)).return_value == 8
    text = page.read_text()
    assert "something falls" in text
    assert "node-b" in text
    assert "Institute A" in text
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text
    assert "everything is left" in render_drill(drilled(group("x", BOTH)), "2026-11-27")
    assert "no artifact to lose" in render_drill(drilled(), "2026-11-27")


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "nothing depends on it: why"),
        (1, "all left; 1 artifact (lab/x@v1): why"),
        (4, "4 artifacts (lab/x@v1, …): why"),
        (None, "not known what depends on it: why"),
    ],
)
def test_what_needs_the_package_index_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int | None, expected: str
) -> None:
    party = Party("package-index", "")
    needed = {party: Dependents(party, count, ("lab/x@v1",) if count else (), "why")}
    outcomes = drill(DrillInput(NODES, (group("lab/x@v1", BOTH),), CopyPolicy(1, 1), LOGS, (), (), needed), [party])
    found = FederationDrill("node-a", outcomes, (), {}, CopyPolicy(1, 1), 1)
    page = tmp_path / "drill.html"
    ran = run(monkeypatch, found, "--html", str(page))
    assert (ran.return_value, expected in ran.output) == (0, True), ran.output
    assert "why." in page.read_text()


@dataclass(eq=False)
class Remote:
    """The answers of a node that the drill reads."""

    name: str
    member: Any
    record: Any
    ask: Any = None
    jurisdiction: str = "CH"
    addresses: tuple[str, ...] = ("127.0.0.1:1",)
    former: bool = False
    numeric: bool = True


def remote(name: str, member: Digest, keys: LogKeys) -> Remote:
    record = SimpleNamespace(origin=keys.origin, log=keys.verifier, place=None, node=SimpleNamespace(id=member))
    return Remote(name, SimpleNamespace(id=member), record)


NAMES = CopiesPage((ListedCopies(sha256(b"x"), "lab/x@v1", ()),), {}, CopyPolicy(1, 1), 20_000, A)


async def done(value: Any) -> Any:
    return value


@pytest.mark.parametrize("arrives", [True, False])
async def test_entries_in_transit_to_the_other_nodes_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    async def nothing(session: Any, node: str, parties: Any) -> dict[Party, Any]:
        return {}

    monkeypatch.setattr(drill_module, "find_dependents", nothing)
    keys = LogKeys.generate("node-a/log")
    nodes: Any = remote("node-a", A, keys), remote("node-b", B, LogKeys.generate("node-b/log"))
    heads = {size: (LogHead(keys.origin, keys.vkey, keys.note(size, bytes(32)).encode()),) for size in (4, 5)}
    asked = []

    client: Any = SimpleNamespace(logs=lambda: done(heads[5]), audits=SimpleNamespace(copies=lambda *_: done(NAMES)))

    async def source_answers(question: Any) -> Any:
        return await question(client)

    nodes[0].ask = source_answers

    class Asked:
        pins = ()

        def __init__(self) -> None:
            self.nodes = nodes

        def named(self, name: str) -> Any:
            return {node.name: node for node in nodes}[name]

        async def ask(self, _: object) -> Answers[Sequence[LogHead]]:
            asked.append(1)
            return Answers({nodes[0]: heads[5], nodes[1]: heads[5 if arrives and len(asked) > 2 else 4]}, {})

    async def listed(session: Any, node: str, question: CopyQuestion, show: ShowArtifacts) -> CountedCopies:
        copies = tuple(AssessedCopy(ClaimedCopy(who, who, code), CLAIMED, ()) for who, code in ((A, "A"), (B, "B")))
        found = CountedCopies("node-a", {copies: 1}, {}, CopyPolicy(1, 1), 20_000, A, question)
        show(found, [AskedArtifact(sha256(b"x"), "", CountedSet(copies, found.holders(copies), found.count(copies)))])
        return found

    monkeypatch.setattr(drill_module, "fold_copies_of_federation", listed)
    monkeypatch.setattr(drill_module, "PAUSE", 0)
    if not arrives:
        monkeypatch.setattr(drill_module, "ARRIVAL_TIME", 0)
    session: Any = Asked()
    found = await drill_module.drill_federation(session)
    without = {outcome.party: outcome for outcome in found.outcomes}[Party("member", A)]
    assert (without.survived, len(asked)) == ((True, 3) if arrives else (False, 1))
    assert [item.count for item in without.remainders] == ([] if arrives else [1])
    assert {item.name for item in without.fallen} == (set() if arrives else {"lab/x@v1"})
