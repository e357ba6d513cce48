"""The admission of copies: claims, promises, deaths and frees in any order, in memory.

python -m pytest tests/property/test_copy_admission.py            60 histories
python -m pytest tests/property/test_copy_admission.py -m long    10,000 histories
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from comity.node.replication.copy_admission import (
    OPERATOR,
    AdmissionLimits,
    AdmittedCopy,
    CopyAdmission,
    Refusal,
)
from comity.trust.encoding import Digest, sha256
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.examples import examples

MEMBERS = ("a", "b", "c", "d")
DISK = 10_000
LIMITS = AdmissionLimits(stop=500, reserved=0.5, shares={"d": 0.9}, step=40, in_flight=20, grace=10.0, horizon=100.0)
PATIENCE = 60.0

member = st.sampled_from(MEMBERS)
any_size = st.integers(1, 2 * DISK) | st.integers(1, 200)


@dataclass
class Held:
    member: str
    stored: int


class Admission(RuleBasedStateMachine):
    """A disk, the copies that write to it, and what the operator removes. `outside` are the bytes of other writers."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.outside = 0
        self.count = 0
        self.running: list[AdmittedCopy] = []
        self.held: list[Held] = []
        self.disturbed = False

    @property
    def free(self) -> int:
        return DISK - self.outside - sum(held.stored for held in self.held) - sum(c.stored for c in self.running)

    @property
    def room(self) -> int:
        return max(0, self.free - LIMITS.stop)

    @initialize()
    def begin(self) -> None:
        self.admission = CopyAdmission(LIMITS)
        self.admission.set_members(MEMBERS)
        self.look()

    @rule(member=member | member | member | st.just(OPERATOR), size=any_size, prompt=st.booleans())
    def claim(self, member: str, size: int, prompt: bool) -> None:
        self.admit(member, size)
        if prompt:
            self.end_withdrawn()

    def admit(self, member: str, size: int) -> None:
        self.count += 1
        artifact: Digest = sha256(b"%d" % self.count)
        before = self.uses()
        self.admission.look(self.now, self.free)
        found = self.admission.admit(artifact, member, size, 0, self.now, patience=PATIENCE)
        if isinstance(found, Refusal):
            assert member == OPERATOR or size > self.part() - before[member] or self.disturbed
            return
        self.running.append(found)
        if member != OPERATOR and member not in LIMITS.shares:
            over = {other: max(0, use - self.part()) for other, use in self.uses().items()}
            left = max(0, self.common() - sum(over.values()) + over[member])
            assert over[member] <= left // 2, "no member uses more of the common space than it leaves"

    @precondition(lambda self: self.running)
    @rule(data=st.data(), count=st.integers(1, LIMITS.in_flight))
    def receive(self, data: st.DataObject, count: int) -> None:
        """The next bytes arrive. Until a copy that was withdrawn has ended, what is on its way arrives too."""
        copy = data.draw(st.sampled_from(self.running))
        budget = copy.promised if copy.withdrawn else copy.missing
        if (count := min(count, budget, copy.missing)) > 0:
            self.admission.received(copy, count, self.now)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def receive_much(self, data: st.DataObject) -> None:
        copy = data.draw(st.sampled_from(self.running))
        for _ in range(data.draw(st.integers(1, 60))):
            if not copy.withdrawn and copy.missing:
                self.admission.received(copy, min(copy.missing, LIMITS.in_flight), self.now)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), keeps=st.booleans())
    def die(self, data: st.DataObject, keeps: bool) -> None:
        """A copy ends: complete, or failed with or without what it had received."""
        copy = data.draw(st.sampled_from(self.running))
        self.end(copy, copy.stored if keeps or not copy.missing else 0)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.held))
        self.held.remove(held)
        self.admission.charge(held.member, -held.stored)
        self.look()

    @rule(seconds=st.sampled_from((0.5, 5.0, 10.0, 61.0)))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.look()
        for copy in self.running:
            assert copy.withdrawn or self.now - copy.received_at < PATIENCE
            if self.now - copy.received_at >= LIMITS.grace:
                assert copy.promised <= LIMITS.step, "a copy that receives nothing keeps a step only"
        self.end_withdrawn()

    @rule()
    def restart(self) -> None:
        """The process dies: the promises are gone, and what arrived is there."""
        self.held += [Held(copy.member, copy.stored) for copy in self.running]
        charged = dict.fromkeys(MEMBERS, 0)
        for held in self.held:
            if held.member != OPERATOR:
                charged[held.member] += held.stored
        self.running = []
        self.admission = CopyAdmission(LIMITS)
        self.admission.set_members(MEMBERS)
        self.admission.load({member: count for member, count in charged.items() if count})
        self.look()

    @rule(share=st.integers(0, 100), rare=st.integers(0, 5))
    def write_outside(self, share: int, rare: int) -> None:
        """Somebody else writes to the disk, or removes what it wrote."""
        if rare == 0:
            self.outside += self.free * share // 200
            self.disturbed = True
            self.look()
            self.end_withdrawn()
            assert self.admission.promised <= self.room

    def look(self) -> None:
        self.admission.look(self.now, self.free)

    def end(self, copy: AdmittedCopy, stored: int) -> None:
        self.running.remove(copy)
        self.held.append(Held(copy.member, stored))
        self.admission.end(copy, stored)
        self.look()

    def end_withdrawn(self) -> None:
        for copy in [copy for copy in self.running if copy.withdrawn]:
            self.end(copy, copy.stored)

    def uses(self) -> dict[str, int]:
        used = dict.fromkeys(MEMBERS, 0)
        for held in self.held:
            if held.member != OPERATOR:
                used[held.member] += held.stored
        for copy in self.running:
            if copy.member != OPERATOR:
                used[copy.member] += copy.stored + copy.promised
        return used

    def total(self) -> int:
        operator = sum(copy.promised for copy in self.running if copy.member == OPERATOR)
        stored = sum(held.stored for held in self.held if held.member != OPERATOR)
        stored += sum(copy.stored for copy in self.running if copy.member != OPERATOR)
        return max(0, self.room - operator) + stored

    def part(self) -> int:
        return int(self.total() * LIMITS.reserved) // len(MEMBERS)

    def common(self) -> int:
        return self.total() - self.part() * len(MEMBERS)

    @invariant()
    def the_disk_is_never_exceeded(self) -> None:
        if self.disturbed:
            return
        assert self.free >= LIMITS.stop
        assert sum(copy.promised for copy in self.running) <= self.room

    @invariant()
    def a_member_below_its_part_has_room(self) -> None:
        if not hasattr(self, "admission"):
            return
        used, part = self.uses(), self.part()
        stored = {space.member: space.stored for space in self.admission.spaces()}
        if sum(max(0, count - part) for count in stored.values()) > self.common():
            return  # others wrote to the disk what members have on it
        if any(copy.withdrawn for copy in self.running):
            return  # until they have ended, some of their bytes may still arrive
        for name in MEMBERS:
            room = self.admission.room(name)
            assert room is not None and room >= part - used[name]

    @invariant()
    def the_members_use_what_exists(self) -> None:
        if hasattr(self, "admission"):
            spaces = {space.member: space for space in self.admission.spaces()}
            assert {member: space.used for member, space in spaces.items()} == self.uses()
            if not self.disturbed:
                assert sum(space.used for space in spaces.values()) <= self.total()


class LongAdmission(Admission):
    """The same, for the form with many histories."""


TestAdmission = Admission.TestCase
TestAdmission.settings = settings(max_examples=examples(300), stateful_step_count=50, deadline=None)
TestManyHistories = pytest.mark.long(LongAdmission.TestCase)
TestManyHistories.settings = settings(max_examples=10_000, stateful_step_count=50, deadline=None)
