"""The tally of any set of lines: epochs, drafts, duties, forks. Four members, q = 3."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest
from comity.rules import tally as tally_module
from comity.rules.charter_drafts import draft as draft_body
from comity.rules.tally import MAX_BODIES, MAX_NOTES, Tally, compute_tally
from comity.trust.charter.certificate import Certificate, certify
from comity.trust.charter.document import Body
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
def assembly() -> Assembly:
    return Assembly(SEATS)


def actions(tally: Tally) -> dict[str, set[Digest]]:
    """The actions that are due, by member."""
    found: dict[str, set[Digest]] = {}
    for duty in tally.duties:
        found.setdefault(f"{duty.action} {duty.round}", set()).add(duty.member)
    return found


def follow_on(assembly: Assembly, body: Body) -> Assembly:
    """The same assembly, once `body` is decided: its next statements are about the successor of `body`."""
    later = Assembly(assembly.seats, lines=assembly.lines, bodies=assembly.bodies)
    later.body = body
    return later


def decided(assembly: Assembly, body: Body, who: tuple[Identity, ...] = SEATS[:3], at: int = 1) -> Certificate:
    """Votes of `who` for `body`, also of members that equivocate by them."""
    assembly.bodies[body.digest] = body.data
    said = [entry for member in who for entry in (assembly.intent(member, body, at), assembly.ratify(member, body, at))]
    return certify(assembly.body, body, [entry.line for entry in said])


def test_no_lines_give_an_empty_tally(assembly: Assembly) -> None:
    tally = assembly.tally
    assert (tally.epochs, tally.drafts, tally.duties, tally.forks, tally.notes) == ((), (), (), (), ())
    assert (tally.current, tally.round) == (assembly.body, 1)
    assert tally.leading(1) is None


def test_a_draft_is_shown_with_its_text_and_the_duty_of_each_member(assembly: Assembly) -> None:
    body = assembly.put(change(assembly.body), B, "The floor must rise.")
    (draft,) = assembly.tally.drafts
    assert (draft.body, draft.by, draft.text, draft.objection) == (body, B.id, "The floor must rise.", None)
    assert actions(assembly.tally) == {"intent 1": {who.id for who in SEATS}}
    assert "Institute" in assembly.tally.duties[0].why


def test_duties_follow_the_two_readings(assembly: Assembly) -> None:
    body = assembly.put(change(assembly.body))
    for who in (A, B):
        assembly.vote(who, body)
    assert actions(assembly.tally) == {"intent 1": {C.id, D.id}}
    assembly.vote(C, body)
    assert actions(assembly.tally) == {"ratified 1": {who.id for who in SEATS}}
    (draft,) = assembly.tally.drafts
    assert (draft.certified_rounds, draft.ready_rounds) == ((1,), (1,))
    assert draft.intents == {1: frozenset((A.id, B.id, C.id))}
    assembly.vote(A, body)
    assert actions(assembly.tally) == {"ratified 1": {B.id, C.id, D.id}}


def test_after_a_split_the_duty_is_to_unite(assembly: Assembly) -> None:
    for number, who in enumerate(SEATS):
        body = assembly.put(change(assembly.body, number % 2), who)
        assembly.vote(who, body)
    leading = assembly.tally.drafts[0].body
    assert actions(assembly.tally) == {"intent 2": {who.id for who in SEATS}}
    assert {duty.body for duty in assembly.tally.duties} == {leading.digest}


def test_a_newcomer_is_asked_for_its_consent(assembly: Assembly) -> None:
    body = assembly.put(reseated(assembly.body, [*(who.member for who in SEATS), NEWCOMER.member]))
    assert "inception" in str(assembly.tally.drafts[0].objection)
    assert assembly.tally.duties == ()
    assembly.lines.append(NEWCOMER.entry)
    assert actions(assembly.tally)["consented 1"] == {NEWCOMER.id}
    assembly.lines.append(consent(body, NEWCOMER.id, NEWCOMER.signer))
    assert "consented 1" not in actions(assembly.tally)


def test_a_draft_that_all_its_proposers_withdrew_asks_no_member_for_a_vote(assembly: Assembly) -> None:
    body = change(assembly.body)
    assembly.bodies[body.digest] = body.data
    for who in (A, B):
        assembly.lines.append(sign_statement(draft_statement(body, who.id, "please"), who.signer))
    assembly.lines.append(sign_statement(draft_withdrawn_statement(body, A.id), A.signer))
    assert not assembly.tally.drafts[0].withdrawn, "B still proposes it"
    assert assembly.tally.duties
    assembly.lines.append(sign_statement(draft_withdrawn_statement(body, B.id), A.signer))
    assert not assembly.tally.drafts[0].withdrawn, "A cannot withdraw for B"
    assembly.lines.append(sign_statement(draft_withdrawn_statement(body, B.id), B.signer))
    assert assembly.tally.drafts[0].withdrawn
    assert assembly.tally.duties == ()


def test_a_member_that_did_not_propose_a_draft_withdraws_nothing(assembly: Assembly) -> None:
    body = change(assembly.body)
    assembly.bodies[body.digest] = body.data
    assembly.lines.append(sign_statement(draft_statement(body, A.id, ""), A.signer))
    assembly.lines.append(sign_statement(draft_withdrawn_statement(body, C.id), C.signer))
    assert not assembly.tally.drafts[0].withdrawn


def test_a_withdrawn_draft_on_which_members_may_be_locked_still_asks_for_votes(assembly: Assembly) -> None:
    body = change(assembly.body)
    assembly.bodies[body.digest] = body.data
    assembly.lines.append(sign_statement(draft_statement(body, A.id, ""), A.signer))
    assembly.lines.append(sign_statement(draft_withdrawn_statement(body, A.id), A.signer))
    for who in (A, B, C):
        assembly.intent(who, body, 1)
    (draft,) = assembly.tally.drafts
    assert (draft.withdrawn, draft.certified_rounds, draft.recommended) == (True, (1,), True)
    assert set(actions(assembly.tally)) == {"ratified 1"}


def test_an_empty_draft_asks_no_member_for_a_vote_and_another_one_does(assembly: Assembly) -> None:
    empty, other = draft_body(assembly.body), change(assembly.body)
    for body, who in ((empty, A), (other, B)):
        assembly.bodies[body.digest] = body.data
        if body is other:
            assert assembly.tally.duties == ()
        assembly.lines.append(sign_statement(draft_statement(body, who.id, ""), who.signer))
    assert {draft.body.digest: draft.changes_nothing for draft in assembly.tally.drafts} == {
        empty.digest: True,
        other.digest: False,
    }
    assert {duty.body for duty in assembly.tally.duties} == {other.digest}


def test_members_that_ask_to_leave_are_named(assembly: Assembly) -> None:
    for who, key in ((A, A.signer), (B, C.signer), (NEWCOMER, NEWCOMER.signer)):
        assembly.lines.append(sign_statement(left_statement(assembly.body, who.id), key))
    assembly.lines.append(sign_statement(left_statement(change(assembly.body), D.id), D.signer))
    assert assembly.tally.left == {A.id}


def test_a_draft_counts_as_its_members_own(assembly: Assembly) -> None:
    body = change(assembly.body)
    assembly.bodies[body.digest] = body.data
    assembly.lines.append(sign_statement(draft_statement(body, A.id, ""), B.signer))
    assembly.lines.append(sign_statement(draft_statement(body, NEWCOMER.id, ""), NEWCOMER.signer))
    assert assembly.tally.drafts == ()


def test_a_body_is_read_if_it_has_its_digest_and_follows(assembly: Assembly) -> None:
    body, elsewhere = change(assembly.body), change(found(SEATS[:3]))
    for drafted, data in ((body, body.data + b" "), (elsewhere, elsewhere.data)):
        assembly.put(drafted)
        assembly.bodies[drafted.digest] = data
    drafts = assembly.tally.drafts
    assert drafts == ()
    assembly.bodies[body.digest] = body.data
    assert [draft.body for draft in assembly.tally.drafts] == [body]
    junk = b"junk"
    assembly.bodies[sha256(junk)] = junk
    statement = draft_statement(body, A.id, "")
    about = {**statement.body, "body": sha256(junk)}
    side = (SideObject.of(junk),)
    named = replace(statement, subjects=(Subject("charter", sha256(junk)),), body=about, objects=side)
    assembly.lines.append(sign_statement(named, A.signer))
    assert len(assembly.tally.drafts) == 1
    assert any(f"draft {sha256(junk)[:12]} is ignored" in note for note in assembly.tally.notes)
    assembly.bodies = {body.digest: change(assembly.body, 2).data}
    assert not assembly.tally.drafts


def test_a_vote_for_a_body_that_follows_another_charter_makes_no_draft(assembly: Assembly) -> None:
    elsewhere = change(change(assembly.body))
    assembly.bodies[elsewhere.digest] = elsewhere.data
    assembly.say(A, Intent(A.id, assembly.body.digest, 1, 1, elsewhere.digest))
    assert assembly.tally.drafts == ()
    assert assembly.tally.voters_by_round == {1: frozenset({A.id})}


def test_of_one_member_few_bodies_are_read_and_they_hide_no_others(assembly: Assembly) -> None:
    mine = assembly.put(change(assembly.body, 99), B)
    bodies = [assembly.put(change(assembly.body, number), A) for number in range(4 * MAX_BODIES)]
    assembly.ratify(A, bodies[-1])
    read = {draft.body.digest for draft in assembly.tally.drafts}
    assert len(read) == MAX_BODIES + 1
    assert {mine.digest, bodies[-1].digest} <= read


def test_of_one_member_few_bytes_and_at_least_two_bodies_are_read(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = [assembly.put(change(assembly.body, number), A) for number in range(6)]
    theirs = assembly.put(change(assembly.body, 9), B)
    size = len(bodies[0].data)
    for most, count in ((1, 2), (3 * size + size // 2, 3), (100 * size, 6)):
        monkeypatch.setattr(tally_module, "MAX_BODY_BYTES_READ", most)
        drafts = {draft.body.digest for draft in assembly.tally.drafts}
        assert len(drafts & {body.digest for body in bodies}) == count and theirs.digest in drafts


def test_the_bodies_read_first_are_the_ratified_and_then_the_newest_intents(assembly: Assembly) -> None:
    bodies = {at: change(assembly.body, at) for at in range(1, 2 * MAX_BODIES)}
    for body in bodies.values():
        assembly.put(body, A)
    for at in (5, 1, *range(2, MAX_BODIES + 3)):
        assembly.intent(A, bodies[at], at)
    assembly.ratify(A, bodies[1], 1)
    read = {draft.body.digest for draft in assembly.tally.drafts}
    newest = range(MAX_BODIES + 2, 3, -1)[: MAX_BODIES - 1]
    assert read == {bodies[at].digest for at in (1, *newest)}


def test_bodies_up_to_exactly_the_limit_are_read(assembly: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [assembly.put(change(assembly.body, number), A) for number in range(5)]
    size = len(bodies[0].data)
    assert {len(body.data) for body in bodies} == {size}
    for most, count in ((3 * size, 3), (3 * size - 1, 2), (4 * size - 1, 3)):
        monkeypatch.setattr(tally_module, "MAX_BODY_BYTES_READ", most)
        assert len(assembly.tally.drafts) == count


def test_a_consent_of_a_member_proposes_nothing(assembly: Assembly) -> None:
    body = change(assembly.body)
    assembly.bodies[body.digest] = body.data
    assembly.lines += [consent(body, who.id, who.signer) for who in SEATS]
    assert not assembly.tally.drafts
    assembly.put(body, C, "because")
    (draft,) = assembly.tally.drafts
    assert (draft.by, draft.text) == (C.id, "because")


def test_of_several_proposers_of_one_body_the_first_by_id_is_named(assembly: Assembly) -> None:
    body = change(assembly.body)
    for who in (D, C, B):
        for text in ("z", "a"):
            assembly.put(body, who, text)
    (draft,) = assembly.tally.drafts
    assert (draft.by, draft.text) == (B.id, "a")


def test_drafts_are_in_the_order_of_their_rank_and_rounds_ascend(assembly: Assembly) -> None:
    bodies = [assembly.put(change(assembly.body, number), A) for number in range(5)]
    for at in (12, 2, 7, 4, 11, 3):
        for who in SEATS[:3]:
            assembly.intent(who, bodies[2], at)
        assembly.ratify(A, bodies[2], at)
    for who, body in ((A, bodies[4]), (B, bodies[4]), (C, bodies[3])):
        assembly.intent(who, body, 1)
    tally = assembly.tally
    assert [draft.rank(12) for draft in tally.drafts] == sorted(draft.rank(12) for draft in tally.drafts)
    lead = tally.drafts[0]
    assert lead.body == bodies[2] and list(tally.voters_by_round) == [1, 2, 3, 4, 7, 11, 12]
    assert list(lead.intents) == list(lead.ratified) == list(lead.certified_rounds) == [2, 3, 4, 7, 11, 12]
    assert lead.ready_rounds == lead.certified_rounds


def test_the_current_round_is_the_newest_in_which_enough_members_are(assembly: Assembly) -> None:
    body = assembly.put(change(assembly.body))
    for at, who in ((1, A), (1, B), (2, A), (2, B), (2, C), (3, D)):
        assembly.intent(who, body, at)
    assert assembly.tally.round == 2
    assert assembly.tally.latest_rounds == {A.id: 2, B.id: 2, C.id: 2, D.id: 3}


def test_a_draft_that_members_may_be_locked_on_leads(assembly: Assembly) -> None:
    assembly.put(change(assembly.body))
    (draft,) = assembly.tally.drafts
    ranked = replace(draft, certified_rounds=(1, 3), intents={3: frozenset({A.id, B.id})})
    assert [ranked.rank(at)[:2] for at in range(5)] == [(0, 0), (-1, 0), (-1, 0), (-3, -2), (-3, 0)]


def test_a_draft_that_no_honest_member_signs_does_not_lead(assembly: Assembly) -> None:
    assembly.put(reseated(assembly.body, [replace(A.member, jurisdiction="YY"), *(who.member for who in SEATS[1:])]))
    assert assembly.tally.drafts and assembly.tally.leading(1) is None
    body = assembly.put(change(assembly.body))
    lead = assembly.tally.leading(1)
    assert lead is not None and lead.body == body


def test_duties_name_the_signed_and_the_missing_votes(assembly: Assembly) -> None:
    body = assembly.put(change(assembly.body))

    def said() -> dict[str, str]:
        names = {who.id: who.inception.label for who in SEATS}
        return {duty.why.replace(names[duty.member], "X"): duty.action for duty in assembly.tally.duties}

    assembly.vote(A, body)
    assert said() == {"1 of 3 INTENT votes in round 1: X has not signed": "intent"}
    stolen = reseated(assembly.body, [replace(A.member, jurisdiction="YY"), *(who.member for who in SEATS[1:])])
    assembly.put(stolen)
    assert said() == {"1 of 3 INTENT votes in round 1: X has not signed": "intent"}
    for number, more in ((2, "1 other draft is"), (3, "2 other drafts are")):
        assembly.put(change(assembly.body, number), B)
        (why,) = said()
        assert why.endswith(f"X has not signed; {more} open")
    leading = assembly.tally.drafts[0].body
    for who in (B, C, D):
        assembly.intent(who, leading)
    assembly.ratify(B, leading)
    assert "it has the INTENT of a quorum in round 1, and 1 of 3 RATIFY votes: X has not signed" in said()


def test_a_member_that_is_ahead_is_asked_by_its_own_round(assembly: Assembly) -> None:
    """It votes for the draft that led after *its* round was split."""
    first, second = (assembly.put(change(assembly.body, number), SEATS[number]) for number in (1, 2))
    for who in (A, B):
        assembly.intent(who, first)
    for who in (C, D):
        assembly.intent(who, second)
    for who in (C, D):
        assembly.intent(who, second, 2)
    assert assembly.tally.round == 2
    asked = {duty.member: duty for duty in assembly.tally.duties}
    lead = assembly.tally.leading(1)
    assert lead is not None
    assert {asked[who.id].body for who in (A, B)} == {lead.body.digest}


def test_no_duty_remains_where_nothing_may_be_signed(assembly: Assembly) -> None:
    decided(assembly, change(assembly.body, 1))
    decided(assembly, change(assembly.body, 2), (B, C, D))
    newcomers = reseated(assembly.body, [*(who.member for who in SEATS), NEWCOMER.member])
    assembly.put(newcomers)
    assembly.lines.append(NEWCOMER.entry)
    assert assembly.tally.stopped and assembly.tally.drafts and assembly.tally.duties == ()


def test_as_many_notes_as_fit_are_shown_in_order(assembly: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        said = Statement("intent", (Subject("", assembly.body.digest),), A.inception.author, {"number": "x" * number})
        assembly.lines.append(sign_statement(said, A.signer))
    monkeypatch.setattr(tally_module, "MAX_NOTES", 12)
    notes = assembly.tally.notes
    assert len(notes) == 12 and list(notes) == sorted(notes)
    monkeypatch.setattr(tally_module, "MAX_NOTES", 11)
    assert assembly.tally.notes == (*notes[:11], "and 1 more")


def test_a_member_asks_to_leave_the_current_body_and_no_other_one(assembly: Assembly) -> None:
    other = found(SEATS, quorum_change=4)
    statement = left_statement(assembly.body, A.id)
    about = {**statement.body, "body": other.digest}
    side = (SideObject.of(other.data),)
    wrong = replace(statement, subjects=(Subject("charter", other.digest),), body=about, objects=side)
    assembly.lines.append(sign_statement(wrong, A.signer))
    assert assembly.tally.left == frozenset()


def test_epochs_follow_one_another_in_any_order_of_lines(assembly: Assembly) -> None:
    chain, now = [assembly.body], assembly
    for number in range(3):
        body = now.put(change(now.body, number))
        for _ in range(2):
            for who in (A, B, C):
                now.vote(who, body)
        now = follow_on(now, body)
        chain.append(body)
    tally = compute_tally(assembly.body, reversed(now.lines), now.bodies)
    assert [epoch.body for epoch in tally.epochs] == chain[1:]
    assert tally.current == chain[-1]
    for before, epoch in zip(chain, tally.epochs, strict=False):
        assert certify(before, epoch.body, epoch.lines) == epoch
    assert compute_tally(chain[2], now.lines, now.bodies).epochs == tally.epochs[2:]


def test_each_reading_is_verified_once(assembly: Assembly) -> None:
    """Signatures are the main cost of replaying a long history."""
    verified: list[bytes] = []

    def signed(keys: KeySet, envelope: Envelope, more: Collection[PublicKey] = (), /) -> bool:
        verified.append(envelope.payload)
        return keys.signed(envelope, more)

    now, chain = assembly, [assembly.body]
    for number in range(3):
        chain.append(change(now.body, number))
        decided(now, chain[-1])
        now = follow_on(now, chain[-1])
    tally = compute_tally(assembly.body, [*assembly.lines, *assembly.lines], assembly.bodies, signed=signed)
    assert tally.current == chain[-1]
    assert len(verified) == len(set(verified)) == len(assembly.lines)


def test_an_epoch_without_its_bytes_waits_for_them(assembly: Assembly) -> None:
    body = change(assembly.body)
    decided(assembly, body)
    del assembly.bodies[body.digest]
    assert assembly.tally.epochs == ()


def test_junk_becomes_notes(assembly: Assembly) -> None:
    body = assembly.put(change(assembly.body))
    for number in range(MAX_NOTES + 5):
        said = Statement("intent", (Subject("", body.digest),), A.inception.author, {"number": number})
        assembly.lines.append(sign_statement(said, A.signer))
    assembly.lines.append(sign_statement(adopted_statement(body, NEWCOMER.id), NEWCOMER.signer))
    tally = assembly.tally
    assert len(tally.notes) == MAX_NOTES + 1
    assert tally.notes[-1] == "and 5 more"
    assert len(tally.drafts) == 1


def test_two_certificates_for_one_epoch_stop_governance(assembly: Assembly) -> None:
    one, other = change(assembly.body, 1), change(assembly.body, 2)
    decided(assembly, one)
    assert assembly.tally.current == one
    decided(assembly, other, (B, C, D))
    tally = assembly.tally
    (fork,) = tally.forks
    assert {fork.first.body.digest, fork.second.body.digest} == {one.digest, other.digest}
    assert (fork.retired, tally.stopped, tally.current, tally.epochs) == (False, True, assembly.body, ())
    assert tally.duties == ()
    assert {lie.member for lie in tally.equivocations} == {B.id, C.id}


def test_a_body_that_is_decided_twice_is_no_fork(assembly: Assembly) -> None:
    body = change(assembly.body)
    decided(assembly, body, (A, B, C))
    decided(assembly, body, (B, C, D), at=2)
    assert assembly.tally.forks == ()
    assert assembly.tally.current == body


def test_a_followed_epoch_stays_and_a_rival_stops_the_next_one(assembly: Assembly) -> None:
    one, other = change(assembly.body, 1), change(assembly.body, 2)
    mine, rival = decided(assembly, one), decided(assembly, other, (B, C, D))
    later = follow_on(assembly, one)
    decided(later, change(one))
    for held, against in ((mine, other), (rival, one)):
        tally = compute_tally(assembly.body, assembly.lines, assembly.bodies, adopted=[held])
        (fork,) = tally.forks
        assert (fork.first, fork.second.body) == (held, against)
        assert (tally.current, tally.epochs, tally.stopped) == (held.body, (held,), True)


def rotated(assembly: Assembly) -> tuple[Certificate, dict[Identity, Identity]]:
    """All members rotate, and decide an epoch 1 that lists the new keys. Their old selves still have the old keys."""
    begun = {who: seated(who.member, of(who)).to(f"{who.inception.label} moved") for who in SEATS}
    assembly.lines += [rotation for _, rotation in begun.values()]
    states = {who: moved.state for who, (moved, _) in begun.items()}
    body = reseated(
        assembly.body, [replace(who.member, keys=at.keys, recovery=at.recovery) for who, at in states.items()]
    )
    assembly.bodies[body.digest] = body.data
    for who in SEATS:
        assembly.intent(who, body)
        assembly.ratify(who, body)
    (mine,) = assembly.tally.epochs
    return mine, {who: Identity(who.inception, moved.keys[0], who.entry) for who, (moved, _) in begun.items()}


def test_a_rival_made_with_retired_keys_is_an_alert(assembly: Assembly) -> None:
    mine, new = rotated(assembly)
    decided(assembly, change(assembly.body, 2))
    tally = compute_tally(assembly.body, assembly.lines, assembly.bodies, adopted=[mine])
    (fork,) = tally.forks
    assert (fork.retired, tally.stopped, tally.current) == (True, False, mine.body)
    next_ = change(mine.body)
    decided(follow_on(assembly, mine.body), next_, tuple(new[who] for who in SEATS[:3]))
    assert compute_tally(assembly.body, assembly.lines, assembly.bodies, adopted=[mine]).current == next_


def test_a_rival_that_one_current_key_ratified_is_a_fork(assembly: Assembly) -> None:
    mine, new = rotated(assembly)
    other = change(assembly.body, 2)
    assembly.bodies[other.digest] = other.data
    for who in (A, B, new[D]):
        assembly.intent(who, other)
        assembly.ratify(who, other)
    assert compute_tally(assembly.body, assembly.lines, assembly.bodies, adopted=[mine]).stopped


def test_a_rival_ratified_by_retired_keys_is_an_alert_with_any_intents(assembly: Assembly) -> None:
    mine, new = rotated(assembly)
    other = change(assembly.body, 2)
    assembly.bodies[other.digest] = other.data
    for who in (A, B, D):
        assembly.intent(new[who], other)
        assembly.ratify(who, other)
    (fork,) = compute_tally(assembly.body, assembly.lines, assembly.bodies, adopted=[mine]).forks
    assert fork.retired


def test_an_undecided_draft_hides_no_decided_one(assembly: Assembly) -> None:
    bodies = [assembly.put(change(assembly.body, number)) for number in range(6)]
    for body in bodies:
        assert (
            compute_tally(assembly.body, [*assembly.lines, *votes_for(assembly, body)], assembly.bodies).current == body
        )


def votes_for(assembly: Assembly, body: Body) -> list[Entry]:
    apart = Assembly(assembly.seats)
    return [entry for who in SEATS[:3] for entry in (apart.intent(who, body), apart.ratify(who, body))]


def test_keys_rotated_after_the_newest_body_are_current(assembly: Assembly) -> None:
    """Members that decide an epoch, rotate, and then decide another one in its place are named as current members that
    equivocated.
    """
    mine = decided(assembly, change(assembly.body))
    moved = {who: seated(who.member, of(who)).to(f"{who.inception.label} moved") for who in SEATS[:3]}
    assembly.lines += [rotation for _, rotation in moved.values()]
    new = tuple(Identity(who.inception, state.keys[0], who.entry) for who, (state, _) in moved.items())
    other = change(assembly.body, 2)
    assembly.bodies[other.digest] = other.data
    for who in new:
        assembly.intent(who, other)
        assembly.ratify(who, other)
    assert compute_tally(assembly.body, assembly.lines, assembly.bodies, adopted=[mine]).stopped
    assert assembly.tally.stopped


def test_without_a_followed_epoch_two_histories_stop_the_tally(assembly: Assembly) -> None:
    rotated(assembly)
    decided(assembly, change(assembly.body, 2))
    assert assembly.tally.stopped
