"""Which votes a key may sign, and which vote an honest member signs next. Four members, q = 3, n - q + 1 = 2."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from comity.rules.charter_drafts import draft
from comity.rules.tally import Fork, NothingToVote, Tally, next_vote
from comity.rules.vote_state import VoteState, check_vote
from comity.trust.charter.document import Body
from comity.trust.charter.votes import Intent, Ratify, RoundBody
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Conflict, Untrusted
from support.assembly import CLASSICAL, Assembly, change, members, reseated
from support.rotations import of, seated
from support.world import Identity, seat

SEATS = members(4)
A, B, C, D = SEATS
PREV, ONE, TWO = sha256(b"prev"), sha256(b"one"), sha256(b"two")
FRESH = VoteState(PREV)


def intent(
    at: int = 1, body: Digest = ONE, last: tuple[int, Digest] | None = None, unlock: int | None = None
) -> Intent:
    return Intent(A.id, PREV, 1, at, body, RoundBody(*last) if last else None, unlock)


def ratify(at: int = 1, body: Digest = ONE) -> Ratify:
    return Ratify(A.id, PREV, 1, at, body)


def signed(*readings: Intent | Ratify) -> VoteState:
    state = FRESH
    for reading in readings:
        check_vote(state, reading)
        state = state.adding(reading)
    return state


def refusal(state: VoteState, reading: Intent | Ratify) -> str:
    with pytest.raises(Untrusted) as caught:
        check_vote(state, reading)
    return caught.value.code


def test_a_round_is_an_intent_and_then_a_ratify() -> None:
    state = signed(intent(), ratify(), intent(2, last=(1, ONE), unlock=1), ratify(2))
    assert (state.round, state.last_ratified) == (2, RoundBody(2, ONE))


def test_a_key_signs_the_same_vote_again() -> None:
    state = signed(intent(), ratify(), intent(2, last=(1, ONE), unlock=1))
    for reading in state.votes:
        check_vote(state, reading)
        assert state.adding(reading) == state


def test_a_key_signs_one_intent_a_round() -> None:
    assert refusal(signed(intent()), intent(body=TWO)) == "VOTE-TWICE"
    check_vote(signed(intent()), intent(2, TWO))


def test_a_key_signs_one_ratify_a_round() -> None:
    assert refusal(signed(intent(), ratify()), ratify(body=TWO)) == "VOTE-TWICE"


def test_a_key_may_intend_one_body_and_ratify_another_in_one_round() -> None:
    check_vote(signed(intent()), ratify(body=TWO))


def test_rounds_never_decrease() -> None:
    for reading in (intent(2), ratify(2)):
        state = signed(reading)
        assert refusal(state, intent(1)) == "VOTE-BACK"
        assert refusal(state, ratify(1)) == "VOTE-BACK"


def test_after_its_ratify_a_key_intends_nothing_more_in_that_round() -> None:
    assert refusal(signed(ratify(2)), intent(2, TWO)) == "VOTE-BACK"


@pytest.mark.parametrize("last", [None, (1, ONE), (2, TWO)])
def test_a_key_hides_no_ratify_of_its_own(last: tuple[int, Digest] | None) -> None:
    state = signed(ratify(1), ratify(2))
    assert refusal(state, intent(4, ONE, last, 3 if last else None)) == "VOTE-LOCK"
    check_vote(state, intent(4, ONE, (2, ONE), 3))


def test_a_key_may_declare_a_ratify_of_another_key_of_its_member() -> None:
    check_vote(signed(ratify(1)), intent(4, ONE, (2, TWO), 3))
    check_vote(FRESH, intent(4, ONE, (2, TWO), 3))


def test_a_key_signs_nothing_that_is_void() -> None:
    assert refusal(FRESH, intent(2, unlock=1)) == "VOTE-VOID"
    assert refusal(signed(ratify(1)), intent(2, TWO, (1, ONE), 1)) == "VOTE-VOID"


def test_a_key_that_lost_its_state_does_not_vote() -> None:
    lost = VoteState(PREV, lost=True)
    assert refusal(lost, intent()) == refusal(lost, ratify()) == "VOTE-LOST"
    with pytest.raises(Conflict):
        check_vote(replace(lost, prev=TWO), intent())


def test_a_state_is_about_one_charter() -> None:
    with pytest.raises(Conflict) as caught:
        check_vote(VoteState(TWO), intent())
    assert caught.value.code == "VOTE-PREV"


@pytest.fixture
def assembly() -> Assembly:
    return Assembly(SEATS)


def waits(answer: object) -> str:
    assert isinstance(answer, NothingToVote), answer
    return answer.why


def is_intent(answer: object, at: int) -> Intent:
    assert isinstance(answer, Intent) and answer.round == at, answer
    return answer


def is_ratify(answer: object, at: int) -> Ratify:
    assert isinstance(answer, Ratify) and answer.round == at, answer
    return answer


def two(assembly: Assembly) -> tuple[Body, Body]:
    """Two drafts; the one that leads a tie is first."""
    for number in (1, 2):
        assembly.put(change(assembly.body, number), SEATS[number])
    first, second = (draft.body for draft in assembly.tally.drafts)
    return first, second


def test_a_quorum_decides_in_one_round(assembly: Assembly) -> None:
    body = assembly.put(change(assembly.body))
    is_intent(assembly.vote(A, body), 1)
    assert "wait for" in waits(assembly.vote(A, body))
    is_intent(assembly.vote(B, body), 1)
    waits(assembly.vote(B, body))
    is_intent(assembly.vote(C, body), 1)
    for who in (A, B, C):
        assert assembly.tally.current == assembly.body
        is_ratify(assembly.vote(who, body), 1)
    assert assembly.tally.current == body
    assert waits(next_vote(VoteState(body.digest), assembly.tally, D.id, body)) == "this is already the current charter"


def test_a_late_member_ratifies_without_having_intended(assembly: Assembly) -> None:
    body = assembly.put(change(assembly.body))
    for who in (A, B, C):
        assembly.vote(who, body)
    is_ratify(assembly.vote(D, body), 1)


def test_a_member_that_ratified_ratifies_again_in_a_later_round_with_fewer_ratify_votes(assembly: Assembly) -> None:
    body = assembly.put(change(assembly.body))
    for who in (A, B, C):
        assembly.vote(who, body)
    is_ratify(assembly.vote(A, body), 1)
    is_ratify(assembly.vote(B, body), 1)
    assembly.intent(B, body, 2, last=(1, body), unlock=1)
    assembly.intent(C, body, 2)
    assembly.intent(D, body, 2)
    assembly.ratify(C, body, 2)
    is_ratify(assembly.vote(A, body), 2)


def test_no_member_leaves_a_round_that_can_still_decide(assembly: Assembly) -> None:
    first, second = two(assembly)
    for who, body in zip(SEATS, (first, first, second), strict=False):
        is_intent(assembly.vote(who, body), 1)
    assert D.inception.label in waits(assembly.vote(A, first))
    assert D.inception.label in waits(assembly.vote(C, second))


def test_two_against_two_finishes_in_round_two(assembly: Assembly) -> None:
    first, second = two(assembly)
    for who, body in zip(SEATS, (first, first, second, second), strict=True):
        is_intent(assembly.vote(who, body), 1)
    assert "leads" in waits(assembly.vote(C, second))
    is_intent(assembly.vote(A, first), 2)
    is_intent(assembly.vote(B, first), 2)
    assert "leads" in waits(assembly.vote(D, second))
    is_intent(assembly.vote(C, first), 2)
    for who in (A, B, C):
        is_ratify(assembly.vote(who, first), 2)
    assert assembly.tally.current == first


def test_a_member_that_gives_way_lets_the_others_decide_though_one_is_silent(assembly: Assembly) -> None:
    first, second = two(assembly)
    for who, body in zip(SEATS, (first, first, second), strict=False):
        assembly.vote(who, body)
    is_intent(assembly.vote(C, first), 2)
    is_intent(assembly.vote(A, first), 2)
    is_intent(assembly.vote(B, first), 2)
    for who in (A, B, C):
        is_ratify(assembly.vote(who, first), 2)
    assert assembly.tally.current == first


def test_a_person_may_bring_a_new_draft_after_a_split(assembly: Assembly) -> None:
    first, second = two(assembly)
    for who, body in zip(SEATS, (first, first, second, second), strict=True):
        assembly.vote(who, body)
    third = assembly.put(change(assembly.body, 3))
    for who in (A, B, C):
        is_intent(assembly.vote(who, third), 2)
    for who in (A, B, C):
        is_ratify(assembly.vote(who, third), 2)
    assert assembly.tally.current == third


def test_a_person_may_stop_waiting_for_silent_members(assembly: Assembly) -> None:
    body = assembly.put(change(assembly.body))
    assembly.vote(A, body)
    assert "is open" in waits(assembly.vote(A, body, stalled=True))
    assembly.vote(B, body)
    waits(assembly.vote(A, body))
    is_intent(assembly.vote(A, body, stalled=True), 2)


def test_a_locked_member_stays_with_its_body_until_a_quorum_intends_another(assembly: Assembly) -> None:
    first, second = two(assembly)
    for who in (A, B, C):
        assembly.vote(who, first)
    is_ratify(assembly.vote(A, first), 1)
    for who in (B, C, D):
        assembly.intent(who, second, 2)
    before = assembly.lines.copy()
    assembly.lines = [entry for entry in before if entry is not before[-1]]
    assert "it must not vote for" in waits(assembly.vote(A, second))
    assembly.lines = before
    is_ratify(assembly.vote(A, second), 2)


def test_an_intent_declares_the_lock_and_the_certificate_that_opens_it(assembly: Assembly) -> None:
    first, second = two(assembly)
    for who in (A, B, C):
        assembly.vote(who, first)
    assembly.vote(A, first)
    assembly.intent(B, second, 2)
    again = is_intent(assembly.vote(A, first, stalled=True), 2)
    assert (again.last_ratified, again.unlock) == (RoundBody(1, first.digest), 1)


def test_no_member_ratifies_before_the_consent_of_every_newcomer(assembly: Assembly) -> None:
    """Otherwise a quorum would be locked on a body that only the newcomer's consent can certify."""
    newcomer = seat("ZZ", CLASSICAL)
    body = assembly.put(reseated(assembly.body, [*(who.member for who in SEATS), newcomer.member]))
    assert "inception" in waits(assembly.vote(A, body))
    assembly.lines.append(newcomer.entry)
    for who in SEATS:
        is_intent(assembly.vote(who, body), 1)
    assert waits(assembly.vote(A, body)) == f"wait for the consent of {newcomer.inception.label}"
    assembly.consent(newcomer, body)
    for who in (A, B, C):
        is_ratify(assembly.vote(who, body), 1)
    assert assembly.tally.current == body


