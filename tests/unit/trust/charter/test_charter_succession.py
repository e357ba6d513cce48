"""Drafts: how a charter may follow its predecessor, and which changes are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from comity.rules.charter_drafts import draft, genesis
from comity.trust.charter.document import Body, Member, check_new_seat, check_succession
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.rotation import RotationChain, follow
from support.assembly import CLASSICAL, change, found, members, reseated
from support.rotations import of, seated
from support.world import identity, seat

SEATS = members(4)
FIRST, *OTHERS = SEATS
PUBLISHER, RIVAL = identity("A publisher").id, identity("A rival").id
BODY = found(SEATS, swiss=PUBLISHER, apertus=PUBLISHER)
NEWCOMER = seat("ZZ", CLASSICAL)
HEIR = identity("Institute again", FIRST.inception.jurisdiction, kind="member", algs=CLASSICAL)
NEW = {NEWCOMER.id: NEWCOMER.inception, HEIR.id: HEIR.inception}


def follows(body: Body, chains: dict[Digest, RotationChain] | None = None, previous: Body = BODY) -> None:
    check_succession(previous, body, chains or {}, NEW)


def refusal(body: Body, chains: dict[Digest, RotationChain] | None = None, previous: Body = BODY) -> str:
    with pytest.raises(Untrusted) as caught:
        follows(body, chains, previous)
    return caught.value.code


def with_first(**changed: Any) -> Body:
    return draft(BODY, members=[replace(FIRST.member, **changed), *(who.member for who in OTHERS)])


def joined(*more: Member, without: int = 0) -> Body:
    return reseated(BODY, [*(who.member for who in SEATS[without:]), *more])


def test_fields_that_a_draft_leaves_out_stay_as_they_are() -> None:
    body = draft(BODY, note_digest=sha256(b"why"))
    assert (body.members, body.namespaces, body.policy) == (BODY.members, BODY.namespaces, BODY.policy)
    assert (body.epoch, body.prev, body.federation) == (1, BODY.digest, BODY.digest)
    assert Body.parse(body.data).note_digest == sha256(b"why")
    follows(body)


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        pytest.param(b'"epoch":1', b'"epoch":2', id="an epoch later"),
        pytest.param(b'"prev":"%s"' % BODY.digest.encode(), b'"prev":"%s"' % FIRST.id.encode(), id="another link"),
        pytest.param(
            b'"federation":"%s"' % BODY.digest.encode(),
            b'"federation":"%s"' % FIRST.id.encode(),
            id="another federation",
        ),
    ],
)
def test_a_body_follows_its_direct_predecessor(said: bytes, instead: bytes) -> None:
    data = change(BODY).data
    assert data.count(said) == 1
    follows(Body.parse(data))
    assert refusal(Body.parse(data.replace(said, instead))) == "CHARTER-EPOCH"


def test_names_statuses_and_policies_change_by_vote() -> None:
    follows(with_first(name="Renamed"))
    follows(reseated(BODY, [replace(FIRST.member, status="observer"), *(who.member for who in OTHERS)]))
    follows(change(BODY))


def test_members_leave_and_newcomers_come_with_their_inception() -> None:
    follows(joined(NEWCOMER.member))
    follows(joined(without=1))
    stranger = seat("YY", CLASSICAL)
    assert refusal(joined(stranger.member)) == "CHARTER-INCEPTION"


def test_a_newcomers_seat_equals_its_inception() -> None:
    assert refusal(joined(replace(NEWCOMER.member, keys=FIRST.member.keys), without=1)) == "CHARTER-REKEYED"
    assert refusal(joined(replace(NEWCOMER.member, recovery=()))) == "CHARTER-REKEYED"
    assert refusal(joined(replace(NEWCOMER.member, jurisdiction="YY"))) == "CHARTER-JURISDICTION"
    publisher = identity("A publisher", "YY", algs=CLASSICAL)
    with pytest.raises(Untrusted, match="is not for a member in"):
        check_new_seat(publisher.member, publisher.inception)


def test_the_inception_of_another_member_gives_no_seat() -> None:
    for inception in (HEIR.inception, None):
        with pytest.raises(Untrusted) as caught:
            check_new_seat(replace(HEIR.member, id=NEWCOMER.id), inception)
        assert caught.value.code == "CHARTER-INCEPTION"


def test_no_vote_re_keys_a_seat() -> None:
    thief = seat("YY", CLASSICAL).member
    assert refusal(with_first(keys=thief.keys)) == "CHARTER-REKEYED"
    assert refusal(with_first(recovery=thief.recovery)) == "CHARTER-REKEYED"


def test_a_seat_moves_along_its_own_rotations() -> None:
    begun = seated(FIRST.member, of(FIRST))
    second, entry = begun.to("second")
    third, another = second.to("third")
    chain = follow(begun.state, [another, entry])
    for state in (begun, second, third):
        follows(with_first(keys=state.state.keys, recovery=state.state.recovery), {FIRST.id: chain})
    mixed = with_first(keys=second.state.keys, recovery=third.state.recovery)
    assert refusal(mixed, {FIRST.id: chain}) == "CHARTER-REKEYED"


def test_a_seat_never_returns_to_retired_keys() -> None:
    begun = seated(FIRST.member, of(FIRST))
    second, entry = begun.to("second")
    chain = follow(begun.state, [entry])
    moved = with_first(keys=second.state.keys, recovery=second.state.recovery)
    follows(moved, {FIRST.id: chain})
    back = draft(moved, members=BODY.members)
    after = {FIRST.id: follow(next(m for m in moved.members if m.id == FIRST.id).key_state, [entry])}
    assert refusal(back, after, moved) == "CHARTER-REKEYED"


def test_a_newcomer_may_have_rotated_before_it_joined() -> None:
    begun = of(NEWCOMER)
    second, entry = begun.to("moved in")
    member = replace(NEWCOMER.member, keys=second.state.keys, recovery=second.state.recovery)
    follows(joined(member), {NEWCOMER.id: follow(begun.state, [entry])})
    assert refusal(joined(member)) == "CHARTER-REKEYED"


def test_no_vote_relabels_a_jurisdiction() -> None:
    assert refusal(with_first(jurisdiction="YY")) == "CHARTER-JURISDICTION"


def test_a_lost_seat_is_succeeded_in_the_charter_that_removes_it() -> None:
    heir = replace(HEIR.member, successor_of=FIRST.id)
    follows(joined(heir, without=1))
    assert refusal(joined(replace(heir, successor_of=sha256(b"nobody")), without=1)) == "CHARTER-SUCCESSOR"
    assert refusal(joined(replace(NEWCOMER.member, successor_of=FIRST.id), without=1)) == "CHARTER-SUCCESSOR"
    with pytest.raises(Malformed):
        joined(heir)


def test_a_successor_stays_a_successor() -> None:
    after = joined(replace(HEIR.member, successor_of=FIRST.id), without=1)
    follows(change(after), previous=after)
    forgetful = [replace(member, successor_of=None) for member in after.members]
    assert refusal(draft(after, members=forgetful), previous=after) == "CHARTER-SUCCESSOR"
    assert refusal(with_first(successor_of=sha256(b"somebody"))) == "CHARTER-SUCCESSOR"


def test_a_line_of_successors_counts_under_the_id_at_which_it_begins() -> None:
    after = joined(replace(HEIR.member, successor_of=FIRST.id), without=1)
    code = FIRST.inception.jurisdiction
    third = identity("Institute once more", code, kind="member", algs=CLASSICAL)
    others = [member for member in after.members if member.id != HEIR.id]
    inceptions = {third.id: third.inception}
    body = draft(after, members=[*others, replace(third.member, successor_of=FIRST.id)])
    check_succession(after, body, {}, inceptions)
    assert {member.lineage for member in body.members} == {member.id for member in BODY.members}
    with pytest.raises(Untrusted, match="does not succeed a removed seat"):
        check_succession(
            after, draft(after, members=[*others, replace(third.member, successor_of=HEIR.id)]), {}, inceptions
        )


def test_every_bound_name_stays_with_its_publisher() -> None:
    follows(draft(BODY, namespaces={**BODY.namespaces, "more": RIVAL}))
    assert refusal(draft(BODY, namespaces={"swiss": PUBLISHER})) == "CHARTER-NAMESPACE"
    assert refusal(draft(BODY, namespaces={**BODY.namespaces, "swiss": RIVAL})) == "CHARTER-NAMESPACE"


def test_only_a_genesis_has_a_predecessor() -> None:
    founded_again = genesis(BODY.members, BODY.policy, predecessor=BODY.digest)
    assert Body.parse(founded_again.data).predecessor == BODY.digest
    assert founded_again.federation != BODY.federation
    later = draft(founded_again)
    assert later.predecessor is None
    with pytest.raises(Malformed, match="predecessor"):
        Body.parse(later.data.replace(b'"prev"', b'"predecessor":"%s","prev"' % BODY.digest.encode()))


@pytest.mark.parametrize(("count", "policy", "quorum", "blocking"), [(4, 3, 3, 2), (4, 4, 4, 1), (7, 5, 5, 3)])
def test_the_quorum_is_the_policys_and_at_least_the_floor(count: int, policy: int, quorum: int, blocking: int) -> None:
    body = found(members(count), quorum_change=policy)
    assert (body.quorum, body.blocking) == (quorum, blocking)
