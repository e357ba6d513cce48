"""Which pairs of votes are an equivocation, and the proof of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from comity.trust.charter.equivocation import (
    KINDS,
    MAX_PROOFS,
    EquivocationProof,
    check_equivocation,
    check_misbehaviour,
    find_equivocations,
    misbehaviour_statement,
    parse_misbehaviour,
)
from comity.trust.charter.tally import compute_tally
from comity.trust.charter.votes import Vote, parse_vote
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.rotation import follow
from comity.trust.statement import Entry, parse_entry, sign_statement
from support.assembly import Assembly, change, members
from support.rotations import of, seated
from support.world import Identity

SEATS = members(4)
A, B, C, D = SEATS


@pytest.fixture
def room() -> Assembly:
    return Assembly(SEATS)


def votes_read(room: Assembly) -> dict[Vote, Entry]:
    return {parse_vote(entry): entry for entry in room.lines}


def lies(room: Assembly) -> tuple[EquivocationProof, ...]:
    """The equivocations that the votes show; each proof is valid by itself, with its two lines in either order."""
    found = find_equivocations(votes_read(room))
    for lie in found:
        owner = next(who for who in SEATS if who.id == lie.member)
        assert check_equivocation(lie.kind, lie.first, lie.second, owner.member.keys) == lie
        accused = parse_misbehaviour(sign_statement(misbehaviour_statement(lie, B.inception.author), B.signer))
        lines = {sha256(line): line for line in (lie.first, lie.second)}
        assert check_misbehaviour(accused, lines, owner.member.keys) == lie
    shown = compute_tally(room.body, reversed(room.lines), {}).equivocations
    assert {(lie.kind, lie.member) for lie in shown} == {(lie.kind, lie.member) for lie in found}
    return found


def kinds(room: Assembly) -> list[str]:
    return [lie.kind for lie in lies(room)]


def test_two_intents_of_one_round_are_an_equivocation(room: Assembly) -> None:
    room.intent(A, change(room.body, 1))
    assert kinds(room) == []
    room.intent(A, change(room.body, 1))
    assert kinds(room) == []
    room.intent(A, change(room.body, 2))
    assert kinds(room) == ["intents"]


def test_two_intents_for_one_body_with_different_pasts_are_an_equivocation(room: Assembly) -> None:
    body, other = change(room.body, 1), change(room.body, 2)
    room.intent(A, body, 3, last=(1, other), unlock=2)
    room.intent(A, body, 3, last=(1, body), unlock=2)
    assert kinds(room) == ["intents"]


def test_two_ratifys_of_one_round_are_an_equivocation(room: Assembly) -> None:
    room.ratify(A, change(room.body, 1))
    room.ratify(A, change(room.body, 2), 2)
    assert kinds(room) == []
    room.ratify(A, change(room.body, 2))
    assert kinds(room) == ["ratified"]


@pytest.mark.parametrize(
    ("last", "lied"),
    [
        (None, True),
        ((1, 1), True),
        ((2, 1), False),
        ((2, 2), True),
        ((3, 1), False),
        ((3, 2), False),
    ],
)
def test_an_intent_declares_the_earlier_ratify(room: Assembly, last: tuple[int, int] | None, lied: bool) -> None:
    """RATIFY (2, body 1), then an INTENT of round 4."""
    room.ratify(A, change(room.body, 1), 2)
    said = (last[0], change(room.body, last[1])) if last else None
    room.intent(A, change(room.body, 1), 4, last=said, unlock=3 if last else None)
    assert kinds(room) == (["lock"] if lied else [])


def test_the_newest_ratify_before_an_intent_is_the_one_that_it_must_declare(room: Assembly) -> None:
    for at in (1, 2, 3, 6):
        room.ratify(A, change(room.body, at), at)
    room.intent(A, change(room.body, 3), 5, last=(2, change(room.body, 2)), unlock=4)
    (proof,) = lies(room)
    assert parse_vote(parse_entry(proof.second)).round == 3
    room.intent(A, change(room.body, 3), 4, last=(3, change(room.body, 3)))
    room.intent(A, change(room.body, 1), 1)
    assert len(lies(room)) == 1, "the intent of round 4 declares it, and before round 1 there is none"


def test_of_two_ratifys_in_one_round_an_intent_declares_one_at_most(room: Assembly) -> None:
    for number in (1, 2):
        room.ratify(A, change(room.body, number), 2)
        room.intent(A, change(room.body, number), 2)
    for number in (1, 2):
        room.intent(A, change(room.body, number), 3 + number, last=(2, change(room.body, number)))
    assert sorted(kinds(room)) == ["intents", "lock", "lock", "ratified"]


def test_three_votes_of_one_round_are_one_equivocation(room: Assembly) -> None:
    for number in (1, 2, 3):
        room.intent(A, change(room.body, number), 2)
        room.ratify(A, change(room.body, number), 3)
    assert kinds(room) == ["intents", "ratified"]


def test_votes_of_other_kinds_and_rounds_hide_no_equivocation(room: Assembly) -> None:
    body = change(room.body, 9)
    room.ratify(A, body, 1)
    room.intent(A, body, 2, last=(1, body))
    room.intent(A, body, 3, last=(1, body))
    for number in (1, 2):
        room.ratify(A, change(room.body, number), 2)
        room.intent(A, change(room.body, number), 4, last=(2, change(room.body, 2)))
    assert {"intents", "ratified"} <= set(kinds(room))


def test_the_members_and_rounds_of_the_proofs_ascend(room: Assembly) -> None:
    for who in reversed(SEATS):
        for at in (3, 1, 2):
            for number in (1, 2):
                room.ratify(who, change(room.body, number), at)
    found = [(lie.member, parse_vote(parse_entry(lie.first)).round) for lie in lies(room)]
    assert found == [(who.id, at) for who in SEATS for at in (1, 2, 3)]


VOTES: dict[str, Callable[[Assembly], Entry]] = {
    "INTENT 1 a": lambda room: room.intent(A, change(room.body, 1)),
    "INTENT 1 b": lambda room: room.intent(A, change(room.body, 2)),
    "INTENT 2 a": lambda room: room.intent(A, change(room.body, 1), 2),
    "RATIFY 1 a": lambda room: room.ratify(A, change(room.body, 1)),
    "RATIFY 1 b": lambda room: room.ratify(A, change(room.body, 2)),
    "RATIFY 2 a": lambda room: room.ratify(A, change(room.body, 1), 2),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("second", VOTES)
@pytest.mark.parametrize("first", VOTES)
def test_two_lines_prove_one_kind_in_one_order(room: Assembly, first: str, second: str, kind: str) -> None:
    one, other = VOTES[first](room).line, VOTES[second](room).line
    (predicate, at, body), (predicate_, at_, body_) = first.split(), second.split()
    twice = predicate == predicate_ and at == at_ and body != body_
    proven = {
        "intents": twice and predicate == "INTENT",
        "ratified": twice and predicate == "RATIFY",
        "lock": (predicate, predicate_) == ("INTENT", "RATIFY") and at_ < at,
    }[kind]
    if proven:
        assert check_equivocation(kind, one, other, A.member.keys).member == A.id
    else:
        with pytest.raises(Untrusted, match="an honest member may sign both"):
            check_equivocation(kind, one, other, A.member.keys)


def test_an_honest_member_may_intend_one_body_and_ratify_another_in_one_round(room: Assembly) -> None:
    room.intent(A, change(room.body, 1), 2)
    room.ratify(A, change(room.body, 2), 2)
    assert kinds(room) == []


def test_votes_of_two_members_are_no_equivocation_of_either(room: Assembly) -> None:
    room.intent(A, change(room.body, 1))
    room.intent(B, change(room.body, 2))
    assert kinds(room) == []


def test_votes_about_two_charters_are_no_equivocation(room: Assembly) -> None:
    first = change(room.body, 1)
    entries = [room.ratify(A, first), room.ratify(A, change(first, 2))]
    with pytest.raises(Untrusted):
        check_equivocation("ratified", entries[0].line, entries[1].line, A.member.keys)


def test_only_a_few_equivocations_of_a_member_are_shown(room: Assembly) -> None:
    for at in range(1, 4 * MAX_PROOFS):
        for number in (1, 2, 3):
            room.ratify(A, change(room.body, number), at)
    assert kinds(room) == ["ratified"] * MAX_PROOFS


def test_a_rotation_does_not_undo_an_equivocation(room: Assembly) -> None:
    begun = seated(A.member, of(A))
    second, rotation = begun.to("second")
    one = room.ratify(A, change(room.body, 1))
    other = room.ratify(Identity(A.inception, second.keys[0], A.entry), change(room.body, 2))
    room.lines.append(rotation)
    (lie,) = room.tally.equivocations
    chain = follow(begun.state, [rotation])
    assert {lie.first, lie.second} == {one.line, other.line}
    assert check_equivocation(lie.kind, lie.first, lie.second, chain) == lie
    with pytest.raises(Untrusted, match="not signed"):
        check_equivocation(lie.kind, lie.first, lie.second, A.member.keys)


@pytest.mark.parametrize(
    "change_",
    [
        pytest.param({"kind": "intents"}, id="of another kind"),
        pytest.param({"kind": "lock"}, id="of another kind still"),
        pytest.param({"kind": "treason"}, id="of no kind"),
        pytest.param({"second": b"junk"}, id="with junk"),
        pytest.param({"first": 1, "second": 1}, id="with one line twice"),
    ],
)
def test_an_invalid_proof_of_equivocation_accuses_no_member(room: Assembly, change_: dict[str, Any]) -> None:
    one, other = (room.ratify(A, change(room.body, number)).line for number in (1, 2))
    proof: dict[str, Any] = {"kind": "ratified", "first": one, "second": other}
    check_equivocation(**proof, keys=A.member.keys)
    wrong = {name: one if value == 1 else value for name, value in change_.items()}
    with pytest.raises((Untrusted, Malformed)):
        check_equivocation(**{**proof, **wrong}, keys=A.member.keys)


def test_no_member_is_accused_of_anothers_signature(room: Assembly) -> None:
    mask = Identity(A.inception, B.signer, A.entry)
    one, other = (room.ratify(mask, change(room.body, number)).line for number in (1, 2))
    with pytest.raises(Untrusted, match="not signed"):
        check_equivocation("ratified", one, other, A.member.keys)
    assert room.tally.equivocations == ()


def test_an_accusation_has_both_lines_and_names_the_member(room: Assembly) -> None:
    one, other = (room.ratify(A, change(room.body, number)).line for number in (1, 2))
    lie = check_equivocation("ratified", one, other, A.member.keys)
    statement = misbehaviour_statement(lie, B.inception.author)
    assert (statement.predicate, statement.subject) == ("misbehaviour", A.id)
    assert [side.digest for side in statement.objects] == [sha256(one), sha256(other)]
    accused = parse_misbehaviour(sign_statement(statement, B.signer))
    lines = {sha256(line): line for line in (one, other)}
    for wrong, at_hand in (
        (accused, {}),
        (accused, {sha256(one): one, sha256(other): one}),
        (replace(accused, member=B.id), lines),
        (replace(accused, prev=B.id), lines),
        (replace(accused, kind="intents"), lines),
        (accused, {accused.first: other, accused.second: one}),
    ):
        with pytest.raises((Untrusted, Malformed)):
            check_misbehaviour(wrong, at_hand, A.member.keys)
    for other_statement in (
        replace(statement, objects=statement.objects[:1]),
        replace(statement, objects=statement.objects[::-1]),
        replace(statement, body={**statement.body, "kind": "treason"}),
        replace(statement, predicate="advisory"),
        replace(statement, predicate="draft"),
        replace(statement, body={**statement.body, "note": "more"}),
    ):
        with pytest.raises(Malformed):
            parse_misbehaviour(sign_statement(other_statement, B.signer))
