"""How a node counts the copies of artifacts at the members, and compares them with the charter's minimum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from comity.ledger.ledger import Ledger
from comity.node.copies import counter
from comity.node.copies.counter import CopyCounter
from comity.node.copies.index import CopiesIndex, HoldFact, WithdrawalFact
from comity.node.members import Membership
from comity.node.replication.replicas import Replicas
from comity.node.threads import AsyncLedger
from comity.trust.charter.document import CharterPolicy
from comity.trust.encoding import Digest, sha256
from comity.trust.places import Place
from comity.trust.statement import SideObject
from comity.wire.node_status import LackingArtifact, MemberCopies
from support.world import Node, node, seat

ARTIFACTS = [sha256(b"artifact %d" % number) for number in range(4)]
PIECES = SideObject.of(b"pieces")
CODES = ("CH", "SG", "ES", "KR")
CLOUD = "Example Cloud"


class Counting:
    """A node of a federation of three, with another node of a former member; `hold` adds a claim of a copy."""

    def __init__(self, folder: Path, *places: Place | None) -> None:
        places = (*places, *[None] * (len(CODES) - len(places)))
        self.nodes: list[Node] = [node(seat(code), place=place) for code, place in zip(CODES, places, strict=True)]
        self.ledger = Ledger.open(folder, lambda: 1_000)
        own, *others = self.nodes
        self.index = CopiesIndex(folder / "copies.sqlite", str(own.record.log), lambda: 0)
        members = [each.seat.member for each in self.nodes[:3]]
        peers = [SimpleNamespace(record=each.record, member=each.seat.member) for each in others]
        self.body = SimpleNamespace(members=members, policy=CharterPolicy(3, 2, 2, 1))
        membership = SimpleNamespace(
            own_node=SimpleNamespace(record=own.record, inception=own.seat.inception),
            peers=peers,
            shown_name=lambda peer: peer.record.name,
            body=self.body,
        )
        self.lacking: list[LackingArtifact] = []
        replicas = SimpleNamespace(
            held=len(ARTIFACTS),
            lacking=0,
            not_listed=7,
            standing_page=self.standing_page,
            without_hold=self.without_hold,
            incomplete_examples=self.incomplete_examples,
            member_copies=self.member_copies,
        )
        self.counter = CopyCounter(
            AsyncLedger(self.ledger),
            cast(Membership, membership),
            cast(Replicas, replicas),
            self.index,
            lambda: 1_700_000_000,
            self.read_new,
        )

    async def standing_page(self, after: Digest | None, most: int) -> list[Digest]:
        return [artifact for artifact in sorted(ARTIFACTS[:2]) if artifact > (after or "")][:most]

    async def member_copies(self) -> list[MemberCopies]:
        return []

    async def incomplete_examples(self, most: int) -> list[LackingArtifact]:
        return self.lacking[:most]

    async def without_hold(self) -> list[Digest]:
        return ARTIFACTS[2:]

    async def read_new(self) -> None:
        """`hold` and `withdraw` add the facts."""

    def hold(self, number: int, artifacts: Sequence[Digest], at: int = 0) -> None:
        """Node `number` claims a copy of each artifact, in entry `at` of its log."""
        record = self.nodes[number].record
        log, by = str(record.log), record.node.id
        self.index.add(HoldFact(artifact, log, by, at, SideObject(artifact, 10), PIECES) for artifact in artifacts)

    def withdraw(self, number: int, at: int) -> None:
        log = str(self.nodes[number].record.log)
        self.index.add([WithdrawalFact(ARTIFACTS[0], log, at, "space")])

    def close(self) -> None:
        self.index.close()
        self.ledger.close()


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Counting]:
    made = Counting(tmp_path)
    yield made
    made.close()


async def test_an_artifact_with_fewer_copies_than_the_charter_asks_for_is_short(counting: Counting) -> None:
    counting.hold(0, ARTIFACTS)
    counting.hold(1, ARTIFACTS[:2])
    counting.hold(2, ARTIFACTS[:1])
    await counting.counter.step()
    found = await counting.counter.status()
    assert (found.counts.min_copies, found.counts.counted, found.counts.short) == (2, 4, 2)
    assert {(item.artifact, item.copies) for item in found.short} == {(ARTIFACTS[2], 1), (ARTIFACTS[3], 1)}
    assert found.not_listed == 7


async def test_a_copy_at_a_former_member_and_a_second_hold_of_one_member_count_for_nothing(counting: Counting) -> None:
    for at in range(3):
        counting.hold(0, ARTIFACTS[:1], at)
    counting.hold(3, ARTIFACTS[:1])
    await counting.counter.step()
    found = await counting.counter.status()
    assert {item.artifact: item.copies for item in found.short}[ARTIFACTS[0]] == 1


async def test_a_withdrawn_copy_does_not_count_until_it_is_held_again(counting: Counting) -> None:
    for number in range(2):
        counting.hold(number, ARTIFACTS)
    counting.withdraw(1, 1)
    await counting.counter.step()
    assert [item.artifact for item in (await counting.counter.status()).short] == [ARTIFACTS[0]]
    counting.hold(1, ARTIFACTS[:1], 2)
    await counting.counter.step()
    assert (await counting.counter.status()).short == ()


async def test_copies_on_one_cloud_are_short_where_the_charter_asks_for_two_reaches(tmp_path: Path) -> None:
    counting = Counting(tmp_path, *(Place("Institute", CLOUD, tuple(sorted((code, "US")))) for code in CODES[:3]))
    counting.body.policy = replace(counting.body.policy, min_reaches=2)
    for number in range(3):
        counting.hold(number, ARTIFACTS[:1])
    await counting.counter.step()
    short = {item.artifact: item for item in (await counting.counter.status()).short}[ARTIFACTS[0]]
    assert (short.copies, short.jurisdictions, short.reaches) == (3, 3, 1)
    counting.close()


async def test_a_round_reads_a_page_a_step_and_reports_the_last_complete_round(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counter, "PAGE", 3)
    counting.hold(0, ARTIFACTS)
    counting.hold(1, ARTIFACTS)
    await counting.counter.step()
    assert counting.counter.counts().counted == 0
    await counting.counter.step()
    assert (counting.counter.counts().counted, counting.counter.counts().short) == (4, 0)
    await counting.counter.step()
    assert counting.counter.counts().counted == 4
