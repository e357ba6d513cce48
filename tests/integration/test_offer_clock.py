"""The records that a provider's node writes by itself: about statements that hold, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from comity.rules.offers.records import Acceptance, CutOff, GivingBack, GrantRequest, Redemption, Withdrawn
from comity.rules.signing import statement_of
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Refused
from comity.trust.keys import HybridSigner
from comity.trust.statement import parse_entry, sign_statement
from comity.wire.offer import Approve
from support.offer_provider import BORROWER, HOLDER, NODE, OTHER, GrantingNode
from support.offers import HOUR, hours, to

STRANGER = HybridSigner.generate()


@pytest.fixture
def granting() -> Iterator[GrantingNode]:
    made = GrantingNode()
    yield made
    made.end()


def granted(granting: GrantingNode, *, pact: bool = False) -> tuple[Digest, Digest]:
    """A chain with one grant."""
    offer = granting.offer()
    granting.together([granting.provider.post(offer)])
    asked = granting.say(GrantRequest(BORROWER, offer.id, (hours(0, 10, amount=10),), 1, pact))
    (lines,) = granting.together([granting.provider.perform(Approve(asked.digest))])
    return offer.id, parse_entry(lines[-1].line).digest


def state(granting: GrantingNode, chain: Digest, grant: Digest) -> str:
    return granting.read().chains[chain].state.grants[grant].state


def test_a_forged_acceptance_is_not_recorded_and_does_not_stop_the_valid_one(granting: GrantingNode) -> None:
    chain, grant = granted(granting)
    granting.forge(Acceptance(BORROWER, chain, grant), STRANGER)
    granting.tick()
    assert state(granting, chain, grant) == "granted"
    assert list(granting.index.grant_statements(grant)) == []
    granting.say(Acceptance(BORROWER, chain, grant))
    granting.tick()
    assert state(granting, chain, grant) == "accepted"
    assert [found.located.proven for found in granting.index.grant_statements(grant)] == [True]


def test_a_released_grant_returns_by_itself_and_a_forged_release_does_not_count(granting: GrantingNode) -> None:
    chain, grant = granted(granting)
    granting.say(Acceptance(BORROWER, chain, grant))
    granting.tick()
    back = GivingBack(BORROWER, chain, grant)
    granting.forge(back, STRANGER)
    granting.tick()
    assert state(granting, chain, grant) == "accepted"
    granting.say(back)
    granting.now += HOUR
    granting.tick()
    assert state(granting, chain, grant) == "released"


def test_a_forged_cut_off_opens_no_pact(granting: GrantingNode) -> None:
    chain, grant = granted(granting, pact=True)
    granting.say(Acceptance(BORROWER, chain, grant))
    granting.tick()
    newest = granting.read().chains[chain].state.grants[grant].newest
    redemption = granting.say(Redemption(BORROWER, chain, grant, (5,), newest))
    cut_off = CutOff(BORROWER, chain, grant, False)
    granting.forge(cut_off, STRANGER)
    (refused,) = granting.together([granting.provider.redeem(redemption.digest)])
    assert isinstance(refused, ComityError)
    granting.say(cut_off)
    (lines,) = granting.together([granting.provider.redeem(redemption.digest)])
    assert not isinstance(lines, ComityError)
    assert granting.read().chains[chain].state.grants[grant].redeemed == (5,)


def test_a_statement_in_another_envelope_is_answered_by_the_line_that_is_logged(granting: GrantingNode) -> None:
    chain, grant = granted(granting)
    granting.say(Acceptance(BORROWER, chain, grant))
    granting.tick()
    redemption = Redemption(BORROWER, chain, grant, (5,), granting.read().chains[chain].state.grants[grant].newest)
    elsewhere, logged = granting.forge(redemption, HOLDER.signer), granting.say(redemption)
    assert (elsewhere.digest != logged.digest, elsewhere.statement_digest) == (True, logged.statement_digest)
    (lines,) = granting.together([granting.provider.redeem(elsewhere.digest)])
    assert not isinstance(lines, ComityError)
    read = granting.read().chains[chain]
    assert (read.fault, read.state.grants[grant].redeemed) == (None, (5,))
    assert logged.digest in read.state.answers
    (again,) = granting.together([granting.provider.redeem(logged.digest)])
    assert again == lines


def test_records_under_a_providers_new_key_count_once_its_node_record_is_proven(granting: GrantingNode) -> None:
    chain, _ = granted(granting)
    rotated = replace(NODE.record, online=STRANGER.public)
    withdrawn = granting.read().chains[chain].state.link(Withdrawn(to(chain)), granting.now)
    line = sign_statement(statement_of(withdrawn, rotated.node), STRANGER).line
    granting.ledger.logs.append(granting.log, [line])
    granting.tick()
    found = granting.index.find(chain)
    assert found is not None
    assert (found[1].doubtful, found[1].fault, found[1].state.withdrawn) == (True, None, False)
    members = granting.membership  # as if a node record that binds it had been proven
    members._records[rotated.node], members._lookups = rotated, type(members._lookups)()
    granting.tick()
    found = granting.index.find(chain)
    assert found is not None
    assert (found[1].doubtful, found[1].fault, found[1].state.withdrawn) == (False, None, True)


def test_an_ended_grant_is_taken_back_once(granting: GrantingNode) -> None:
    chain, grant = granted(granting)
    granting.say(Acceptance(BORROWER, chain, grant))
    granting.tick()
    (refused,) = granting.together([granting.provider.release(grant)])
    assert isinstance(refused, Refused)
    granting.now += 10 * HOUR
    first, again = granting.together([granting.provider.release(grant) for _ in range(2)])
    assert first == again
    assert granting.read().chains[chain].state.remaining == (1000,)


def test_only_the_grantee_redeems_accepts_or_releases(granting: GrantingNode) -> None:
    chain, grant = granted(granting)
    granting.say(Acceptance(OTHER.id, chain, grant), OTHER)
    granting.tick()
    assert state(granting, chain, grant) == "granted"
    granting.say(Acceptance(BORROWER, chain, grant))
    granting.tick()
    newest = granting.read().chains[chain].state.grants[grant].newest
    taken = granting.say(Redemption(OTHER.id, chain, grant, (5,), newest), OTHER)
    granting.say(GivingBack(OTHER.id, chain, grant), OTHER)
    (refused,) = granting.together([granting.provider.redeem(taken.digest)])
    assert isinstance(refused, Refused)
    assert refused.code == "OFFER-ELIGIBILITY"
    granting.tick()
    assert state(granting, chain, grant) == "accepted"


def test_a_redemption_signed_before_another_was_recorded_is_signed_again(granting: GrantingNode) -> None:
    chain, grant = granted(granting)
    granting.say(Acceptance(BORROWER, chain, grant))
    granting.tick()
    newest = granting.read().chains[chain].state.grants[grant].newest
    first, second = (granting.say(Redemption(BORROWER, chain, grant, (amount,), newest)) for amount in (2, 3))
    granting.together([granting.provider.redeem(first.digest)])
    (refused,) = granting.together([granting.provider.redeem(second.digest)])
    assert isinstance(refused, Refused)
    assert granting.read().chains[chain].state.grants[grant].redeemed == (2,)
