"""Three of four holders withdraw at the same time, messages are lost or late, nodes restart: enough copies always
remain.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from comity.node.copies.leases import PAUSE, Leases, RemovalCount
from comity.rules.audit import MAX_LEASE
from comity.rules.copy_counts import CopyPolicy
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Conflict, OutOfSpace, PolicyNotMet
from hypothesis import given, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from support.examples import examples

MODEL = sha256(b"a model")
DROPPERS = range(3)
HOLDERS = range(4)
POLICY = CopyPolicy(2, 2)
JURISDICTIONS = ("CH", "ES", "KR", "KR")
LEASE = 300


@dataclass
class Node:
    """A member's node. Its clock runs at `rate` times real time, and begins at its start."""

    number: int
    rate: float
    started: float
    leases: Leases = field(init=False)
    held: bool = True
    removal: RemovalCount | None = None

    def __post_init__(self) -> None:
        self.leases = Leases(0.0)

    @property
    def member(self) -> Digest:
        return sha256(b"%d" % self.number)

    def clock(self, now: float) -> float:
        return (now - self.started) * self.rate


@dataclass(frozen=True)
class Request:
    """A challenge in transit: from a node that withdraws to a holder."""

    removal: int
    dropper: int
    holder: int


class ConcurrentRemovals(RuleBasedStateMachine):
    requests = Bundle("requests")
    answers = Bundle("answers")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.nodes: list[Node] = []
        self.removals: list[RemovalCount] = []

    @initialize(rates=st.lists(st.sampled_from([0.8, 1.0, 1.2]), min_size=4, max_size=4))
    def begin(self, rates: list[float]) -> None:
        self.nodes = [Node(number, rate, 0.0) for number, rate in zip(HOLDERS, rates, strict=True)]
        self.now = 2.0 * MAX_LEASE

    @rule(seconds=st.sampled_from([1, 30, LEASE // 2 - 1, LEASE // 2 + 1, LEASE, MAX_LEASE, int(PAUSE)]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(dropper=st.sampled_from(DROPPERS))
    def a_node_begins_to_withdraw(self, dropper: int) -> None:
        node = self.nodes[dropper]
        if not node.held:
            return
        at = node.clock(self.now)
        with contextlib.suppress(Conflict):
            node.leases.begin(MODEL, at)
            node.removal = RemovalCount(POLICY, node.member, at, LEASE)
            self.removals.append(node.removal)

    @rule(target=requests, dropper=st.sampled_from(DROPPERS), holder=st.sampled_from(HOLDERS))
    def it_sends_a_challenge(self, dropper: int, holder: int) -> Request | None:
        removal = self.nodes[dropper].removal
        if removal is None or dropper == holder:
            return None
        return Request(self.removals.index(removal), dropper, holder)

    @rule(target=answers, request=requests)
    def a_challenge_arrives_maybe_late_or_twice(self, request: Request | None) -> Request | None:
        if request is None:
            return None
        holder = self.nodes[request.holder]
        if not holder.held:
            return None
        try:
            holder.leases.grant(MODEL, self.nodes[request.dropper].member, LEASE, holder.clock(self.now))
        except (Conflict, OutOfSpace):
            return None
        return request

    @rule(answer=answers)
    def an_answer_arrives_maybe_late_or_twice(self, answer: Request | None) -> None:
        """It is valid for the challenge that it answers only, by the nonce."""
        if answer is not None and self.nodes[answer.dropper].removal is self.removals[answer.removal]:
            self.removals[answer.removal].add(self.nodes[answer.holder].member, JURISDICTIONS[answer.holder])

    @rule(dropper=st.sampled_from(DROPPERS))
    def it_deletes_if_it_may(self, dropper: int) -> None:
        node = self.nodes[dropper]
        if node.removal is None:
            return
        with contextlib.suppress(PolicyNotMet, Conflict):
            node.removal.check(node.clock(self.now))
            node.held = False
        node.leases.end(MODEL)
        node.removal = None

    @rule(dropper=st.sampled_from(DROPPERS))
    def it_gives_up(self, dropper: int) -> None:
        self.nodes[dropper].leases.end(MODEL)
        self.nodes[dropper].removal = None

    @rule(number=st.sampled_from(HOLDERS))
    def a_node_restarts_and_remembers_nothing(self, number: int) -> None:
        node = self.nodes[number]
        self.nodes[number] = Node(number, node.rate, self.now, held=node.held)

    @invariant()
    def enough_copies_are_left(self) -> None:
        left = [number for number in HOLDERS if self.nodes and self.nodes[number].held]
        if self.nodes:
            assert len(left) >= POLICY.min_copies
            assert len({JURISDICTIONS[number] for number in left}) >= POLICY.min_jurisdictions


TestConcurrentRemovals = ConcurrentRemovals.TestCase
TestConcurrentRemovals.settings = settings(max_examples=examples(300), stateful_step_count=60, deadline=None)


def test_three_nodes_that_rely_on_one_another_all_fail_to_withdraw() -> None:
    leases = [Leases(-MAX_LEASE) for _ in DROPPERS]
    removals = [RemovalCount(POLICY, sha256(b"%d" % number), 0.0, LEASE) for number in DROPPERS]
    for own in leases:
        own.begin(MODEL, 0.0)
    for asked in DROPPERS:
        for asking in DROPPERS:
            if asked != asking:
                with contextlib.suppress(ComityError):
                    leases[asked].grant(MODEL, sha256(b"%d" % asking), LEASE, 1.0)
                    removals[asking].add(sha256(b"%d" % asked), JURISDICTIONS[asked])
    assert [removal.proven for removal in removals] == [{}, {}, {}]


def test_one_after_the_other_they_stop_at_the_minimum() -> None:
    """Four holders, each withdraws alone with all the time it needs: two remain."""
    now, left = PAUSE, list(HOLDERS)
    leases = [Leases(0.0) for _ in HOLDERS]
    for dropper in HOLDERS:
        now += PAUSE
        removal = RemovalCount(CopyPolicy(2, 1), sha256(b"%d" % dropper), now, LEASE)
        leases[dropper].begin(MODEL, now)
        for other in left:
            if other != dropper:
                leases[other].grant(MODEL, sha256(b"%d" % dropper), LEASE, now)
                removal.add(sha256(b"%d" % other), JURISDICTIONS[other])
        with contextlib.suppress(PolicyNotMet):
            removal.check(now + 1)
            left.remove(dropper)
        leases[dropper].end(MODEL)
    assert left == [2, 3]


def test_a_node_keeps_its_promise_and_gives_no_member_two_in_a_row() -> None:
    leases, member = Leases(0.0), sha256(b"member")
    now = float(MAX_LEASE)
    leases.grant(MODEL, member, LEASE, now)
    with pytest.raises(Conflict, match="counts on this copy"):
        leases.begin(MODEL, now + LEASE - 1)
    with pytest.raises(OutOfSpace, match="a short time ago"):
        leases.grant(MODEL, member, LEASE, now + LEASE + 1)
    leases.begin(MODEL, now + LEASE)
    with pytest.raises(Conflict, match="about to withdraw"):
        leases.grant(MODEL, sha256(b"another"), LEASE, now + LEASE)
    leases.end(MODEL)
    leases.grant(MODEL, member, LEASE, now + PAUSE)


def test_a_member_that_takes_all_its_leases_takes_none_of_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.node.copies.leases.MAX_LEASES", 3)
    leases, mallory = Leases(0.0), sha256(b"mallory")
    for number in range(3):
        leases.grant(sha256(b"artifact %d" % number), mallory, LEASE, 0.0)
    with pytest.raises(OutOfSpace, match="too many"):
        leases.grant(MODEL, mallory, LEASE, 0.0)
    leases.grant(MODEL, sha256(b"another"), LEASE, 0.0)


def test_a_node_that_has_just_started_may_have_promised_something() -> None:
    leases = Leases(100.0)
    with pytest.raises(Conflict, match="just started"):
        leases.begin(MODEL, 99.0 + MAX_LEASE)
    leases.begin(MODEL, 100.0 + MAX_LEASE)


def test_answers_count_in_the_first_half_of_the_lease() -> None:
    removal = RemovalCount(CopyPolicy(1, 1), sha256(b"own"), 0.0, LEASE)
    removal.add(sha256(b"own"), "CH")
    with pytest.raises(PolicyNotMet):
        removal.check(1.0)
    removal.add(sha256(b"another"), "ES")
    removal.check(LEASE / 2)
    with pytest.raises(Conflict, match="too long"):
        removal.check(LEASE / 2 + 1)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, int(PAUSE) // 2))))
@settings(max_examples=examples(200), deadline=None)
def test_a_lease_is_granted_as_the_table_of_bounds_says(asked: list[tuple[int, int, int]]) -> None:
    leases, now, granted = Leases(0.0), 0.0, list[tuple[int, int, float]]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("comity.node.copies.leases.MAX_LEASES", 3)
        for member, artifact, seconds in asked:
            now += seconds
            recent = [other for by, other, begun in granted if by == member and now - begun < PAUSE]
            try:
                leases.grant(sha256(b"artifact %d" % artifact), sha256(b"member %d" % member), LEASE, now)
            except OutOfSpace:
                assert artifact in recent or len(recent) == 3
            else:
                assert artifact not in recent and len(recent) < 3
                granted.append((member, artifact, now))
