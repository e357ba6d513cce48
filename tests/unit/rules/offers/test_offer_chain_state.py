"""The chain of an offer: which records are valid, their sums, and which records prove a fault of the provider."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from comity.rules.offers.chain import GrantState
from comity.rules.offers.offer import MAX_TIME, Eligibility, Offer, SliceAllocation, Window
from comity.rules.offers.records import (
    Acceptance,
    Accepted,
    CutOff,
    GivingBack,
    Grant,
    Lapsed,
    Offered,
    Redeemed,
    Redemption,
    Rejected,
    Released,
    Withdrawn,
)
from comity.rules.signing import statement_of
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, Refused
from comity.trust.statement import Entry, sign_statement
from comity.trust.tlog.note import log_verifier_key
from support.offers import (
    GRANTEE,
    HOLDER,
    HOUR,
    LOG_KEY,
    NODE,
    PROVIDER,
    START,
    Written,
    a_slice,
    an_offer,
    hours,
    to,
)

DAY = 24 * HOUR


def held(log: Written, chain: Digest, grant: Entry) -> GrantState:
    return log.chain(chain).state.grants[grant.digest]


def accept(log: Written, chain: Digest, grant: Entry, *, at: int = START + 1) -> Entry:
    said = log.say(Acceptance(GRANTEE, chain, grant.digest))
    return log.record(Accepted(to(chain), grant.digest, said.digest), at=at)


def redeem(
    log: Written, chain: Digest, grant: Entry, *amounts: int, at: int = START + 2, cut_off: Digest | None = None
) -> Entry:
    after = held(log, chain, grant).newest
    said = log.say(Redemption(GRANTEE, chain, grant.digest, amounts, after))
    return log.record(Redeemed(to(chain), grant.digest, said.digest, amounts, cut_off), at=at)


def test_a_grant_reserves_nodes_at_every_instant_and_its_amount() -> None:
    log = Written()
    chain = log.post()
    log.grant(chain, hours(0, 10, nodes=3, amount=100))
    state = log.chain(chain).state
    assert state.remaining == (900,)
    assert state.free_nodes("h100", START, START + 10 * HOUR) == 1
    assert state.free_nodes("h100", START + 10 * HOUR, START + 20 * HOUR) == 4
    assert log.chain(chain).fault is None


def test_nodes_are_granted_one_after_another_and_never_twice() -> None:
    log = Written()
    chain = log.post()
    log.grant(chain, hours(0, 10, nodes=4))
    log.grant(chain, hours(10, 20, nodes=4))
    with pytest.raises(Refused) as refused:
        log.grant(chain, hours(9, 11, nodes=1))
    assert refused.value.code == "OFFER-CAPACITY"


def test_an_amount_is_granted_once_in_all() -> None:
    log = Written()
    chain = log.post(an_offer(slices=(a_slice(amount=20),)))
    log.grant(chain, hours(0, 10, amount=12))
    with pytest.raises(Refused, match="8 are left"):
        log.grant(chain, hours(20, 30, amount=9))
    log.grant(chain, hours(20, 30, amount=8))


def test_a_lapse_returns_everything_and_not_before_its_time() -> None:
    log = Written()
    chain = log.post()
    grant = log.grant(chain, hours(0, 200, nodes=4, amount=1000))
    with pytest.raises(Refused, match="before its time"):
        log.record(Lapsed(to(chain), grant.digest), at=START + DAY)
    log.record(Lapsed(to(chain), grant.digest), at=START + DAY + 1)
    assert held(log, chain, grant).state == "lapsed"
    assert log.chain(chain).state.remaining == (1000,)
    log.grant(chain, hours(50, 200, nodes=4, amount=1000), at=START + DAY + 2)


def test_an_accepted_grant_neither_lapses_nor_is_taken_back() -> None:
    log = Written()
    chain = log.post()
    grant = log.grant(chain, hours(0, 10))
    accept(log, chain, grant)
    for record in (Lapsed(to(chain), grant.digest), Released(to(chain), grant.digest)):
        with pytest.raises(Refused):
            log.record(record, at=START + 9 * HOUR)
    log.record(Released(to(chain), grant.digest), at=START + 10 * HOUR)
    assert held(log, chain, grant).state == "released"


def test_unredeemed_amounts_return_when_the_grantee_releases_them_from_the_next_granule_on() -> None:
    log = Written()
    chain = log.post()
    grant = log.grant(chain, hours(0, 10, nodes=2, amount=100))
    accept(log, chain, grant)
    redeem(log, chain, grant, 30)
    back = log.say(GivingBack(GRANTEE, chain, grant.digest))
    log.record(Released(to(chain), grant.digest, back.digest), at=START + 4 * HOUR + 1)
    state = log.chain(chain).state
    assert state.remaining == (970,)
    assert state.free_nodes("h100", START + 4 * HOUR, START + 5 * HOUR) == 2
    assert state.free_nodes("h100", START + 5 * HOUR, START + 10 * HOUR) == 4


def test_more_than_was_granted_is_never_redeemed() -> None:
    log = Written()
    chain = log.post()
    grant = log.grant(chain, hours(0, 10, amount=10))
    accept(log, chain, grant)
    redeem(log, chain, grant, 6)
    with pytest.raises(Refused, match="the redemption exceeds the grant"):
        redeem(log, chain, grant, 5)
    redeem(log, chain, grant, 4)
    assert held(log, chain, grant).left == (0,)


def test_a_redemption_is_used_once() -> None:
    log = Written()
    chain = log.post()
    grant = log.grant(chain, hours(0, 10, amount=10))
    accept(log, chain, grant)
    said = log.say(Redemption(GRANTEE, chain, grant.digest, (2,), held(log, chain, grant).newest))
    log.record(Redeemed(to(chain), grant.digest, said.digest, (2,)))
    log.record(Redeemed(to(chain), grant.digest, said.digest, (2,)))
    fault = log.chain(chain).fault
    assert fault is not None
    assert fault.kind == "unanswered"


def test_a_grant_is_redeemed_by_its_grantee_alone() -> None:
    log = Written()
    chain = log.post()
    grant = log.grant(chain, hours(0, 10, amount=10))
    accept(log, chain, grant)
    said = log.say(Redemption(sha256(b"somebody else"), chain, grant.digest, (2,), held(log, chain, grant).newest))
    log.record(Redeemed(to(chain), grant.digest, said.digest, (2,)))
    assert log.chain(chain).fault is not None


def test_a_pact_is_redeemable_only_after_its_own_beneficiarys_cut_off() -> None:
    log = Written()
    chain = log.post()
    pact = log.grant(chain, hours(0, 10, amount=10), pact=True)
    accept(log, chain, pact)
    with pytest.raises(Refused, match="needs its beneficiary's cut-off"):
        redeem(log, chain, pact, 5)
    cut_off = log.say(CutOff(GRANTEE, chain, pact.digest, False, "undersea cable"))
    redeem(log, chain, pact, 5, cut_off=cut_off.digest)
    assert log.chain(chain).fault is None
    assert held(log, chain, pact).redeemed == (5,)


@pytest.mark.parametrize("by", [PROVIDER, sha256(b"another member")])
def test_only_the_beneficiary_declares_a_cut_off(by: Digest) -> None:
    log = Written()
    chain = log.post()
    pact = log.grant(chain, hours(0, 10, amount=10), pact=True)
    accept(log, chain, pact)
    cut_off = log.say(CutOff(by, chain, pact.digest, False))
    redeem(log, chain, pact, 5, cut_off=cut_off.digest)
    fault = log.chain(chain).fault
    assert fault is not None
    assert "cut-off" in fault.why


def test_a_drill_opens_no_pact() -> None:
    log = Written()
    chain = log.post()
    pact = log.grant(chain, hours(0, 10, amount=10), pact=True)
    accept(log, chain, pact)
    redeem(log, chain, pact, 5, cut_off=log.say(CutOff(GRANTEE, chain, pact.digest, True)).digest)
    assert log.chain(chain).fault is not None


def test_a_superseding_offer_continues_the_sequence_and_the_remaining_amount() -> None:
    log = Written()
    chain = log.post()
    log.grant(chain, hours(0, 10, nodes=2, amount=100))
    larger = an_offer(slices=(a_slice(nodes=6, amount=1200),), supersedes=chain)
    log.record(Offered(to(chain), larger))
    state = log.chain(larger.id).state
    assert (state.chain, state.seq, state.remaining) == (chain, 2, (1100,))
    log.grant(chain, hours(0, 10, nodes=4))
    with pytest.raises(Refused):
        log.grant(chain, hours(0, 10, nodes=1))


@pytest.mark.parametrize("less", [{"nodes": 1}, {"amount": 99}, {"accelerator": "A100"}])
def test_a_superseding_offer_keeps_granted_amounts(less: dict[str, object]) -> None:
    log = Written()
    chain = log.post()
    log.grant(chain, hours(0, 10, nodes=2, amount=100))
    with pytest.raises(Refused):
        log.record(Offered(to(chain), an_offer(slices=(a_slice(**less),), supersedes=chain)))


def test_a_record_costs_the_same_however_often_the_offer_was_superseded(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Written()
    chain = newest = log.post()
    for number in range(5):
        offer = an_offer(title=f"version {number}", supersedes=newest)
        log.record(Offered(to(chain), offer))
        newest = offer.id
    encoded, real = list[Offer](), Offer.encode

    def encode(offer: Offer) -> bytes:
        encoded.append(offer)
        return real(offer)

    monkeypatch.setattr(Offer, "encode", encode)
    asked = log.request(chain, hours(0, 10))
    log.record(Rejected(to(chain), asked.digest, "not now"))
    assert log.chain(chain).fault is None and encoded == []


def test_a_withdrawn_offer_grants_no_more_and_keeps_its_grants() -> None:
    log = Written()
    chain = log.post()
    grant = log.grant(chain, hours(0, 10))
    log.record(Withdrawn(to(chain), "needed here"))
    with pytest.raises(Refused, match="withdrawn"):
        log.grant(chain, hours(0, 10))
    accept(log, chain, grant)
    assert held(log, chain, grant).state == "accepted"


def test_a_request_is_answered_once() -> None:
    log = Written()
    chain = log.post()
    asked = log.request(chain, hours(0, 10))
    log.record(Rejected(to(chain), asked.digest, "not now"))
    with pytest.raises(Refused, match="already answered"):
        log.record(Grant(to(chain), asked.digest, GRANTEE, (hours(0, 10),), START + DAY))


@pytest.mark.parametrize(
    "wanted",
    [
        hours(0, 10, slice="a100"),
        hours(0, 241),
        hours(0, 10, nodes=5),
        hours(0, 1, amount=9),
        replace(hours(0, 10), start=START + 1),
        replace(hours(0, 10), end=START + 10 * HOUR - 1),
    ],
)
def test_a_grant_beyond_the_offer_is_refused(wanted: SliceAllocation) -> None:
    log = Written()
    chain = log.post()
    assert an_offer().allocation_error((wanted,))
    with pytest.raises(Refused):
        log.grant(chain, wanted)


def overbooked() -> tuple[Written, Digest]:
    log = Written()
    chain = log.post()
    log.grant(chain, hours(0, 10, nodes=4, amount=8))
    state = log.chain(chain).state
    asked = log.request(chain, hours(5, 6))
    link = replace(to(chain), seq=2, prev=state.last, at=START, remaining=(984,))
    log.add(statement_of(Grant(link, asked.digest, GRANTEE, (hours(5, 6),), START + DAY), NODE), log.node)
    return log, chain


def test_i11_a_log_that_grants_more_than_the_offer_has_published_the_proof() -> None:
    log, chain = overbooked()
    fault = log.chain(chain).fault
    assert fault is not None
    assert (fault.kind, fault.index) == ("overbooked", len(log.entries) - 1)


def test_two_records_of_one_number_are_a_fault_and_a_copy_is_not() -> None:
    log = Written()
    chain = log.post()
    first = log.request(chain, hours(0, 10))
    state = log.chain(chain).state
    grant = Grant(to(chain), first.digest, GRANTEE, (hours(0, 10),), START + DAY)
    linked = state.link(grant, START)
    log.add(statement_of(linked, NODE), log.node)
    log.add(statement_of(linked, NODE), log.node)
    assert log.chain(chain).fault is None
    log.add(statement_of(replace(linked, accept_by=START + 2 * DAY), NODE), log.node)
    fault = log.chain(chain).fault
    assert fault is not None
    assert fault.kind == "forked"


def test_a_record_signed_by_another_node_does_not_count() -> None:
    log = Written()
    chain = log.post()
    asked = log.request(chain, hours(0, 10))
    linked = log.chain(chain).state.link(Grant(to(chain), asked.digest, GRANTEE, (hours(0, 10),), START + DAY), START)
    log.add(statement_of(linked, NODE), HOLDER)
    assert log.chain(chain).state.seq == 0
    assert log.chain(chain).fault is None


def test_an_offer_that_names_another_log_is_no_offer_here() -> None:
    log = Written()
    other = an_offer(log=str(log_verifier_key("node-es/log", LOG_KEY.public)))
    log.post(other)
    assert log.log.chain_of(other.id) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"slices": (a_slice(amount=7681),)},
        {"slices": (a_slice(), a_slice())},
        {"slices": ()},
        {"measure": "dollars"},
        {"artifacts": (sha256(b"a"), sha256(b"b"))},
        {"log": "node-ch/log"},
    ],
)
def test_an_impossible_offer_cannot_be_made(wrong: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        an_offer(**wrong)


def test_an_offer_has_no_time_outside_of_the_calendar() -> None:
    """Every list of offers shows their windows as dates."""
    assert datetime.fromtimestamp(Window(START, MAX_TIME).end, UTC).year == 9999
    with pytest.raises(Malformed):
        Window(START, MAX_TIME + 1)


def test_the_offer_says_who_may_ask() -> None:
    assert Eligibility("anyone").admits(GRANTEE, None)
    assert not Eligibility("members").admits(GRANTEE, None)
    assert Eligibility("members", jurisdictions=("ES",)).admits(GRANTEE, "ES")
    assert not Eligibility("members", jurisdictions=("ES",)).admits(GRANTEE, "CH")
    assert Eligibility("listed", (GRANTEE,)).admits(GRANTEE, None)
    assert not Eligibility("listed", (GRANTEE,)).admits(PROVIDER, "ES")


@pytest.mark.parametrize(
    "wrong",
    [{"remaining": (993,)}, {"remaining": (992, 1)}, {"at": START - 1}, {"seq": 3}, {"prev": sha256(b"another")}],
    ids=str,
)
def test_a_newest_record_that_links_or_adds_up_wrongly_breaks_its_chain(wrong: dict[str, Any]) -> None:
    log = Written()
    chain = log.post()
    asked = log.request(chain, hours(0, 10))
    right = log.chain(chain).state.link(Grant(to(chain), asked.digest, GRANTEE, (hours(0, 10),), START + DAY), START)
    assert right.link.remaining == (992,)
    log.add(statement_of(replace(right, link=replace(right.link, **wrong)), NODE), log.node)
    fault = log.chain(chain).fault
    assert fault is not None
    assert fault.kind == "broken"
    assert log.chain(chain).state.seq == 0


def test_after_a_fault_a_chain_counts_no_further() -> None:
    log, chain = overbooked()
    seq = log.chain(chain).state.seq
    log.grant(chain, hours(100, 110))
    assert log.chain(chain).state.seq == seq


def test_a_grant_that_answers_no_request_is_a_fault_of_its_provider() -> None:
    log = Written()
    chain = log.post()
    grant = Grant(to(chain), sha256(b"nobody asked"), GRANTEE, (hours(0, 10),), START + DAY)
    log.record(grant)
    fault = log.chain(chain).fault
    assert fault is not None
    assert fault.kind == "unanswered"


def test_a_request_in_a_second_envelope_is_not_answered_again() -> None:
    """Who has more signatures of a request than it needs can make another line of it. A log that honest nodes write
    has each statement once; a provider that answers both lines has answered one request twice."""
    log = Written()
    chain = log.post()
    first = log.request(chain, hours(0, 10))
    second = log.add(first.statement, HOLDER, log.node)  # as if it had two keys, of which one is enough
    assert first.digest != second.digest and first.statement_digest == second.statement_digest
    log.record(Grant(to(chain), first.digest, GRANTEE, (hours(0, 10),), START + DAY))
    assert log.chain(chain).fault is None
    log.record(Grant(to(chain), second.digest, GRANTEE, (hours(0, 10),), START + DAY))
    fault = log.chain(chain).fault
    assert fault is not None and fault.kind == "unanswered"


def test_a_grant_to_another_identity_is_a_fault_of_its_provider() -> None:
    log = Written()
    chain = log.post()
    asked = log.request(chain, hours(0, 10), by=sha256(b"who asked"))
    log.record(Grant(to(chain), asked.digest, GRANTEE, (hours(0, 10),), START + DAY))
    assert log.chain(chain).fault is not None


def test_records_by_an_unknown_key_stop_a_chain_and_prove_no_fault() -> None:
    log = Written()
    chain = log.post()
    first, second = log.request(chain, hours(0, 10)), log.request(chain, hours(10, 20))
    state = log.chain(chain).state
    unknown = statement_of(
        state.link(Grant(to(chain), first.digest, GRANTEE, (hours(0, 10),), START + DAY), START), NODE
    )
    log.log.read(len(log.entries), sign_statement(unknown, HOLDER), None)
    assert log.chain(chain).doubtful
    log.record(Grant(to(chain), second.digest, GRANTEE, (hours(10, 20),), START + DAY))
    assert (log.chain(chain).fault, log.chain(chain).state.seq) == (None, 0)


def test_a_copy_of_an_older_record_by_an_unknown_key_raises_no_doubt() -> None:
    log = Written()
    chain = log.post()
    log.log.read(9, sign_statement(log.entries[0].statement, HOLDER), None)
    assert not log.chain(chain).doubtful


def test_a_statement_whose_author_cannot_be_judged_is_kept_as_that() -> None:
    log = Written()
    chain = log.post()
    grant = log.grant(chain, hours(0, 10))
    said = sign_statement(statement_of(Acceptance(GRANTEE, chain, grant.digest)), HOLDER)
    log.log.read(len(log.entries), said, None)
    assert not log.log.statements[said.digest].proven


def test_a_grant_of_two_slices_is_given_whole_or_not_at_all() -> None:
    log = Written()
    chain = log.post(an_offer(slices=(a_slice(), a_slice(name="cpu", nodes=1))))
    log.grant(chain, hours(0, 10, slice="cpu"))
    with pytest.raises(Refused):
        log.grant(chain, hours(0, 10, nodes=4), hours(5, 6, slice="cpu"))
    state = log.chain(chain).state
    assert (state.remaining, state.free_nodes("h100", START, START + 10 * HOUR)) == ((1000, 992), 4)
    log.grant(chain, hours(0, 10, nodes=4), hours(10, 11, slice="cpu"))
