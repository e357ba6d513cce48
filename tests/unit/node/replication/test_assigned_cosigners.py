"""Which members tell their cosignatures of a log to all nodes, and who replaces those that do not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
from comity.ledger.records import NewestHead
from comity.node.members import Membership
from comity.node.replication.cosigner import PATIENCE, AssignedCosigners
from comity.rules.assigned_cosigners import ALL_COSIGN, MIN_ASSIGNED, assigned_count, cosigning_order
from comity.trust.charter.document import Body, CharterPolicy, Member
from comity.trust.encoding import Digest, sha256
from comity.trust.identity import KeySet
from comity.trust.tlog.note import NoteSignature
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

FRESH = 1200.0
COUNTRIES = ("CH", "ES", "KR", "SG", "BR", "KE", "NO")


def named(number: int) -> Digest:
    return sha256(str(number).encode())


def body_of(count: int, quorum: int = 2, countries: int = len(COUNTRIES)) -> Body:
    keys = cast(KeySet, None)
    members = tuple(Member(named(n), f"member {n}", COUNTRIES[n % countries], keys, ()) for n in range(count))
    policy = CharterPolicy(count, 1, 1, quorum)
    return Body(b"body %d" % count, sha256(b"founding"), 3, None, members, {}, policy)


def admitted(body: Body) -> list[Digest]:
    return [seat.id for seat in body.members]


def test_sixteen_members_tell_all_cosignatures() -> None:
    assert assigned_count(body_of(ALL_COSIGN)) is None
    assert assigned_count(body_of(ALL_COSIGN + 1)) == MIN_ASSIGNED


def test_the_assigned_members_are_more_than_the_charter_asks_for() -> None:
    assert assigned_count(body_of(50, quorum=3)) == 5
    assert assigned_count(body_of(50, quorum=26)) == 28


def test_observers_are_not_counted() -> None:
    body = body_of(ALL_COSIGN + 1)
    seats = (*body.members[:-1], replace(body.members[-1], status="observer"))
    assert assigned_count(replace(body, members=seats)) is None


@given(st.integers(17, 60), st.integers(2, 7), st.data())
def test_the_first_of_an_order_are_in_other_jurisdictions_each_in_another_one(
    count: int, countries: int, data: st.DataObject
) -> None:
    body = body_of(count, countries=countries)
    owner = data.draw(st.sampled_from(body.members))
    order = cosigning_order(body, admitted(body), owner.id)
    assert sorted((*order, owner.id)) == sorted(admitted(body))
    at = {seat.id: seat.jurisdiction for seat in body.members}
    abroad = len(set(at.values()) - {owner.jurisdiction})
    assert len({at[member] for member in order[:abroad]} - {owner.jurisdiction}) == abroad
    first_at_home = next(index for index, member in enumerate(order) if at[member] == owner.jurisdiction)
    assert all(at[member] == owner.jurisdiction for member in order[first_at_home:])


def test_a_member_that_joins_or_leaves_changes_no_others_place() -> None:
    body = body_of(40, countries=1)
    before = cosigning_order(body, admitted(body), named(0))
    larger = body_of(41, countries=1)
    assert [member for member in cosigning_order(larger, admitted(larger), named(0)) if member != named(40)] == list(
        before
    )
    smaller = replace(body, members=tuple(seat for seat in body.members if seat.id != named(7)))
    expected = [member for member in before if member != named(7)]
    assert list(cosigning_order(smaller, admitted(body), named(0))) == expected


def test_a_members_own_choices_do_not_move_it() -> None:
    """Its keys and names are its own choice: only the order of admission counts."""
    body = body_of(40, countries=1)
    other = replace(body.members[9], id=sha256(b"ground for long"), name="another")
    seats = (*body.members[:9], other, *body.members[10:])
    ids = [seat.id for seat in seats]
    before = cosigning_order(body, admitted(body), named(0))
    assert cosigning_order(replace(body, members=seats), ids, named(0)).index(other.id) == before.index(named(9))


def test_the_work_is_spread() -> None:
    body = body_of(200)
    first = Counter(member for seat in body.members for member in cosigning_order(body, admitted(body), seat.id)[:5])
    assert sum(first.values()) == 1000
    assert max(first.values()) <= 25, "five on average"


class World:
    """Nodes that each decide for one log, and see the cosignatures that the running ones tell."""

    def __init__(self, count: int, owner: int = 0, quorum: int = 2) -> None:
        self.now = 1_000_000.0
        self.body = body_of(count, quorum)
        self.order = cosigning_order(self.body, admitted(self.body), named(owner))
        self.owner = named(owner)
        self.nodes = {seat.id: self._node(seat.id) for seat in self.body.members if seat.id != self.owner}
        self.dead = set[Digest]()
        self.told = dict[Digest, float]()
        self.size = 0

    def _node(self, member: Digest) -> AssignedCosigners:
        peers = [
            SimpleNamespace(member=seat, record=SimpleNamespace(cosigners=[SimpleNamespace(key_id=key_of(seat.id))]))
            for seat in self.body.members
            if seat.id != member
        ]
        seat = SimpleNamespace(inception=SimpleNamespace(id=member))
        known = SimpleNamespace(
            own_node=seat,
            body=self.body,
            known=admitted(self.body),
            peers=peers,
            owner=lambda log: self.owner if log == "log" else None,
            cosigners={("x", key_of(seat.id)): (None, seat.id) for seat in self.body.members},
        )
        return AssignedCosigners(cast(Membership, known), lambda: self.now, FRESH)

    @property
    def head(self) -> NewestHead:
        lines = (NoteSignature("x", key_of(who), int(at).to_bytes(8, "big")) for who, at in self.told.items())
        return NewestHead("log", self.size, b"", tuple(lines))

    def grow(self) -> None:
        """A new checkpoint without cosignatures."""
        self.size += 1
        self.told.clear()

    def run(self, seconds: float, *, growing: bool = False) -> None:
        ends = self.now + seconds
        while self.now < ends:
            if growing:
                self.grow()
            head = self.head
            for member, node in self.nodes.items():
                node.update([head])
                if member not in self.dead and node.is_told("log"):
                    self.told[member] = self.now
                    for other in self.nodes.values():
                        other.arrived("log", [key_of(member)])
            self.now += 5

    @property
    def telling(self) -> set[Digest]:
        return {member for member, node in self.nodes.items() if member not in self.dead and node.is_told("log")}


def key_of(member: Digest) -> bytes:
    return bytes.fromhex(member)[:4]


def test_the_log_of_a_member_that_is_not_admitted_yet_has_no_order() -> None:
    world = World(30)
    newcomer = world.owner = named(30)
    assert newcomer not in admitted(world.body)
    node = world._node(newcomer)
    assert node.places("log") == {}
    assert node.update([world.head]) == {} and node.is_told("log")
    world.body = body_of(31)
    assert set(world._node(newcomer).places("log").values()) == set(range(30))


@pytest.mark.parametrize("growing", [False, True])
def test_only_the_first_of_the_order_tell_while_they_do_their_part(growing: bool) -> None:
    world = World(30)
    world.run(300, growing=growing)
    assert world.telling == set(world.order[:MIN_ASSIGNED])


@pytest.mark.parametrize("growing", [False, True])
def test_those_that_fail_are_replaced_by_the_next(growing: bool) -> None:
    world = World(30)
    world.run(60, growing=growing)
    world.dead = set(world.order[1:4])
    world.grow()
    world.run(10 * PATIENCE, growing=growing)
    assert world.telling == {world.order[0], *world.order[4:8]}
    world.dead.clear()
    world.run(3 * PATIENCE, growing=growing)
    assert world.telling == set(world.order[:MIN_ASSIGNED]), "who comes back takes its part again"


def test_a_node_that_leads_to_too_few_cosigners_is_short() -> None:
    world = World(30)
    world.run(60)
    node = world.nodes[world.order[-1]]
    assert node.update([world.head]) == {"log": False}
    del world.told[world.order[0]]
    assert node.update([world.head]) == {"log": True}


@settings(max_examples=examples(15), deadline=None)  # each runs up to forty nodes through eight doublings
@given(st.integers(17, 40), st.sets(st.integers(0, 39)), st.booleans())
def test_after_a_few_doublings_enough_reachable_members_tell_theirs(
    count: int, failed: set[int], growing: bool
) -> None:
    world = World(count)
    world.dead = {named(number) for number in failed if 0 < number < count}
    world.run(8 * PATIENCE, growing=growing)
    living = [member for member in world.order if member not in world.dead]
    assert world.telling.issuperset(living[:MIN_ASSIGNED])
    assert len(world.telling) <= 2 * MIN_ASSIGNED + len(world.dead)


def test_members_further_back_do_not_release_those_before_them() -> None:
    """Colluding members tell theirs, so that honest ones might stop."""
    world = World(30)
    world.dead = set(world.order[2:5])
    for member in world.order[20:]:
        world.nodes[member].is_told = lambda log: True  # type: ignore[method-assign]
    world.run(8 * PATIENCE)
    assert world.telling.issuperset({*world.order[:2], *world.order[5:8]})


def test_a_cosigner_key_has_the_place_of_its_member() -> None:
    world = World(20)
    node = world.nodes[world.order[3]]
    assert node.places("log") == {("x", key_of(member)): place for place, member in enumerate(world.order)}
    assert node.places("a log of nobody known") == {}


def test_in_a_small_federation_all_members_tell() -> None:
    world = World(ALL_COSIGN)
    world.run(60)
    assert world.telling == set(world.nodes)
    assert world.nodes[named(1)].update([world.head]) == {}


def test_a_change_is_announced_once() -> None:
    world = World(30)
    changes = list[float]()
    node = world.nodes[world.order[5]]
    node.watch(lambda: changes.append(world.now))
    world.run(100)
    assert len(changes) == 1 and not node.is_told("log")
    assert node.is_told("another log"), "of which nothing was decided yet"
