"""Offer documents: the bounds of each member, in the reader and in the constructors, and what an offer can grant."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from comity.rules.offers.offer import (
    ALLOCATIONS,
    AMOUNTS,
    MAX_ACCEPT,
    MAX_AMOUNT,
    MAX_ARTIFACTS,
    MAX_ATTRIBUTES,
    MAX_GRANULES,
    MAX_LISTED,
    MAX_NODES,
    MAX_SLICES,
    MAX_TIME,
    REMAINING,
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
from comity.trust.encoding import Fields, Json, canonical, sha256
from comity.trust.errors import Malformed
from comity.trust.tlog.note import cosigner_key
from support.offers import HOUR, LOG, LOG_KEY, START, a_slice, an_offer, hours

OFFER = an_offer(
    measure="node-hours", slices=(a_slice(amount=10), a_slice(name="b", amount=10)), location=OfferLocation("CH", "Lab")
)
COSIGNER = str(cosigner_key(LOG.name, LOG_KEY.public))
DIGESTS = sorted(sha256(b"%d" % number) for number in range(MAX_ARTIFACTS + 1))
NAMES = [f"aa{number:02}" for number in range(MAX_LISTED + 1)]
ATTRIBUTES = {f"a{number:02}": "" for number in range(MAX_ATTRIBUTES + 1)}
SLICE = a_slice(amount=10).to_json()


def changed(place: str, value: Any) -> Offer:
    """The offer as it is read with `value` at the place `a.b.c`."""
    document = json.loads(OFFER.encode())
    *outer, name = (int(each) if each.isdigit() else each for each in place.split("."))
    member = document
    for each in outer:
        member = member[each]
    member[name] = value
    return Offer.parse(canonical(document))


def several(count: int) -> list[Json]:
    return [{**SLICE, "name": f"s{number}"} for number in range(count)]


BOUNDS: list[tuple[str, list[Any], list[Any]]] = [
    ("schema", ["comity/offer/v1"], ["comity/offer/v2"]),
    ("log", [str(LOG)], [COSIGNER, "node-ch/log", ""]),
    ("title", ["x", "x" * 200], ["", "x" * 201]),
    ("contact", ["", "x" * 400], ["x" * 401]),
    ("measure", ["accelerator-hours"], ["dollars"]),
    ("supersedes", [None, DIGESTS[0]], ["", 0]),
    ("accept_seconds", [1, MAX_ACCEPT], [0, MAX_ACCEPT + 1]),
    ("artifacts", [[], DIGESTS[:-1]], [DIGESTS, DIGESTS[:2][::-1], DIGESTS[:1] * 2]),
    ("slices", [several(1), several(MAX_SLICES)], [[], several(MAX_SLICES + 1), [SLICE, SLICE]]),
    ("slices.0.name", ["a", "0-a", "a" * 32], ["", "A", "-a", "a" * 33, "a_b"]),
    ("slices.0", [{**SLICE, "accelerator": "", "vendor": "", "count": 0}], [{**SLICE, "more": 1}, "a"]),
    ("slices.0.vendor", ["", "x" * 64], ["x" * 65]),
    ("slices.0.accelerator", ["x" * 64], ["x" * 65, ""]),
    ("slices.0.count", [1, 1024], [0, 1025]),
    ("slices.0.memory_gib", [0, 10**6], [-1, 10**6 + 1]),
    ("slices.0.interconnect", ["", "x" * 100], ["x" * 101]),
    ("slices.0.nodes", [1, MAX_NODES], [0, MAX_NODES + 1]),
    ("slices.0.cpus", [0, 10**6], [-1, 10**6 + 1]),
    ("slices.0.ram_gib", [0, 10**9], [-1, 10**9 + 1]),
    ("slices.0.disk_gib", [0, 10**9], [-1, 10**9 + 1]),
    ("slices.0.fabric", ["", "x" * 100], ["x" * 101]),
    ("slices.0.amount", [1, 4 * 240], [0, 4 * 240 + 1]),
    ("slices.0.strict", [True], [1, None]),
    (
        "slices.0.attributes",
        [{}, dict(list(ATTRIBUTES.items())[:-1]), {"x" * 64: "y" * 200}, {"b": "", "a": ""}],
        [ATTRIBUTES, [], {"": ""}, {"x" * 65: ""}, {"x\n": ""}, {"x": "y" * 201}, {"x": 1}],
    ),
    ("slices.0.more", [], [1]),
    (
        "window",
        [{"start": 0, "end": HOUR * 10}],
        [{"start": START}, {"start": START, "end": START + 240 * HOUR, "more": 1}],
    ),
    ("window.start", [START + HOUR], [-1, START + 240 * HOUR, START + 241 * HOUR, START + 1]),
    ("window.end", [START + 10 * HOUR], [START + 10 * HOUR + 1, START, MAX_TIME + 1]),
    ("granularity", [{"nodes": 2, "seconds": 2 * HOUR, "amount": 5}], [{"nodes": 1, "seconds": HOUR}]),
    ("granularity.nodes", [1, 4], [0, 3, 5]),
    ("granularity.amount", [1, 10], [0, 3, 11]),
    ("granularity.seconds", [1800, 240 * HOUR], [0, 7 * HOUR, 480 * HOUR]),
    ("granularity.more", [], [1]),
    ("location.jurisdiction", ["ES", "x" * 31], ["", "x" * 32, "Spain"]),
    ("location.operator", ["x" * 200], ["", "x" * 201]),
    ("location.cloud_parent", ["", "x" * 200], ["x" * 201]),
    (
        "location.legal_reach",
        [[], ["CH", "US"], NAMES[:-1]],
        [NAMES, ["US", "CH"], ["CH", "CH"], ["Spain"], ["x" * 32]],
    ),
    ("location.more", [], [1]),
    ("eligibility.who", ["anyone", "members"], ["listed", "nobody"]),
    ("eligibility.identities", [[]], [DIGESTS[:1]]),
    ("eligibility.jurisdictions", [["CH", "ES"], NAMES[:-1]], [NAMES, ["ES", "CH"], ["CH", "CH"], ["Spain"]]),
    (
        "eligibility",
        [{"who": "listed", "identities": DIGESTS[:MAX_LISTED], "jurisdictions": []}],
        [
            {"who": "listed", "identities": DIGESTS[: MAX_LISTED + 1], "jurisdictions": []},
            {"who": "listed", "identities": DIGESTS[:2][::-1], "jurisdictions": []},
            {"who": "listed", "identities": [], "jurisdictions": []},
            {"who": "anyone", "identities": [], "jurisdictions": [], "more": 1},
        ],
    ),
    (
        "terms",
        [
            {"kind": "price", "price": MAX_AMOUNT, "currency": "EUR", "text": ""},
            {"kind": "price", "price": 0, "currency": "EUR", "text": "x" * 4000},
            {"kind": "reciprocal", "price": 0, "currency": "", "text": "a\n\tb"},
        ],
        [
            {"kind": "price", "price": MAX_AMOUNT + 1, "currency": "EUR", "text": ""},
            {"kind": "price", "price": 5, "currency": "", "text": ""},
            {"kind": "price", "price": 5, "currency": "eur", "text": ""},
            {"kind": "price", "price": 5, "currency": "EURO", "text": ""},
            {"kind": "grant", "price": 1, "currency": "", "text": ""},
            {"kind": "grant", "price": 0, "currency": "EUR", "text": ""},
            {"kind": "reciprocal", "price": 0, "currency": "euro", "text": ""},
            {"kind": "gift", "price": 0, "currency": "", "text": ""},
            {"kind": "grant", "price": 0, "currency": "", "text": "x" * 4001},
            {"kind": "grant", "price": 0, "currency": "", "text": "\x1b"},
            {"kind": "grant", "price": 0, "currency": "", "text": "", "more": 1},
        ],
    ),
    ("engine", [{"kind": "ssh", "target": "x" * 200}], [{"kind": "ssh", "target": "x" * 201}, {"kind": "ssh"}]),
    ("engine.target", ["", "x"], [None]),
    ("engine.kind", ["slurm", "kubernetes", "skypilot"], ["cron"]),
    ("engine.more", [], [1]),
    ("more", [], [1]),
]


@pytest.mark.parametrize(("place", "value"), [(place, value) for place, good, _ in BOUNDS for value in good])
def test_a_member_within_its_bounds_reads_back(place: str, value: Any) -> None:
    offer = changed(place, value)
    assert Offer.parse(offer.encode()) == offer
    found: Any = json.loads(offer.encode())
    for each in place.split("."):
        found = found[int(each) if each.isdigit() else each]
    assert found == value


@pytest.mark.parametrize(("place", "value"), [(place, value) for place, _, bad in BOUNDS for value in bad])
def test_a_member_beyond_its_bounds_is_refused(place: str, value: Any) -> None:
    with pytest.raises(Malformed):
        changed(place, value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Window(5, 5),
        lambda: Window(-1, 5),
        lambda: Granularity(0),
        lambda: Granularity(MAX_NODES + 1),
        lambda: Granularity(seconds=0),
        lambda: Granularity(seconds=MAX_TIME + 1),
        lambda: Granularity(amount=0),
        lambda: Granularity(amount=MAX_AMOUNT + 1),
        lambda: a_slice(name="A"),
        lambda: a_slice(accelerator=""),
        lambda: a_slice(count=0),
        lambda: a_slice(attributes=(("b", ""), ("a", ""))),
        lambda: a_slice(attributes=(("a", ""), ("a", ""))),
        lambda: a_slice(attributes=tuple(ATTRIBUTES.items())),
        lambda: OfferLocation("Spain", "x"),
        lambda: OfferLocation("ES", "x", legal_reach=("Spain",)),
        lambda: OfferLocation("ES", "x", legal_reach=tuple(NAMES)),
        lambda: Eligibility("nobody"),
        lambda: Eligibility("listed", tuple(DIGESTS[: MAX_LISTED + 1])),
        lambda: Eligibility("anyone", jurisdictions=tuple(NAMES)),
        lambda: Eligibility("anyone", jurisdictions=("Spain",)),
        lambda: Terms("gift"),
        lambda: Engine("cron"),
        lambda: replace(OFFER, log=COSIGNER),
        lambda: replace(OFFER, measure="dollars"),
        lambda: replace(OFFER, accept_seconds=0),
        lambda: replace(OFFER, accept_seconds=MAX_ACCEPT + 1),
        lambda: replace(OFFER, artifacts=tuple(DIGESTS)),
        lambda: replace(OFFER, slices=tuple(a_slice(name=f"s{number}") for number in range(MAX_SLICES + 1))),
        lambda: SliceAllocation("a", 0, 0, 1, 1),
        lambda: SliceAllocation("a", MAX_NODES + 1, 0, 1, 1),
        lambda: SliceAllocation("a", 1, 0, 1, 0),
        lambda: SliceAllocation("a", 1, 0, 1, MAX_AMOUNT + 1),
        lambda: SliceAllocation("a", 1, 1, 1, 1),
    ],
)
def test_what_cannot_be_read_cannot_be_built(make: Callable[[], object]) -> None:
    with pytest.raises(Malformed):
        make()


def test_attributes_are_sorted_when_they_are_read() -> None:
    assert Slice.from_json({**SLICE, "attributes": {"b": "2", "a": "1"}}).attributes == (("a", "1"), ("b", "2"))


def test_the_largest_values_can_be_built() -> None:
    assert Granularity(MAX_NODES, MAX_TIME, MAX_AMOUNT).nodes == MAX_NODES
    assert SliceAllocation("a", MAX_NODES, 0, MAX_TIME, MAX_AMOUNT).amount == MAX_AMOUNT
    assert SliceAllocation("a", 1, 0, 1, 1).amount == 1
    assert a_slice(accelerator="", vendor="", count=0).count == 0
    assert len(a_slice(attributes=tuple(ATTRIBUTES.items())[:-1]).attributes) == MAX_ATTRIBUTES


def test_a_window_has_a_bounded_number_of_granules() -> None:
    part = a_slice(amount=1)
    longest = Window(START, START + MAX_GRANULES)
    assert an_offer(slices=(part,), granularity=Granularity(1, 1, 1), window=longest).window == longest
    with pytest.raises(Malformed, match="whole granules"):
        an_offer(slices=(part,), granularity=Granularity(1, 1, 1), window=replace(longest, end=longest.end + 1))


@pytest.mark.parametrize(
    ("measure", "nodes", "seconds", "amount"),
    [("node-hours", 2, HOUR, 2), ("accelerator-hours", 2, HOUR, 16), ("node-hours", 1, HOUR - 1, 0)],
)
def test_hours_are_those_of_nodes_or_of_their_accelerators(measure: str, nodes: int, seconds: int, amount: int) -> None:
    assert a_slice().max_amount(measure, nodes, seconds) == amount


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"nodes": 9, "amount": 9, "cpus": 9, "fabric": "", "attributes": (("a", "b"),)}, True),
        ({"name": "other"}, False),
        ({"vendor": "AMD"}, False),
        ({"accelerator": "H200"}, False),
        ({"count": 4}, False),
        ({"memory_gib": 141}, False),
    ],
)
def test_a_slice_of_the_same_kind_has_the_same_accelerators(change: dict[str, Any], same: bool) -> None:
    assert a_slice().same_kind(a_slice(**change)) == same


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ((hours(0, 240, nodes=4, amount=8 * 4 * 240),), ""),
        ((hours(0, 2, nodes=2, amount=32), hours(2, 4, nodes=2, amount=2)), ""),
        ((hours(0, 1, slice="a100"),), "slice a100: the offer has no such slice"),
        ((hours(0, 2, nodes=2, amount=2), hours(0, 2, slice="a100")), "slice a100: the offer has no such slice"),
        ((hours(-2, 2, nodes=2),), "outside the offer's window"),
        ((hours(238, 242, nodes=2),), "outside the offer's window"),
        ((hours(1, 4, nodes=2),), "not at multiples of 7200 seconds"),
        ((hours(0, 3, nodes=2),), "not at multiples of 7200 seconds"),
        ((hours(0, 2, nodes=3),), "not a multiple of 2 nodes and 2 accelerator-hours"),
        ((hours(0, 2, nodes=2, amount=3),), "not a multiple of 2 nodes and 2 accelerator-hours"),
        ((hours(0, 2, nodes=6),), "6 nodes exceed the 4 of the slice"),
        ((hours(0, 2, nodes=2, amount=34),), "34 accelerator-hours exceed the 32 that these nodes give"),
    ],
)
def test_an_offer_says_why_it_never_grants_an_allocation(wanted: tuple[SliceAllocation, ...], why: str) -> None:
    offer = an_offer(granularity=Granularity(2, 2 * HOUR, 2), slices=(a_slice(amount=8 * 4 * 240),))
    error = offer.allocation_error(wanted)
    assert error.endswith(why) and bool(error) == bool(why)


def test_granules_begin_with_the_window() -> None:
    window = Window(START + 2 * HOUR, START + 242 * HOUR)
    offer = an_offer(granularity=Granularity(1, 3 * HOUR, 1), window=window)
    assert offer.allocation_error([hours(2, 5)]) == ""
    for wanted in (hours(3, 5), hours(2, 6)):
        assert offer.allocation_error([wanted]).endswith("not at multiples of 10800 seconds")


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (
            AMOUNTS.read,
            [[1], [0, MAX_AMOUNT], [1] * MAX_SLICES],
            [[], [0], [0, 0], [1] * (MAX_SLICES + 1), [-1], [True]],
        ),
        (REMAINING.read, [[0], [MAX_AMOUNT], [1] * MAX_SLICES], [[], [1] * (MAX_SLICES + 1), [MAX_AMOUNT + 1], ["1"]]),
    ],
)
def test_lists_of_amounts_are_bounded(read: Callable[[Fields, str], tuple[int, ...]], good: Any, bad: Any) -> None:
    for value in good:
        assert list(read(Fields({"m": value}, "document"), "m")) == value
    for value in bad:
        with pytest.raises(Malformed):
            read(Fields({"m": value}, "document"), "m")


def test_lists_of_allocations_name_each_slice_once() -> None:
    def read(items: list[Json]) -> tuple[SliceAllocation, ...]:
        return ALLOCATIONS.read(Fields({"m": items}, "document"), "m")

    made = [hours(0, 1, slice=f"s{number}") for number in range(MAX_SLICES + 1)]
    items: list[Any] = [each.to_json() for each in made]
    assert read(items[:-1]) == tuple(made[:-1])
    assert read([{**items[0], "slice": "x" * 32}])[0].slice == "x" * 32
    refused: list[list[Any]] = [[], items, items[:1] * 2, [{**items[0], "more": 1}], [{**items[0], "slice": "x" * 33}]]
    for bad in refused:
        with pytest.raises(Malformed):
            read(bad)
