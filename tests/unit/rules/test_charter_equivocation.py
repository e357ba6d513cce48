"""Which pairs of votes are an equivocation, and the proof of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from comity.rules.equivocation import (
    KINDS,
    MAX_PROOFS,
    EquivocationClaim,
    EquivocationProof,
    check_equivocation,
    check_misbehaviour,
    find_equivocations,
    misbehaviour_statement,
)
from comity.rules.tally import compute_tally
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
def assembly() -> Assembly:
    return Assembly(SEATS)


def votes_read(assembly: Assembly) -> dict[Vote, Entry]:
    return {parse_vote(entry): entry for entry in assembly.lines}


def lies(assembly: Assembly) -> tuple[EquivocationProof, ...]:
    """The equivocations that the votes show; each proof is valid by itself, with its two lines in either order."""
    found = find_equivocations(votes_read(assembly))
    for lie in found:
        owner = next(who for who in SEATS if who.id == lie.member)
        assert check_equivocation(lie.kind, lie.first, lie.second, owner.member.keys) == lie
        accused = EquivocationClaim.parse(
            sign_statement(misbehaviour_statement(lie, B.inception.author), B.signer).statement
        )
        lines = {sha256(line): line for line in (lie.first, lie.second)}
        assert check_misbehaviour(accused, lines, owner.member.keys) == lie
    shown = compute_tally(assembly.body, reversed(assembly.lines), {}).equivocations
    assert {(lie.kind, lie.member) for lie in shown} == {(lie.kind, lie.member) for lie in found}
    return found


def kinds(assembly: Assembly) -> list[str]:
    return [lie.kind for lie in lies(assembly)]


def test_two_intents_of_one_round_are_an_equivocation(assembly: Assembly) -> None:
    assembly.intent(A, change(assembly.body, 1))
    assert kinds(assembly) == []
    assembly.intent(A, change(assembly.body, 1))
    assert kinds(assembly) == []
    assembly.intent(A, change(assembly.body, 2))
    assert kinds(assembly) == ["intents"]


def test_two_intents_for_one_body_with_different_pasts_are_an_equivocation(assembly: Assembly) -> None:
    body, other = change(assembly.body, 1), change(assembly.body, 2)
    assembly.intent(A, body, 3, last=(1, other), unlock=2)
    assembly.intent(A, body, 3, last=(1, body), unlock=2)
    assert kinds(assembly) == ["intents"]


def test_two_ratifys_of_one_round_are_an_equivocation(assembly: Assembly) -> None:
    assembly.ratify(A, change(assembly.body, 1))
    assembly.ratify(A, change(assembly.body, 2), 2)
    assert kinds(assembly) == []
    assembly.ratify(A, change(assembly.body, 2))
    assert kinds(assembly) == ["ratified"]


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
def test_an_intent_declares_the_earlier_ratify(assembly: Assembly, last: tuple[int, int] | None, lied: bool) -> None:
    """RATIFY (2, body 1), then an INTENT of round 4."""
    assembly.ratify(A, change(assembly.body, 1), 2)
    said = (last[0], change(assembly.body, last[1])) if last else None
    assembly.intent(A, change(assembly.body, 1), 4, last=said, unlock=3 if last else None)
    assert kinds(assembly) == (["lock"] if lied else [])


def test_the_newest_ratify_before_an_intent_is_the_one_that_it_must_declare(assembly: Assembly) -> None:
    for at in (1, 2, 3, 6):
        assembly.ratify(A, change(assembly.body, at), at)
    assembly.intent(A, change(assembly.body, 3), 5, last=(2, change(assembly.body, 2)), unlock=4)
    (proof,) = lies(assembly)
    assert parse_vote(parse_entry(proof.second)).round == 3
    assembly.intent(A, change(assembly.body, 3), 4, last=(3, change(assembly.body, 3)))
    assembly.intent(A, change(assembly.body, 1), 1)
    assert len(lies(assembly)) == 1, "the intent of round 4 declares it, and before round 1 there is none"


def test_of_two_ratifys_in_one_round_an_intent_declares_one_at_most(assembly: Assembly) -> None:
    for number in (1, 2):
        assembly.ratify(A, change(assembly.body, number), 2)
        assembly.intent(A, change(assembly.body, number), 2)
    for number in (1, 2):
        assembly.intent(A, change(assembly.body, number), 3 + number, last=(2, change(assembly.body, number)))
    assert sorted(kinds(assembly)) == ["intents", "lock", "lock", "ratified"]


def test_three_votes_of_one_round_are_one_equivocation(assembly: Assembly) -> None:
    for number in (1, 2, 3):
        assembly.intent(A, change(assembly.body, number), 2)
        assembly.ratify(A, change(assembly.body, number), 3)
    assert kinds(assembly) == ["intents", "ratified"]


def test_votes_of_other_kinds_and_rounds_hide_no_equivocation(assembly: Assembly) -> None:
    body = change(assembly.body, 9)
    assembly.ratify(A, body, 1)
    assembly.intent(A, body, 2, last=(1, body))
    assembly.intent(A, body, 3, last=(1, body))
    for number in (1, 2):
        assembly.ratify(A, change(assembly.body, number), 2)
        assembly.intent(A, change(assembly.body, number), 4, last=(2, change(assembly.body, 2)))
    assert {"intents", "ratified"} <= set(kinds(assembly))


def test_the_members_and_rounds_of_the_proofs_ascend(assembly: Assembly) -> None:
    for who in reversed(SEATS):
        for at in (3, 1, 2):
            for number in (1, 2):
                assembly.ratify(who, change(assembly.body, number), at)
    found = [(lie.member, parse_vote(parse_entry(lie.first)).round) for lie in lies(assembly)]
    assert found == [(who.id, at) for who in SEATS for at in (1, 2, 3)]


VOTES: dict[str, Callable[[Assembly], Entry]] = {
    "INTENT 1 a": lambda assembly: assembly.intent(A, change(assembly.body, 1)),
    "INTENT 1 b": lambda assembly: assembly.intent(A, change(assembly.body, 2)),
    "INTENT 2 a": lambda assembly: assembly.intent(A, change(assembly.body, 1), 2),
    "RATIFY 1 a": lambda assembly: assembly.ratify(A, change(assembly.body, 1)),
    "RATIFY 1 b": lambda assembly: assembly.ratify(A, change(assembly.body, 2)),
    "RATIFY 2 a": lambda assembly: assembly.ratify(A, change(assembly.body, 1), 2),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("second", VOTES)
@pytest.mark.parametrize("first", VOTES)
def test_two_lines_prove_one_kind_in_one_order(assembly: Assembly, first: str, second: str, kind: str) -> None:
    one, other = VOTES[first](assembly).line, VOTES[second](assembly).line
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


def test_an_honest_member_may_intend_one_body_and_ratify_another_in_one_round(assembly: Assembly) -> None:
    assembly.intent(A, change(assembly.body, 1), 2)
    assembly.ratify(A, change(assembly.body, 2), 2)
    assert kinds(assembly) == []


def test_votes_of_two_members_are_no_equivocation_of_either(assembly: Assembly) -> None:
    assembly.intent(A, change(assembly.body, 1))
    assembly.intent(B, change(assembly.body, 2))
    assert kinds(assembly) == []


def test_votes_about_two_charters_are_no_equivocation(assembly: Assembly) -> None:
    first = change(assembly.body, 1)
    entries = [assembly.ratify(A, first), assembly.ratify(A, change(first, 2))]
    with pytest.raises(Untrusted):
        check_equivocation("ratified", entries[0].line, entries[1].line, A.member.keys)


def test_only_a_few_equivocations_of_a_member_are_shown(assembly: Assembly) -> None:
    for at in range(1, 4 * MAX_PROOFS):
        for number in (1, 2, 3):
            assembly.ratify(A, change(assembly.body, number), at)
    assert kinds(assembly) == ["ratified"] * MAX_PROOFS


def test_a_rotation_does_not_undo_an_equivocation(assembly: Assembly) -> None:
    begun = seated(A.member, of(A))
    second, rotation = begun.to("second")
    one = assembly.ratify(A, change(assembly.body, 1))
    other = assembly.ratify(Identity(A.inception, second.keys[0], A.entry), change(assembly.body, 2))
    assembly.lines.append(rotation)
    (lie,) = assembly.tally.equivocations
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
def test_an_invalid_proof_of_equivocation_accuses_no_member(assembly: Assembly, change_: dict[str, Any]) -> None:
    one, other = (assembly.ratify(A, change(assembly.body, number)).line for number in (1, 2))
    proof: dict[str, Any] = {"kind": "ratified", "first": one, "second": other}
    check_equivocation(**proof, keys=A.member.keys)
    wrong = {name: one if value == 1 else value for name, value in change_.items()}
    with pytest.raises((Untrusted, Malformed)):
        check_equivocation(**{**proof, **wrong}, keys=A.member.keys)


def test_no_member_is_accused_of_anothers_signature(assembly: Assembly) -> None:
    mask = Identity(A.inception, B.signer, A.entry)
    one, other = (assembly.ratify(mask, change(assembly.body, number)).line for number in (1, 2))
    with pytest.raises(Untrusted, match="not signed"):
        check_equivocation("ratified", one, other, A.member.keys)
    assert assembly.tally.equivocations == ()


def test_an_accusation_has_both_lines_and_names_the_member(assembly: Assembly) -> None:
    one, other = (assembly.ratify(A, change(assembly.body, number)).line for number in (1, 2))
    lie = check_equivocation("ratified", one, other, A.member.keys)
    statement = misbehaviour_statement(lie, B.inception.author)
    assert (statement.predicate, statement.subject) == ("misbehaviour", A.id)
    assert [side.digest for side in statement.objects] == [sha256(one), sha256(other)]
    accused = EquivocationClaim.parse(sign_statement(statement, B.signer).statement)
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
            EquivocationClaim.parse(sign_statement(other_statement, B.signer).statement)
