"""What makes an epoch: q RATIFYs of one (round, body), their intent-certificates, and consents. Four members, q = 3."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest
from comity.trust.charter.certificate import (
    MAX_LINES,
    Certificate,
    StatementSet,
    ValidVotes,
    assemble,
    certify,
    consenting,
    decide,
)
from comity.trust.charter.document import Body, CharterPolicy, draft
from comity.trust.charter.votes import consent, parse_body_statement, parse_vote
from comity.trust.errors import Malformed, Untrusted
from comity.trust.identity import Inception, KeySet, sign_inception
from comity.trust.keys import PublicKey
from comity.trust.rotation import Rotation, RotationChains, follow, parse_rotation, rotate
from comity.trust.statement import Entry, Envelope, Statement, Subject, parse_entry, sign_payload, sign_statement
from support.assembly import CLASSICAL, Assembly, change, found, members, reseated
from support.rotations import of, seated
from support.world import Identity, seat, signer

SEATS = members(4)
A, B, C, D = SEATS
NEWCOMER = seat("ZZ", CLASSICAL)


@pytest.fixture
def room() -> Assembly:
    return Assembly(SEATS)


@pytest.fixture
def body(room: Assembly) -> Body:
    return room.put(change(room.body))


def lines(room: Assembly) -> list[bytes]:
    return [entry.line for entry in room.lines]


def refusal(room: Assembly, body: Body, *, code: str = "CHARTER-QUORUM") -> str:
    """The reason why the statements of the assembly are no certificate, the same from `certify` and from `assemble`."""
    assert assemble(room.body, body, room.lines) is None
    with pytest.raises(Untrusted) as caught:
        certify(room.body, body, lines(room))
    assert caught.value.code == code
    return caught.value.why


def certified(room: Assembly, body: Body) -> Certificate:
    """The certificate that the statements of the assembly make."""
    made = assemble(room.body, body, reversed(room.lines))
    assert made is not None
    assert certify(room.body, body, reversed(made.lines)).body == body
    assert certify(room.body, body, lines(room)).body == body
    return made


def vote(room: Assembly, body: Body, *who: Identity, at: int = 1) -> None:
    for member in who:
        room.intent(member, body, at)
        room.ratify(member, body, at)


def spoken(made: Certificate, predicate: str) -> list[Entry]:
    entries = [parse_entry(line) for line in made.lines]
    return [entry for entry in entries if entry.statement.predicate == predicate]


def test_a_quorum_that_intends_and_ratifies_makes_an_epoch(room: Assembly, body: Body) -> None:
    vote(room, body, A, B, C)
    assert len(certified(room, body).lines) == 6


def test_fewer_members_make_no_epoch_by_signing_often(room: Assembly, body: Body) -> None:
    for _ in range(3):
        vote(room, body, A, B)
    assert refusal(room, body).startswith(f"2 of 3 members (not {C.inception.label}, {D.inception.label})")


def test_ratifys_of_different_rounds_do_not_add_up(room: Assembly, body: Body) -> None:
    for at in (1, 2):
        for who in SEATS:
            room.intent(who, body, at)
    room.ratify(A, body, 1)
    room.ratify(B, body, 1)
    room.ratify(C, body, 2)
    room.ratify(D, body, 2)
    refusal(room, body)


def test_ratifys_of_different_bodies_do_not_add_up(room: Assembly, body: Body) -> None:
    other = change(room.body, 2)
    for who in SEATS:
        room.intent(who, body)
        room.intent(who, other)
    for who, what in zip(SEATS, (body, body, other, other), strict=True):
        room.ratify(who, what)
    refusal(room, body)
    refusal(room, other)


def test_a_ratify_counts_only_with_its_intent_certificate(room: Assembly, body: Body) -> None:
    for who in SEATS:
        room.ratify(who, body)
    room.intent(A, body)
    room.intent(B, body)
    refusal(room, body, code="CHARTER-INTENT")
    room.intent(C, body, 2)
    refusal(room, body, code="CHARTER-INTENT")
    room.intent(D, change(room.body, 2))
    refusal(room, body, code="CHARTER-INTENT")
    room.intent(D, body)
    certified(room, body)


def test_an_intent_counts_only_with_the_certificate_that_it_names(room: Assembly, body: Body) -> None:
    other = change(room.body, 2)
    room.intent(A, body, 3, last=(1, other), unlock=2)
    room.intent(B, body, 3)
    room.intent(C, body, 3)
    for who in (A, B, C):
        room.ratify(who, body, 3)
    refusal(room, body, code="CHARTER-INTENT")
    for who in (B, C, D):
        room.intent(who, other, 2)
    refusal(room, body, code="CHARTER-INTENT")
    for who in (B, C, D):
        room.intent(who, body, 2)
    assert len(certified(room, body).lines) == 9


def test_certificates_are_carried_for_every_round_that_is_named(room: Assembly, body: Body) -> None:
    other = change(room.body, 2)
    for who in (B, C, D):
        room.intent(who, body, 2)
    for who in SEATS:
        room.intent(who, body, 4, last=(1, other), unlock=2)
    for who in SEATS:
        room.intent(who, body, 6, last=(3, other), unlock=4)
        room.ratify(who, body, 6)
    made = certified(room, body)
    assert len(made.lines) == 4 * 3
    for line in made.lines:
        without = [other_line for other_line in made.lines if other_line != line]
        with pytest.raises(Untrusted):
            certify(room.body, body, without)


@pytest.mark.parametrize(("last", "unlock"), [((1, 0), None), ((1, 0), 1), (None, 1), ((3, 0), 2), ((2, 1), 1)])
def test_a_void_intent_counts_for_nothing(
    room: Assembly, body: Body, last: tuple[int, int] | None, unlock: int | None
) -> None:
    other = change(room.body, 2)
    for at in (1, 2):
        for who in SEATS:
            room.intent(who, body, at)
    for who in (A, B, C):
        room.intent(who, body, 3, last=(last[0], (other, body)[last[1]]) if last else None, unlock=unlock)
        room.ratify(who, body, 3)
    refusal(room, body, code="CHARTER-INTENT")


def test_a_member_that_equivocates_counts_once_and_invalidates_nothing(room: Assembly, body: Body) -> None:
    other = change(room.body, 2)
    vote(room, other, A)
    for who in (A, B, C):
        room.intent(who, body)
    room.ratify(A, body)
    room.ratify(A, body)
    room.ratify(B, body)
    refusal(room, body)
    room.ratify(C, body)
    certified(room, body)


def test_unrelated_lines_change_nothing(room: Assembly, body: Body) -> None:
    vote(room, body, A, B, C)
    certify(room.body, body, [b"", b"{}", b"junk\n", *lines(room), A.entry.line])
    assert len(certified(room, body).lines) == 6


def test_no_member_votes_for_another_or_without_a_vote(room: Assembly, body: Body) -> None:
    vote(room, body, A, B)
    stranger = replace_signer(C, signer("a thief", CLASSICAL))
    vote(room, body, stranger, NEWCOMER)
    refusal(room, body)


def test_an_observer_has_no_vote() -> None:
    before = members(5)
    start = reseated(found(before), [replace(before[0].member, status="observer"), *(w.member for w in before[1:])])
    room = Assembly(before)
    room.body = start
    body = change(start)
    vote(room, body, before[0], before[1], before[2])
    refusal(room, body)
    vote(room, body, before[3])
    certified(room, body)


@pytest.mark.parametrize("wrong", [{"epoch": 2}, {"prev": change(found(SEATS), 9).digest}])
def test_votes_about_another_charter_do_not_count(room: Assembly, body: Body, wrong: dict[str, Any]) -> None:
    vote(room, body, A, B)
    for make in (room.intent, room.ratify):
        right = make(C, body)
        room.lines.remove(right)
        room.say(C, replace(parse_vote(right), **wrong))
    refusal(room, body)


def test_a_newcomer_agrees_with_all_its_keys(room: Assembly) -> None:
    keys = [signer(f"new {at}", CLASSICAL) for at in range(3)]
    record = Inception("member", KeySet(tuple(key.public for key in keys), 2), (), "", "ZZ", "Newcomer")
    member = replace(NEWCOMER.member, id=record.id, name="Newcomer", keys=record.keys, recovery=())
    body = reseated(room.body, [*(who.member for who in SEATS), member])
    room.lines.append(sign_inception(record, *keys))
    vote(room, body, *SEATS)
    assert "Newcomer" in refusal(room, body, code="CHARTER-CONSENT")
    room.lines.append(consent(body, record.id, *keys[:2]))
    refusal(room, body, code="CHARTER-CONSENT")
    room.lines.append(consent(change(room.body), record.id, *keys))
    refusal(room, body, code="CHARTER-CONSENT")
    room.lines.append(consent(body, record.id, *keys))
    made = certified(room, body)
    assert (len(spoken(made, "inception")), len(spoken(made, "consented"))) == (1, 1)


def test_a_newcomer_without_a_vote_agrees_too(room: Assembly) -> None:
    body = reseated(room.body, [*(who.member for who in SEATS), replace(NEWCOMER.member, status="observer")])
    vote(room, body, *SEATS)
    refusal(room, body, code="CHARTER-INCEPTION")
    room.lines.append(NEWCOMER.entry)
    refusal(room, body, code="CHARTER-CONSENT")
    room.consent(NEWCOMER, body)
    certified(room, body)


def test_a_new_set_accepts_by_its_own_quorum(room: Assembly) -> None:
    """A draft that requires all four members from now on needs all four, though three may change the charter today."""
    body = draft(room.body, policy=CharterPolicy(4, 1, 1, 0))
    vote(room, body, A, B, C)
    assert refusal(room, body) == "3 of its own members accepted it, not 4"
    vote(room, body, D)
    assert len(spoken(certified(room, body), "ratified")) == 4


def test_members_that_leave_do_not_accept_for_those_who_stay() -> None:
    room = Assembly.of(7)
    body = reseated(room.body, [who.member for who in room.seats[2:]])
    vote(room, body, *room.seats[:5])
    assert body.quorum == 4
    refusal(room, body)
    vote(room, body, room.seats[5])
    assert len(spoken(certified(room, body), "ratified")) == 5


def test_the_members_before_decide_by_their_own_quorum() -> None:
    """Neither the number of newcomers nor a new policy lowers the quorum for this change."""
    room = Assembly(members(4))
    room.body = found(SEATS, quorum_change=4)
    body = reseated(room.body, [*(who.member for who in SEATS), NEWCOMER.member])
    room.consent(NEWCOMER, body)
    vote(room, body, A, B, C)
    refusal(room, body)
    vote(room, body, D)
    certified(room, body)


def test_an_observer_that_gets_a_vote_accepts_by_consent() -> None:
    room = Assembly.of(5)
    watched = [replace(who.member, status="observer") if who in room.seats[:2] else who.member for who in room.seats]
    room.body = reseated(found(room.seats), watched)
    body = reseated(room.body, [who.member for who in room.seats])
    vote(room, body, *room.seats[2:])
    refusal(room, body)
    room.consent(room.seats[0], body)
    certified(room, body)


def test_readings_count_under_keys_that_rotations_inside_reach(room: Assembly, body: Body) -> None:
    begun = seated(C.member, of(C))
    second, rotation = begun.to("second")
    vote(room, body, A, B, replace_signer(C, second.keys[0]))
    refusal(room, body)
    room.lines.append(rotation)
    made = certified(room, body)
    assert rotation.line in made.lines
    with pytest.raises(Untrusted):
        certify(room.body, body, [line for line in made.lines if line != rotation.line])


def test_readings_under_keys_of_the_body_before_count_though_they_were_rotated_away(room: Assembly, body: Body) -> None:
    rotation = seated(C.member, of(C)).to("second")[1]
    room.lines.append(rotation)
    vote(room, body, A, B, C)
    assert rotation.line not in certified(room, body).lines


def test_a_rotated_seat_carries_its_rotation_and_a_dispute_un_counts_nothing(room: Assembly) -> None:
    begun = seated(C.member, of(C))
    second, rotation = begun.to("second")
    moved = replace(C.member, keys=second.state.keys, recovery=second.state.recovery)
    body = reseated(room.body, [moved if who is C else who.member for who in SEATS])
    vote(room, body, A, B, D)
    refusal(room, body, code="CHARTER-REKEYED")
    room.lines.append(rotation)
    assert rotation.line in certified(room, body).lines
    room.lines.append(begun.to("elsewhere")[1])
    assert rotation.line in certified(room, body).lines


def test_as_few_lines_as_are_enough_make_a_certificate() -> None:
    room = Assembly.of(10)
    room.decide(change(room.body))
    body = reseated(room.body, [who.member for who in room.seats[1:]])
    for at in (1, 2, 3):
        vote(room, body, *room.seats, at=at)
    made = certified(room, body)
    assert (len(spoken(made, "intent")), len(spoken(made, "ratified"))) == (7, 7)
    again = assemble(room.body, body, [*room.lines, *room.lines])
    assert again == made


def test_a_certificate_is_bounded(room: Assembly, body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    vote(room, body, A, B, C)
    with pytest.raises(Malformed, match="too large"):
        certify(room.body, body, [*lines(room), *([b"x"] * MAX_LINES)])
    monkeypatch.setattr("comity.trust.charter.certificate.MAX_CERTIFICATE", 100)
    with pytest.raises(Malformed, match="too large"):
        certify(room.body, body, lines(room))
    assert assemble(room.body, body, room.lines) is None


def test_a_certificate_may_be_as_large_as_the_limit(
    room: Assembly, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.lines.clear()
    vote(room, body, A, B, C)
    size = sum(map(len, lines(room)))
    for lines_, bytes_, fits in ((6, size, True), (5, size, False), (6, size - 1, False)):
        monkeypatch.setattr("comity.trust.charter.certificate.MAX_LINES", lines_)
        monkeypatch.setattr("comity.trust.charter.certificate.MAX_CERTIFICATE", bytes_)
        assert (assemble(room.body, body, room.lines) is not None) == fits
        if fits:
            certify(room.body, body, lines(room))
        else:
            with pytest.raises(Malformed, match="too large"):
                certify(room.body, body, lines(room))


def test_the_earliest_round_that_is_decided_decides(room: Assembly, body: Body) -> None:
    for at in (10, 2, 11, 3):
        vote(room, body, A, B, C, at=at)
    vote(room, body, D, at=1)
    decision = decide(ValidVotes(room.body, StatementSet.sort(room.lines)), body)
    assert (decision.round, set(decision.ratified)) == (2, {A.id, B.id, C.id})


def test_of_rounds_without_a_quorum_the_fullest_is_named(room: Assembly, body: Body) -> None:
    vote(room, body, A, at=1)
    vote(room, body, A, B, at=2)
    vote(room, body, C, at=3)
    assert refusal(room, body).startswith("2 of 3 members")


def test_the_lines_of_a_certificate_are_in_the_order_of_members_and_name_no_more(room: Assembly, body: Body) -> None:
    room.lines += [who.entry for who in SEATS]
    vote(room, body, C, B, A)
    made = certified(room, body)
    voters = [parse_vote(parse_entry(line)).member for line in made.lines]
    assert voters == sorted(voters) and len(made.lines) == 6, "members before need no inception"


def test_a_vote_with_the_shortest_path_of_rotations_is_proven_by_it(room: Assembly, body: Body) -> None:
    """Each rotation may keep a key, so one signature verifies in several states."""
    begun = seated(C.member, of(C))
    second, rotation = begun.to("second")
    back = Rotation(C.id, 2, second.state.digest, begun.state.keys, ())
    again = rotate(second.state, back, second.recovery, begun.keys)
    room.lines += [rotation, again]
    vote(room, body, A, B, C)
    assert len(certified(room, body).lines) == 6


def test_states_that_a_vote_does_not_name_cost_it_nothing(room: Assembly, body: Body) -> None:
    """A member may rotate one state in as many ways as others log, and vote with the keys of each."""
    begun, checked = seated(C.member, of(C)), list[bytes]()
    for number in range(1, 9):
        after, rotation = begun.to(f"branch {number}")
        room.lines.append(rotation)
        room.intent(replace_signer(C, after.keys[0]), body, number)

    def signed(keys: KeySet, envelope: Envelope, more: Collection[PublicKey] = (), /) -> bool:
        checked.append(envelope.payload)
        return keys.signed(envelope, more)

    assert len(ValidVotes(room.body, StatementSet.sort(room.lines), signed).votes) == 8
    assert len(checked) == len(set(checked)) == 16


def test_rotations_count_up_to_a_limit(room: Assembly, body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = seated(C.member, of(C))
    second, first_rotation = begun.to("second")
    third, second_rotation = second.to("third")
    room.lines += [first_rotation, second_rotation, third.to("fourth")[1]]
    vote(room, body, A, B, replace_signer(C, third.keys[0]))
    assert len(certified(room, body).lines) == 8
    monkeypatch.setattr("comity.trust.charter.certificate.MAX_ROTATIONS_COUNTED", 1)
    refusal(room, body)
    vote(room, body, replace_signer(C, second.keys[0]))
    assert len(certified(room, body).lines) == 7


def test_a_member_with_a_vote_accepts_by_ratify_and_not_by_consent(room: Assembly) -> None:
    body = reseated(room.body, [A.member, D.member, NEWCOMER.member])
    body = draft(body.__class__.parse(room.body.data), members=body.members, policy=CharterPolicy(3, 1, 1, 0))
    room.consent(NEWCOMER, body)
    room.consent(D, body)
    vote(room, body, A, B, C)
    assert refusal(room, body) == "2 of its own members accepted it, not 3"
    vote(room, body, D)
    certified(room, body)


def test_consents_of_others_are_passed_over(room: Assembly, body: Body) -> None:
    vote(room, body, A, B, C)
    room.consent(NEWCOMER, body)
    assert NEWCOMER.id not in str(certified(room, body).lines)
    genesis = found(SEATS)
    assert consenting(genesis, StatementSet.read([consent(genesis, NEWCOMER.id, NEWCOMER.signer).line])) == frozenset()


def test_an_observer_consents_with_keys_that_its_seat_lists(room: Assembly) -> None:
    """Its inception does not make keys valid again that it rotated away before the charter."""
    begun = of(D)
    second, rotation = begun.to("second")
    seat_ = replace(D.member, keys=second.state.keys, recovery=second.state.recovery)
    seats = [seat_ if who is D else who.member for who in SEATS]
    room.body = reseated(room.body, [replace(each, status="observer") if each is seat_ else each for each in seats])
    body = draft(room.body, members=seats, policy=CharterPolicy(4, 1, 1, 0))
    room.lines += [D.entry, rotation]
    vote(room, body, A, B, C)
    for key, accepts in ((D.signer, False), (second.keys[0], True)):
        room.lines.append(consent(body, D.id, key))
        assert (assemble(room.body, body, room.lines) is not None) == accepts


def test_an_observer_of_several_keys_consents_with_its_threshold(room: Assembly) -> None:
    keys = [signer(f"observer {number}", CLASSICAL) for number in range(3)]
    seat_ = replace(D.member, keys=KeySet(tuple(key.public for key in keys), 2))
    seats = [seat_ if who is D else who.member for who in SEATS]
    room.body = reseated(room.body, [replace(each, status="observer") if each is seat_ else each for each in seats])
    body = draft(room.body, members=seats, policy=CharterPolicy(4, 1, 1, 0))
    vote(room, body, A, B, C)
    for count in (1, 2):
        room.lines.append(consent(body, D.id, *keys[:count]))
        assert (assemble(room.body, body, room.lines) is not None) == (count == 2)


def test_anything_may_be_sorted_and_nothing_else_is_a_rotation() -> None:
    by = A.inception.author
    entries = [
        sign_statement(Statement(predicate, (Subject("", A.id),), by, {}), A.signer)
        for predicate in ("inception", "rotated", "advisory")
    ]
    statements = StatementSet.sort(entries)
    assert statements.inceptions == {A.id: [entries[0]]} and statements.rotations == {A.id: [entries[1]]}
    assert len(StatementSet.read([entries[0].line, b"no statement", b"{}"]).notes) == 2


@pytest.mark.parametrize("predicate", ["inception", "rotated", "intent", "ratified", "draft", "consented", "left"])
def test_a_foreign_type_of_the_same_name_counts_for_nothing(predicate: str) -> None:
    """Such a statement has no author."""
    payload = Statement(predicate, (Subject("", A.id),), A.inception.author, {}).encode()
    foreign = payload.replace(f'"urn:comity:{predicate}:v1"'.encode(), f'"{predicate}"'.encode())
    entry = parse_entry(sign_payload(foreign, A.signer).encode())
    assert (entry.statement.predicate, entry.statement.by) == (predicate, None)
    statements = StatementSet.sort([entry])
    assert not (statements.votes or statements.body_statements or statements.inceptions or statements.rotations)
    assert RotationChains([entry]).follow(A.member.key_state).steps == () == follow(A.member.key_state, [entry]).steps
    for parse in (parse_vote, parse_body_statement, parse_rotation):
        with pytest.raises(Malformed):
            parse(entry)


def test_hybrid_keys_certify_and_half_a_signature_does_not() -> None:
    room = Assembly(members(4, ("ed25519", "ml-dsa-65")))
    body = change(room.body)
    vote(room, body, *room.seats[:2])
    half = replace_signer(room.seats[2], signer(f"{room.seats[2].inception.label} first", CLASSICAL))
    vote(room, body, half)
    refusal(room, body)
    vote(room, body, room.seats[2])
    certified(room, body)


def replace_signer(who: Identity, key: Any) -> Identity:
    """The same member, signing with another key."""
    return Identity(who.inception, key, who.entry)
