"""Compute offers between real nodes: posted, mirrored, requested, granted, used, and released."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from comity.rules.offers.offer import Eligibility, Window
from comity.rules.offers.records import Grant, read_record
from comity.rules.signing import statement_of
from comity.trust.errors import Conflict, NotFound, Refused
from comity.trust.statement import sign_statement
from comity.wire.client import NodeClient
from comity.wire.offer import AnswerDefault, Approve, OfferQuery, Post, Redeem, Reject, Release, UsageReport, Withdraw
from support.federation import found, make_home, serving, until
from support.offer_commands import Borrower, Lender, holding, reaches, read_chain, state_of
from support.offers import HOUR, START, a_slice, an_offer, hours, to

NOW = float(START)


@pytest.fixture
def lender(tmp_path: Path) -> Lender:
    return Lender(make_home(tmp_path / "home", 0))


async def test_a_grant_from_the_request_to_the_last_hour(lender: Lender) -> None:
    borrower = Borrower()
    lender.home.set("publishing", accept="none")
    async with serving(lender.home, clock=lambda: NOW):
        offer = await lender.post()
        asked = borrower.request(offer, hours(0, 10, nodes=2, amount=100))
        await holding(lender.home, lambda client: client.offers.search(), "the offer to be found")
        await borrower.submit(lender.home, asked)
        await reaches(lender.home, asked, "requested")
        async with lender.home.operator() as client:
            warnings = (await client.status()).warnings
            assert any("unanswered requests for this node's offers: 1" in line for line in warnings)
        granted = await lender.approve(asked.digest)
        assert await lender.approve(asked.digest) == granted
        await reaches(lender.home, asked, "granted")
        await borrower.submit(lender.home, borrower.accept(granted))
        state = await reaches(lender.home, asked, "accepted")
        assert state.newest is not None
        redemption = borrower.redeem(granted, state.newest, 60)
        await borrower.submit(lender.home, redemption)
        first = await lender.act(Redeem(redemption.digest))
        assert (await lender.act(Redeem(redemption.digest)))[-1] == first[-1]
        too_much = borrower.redeem(granted, state.newest, 41)
        await borrower.submit(lender.home, too_much)
        with pytest.raises(Refused):
            await lender.act(Redeem(too_much.digest))
        await lender.act(UsageReport(granted.digest, (50,), Window(START, START + HOUR)))
        await borrower.submit(lender.home, borrower.give_back(granted))
        assert (await reaches(lender.home, asked, "released")).redeemed == (60,)
        read = await read_chain(lender.home, str(lender.home.record.log), offer)
    chain = read.chain_of(offer)
    assert chain is not None
    assert chain.fault is None
    assert chain.state.remaining == (940,)


async def test_a_request_that_does_not_fit_is_refused_and_a_rejection_is_final(lender: Lender) -> None:
    borrower = Borrower()
    async with serving(lender.home, clock=lambda: NOW):
        offer = await lender.post()
        asked = [borrower.request(offer, hours(0, 10, nodes=3)) for _ in range(2)]
        await borrower.submit(lender.home, *asked)
        await lender.approve(asked[0].digest)
        with pytest.raises(Refused) as refused:
            await lender.approve(asked[1].digest)
        assert refused.value.code == "OFFER-CAPACITY"
        await lender.approve(asked[1].digest, hours(0, 10, nodes=1))
        third = borrower.request(offer, hours(20, 30))
        await borrower.submit(lender.home, third)
        await lender.act(Reject(third.digest, "not now"))
        with pytest.raises(Conflict):
            await lender.approve(third.digest)
        assert (await reaches(lender.home, third, "rejected")).answer is not None


async def test_an_unaccepted_grant_lapses_by_the_nodes_clock(lender: Lender) -> None:
    borrower, now = Borrower(), [NOW]
    async with serving(lender.home, clock=lambda: now[0]):
        offer = await lender.post()
        asked = borrower.request(offer, hours(0, 200, nodes=4, amount=1000))
        await borrower.submit(lender.home, asked)
        await lender.approve(asked.digest)
        await reaches(lender.home, asked, "granted")
        now[0] += 86_401
        await reaches(lender.home, asked, "lapsed")
        again = borrower.request(offer, hours(100, 200, nodes=4, amount=1000))
        await borrower.submit(lender.home, again)
        await lender.approve(again.digest)


async def test_only_requests_of_admitted_identities_are_logged(lender: Lender) -> None:
    stranger = Borrower()
    lender.home.set("publishing", accept="none")
    async with serving(lender.home, clock=lambda: NOW):
        offer = await lender.post(eligibility=Eligibility("members"))
        await holding(lender.home, lambda client: client.offers.search(), "the offer to be found")
        asked = stranger.request(offer, hours(0, 1))
        with pytest.raises(Refused) as refused:
            await stranger.submit(lender.home, asked)
        assert refused.value.code == "PUBLISHING-CLOSED"
        async with lender.home.operator() as client:
            await client.submit([stranger.publisher.announcement, asked.line])
        with pytest.raises(Refused) as refused:
            await lender.approve(asked.digest)
        assert refused.value.code == "OFFER-ELIGIBILITY"


async def test_submitted_records_of_this_nodes_chains_are_refused(lender: Lender) -> None:
    from comity.content.secrets import read_signer

    async with serving(lender.home, clock=lambda: NOW):
        offer = await lender.post()
        online = read_signer(lender.home.directory / "keys" / "online.pem")
        grant = Grant(replace(to(offer), remaining=(1,)), offer, offer, (hours(0, 1),), START + 1)
        forged = sign_statement(statement_of(grant, lender.home.record.node), online)
        async with lender.home.operator() as client:
            with pytest.raises(Refused) as refused:
                await client.submit([forged.line])
        assert refused.value.code == "OFFER-CHAIN"


async def test_operators_alone_allocate(lender: Lender) -> None:
    async with serving(lender.home, clock=lambda: NOW), lender.home.client() as client:
        with pytest.raises(Refused) as refused:
            await client.offers.allocate(Post(lender.offer().encode()))
        assert refused.value.code == "OPERATORS-ONLY"


async def test_an_offer_for_another_log_is_not_posted_here(lender: Lender) -> None:
    async with serving(lender.home, clock=lambda: NOW):
        with pytest.raises(Refused) as refused:
            await lender.act(Post(an_offer().encode()))
        assert refused.value.code == "OFFER-ELSEWHERE"
        with pytest.raises(NotFound):
            await lender.act(Approve(an_offer().id))


async def test_a_withdrawn_offer_is_found_no_more_unless_asked_for(lender: Lender) -> None:
    async with serving(lender.home, clock=lambda: NOW), lender.home.client() as client:
        offer = await lender.post()
        await holding(lender.home, lambda client: client.offers.search(), "the offer to be found")
        (withdrawn,) = await lender.act(Withdraw(offer, "needed here"))
        assert await lender.act(Withdraw(offer, "needed here")) == (withdrawn,)

        async def gone(client: NodeClient) -> bool:
            return not await client.offers.search()

        await holding(lender.home, gone, "the offer to be withdrawn")
        (state,) = await client.offers.search(OfferQuery(closed=True))
        assert state.withdrawn


QUERIES = [
    (OfferQuery(accelerator="h100"), True),
    (OfferQuery(accelerator="A100"), False),
    (OfferQuery(accelerator="H100", least_amount=1000), True),
    (OfferQuery(least_amount=1001), False),
    (OfferQuery(jurisdictions=("CH", "ES")), True),
    (OfferQuery(jurisdictions=("ES",)), False),
    (OfferQuery(beyond_reach_of=("US",)), True),
    (OfferQuery(beyond_reach_of=("CH",)), False),
    (OfferQuery(engine="slurm", measure="accelerator-hours"), True),
    (OfferQuery(engine="ssh"), False),
    (OfferQuery(ends_after=START + 240 * HOUR - 1), True),
    (OfferQuery(ends_after=START + 240 * HOUR), False),
]


async def test_offers_are_found_by_their_properties(lender: Lender) -> None:
    async with serving(lender.home, clock=lambda: NOW):
        await lender.post()
        await holding(lender.home, lambda client: client.offers.search(), "the offer to be found")
        async with lender.home.client() as client:
            for query, matches in QUERIES:
                assert bool(await client.offers.search(query)) == matches, query


@pytest.mark.slow
async def test_offers_are_found_at_every_mirror_and_their_chains_add_up_there(tmp_path: Path) -> None:
    homes = found(tmp_path, 3).homes
    lender, borrower = Lender(homes[0]), Borrower.member(homes[2])
    async with serving(*homes[1:]):
        async with serving(homes[0]):
            now = int(time.time()) // HOUR * HOUR
            admitted = Eligibility("members", jurisdictions=("KR",))
            offer = await lender.post(window=Window(now, now + 240 * HOUR), eligibility=admitted)
            for home in homes[1:]:
                await holding(home, lambda client: client.offers.search(), "the offer to be mirrored")
            wanted = hours(1, 10, nodes=2, amount=100)
            moved = type(wanted)(wanted.slice, 2, now + HOUR, now + 10 * HOUR, 100)
            asked = borrower.request(offer, moved)
            await borrower.submit(homes[1], asked)
            await reaches(homes[0], asked, "requested")
            granted = await lender.approve(asked.digest)
            await reaches(homes[1], asked, "granted")
            await borrower.submit(homes[2], borrower.accept(granted))
            for home in homes:
                await reaches(home, asked, "accepted")
        for home in homes[1:]:
            read = await read_chain(home, str(homes[0].record.log), offer)
            chain = read.chain_of(offer)
            assert chain is not None
            assert (chain.fault, chain.state.remaining) == (None, (900,))


@pytest.mark.slow
async def test_a_log_with_too_many_offer_records_is_not_kept_in_memory(tmp_path: Path) -> None:
    homes = found(tmp_path, 2).homes
    homes[1].set("limits", offer_lines_per_origin=2)
    lender = Lender(homes[0])
    async with serving(*homes):
        await lender.post(title="first")
        await holding(homes[1], lambda client: client.offers.search(), "the offer to be mirrored")
        for title in ("second", "third"):
            await lender.post(title=title)

        async def crowded(client: NodeClient) -> bool:
            return any("more lines about compute offers" in line for line in (await client.status()).warnings)

        async with homes[1].operator() as operator:
            await until(lambda: crowded(operator), what="the node to keep no more")
            assert await operator.offers.search() == ()

        async def whole(client: NodeClient) -> bool:
            return len(await client.offers.search()) == 3

        await holding(homes[0], whole, "the provider's own node to have them all")


async def test_a_default_is_public_with_both_sides(lender: Lender) -> None:
    borrower = Borrower()
    async with serving(lender.home, clock=lambda: NOW):
        offer = await lender.post()
        asked = borrower.request(offer, hours(0, 10))
        await borrower.submit(lender.home, asked)
        granted = await lender.approve(asked.digest)
        await borrower.submit(lender.home, borrower.accept(granted))
        await reaches(lender.home, asked, "accepted")
        complaint = borrower.default(granted, "no machine could be reached")
        await borrower.submit(lender.home, complaint)
        answer = (await lender.act(AnswerDefault(complaint.digest, "a power cut")))[-1]
        assert (await lender.act(AnswerDefault(complaint.digest, "a power cut")))[-1] == answer

        async def both(client: NodeClient) -> bool:
            lines = [located.line for located in await client.offers.get(offer)]
            return {complaint.line, answer.line} <= set(lines)

        await holding(lender.home, both, "both sides to be shown")
        assert complaint.digest in (await state_of(lender.home, asked)).statements


async def test_a_pact_is_redeemable_only_after_its_own_beneficiarys_cut_off(lender: Lender) -> None:
    borrower, other = Borrower(), Borrower()
    async with serving(lender.home, clock=lambda: NOW):
        offer = await lender.post()
        asked = borrower.request(offer, hours(0, 10, amount=10), pact=True)
        await borrower.submit(lender.home, asked)
        pact = await lender.approve(asked.digest)
        await borrower.submit(lender.home, borrower.accept(pact))
        state = await reaches(lender.home, asked, "accepted")
        assert state.newest is not None
        redemption = borrower.redeem(pact, state.newest, 5)
        await borrower.submit(lender.home, redemption, borrower.cut_off(pact, drill=True))
        await other.submit(lender.home, other.cut_off(pact))
        with pytest.raises(Refused) as refused:
            await lender.act(Redeem(redemption.digest))
        assert "cut-off" in str(refused.value)
        declared = borrower.cut_off(pact)
        await borrower.submit(lender.home, declared)

        async def received(client: NodeClient) -> bool:
            return declared.line in [located.line for located in await client.offers.get(offer)]

        await holding(lender.home, received, "the cut-off to be read")
        await lender.act(Redeem(redemption.digest))
        assert (await reaches(lender.home, asked, "accepted")).redeemed in ((0,), (5,))
        read = await read_chain(lender.home, str(lender.home.record.log), offer)
    chain = read.chain_of(offer)
    assert chain is not None
    assert chain.fault is None


async def test_a_restarted_node_continues_where_its_log_ends(lender: Lender) -> None:
    borrower = Borrower()
    async with serving(lender.home, clock=lambda: NOW):
        offer = await lender.post(slices=(a_slice(amount=20),))
        asked = borrower.request(offer, hours(0, 10, amount=15))
        await borrower.submit(lender.home, asked)
        granted = await lender.approve(asked.digest)
    async with serving(lender.home, clock=lambda: NOW):
        assert await lender.approve(asked.digest) == granted
        more = borrower.request(offer, hours(20, 30, amount=6))
        await borrower.submit(lender.home, more)
        with pytest.raises(Refused):
            await lender.approve(more.digest)
        with pytest.raises(Refused):
            await lender.act(Release(granted.digest))
        record = read_record(granted.statement)
        assert record.link.seq == 1


async def test_of_many_concurrent_requests_those_that_fit_are_granted(lender: Lender) -> None:
    borrower = Borrower()
    async with serving(lender.home, clock=lambda: NOW):
        offer = await lender.post()
        asked = [borrower.request(offer, hours(hour % 3, 10, nodes=2)) for hour in range(9)]
        await borrower.submit(lender.home, *asked)
        granted = await asyncio.gather(*(lender.approve(each.digest) for each in asked), return_exceptions=True)
        read = await read_chain(lender.home, str(lender.home.record.log), offer)
    refused = [error for error in granted if isinstance(error, Refused)]
    assert len(refused) == 7
    chain = read.chain_of(offer)
    assert chain is not None
    assert chain.fault is None
    assert len(chain.state.grants) == 2
