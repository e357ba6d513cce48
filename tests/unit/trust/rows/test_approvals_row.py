"""The row *approvals*: which keys are one person, until when it holds, and the list of all approvals, those that count
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from comity.rules.signing import sign_content
from comity.trust.approvals import ApprovalConditions
from comity.trust.encoding import format_time, short
from comity.trust.evidence import Row
from comity.trust.identity import Inception, InceptionStatement, KeySet
from comity.trust.keys import HybridSigner
from comity.trust.rows.approvals import MAX_SHOWN
from comity.trust.statement import SideObject
from comity.trust.verify import verify
from support.approvals import ANNA, AS_OF, BEN, CARLA, DAY, GOOD, SCOPE, asking, by, end_of, entry_of, table
from support.case import Case, nodes
from support.world import Identity, draft, private_key, seat, signer

TEXT = SideObject.of(b"only in the ward\n")


def row(what: Case) -> Row:
    return what.verdict().row("approvals")


def until(*days: int) -> Case:
    """The policy requires two of Anna, Ben and Carla; each approves until so many days after the time of the policy."""
    lines = [by(who, until=AS_OF + each * DAY) for who, each in zip((ANNA, BEN, CARLA), days, strict=False)]
    return asking().saying(*(line for pair in lines for line in pair))


def holding(label: str, classical: str, post_quantum: str) -> Identity:
    """An identity whose key has these halves."""
    key = HybridSigner((private_key(classical, "ed25519"), private_key(post_quantum, "ml-dsa-65")))
    inception = Inception("publisher", KeySet((key.public,), 1), (), "", "CH", label)
    return Identity(inception, key, sign_content(InceptionStatement(inception), key))


def officers(*who: Identity, at_least: int = 2, of: str = '["Anna", "Ben"]') -> Case:
    ids = "".join(f'"{each.inception.label}" = "{each.id}"\n' for each in who)
    usual = f'Anna = "{ANNA.id}"\nBen = "{BEN.id}"\nCarla = "{CARLA.id}"\n'
    return replace(GOOD, policy_text=GOOD.policy_text + table(at_least, of=of).replace(usual, ids))


@pytest.mark.parametrize(
    ("days", "holds"), [((10, 20, 30), 20), ((30, 10, 20), 20), ((20, 30, 10), 20), ((7, 7, 9), 7), ((5, 6), 5)]
)
def test_the_row_holds_until_too_few_approvals_remain(days: Sequence[int], holds: int) -> None:
    assert row(until(*days)).summary.endswith(f"; until {format_time(AS_OF + holds * DAY)}")


def test_an_approval_holds_until_the_last_second_before_its_end() -> None:
    carla = entry_of(CARLA, until=AS_OF + 30 * DAY)
    ended = until(10, 20, 30).saying(end_of(CARLA, carla, AS_OF + 15 * DAY))
    assert row(ended).summary.endswith(f"; until {format_time(AS_OF + 15 * DAY - 1)}")


def test_no_officer_is_named_if_no_approval_counts() -> None:
    assert row(asking()).summary.startswith(f"0 of 2 required for {SCOPE}: nobody; ")


def test_the_first_officer_whose_approval_does_not_count_is_named_with_the_reason() -> None:
    late = by(BEN, until=AS_OF - 2 * DAY, since=AS_OF - 9 * DAY)
    both = asking().saying(*late, *by(ANNA, until=AS_OF - DAY, since=AS_OF - 9 * DAY))
    assert row(both).summary.endswith("; that of Anna does not count: it ran out on 2026-11-23T00:00:00Z")
    one = asking().saying(*late, *by(ANNA))
    assert row(one).summary.endswith("; that of Ben does not count: it ran out on 2026-11-22T00:00:00Z")


def test_two_officers_that_each_share_a_half_with_a_third_are_one_person() -> None:
    one, link, other = holding("Anna", "K", "1"), holding("Ben", "K", "L"), holding("Carla", "3", "L")
    asked = officers(one, link, other, of='["Anna", "Ben", "Carla"]')
    for order in ((1, 2, 3), (1, 3, 2), (3, 2, 1)):
        lines = [by(who, until=AS_OF + day) for who, day in zip((one, link, other), order, strict=True)]
        assert row(asked.saying(*(line for pair in lines for line in pair))).state == "fail"


def test_keys_of_the_first_of_two_identities_are_those_of_their_person() -> None:
    first, second, third = holding("Anna", "K", "L"), holding("Ben", "2", "L"), holding("Carla", "K", "3")
    asked = officers(first, second, third, of='["Anna", "Ben", "Carla"]')
    lines = [by(who, until=AS_OF + day) for day, who in enumerate((first, second, third))]
    assert row(asked.saying(*(line for pair in lines for line in pair))).state == "fail"


def test_a_person_fills_the_place_of_each_of_their_identities() -> None:
    first, second = holding("Anna", "K", "1"), holding("Ben", "K", "2")
    asked = officers(first, second, at_least=1, of='["Anna"]')
    for order in ((1, 2), (2, 1)):
        lines = [by(who, until=AS_OF + day) for who, day in zip((first, second), order, strict=True)]
        assert row(asked.saying(*(line for pair in lines for line in pair))).state == "pass"


def test_an_officer_with_the_keys_of_a_seat_and_other_keys_of_an_inception_is_one_person() -> None:
    owner, other = seat("ES"), signer("Institute ES second")
    rotated = replace(owner.member, keys=KeySet((other.public,), 1))
    pinned = draft([rotated if each.seat.id == owner.id else each.seat.member for each in nodes()])
    text = table(of='["Spain", "security"]', roles='security = ["Spain", "Anna"]')
    text = text.replace("[approvals.officers]\n", f'[approvals.officers]\nSpain = "{owner.id}"\n')
    asked = replace(GOOD, policy_text=GOOD.policy_text + text)
    policy = replace(asked.policy, pins=(pinned,))
    as_seat = Identity(owner.inception, other, owner.entry)
    twice = asked.saying(*by(as_seat), *by(owner, time=AS_OF - 5))
    said = verify(twice.evidence, policy).row("approvals")
    assert sum(fact.text.startswith("Spain approved it") for fact in said.facts) == 2
    assert (said.state, said.summary[:6]) == ("fail", "1 of 2")
    assert verify(twice.saying(*by(ANNA)).evidence, policy).row("approvals").state == "pass"


def test_of_the_approvals_of_one_officer_the_one_that_holds_for_longest_counts() -> None:
    longer = entry_of(ANNA, until=AS_OF + 30 * DAY)
    lines = (*by(BEN, until=AS_OF + 20 * DAY), *by(ANNA, until=AS_OF + 10 * DAY), longer.line)
    assert row(asking().saying(*lines)).summary.endswith(f"; until {format_time(AS_OF + 20 * DAY)}")
    ended = asking().saying(*lines, end_of(ANNA, longer, AS_OF + 5 * DAY))
    assert row(ended).summary.endswith(f"; until {format_time(AS_OF + 10 * DAY)}")


def test_keys_of_any_approval_of_an_officer_are_keys_of_that_person() -> None:
    """The seat has other keys than the inception, and Anna has one of the first."""
    owner = holding("Spain", "K", "1")
    other = signer("Institute ES second")
    listed = replace(seat("ES").member, id=owner.id, keys=KeySet((other.public,), 1))
    pinned = draft([*(each.seat.member for each in nodes() if each.seat.id != seat("ES").id), listed])
    anna = holding("Anna", "K", "2")
    asked = officers(owner, anna, of='["Spain", "Anna"]')
    policy = replace(asked.policy, pins=(pinned,))
    as_seat = Identity(owner.inception, other, owner.entry)
    for first, second in ((5, 9), (9, 5)):
        own = (*by(owner, until=AS_OF + first * DAY), *by(as_seat, until=AS_OF + second * DAY))
        said = verify(asked.saying(*own, *by(anna)).evidence, policy).row("approvals")
        assert (said.state, said.summary[:6]) == ("fail", "1 of 2")
        alone = asked.saying(owner.entry.line, *by(as_seat, until=AS_OF + second * DAY), *by(anna))
        assert verify(alone.evidence, policy).row("approvals").state == "pass"


def approvals(count: int, **changed: int) -> tuple[bytes, ...]:
    return tuple(line for number in range(count) for line in by(ANNA, time=AS_OF - number, **changed))


def test_the_approvals_of_an_officer_that_count_are_shown_first_then_the_last_to_run_out() -> None:
    over = {"since": AS_OF - 9 * DAY, "until": AS_OF - DAY}
    lines = (by(ANNA, **over), by(ANNA, until=AS_OF + DAY), by(ANNA, until=AS_OF + 2 * DAY))
    spans = [
        fact.text.partition(" until ")[2]
        for fact in row(asking().saying(*(line for pair in lines for line in pair))).facts
        if fact.text.startswith("Anna approved")
    ]
    assert [each[:20] for each in spans] == ["2026-11-26T00:00:00Z", "2026-11-25T00:00:00Z", "2026-11-23T00:00:00Z"]
    assert ["does not count" in each for each in spans] == [False, False, True]


@pytest.mark.parametrize("more", [0, 1, 2])
def test_no_more_approvals_of_an_officer_than_can_be_read_are_shown(more: int) -> None:
    facts = [fact.text for fact in row(asking().saying(*approvals(MAX_SHOWN + more))).facts]
    assert sum(text.startswith("Anna approved") for text in facts) == MAX_SHOWN
    left = [text for text in facts if "not listed" in text]
    assert left == ([f"Anna: {more} more approvals are not listed"] if more else [])


def test_an_approval_says_why_it_does_not_count_and_which_statement_shows_it() -> None:
    entry = entry_of(ANNA)
    asked = asking(at_least=1).saying(ANNA.entry.line, entry.line)
    span = f"Anna approved it for {SCOPE} from 2026-11-23T00:00:00Z until 2026-12-24T00:00:00Z"
    counts = row(asked).facts[0]
    assert (counts.text, counts.basis, counts.evidence) == (span, "verified here", entry.digest)

    end = end_of(ANNA, entry, AS_OF)
    stale, *others = (fact for fact in row(asked.saying(end)).facts if fact.text.startswith("Anna"))
    why = f"{span}; it does not count: its officer ended it from 2026-11-24T00:00:00Z on: a new version"
    assert (stale.text, stale.basis, others) == (why, "stale or absent", [])
    assert stale.evidence not in (None, entry.digest), "the statement that ends it"

    elsewhere = entry_of(ANNA, scope="hospital-basel")
    refused = row(asking(at_least=1).saying(ANNA.entry.line, elsewhere.line)).facts[0]
    assert (refused.basis, refused.evidence) == ("verified here", elsewhere.digest)
    assert refused.text.endswith("it does not count: it is for the scope hospital-basel")


def test_an_end_that_is_still_to_come_is_announced() -> None:
    entry = entry_of(ANNA)
    asked = asking(at_least=1).saying(ANNA.entry.line, entry.line)
    ends = [fact for fact in row(asked.saying(end_of(ANNA, entry, AS_OF + DAY))).facts if "ends it" in fact.text]
    assert [(fact.text, fact.basis) for fact in ends] == [
        ("Anna ends it from 2026-11-25T00:00:00Z on", "verified here")
    ]


def test_conditions_are_named_with_whether_their_text_is_here() -> None:
    missing = asking(at_least=1).saying(*by(ANNA, conditions=ApprovalConditions("ward.txt", TEXT)))
    present = replace(missing, objects={**missing.objects, TEXT.digest: b"only in the ward\n"})
    line = f"conditions of Anna: ward.txt, sha256 {short(TEXT.digest)}: "
    for what, state in ((missing, "missing"), (present, "present")):
        assert [fact.text for fact in row(what).facts if "ward.txt" in fact.text] == [line + state]