def test_no_member_ratifies_a_body_with_too_few_intents_of_the_new_members(assembly: Assembly) -> None:
    policy = replace(assembly.body.policy, quorum_change=4)
    body = assembly.put(draft(assembly.body, policy=policy))
    for who in (A, B, C):
        assembly.vote(who, body)
    waits(assembly.vote(A, body))
    assembly.vote(D, body)
    is_ratify(assembly.vote(A, body), 1)


def test_no_member_signs_an_invalid_body_or_one_of_two_rivals(assembly: Assembly) -> None:
    stolen = assembly.put(
        reseated(assembly.body, [replace(A.member, jurisdiction="YY"), *(w.member for w in SEATS[1:])])
    )
    assert "move to YY" in waits(assembly.vote(B, stolen))
    begun = seated(C.member, of(C))
    second, rotation = begun.to("second")
    moved = replace(C.member, keys=second.state.keys, recovery=second.state.recovery)
    body = assembly.put(reseated(assembly.body, [moved if who is C else who.member for who in SEATS]))
    assert "own rotations" in waits(assembly.vote(B, body))
    assembly.lines.append(rotation)
    is_intent(assembly.vote(B, body), 1)
    assembly.lines.append(begun.to("elsewhere")[1])
    assert "dispute" in waits(assembly.vote(A, body))


