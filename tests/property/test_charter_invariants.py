"""Invariants I1, I2 and I4 of the charter: decisions of the members while some of them lie and the network loses
messages.

The default form is a few seconds; `-m slow` and `-m long` search further.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from comity.trust.charter.certificate import certify
from comity.trust.charter.document import Body
from comity.trust.charter.votes import RoundBody
from comity.trust.encoding import Digest, sha256
from comity.trust.identity import KeySet
from comity.trust.keys import HybridSigner
from comity.trust.statement import sign_statement
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from support import second_checker
from support.charter_voters import Voter, VotingMembers
from support.charters import (
    CheapSigner,
    cheaply_verifies,
    intent,
    ratify,
    seated,
    votes,
)
from support.examples import examples

ROUNDS = 4
PEOPLE = [seated(f"Institute {number}") for number in range(10)]
STRANGE = sha256(b"a body that nobody has seen")
WHO, WHICH = st.integers(0, 99), st.integers(0, 1)


class Bounded(RuleBasedStateMachine):
    """`n` members of whom `f` lie, f <= n - q: they sign anything, send it to anyone, and messages get lost."""

    n = 4
    f = 1

    def __init__(self) -> None:
        super().__init__()
        self.assembly = VotingMembers(PEOPLE[: self.n], self.f)
        self.epochs: dict[Digest, Digest] = {}
        self.sizes: dict[Digest, int] = {}

    def honest(self, number: int) -> Voter:
        return self.assembly.honest[number % len(self.assembly.honest)]

    def liar(self, number: int) -> Voter:
        return self.assembly.liars[number % len(self.assembly.liars)]

    def some(self, mask: int) -> list[Voter]:
        return [voter for at, voter in enumerate(self.assembly.honest) if mask >> at & 1]

    @rule(who=WHO, want=WHICH, stalled=st.booleans())
    def an_honest_member_acts(self, who: int, want: int, stalled: bool) -> None:
        self.assembly.acts(self.honest(who), self.assembly.drafts[want], stalled=stalled)

    @rule(mask=st.integers(1, 1023), want=WHICH, steps=st.integers(1, 3))
    def a_group_sits_apart(self, mask: int, want: int, steps: int) -> None:
        sits_apart(self.assembly, self.some(mask), self.assembly.drafts[want], steps)

    @rule(mask=st.integers(1, 1023))
    def a_group_meets(self, mask: int) -> None:
        if group := self.some(mask):
            self.assembly.heals(group)

    @rule(who=WHO, which=st.lists(st.integers(0, 40), max_size=6), again=st.booleans())
    def some_messages_arrive(self, who: int, which: list[int], again: bool) -> None:
        voter = self.honest(who)
        for number in which:
            if voter.coming:
                at = number % len(voter.coming)
                voter.takes([voter.coming[at] if again else voter.coming.pop(at)])

    @rule(who=WHO)
    def messages_are_lost(self, who: int) -> None:
        self.honest(who).coming.clear()

    @rule(who=WHO, want=WHICH, round_=st.integers(1, ROUNDS), mask=st.integers(0, 1023))
    def a_liar_supports(self, who: int, want: int, round_: int, mask: int) -> None:
        self.assembly.supports(self.liar(who), self.assembly.drafts[want], round_, self.some(mask))

    @rule(
        who=WHO,
        want=WHICH,
        round_=st.integers(1, ROUNDS),
        locked=st.none() | st.tuples(st.integers(1, ROUNDS), st.integers(0, 2)),
        unlock=st.none() | st.integers(1, ROUNDS),
        mask=st.integers(0, 1023),
    )
    def a_liar_signs_anything(
        self, who: int, want: int, round_: int, locked: tuple[int, int] | None, unlock: int | None, mask: int
    ) -> None:
        liar, bodies = self.liar(who), [*(body.digest for body in self.assembly.drafts), STRANGE]
        last = RoundBody(locked[0], bodies[locked[1]]) if locked else None
        said = intent(self.assembly.start, liar.id, round_, bodies[want], last_ratified=last, unlock=unlock)
        self.assembly.lies(liar, said, self.some(mask))

    @rule(who=WHO, want=WHICH, round_=st.integers(1, ROUNDS), mask=st.integers(0, 1023))
    def a_liar_ratifies_anything(self, who: int, want: int, round_: int, mask: int) -> None:
        liar = self.liar(who)
        self.assembly.lies(
            liar, ratify(self.assembly.start, liar.id, round_, self.assembly.drafts[want]), self.some(mask)
        )

    @invariant()
    def an_epoch_that_was_taken_up_is_kept(self) -> None:
        for voter in self.assembly.honest:
            if len(voter.held) == self.sizes.get(voter.id, 0):
                continue
            self.sizes[voter.id] = len(voter.held)
            epochs = [each.body.digest for each in self.assembly.tally(voter.held.values()).epochs]
            if voter.id in self.epochs:
                assert epochs == [self.epochs[voter.id]]
            elif epochs:
                (self.epochs[voter.id],) = epochs

    def teardown(self) -> None:
        everything = self.assembly.tally()
        assert len({*self.epochs.values(), *(each.body.digest for each in everything.epochs)}) <= 1
        all_is_well(self.assembly)


def sits_apart(assembly: VotingMembers, group: Sequence[Voter], want: Body, steps: int) -> None:
    """Members that hear only one another try to decide a draft that all of them want."""
    for _ in range(steps if group else 0):
        for voter in group:
            assembly.acts(voter, want, stalled=True)
        assembly.heals(group)


def all_is_well(assembly: VotingMembers) -> None:
    """No statement makes a fork or proves an equivocation of an honest member; and once the network heals, all decide
    the same.
    """
    everything = assembly.tally()
    assert not everything.forks
    assert {lie.member for lie in everything.equivocations} <= {liar.id for liar in assembly.liars}
    assert assembly.settles()
    assert (
        len({each.body.digest for voter in assembly.honest for each in assembly.tally(voter.held.values()).epochs}) == 1
    )


SIZES = [(4, 1), (7, 2), (10, 3)]


def search(n: int, f: int, tries: int, steps: int) -> None:
    machine = type(f"Of{n}With{f}", (Bounded,), {"n": n, "f": f})
    checks = settings(max_examples=tries, stateful_step_count=steps, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=checks)


@pytest.mark.parametrize(("n", "f"), SIZES)
def test_i1_i2_up_to_n_minus_q_lying_members_never_fork_accuse_or_block(n: int, f: int) -> None:
    search(n, f, tries=examples(60 // n), steps=30)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "f"), [*SIZES[:2], pytest.param(*SIZES[2], marks=pytest.mark.long)])
def test_i1_i2_in_a_longer_search(n: int, f: int) -> None:
    search(n, f, tries=150 // n, steps=50)


@pytest.mark.long
@pytest.mark.parametrize(("n", "f"), SIZES)
def test_i1_i2_in_a_very_long_search(n: int, f: int) -> None:
    search(n, f, tries=20_000 // n, steps=80)


PHASES = st.lists(
    st.tuples(st.sampled_from(((0, 1), (0, 2), (1, 2))), WHICH, st.sampled_from((2, 4)), st.booleans()), max_size=5
)


def phases(n: int, f: int, told: Sequence[tuple[tuple[int, int], int, int, bool]]) -> None:
    """Two thirds of the honest members, then others, are partitioned; lying members support their drafts, and show it
    to them or not.
    """
    assembly = VotingMembers(PEOPLE[:n], f)
    for thirds, want, steps, shown in told:
        group = [voter for at, voter in enumerate(assembly.honest) if at % 3 in thirds]
        for liar in assembly.liars:
            for round_ in range(1, ROUNDS):
                assembly.supports(liar, assembly.drafts[want], round_, group if shown else ())
        sits_apart(assembly, group, assembly.drafts[want], steps)
    all_is_well(assembly)


@pytest.mark.parametrize(("n", "f"), SIZES)
@given(told=PHASES)
@settings(max_examples=examples(10))
def test_i1_i2_lying_members_that_help_each_part_in_turn_never_fork_it(
    n: int, f: int, told: list[tuple[tuple[int, int], int, int, bool]]
) -> None:
    phases(n, f, told)


@pytest.mark.long
@pytest.mark.parametrize(("n", "f"), SIZES)
@given(told=PHASES)
@settings(max_examples=2000)
def test_i1_i2_lying_members_that_help_each_part_in_turn_never_fork_it_in_a_long_search(
    n: int, f: int, told: list[tuple[tuple[int, int], int, int, bool]]
) -> None:
    phases(n, f, told)


@given(st.data())
@settings(max_examples=examples(40))
def test_i1_fewer_than_q_members_make_no_charter(data: st.DataObject) -> None:
    n = data.draw(st.sampled_from((4, 7, 10)))
    assembly = VotingMembers(PEOPLE[:n], 0)
    few = data.draw(st.permutations(PEOPLE[:n]))[: assembly.start.quorum - 1]
    strangers = [seated(f"Stranger {number}") for number in range(3)]
    body = data.draw(st.sampled_from(assembly.drafts))
    said = [entry for round_ in (1, 2) for entry in votes([*few, *strangers], assembly.start, body, round_)]
    for stranger in strangers:  # in the name of members that did not sign
        silent = data.draw(st.sampled_from(PEOPLE[:n]))
        statement = ratify(assembly.start, silent.id, 1, body).statement()
        said.append(sign_statement(statement, stranger.signer))
    rotated = [each.rotated(each.seat, CheapSigner.named(f"{each.id} later"), each.signer) for each in few]
    said += [entry for later, line in rotated for entry in (line, *votes([later], assembly.start, body, 1))]
    tally = assembly.tally(data.draw(st.permutations(said)))
    assert not tally.epochs
    assert tally.current == assembly.start


@pytest.mark.parametrize(("n", "f"), [(4, 2), (4, 3), (7, 3), (7, 4), (10, 4), (10, 6)])
@given(data=st.data())
@settings(max_examples=examples(8))
def test_i2_more_lying_members_fork_and_the_two_certificates_prove_their_names(
    n: int, f: int, data: st.DataObject
) -> None:
    assembly = VotingMembers(PEOPLE[:n], f)
    groups = assembly.honest[: (n - f) // 2], assembly.honest[(n - f) // 2 :]
    for group, body in zip(groups, assembly.drafts, strict=True):
        last = data.draw(st.integers(1, 3), label="the round in which the liars come to agree")
        for liar in assembly.liars:
            for round_ in range(1, last):
                assembly.lies(liar, intent(assembly.start, liar.id, round_, STRANGE), group)
            assembly.supports(liar, body, last, group)
        for _ in range(2 * last):
            assembly.heals(group)
            for voter in group:
                assembly.acts(voter, body, stalled=True)
    tally = assembly.tally()
    (fork,) = tally.forks
    assert tally.stopped and not tally.duties
    judged = second_checker.liars(assembly.start.data, fork.first.lines, fork.second.lines, cheaply_verifies)
    assert second_checker.fewest(assembly.start.data) <= len(judged)
    assert judged.keys() <= {lie.member for lie in tally.equivocations} <= {liar.id for liar in assembly.liars}


@given(st.data())
@settings(max_examples=examples(30))
def test_i4_more_lines_remove_no_epoch_and_no_proof(data: st.DataObject) -> None:
    assembly = VotingMembers(PEOPLE[:4], 1)
    said = [entry for body in assembly.drafts for entry in votes(PEOPLE[3:4], assembly.start, body)]
    said += votes(PEOPLE[:3], assembly.start, assembly.drafts[0], data.draw(st.integers(1, 3)))
    some = data.draw(st.lists(st.sampled_from(said)))
    fewer, more = assembly.tally(some), assembly.tally(data.draw(st.permutations([*some, *said])))
    assert fewer.epochs == () or [each.body for each in fewer.epochs] == [each.body for each in more.epochs]
    assert {(lie.kind, lie.member) for lie in fewer.equivocations} <= {
        (lie.kind, lie.member) for lie in more.equivocations
    }
    assert assembly.tally([*some, *some[::-1]]) == fewer


def test_members_with_hybrid_keys_decide_and_detect_the_lying_one() -> None:
    people = [seated(f"Institute {number}", HybridSigner.generate()) for number in range(4)]
    assembly = VotingMembers(people, 1, signed=KeySet.signed)
    (liar,) = assembly.liars
    for body, group in zip(assembly.drafts, (assembly.honest[:1], assembly.honest[1:]), strict=True):
        assembly.supports(liar, body, 1, group)
    assembly.acts(assembly.honest[0], assembly.drafts[0], stalled=False)
    assert assembly.settles()
    tally = assembly.tally()
    assert len(tally.epochs) == 1 and not tally.forks
    assert {lie.member for lie in tally.equivocations} == {liar.id}
    (epoch,) = tally.epochs
    assert certify(assembly.start, epoch.body, epoch.lines) == epoch
