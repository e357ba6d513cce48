"""The tally of any set of lines: epochs, drafts, duties, forks. Four members, q = 3."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest
from comity.trust.charter import tally as tally_module
from comity.trust.charter.certificate import Certificate, certify
from comity.trust.charter.document import Body
from comity.trust.charter.document import draft as draft_body
from comity.trust.charter.tally import MAX_BODIES, MAX_NOTES, Tally, compute_tally
from comity.trust.charter.votes import (
    Intent,
    adopted_statement,
    consent,
    draft_statement,
    draft_withdrawn_statement,
    left_statement,
)
from comity.trust.encoding import Digest, sha256
from comity.trust.identity import KeySet
from comity.trust.keys import PublicKey
from comity.trust.statement import Entry, Envelope, SideObject, Statement, Subject, sign_statement
from support.assembly import CLASSICAL, Assembly, change, found, members, reseated
from support.rotations import of, seated
from support.world import Identity, seat

SEATS = members(4)
A, B, C, D = SEATS
NEWCOMER = seat("ZZ", CLASSICAL)


@pytest.fixture
def room() -> Assembly:
    return Assembly(SEATS)


def actions(tally: Tally) -> dict[str, set[Digest]]:
    """The actions that are due, by member."""
    found: dict[str, set[Digest]] = {}
    for duty in tally.duties:
        found.setdefault(f"{duty.action} {duty.round}", set()).add(duty.member)
    return found


def follow_on(room: Assembly, body: Body) -> Assembly:
    """The same assembly, once `body` is decided: its next statements are about the successor of `body`."""
    later = Assembly(room.seats, lines=room.lines, bodies=room.bodies)
    later.body = body
    return later


def decided(room: Assembly, body: Body, who: tuple[Identity, ...] = SEATS[:3], at: int = 1) -> Certificate:
    """Votes of `who` for `body`, also of members that equivocate by them."""
    room.bodies[body.digest] = body.data
    said = [entry for member in who for entry in (room.intent(member, body, at), room.ratify(member, body, at))]
    return certify(room.body, body, [entry.line for entry in said])


def test_no_lines_give_an_empty_tally(room: Assembly) -> None:
    tally = room.tally
    assert (tally.epochs, tally.drafts, tally.duties, tally.forks, tally.notes) == ((), (), (), (), ())
    assert (tally.current, tally.round) == (room.body, 1)
    assert tally.leading(1) is None


def test_a_draft_is_shown_with_its_text_and_the_duty_of_each_member(room: Assembly) -> None:
    body = room.put(change(room.body), B, "The floor must rise.")
    (draft,) = room.tally.drafts
    assert (draft.body, draft.by, draft.text, draft.objection) == (body, B.id, "The floor must rise.", None)
    assert actions(room.tally) == {"intent 1": {who.id for who in SEATS}}
    assert "Institute" in room.tally.duties[0].why


def test_duties_follow_the_two_readings(room: Assembly) -> None:
    body = room.put(change(room.body))
    for who in (A, B):
        room.vote(who, body)
    assert actions(room.tally) == {"intent 1": {C.id, D.id}}
    room.vote(C, body)
    assert actions(room.tally) == {"ratified 1": {who.id for who in SEATS}}
    (draft,) = room.tally.drafts
    assert (draft.certified_rounds, draft.ready_rounds) == ((1,), (1,))
    assert draft.intents == {1: frozenset((A.id, B.id, C.id))}
    room.vote(A, body)
    assert actions(room.tally) == {"ratified 1": {B.id, C.id, D.id}}


def test_after_a_split_the_duty_is_to_unite(room: Assembly) -> None:
    for number, who in enumerate(SEATS):
        body = room.put(change(room.body, number % 2), who)
        room.vote(who, body)
    leading = room.tally.drafts[0].body
    assert actions(room.tally) == {"intent 2": {who.id for who in SEATS}}
    assert {duty.body for duty in room.tally.duties} == {leading.digest}


def test_a_newcomer_is_asked_for_its_consent(room: Assembly) -> None:
    body = room.put(reseated(room.body, [*(who.member for who in SEATS), NEWCOMER.member]))
    assert "inception" in str(room.tally.drafts[0].objection)
    assert room.tally.duties == ()
    room.lines.append(NEWCOMER.entry)
    assert actions(room.tally)["consented 1"] == {NEWCOMER.id}
    room.lines.append(consent(body, NEWCOMER.id, NEWCOMER.signer))
    assert "consented 1" not in actions(room.tally)


def test_a_draft_that_all_its_proposers_withdrew_asks_no_member_for_a_vote(room: Assembly) -> None:
    body = change(room.body)
    room.bodies[body.digest] = body.data
    for who in (A, B):
        room.lines.append(sign_statement(draft_statement(body, who.id, "please"), who.signer))
    room.lines.append(sign_statement(draft_withdrawn_statement(body, A.id), A.signer))
    assert not room.tally.drafts[0].withdrawn, "B still proposes it"
    assert room.tally.duties
    room.lines.append(sign_statement(draft_withdrawn_statement(body, B.id), A.signer))
    assert not room.tally.drafts[0].withdrawn, "A cannot withdraw for B"
    room.lines.append(sign_statement(draft_withdrawn_statement(body, B.id), B.signer))
    assert room.tally.drafts[0].withdrawn
    assert room.tally.duties == ()


def test_a_member_that_did_not_propose_a_draft_withdraws_nothing(room: Assembly) -> None:
    body = change(room.body)
    room.bodies[body.digest] = body.data
    room.lines.append(sign_statement(draft_statement(body, A.id, ""), A.signer))
    room.lines.append(sign_statement(draft_withdrawn_statement(body, C.id), C.signer))
    assert not room.tally.drafts[0].withdrawn


def test_a_withdrawn_draft_on_which_members_may_be_locked_still_asks_for_votes(room: Assembly) -> None:
    body = change(room.body)
    room.bodies[body.digest] = body.data
    room.lines.append(sign_statement(draft_statement(body, A.id, ""), A.signer))
    room.lines.append(sign_statement(draft_withdrawn_statement(body, A.id), A.signer))
    for who in (A, B, C):
        room.intent(who, body, 1)
    (draft,) = room.tally.drafts
    assert (draft.withdrawn, draft.certified_rounds, draft.recommended) == (True, (1,), True)
    assert set(actions(room.tally)) == {"ratified 1"}


def test_an_empty_draft_asks_no_member_for_a_vote_and_another_one_does(room: Assembly) -> None:
    empty, other = draft_body(room.body), change(room.body)
    for body, who in ((empty, A), (other, B)):
        room.bodies[body.digest] = body.data
        if body is other:
            assert room.tally.duties == ()
        room.lines.append(sign_statement(draft_statement(body, who.id, ""), who.signer))
    assert {draft.body.digest: draft.changes_nothing for draft in room.tally.drafts} == {
        empty.digest: True,
        other.digest: False,
    }
    assert {duty.body for duty in room.tally.duties} == {other.digest}


def test_members_that_ask_to_leave_are_named(room: Assembly) -> None:
    for who, key in ((A, A.signer), (B, C.signer), (NEWCOMER, NEWCOMER.signer)):
        room.lines.append(sign_statement(left_statement(room.body, who.id), key))
    room.lines.append(sign_statement(left_statement(change(room.body), D.id), D.signer))
    assert room.tally.left == {A.id}


def test_a_draft_counts_as_its_members_own(room: Assembly) -> None:
    body = change(room.body)
    room.bodies[body.digest] = body.data
    room.lines.append(sign_statement(draft_statement(body, A.id, ""), B.signer))
    room.lines.append(sign_statement(draft_statement(body, NEWCOMER.id, ""), NEWCOMER.signer))
    assert room.tally.drafts == ()


def test_a_body_is_read_if_it_has_its_digest_and_follows(room: Assembly) -> None:
    body, elsewhere = change(room.body), change(found(SEATS[:3]))
    for drafted, data in ((body, body.data + b" "), (elsewhere, elsewhere.data)):
        room.put(drafted)
        room.bodies[drafted.digest] = data
    drafts = room.tally.drafts
    assert drafts == ()
    room.bodies[body.digest] = body.data
    assert [draft.body for draft in room.tally.drafts] == [body]
    junk = b"junk"
    room.bodies[sha256(junk)] = junk
    statement = draft_statement(body, A.id, "")
    about = {**statement.body, "body": sha256(junk)}
    side = (SideObject.of(junk),)
    named = replace(statement, subjects=(Subject("charter", sha256(junk)),), body=about, objects=side)
    room.lines.append(sign_statement(named, A.signer))
    assert len(room.tally.drafts) == 1
    assert any(f"draft {sha256(junk)[:12]} is ignored" in note for note in room.tally.notes)
    room.bodies = {body.digest: change(room.body, 2).data}
    assert not room.tally.drafts


def test_a_vote_for_a_body_that_follows_another_charter_makes_no_draft(room: Assembly) -> None:
    elsewhere = change(change(room.body))
    room.bodies[elsewhere.digest] = elsewhere.data
    room.say(A, Intent(A.id, room.body.digest, 1, 1, elsewhere.digest))
    assert room.tally.drafts == ()
    assert room.tally.voters_by_round == {1: frozenset({A.id})}


def test_of_one_member_few_bodies_are_read_and_they_hide_no_others(room: Assembly) -> None:
    mine = room.put(change(room.body, 99), B)
    bodies = [room.put(change(room.body, number), A) for number in range(4 * MAX_BODIES)]
    room.ratify(A, bodies[-1])
    read = {draft.body.digest for draft in room.tally.drafts}
    assert len(read) == MAX_BODIES + 1
    assert {mine.digest, bodies[-1].digest} <= read


def test_of_one_member_few_bytes_and_at_least_two_bodies_are_read(
    room: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = [room.put(change(room.body, number), A) for number in range(6)]
    theirs = room.put(change(room.body, 9), B)
    size = len(bodies[0].data)
    for most, count in ((1, 2), (3 * size + size // 2, 3), (100 * size, 6)):
        monkeypatch.setattr(tally_module, "MAX_BODY_BYTES_READ", most)
        drafts = {draft.body.digest for draft in room.tally.drafts}
        assert len(drafts & {body.digest for body in bodies}) == count and theirs.digest in drafts


def test_the_bodies_read_first_are_the_ratified_and_then_the_newest_intents(room: Assembly) -> None:
    bodies = {at: change(room.body, at) for at in range(1, 2 * MAX_BODIES)}
    for body in bodies.values():
        room.put(body, A)
    for at in (5, 1, *range(2, MAX_BODIES + 3)):
        room.intent(A, bodies[at], at)
    room.ratify(A, bodies[1], 1)
    read = {draft.body.digest for draft in room.tally.drafts}
    newest = range(MAX_BODIES + 2, 3, -1)[: MAX_BODIES - 1]
    assert read == {bodies[at].digest for at in (1, *newest)}


def test_bodies_up_to_exactly_the_limit_are_read(room: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [room.put(change(room.body, number), A) for number in range(5)]
    size = len(bodies[0].data)
    assert {len(body.data) for body in bodies} == {size}
    for most, count in ((3 * size, 3), (3 * size - 1, 2), (4 * size - 1, 3)):
        monkeypatch.setattr(tally_module, "MAX_BODY_BYTES_READ", most)
        assert len(room.tally.drafts) == count


def test_a_consent_of_a_member_proposes_nothing(room: Assembly) -> None:
    body = change(room.body)
    room.bodies[body.digest] = body.data
    room.lines += [consent(body, who.id, who.signer) for who in SEATS]
    assert not room.tally.drafts
    room.put(body, C, "because")
    (draft,) = room.tally.drafts
    assert (draft.by, draft.text) == (C.id, "because")


def test_of_several_proposers_of_one_body_the_first_by_id_is_named(room: Assembly) -> None:
    body = change(room.body)
    for who in (D, C, B):
        for text in ("z", "a"):
            room.put(body, who, text)
    (draft,) = room.tally.drafts
    assert (draft.by, draft.text) == (B.id, "a")


def test_drafts_are_in_the_order_of_their_rank_and_rounds_ascend(room: Assembly) -> None:
    bodies = [room.put(change(room.body, number), A) for number in range(5)]
    for at in (12, 2, 7, 4, 11, 3):
        for who in SEATS[:3]:
            room.intent(who, bodies[2], at)
        room.ratify(A, bodies[2], at)
    for who, body in ((A, bodies[4]), (B, bodies[4]), (C, bodies[3])):
        room.intent(who, body, 1)
    tally = room.tally
    assert [draft.rank(12) for draft in tally.drafts] == sorted(draft.rank(12) for draft in tally.drafts)
    lead = tally.drafts[0]
    assert lead.body == bodies[2] and list(tally.voters_by_round) == [1, 2, 3, 4, 7, 11, 12]
    assert list(lead.intents) == list(lead.ratified) == list(lead.certified_rounds) == [2, 3, 4, 7, 11, 12]
    assert lead.ready_rounds == lead.certified_rounds


def test_the_current_round_is_the_newest_in_which_enough_members_are(room: Assembly) -> None:
    body = room.put(change(room.body))
    for at, who in ((1, A), (1, B), (2, A), (2, B), (2, C), (3, D)):
        room.intent(who, body, at)
    assert room.tally.round == 2
    assert room.tally.latest_rounds == {A.id: 2, B.id: 2, C.id: 2, D.id: 3}


def test_a_draft_that_members_may_be_locked_on_leads(room: Assembly) -> None:
    room.put(change(room.body))
    (draft,) = room.tally.drafts
    ranked = replace(draft, certified_rounds=(1, 3), intents={3: frozenset({A.id, B.id})})
    assert [ranked.rank(at)[:2] for at in range(5)] == [(0, 0), (-1, 0), (-1, 0), (-3, -2), (-3, 0)]


def test_a_draft_that_no_honest_member_signs_does_not_lead(room: Assembly) -> None:
    room.put(reseated(room.body, [replace(A.member, jurisdiction="YY"), *(who.member for who in SEATS[1:])]))
    assert room.tally.drafts and room.tally.leading(1) is None
    body = room.put(change(room.body))
    lead = room.tally.leading(1)
    assert lead is not None and lead.body == body


def test_duties_name_the_signed_and_the_open_votes(room: Assembly) -> None:
    body = room.put(change(room.body))

    def said() -> dict[str, str]:
        names = {who.id: who.inception.label for who in SEATS}
        return {duty.why.replace(names[duty.member], "X"): duty.action for duty in room.tally.duties}

    room.vote(A, body)
    assert said() == {"1 of 3 INTENT votes in round 1: X has not signed": "intent"}
    stolen = reseated(room.body, [replace(A.member, jurisdiction="YY"), *(who.member for who in SEATS[1:])])
    room.put(stolen)
    assert said() == {"1 of 3 INTENT votes in round 1: X has not signed": "intent"}
    for number, more in ((2, "1 other draft is"), (3, "2 other drafts are")):
        room.put(change(room.body, number), B)
        (why,) = said()
        assert why.endswith(f"X has not signed; {more} open")
    leading = room.tally.drafts[0].body
    for who in (B, C, D):
        room.intent(who, leading)
    room.ratify(B, leading)
    assert "it has the INTENT of a quorum in round 1, and 1 of 3 RATIFY votes: X has not signed" in said()


def test_a_member_that_is_ahead_is_asked_by_its_own_round(room: Assembly) -> None:
    """It votes for the draft that led after *its* round was split."""
    first, second = (room.put(change(room.body, number), SEATS[number]) for number in (1, 2))
    for who in (A, B):
        room.intent(who, first)
    for who in (C, D):
        room.intent(who, second)
    for who in (C, D):
        room.intent(who, second, 2)
    assert room.tally.round == 2
    asked = {duty.member: duty for duty in room.tally.duties}
    lead = room.tally.leading(1)
    assert lead is not None
    assert {asked[who.id].body for who in (A, B)} == {lead.body.digest}


def test_no_duty_remains_where_nothing_may_be_signed(room: Assembly) -> None:
    decided(room, change(room.body, 1))
    decided(room, change(room.body, 2), (B, C, D))
    newcomers = reseated(room.body, [*(who.member for who in SEATS), NEWCOMER.member])
    room.put(newcomers)
    room.lines.append(NEWCOMER.entry)
    assert room.tally.stopped and room.tally.drafts and room.tally.duties == ()


def test_as_many_notes_as_fit_are_shown_in_order(room: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        said = Statement("intent", (Subject("", room.body.digest),), A.inception.author, {"number": "x" * number})
        room.lines.append(sign_statement(said, A.signer))
    monkeypatch.setattr(tally_module, "MAX_NOTES", 12)
    notes = room.tally.notes
    assert len(notes) == 12 and list(notes) == sorted(notes)
    monkeypatch.setattr(tally_module, "MAX_NOTES", 11)
    assert room.tally.notes == (*notes[:11], "and 1 more")


def test_a_member_asks_to_leave_the_current_body_and_no_other_one(room: Assembly) -> None:
    other = found(SEATS, quorum_change=4)
    statement = left_statement(room.body, A.id)
    about = {**statement.body, "body": other.digest}
    side = (SideObject.of(other.data),)
    wrong = replace(statement, subjects=(Subject("charter", other.digest),), body=about, objects=side)
    room.lines.append(sign_statement(wrong, A.signer))
    assert room.tally.left == frozenset()


def test_epochs_follow_one_another_in_any_order_of_lines(room: Assembly) -> None:
    chain, now = [room.body], room
    for number in range(3):
        body = now.put(change(now.body, number))
        for _ in range(2):
            for who in (A, B, C):
                now.vote(who, body)
        now = follow_on(now, body)
        chain.append(body)
    tally = compute_tally(room.body, reversed(now.lines), now.bodies)
    assert [epoch.body for epoch in tally.epochs] == chain[1:]
    assert tally.current == chain[-1]
    for before, epoch in zip(chain, tally.epochs, strict=False):
        assert certify(before, epoch.body, epoch.lines) == epoch
    assert compute_tally(chain[2], now.lines, now.bodies).epochs == tally.epochs[2:]


def test_each_reading_is_verified_once(room: Assembly) -> None:
    """Signatures are the main cost of replaying a long history."""
    verified: list[bytes] = []

    def signed(keys: KeySet, envelope: Envelope, more: Collection[PublicKey] = (), /) -> bool:
        verified.append(envelope.payload)
        return keys.signed(envelope, more)

    now, chain = room, [room.body]
    for number in range(3):
        chain.append(change(now.body, number))
        decided(now, chain[-1])
        now = follow_on(now, chain[-1])
    tally = compute_tally(room.body, [*room.lines, *room.lines], room.bodies, signed=signed)
    assert tally.current == chain[-1]
    assert len(verified) == len(set(verified)) == len(room.lines)


def test_an_epoch_without_its_bytes_waits_for_them(room: Assembly) -> None:
    body = change(room.body)
    decided(room, body)
    del room.bodies[body.digest]
    assert room.tally.epochs == ()


def test_junk_becomes_notes(room: Assembly) -> None:
    body = room.put(change(room.body))
    for number in range(MAX_NOTES + 5):
        said = Statement("intent", (Subject("", body.digest),), A.inception.author, {"number": number})
        room.lines.append(sign_statement(said, A.signer))
    room.lines.append(sign_statement(adopted_statement(body, NEWCOMER.id), NEWCOMER.signer))
    tally = room.tally
    assert len(tally.notes) == MAX_NOTES + 1
    assert tally.notes[-1] == "and 5 more"
    assert len(tally.drafts) == 1


def test_two_certificates_for_one_epoch_stop_governance(room: Assembly) -> None:
    one, other = change(room.body, 1), change(room.body, 2)
    decided(room, one)
    assert room.tally.current == one
    decided(room, other, (B, C, D))
    tally = room.tally
    (fork,) = tally.forks
    assert {fork.first.body.digest, fork.second.body.digest} == {one.digest, other.digest}
    assert (fork.retired, tally.stopped, tally.current, tally.epochs) == (False, True, room.body, ())
    assert tally.duties == ()
    assert {lie.member for lie in tally.equivocations} == {B.id, C.id}


def test_a_body_that_is_decided_twice_is_no_fork(room: Assembly) -> None:
    body = change(room.body)
    decided(room, body, (A, B, C))
    decided(room, body, (B, C, D), at=2)
    assert room.tally.forks == ()
    assert room.tally.current == body


def test_a_followed_epoch_stays_and_a_rival_stops_the_next_one(room: Assembly) -> None:
    one, other = change(room.body, 1), change(room.body, 2)
    mine, rival = decided(room, one), decided(room, other, (B, C, D))
    later = follow_on(room, one)
    decided(later, change(one))
    for held, against in ((mine, other), (rival, one)):
        tally = compute_tally(room.body, room.lines, room.bodies, adopted=[held])
        (fork,) = tally.forks
        assert (fork.first, fork.second.body) == (held, against)
        assert (tally.current, tally.epochs, tally.stopped) == (held.body, (held,), True)


def rotated(room: Assembly) -> tuple[Certificate, dict[Identity, Identity]]:
    """All members rotate, and decide an epoch 1 that lists the new keys. Their old selves still have the old keys."""
    begun = {who: seated(who.member, of(who)).to(f"{who.inception.label} moved") for who in SEATS}
    room.lines += [rotation for _, rotation in begun.values()]
    states = {who: moved.state for who, (moved, _) in begun.items()}
    body = reseated(room.body, [replace(who.member, keys=at.keys, recovery=at.recovery) for who, at in states.items()])
    room.bodies[body.digest] = body.data
    for who in SEATS:
        room.intent(who, body)
        room.ratify(who, body)
    (mine,) = room.tally.epochs
    return mine, {who: Identity(who.inception, moved.keys[0], who.entry) for who, (moved, _) in begun.items()}


def test_a_rival_made_with_retired_keys_is_an_alert(room: Assembly) -> None:
    mine, new = rotated(room)
    decided(room, change(room.body, 2))
    tally = compute_tally(room.body, room.lines, room.bodies, adopted=[mine])
    (fork,) = tally.forks
    assert (fork.retired, tally.stopped, tally.current) == (True, False, mine.body)
    next_ = change(mine.body)
    decided(follow_on(room, mine.body), next_, tuple(new[who] for who in SEATS[:3]))
    assert compute_tally(room.body, room.lines, room.bodies, adopted=[mine]).current == next_


def test_a_rival_that_one_current_key_ratified_is_a_fork(room: Assembly) -> None:
    mine, new = rotated(room)
    other = change(room.body, 2)
    room.bodies[other.digest] = other.data
    for who in (A, B, new[D]):
        room.intent(who, other)
        room.ratify(who, other)
    assert compute_tally(room.body, room.lines, room.bodies, adopted=[mine]).stopped


def test_a_rival_ratified_by_retired_keys_is_an_alert_with_any_intents(room: Assembly) -> None:
    mine, new = rotated(room)
    other = change(room.body, 2)
    room.bodies[other.digest] = other.data
    for who in (A, B, D):
        room.intent(new[who], other)
        room.ratify(who, other)
    (fork,) = compute_tally(room.body, room.lines, room.bodies, adopted=[mine]).forks
    assert fork.retired


def test_an_undecided_draft_hides_no_decided_one(room: Assembly) -> None:
    bodies = [room.put(change(room.body, number)) for number in range(6)]
    for body in bodies:
        assert compute_tally(room.body, [*room.lines, *votes_for(room, body)], room.bodies).current == body


def votes_for(room: Assembly, body: Body) -> list[Entry]:
    apart = Assembly(room.seats)
    return [entry for who in SEATS[:3] for entry in (apart.intent(who, body), apart.ratify(who, body))]


def test_keys_rotated_after_the_newest_body_are_current(room: Assembly) -> None:
    """Members that decide an epoch, rotate, and then decide another one in its place are named as current members that
    equivocated.
    """
    mine = decided(room, change(room.body))
    moved = {who: seated(who.member, of(who)).to(f"{who.inception.label} moved") for who in SEATS[:3]}
    room.lines += [rotation for _, rotation in moved.values()]
    new = tuple(Identity(who.inception, state.keys[0], who.entry) for who, (state, _) in moved.items())
    other = change(room.body, 2)
    room.bodies[other.digest] = other.data
    for who in new:
        room.intent(who, other)
        room.ratify(who, other)
    assert compute_tally(room.body, room.lines, room.bodies, adopted=[mine]).stopped
    assert room.tally.stopped


def test_without_a_followed_epoch_two_histories_stop_the_tally(room: Assembly) -> None:
    rotated(room)
    decided(room, change(room.body, 2))
    assert room.tally.stopped