def test_a_member_without_a_vote_waits(assembly: Assembly) -> None:
    body = assembly.put(change(assembly.body))
    state, tally = VoteState(assembly.body.digest), assembly.tally
    for answer in (
        next_vote(state, tally, seat("ZZ", CLASSICAL).id, body),
        next_vote(replace(state, lost=True), tally, A.id, body),
        next_vote(VoteState(ONE), tally, A.id, body),
        next_vote(state, tally, A.id, change(assembly.body, 2)),
    ):
        waits(answer)


def test_the_guard_never_refuses_an_advised_vote(assembly: Assembly) -> None:
    first, second = two(assembly)
    for _ in range(6):
        for who, body in zip(SEATS, (first, second, first, second), strict=True):
            assembly.vote(who, body, stalled=True)
    assert assembly.tally.equivocations == ()


def round_of(tally: Tally, at: int, *voters: Identity, **latest: int) -> Tally:
    """The tally as if these members had voted in round `at`, and each were in its round of `latest`."""
    rounds = {SEATS["ABCD".index(name)].id: number for name, number in latest.items()}
    return replace(
        tally,
        voters_by_round={at: frozenset(who.id for who in voters)},
        latest_rounds={**dict.fromkeys((who.id for who in voters), at), **rounds},
    )


def with_votes(tally: Tally, body: Body, at: int, *, intents: str = "", ratified: str = "", **more: Any) -> Tally:
    """The tally with these votes for `body` in round `at`, and no others for it."""
    seats = dict(zip("ABCD", SEATS, strict=True))
    votes: dict[str, Any] = {
        "intents": {at: frozenset(seats[name].id for name in intents)},
        "ratified": {at: frozenset(seats[name].id for name in ratified)},
    }
    drafts = [replace(each, **votes, **more) if each.body == body else each for each in tally.drafts]
    return replace(tally, drafts=tuple(drafts))


