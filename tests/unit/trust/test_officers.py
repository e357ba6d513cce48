"""Which approvals count: of the officers whom the owner names, for the policy's scope, at the policy's time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import permutations

import pytest
from comity.rules.signing import sign_content
from comity.trust.approvals import ApprovalConditions, ApprovalEnded, Approved, approval_key, filled_places
from comity.trust.claims import read_claims
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from comity.trust.evidence import Row
from comity.trust.identity import Inception, InceptionStatement, KeySet
from comity.trust.keys import PublicKey
from comity.trust.officers import prove_approvals
from comity.trust.policy import ApprovalRule
from comity.trust.policy_file import parse_policy
from comity.trust.rotation import LogCut, parse_rotation
from comity.trust.statement import Author, SideObject, Statement, Subject, sign_statement
from comity.trust.statement_kinds import APPROVED
from comity.trust.statements import Advisory, Compromise, Vouched
from comity.trust.verify import verify
from hypothesis import given, settings
from hypothesis import strategies as st
from support.approvals import ANNA, AS_OF, BEN, CARLA, DAY, GOOD, SCOPE, STRANGER, asking, by, end_of, entry_of, table
from support.case import Case, filled, nodes, release
from support.examples import examples
from support.rotations import of
from support.several_keys import several_keys
from support.world import Identity, draft, identity, seat, signer

CH, SG, ES, KR = nodes(4)
TEXT = b"only in the ward\n"


def row(what: Case) -> Row:
    return what.verdict().row("approvals")


def test_one_of_two_is_refused_and_two_of_two_pass() -> None:
    one = asking().saying(*by(ANNA))
    verdict = one.verdict()
    assert (verdict.exit_status, verdict.row("approvals").state, verdict.row("approvals").cause) == (4, "fail", "short")
    assert verdict.row("approvals").summary.startswith(f"1 of 2 required for {SCOPE}: Anna; ")
    two = one.saying(*by(BEN))
    assert (two.verdict().exit_status, row(two).state) == (0, "pass")
    assert row(two).summary == f"2 of 2 required for {SCOPE}: Anna, Ben; until 2026-12-24T00:00:00Z"
    facts = {fact.text: fact.basis for fact in row(two).facts}
    assert facts["Carla: no approval is here"] == "stale or absent"
    assert [basis for text, basis in facts.items() if text.startswith("Anna approved it for")] == ["verified here"]
    assert {entry_of(ANNA).digest, entry_of(BEN).digest} <= set(two.verdict().inputs)


def test_without_the_table_no_approval_is_asked_for_and_none_is_judged() -> None:
    verdict = GOOD.saying(*by(ANNA)).verdict()
    assert (verdict.row("approvals").state, verdict.row("notes").state, verdict.exit_status) == (
        "not-checked",
        "pass",
        0,
    )


def test_the_table_alone_requires_the_row() -> None:
    assert "approvals" in asking().policy.require
    assert asking().verdict().exit_status == 4


def test_an_approval_counts_from_its_beginning_until_its_end_at_the_time_of_the_policy() -> None:
    for since, until, counts in (
        (AS_OF, AS_OF + 1, True),
        (AS_OF - 1, AS_OF, True),
        (AS_OF + 1, AS_OF + 2, False),
        (AS_OF - 2, AS_OF - 1, False),
    ):
        assert (row(asking(at_least=1).saying(*by(ANNA, since=since, until=until))).state == "pass") is counts


@pytest.mark.parametrize(("since", "counts"), [(AS_OF + 1, True), (AS_OF, False), (AS_OF - DAY, False)])
def test_an_ended_approval_is_refused_from_its_end_on(since: int, counts: bool) -> None:
    entry = entry_of(ANNA)
    ended = asking(at_least=1).saying(ANNA.entry.line, entry.line, end_of(ANNA, entry, since))
    assert (row(ended).state == "pass") is counts
    if counts:
        assert row(ended).summary.endswith("until 2026-11-24T00:00:00Z")
    else:
        assert "its officer ended it" in row(ended).summary


def test_the_earliest_end_counts_despite_later_ones() -> None:
    entry = entry_of(ANNA)
    ends = [end_of(ANNA, entry, AS_OF), end_of(ANNA, entry, AS_OF + DAY)]
    for order in (ends, ends[::-1]):
        assert row(asking(at_least=1).saying(ANNA.entry.line, entry.line, *order)).state == "fail"


def test_an_end_may_have_no_reason() -> None:
    entry = entry_of(ANNA)
    ended = ApprovalEnded(ANNA.id, GOOD.artifact, entry.statement_digest, AS_OF)
    refused = asking(at_least=1).saying(ANNA.entry.line, entry.line, sign_content(ended, ANNA.signer).line)
    assert row(refused).summary.endswith("its officer ended it from 2026-11-24T00:00:00Z on")


def test_neither_the_order_of_approvals_nor_that_of_their_ends_matters() -> None:
    late, early = entry_of(ANNA), entry_of(ANNA, until=AS_OF + DAY)
    ends = [end_of(ANNA, late, AS_OF + days * DAY) for days in (3, 1, 2)]
    for lines in permutations((late.line, early.line, *ends)):
        claims = read_claims((ANNA.entry.line, *lines), GOOD.artifact)
        proven, notes = prove_approvals(claims, GOOD.artifact, asking().policy.approvals, ())
        assert [each.entry.digest for each in proven] == [early.digest, late.digest]
        assert [each.end and each.end.since for each in proven] == [None, AS_OF + DAY]
        assert notes == ()


@pytest.mark.parametrize("who", [BEN, STRANGER], ids=["another officer", "a stranger"])
def test_no_officer_ends_the_approval_of_another(who: Identity) -> None:
    entry = entry_of(ANNA)
    ended = asking(at_least=1).saying(ANNA.entry.line, entry.line, who.entry.line, end_of(who, entry, AS_OF - DAY))
    assert row(ended).state == "pass"


def test_an_officer_may_approve_again_after_an_end() -> None:
    entry, again = entry_of(ANNA), entry_of(ANNA, time=AS_OF - 5)
    assert (
        row(asking(at_least=1).saying(ANNA.entry.line, entry.line, end_of(ANNA, entry, AS_OF - 9), again.line)).state
        == "pass"
    )


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        pytest.param({"scope": "hospital-basel"}, "it is for the scope hospital-basel", id="another scope"),
        pytest.param({"scope": SCOPE.upper()}, "it is for the scope HOSPITAL-BERN", id="another spelling"),
        pytest.param({"until": AS_OF + 99 * DAY}, "it is for 100 days, and the policy allows 40", id="too long"),
    ],
)
def test_an_approval_that_the_policy_does_not_ask_for_does_not_count(changed: dict[str, object], refusal: str) -> None:
    refused = asking(at_least=1, max_days="40").saying(*by(ANNA, **changed))
    assert (row(refused).state, refusal in row(refused).summary) == ("fail", True)


def test_an_approval_may_be_as_long_as_the_policy_allows() -> None:
    asked = asking(at_least=1, max_days="40")
    longest = {"since": AS_OF, "until": AS_OF + 40 * DAY}
    assert row(asked.saying(*by(ANNA, **longest))).state == "pass"
    over = row(asked.saying(*by(ANNA, **{**longest, "until": AS_OF + 40 * DAY + 1})))
    assert (over.state, over.summary.rpartition(": ")[2]) == ("fail", "it is for 41 days, and the policy allows 40")


def test_an_officer_who_approves_very_often_costs_no_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[int]()

    def fill(places: Sequence[Collection[Digest]], people: Sequence[Collection[Digest]]) -> Mapping[int, int]:
        tried.append(len(people))
        return filled_places(places, people)

    monkeypatch.setattr("comity.trust.rows.approvals.filled_places", fill)
    often = [line for number in range(20) for line in by(ANNA, until=AS_OF + (20 + number) * DAY)]
    passed = row(asking().saying(*often, *by(BEN, until=AS_OF + 10 * DAY)))
    assert (passed.state, passed.summary.rpartition("until ")[2]) == ("pass", "2026-12-04T00:00:00Z")
    assert len(tried) == 3


def test_an_approval_of_another_artifact_does_not_count() -> None:
    assert row(asking(at_least=1).saying(*by(ANNA, artifact=sha256(b"other")))).state == "fail"


def test_an_approval_about_several_artifacts_does_not_count() -> None:
    body = entry_of(ANNA).statement.body
    subjects = (Subject("", GOOD.artifact), Subject("", sha256(b"other")))
    made = sign_statement(Statement(APPROVED, subjects, ANNA.inception.author, body), ANNA.signer)
    verdict = asking(at_least=1).saying(ANNA.entry.line, made.line).verdict()
    assert (verdict.row("approvals").state, verdict.row("notes").state) == ("fail", "fail")


def test_strangers_cost_no_signature_check_and_leave_no_note(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for number in range(20) for line in by(STRANGER, time=AS_OF + number)]
    flooded, checked = asking().saying(*by(ANNA), *by(BEN), *lines), list[PublicKey]()
    real = PublicKey.verify

    def counted(key: PublicKey, signature: bytes, message: bytes) -> None:
        checked.append(key)
        real(key, signature, message)

    monkeypatch.setattr(PublicKey, "verify", counted)
    verdict = flooded.verdict()
    assert (verdict.exit_status, verdict.row("notes").state, len(verdict.row("approvals").facts)) == (0, "pass", 3)
    strangers = {half.id for half in STRANGER.signer.public.halves}
    assert sum(key.id in strangers for key in checked) <= 2  # its inception


def test_a_forged_approval_is_a_note_and_does_not_count() -> None:
    made = entry_of(ANNA).statement
    forged = sign_statement(made, STRANGER.signer)
    verdict = asking(at_least=1).saying(ANNA.entry.line, forged.line).verdict()
    assert (verdict.row("approvals").state, verdict.row("notes").state) == ("fail", "fail")


def test_approvals_that_do_not_count_hide_no_later_one() -> None:
    earlier = AS_OF - 2 * DAY  # claims are read in the order of their lines, and these come first
    elsewhere = entry_of(ANNA, artifact=sha256(b"other"), since=earlier)
    forged = sign_statement(entry_of(ANNA, since=earlier).statement, STRANGER.signer)
    unread = sign_statement(replace(forged.statement, body={**forged.statement.body, "scope": "a b"}), ANNA.signer)
    for first in (elsewhere, forged, unread):
        asked = asking(at_least=1).saying(*by(ANNA), first.line)
        assert sorted(asked.claims).index(first.line) < sorted(asked.claims).index(entry_of(ANNA).line)
        assert row(asked).state == "pass"


def test_other_statements_of_an_officer_are_no_approval_and_no_note() -> None:
    said = Vouched(ANNA.inception.author, GOOD.artifact, "evaluated", "on our benchmark", None)
    verdict = asking(at_least=1).saying(*by(ANNA), sign_content(said, ANNA.signer).line).verdict()
    assert (verdict.row("approvals").state, verdict.row("notes").state) == ("pass", "pass")


def test_an_officer_without_an_inception_in_the_evidence_does_not_count() -> None:
    assert row(asking(at_least=1).saying(entry_of(ANNA).line)).state == "fail"


def test_a_member_of_a_pinned_charter_may_be_an_officer() -> None:
    text = table(1, of='["Spain"]').replace("[approvals.officers]\n", f'[approvals.officers]\nSpain = "{ES.seat.id}"\n')
    asked = replace(GOOD, policy_text=GOOD.policy_text + text)
    assert row(asked.saying(entry_of(ES.seat).line)).state == "pass"
    assert row(asked.saying(entry_of(seat("SG")).line)).state == "fail"


def test_a_member_may_be_an_officer_with_keys_that_its_charter_lists_since_a_rotation() -> None:
    """A policy may pin that rotation, and a notice of a lost key may be signed with the keys before it."""
    first = ES.seat
    second, rotated = of(first).to("Spain second")
    listed = replace(first.member, keys=second.state.keys, recovery=second.state.recovery)
    pinned = draft([listed if each.seat.id == first.id else each.seat.member for each in nodes()])
    text = table(1, of='["Spain"]').replace("[approvals.officers]\n", f'[approvals.officers]\nSpain = "{first.id}"\n')
    pin = f'[publishers.rotations]\n"{first.id}" = "{parse_rotation(rotated)[0].digest}"\n[cosigners]\n'
    asked = replace(GOOD, policy_text=GOOD.policy_text + text).demanding("[cosigners]\n", pin)
    approval = entry_of(Identity(first.inception, second.keys[0], first.entry))
    asked = asked.saying(first.entry.line, rotated.line, approval.line)
    policy = replace(asked.policy, pins=(pinned,))
    assert verify(asked.evidence, policy).row("approvals").state == "pass"
    lost = Compromise(second.keys[0].public.id, CH.origin, 0)
    said = Advisory(first.inception.author, first.id, "key-compromise", "critical", "gone", lost)
    asked = asked.saying(sign_content(said, first.signer).line)
    assert "reports that the key was compromised" in verify(asked.evidence, policy).row("approvals").summary


WITH_ROLE = asking(of='["Anna", "security"]', roles='security = ["Anna", "Ben"]')


@pytest.mark.parametrize(
    ("officers", "passes"),
    [([ANNA], False), ([BEN], False), ([ANNA, BEN], True), ([ANNA, CARLA], False)],
    ids=["one for both", "the role only", "each", "one outside the role"],
)
def test_one_person_does_not_fill_a_place_and_a_role(officers: Sequence[Identity], passes: bool) -> None:
    asked = WITH_ROLE.saying(*(line for each in officers for line in by(each)))
    assert (row(asked).state == "pass") is passes


def test_two_identities_with_one_key_are_one_person() -> None:
    key = signer("Anna first")
    again = Inception("publisher", KeySet((key.public,), 1), (), "", "CH", "Anna again")
    twin = Identity(again, key, sign_content(InceptionStatement(again), key))
    text = table().replace(f'Ben = "{BEN.id}"', f'Ben = "{twin.id}"')
    asked = replace(GOOD, policy_text=GOOD.policy_text + text)
    assert row(asked.saying(*by(ANNA), *by(twin))).state == "fail"
    assert row(asked.saying(*by(ANNA), *by(twin), *by(CARLA))).state == "pass"


OWNER = identity("Swiss AI", "CH")


def with_owner(four_eyes: bool) -> Case:
    text = table(1, four_eyes=str(four_eyes).lower()).replace(f'Ben = "{BEN.id}"', f'Ben = "{OWNER.id}"')
    return replace(GOOD, policy_text=GOOD.policy_text + text)


def test_with_four_eyes_the_publisher_does_not_approve() -> None:
    assert row(with_owner(False).saying(entry_of(OWNER).line)).state == "pass"
    refused = row(with_owner(True).saying(entry_of(OWNER).line))
    assert (refused.state, "published the artifact" in refused.summary) == ("fail", True)
    assert row(with_owner(True).saying(*by(ANNA))).state == "pass"


def test_with_four_eyes_a_member_that_published_under_other_keys_does_not_approve() -> None:
    owner, other = seat("ES"), signer("Institute ES second")
    rotated = replace(owner.member, keys=KeySet((other.public,), 1))
    pinned = draft([rotated if each.seat.id == owner.id else each.seat.member for each in nodes()])
    text = table(1, four_eyes="true").replace(f'Ben = "{BEN.id}"', f'Ben = "{owner.id}"')
    asked = replace(GOOD, policy_text=GOOD.policy_text + text).saying(
        owner.entry.line, entry_of(Identity(owner.inception, other, owner.entry)).line
    )
    policy = replace(asked.policy, pins=(pinned,))
    assert verify(asked.evidence, policy).row("approvals").state == "pass"
    _, also, _, _ = release(by=owner, name="institute/tiny@v1")
    refused = verify(asked.saying(also.line).evidence, policy).row("approvals")
    assert (refused.state, "published the artifact" in refused.summary) == ("fail", True)


def test_with_four_eyes_another_identity_with_the_publishers_key_does_not_approve() -> None:
    again = Inception("publisher", KeySet((OWNER.signer.public,), 1), (), "", "CH", "Ben")
    twin = Identity(again, OWNER.signer, sign_content(InceptionStatement(again), OWNER.signer))
    text = table(1, four_eyes="true").replace(f'Ben = "{BEN.id}"', f'Ben = "{twin.id}"')
    assert row(replace(GOOD, policy_text=GOOD.policy_text + text).saying(*by(twin))).state == "fail"


def test_with_four_eyes_a_second_publisher_of_the_same_bytes_does_not_approve() -> None:
    _, also, _, _ = release(by=ANNA, name="anna/tiny@v1")
    refused = asking(at_least=1, four_eyes="true").saying(*by(ANNA), also.line)
    assert row(refused).state == "fail"


def test_conditions_are_shown_and_required_where_asked() -> None:
    conditions = ApprovalConditions("ward.txt", SideObject.of(TEXT))
    bound = by(ANNA, conditions=conditions)
    missing = asking(at_least=1).saying(*bound)
    present = replace(missing, objects={**missing.objects, sha256(TEXT): TEXT})
    assert [fact.basis for fact in row(missing).facts if "ward.txt" in fact.text] == ["stale or absent"]
    assert [fact.basis for fact in row(present).facts if "ward.txt" in fact.text] == ["verified here"]
    assert (row(missing).state, row(present).state) == ("pass", "pass")
    asked = asking(at_least=1, conditions="true")
    assert row(asked.saying(*bound)).summary.endswith("does not count: the text of ward.txt is not here")
    assert row(asked.saying(*by(ANNA))).summary.endswith("does not count: it names no conditions")
    assert row(replace(asked.saying(*bound), objects=present.objects)).state == "pass"


def test_an_approval_must_be_in_a_log_of_a_pinned_member_if_the_policy_asks_for_it() -> None:
    asked, line = asking(at_least=1, logged="true").saying(*by(ANNA)), entry_of(ANNA).line
    assert row(asked).summary.endswith("no proof here that it is in a log of a pinned member")
    log = filled(SG)
    log.append(line)
    assert row(replace(asked, proofs=(*asked.proofs, log.proof(line)))).state == "pass"
    outside = filled(nodes(6)[5])
    outside.append(line)
    assert row(replace(asked, proofs=(*asked.proofs, outside.proof(line)))).state == "fail"


def test_an_approval_under_retired_keys_counts_only_below_the_cut() -> None:
    owned = of(ANNA)
    _, rotated = owned.to("next")
    asked = asking(at_least=1).saying(*by(ANNA), rotated.line)
    assert "signed by keys that are now retired" in row(asked).summary
    log, line = filled(SG), entry_of(ANNA).line
    log.append(line)
    _, rotated = owned.to("next", cut=[LogCut(log.origin, len(log.lines), log.tree.root())])
    asked = asking(at_least=1).saying(*by(ANNA), rotated.line)
    assert row(replace(asked, proofs=(*asked.proofs, log.proof(line)))).state == "pass"
    assert row(asked).state == "fail"


def test_an_approval_does_not_count_without_the_rotation_that_the_policy_pins() -> None:
    asked = asking(at_least=1).saying(*by(ANNA))
    pin = f'[publishers.rotations]\n"{ANNA.id}" = "{sha256(b"a rotation")}"\n[cosigners]\n'
    refused = row(asked.demanding("[cosigners]\n", pin))
    assert (refused.state, "the rotation that the policy pins is missing" in refused.summary) == ("fail", True)


def test_an_approval_that_was_logged_before_its_key_was_lost_counts() -> None:
    log, line = filled(SG), entry_of(ANNA).line
    index = log.append(line)
    for since, state in ((index, "fail"), (index + 1, "pass")):
        lost = Compromise(ANNA.signer.public.id, log.origin, since)
        said = Advisory(ANNA.inception.author, ANNA.id, "key-compromise", "critical", "gone", lost)
        asked = asking(at_least=1).saying(*by(ANNA), sign_content(said, ANNA.signer).line)
        assert row(replace(asked, proofs=(*asked.proofs, log.proof(line)))).state == state


def test_an_approval_by_a_key_that_its_officer_lost_does_not_count() -> None:
    key = ANNA.signer.public.id
    lost = Advisory(ANNA.inception.author, ANNA.id, "key-compromise", "critical", "gone", Compromise(key, CH.origin, 0))
    asked = asking(at_least=1).saying(*by(ANNA), sign_content(lost, ANNA.signer).line)
    assert "reports that the key was compromised" in row(asked).summary
    by_another = replace(lost, by=BEN.inception.author)
    assert (
        row(asking(at_least=1).saying(*by(ANNA), *by(BEN), sign_content(by_another, BEN.signer).line)).state == "pass"
    )


def test_an_approval_by_the_other_keys_of_an_officer_that_lost_one_counts() -> None:
    several = several_keys()
    one, two, lost = several.keys
    approved = replace(Approved.parse(entry_of(ANNA).statement), by=several.id)
    for signers, state in (((one, two), "pass"), ((one, lost), "fail"), ((one, two, lost), "fail")):
        lines = several.entry.line, several.lost.line, sign_content(approved, *signers).line
        assert row(asking(at_least=1).demanding(ANNA.id, several.id).saying(*lines)).state == state


def named(name: str) -> str:
    """A table in which Ben has this name."""
    return table(1).replace("Ben =", f'"{name}" =')


def of_many(count: int) -> str:
    people = "".join(f'"{number}" = "{sha256(str(number).encode())}"\n' for number in range(count))
    return f'[approvals]\nscope = "a"\nat_least = 1\n[approvals.officers]\n{people}'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param(table(4), "'at_least' must be 1 to 3", id="more than there are"),
        pytest.param(table(0), "'at_least' must be 1 to 3", id="none"),
        pytest.param(table(0).replace("at_least = 0\n", ""), "'at_least' must be 1 to 3", id="no number"),
        pytest.param(table(2, of='["Anna"]'), "'at_least' must be 1 to 1", id="more than are asked"),
        pytest.param(table(2, of='["Anna", "lead"]', roles='lead = ["Anna"]'), "must be 1 to 1", id="one for two"),
        pytest.param(table(1, of='["Dora"]'), "'Dora' is neither", id="an unknown name"),
        pytest.param(table(1, of='["Anna", "Anna"]'), "names somebody twice", id="a name twice"),
        pytest.param(
            table(1, roles='x = ["Dora"]'), "role 'x' must be a list of names", id="a role of unknown officers"
        ),
        pytest.param(table(1, roles='Anna = ["Ben"]'), "'Anna' is an officer and a role", id="a role like a person"),
        pytest.param(table(1, scope='"a b"'), "is not a scope", id="no scope"),
        pytest.param(table(1, max_days="-1"), "'max_days' must be", id="negative days"),
        pytest.param(table(1, unheard="1"), "unknown key 'unheard'", id="an unknown key"),
        pytest.param(table(1).replace(BEN.id, ANNA.id), "two names to one id", id="one id twice"),
        pytest.param(table(1).replace(BEN.id, "51aa"), "'officers'", id="no id"),
        pytest.param(table(1).replace(f'"{BEN.id}"', "5"), "'officers'", id="an id that is no text"),
        pytest.param(table(1, max_days="36501"), "'max_days' must be", id="more days than a century has"),
        pytest.param(table(1, roles="x = []"), "role 'x' must be a list of names", id="a role without officers"),
        pytest.param(table(1, roles='x = "Anna"'), "role 'x' must be a list of names", id="a role that is no list"),
        pytest.param(table(1, roles="x = 5"), "role 'x' must be a list of names", id="a role that is a number"),
        pytest.param(table(1, roles="x = { Anna = 1 }"), "role 'x' must be a list", id="a role that is a table"),
        pytest.param(table(1, roles='x = [["Anna"]]'), "role 'x' must be a list", id="a role of lists"),
        pytest.param(
            table(1, roles="\n".join(f'{who} = ["Ben"]' for who in ("Carla", "Ben", "Anna"))),
            "'Anna' is an officer and a role",
            id="roles like people: the first is named",
        ),
        pytest.param(table(1, roles="x = [5]"), "role 'x' must be a list of names", id="a role of numbers"),
        pytest.param(table(1, roles='x = ["Anna", "Dora"]'), "role 'x' must be", id="a role with one unknown name"),
        pytest.param(table(1, roles='" x" = ["Anna"]'), "1 to 64 printable", id="a role with a space before it"),
        pytest.param(named("x" * 65), "1 to 64 printable", id="a long name"),
        pytest.param(named(""), "1 to 64 printable", id="an empty name"),
        pytest.param(named("Ben "), "1 to 64 printable", id="a name with a trailing space"),
        pytest.param(named("B\\u0007n"), "1 to 64 printable", id="a name that cannot be printed"),
        pytest.param(of_many(65), "must name 1 to 64 people", id="too many people"),
        pytest.param(of_many(0), "must name 1 to 64 people", id="no people"),
    ],
)
def test_an_invalid_rule_is_refused(text: str, why: str) -> None:
    with pytest.raises(Malformed, match=why) as refused:
        parse_policy((GOOD.policy_text + text).encode(), lambda _: GOOD.federation.encode())
    assert refused.value.code == "POLICY-SYNTAX"


def test_a_rule_may_be_as_large_as_its_limits() -> None:
    def rule(text: str) -> ApprovalRule:
        return parse_policy((GOOD.policy_text + text).encode(), lambda _: GOOD.federation.encode()).approvals

    assert len(rule(of_many(64)).officers) == len(rule(of_many(64)).places) == 64
    assert rule(named("x" * 64)).officers["x" * 64] == rule(named("x")).officers["x"] == BEN.id
    assert (rule(table(1, max_days="0")).max_time, rule(table(1, max_days="36500")).max_time) == (0, 36_500 * DAY)
    plain = rule(table(3))
    assert (plain.at_least, plain.as_of, plain.four_eyes, plain.max_time, plain.logged, plain.conditions) == (
        3,
        AS_OF,
        False,
        0,
        False,
        False,
    )
    assert plain.places == {each.inception.label: {each.id} for each in (ANNA, BEN, CARLA)}
    assert rule(table(1, of='["security"]', roles='security = ["Ben", "Carla"]')).places == {
        "security": {BEN.id, CARLA.id}
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (table(1, of='["Anna",\n"Dora"]'), 5),
        (table(9), 3),
        (table(1, max_days="-1"), 4),
        (table(1, of='["Anna",\n"Anna"]'), 4),
    ],
)
def test_a_fault_in_a_rule_is_named_with_its_line(text: str, line: int) -> None:
    before = GOOD.policy_text.count("\n")
    with pytest.raises(Malformed) as refused:
        parse_policy((GOOD.policy_text + text).encode(), lambda _: GOOD.federation.encode())
    assert refused.value.why.startswith(f"line {before + line}: ")


def test_a_rule_needs_the_time_of_the_policy() -> None:
    text = GOOD.policy_text.replace("as_of = 2026-11-24T00:00:00Z\nmax_age_days = 30\n", "") + table()
    with pytest.raises(Malformed, match=r"time\.as_of"):
        parse_policy(text.encode(), lambda _: GOOD.federation.encode())


def test_the_row_cannot_be_required_without_the_table() -> None:
    text = GOOD.policy_text.replace('"cosigners"]', '"cosigners", "approvals"]')
    with pytest.raises(Malformed, match="names the officers"):
        parse_policy(text.encode(), lambda _: GOOD.federation.encode())


LINES = [*by(ANNA), *by(BEN), end_of(BEN, entry_of(BEN), AS_OF), *by(STRANGER), *by(ANNA, scope="other")]
LINES.append(sign_statement(replace(entry_of(CARLA).statement, by=Author("identity", CARLA.id)), STRANGER.signer).line)


@settings(max_examples=examples(25), deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=9), st.randoms())
def test_order_and_repetition_of_claims_do_not_matter(lines: list[bytes], shuffle: object) -> None:
    once = asking().saying(*sorted(set(lines)))
    again = asking().saying(*lines, *reversed(lines))
    assert once.verdict() == again.verdict()


def test_the_key_of_an_approval_is_of_its_officer_and_artifact_alone() -> None:
    keys = {approval_key(who.id, what) for who in (ANNA, BEN) for what in (GOOD.artifact, sha256(b"other"))}
    assert len(keys) == 4
