"""Which copies a node would remove by its retention rules, why all others stay, and the cost of the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from comity.content.blobs import FolderStore
from comity.ledger.database import Database
from comity.node.copies.retention import RetentionPlan, RetentionRounds
from comity.node.threads import AsyncLedger
from comity.rules.artifact_pins import Pin
from comity.rules.copy_counts import MISSED, CopyPolicy
from comity.rules.retention import NamedArtifact, RetentionDecision, RetentionRules
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, PolicyNotMet
from comity.wire.audit import AuditService, HoldDecision, HoldOrder, RetainedCopy
from comity.wire.rpc import rpc_of
from comity_cli.main import command
from comity_cli.output import Output
from comity_client.own_node import CollectedCopy
from sqlalchemy import Connection
from support.context import node_context
from support.withdrawals import WithdrawingNode

RULES = """
keep = ["lab/base"]
[[rule]]
name = "nightly"
repositories = ["lab/*"]
keep_versions = 2
keep_days = 90
"""
OTHERS = (1, 2)


class Planning(WithdrawingNode):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "node", FolderStore(folder / "store"))
        self.rules = folder / "retention.toml"
        self.rules.write_text(RULES)
        self.plan = self.planned(self.rules)

    def planned(self, rules: Path | None) -> RetentionPlan:
        return RetentionPlan(
            rules,
            node_context(
                ledger=AsyncLedger(self.ledger),
                store=self.store,
                membership=self.membership,
                clock=lambda: self.today * 86_400,
            ),
            lambda: self.now,
            self.index,
            self.held,
            self.files,
        )

    async def said(self) -> dict[str, str]:
        """By name, why a copy is removed or kept."""
        page = await self.plan.page(None, 100)
        return {copy.name: ("goes: " if copy.goes else "stays: ") + copy.why for copy in page.copies}

    def version(self, name: str, *, tested: bool = True) -> Digest:
        artifact = self.hold([name.encode()], names=[name])
        if tested:
            self.test(artifact, OTHERS)
        return artifact


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Planning]:
    made = Planning(tmp_path)
    yield made
    made.close()


async def test_old_versions_are_removed_and_each_other_copy_has_a_reason_to_stay(node: Planning) -> None:
    versions = [node.version(f"lab/x@v{number}") for number in range(4)]
    node.version("lab/base@v1")
    node.version("other/x@v1")
    node.hold([b"nameless"])
    await node.plan.page(None, 100)
    node.today += 89
    for artifact in versions:
        node.test(artifact, OTHERS)
    assert (await node.said())["lab/x@v0"] == "stays: held for 89 of 90 days"
    node.today += 1
    assert await node.said() == {
        "lab/x@v0": "goes: beyond the rule 'nightly'",
        "lab/x@v1": "goes: beyond the rule 'nightly'",
        "lab/x@v2": "stays: one of the newest 2 of lab/x",
        "lab/x@v3": "stays: one of the newest 2 of lab/x",
        "lab/base@v1": "stays: lab/base@v1 is to be kept",
        "other/x@v1": "stays: no rule fits other/x",
        "": "stays: nobody published it under a name",
    }
    page = await node.plan.page(None, 100)
    assert {copy.bytes for copy in page.copies if copy.goes} == {len("lab/x@v0")}


async def test_newer_versions_count_only_while_they_are_held(node: Planning) -> None:
    """Two newer versions that this node does not hold keep nothing; nor does one that it withdrew."""
    node.rules.write_text(RULES.replace("keep_days = 90\n", ""))
    versions = [node.version(f"lab/x@v{number}") for number in range(3)]
    assert (await node.said())["lab/x@v0"].startswith("goes")
    await node.withdrawals.decide(HoldOrder(versions[2], "space"))
    assert (await node.said())["lab/x@v0"] == "stays: one of the newest 2 of lab/x"


async def test_a_copy_that_too_few_others_tested_stays_against_the_rules(node: Planning) -> None:
    node.rules.write_text(RULES.replace("keep_versions = 2\n", "").replace("90", "1"))
    untested, tested = node.version("lab/x@v1", tested=False), node.version("lab/x@v2", tested=False)
    await node.plan.page(None, 100)
    node.today += 1
    node.test(untested, OTHERS[:1])
    node.test(tested, OTHERS)
    said = await node.said()
    assert said["lab/x@v1"].startswith("stays: tested copies of other members: 1 in 1 jurisdictions")
    assert said["lab/x@v2"].startswith("goes")
    node.today += 40  # what was tested then is not fresh any more
    assert (await node.said())["lab/x@v2"].startswith("stays: tested copies of other members: 0")


async def test_a_copy_that_the_node_pinned_stays_against_the_rules(node: Planning) -> None:
    node.rules.write_text(RULES.replace("keep_days = 90\n", ""))
    first, *_ = (node.version(f"lab/x@v{number}") for number in range(3))
    assert (await node.said())["lab/x@v0"].startswith("goes")
    node.ledger.pins.put(Pin(first, "lab/x@v0", CopyPolicy(2, 1)))
    assert (await node.said())["lab/x@v0"] == "stays: your node has it pinned: comity pin ls"


async def test_a_round_removes_planned_copies_after_asking_other_holders(node: Planning) -> None:
    node.rules.write_text(RULES.replace("keep_days = 90\n", ""))
    versions = [node.version(f"lab/x@v{number}") for number in range(4)]
    rounds = RetentionRounds(node.plan, node.withdrawals)
    await rounds.step()  # at the start nothing is removed
    node.outcome = MISSED
    await rounds.step()
    assert all(node.store.has(sha256(f"lab/x@v{number}".encode())) for number in range(4))
    node.outcome = "passed"
    node.now += 3600
    await rounds.step()
    assert [node.store.has(sha256(f"lab/x@v{number}".encode())) for number in range(4)] == [False, False, True, True]
    page = await node.plan.page(None, 100)
    assert {copy.artifact for copy in page.copies} == set(versions[2:])
    assert not any(copy.goes for copy in page.copies)


async def test_pages_list_each_copy_once_and_are_sent_as_they_are(node: Planning) -> None:
    held = {node.version(f"lab/x@v{number}") for number in range(5)}
    found: list[RetainedCopy] = []
    after, more = None, True
    while more:
        codec = rpc_of(AuditService.retention).answer
        page = codec.decode(codec.encode(await node.plan.page(after, 2)))
        found += page.copies
        after, more = page.copies[-1].artifact, page.more
    assert [copy.artifact for copy in found] == sorted(held)


async def test_a_page_of_many_copies_costs_as_many_reads_of_the_ledger_as_one_of_few(
    node: Planning, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.rules.write_text(RULES.replace("keep_days = 90\n", ""))
    for number in range(12):
        node.version(f"lab/m{number % 4}@v{number}")
    await node.plan.page(None, 1)
    reads, reading = list[int](), Database.reading

    def counted(self: Database) -> AbstractContextManager[Connection]:
        reads[-1] += 1
        return reading(self)

    monkeypatch.setattr(Database, "reading", counted)
    for size in (3, 12):
        reads.append(0)
        page = await node.plan.page(None, size)
        assert len(page.copies) == size and any(copy.goes for copy in page.copies)
    assert reads[0] == reads[1]


async def test_the_rules_look_twice_only_at_copies_for_which_they_ask_for_the_newest_versions(
    node: Planning, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.rules.write_text(RULES.replace("keep_days = 90\n", ""))
    many = [node.version(f"lab/x@v{number}") for number in range(4)]
    few = [node.version(name) for name in ("lab/y@v1", "lab/base@v1", "other/x@v1")]
    looked = Counter[str]()
    decide = RetentionRules.decide

    def counted(rules: RetentionRules, names: Sequence[NamedArtifact], *given: Any) -> RetentionDecision:
        looked.update(named.name for named in names)
        return decide(rules, names, *given)

    monkeypatch.setattr(RetentionRules, "decide", counted)
    said = await node.said()
    assert len(said) == len(many) + len(few)
    assert looked == {name: 2 if name.startswith("lab/x") else 1 for name in said}


async def test_without_rules_nothing_is_planned(node: Planning, tmp_path: Path) -> None:
    for rules in (None, tmp_path / "missing.toml"):
        with pytest.raises(NotFound) as missing:
            await node.planned(rules).page(None, 100)
        assert missing.value.code == "NO-RETENTION-RULES"


def test_gc_lists_removals_and_copies_that_the_node_kept_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (sha256(b"%d" % number) for number in range(3))
    copies = [
        RetainedCopy(first, "lab/x@v1", True, "beyond the rule 'nightly'", "nightly", 4096, 100),
        RetainedCopy(second, "lab/x@v2", True, "beyond the rule 'nightly'", "nightly", 4096, 100),
        RetainedCopy(third, "", False, "no rule fits other/x"),
    ]
    asked: list[bool] = []

    def collect(_: object, show: Any, *, remove: bool) -> None:
        asked.append(remove)
        show(CollectedCopy(copies[0], HoldDecision(b"line", 7, ("b",), (), 4096) if remove else None))
        refused = PolicyNotMet("too few others hold this artifact", why="1 of 2", code="COPIES-SHORT")
        show(CollectedCopy(copies[1], refused=refused if remove else None))
        show(CollectedCopy(copies[2]))

    monkeypatch.setattr("comity_client.own_node.collect", collect)

    def ran(*arguments: str) -> str:
        return CliRunner().invoke(command, ["gc", *arguments, "--socket", "x.sock"], obj=Output()).output

    trial = ran("--dry-run")
    assert "goes     lab/x@v1" in trial
    assert "no rule fits other/x" in trial
    assert "2 copies would go" in trial
    gone = ran("--yes")
    assert "removed  lab/x@v1" in gone
    assert "stays    lab/x@v2: too few others hold this artifact: 1 of 2" in gone
    assert "1 copy removed" in gone
    unconfirmed = ran()
    assert "2 copies would go" in unconfirmed.partition("Remove every copy that goes?")[0]
    assert "nothing was signed or changed" in unconfirmed
    assert asked == [False, True, False]
    copies[:] = [replace(copy, goes=False) for copy in copies]
    assert "Remove every copy" not in ran()