def intending(assembly: Assembly, body: Body, at: int = 1) -> VoteState:
    return VoteState(assembly.body.digest, (Intent(A.id, assembly.body.digest, 1, at, body.digest),))


def test_a_member_goes_to_the_next_round_if_a_quorum_voted_and_another_member_did(assembly: Assembly) -> None:
    first, _ = two(assembly)
    state = intending(assembly, first, 2)
    for tally, goes_on in (
        (round_of(assembly.tally, 2, A, B, C), False),
        (round_of(assembly.tally, 2, A, B, C, C=3), True),
        (round_of(assembly.tally, 2, A, B, C=3), False),
        (round_of(assembly.tally, 2, A, B, B=3), False),
        (round_of(assembly.tally, 2, A, B, C, D=3), False),
    ):
        answer = next_vote(state, with_votes(tally, first, 2, intents="AB"), A.id, first)
        assert isinstance(answer, Intent) == goes_on


def test_a_member_goes_to_the_next_round_if_this_one_can_decide_nothing(assembly: Assembly) -> None:
    """Three votes decide. A member that went on to a later round, or ratified, signs no INTENT in this one."""
    first, second = two(assembly)
    state = intending(assembly, first)
    for ahead, mine, others, goes_on in (
        ({}, "AB", {}, False),
        ({}, "AB", {"intents": "C"}, False),
        ({}, "AB", {"intents": "CD"}, True),
        ({"D": 2}, "AB", {"intents": "C"}, True),
        ({"D": 2}, "AB", {}, False),
        ({"D": 1}, "AB", {}, False),
        ({}, "ABC", {"ratified": "BC"}, True),
        ({}, "ABC", {"ratified": "B"}, False),
        ({}, "A", {"intents": "BC"}, False),
        ({}, "A", {"intents": "BC", "objection": "no"}, True),
    ):
        tally = with_votes(round_of(assembly.tally, 1, A, B, **ahead), first, 1, intents=mine)
        tally = with_votes(tally, second, 1, **others)
        answer = next_vote(state, tally, A.id, first)
        assert (isinstance(answer, Intent) or "was split" in waits(answer)) == goes_on, (ahead, mine, others, answer)


