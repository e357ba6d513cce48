"""What makes an epoch: q RATIFYs of one (round, body), their intent-certificates, and consents. Four members, q = 3."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest
from comity.rules.charter_drafts import assemble, draft
from comity.rules.signing import sign_content
from comity.trust.charter.certificate import (
    MAX_LINES,
    Certificate,
    StatementSet,
    ValidVotes,
    certify,
    consenting,
    decide,
)
from comity.trust.charter.document import Body, CharterPolicy
from comity.trust.charter.votes import consent, parse_body_statement, parse_vote
from comity.trust.errors import Malformed, Untrusted
from comity.trust.identity import Inception, InceptionStatement, KeySet
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
def assembly() -> Assembly:
    return Assembly(SEATS)


@pytest.fixture
def body(assembly: Assembly) -> Body:
    return assembly.put(change(assembly.body))


def lines(assembly: Assembly) -> list[bytes]:
    return [entry.line for entry in assembly.lines]


def refusal(assembly: Assembly, body: Body, *, code: str = "CHARTER-QUORUM") -> str:
    """The reason why the statements of the assembly are no certificate, the same from `certify` and from `assemble`."""
    assert assemble(assembly.body, body, assembly.lines) is None
    with pytest.raises(Untrusted) as caught:
        certify(assembly.body, body, lines(assembly))
    assert caught.value.code == code
    return caught.value.why


def certified(assembly: Assembly, body: Body) -> Certificate:
    """The certificate that the statements of the assembly make."""
    made = assemble(assembly.body, body, reversed(assembly.lines))
    assert made is not None
    assert certify(assembly.body, body, reversed(made.lines)).body == body
    assert certify(assembly.body, body, lines(assembly)).body == body
    return made


def vote(assembly: Assembly, body: Body, *who: Identity, at: int = 1) -> None:
    for member in who:
        assembly.intent(member, body, at)
        assembly.ratify(member, body, at)


def spoken(made: Certificate, predicate: str) -> list[Entry]:
    entries = [parse_entry(line) for line in made.lines]
    return [entry for entry in entries if entry.statement.predicate == predicate]


def test_a_quorum_that_intends_and_ratifies_makes_an_epoch(assembly: Assembly, body: Body) -> None:
    vote(assembly, body, A, B, C)
    assert len(certified(assembly, body).lines) == 6


def test_fewer_members_make_no_epoch_by_signing_often(assembly: Assembly, body: Body) -> None:
    for _ in range(3):
        vote(assembly, body, A, B)
    assert refusal(assembly, body).startswith(f"2 of 3 members (not {C.inception.label}, {D.inception.label})")


def test_ratifys_of_different_rounds_do_not_add_up(assembly: Assembly, body: Body) -> None:
    for at in (1, 2):
        for who in SEATS:
            assembly.intent(who, body, at)
    assembly.ratify(A, body, 1)
    assembly.ratify(B, body, 1)
    assembly.ratify(C, body, 2)
    assembly.ratify(D, body, 2)
    refusal(assembly, body)


def test_ratifys_of_different_bodies_do_not_add_up(assembly: Assembly, body: Body) -> None:
    other = change(assembly.body, 2)
    for who in SEATS:
        assembly.intent(who, body)
        assembly.intent(who, other)
    for who, what in zip(SEATS, (body, body, other, other), strict=True):
        assembly.ratify(who, what)
    refusal(assembly, body)
    refusal(assembly, other)


def test_a_ratify_counts_only_with_its_intent_certificate(assembly: Assembly, body: Body) -> None:
    for who in SEATS:
        assembly.ratify(who, body)
    assembly.intent(A, body)
    assembly.intent(B, body)
    refusal(assembly, body, code="CHARTER-INTENT")
    assembly.intent(C, body, 2)
    refusal(assembly, body, code="CHARTER-INTENT")
    assembly.intent(D, change(assembly.body, 2))
    refusal(assembly, body, code="CHARTER-INTENT")
    assembly.intent(D, body)
    certified(assembly, body)


def test_an_intent_counts_only_with_the_certificate_that_it_names(assembly: Assembly, body: Body) -> None:
    other = change(assembly.body, 2)
    assembly.intent(A, body, 3, last=(1, other), unlock=2)
    assembly.intent(B, body, 3)
    assembly.intent(C, body, 3)
    for who in (A, B, C):
        assembly.ratify(who, body, 3)
    refusal(assembly, body, code="CHARTER-INTENT")
    for who in (B, C, D):
        assembly.intent(who, other, 2)
    refusal(assembly, body, code="CHARTER-INTENT")
    for who in (B, C, D):
        assembly.intent(who, body, 2)
    assert len(certified(assembly, body).lines) == 9


def test_certificates_are_carried_for_every_round_that_is_named(assembly: Assembly, body: Body) -> None:
    other = change(assembly.body, 2)
    for who in (B, C, D):
        assembly.intent(who, body, 2)
    for who in SEATS:
        assembly.intent(who, body, 4, last=(1, other), unlock=2)
    for who in SEATS:
        assembly.intent(who, body, 6, last=(3, other), unlock=4)
        assembly.ratify(who, body, 6)
    made = certified(assembly, body)
    assert len(made.lines) == 4 * 3
    for line in made.lines:
        without = [other_line for other_line in made.lines if other_line != line]
        with pytest.raises(Untrusted):
            certify(assembly.body, body, without)


@pytest.mark.parametrize(("last", "unlock"), [((1, 0), None), ((1, 0), 1), (None, 1), ((3, 0), 2), ((2, 1), 1)])
def test_a_void_intent_counts_for_nothing(
    assembly: Assembly, body: Body, last: tuple[int, int] | None, unlock: int | None
) -> None:
    other = change(assembly.body, 2)
    for at in (1, 2):
        for who in SEATS:
            assembly.intent(who, body, at)
    for who in (A, B, C):
        assembly.intent(who, body, 3, last=(last[0], (other, body)[last[1]]) if last else None, unlock=unlock)
        assembly.ratify(who, body, 3)
    refusal(assembly, body, code="CHARTER-INTENT")


def test_a_member_that_equivocates_counts_once_and_invalidates_nothing(assembly: Assembly, body: Body) -> None:
    other = change(assembly.body, 2)
    vote(assembly, other, A)
    for who in (A, B, C):
        assembly.intent(who, body)
    assembly.ratify(A, body)
    assembly.ratify(A, body)
    assembly.ratify(B, body)
    refusal(assembly, body)
    assembly.ratify(C, body)
    certified(assembly, body)


def test_unrelated_lines_change_nothing(assembly: Assembly, body: Body) -> None:
    vote(assembly, body, A, B, C)
    certify(assembly.body, body, [b"", b"{}", b"junk\n", *lines(assembly), A.entry.line])
    assert len(certified(assembly, body).lines) == 6


def test_no_member_votes_for_another_or_without_a_vote(assembly: Assembly, body: Body) -> None:
    vote(assembly, body, A, B)
    stranger = replace_signer(C, signer("a thief", CLASSICAL))
    vote(assembly, body, stranger, NEWCOMER)
    refusal(assembly, body)


def test_an_observer_has_no_vote() -> None:
    before = members(5)
    start = reseated(found(before), [replace(before[0].member, status="observer"), *(w.member for w in before[1:])])
    assembly = Assembly(before)
    assembly.body = start
    body = change(start)
    vote(assembly, body, before[0], before[1], before[2])
    refusal(assembly, body)
    vote(assembly, body, before[3])
    certified(assembly, body)


@pytest.mark.parametrize("wrong", [{"epoch": 2}, {"prev": change(found(SEATS), 9).digest}])
def test_votes_about_another_charter_do_not_count(assembly: Assembly, body: Body, wrong: dict[str, Any]) -> None:
    vote(assembly, body, A, B)
    for make in (assembly.intent, assembly.ratify):
        right = make(C, body)
        assembly.lines.remove(right)
        assembly.say(C, replace(parse_vote(right), **wrong))
    refusal(assembly, body)


def test_a_newcomer_agrees_with_all_its_keys(assembly: Assembly) -> None:
    keys = [signer(f"new {at}", CLASSICAL) for at in range(3)]
    record = Inception("member", KeySet(tuple(key.public for key in keys), 2), (), "", "ZZ", "Newcomer")
    member = replace(NEWCOMER.member, id=record.id, name="Newcomer", keys=record.keys, recovery=())
    body = reseated(assembly.body, [*(who.member for who in SEATS), member])
    assembly.lines.append(sign_content(InceptionStatement(record), *keys))
    vote(assembly, body, *SEATS)
    assert "Newcomer" in refusal(assembly, body, code="CHARTER-CONSENT")
    assembly.lines.append(consent(body, record.id, *keys[:2]))
    refusal(assembly, body, code="CHARTER-CONSENT")
    assembly.lines.append(consent(change(assembly.body), record.id, *keys))
    refusal(assembly, body, code="CHARTER-CONSENT")
    assembly.lines.append(consent(body, record.id, *keys))
    made = certified(assembly, body)
    assert (len(spoken(made, "inception")), len(spoken(made, "consented"))) == (1, 1)


def test_a_newcomer_without_a_vote_agrees_too(assembly: Assembly) -> None:
    body = reseated(assembly.body, [*(who.member for who in SEATS), replace(NEWCOMER.member, status="observer")])
    vote(assembly, body, *SEATS)
    refusal(assembly, body, code="CHARTER-INCEPTION")
    assembly.lines.append(NEWCOMER.entry)
    refusal(assembly, body, code="CHARTER-CONSENT")
    assembly.consent(NEWCOMER, body)
    certified(assembly, body)


def test_a_new_set_accepts_by_its_own_quorum(assembly: Assembly) -> None:
    """A draft that requires all four members from now on needs all four, though three may change the charter today."""
    body = draft(assembly.body, policy=CharterPolicy(4, 1, 1, 0))
    vote(assembly, body, A, B, C)
    assert refusal(assembly, body) == "3 of its own members accepted it, not 4"
    vote(assembly, body, D)
    assert len(spoken(certified(assembly, body), "ratified")) == 4


def test_members_that_leave_do_not_accept_for_those_who_stay() -> None:
    assembly = Assembly.of(7)
    body = reseated(assembly.body, [who.member for who in assembly.seats[2:]])
    vote(assembly, body, *assembly.seats[:5])
    assert body.quorum == 4
    refusal(assembly, body)
    vote(assembly, body, assembly.seats[5])
    assert len(spoken(certified(assembly, body), "ratified")) == 5


def test_the_members_before_decide_by_their_own_quorum() -> None:
    """Neither the number of newcomers nor a new policy lowers the quorum for this change."""
    assembly = Assembly(members(4))
    assembly.body = found(SEATS, quorum_change=4)
    body = reseated(assembly.body, [*(who.member for who in SEATS), NEWCOMER.member])
    assembly.consent(NEWCOMER, body)
    vote(assembly, body, A, B, C)
    refusal(assembly, body)
    vote(assembly, body, D)
    certified(assembly, body)


def test_an_observer_that_gets_a_vote_accepts_by_consent() -> None:
    assembly = Assembly.of(5)
    watched = [
        replace(who.member, status="observer") if who in assembly.seats[:2] else who.member for who in assembly.seats
    ]
    assembly.body = reseated(found(assembly.seats), watched)
    body = reseated(assembly.body, [who.member for who in assembly.seats])
    vote(assembly, body, *assembly.seats[2:])
    refusal(assembly, body)
    assembly.consent(assembly.seats[0], body)
    certified(assembly, body)


def test_readings_count_under_keys_that_rotations_inside_reach(assembly: Assembly, body: Body) -> None:
    begun = seated(C.member, of(C))
    second, rotation = begun.to("second")
    vote(assembly, body, A, B, replace_signer(C, second.keys[0]))
    refusal(assembly, body)
    assembly.lines.append(rotation)
    made = certified(assembly, body)
    assert rotation.line in made.lines
    with pytest.raises(Untrusted):
        certify(assembly.body, body, [line for line in made.lines if line != rotation.line])


def test_readings_under_keys_of_the_body_before_count_though_they_were_rotated_away(
    assembly: Assembly, body: Body
) -> None:
    rotation = seated(C.member, of(C)).to("second")[1]
    assembly.lines.append(rotation)
    vote(assembly, body, A, B, C)
    assert rotation.line not in certified(assembly, body).lines


def test_a_rotated_seat_carries_its_rotation_and_a_dispute_un_counts_nothing(assembly: Assembly) -> None:
    begun = seated(C.member, of(C))
    second, rotation = begun.to("second")
    moved = replace(C.member, keys=second.state.keys, recovery=second.state.recovery)
    body = reseated(assembly.body, [moved if who is C else who.member for who in SEATS])
    vote(assembly, body, A, B, D)
    refusal(assembly, body, code="CHARTER-REKEYED")
    assembly.lines.append(rotation)
    assert rotation.line in certified(assembly, body).lines
    assembly.lines.append(begun.to("elsewhere")[1])
    assert rotation.line in certified(assembly, body).lines


def test_as_few_lines_as_are_enough_make_a_certificate() -> None:
    assembly = Assembly.of(10)
    assembly.decide(change(assembly.body))
    body = reseated(assembly.body, [who.member for who in assembly.seats[1:]])
    for at in (1, 2, 3):
        vote(assembly, body, *assembly.seats, at=at)
    made = certified(assembly, body)
    assert (len(spoken(made, "intent")), len(spoken(made, "ratified"))) == (7, 7)
    again = assemble(assembly.body, body, [*assembly.lines, *assembly.lines])
    assert again == made


def test_a_certificate_is_bounded(assembly: Assembly, body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    vote(assembly, body, A, B, C)
    with pytest.raises(Malformed, match="too large"):
        certify(assembly.body, body, [*lines(assembly), *([b"x"] * MAX_LINES)])
    monkeypatch.setattr("comity.trust.charter.certificate.MAX_CERTIFICATE", 100)
    with pytest.raises(Malformed, match="too large"):
        certify(assembly.body, body, lines(assembly))
    assert assemble(assembly.body, body, assembly.lines) is None


def test_a_certificate_may_be_as_large_as_the_limit(
    assembly: Assembly, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    assembly.lines.clear()
    vote(assembly, body, A, B, C)
    size = sum(map(len, lines(assembly)))
    for lines_, bytes_, fits in ((6, size, True), (5, size, False), (6, size - 1, False)):
        monkeypatch.setattr("comity.trust.charter.certificate.MAX_LINES", lines_)
        monkeypatch.setattr("comity.trust.charter.certificate.MAX_CERTIFICATE", bytes_)
        assert (assemble(assembly.body, body, assembly.lines) is not None) == fits
        if fits:
            certify(assembly.body, body, lines(assembly))
        else:
            with pytest.raises(Malformed, match="too large"):
                certify(assembly.body, body, lines(assembly))


def test_the_earliest_round_that_is_decided_decides(assembly: Assembly, body: Body) -> None:
    for at in (10, 2, 11, 3):
        vote(assembly, body, A, B, C, at=at)
    vote(assembly, body, D, at=1)
    decision = decide(ValidVotes(assembly.body, StatementSet.sort(assembly.lines)), body)
    assert (decision.round, set(decision.ratified)) == (2, {A.id, B.id, C.id})


def test_of_rounds_without_a_quorum_the_fullest_is_named(assembly: Assembly, body: Body) -> None:
    vote(assembly, body, A, at=1)
    vote(assembly, body, A, B, at=2)
    vote(assembly, body, C, at=3)
    assert refusal(assembly, body).startswith("2 of 3 members")


def test_the_lines_of_a_certificate_are_in_the_order_of_members_and_name_no_more(
    assembly: Assembly, body: Body
) -> None:
    assembly.lines += [who.entry for who in SEATS]
    vote(assembly, body, C, B, A)
    made = certified(assembly, body)
    voters = [parse_vote(parse_entry(line)).member for line in made.lines]
    assert voters == sorted(voters) and len(made.lines) == 6, "members before need no inception"


def test_a_vote_with_the_shortest_path_of_rotations_is_proven_by_it(assembly: Assembly, body: Body) -> None:
    """Each rotation may keep a key, so one signature verifies in several states."""
    begun = seated(C.member, of(C))
    second, rotation = begun.to("second")
    back = Rotation(C.id, 2, second.state.digest, begun.state.keys, ())
    again = rotate(second.state, back, second.recovery, begun.keys)
    assembly.lines += [rotation, again]
    vote(assembly, body, A, B, C)
    assert len(certified(assembly, body).lines) == 6


def test_states_that_a_vote_does_not_name_cost_it_nothing(assembly: Assembly, body: Body) -> None:
    """A member may rotate one state in as many ways as others log, and vote with the keys of each."""
    begun, checked = seated(C.member, of(C)), list[bytes]()
    for number in range(1, 9):
        after, rotation = begun.to(f"branch {number}")
        assembly.lines.append(rotation)
        assembly.intent(replace_signer(C, after.keys[0]), body, number)

    def signed(keys: KeySet, envelope: Envelope, more: Collection[PublicKey] = (), /) -> bool:
        checked.append(envelope.payload)
        return keys.signed(envelope, more)

    assert len(ValidVotes(assembly.body, StatementSet.sort(assembly.lines), signed).votes) == 8
    assert len(checked) == len(set(checked)) == 16


def test_rotations_count_up_to_a_limit(assembly: Assembly, body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = seated(C.member, of(C))
    second, first_rotation = begun.to("second")
    third, second_rotation = second.to("third")
    assembly.lines += [first_rotation, second_rotation, third.to("fourth")[1]]
    vote(assembly, body, A, B, replace_signer(C, third.keys[0]))
    assert len(certified(assembly, body).lines) == 8
    monkeypatch.setattr("comity.trust.charter.certificate.MAX_ROTATIONS_COUNTED", 1)
    refusal(assembly, body)
    vote(assembly, body, replace_signer(C, second.keys[0]))
    assert len(certified(assembly, body).lines) == 7


def test_a_member_with_a_vote_accepts_by_ratify_and_not_by_consent(assembly: Assembly) -> None:
    body = reseated(assembly.body, [A.member, D.member, NEWCOMER.member])
    body = draft(body.__class__.parse(assembly.body.data), members=body.members, policy=CharterPolicy(3, 1, 1, 0))
    assembly.consent(NEWCOMER, body)
    assembly.consent(D, body)
    vote(assembly, body, A, B, C)
    assert refusal(assembly, body) == "2 of its own members accepted it, not 3"
    vote(assembly, body, D)
    certified(assembly, body)


def test_consents_of_others_are_passed_over(assembly: Assembly, body: Body) -> None:
    vote(assembly, body, A, B, C)
    assembly.consent(NEWCOMER, body)
    assert NEWCOMER.id not in str(certified(assembly, body).lines)
    genesis = found(SEATS)
    assert consenting(genesis, StatementSet.read([consent(genesis, NEWCOMER.id, NEWCOMER.signer).line])) == frozenset()


def test_an_observer_consents_with_keys_that_its_seat_lists(assembly: Assembly) -> None:
    """Its inception does not make keys valid again that it rotated away before the charter."""
    begun = of(D)
    second, rotation = begun.to("second")
    seat_ = replace(D.member, keys=second.state.keys, recovery=second.state.recovery)
    seats = [seat_ if who is D else who.member for who in SEATS]
    assembly.body = reseated(
        assembly.body, [replace(each, status="observer") if each is seat_ else each for each in seats]
    )
    body = draft(assembly.body, members=seats, policy=CharterPolicy(4, 1, 1, 0))
    assembly.lines += [D.entry, rotation]
    vote(assembly, body, A, B, C)
    for key, accepts in ((D.signer, False), (second.keys[0], True)):
        assembly.lines.append(consent(body, D.id, key))
        assert (assemble(assembly.body, body, assembly.lines) is not None) == accepts


def test_an_observer_of_several_keys_consents_with_its_threshold(assembly: Assembly) -> None:
    keys = [signer(f"observer {number}", CLASSICAL) for number in range(3)]
    seat_ = replace(D.member, keys=KeySet(tuple(key.public for key in keys), 2))
    seats = [seat_ if who is D else who.member for who in SEATS]
    assembly.body = reseated(
        assembly.body, [replace(each, status="observer") if each is seat_ else each for each in seats]
    )
    body = draft(assembly.body, members=seats, policy=CharterPolicy(4, 1, 1, 0))
    vote(assembly, body, A, B, C)
    for count in (1, 2):
        assembly.lines.append(consent(body, D.id, *keys[:count]))
        assert (assemble(assembly.body, body, assembly.lines) is not None) == (count == 2)


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
    assembly = Assembly(members(4, ("ed25519", "ml-dsa-65")))
    body = change(assembly.body)
    vote(assembly, body, *assembly.seats[:2])
    half = replace_signer(assembly.seats[2], signer(f"{assembly.seats[2].inception.label} first", CLASSICAL))
    vote(assembly, body, half)
    refusal(assembly, body)
    vote(assembly, body, assembly.seats[2])
    certified(assembly, body)


def replace_signer(who: Identity, key: Any) -> Identity:
    """The same member, signing with another key."""
    return Identity(who.inception, key, who.entry)
