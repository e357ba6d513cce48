"""Which statements about an offer are logged without an operator's approval, and whose quota copies and floods use."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import NoReturn

import pytest
from comity.node.offers import admission as counter
from comity.node.offers.admission import OfferAdmission
from comity.rules.offers.offer import Offer
from comity.rules.offers.records import Acceptance, Grant, GrantRequest, PartyStatement, Redemption, read_record
from comity.rules.signing import statement_of
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.statement import Entry, parse_entry, sign_statement
from comity.wire.offer import Approve
from comity.wire.throttle import Allowance
from support.offer_provider import HOLDER, OTHER, GrantingNode
from support.offers import hours
from support.world import Identity


@pytest.fixture
def granting() -> Iterator[GrantingNode]:
    opened = GrantingNode()
    yield opened
    opened.end()


def admission(granting: GrantingNode) -> OfferAdmission:
    return OfferAdmission(granting.async_ledger, granting.membership, granting.index, lambda: 0.0)


def posted(granting: GrantingNode) -> Offer:
    offer = granting.offer()
    asyncio.run(granting.provider.post(offer))
    return offer


def said(what: PartyStatement, by: Identity = HOLDER) -> Entry:
    return sign_statement(statement_of(what), by.signer)


def asking(offer: Offer, number: int, by: Identity = HOLDER) -> Entry:
    return said(GrantRequest(by.id, offer.id, (hours(0, 1),), number), by)


def refused_as(granting: GrantingNode, at: OfferAdmission, entries: Sequence[Entry]) -> str:
    """The code with which entries are refused; empty if all are accepted. Then they are logged."""

    async def ask() -> frozenset[Digest]:
        return await at.granted(entries)

    try:
        granted = asyncio.run(ask())
    except ComityError as error:
        return error.code
    assert granted == {entry.digest for entry in entries}
    granting.ledger.logs.append(granting.log, [entry.line for entry in entries])
    return ""


def test_strangers_that_wait_keep_no_member_from_asking(
    granting: GrantingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counter, "MAX_REQUESTS_WITHOUT_SEAT", 3)
    offer, at = posted(granting), admission(granting)
    crowd = [asking(offer, number, OTHER) for number in range(3)]
    assert refused_as(granting, at, crowd) == ""
    assert refused_as(granting, at, [asking(offer, 0)]) == "OFFER-QUOTA"
    member = SimpleNamespace(jurisdiction="CH")
    monkeypatch.setattr(granting.membership, "member", lambda who: member if who == HOLDER.id else None)
    assert refused_as(granting, at, [asking(offer, 0)]) == ""
    assert refused_as(granting, at, crowd) == ""


def test_one_identity_has_a_few_requests_waiting(granting: GrantingNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counter, "MAX_REQUESTS_PER_IDENTITY", 2)
    offer, at = posted(granting), admission(granting)
    assert refused_as(granting, at, [asking(offer, number) for number in range(3)]) == "OFFER-QUOTA"
    assert refused_as(granting, at, [asking(offer, number) for number in range(2)]) == ""
    assert refused_as(granting, at, [asking(offer, 2)]) == "OFFER-QUOTA"
    assert refused_as(granting, at, [asking(offer, 0, OTHER)]) == ""


def test_a_caller_with_many_identities_is_charged_for_all_of_them(
    granting: GrantingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counter, "REQUEST_RATE", Allowance(calls_per_second=1 / 60, burst=2))
    offer, at = posted(granting), admission(granting)
    assert refused_as(granting, at, [asking(offer, number) for number in range(3)]) == "RATE"


def test_statements_of_a_grantee_have_a_quota_that_requests_do_not_use(
    granting: GrantingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MAX_REQUESTS_PER_IDENTITY", "MAX_REQUESTS_WITHOUT_SEAT", "MAX_STATEMENTS_PER_GRANT"):
        monkeypatch.setattr(counter, name, 2)
    offer, at = posted(granting), admission(granting)
    first = asking(offer, 0)
    assert refused_as(granting, at, [first, asking(offer, 1)]) == ""

    async def approve() -> Entry:
        await granting.index.read()
        return parse_entry((await granting.provider.perform(Approve(first.digest, ())))[-1].line)

    granted = asyncio.run(approve())
    record = read_record(granted.statement)
    assert isinstance(record, Grant)
    assert refused_as(granting, at, [asking(offer, 2), asking(offer, 3)]) == "OFFER-QUOTA"
    chain, about = record.link.chain, granted.digest
    assert refused_as(granting, at, [said(Acceptance(HOLDER.id, chain, about))]) == ""
    redemptions = [said(Redemption(HOLDER.id, chain, about, (amount,), about)) for amount in (1, 2, 3)]
    assert refused_as(granting, at, redemptions) == "OFFER-QUOTA"
    assert refused_as(granting, at, redemptions[:2]) == ""


def test_requests_in_the_log_of_another_member_are_not_counted(
    granting: GrantingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer, at = posted(granting), admission(granting)
    granting.forge(GrantRequest(HOLDER.id, offer.id, (hours(0, 1),), 0), HOLDER.signer)
    assert refused_as(granting, at, [asking(offer, 9)]) == ""
    granting.together([])
    assert len(list(granting.index.requests((offer.id,)))) == 2
    assert len(list(granting.index.own_requests((offer.id,)))) == 1

    def looked_at(*_: object) -> NoReturn:
        raise AssertionError("it looked at the statements of all logs")

    for name in ("requests", "grant_statements"):
        monkeypatch.setattr(granting.index, name, looked_at)
    assert refused_as(granting, at, [asking(offer, 10)]) == ""