def test_a_waiting_member_is_told_for_which_members_it_waits(assembly: Assembly) -> None:
    first, _ = two(assembly)
    names = {who: who.inception.label for who in SEATS}
    state = intending(assembly, first)

    def told(tally: Tally, *readings: Ratify, **change: Any) -> str:
        tally = with_votes(tally, first, 1, intents="AB", **change)
        return waits(next_vote(replace(state, ratified=readings), tally, A.id, first))

    alone = round_of(assembly.tally, 1, A)
    assert told(alone) == f"round 1 is open: wait for {names[B]}, {names[C]}, {names[D]}"
    tally = round_of(assembly.tally, 1, A, B, C)
    assert told(tally) == f"round 1 is open: wait for {names[D]}, or decide not to wait for them"
    everybody = round_of(assembly.tally, 1, *SEATS)
    assert told(everybody) == "round 1 is open: wait for the others, or decide not to wait for them"
    newcomer = seat("ZZ", CLASSICAL)
    missing = {"missing": (newcomer.member,)}
    assert told(tally, certified_rounds=(1,), **missing) == f"wait for the consent of {newcomer.inception.label}"
    assert told(tally, **missing).startswith("round 1 is open")
    assert told(tally, certified_rounds=(1,)).startswith("round 1 is open")
    ready = {"certified_rounds": (1,), "ready_rounds": (1,), "ratified": "AB"}
    mine = Ratify(A.id, assembly.body.digest, 1, 1, first.digest)
    assert told(tally, mine, **ready) == f"ratified in round 1: wait for {names[C]}, {names[D]}"


def test_a_member_ratifies_in_no_round_before_its_own_and_where_most_others_did(assembly: Assembly) -> None:
    first, _ = two(assembly)
    (lead, *others) = assembly.tally.drafts
    ratified = {2: frozenset({B.id}), 3: frozenset({B.id, C.id}), 4: frozenset({B.id})}
    lead = replace(lead, certified_rounds=(2, 3, 4), ready_rounds=(2, 3, 4), ratified=ratified)
    tally = replace(assembly.tally, drafts=(lead, *others))
    is_ratify(next_vote(intending(assembly, first, 1), tally, A.id, first), 3)
    is_ratify(next_vote(intending(assembly, first, 3), tally, A.id, first), 3)
    is_ratify(next_vote(intending(assembly, first, 4), tally, A.id, first), 4)
    answer = next_vote(intending(assembly, first, 5), tally, A.id, first)
    assert not isinstance(answer, Ratify)


def test_a_lock_opens_with_a_certificate_that_unlocks_and_no_earlier_one(assembly: Assembly) -> None:
    first, second = two(assembly)
    ratified = (Ratify(A.id, assembly.body.digest, 1, 2, first.digest),)
    drafts = tuple(replace(each, certified_rounds=(1, 2, 4)) for each in assembly.tally.drafts)
    tally = replace(assembly.tally, drafts=drafts)
    state = VoteState(assembly.body.digest, (), ratified)
    for body, unlock in ((first, 2), (second, 4)):
        voted = replace(state, intents=(Intent(A.id, assembly.body.digest, 1, 5, body.digest),))
        answer = next_vote(voted, round_of(tally, 5, A, B), A.id, body, stalled=True)
        assert is_intent(answer, 6).unlock == unlock


def test_a_person_may_approve_another_body_than_in_the_round_that_is_open(assembly: Assembly) -> None:
    first, second = two(assembly)
    before, now = (Intent(A.id, assembly.body.digest, 1, at, body.digest) for at, body in ((1, first), (2, second)))
    state = VoteState(assembly.body.digest, (before, now))
    tally = round_of(assembly.tally, 2, A, B)
    is_intent(next_vote(state, tally, A.id, first), 3)
    waits(next_vote(state, tally, A.id, second))


def test_no_vote_is_advised_for_a_decided_or_disputed_body(assembly: Assembly) -> None:
    body, rival = change(assembly.body), change(assembly.body, 2)
    assert waits(next_vote(VoteState(assembly.body.digest), assembly.tally, A.id, body)).startswith(
        "no member has proposed"
    )
    certificate = assembly.decide(body)
    current = assembly.tally
    assert waits(next_vote(VoteState(body.digest), current, A.id, body)) == "this is already the current charter"
    open_ = assembly.put(change(body))
    tally = replace(assembly.tally, forks=(Fork(certificate, replace(certificate, body=rival), retired=False),))
    assert "two certificates" in waits(next_vote(VoteState(body.digest), tally, A.id, open_))
