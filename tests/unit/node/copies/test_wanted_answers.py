"""Artifacts that other nodes want: only members that a rule names are answered, each node in its turn, and a withdrawal
ends it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.node.copies.index import CopiesIndex, HoldFact, WantedEndFact, WantedFact
from comity.node.copies.pins import WantedAnswers
from comity.rules.copy_counts import CopyPolicy
from comity.trust.encoding import Digest, sha256
from comity.trust.statement import SideObject

OWN, FRIEND, STRANGER, OTHER = (sha256(name) for name in (b"own", b"friend", b"stranger", b"other"))
LOGS = {"friend/log+2+key": FRIEND, "stranger/log+3+key": STRANGER, "other/log+4+key": OTHER}
MODELS = [sha256(b"model %d" % number) for number in range(8)]
PATIENCE = 10.0


class Bench:
    """A node that answers FRIEND, in a charter with four members."""

    def __init__(self, index: CopiesIndex) -> None:
        self.index = index
        self.now = 0.0
        self.considered: list[Digest] = []
        self.held: set[Digest] = set()
        self.wanted = SimpleNamespace(answered=frozenset({FRIEND}), asked={})
        members = [SimpleNamespace(id=member, jurisdiction="CH") for member in (OWN, FRIEND, STRANGER, OTHER)]
        self.peers = [
            SimpleNamespace(member=SimpleNamespace(id=member), record=SimpleNamespace(log=log))
            for log, member in LOGS.items()
        ]
        membership = SimpleNamespace(
            own_node=SimpleNamespace(inception=SimpleNamespace(id=OWN)),
            body=SimpleNamespace(active=members),
            peers=self.peers,
            member=lambda member: next((item for item in members if item.id == member), None),
            owner=LOGS.get,
        )
        ledger: Any = SimpleNamespace(run=self._run)
        known: Any = membership
        replicas: Any = self
        wanted: Any = self.wanted
        self.answers = WantedAnswers(ledger, known, index, replicas, wanted, PATIENCE, lambda: self.now)

    async def _run(self, call: Callable[..., object], *arguments: object) -> object:
        return call(*arguments)

    async def absent(self, artifacts: list[Digest]) -> set[Digest]:
        return set(artifacts) - self.held

    async def reconsider(self, artifacts: list[Digest]) -> None:
        self.considered += artifacts

    async def round(self) -> None:
        for _ in LOGS:
            await self.answers.step()

    @property
    def asked(self) -> dict[Digest, frozenset[Digest]]:
        return cast(dict[Digest, frozenset[Digest]], self.wanted.asked)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    numbers = itertools.count()
    index = CopiesIndex(tmp_path / "copies.sqlite", "own/log+1+key", lambda: next(numbers))
    yield Bench(index)
    index.close()


def wanted(log: str, artifact: Digest, at: int = 1, copies: int = 9) -> WantedFact:
    return WantedFact(artifact, log, at, CopyPolicy(copies, 1))


async def test_a_member_that_no_rule_names_makes_nothing_be_copied(bench: Bench) -> None:
    bench.index.add([wanted("stranger/log+3+key", artifact) for artifact in MODELS])
    await bench.round()
    assert (bench.asked, bench.considered) == ({}, [])
    bench.index.add([wanted("friend/log+2+key", MODELS[0])])
    await bench.round()
    assert bench.asked == {MODELS[0]: frozenset({FRIEND})}
    assert bench.considered == [MODELS[0]]


async def test_a_node_waits_its_turn_and_copies_nothing_that_is_no_longer_wanted(bench: Bench) -> None:
    bench.index.add([wanted("friend/log+2+key", artifact, copies=1) for artifact in MODELS])
    await bench.round()
    first = set(bench.asked)
    assert first < set(MODELS)  # some other member has the first turn
    waiting = next(artifact for artifact in MODELS if artifact not in first)
    bench.index.add([WantedEndFact(waiting, "friend/log+2+key", 1)])
    bench.now = 2 * PATIENCE
    await bench.round()
    assert set(bench.asked) == set(MODELS) - {waiting}
    assert waiting not in bench.considered


async def test_held_artifacts_are_not_looked_up_and_unavailable_ones_not_in_every_step(bench: Bench) -> None:
    bench.held = {MODELS[0]}
    bench.index.add([wanted("friend/log+2+key", artifact) for artifact in MODELS[:2]])
    await bench.round()
    await bench.round()
    assert bench.considered == [MODELS[1]]
    bench.now = 301.0
    await bench.round()
    assert bench.considered == [MODELS[1]] * 2


async def test_falsely_claimed_copies_do_not_delay_an_answer_forever(bench: Bench) -> None:
    side = SideObject(MODELS[0], 1)
    bench.index.add([HoldFact(MODELS[0], "stranger/log+3+key", sha256(b"node"), 1, side, side)])
    bench.index.add([wanted("friend/log+2+key", MODELS[0], copies=1)])
    bench.now = 0.0
    await bench.round()
    bench.now = 3 * PATIENCE
    await bench.round()
    assert set(bench.asked) == {MODELS[0]}


async def test_a_node_that_begins_another_log_in_a_round_stops_no_answers_to_others(bench: Bench) -> None:
    bench.wanted.answered = frozenset({FRIEND, OTHER})
    bench.index.add([wanted("friend/log+2+key", MODELS[0]), wanted("other/log+4+key", MODELS[1])])
    await bench.answers.step()
    assert set(bench.asked) == {MODELS[0]}
    bench.peers[0].record.log = "friend/log+5+another"
    await bench.answers.step()
    assert bench.asked == {MODELS[1]: frozenset({OTHER})}
