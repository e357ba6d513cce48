"""Chains from several nodes: false answers of one node change no other's answer, and two conflicting chains are
detected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, NotFound
from comity.wire.log import LocatedProof
from comity.wire.messages import LocatedEntry
from comity.wire.offer import GrantQuery, GrantStatus, OfferQuery
from comity_client.offers.bundle import OfferBundle
from comity_client.offers.offer_client import FoundChain, OfferClient, fetch_chain, most_named
from comity_client.session import Answers
from support.fair import Stall


@dataclass(frozen=True)
class Mirror:
    """A node that serves the lines and proofs of an offer bundle."""

    name: str
    bundle: OfferBundle

    @property
    def offers(self) -> Mirror:
        return self

    async def get(self, offer: Digest) -> tuple[LocatedEntry, ...]:
        if not self.bundle.lines:
            raise NotFound("no such offer")
        return tuple(LocatedEntry(line=p.line, origin=p.origin, index=p.index) for p in self.bundle.lines)

    async def proofs(self, line: Digest, origin: str) -> tuple[LocatedProof, ...]:
        found = [LocatedProof(origin, proof) for digest, proof in self.bundle.proofs if digest == line]
        if not found:
            raise NotFound("no proof")
        return tuple(found)


@dataclass(frozen=True)
class Fair:
    """A session with these nodes."""

    stall: Stall
    mirrors: tuple[Any, ...]

    @property
    def pins(self) -> tuple[Any, ...]:
        return (self.stall.federation,)

    async def ask(self, question: Callable[[Any], Awaitable[Any]]) -> Answers[Any]:
        found: dict[Any, Any] = {}
        failed: dict[Any, ComityError] = {}
        for mirror in self.mirrors:
            try:
                found[mirror] = await question(mirror)
            except ComityError as error:
                failed[mirror] = error
        return Answers(found, failed)


@pytest.fixture
def stall() -> Stall:
    return Stall()


@dataclass(frozen=True)
class ListingMirror:
    """A node that lists chains, and serves them."""

    mirror: Mirror
    lister: Lister

    @property
    def name(self) -> str:
        return self.mirror.name

    @property
    def offers(self) -> ListingMirror:
        return self

    async def get(self, offer: Digest) -> tuple[LocatedEntry, ...]:
        return await self.mirror.get(offer)

    async def proofs(self, line: Digest, origin: str) -> tuple[LocatedProof, ...]:
        return await self.mirror.proofs(line, origin)

    async def search(self, query: OfferQuery) -> list[Any]:
        return await self.lister.search(query)

    async def grants(self, query: GrantQuery) -> list[GrantStatus]:
        return await self.lister.grants(query)


async def seen(stall: Stall, chain: Digest, **bundles: OfferBundle) -> FoundChain:
    mirrors = tuple(Mirror(name, bundle) for name, bundle in bundles.items())
    return await fetch_chain(Fair(stall, mirrors), chain, OfferBundle())  # type: ignore[arg-type]  # what it calls of a client


def shuffled(bundle: OfferBundle) -> OfferBundle:
    """The same lines at other indexes, as a lying node might claim."""
    lines = [replace(placed, index=10 - placed.index) for placed in bundle.lines]
    return replace(bundle, lines=tuple(lines))


async def test_the_node_that_knows_most_is_followed(stall: Stall) -> None:
    chain = stall.post()
    old = stall.bundle()
    stall.accept(chain, stall.grant(chain))
    found = await seen(stall, chain, behind=old, ahead=stall.bundle(), empty=OfferBundle())
    assert (found.view.status, found.view.state.seq, found.nodes) == ("proven", 2, ("ahead", "behind"))


async def test_false_indexes_of_one_node_change_no_other_answer(stall: Stall) -> None:
    chain = stall.post()
    stall.accept(chain, stall.grant(chain))
    good = stall.bundle()
    found = await seen(stall, chain, honest=good, liar=shuffled(good))
    assert (found.view.status, found.view.state.seq) == ("proven", 2)


async def test_false_answers_of_a_node_prove_no_fault(stall: Stall) -> None:
    chain = stall.post()
    stall.accept(chain, stall.grant(chain))
    assert (await seen(stall, chain, liar=shuffled(stall.bundle()))).view.status != "convicted"


async def test_one_node_proves_lines_of_another(stall: Stall) -> None:
    chain = stall.post()
    whole = stall.bundle()
    found = await seen(stall, chain, lines=replace(whole, proofs=()), proofs=replace(whole, lines=whole.lines[:1]))
    assert found.view.status == "proven"


async def test_two_chains_at_two_nodes_are_a_fault_of_their_writer(stall: Stall) -> None:
    chain = stall.post()
    other = stall.second()
    stall.grant(chain, amount=8)
    other.grant(chain, amount=9)
    found = await seen(stall, chain, one=stall.bundle(), two=other.bundle())
    assert (found.view.status, found.view.why.split()[0]) == ("convicted", "forked")


async def test_an_unknown_offer_is_not_found(stall: Stall) -> None:
    with pytest.raises(NotFound):
        await seen(stall, stall.post(), empty=OfferBundle())


@dataclass(frozen=True)
class Lister:
    """A node that lists chains, and requests of them."""

    chains: tuple[Digest, ...] = ()
    requests: tuple[GrantStatus, ...] = ()

    @property
    def offers(self) -> Lister:
        return self

    async def search(self, query: OfferQuery) -> list[Any]:
        return [SimpleNamespace(chain=chain, vkey="a log") for chain in self.chains]

    async def grants(self, query: GrantQuery) -> list[GrantStatus]:
        return list(self.requests)


def client(stall: Stall, *nodes: Any) -> OfferClient:
    def run(work: Any) -> Any:
        return asyncio.run(work(Fair(stall, nodes)))

    return OfferClient((), run)


INVENTED = tuple(Digest(f"{number:064x}") for number in range(50))


def test_a_node_that_lists_many_chains_hides_no_offer_of_another(stall: Stall) -> None:
    chain = stall.post()
    honest = [ListingMirror(Mirror(name, stall.bundle()), Lister((chain,))) for name in ("one", "two")]
    many = ListingMirror(Mirror("many", OfferBundle()), Lister(INVENTED))
    found, more = client(stall, many, *honest).offers(OfferQuery(), 2)
    assert [seen.view.state.chain for seen in found] == [chain]
    assert more == len(INVENTED) - 1


def test_an_id_that_a_node_invents_makes_no_other_ambiguous(stall: Stall) -> None:
    chain = stall.post()
    alike = tuple(Digest(chain[:12] + f"{number:052x}") for number in range(3))
    nodes = [
        ListingMirror(Mirror("false", OfferBundle()), Lister(alike)),
        ListingMirror(Mirror("true", stall.bundle()), Lister((chain,))),
    ]
    assert client(stall, *nodes).offer(chain[:12]).view.state.chain == chain


def test_each_node_names_one_in_turn_where_as_many_name_each() -> None:
    invented = [(chain, "liar/log") for chain in INVENTED]
    stated = Digest("f" * 64)
    assert most_named([invented, [(stated, "honest/log")]])[:3] == [INVENTED[0], stated, INVENTED[1]]


def test_a_log_with_many_offers_hides_none_of_another_log_that_all_nodes_have() -> None:
    flood = [(sha256(b"%d" % number), "flooded/log") for number in range(5_000)]
    stated = Digest("f" * 64)
    for place in (0, 2_500, 5_000):
        listed = [*flood[:place], (stated, "honest/log"), *flood[place:]]
        assert stated in most_named([listed, listed])[:2]
    also_asked_for = [*flood, (stated, "flooded/log"), (stated, "honest/log")]
    assert stated in most_named([also_asked_for])[:2]


def test_a_node_that_assigns_a_grant_to_another_offer_does_not_hide_it(stall: Stall) -> None:
    chain = stall.post()
    grant = stall.grant(chain)
    asked = stall.entries[-2]
    request, answer = (LocatedEntry(stall.log.origin, 0, entry.line) for entry in (asked, grant))
    true = GrantStatus(request, chain, "granted", answer)
    false = [replace(true, chain=invented, statements=(grant.digest,) * 2) for invented in INVENTED[:2]]
    nodes = (
        ListingMirror(Mirror("false", OfferBundle()), Lister(requests=tuple(false))),
        ListingMirror(Mirror("true", stall.bundle()), Lister(requests=(true,))),
    )
    for order in (nodes, nodes[::-1]):
        assert client(stall, *order).grant(grant.digest).granted == grant
        (seen,), more = client(stall, *order).grants(GrantQuery())
        assert (seen.view.state.chain, more) == (chain, 0)
