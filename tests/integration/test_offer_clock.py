"""What a provider's node records by itself: of statements that hold, and of no others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Refused
from comity.trust.keys import HybridSigner
from comity.trust.offers.records import (
    Acceptance,
    CutOff,
    GivingBack,
    GrantRequest,
    Redemption,
    Withdrawn,
    record_statement,
)
from comity.trust.statement import parse_entry, sign_statement
from comity.wire.offer import Approve
from support.offer_provider import BORROWER, HOLDER, NODE, OTHER, CountingHouse
from support.offers import HOUR, hours, to

STRANGER = HybridSigner.generate()


@pytest.fixture
def house() -> Iterator[CountingHouse]:
    made = CountingHouse()
    yield made
    made.end()


def granted(house: CountingHouse, *, pact: bool = False) -> tuple[Digest, Digest]:
    """A chain, and a grant in it."""
    offer = house.offer()
    house.together([house.provider.post(offer)])
    asked = house.say(GrantRequest(BORROWER, offer.id, (hours(0, 10, amount=10),), 1, pact))
    (lines,) = house.together([house.provider.perform(Approve(asked.digest))])
    return offer.id, parse_entry(lines[-1].line).digest


def state(house: CountingHouse, chain: Digest, grant: Digest) -> str:
    return house.read().chains[chain].state.grants[grant].state


def test_a_forged_acceptance_is_not_recorded_and_does_not_keep_the_right_one_out(house: CountingHouse) -> None:
    chain, grant = granted(house)
    house.forge(Acceptance(BORROWER, chain, grant), STRANGER)
    house.tick()
    assert state(house, chain, grant) == "granted"
    assert list(house.index.grant_statements(grant)) == []
    house.say(Acceptance(BORROWER, chain, grant))
    house.tick()
    assert state(house, chain, grant) == "accepted"
    assert [found.located.proven for found in house.index.grant_statements(grant)] == [True]


def test_what_is_given_back_returns_by_itself_and_what_is_forged_does_not(house: CountingHouse) -> None:
    chain, grant = granted(house)
    house.say(Acceptance(BORROWER, chain, grant))
    house.tick()
    back = GivingBack(BORROWER, chain, grant)
    house.forge(back, STRANGER)
    house.tick()
    assert state(house, chain, grant) == "accepted"
    house.say(back)
    house.now += HOUR
    house.tick()
    assert state(house, chain, grant) == "released"


def test_a_forged_cut_off_opens_no_pact(house: CountingHouse) -> None:
    chain, grant = granted(house, pact=True)
    house.say(Acceptance(BORROWER, chain, grant))
    house.tick()
    newest = house.read().chains[chain].state.grants[grant].newest
    redemption = house.say(Redemption(BORROWER, chain, grant, (5,), newest))
    cut_off = CutOff(BORROWER, chain, grant, False)
    house.forge(cut_off, STRANGER)
    (refused,) = house.together([house.provider.redeem(redemption.digest)])
    assert isinstance(refused, ComityError)
    house.say(cut_off)
    (lines,) = house.together([house.provider.redeem(redemption.digest)])
    assert not isinstance(lines, ComityError)
    assert house.read().chains[chain].state.grants[grant].redeemed == (5,)


def test_a_statement_in_another_envelope_is_answered_by_the_line_that_is_logged(house: CountingHouse) -> None:
    chain, grant = granted(house)
    house.say(Acceptance(BORROWER, chain, grant))
    house.tick()
    redemption = Redemption(BORROWER, chain, grant, (5,), house.read().chains[chain].state.grants[grant].newest)
    elsewhere, logged = house.forge(redemption, HOLDER.signer), house.say(redemption)
    assert (elsewhere.digest != logged.digest, elsewhere.statement_digest) == (True, logged.statement_digest)
    (lines,) = house.together([house.provider.redeem(elsewhere.digest)])
    assert not isinstance(lines, ComityError)
    read = house.read().chains[chain]
    assert (read.fault, read.state.grants[grant].redeemed) == (None, (5,))
    assert logged.digest in read.state.answers
    (again,) = house.together([house.provider.redeem(logged.digest)])
    assert again == lines


def test_what_a_provider_says_by_a_new_key_counts_once_that_is_known(house: CountingHouse) -> None:
    chain, _ = granted(house)
    rotated = replace(NODE.record, online=STRANGER.public)
    withdrawn = house.read().chains[chain].state.link(Withdrawn(to(chain)), house.now)
    line = sign_statement(record_statement(withdrawn, rotated.node), STRANGER).line
    house.ledger.logs.append(house.log, [line])
    house.tick()
    found = house.index.find(chain)
    assert found is not None
    assert (found[1].doubtful, found[1].fault, found[1].state.withdrawn) == (True, None, False)
    house.membership._records[rotated.node] = rotated  # as if a node record that binds it had been proven
    house.tick()
    found = house.index.find(chain)
    assert found is not None
    assert (found[1].doubtful, found[1].fault, found[1].state.withdrawn) == (False, None, True)


def test_what_is_over_is_taken_back_once(house: CountingHouse) -> None:
    chain, grant = granted(house)
    house.say(Acceptance(BORROWER, chain, grant))
    house.tick()
    (refused,) = house.together([house.provider.release(grant)])
    assert isinstance(refused, Refused)
    house.now += 10 * HOUR
    first, again = house.together([house.provider.release(grant) for _ in range(2)])
    assert first == again
    assert house.read().chains[chain].state.remaining == (1000,)


def test_nobody_but_the_grantee_redeems_accepts_or_gives_back(house: CountingHouse) -> None:
    chain, grant = granted(house)
    house.say(Acceptance(OTHER.id, chain, grant), OTHER)
    house.tick()
    assert state(house, chain, grant) == "granted"
    house.say(Acceptance(BORROWER, chain, grant))
    house.tick()
    newest = house.read().chains[chain].state.grants[grant].newest
    taken = house.say(Redemption(OTHER.id, chain, grant, (5,), newest), OTHER)
    house.say(GivingBack(OTHER.id, chain, grant), OTHER)
    (refused,) = house.together([house.provider.redeem(taken.digest)])
    assert isinstance(refused, Refused)
    assert refused.code == "OFFER-ELIGIBILITY"
    house.tick()
    assert state(house, chain, grant) == "accepted"


def test_a_redemption_signed_before_another_was_recorded_is_signed_anew(house: CountingHouse) -> None:
    chain, grant = granted(house)
    house.say(Acceptance(BORROWER, chain, grant))
    house.tick()
    newest = house.read().chains[chain].state.grants[grant].newest
    first, second = (house.say(Redemption(BORROWER, chain, grant, (amount,), newest)) for amount in (2, 3))
    house.together([house.provider.redeem(first.digest)])
    (refused,) = house.together([house.provider.redeem(second.digest)])
    assert isinstance(refused, Refused)
    assert house.read().chains[chain].state.grants[grant].redeemed == (2,)
