"""Arbitrary statements about compute offers, for Hypothesis."""

from __future__ import annotations

from typing import Any

from comity.rules.offers.amounts import DefaultAnswer, Usage
from comity.rules.offers.offer import (
    ENGINES,
    MAX_ACCEPT,
    MAX_AMOUNT,
    MAX_TIME,
    MEASURES,
    Eligibility,
    Engine,
    Granularity,
    Offer,
    OfferLocation,
    Slice,
    SliceAllocation,
    Terms,
    Window,
)
from comity.rules.offers.records import (
    Acceptance,
    Accepted,
    Agreement,
    ChainLink,
    CutOff,
    Default,
    GivingBack,
    Grant,
    GrantRequest,
    Lapsed,
    Offered,
    Pact,
    Redeemed,
    Redemption,
    Rejected,
    Released,
    Withdrawn,
)
from comity.trust.encoding import MAX_INTEGER, Digest
from hypothesis import assume
from hypothesis import strategies as st
from support.offers import LOG

digests = st.binary(min_size=32, max_size=32).map(lambda raw: Digest(raw.hex()))
printable = st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])
texts = st.text(printable, max_size=40)
words = st.text(printable, min_size=1, max_size=20)
names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,8}", fullmatch=True)
jurisdictions = st.sampled_from(["CH", "ES", "KR", "europe"])
amounts = st.integers(0, MAX_AMOUNT)
times = st.integers(0, MAX_TIME)


def sets(of: st.SearchStrategy[Any], most: int = 4) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, max_size=most, unique=True).map(lambda items: tuple(sorted(items)))


windows = st.tuples(times, times).filter(lambda pair: pair[0] < pair[1]).map(lambda pair: Window(*pair))
allocations = st.builds(
    lambda name, nodes, window, amount: SliceAllocation(name, nodes, window.start, window.end, amount),
    names,
    st.integers(1, 10**6),
    windows,
    st.integers(1, MAX_AMOUNT),
)
several = st.lists(allocations, min_size=1, max_size=3, unique_by=lambda wanted: wanted.slice).map(tuple)
used = st.lists(amounts, min_size=1, max_size=3).filter(any).map(tuple)


@st.composite
def slices(draw: st.DrawFn, measure: str, granularity: Granularity, seconds: int) -> Slice:
    count = draw(st.integers(1, 16))
    nodes = draw(st.integers(1, 50)) * granularity.nodes
    most = nodes * seconds * (count if measure == "accelerator-hours" else 1) // 3600 // granularity.amount
    assume(most >= 1)
    attributes = draw(st.dictionaries(names, texts, max_size=2))
    return Slice(
        draw(names),
        draw(texts),
        draw(words),
        count,
        draw(st.integers(0, 1000)),
        draw(texts),
        nodes,
        draw(st.integers(0, 512)),
        draw(st.integers(0, 4096)),
        draw(st.integers(0, 10**6)),
        draw(texts),
        draw(st.integers(1, min(most, MAX_AMOUNT // granularity.amount))) * granularity.amount,
        tuple(sorted(attributes.items())),
        draw(st.booleans()),
    )


eligibilities = st.one_of(
    st.builds(Eligibility, st.sampled_from(["anyone", "members"]), st.just(()), sets(jurisdictions)),
    st.builds(Eligibility, st.just("listed"), sets(digests).filter(bool), sets(jurisdictions)),
)
terms = st.one_of(
    st.builds(Terms, st.sampled_from(["grant", "reciprocal"]), st.just(0), st.just(""), texts),
    st.builds(Terms, st.just("price"), amounts, st.sampled_from(["CHF", "EUR"]), texts),
)


@st.composite
def offers(draw: st.DrawFn) -> Offer:
    measure = draw(st.sampled_from(MEASURES))
    granularity = Granularity(draw(st.integers(1, 3)), draw(st.integers(1, 7200)), draw(st.integers(1, 3)))
    seconds = draw(st.integers(3600, 10_000)) * granularity.seconds
    start = draw(st.integers(0, MAX_TIME - seconds))
    drawn = st.lists(slices(measure, granularity, seconds), min_size=1, max_size=3, unique_by=lambda part: part.name)
    return Offer(
        draw(digests),
        str(LOG),
        draw(words),
        measure,
        tuple(draw(drawn)),
        Window(start, start + seconds),
        granularity,
        draw(st.builds(OfferLocation, jurisdictions, words, texts, sets(jurisdictions))),
        draw(eligibilities),
        draw(terms),
        draw(st.builds(Engine, st.sampled_from(ENGINES), texts)),
        draw(st.integers(1, MAX_ACCEPT)),
        draw(sets(digests)),
        draw(texts),
        draw(st.none() | digests),
    )


links = st.builds(
    ChainLink,
    digests,
    st.integers(0, MAX_INTEGER),
    st.none() | digests,
    times,
    st.lists(amounts, min_size=1, max_size=3).map(tuple),
)
records = st.one_of(
    st.builds(Offered, links, offers()),
    st.builds(Withdrawn, links, texts),
    st.builds(Grant, links, digests, digests, several, times),
    st.builds(Pact, links, digests, digests, several, times),
    st.builds(Rejected, links, digests, texts),
    st.builds(Accepted, links, digests, digests),
    st.builds(Lapsed, links, digests),
    st.builds(Redeemed, links, digests, digests, used, st.none() | digests),
    st.builds(Released, links, digests, st.none() | digests),
)
said = st.one_of(
    st.builds(GrantRequest, digests, digests, several, st.integers(0, MAX_INTEGER), st.booleans(), texts),
    st.builds(Acceptance, digests, digests, digests),
    st.builds(Redemption, digests, digests, digests, used, digests, texts),
    st.builds(GivingBack, digests, digests, digests, texts),
    st.builds(CutOff, digests, digests, digests, st.booleans(), texts),
    st.builds(Default, digests, digests, digests, texts),
    st.builds(Agreement, digests, digests, digests, digests),
)
usages = st.builds(Usage, digests, digests, windows, used, texts)
answers = st.builds(DefaultAnswer, digests, digests, digests, texts)
