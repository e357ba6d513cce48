"""How a node counts the copies of artifacts at the members, against the charter's `min_copies`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from comity.ledger.intake import IntakeResult, statement_facts
from comity.ledger.ledger import Ledger
from comity.node.members import Membership
from comity.node.replication import copies
from comity.node.replication.copies import CopyCounter
from comity.node.replication.replicas import Replicas
from comity.node.threads import AsyncLedger
from comity.trust.copies import HoldWithdrawn, sign_hold_withdrawn
from comity.trust.encoding import Digest, sha256
from comity.trust.statement import SideObject, parse_entry
from comity.trust.statements import sign_hold
from comity.wire.operator import LackingArtifact
from support.logs import LogKeys
from support.world import Node, node, seat

ARTIFACTS = [sha256(b"artifact %d" % number) for number in range(4)]
LOGS = [LogKeys.generate(f"{name}.example/log") for name in ("own", "first", "second", "former")]
PIECES = SideObject.of(b"pieces")


class Counting:
    """A node of a federation of three, with another node of a member that left; `hold` logs a copy."""

    def __init__(self, folder: Path) -> None:
        self.nodes: list[Node] = [node(seat(code)) for code in ("CH", "SG", "ES", "KR")]
        self.ledger = Ledger.open(folder, lambda: 1_000)
        for log in LOGS:
            self.ledger.logs.create(log.origin, log.vkey)
        own, *others = self.nodes
        members = [each.seat.member for each in self.nodes[:3]]
        membership = SimpleNamespace(
            seat=SimpleNamespace(record=own.record, inception=own.seat.inception),
            peers=[SimpleNamespace(record=each.record, member=each.seat.member) for each in others],
            writers=lambda vkey: {
                each.record.node for each, log in zip(self.nodes, LOGS, strict=True) if log.vkey == vkey
            },
            body=SimpleNamespace(members=members, policy=SimpleNamespace(min_copies=2)),
        )
        self.lacking: list[LackingArtifact] = []
        replicas = SimpleNamespace(
            held=len(ARTIFACTS),
            lacking=0,
            not_listed=7,
            standing_page=self.standing_page,
            without_hold=self.without_hold,
            incomplete=lambda most: self.lacking[:most],
        )
        self.counter = CopyCounter(AsyncLedger(self.ledger), cast(Membership, membership), cast(Replicas, replicas))

    async def standing_page(self, after: Digest | None, most: int) -> list[Digest]:
        return [artifact for artifact in sorted(ARTIFACTS[:2]) if artifact > (after or "")][:most]

    async def without_hold(self) -> list[Digest]:
        return ARTIFACTS[2:]

    def log(self, number: int, artifacts: Sequence[Digest], times: int = 1) -> None:
        """Have node `number` log a hold of each artifact in its own log."""
        log, signing = LOGS[number], self.nodes[number]
        lines = [
            sign_hold(signing.record, artifact, SideObject(artifact, 10 + time), PIECES, signing.online).line
            for artifact in artifacts
            for time in range(times)
        ]
        self.advance(log, lines)

    def withdraw(self, number: int, *holds: int) -> None:
        """Have node `number` log one hold of the first artifact, withdraw it, and log `holds` more."""
        log, by, artifact = LOGS[number], self.nodes[number], ARTIFACTS[0]
        withdrawn = HoldWithdrawn(by.record.node, artifact, 0, "space", "")
        lines = [sign_hold(by.record, artifact, SideObject(artifact, 10), PIECES, by.online).line]
        lines.append(sign_hold_withdrawn(by.record, withdrawn, by.online).line)
        for at in holds:
            lines.append(sign_hold(by.record, artifact, SideObject(artifact, 10), PIECES, by.online, f"{at}").line)
        self.advance(log, lines)

    def advance(self, log: LogKeys, lines: Sequence[bytes]) -> None:
        self.ledger.logs.advance(log.origin, 0, lines, log.note_over(lines))
        while (batch := self.ledger.intake.next_batch(log.vkey)).lines:
            facts = (statement_facts(index, parse_entry(line)) for index, line in enumerate(batch.lines, batch.start))
            self.ledger.intake.commit(batch, IntakeResult(log.vkey, tuple(item for item in facts if item is not None)))


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Counting]:
    made = Counting(tmp_path)
    yield made
    made.ledger.close()


async def test_an_artifact_with_fewer_copies_than_the_charter_asks_for_is_short(counting: Counting) -> None:
    counting.log(0, ARTIFACTS)
    counting.log(1, ARTIFACTS[:2])
    counting.log(2, ARTIFACTS[:1])
    await counting.counter.step()
    found = await counting.counter.status()
    assert (found.counts.min_copies, found.counts.counted, found.counts.short) == (2, 4, 2)
    assert {(item.artifact, item.copies) for item in found.short} == {(ARTIFACTS[2], 1), (ARTIFACTS[3], 1)}
    assert found.not_listed == 7


async def test_a_copy_at_a_former_member_and_a_second_hold_of_one_member_count_for_nothing(counting: Counting) -> None:
    counting.log(0, ARTIFACTS[:1], times=3)
    counting.log(3, ARTIFACTS[:1])
    await counting.counter.step()
    found = await counting.counter.status()
    assert {item.artifact: item.copies for item in found.short}[ARTIFACTS[0]] == 1


async def test_a_withdrawn_copy_does_not_count_until_it_is_held_again(counting: Counting) -> None:
    counting.log(0, ARTIFACTS[:1])
    counting.withdraw(1)
    counting.withdraw(2, 2)
    await counting.counter.step()
    found = await counting.counter.status()
    assert ARTIFACTS[0] not in {item.artifact for item in found.short}  # the own copy, and the one held again
    assert counting.counter._authors([ARTIFACTS[0]])[ARTIFACTS[0]] == {
        counting.nodes[0].record.node.id,
        counting.nodes[2].record.node.id,
    }


async def test_a_round_takes_a_page_a_step_and_tells_the_last_complete_one(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "PAGE", 3)
    counting.log(0, ARTIFACTS)
    counting.log(1, ARTIFACTS)
    await counting.counter.step()
    assert counting.counter.counts().counted == 0
    await counting.counter.step()
    assert (counting.counter.counts().counted, counting.counter.counts().short) == (4, 0)
    await counting.counter.step()
    assert counting.counter.counts().counted == 4
