"""Attacks on the charter, each by members who sign anything that helps them. Keys are Ed25519 only, for speed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from comity.rules.charter_drafts import assemble, draft
from comity.rules.tally import compute_tally
from comity.trust.charter.certificate import MAX_LINES, certify
from comity.trust.charter.document import MAX_BYTES, Body, Member
from comity.trust.charter.votes import RoundBody, draft_statement, left_statement, parse_vote
from comity.trust.encoding import Digest, canonical, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.identity import KeySet
from comity.trust.keys import HybridSigner
from comity.trust.statement import MAX_LINE, Author, Entry, parse_entry, sign_statement
from support.charters import Seated, drafts, founded, intent, ratify, seated, votes


def key() -> HybridSigner:
    return HybridSigner.generate(("ed25519",))


PEOPLE = [seated(f"Institute {code}", key(), key(), in_=code) for code in ("CH", "SG", "ES", "KR")]
CH, SG, ES, KR = PEOPLE
NEWCOMER = seated("Institute BR", key(), key(), in_="BR")
HEIR = seated("New institute CH", key(), key(), in_="CH")
PUBLISHER = sha256(b"a publisher")
FIRST = draft(founded(PEOPLE), namespaces={"swiss-ai": PUBLISHER})
ONE, OTHER = drafts(FIRST)


def lines(entries: Iterable[Entry]) -> list[bytes]:
    return [entry.line for entry in entries]


def passed(body: Body, *more: Entry) -> list[Entry]:
    """The certificate of `body` after `FIRST`, as far as three of four members and `more` can make it."""
    return [*votes(PEOPLE[:3], FIRST, body), *more]


def refusal(body: Body, entries: Iterable[Entry], previous: Body = FIRST) -> str:
    """The code with which a certificate for `body` is refused."""
    with pytest.raises(Untrusted) as refused:
        certify(previous, body, lines(entries))
    assert assemble(previous, body, entries) is None
    return refused.value.code


def seats(*changed: Member) -> list[Member]:
    """The seats of `FIRST`, with some of them changed."""
    new = {seat.id: seat for seat in changed}
    return [new.get(seat.id, seat) for seat in FIRST.members]


def five(*newcomers: Member) -> Body:
    """A body with one more member, whose quorum is four."""
    return draft(FIRST, members=[*FIRST.members, *newcomers], policy=replace(FIRST.policy, quorum_change=4))


def rewritten(body: Body, **change: Any) -> Body:
    return Body.parse(canonical({**json.loads(body.data), **change}))


def test_three_of_four_make_a_charter() -> None:
    assert certify(FIRST, ONE, lines(passed(ONE))).body == ONE


def test_two_of_four_make_no_charter_by_signing_often() -> None:
    rounds = [entry for round_ in (1, 2, 3) for entry in votes([CH, SG], FIRST, ONE, round_)]
    again = [sign_statement(entry.statement, CH.signer) for entry in votes([CH, CH], FIRST, ONE)]
    for_others = [sign_statement(entry.statement, SG.signer) for entry in votes([ES, KR], FIRST, ONE)]
    assert refusal(ONE, [*rounds, *again, *for_others]) == "CHARTER-QUORUM"


def test_a_rollback_is_refused() -> None:
    later = draft(ONE, policy=replace(ONE.policy, min_copies=7))
    assert refusal(ONE, passed(ONE), previous=later) == "CHARTER-EPOCH"
    assert refusal(FIRST, passed(ONE), previous=later) == "CHARTER-EPOCH"
    assert refusal(ONE, passed(ONE), previous=ONE) == "CHARTER-EPOCH"


def test_a_jump_over_epochs_is_refused() -> None:
    far = rewritten(ONE, epoch=2**53 - 1)
    honest = passed(far)
    jumping = [
        each.says(replace(said, epoch=far.epoch))
        for each in PEOPLE
        for said in (intent(FIRST, each.id, 1, far), ratify(FIRST, each.id, 1, far))
    ]
    assert refusal(far, honest) == refusal(far, jumping) == "CHARTER-EPOCH"
    assert refusal(ONE, jumping) == "CHARTER-QUORUM"


def test_a_charter_of_another_federation_is_refused() -> None:
    assert refusal(rewritten(ONE, federation=sha256(b"theirs")), passed(ONE)) == "CHARTER-EPOCH"


def test_lines_of_two_certificates_do_not_make_a_third() -> None:
    first, second = votes(PEOPLE[:3], FIRST, ONE, 1), votes(PEOPLE[1:], FIRST, ONE, 2)
    kinds = {"intent": [], "ratified": []}  # type: dict[str, list[Entry]]
    for entry in (*first[:4], *second[:4]):
        kinds[entry.statement.predicate].append(entry)
    assert refusal(ONE, kinds["ratified"] + first[::2]) == "CHARTER-QUORUM"  # two of round 1 and two of round 2
    assert refusal(ONE, first[1::2] + second[::2]) == "CHARTER-INTENT"  # RATIFYs of 1, INTENTs of 2
    others = votes(PEOPLE[:3], FIRST, OTHER, 1)
    assert refusal(ONE, first[1::2] + others[::2]) == "CHARTER-INTENT"  # INTENTs for another body
    assert refusal(ONE, [*first[:4], *others[4:]]) == "CHARTER-QUORUM"


def test_votes_about_one_charter_count_nothing_for_a_similar_one() -> None:
    twin = draft(founded(PEOPLE), namespaces={"swiss-ai": PUBLISHER, "more": PUBLISHER})
    body = rewritten(ONE, prev=twin.digest, namespaces=json.loads(twin.data)["namespaces"])
    said = [
        each.says(replace(reading, prev=FIRST.digest))
        for each in PEOPLE
        for reading in (intent(twin, each.id, 1, body), ratify(twin, each.id, 1, body))
    ]
    assert refusal(body, said, previous=twin) == "CHARTER-QUORUM"


def test_data_beyond_the_bound_is_refused_before_it_is_read() -> None:
    with pytest.raises(Malformed, match="too large"):
        certify(FIRST, ONE, [b""] * (MAX_LINES + 1))
    with pytest.raises(Malformed, match="too large"):
        certify(FIRST, ONE, [b"x" * 2**26, b"x"])
    with pytest.raises(Malformed, match="too large"):
        Body.parse(b"[" * (MAX_BYTES + 1))
    with pytest.raises(Malformed, match="too large"):
        parse_entry(b"[" * (MAX_LINE + 1))


@pytest.mark.parametrize("round_", [0, -1, 2**53, True, "1", None, 1.0])
def test_a_round_is_a_number_from_one_on(round_: Any) -> None:
    statement = ratify(FIRST, CH.id, 1, ONE).statement()
    with pytest.raises(Malformed):
        parse_vote(sign_statement(replace(statement, body={**statement.body, "round": round_}), CH.signer))


def test_no_online_key_votes() -> None:
    online = key()
    node = Author("node", online.public.id)
    said = votes([ES], FIRST, ONE)
    by_node = [sign_statement(replace(entry.statement, by=node), online) for entry in said]
    for_member = [sign_statement(entry.statement, online) for entry in said]
    assert refusal(ONE, [*votes([CH, SG], FIRST, ONE), *by_node, *for_member]) == "CHARTER-QUORUM"
    with pytest.raises(Malformed):
        parse_vote(by_node[0])


def test_many_nodes_and_keys_of_one_member_are_one_vote() -> None:
    keys = [key() for _ in range(5)]
    many = Seated(replace(ES.inception, keys=KeySet(tuple(k.public for k in keys), 3)), keys[0], ES.recovery)
    previous = founded([CH, SG, many, KR])
    body = drafts(previous)[0]
    said = votes([many], previous, body)
    ways = [sign_statement(entry.statement, *keys[at : at + 3]) for entry in said for at in range(3)]
    too_few = [sign_statement(entry.statement, *keys[:2]) for entry in said]
    assert refusal(body, [*votes([CH], previous, body), *ways], previous=previous) == "CHARTER-QUORUM"
    assert refusal(body, [*votes([CH, SG], previous, body), *too_few], previous=previous) == "CHARTER-QUORUM"
    assert certify(previous, body, lines([*votes([CH, SG], previous, body), *ways])).body == body


def test_no_key_sits_on_two_seats() -> None:
    double = replace(NEWCOMER.seat, keys=CH.seat.keys)
    with pytest.raises(Malformed, match="one key appears twice"):
        five(double)


def test_a_quorum_cannot_re_key_a_seat() -> None:
    thief = key()
    stolen = replace(KR.seat, keys=KeySet((thief.public,), 1))
    rescued = replace(KR.seat, recovery=(thief.public.id,))
    for seat in (stolen, rescued):
        body = draft(FIRST, members=seats(seat))
        assert refusal(body, passed(body)) == "CHARTER-REKEYED"
    forged = replace(KR, recovery=SG.recovery).rotated(KR.seat, thief, thief)[1]
    body = draft(FIRST, members=seats(replace(KR.seat, keys=KeySet((thief.public,), 1), recovery=(thief.public.id,))))
    assert refusal(body, passed(body, forged)) == "CHARTER-REKEYED"


def test_a_member_re_keys_its_own_seat_without_a_vote_for_it() -> None:
    later, rotated = KR.rotated(KR.seat, key(), key())
    body = draft(FIRST, members=seats(seat_of(later)))
    assert refusal(body, passed(body)) == "CHARTER-REKEYED"
    assert certify(FIRST, body, lines(passed(body, rotated))).body == body


def seat_of(later: Seated) -> Member:
    """The seat of a member that rotated to one new key."""
    return replace(later.seat, keys=KeySet((later.signer.public,), 1), recovery=(later.recovery.public.id,))


def test_a_quorum_cannot_relabel_a_jurisdiction() -> None:
    body = draft(FIRST, members=seats(replace(KR.seat, jurisdiction="CN")))
    assert refusal(body, passed(body)) == "CHARTER-JURISDICTION"
    abroad = five(replace(NEWCOMER.seat, jurisdiction="CH"))
    agreed = NEWCOMER.agrees(abroad)
    assert refusal(abroad, [*votes(PEOPLE, FIRST, abroad), NEWCOMER.announced, agreed]) == "CHARTER-JURISDICTION"


@pytest.mark.parametrize("names", [{}, {"swiss-ai": sha256(b"another")}, {"Swiss-AI": PUBLISHER}])
def test_a_quorum_cannot_drop_or_rebind_a_namespace(names: dict[str, Digest]) -> None:
    body = draft(FIRST, namespaces=names)
    assert refusal(body, passed(body)) == "CHARTER-NAMESPACE"


def test_a_quorum_cannot_seat_a_member_without_its_consent() -> None:
    body = five(NEWCOMER.seat)
    agreed = NEWCOMER.agrees(body)
    said = votes(PEOPLE, FIRST, body)
    assert refusal(body, [*said, NEWCOMER.announced]) == "CHARTER-CONSENT"
    assert refusal(body, [*said, NEWCOMER.announced, NEWCOMER.agrees(ONE)]) == "CHARTER-CONSENT"
    assert refusal(body, [*said, agreed]) == "CHARTER-INCEPTION"
    assert refusal(body, [*said, NEWCOMER.announced, sign_statement(agreed.statement, CH.signer)]) == "CHARTER-CONSENT"
    assert certify(FIRST, body, lines([*said, NEWCOMER.announced, agreed])).body == body


def test_a_newcomer_is_no_vote_for_its_own_admission() -> None:
    body = five(NEWCOMER.seat)
    said = [NEWCOMER.announced, NEWCOMER.agrees(body), *votes([CH, SG, NEWCOMER], FIRST, body)]
    assert refusal(body, said) == "CHARTER-QUORUM"


def test_a_seat_is_succeeded_when_it_is_removed_and_in_its_own_jurisdiction() -> None:
    without = [seat for seat in FIRST.members if seat.id != CH.id]
    said = [HEIR.announced]
    good = draft(FIRST, members=[*without, replace(HEIR.seat, successor_of=CH.id)])
    others = draft(FIRST, members=[*without, replace(HEIR.seat, successor_of=sha256(b"nobody"))])
    abroad = draft(FIRST, members=[*without, replace(NEWCOMER.seat, successor_of=CH.id)])
    for who, body in ((HEIR, others), (NEWCOMER, abroad)):
        entries = [who.announced, who.agrees(body), *votes(PEOPLE, FIRST, body)]
        assert refusal(body, entries) == "CHARTER-SUCCESSOR"
    assert certify(FIRST, good, lines([*said, HEIR.agrees(good), *votes(PEOPLE, FIRST, good)])).body == good


def test_a_charter_with_an_unreachable_quorum_is_refused() -> None:
    with pytest.raises(Malformed):
        draft(FIRST, policy=replace(FIRST.policy, quorum_change=5))
    raised = draft(FIRST, policy=replace(FIRST.policy, quorum_change=4))
    assert refusal(raised, passed(raised)) == "CHARTER-QUORUM"
    assert certify(FIRST, raised, lines(votes(PEOPLE, FIRST, raised))).body == raised


@pytest.mark.parametrize("thief_first", [True, False])
def test_a_stolen_key_that_races_its_owners_rotation_is_one_vote_in_either_order(thief_first: bool) -> None:
    owner, rotated = KR.rotated(KR.seat, key(), key())
    stolen, rescued = votes([KR], FIRST, ONE), votes([owner], FIRST, OTHER)
    race = [*stolen, rotated, *rescued] if thief_first else [rotated, *rescued, *stolen]
    assert assemble(FIRST, ONE, [*votes([CH], FIRST, ONE), *race]) is None
    assert assemble(FIRST, OTHER, [*votes([CH], FIRST, OTHER), *race]) is None
    won = assemble(FIRST, OTHER, [*votes([CH, SG], FIRST, OTHER), *race])
    assert won is not None
    assert certify(FIRST, OTHER, won.lines) == won
    assert rotated.line in won.lines


def test_a_stolen_key_ends_with_the_epoch_in_which_its_owner_rotated() -> None:
    owner, rotated = KR.rotated(KR.seat, key(), key())
    second = draft(FIRST, members=seats(seat_of(owner)))
    assert certify(FIRST, second, lines(passed(second, rotated))).body == second
    third = draft(second, policy=replace(second.policy, min_copies=3))
    assert refusal(third, votes([CH, SG, KR], second, third), previous=second) == "CHARTER-QUORUM"
    assert certify(second, third, lines(votes([CH, SG, owner], second, third))).body == third


def test_a_stolen_governance_key_cannot_rotate() -> None:
    thief = key()
    forged = replace(KR, recovery=KR.signer).rotated(KR.seat, thief, key())[1]
    said = votes([replace(KR, signer=thief)], FIRST, ONE)
    assert refusal(ONE, [*votes([CH, SG], FIRST, ONE), forged, *said]) == "CHARTER-QUORUM"


def test_a_member_cannot_hide_its_vote_in_a_flood_of_statements() -> None:
    """Each member that counted its INTENT has a lock that all others must see."""
    said = votes([CH, SG, KR], FIRST, ONE, 2)
    flood = [KR.says(intent(FIRST, KR.id, 1, sha256(b"%d" % number))) for number in range(600)]
    assert assemble(FIRST, ONE, said) is not None
    assert assemble(FIRST, ONE, [*said, *flood]) is not None


def test_a_claim_to_have_ratified_in_its_own_round_is_void() -> None:
    """By the text of 7.2 it would need no unlock, and by that of 7.3 it would contradict nothing."""
    later = [intent(FIRST, each.id, 2, OTHER, last_ratified=RoundBody(2, OTHER.digest)) for each in (CH, SG, ES)]
    said = [*map(by_member, later), *votes([CH, SG, ES], FIRST, OTHER, 2)[1::2]]
    assert refusal(OTHER, said) == "CHARTER-INTENT"


def by_member(reading: Any) -> Entry:
    return next(each for each in PEOPLE if each.id == reading.member).says(reading)


def bodies(*known: Body) -> dict[Digest, bytes]:
    return {body.digest: body.data for body in known}


def everybody_rotates() -> tuple[list[Seated], list[Entry], Body]:
    """The members with new keys, their rotations, and the charter that lists those keys."""
    changes = [each.rotated(each.seat, key(), key()) for each in PEOPLE]
    later, rotated = [member for member, _ in changes], [line for _, line in changes]
    return later, rotated, draft(FIRST, members=[seat_of(member) for member in later])


def test_an_alternate_history_under_retired_keys_is_a_fork_for_readers_without_a_pinned_epoch() -> None:
    later, rotated, second = everybody_rotates()
    third = drafts(second)[0]
    true = [*votes(PEOPLE, FIRST, second), *rotated, *votes(later, second, third)]
    false = votes(PEOPLE, FIRST, OTHER, 2)
    newcomer = compute_tally(FIRST, [*true, *false], bodies(second, third, OTHER))
    assert newcomer.stopped and newcomer.current == FIRST
    (fork,) = newcomer.forks
    assert {fork.first.body.digest, fork.second.body.digest} == {second.digest, OTHER.digest}


def test_an_alternate_history_under_retired_keys_is_nothing_for_readers_with_a_pinned_epoch() -> None:
    later, rotated, second = everybody_rotates()
    third = drafts(second)[0]
    true = [*votes(PEOPLE, FIRST, second), *rotated, *votes(later, second, third)]
    false = votes(PEOPLE, FIRST, OTHER, 2)
    pinned = compute_tally(second, [*true, *false], bodies(second, third, OTHER))
    assert pinned.current == third and not pinned.forks
    took = certify(FIRST, second, lines([*votes(PEOPLE, FIRST, second), *rotated]))
    member = compute_tally(FIRST, [*true, *false], bodies(second, third, OTHER), adopted=[took])
    assert [fork.retired for fork in member.forks] == [True]
    assert member.current == third and not member.stopped


def test_a_node_that_follows_an_epoch_does_not_return_to_an_earlier_one() -> None:
    took = certify(FIRST, ONE, lines(passed(ONE)))
    rivals = votes(PEOPLE[1:], FIRST, OTHER, 1)
    for votes_read in ([], rivals, votes(PEOPLE, FIRST, OTHER, 3)):
        tally = compute_tally(FIRST, votes_read, bodies(OTHER), adopted=[took])
        assert [epoch.body for epoch in tally.epochs] == [ONE]
        assert tally.current == ONE
        assert tally.stopped == bool(votes_read)


def test_a_leaving_member_counts_until_a_charter_removes_it() -> None:
    gone = [sign_statement(left_statement(FIRST, each.id), each.signer) for each in (ES, KR)]
    tally = compute_tally(FIRST, [*gone, *votes([CH, SG], FIRST, ONE)], bodies(ONE))
    assert tally.left == {ES.id, KR.id}
    assert not tally.epochs and tally.current.quorum == 3
    said = [*gone, *votes([CH, SG, KR], FIRST, ONE)]
    assert [epoch.body for epoch in compute_tally(FIRST, said, bodies(ONE)).epochs] == [ONE]


def test_many_drafts_of_one_member_hide_none_of_another() -> None:
    flood = [draft(FIRST, policy=replace(FIRST.policy, min_copies=9 + number)) for number in range(100)]
    put_forward = [sign_statement(draft_statement(body, KR.id, "x" * 4000), KR.signer) for body in flood]
    said = [*put_forward, sign_statement(draft_statement(ONE, CH.id, ""), CH.signer), *votes([CH, SG], FIRST, ONE)]
    tally = compute_tally(FIRST, said, bodies(ONE, *flood))
    assert tally.draft(ONE.digest) is not None
    assert len(tally.drafts) < 20
