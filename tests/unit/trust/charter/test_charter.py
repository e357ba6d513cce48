"""The charter document: its fields, their bounds, the quorum, and the genesis."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from comity.rules.charter_drafts import genesis
from comity.rules.signing import sign_content
from comity.trust.charter.certificate import StatementSet, certify_genesis, consenting
from comity.trust.charter.document import Body, CharterPolicy, Member, quorum, seat_names
from comity.trust.charter.votes import consent
from comity.trust.encoding import canonical, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.identity import Inception, InceptionStatement, KeySet
from comity.trust.statement import Statement, Subject, sign_statement
from support.case import nodes
from support.rotations import of
from support.world import draft, identity, seat, signer

SEATS = [node.seat for node in nodes(4)]
BODY = draft([owner.member for owner in SEATS], {"swiss-ai": identity("Swiss AI", "CH").id})
CONSENTS = [consent(BODY, owner.id, owner.signer).line for owner in SEATS]
INCEPTIONS = [owner.entry.line for owner in SEATS]
INCEPTIONS = [owner.entry.line for owner in SEATS]
FIRST, *OTHERS = sorted(SEATS, key=lambda owner: owner.id)


def document(**change: Any) -> bytes:
    return canonical({**json.loads(BODY.data), **change})


def member(**change: Any) -> bytes:
    members = json.loads(BODY.data)["members"]
    return document(members=[{**members[0], **change}, *members[1:]])


def policy(**change: Any) -> bytes:
    return document(policy={**json.loads(BODY.data)["policy"], **change})


def consent_saying(**change: Any) -> bytes:
    said = consent(BODY, FIRST.id, FIRST.signer).statement
    return sign_statement(replace(said, **change), FIRST.signer).line


@pytest.mark.parametrize(
    ("members", "least"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (9, 7), (10, 7)]
)
def test_a_quorum_is_more_than_two_thirds(members: int, least: int) -> None:
    assert quorum(members) == least
    assert 3 * least > 2 * members >= 3 * (least - 1)


def test_a_body_reads_back_and_keeps_its_bytes() -> None:
    again = Body.parse(BODY.data)
    assert again == BODY
    assert again.data == BODY.data
    assert again.digest == again.federation == sha256(BODY.data)
    assert {found.id for found in again.members} == {owner.id for owner in SEATS}
    assert again.member(FIRST.id) == FIRST.member
    assert again.member(sha256(b"nobody")) is None


def test_names_may_be_as_long_as_the_limits() -> None:
    name, namespace = "n" * 100, "s" * 96
    assert Body.parse(member(name=name)).members[0].name == name
    named = document(namespaces=[{"name": namespace, "publisher": FIRST.id}])
    assert Body.parse(named).namespaces == {namespace: FIRST.id}


def test_a_namespace_is_bound_in_whatever_case_it_is_written() -> None:
    body = Body.parse(document(namespaces=[{"name": "Swiss-AI", "publisher": FIRST.id}]))
    assert {body.bound_publisher(name) for name in ("Swiss-AI", "swiss-ai", "SWISS-AI")} == {FIRST.id}
    assert body.bound_publisher("another") is None


def test_a_jurisdiction_may_be_as_long_as_its_limit() -> None:
    region = "r" * 31
    assert Body.parse(member(jurisdiction=region)).members[0].jurisdiction == region
    with pytest.raises(Malformed):
        Body.parse(member(jurisdiction=f"{region}r"))


@pytest.mark.parametrize("reaches", [0, 1, 3])
def test_a_policy_asks_for_legal_reaches_or_does_not_name_them(reaches: int) -> None:
    members = [owner.member for owner in SEATS]
    asked = genesis(members, replace(BODY.policy, min_reaches=reaches))
    assert Body.parse(asked.data).policy.min_reaches == reaches
    assert ("min_reaches" in json.loads(asked.data)["policy"]) == bool(reaches)


def test_a_policy_that_names_no_reach_says_nothing_about_reaches() -> None:
    with pytest.raises(Malformed):
        Body.parse(policy(min_reaches=0))


def test_of_many_seats_the_first_are_named_and_the_others_counted() -> None:
    assert seat_names([]) == ""
    names = [FIRST.member.name, *(other.member.name for other in OTHERS)]
    seats = [FIRST.member, *(other.member for other in OTHERS)]
    assert seat_names(seats, most=4) == seat_names(seats) == ", ".join(names)
    assert seat_names(seats, most=3) == f"{', '.join(names[:3])} and 1 more"
    assert seat_names(seats[:1] * 9) == ", ".join([names[0]] * 8) + " and 1 more"


def test_the_same_members_make_a_draft_with_the_same_bytes() -> None:
    assert draft([owner.member for owner in reversed(SEATS)], BODY.namespaces).data == BODY.data


def test_a_later_epoch_names_its_federation_and_what_it_follows() -> None:
    later = Body.parse(document(epoch=1, prev=BODY.digest, federation=BODY.federation))
    assert (later.epoch, later.prev, later.federation) == (1, BODY.digest, BODY.federation)


def test_a_successor_counts_as_the_seat_that_it_follows() -> None:
    heir = replace(seat("IN").member, successor_of=FIRST.id)
    body = genesis([heir, *(owner.member for owner in OTHERS)], CharterPolicy(3, 2, 2, 2))
    found = Body.parse(body.data).member(heir.id)
    assert found is not None
    assert found.lineage == FIRST.id


def test_a_seat_has_one_successor_and_leaves_when_it_comes() -> None:
    heirs = [replace(seat(code).member, successor_of=FIRST.id) for code in ("IN", "BR")]
    for members in ([FIRST.member, heirs[0]], heirs):
        with pytest.raises(Malformed, match="successor"):
            genesis(members, CharterPolicy(2, 1, 1, 1))


@pytest.mark.parametrize("name", ["{}", "{} ", "  {}", "\N{NO-BREAK SPACE}{}"])
@pytest.mark.parametrize("spelt", [str, str.upper, str.lower])
def test_no_two_seats_have_one_name(name: str, spelt: Any) -> None:
    other = replace(OTHERS[0].member, name=name.format(spelt(FIRST.member.name)))
    with pytest.raises(Malformed) as refused:
        genesis([FIRST.member, other], CharterPolicy(2, 1, 1, 1))
    assert refused.value.code in ("CHARTER-NAME", "MALFORMED")


MARKS = "\u3164\u115f\uffa0\u2800\u200b\u202e\ufe0f\U000e0041\U00013430\U0001d159\U00016fe4"


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("name", ["{1}{0}", "{0}{1}", "{0} {1} x", "{1}"])
def test_a_seat_has_a_name_that_can_be_seen(mark: str, name: str) -> None:
    other = replace(OTHERS[0].member, name=name.format(FIRST.member.name, mark))
    with pytest.raises(Malformed) as refused:
        genesis([FIRST.member, other], CharterPolicy(2, 1, 1, 1))
    assert refused.value.code == "INVISIBLE-NAME"
    assert mark not in str(refused.value)


@pytest.mark.parametrize("name", ["Universität Zürich", "서울대학교", "ภาษาไทย", "المعهد", "Institut d'Été – 2"])
def test_a_seat_may_have_a_name_in_any_script(name: str) -> None:
    member = replace(OTHERS[0].member, name=name)
    assert name in {each.name for each in genesis([FIRST.member, member], CharterPolicy(2, 1, 1, 1)).members}


def test_a_successor_may_have_the_name_of_the_seat_that_leaves() -> None:
    heir = replace(seat("IN").member, successor_of=FIRST.id, name=FIRST.member.name)
    assert Body.parse(genesis([heir, OTHERS[0].member], CharterPolicy(2, 1, 1, 1)).data).member(heir.id) == heir


def test_observers_have_no_vote() -> None:
    members = [replace(owner.member, status="observer" if owner is FIRST else "active") for owner in SEATS]
    body = genesis(members, CharterPolicy(3, 2, 2, 2))
    assert len(body.active) == 3
    with pytest.raises(Malformed):
        genesis(members, CharterPolicy(4, 2, 2, 2))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(BODY.data + b" ", id="white space"),
        pytest.param(document(schema="comity/charter/v2"), id="another schema"),
        pytest.param(document(extra=1), id="an unknown member"),
        pytest.param(document(prev=BODY.digest), id="a genesis that follows something"),
        pytest.param(document(federation=BODY.digest), id="a genesis that names a federation"),
        pytest.param(document(epoch=1), id="an epoch that follows nothing"),
        pytest.param(document(epoch=1, prev="sha256:" + BODY.digest, federation=BODY.digest), id="a prefixed prev"),
        pytest.param(document(epoch=-1), id="a negative epoch"),
        pytest.param(document(members=[]), id="no members"),
        pytest.param(document(members=json.loads(BODY.data)["members"][::-1]), id="another order"),
        pytest.param(document(members=json.loads(BODY.data)["members"][:1] * 4), id="a member four times"),
        pytest.param(member(id=sha256(b"")), id="an id out of order"),
        pytest.param(member(status="king"), id="an unknown status"),
        pytest.param(member(jurisdiction="Atlantis"), id="no jurisdiction"),
        pytest.param(member(name="CSCS\nPASS"), id="a name of two lines"),
        pytest.param(member(threshold=0), id="a threshold of none"),
        pytest.param(member(governance_keys=json.loads(BODY.data)["members"][1]["governance_keys"]), id="a shared key"),
        pytest.param(member(vote=2), id="an unknown member of a member"),
        pytest.param(policy(quorum_change=2), id="a quorum under the floor"),
        pytest.param(policy(quorum_change=5), id="a quorum over all members"),
        pytest.param(policy(min_copies=0), id="no copies"),
        pytest.param(policy(min_jurisdictions=0), id="no jurisdictions"),
        pytest.param(policy(schema_floor=0), id="no schema"),
        pytest.param(policy(min_reaches=0), id="no reaches, spelled out"),
        pytest.param(policy(min_reaches=5), id="more reaches than are counted"),
        pytest.param(member(name="n" * 101), id="a long name"),
        pytest.param(member(jurisdiction="CH-" + "A" * 29), id="a long jurisdiction"),
        pytest.param(
            document(epoch=1, prev=BODY.digest, members=json.loads(BODY.data)["members"]), id="a lost federation"
        ),
        pytest.param(
            document(namespaces=[{"name": name, "publisher": FIRST.id} for name in ("b", "a")]), id="unsorted names"
        ),
        pytest.param(document(namespaces=[{"name": "n" * 97, "publisher": FIRST.id}]), id="a long namespace"),
        pytest.param(document(namespaces=[{"name": "a", "publisher": FIRST.id, "b": 1}]), id="a namespace with more"),
        pytest.param(policy(cosigner_quorum=-1), id="a negative cosigner quorum"),
        pytest.param(policy(veto="CH"), id="an unknown rule"),
        pytest.param(document(namespaces=[{"name": "b", "publisher": FIRST.id}] * 2), id="a namespace twice"),
        pytest.param(document(namespaces=[{"name": "a b", "publisher": FIRST.id}]), id="a bad namespace"),
        pytest.param(
            document(namespaces=[{"name": name, "publisher": FIRST.id} for name in ("Swiss-AI", "swiss-ai")]),
            id="two namespaces that differ by case",
        ),
    ],
)
def test_a_body_that_breaks_a_rule_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        Body.parse(data)


def test_a_genesis_is_unanimous() -> None:
    assert certify_genesis(BODY, INCEPTIONS + CONSENTS) == BODY
    assert certify_genesis(BODY, [b"junk", *reversed(CONSENTS), *CONSENTS, *INCEPTIONS]) == BODY
    assert consenting(BODY, StatementSet.read(CONSENTS)) == {owner.id for owner in SEATS}


@pytest.mark.parametrize("at", range(len(SEATS)))
def test_each_missing_consent_is_named(at: int) -> None:
    with pytest.raises(Untrusted, match=f"no valid consent of {SEATS[at].inception.label}$") as refusal:
        certify_genesis(BODY, INCEPTIONS + CONSENTS[:at] + CONSENTS[at + 1 :])
    assert refusal.value.code == "CHARTER-CONSENT"


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(consent(BODY, FIRST.id, signer("a stranger")).line, id="signed by a stranger"),
        pytest.param(
            consent(BODY, FIRST.id, OTHERS[0].signer).line,
            id="signed by another member",
        ),
        pytest.param(consent(draft([FIRST.member]), FIRST.id, FIRST.signer).line, id="to another body"),
        pytest.param(consent_saying(predicate="ratified", objects=()), id="another predicate"),
        pytest.param(consent_saying(subjects=(Subject("charter", sha256(b"other")),)), id="about another body"),
        pytest.param(
            consent_saying(body={"federation": BODY.federation, "prev": BODY.digest, "body": BODY.digest}),
            id="following something",
        ),
        pytest.param(consent_saying(body={"federation": FIRST.id, "prev": None, "body": BODY.digest}), id="elsewhere"),
        pytest.param(consent_saying(body={"federation": BODY.federation, "prev": None}), id="naming no body"),
        pytest.param(consent_saying(by=replace(FIRST.inception.author, kind="node")), id="by a node"),
        pytest.param(
            consent_saying(body={"federation": BODY.federation, "prev": None, "body": BODY.digest, "unless": "paid"}),
            id="with a condition",
        ),
    ],
)
def test_an_invalid_consent_does_not_count(line: bytes) -> None:
    others = [consent(BODY, owner.id, owner.signer).line for owner in OTHERS]
    assert FIRST.id not in consenting(BODY, StatementSet.read([line]))
    with pytest.raises(Untrusted, match=FIRST.inception.label):
        certify_genesis(BODY, [*INCEPTIONS, *others, line])


def test_observers_consent_to_a_genesis_too() -> None:
    observer = replace(FIRST.member, status="observer")
    body = genesis([observer, *(owner.member for owner in OTHERS)], CharterPolicy(3, 2, 2, 2))
    with pytest.raises(Untrusted, match=FIRST.inception.label):
        certify_genesis(body, INCEPTIONS + [consent(body, owner.id, owner.signer).line for owner in OTHERS])


def test_a_member_with_several_keys_consents_by_its_threshold() -> None:
    a, b, c = signer("a"), signer("b"), signer("c")
    record = Inception("member", KeySet((a.public, b.public, c.public), 2), (), "", "CA", "Three keys")
    body = draft([Member(record.id, record.label, "CA", record.keys, ())])
    inception = sign_content(InceptionStatement(record), a, b, c).line
    assert certify_genesis(body, [inception, consent(body, record.id, c, a).line]) == body
    for signers in ((a,), (a, signer("d"))):
        with pytest.raises(Untrusted):
            certify_genesis(body, [inception, consent(body, record.id, *signers).line])
    with pytest.raises(Untrusted):
        certify_genesis(body, [inception, *(consent(body, record.id, key).line for key in (a, b))])


@pytest.mark.parametrize("at", range(len(SEATS)))
def test_no_member_founds_a_federation_without_its_inception(at: int) -> None:
    with pytest.raises(Untrusted, match=f"no valid inception of {SEATS[at].inception.label}") as refusal:
        certify_genesis(BODY, [*CONSENTS, *INCEPTIONS[:at], *INCEPTIONS[at + 1 :]])
    assert refusal.value.code == "CHARTER-INCEPTION"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"jurisdiction": "YY"}, "CHARTER-JURISDICTION"),
        ({"recovery": ()}, "CHARTER-REKEYED"),
    ],
)
def test_a_founders_seat_equals_its_inception(changed: dict[str, Any], code: str) -> None:
    body = draft([replace(FIRST.member, **changed), *(owner.member for owner in OTHERS)])
    with pytest.raises(Untrusted) as refusal:
        certify_genesis(body, [*(consent(body, owner.id, owner.signer).line for owner in SEATS), *INCEPTIONS])
    assert refusal.value.code == code


def test_a_founder_may_have_rotated_before() -> None:
    second, rotation = of(FIRST).to("before founding")
    member = replace(FIRST.member, keys=second.state.keys, recovery=second.state.recovery)
    body = draft([member, *(owner.member for owner in OTHERS)])
    lines = [consent(body, FIRST.id, second.keys[0]).line]
    lines += [*(consent(body, owner.id, owner.signer).line for owner in OTHERS), *INCEPTIONS]
    with pytest.raises(Untrusted, match="own rotations do not lead"):
        certify_genesis(body, lines)
    assert certify_genesis(body, [*lines, rotation.line]) == body


def test_a_later_epoch_is_no_genesis() -> None:
    later = Body.parse(document(epoch=1, prev=BODY.digest, federation=BODY.federation))
    with pytest.raises(Untrusted, match="not a genesis"):
        certify_genesis(later, INCEPTIONS + CONSENTS)


def test_a_statement_that_is_not_ours_is_no_consent() -> None:
    foreign = Statement("vouched", (Subject("", BODY.digest),), FIRST.inception.author, {})
    assert consenting(BODY, StatementSet.read([sign_statement(foreign, FIRST.signer).line, b"", b"{}"])) == frozenset()
