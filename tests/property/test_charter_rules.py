"""Rules of the charter over arbitrary votes: which votes count, in any order, and what honest members decide.

Attackers, who sign anything against honest members, have suites of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

from comity.rules.charter_drafts import assemble
from comity.rules.equivocation import find_equivocations
from comity.rules.tally import NothingToVote, Tally, compute_tally, next_vote
from comity.rules.vote_state import VoteState, check_vote
from comity.trust.charter.certificate import certify
from comity.trust.charter.document import Body
from comity.trust.charter.votes import Intent, Ratify, RoundBody, Vote, draft_statement, parse_vote, void_reason
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject, sign_statement
from comity.trust.statement_kinds import STATEMENT_KINDS
from hypothesis import event, given, settings
from hypothesis import strategies as st
from support.charters import Seated, cheaply_signed, drafts, founded, seated
from support.examples import examples

PEOPLE = [seated(f"Member {number}", in_=f"A{chr(65 + number)}") for number in range(10)]
FOUR = PEOPLE[:4]
GENESIS = founded(FOUR)
BODIES = drafts(GENESIS, 3)
BYTES = {body.digest: body.data for body in BODIES}

rounds = st.integers(1, 4)
digests = st.sampled_from([body.digest for body in BODIES[:2]])
locks = st.none() | st.builds(RoundBody, rounds, digests)
who = st.sampled_from([person.id for person in FOUR])
intents = st.builds(
    Intent, who, st.just(GENESIS.digest), st.just(1), rounds, digests, locks, st.none() | st.integers(1, 3)
)
plain = st.builds(Intent, who, st.just(GENESIS.digest), st.just(1), rounds, digests)
ratified = st.builds(Ratify, who, st.just(GENESIS.digest), st.just(1), rounds, digests)
votes = st.tuples(st.sets(who, min_size=3), rounds, digests).map(
    lambda drawn: [
        make(member, GENESIS.digest, 1, *drawn[1:]) for member in sorted(drawn[0]) for make in (Intent, Ratify)
    ]
)
readings = st.tuples(st.lists(plain | intents | ratified, max_size=30), st.lists(votes, max_size=3)).map(
    lambda drawn: [*drawn[0], *(reading for vote in drawn[1] for reading in vote)]
)
"""Arbitrary statements of arbitrary authors; now and then a quorum votes."""


def signed(said: Iterable[Vote]) -> list[Entry]:
    authors = {person.id: person for person in PEOPLE}
    return [authors[reading.member].says(reading) for reading in said]


def tally(entries: Iterable[Entry]) -> Tally:
    return compute_tally(GENESIS, entries, BYTES, signed=cheaply_signed)


def certifying(said: Iterable[Vote], body: Digest) -> set[int]:
    """Rounds with an intent-certificate, computed from the text of 7.2."""
    intents_ = [each for each in said if isinstance(each, Intent) and each.body == body and void_reason(each) is None]
    certified: set[int] = set()
    for at in range(1, 5):
        counting = {each.member for each in intents_ if each.round == at and each.unlock in {None, *certified}}
        certified |= {at} if len(counting) >= 3 else set()
    return certified


def decided(said: Sequence[Vote], body: Body) -> bool:
    """Whether q ratified one (round, body) that is intent-certified, computed from the text of 7.3."""
    votes = [(each.round, each.member) for each in said if isinstance(each, Ratify) and each.body == body.digest]
    return any(len({member for round_, member in votes if round_ == at}) >= 3 for at in certifying(said, body.digest))


@given(readings, st.randoms(use_true_random=False))
@settings(max_examples=examples(100))
def test_a_tally_is_the_same_in_any_order_of_votes_and_with_repeated_ones(said: list[Vote], chance: Random) -> None:
    entries = signed(said)
    shuffled = entries + entries[: len(entries) // 2]
    chance.shuffle(shuffled)
    assert tally(shuffled) == tally(entries)


@given(readings)
@settings(max_examples=examples(100))
def test_a_certificate_is_what_the_text_of_the_protocol_says(said: list[Vote]) -> None:
    entries = signed(said)
    for body in BODIES[:2]:
        made = assemble(GENESIS, body, entries, signed=cheaply_signed)
        assert (made is not None) is decided(said, body)
        event(f"decided: {made is not None}")
        if made is not None:
            assert certify(GENESIS, body, made.lines, signed=cheaply_signed) == made


@given(readings, readings)
@settings(max_examples=examples(100))
def test_more_lines_remove_nothing(said: list[Vote], more: list[Vote]) -> None:
    before, after = tally(signed(said)), tally(signed([*said, *more]))
    assert {lie.member for lie in before.equivocations} <= {lie.member for lie in after.equivocations}
    assert len(before.forks) <= len(after.forks)
    if not after.forks:
        assert [epoch.body for epoch in after.epochs][: len(before.epochs)] == [epoch.body for epoch in before.epochs]
    if not after.epochs:
        for draft in before.drafts:
            again = after.draft(draft.body.digest)
            assert again is not None
            assert set(draft.certified_rounds) <= set(again.certified_rounds)
            assert all(members <= again.intents[at] for at, members in draft.intents.items())


@given(readings)
@settings(max_examples=examples(100))
def test_votes_that_the_guard_allows_are_no_equivocation(said: list[Vote]) -> None:
    states: dict[Digest, VoteState] = {}
    kept: list[Vote] = []
    for reading in said:
        state = states.get(reading.member) or VoteState(GENESIS.digest)
        try:
            check_vote(state, reading)
        except ComityError:
            continue
        states[reading.member] = state.adding(reading)
        kept.append(reading)
    event(f"kept: {len(kept) // 5 * 5}")
    assert find_equivocations(dict(zip(kept, signed(kept), strict=True))) == ()
    assert all(void_reason(reading) is None for reading in kept if isinstance(reading, Intent))


@given(readings)
@settings(max_examples=examples(100))
def test_two_certificates_for_one_epoch_prove_two_equivocations(said: list[Vote]) -> None:
    forked = all(decided(said, body) for body in BODIES[:2])
    event(f"forked: {forked}")
    if forked:
        found = tally(signed(said))
        (fork,) = found.forks
        lines = {*fork.first.lines, *fork.second.lines}
        votes_read = {parse_vote(entry): entry for entry in signed(said) if entry.line in lines}
        assert len({lie.member for lie in find_equivocations(votes_read)}) >= 2


statements = st.builds(
    Statement,
    st.sampled_from(["intent", "ratified", "consented", "draft", "left", "adopted", "inception", "rotated", "hold"]),
    st.just((Subject("charter", BODIES[0].digest),)),
    st.builds(Author, st.sampled_from(["identity", "node"]), who),
    st.dictionaries(
        st.sampled_from(["prev", "epoch", "round", "body", "federation", "text", "record", "used", "keys"]),
        st.none() | st.integers(-1, 3) | digests | st.just(GENESIS.digest) | st.text(max_size=5),
    ),
    st.just(()) | st.just((SideObject.of(BODIES[0].data),)),
).map(lambda said: said if STATEMENT_KINDS[said.predicate].objects else replace(said, objects=()))
bodies = st.dictionaries(digests, st.binary(max_size=20) | st.sampled_from([body.data for body in BODIES]), max_size=3)


@given(st.lists(st.tuples(statements, st.sampled_from(FOUR)), max_size=10), bodies, readings)
@settings(max_examples=examples(100))
def test_a_tally_takes_any_statements(
    junk: list[tuple[Statement, Seated]], held: dict[Digest, bytes], said: list[Vote]
) -> None:
    entries = [sign_statement(statement, person.signer) for statement, person in junk]
    compute_tally(GENESIS, [*entries, *signed(said)], held, signed=cheaply_signed)


@given(st.sampled_from([4, 5, 7, 10]), st.data())
@settings(max_examples=examples(25), deadline=None)
def test_honest_members_decide_though_some_are_silent_and_lines_are_late(count: int, data: st.DataObject) -> None:
    """Members whose draft lost a split support the other draft when the tool tells them to; then one body is decided,
    in few rounds.
    """
    people = PEOPLE[:count]
    start = founded(people)
    choices = drafts(start, 3)
    bytes_ = {body.digest: body.data for body in choices}
    speaking = people[: start.quorum + data.draw(st.integers(0, count - start.quorum), "beside the quorum")]
    lines = [sign_statement(draft_statement(body, people[0].id, ""), people[0].signer) for body in choices]
    wants = {person.id: data.draw(st.sampled_from(choices), "wanted") for person in speaking}
    states = {person.id: VoteState(start.digest) for person in speaking}
    seen = {person.id: len(lines) for person in speaking}

    def turn(person: Seated, known: Sequence[Entry]) -> None:
        now = compute_tally(start, known, bytes_, signed=cheaply_signed)
        if now.current == start:
            state = states[person.id]
            reading = next_vote(state, now, person.id, wants[person.id])
            if isinstance(reading, NothingToVote):
                leading = now.leading(state.round)
                if leading is not None and len(now.voters_by_round.get(state.round, ())) >= start.quorum:
                    wants[person.id] = leading.body
                return
            check_vote(state, reading)
            states[person.id] = state.adding(reading)
            lines.append(person.says(reading))

    for _ in range(data.draw(st.integers(0, 12), "early turns")):
        person = data.draw(st.sampled_from(speaking), "speaks")
        seen[person.id] = data.draw(st.integers(seen[person.id], len(lines)), "has heard")
        turn(person, [*lines[: seen[person.id]], *(line for line in lines if by(line) == person.id)])
    for _ in range(14):
        for person in data.draw(st.permutations(speaking), "order"):
            turn(person, lines)
        found = compute_tally(start, lines, bytes_, signed=cheaply_signed)
        if found.epochs:
            break
    assert found.equivocations == ()
    assert found.current.epoch == 1
    assert max(state.round for state in states.values()) <= 4
    event(f"rounds: {max(state.round for state in states.values())}")


def by(entry: Entry) -> Digest:
    assert entry.statement.by is not None
    return entry.statement.by.id


def test_bodies_have_their_digests() -> None:
    assert all(sha256(data) == digest for digest, data in BYTES.items())
