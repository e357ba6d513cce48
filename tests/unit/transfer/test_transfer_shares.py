"""Two requests that bring one piece: which parts, when, and what follows if the parts do not match. Rule (3)."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.transfer.fetch import FetchOptions, FetchResult, fetch_file
from comity.transfer.limits import TransferLimits
from comity.transfer.links import RangeRequest, SourceHealth
from comity.transfer.pieces import WantedFile
from comity.transfer.scheduler import Schedule
from comity.transfer.sources import SourceKey
from comity.trust.artifact import PIECE_SIZE
from comity.trust.encoding import sha256
from support import virtual_time
from support.sources import FarLink, cut, named

MIB = 1 << 20


def key(name: str) -> SourceKey:
    return SourceKey("test", name)


def schedule(pieces: int, **rates: float) -> Schedule:
    """Only the first source is asked before the time 0.1."""
    health = {key(name): SourceHealth(rate=rate, backoff_until=0.1) for name, rate in rates.items()}
    health[key(next(iter(rates)))].backoff_until = 0.0
    return Schedule([at * MIB for at in range(pieces + 1)], range(pieces), health, TransferLimits())


def begun(plan: Schedule, received: int) -> RangeRequest:
    """The first request, when so much of it has arrived."""
    [request] = plan.assign(0.0)
    request.received = received
    return request


def test_a_second_source_brings_the_end_of_a_piece_so_that_both_end_together() -> None:
    plan = schedule(1, a=1.0 * MIB, b=3.0 * MIB)
    a = begun(plan, MIB // 5)
    [b] = plan.assign(0.2)
    assert b.skip == pytest.approx(0.4 * MIB, rel=0.01), "a quarter of the four fifths that are missing"
    assert plan.holders(0) == (a, b) and plan.head_of(b) is a


@pytest.mark.parametrize(("received", "shared"), [(0.5, True), (0.9, True), (0.96, False)])
def test_no_second_source_is_asked_for_what_comes_soon_anyhow(received: float, shared: bool) -> None:
    plan = schedule(1, a=1.0 * MIB, b=3.0 * MIB)
    begun(plan, int(received * MIB))
    assert bool(plan.assign(received)) == shared


def test_a_source_that_is_hardly_faster_than_waiting_is_not_asked() -> None:
    plan = schedule(1, a=1.0 * MIB, b=0.2 * MIB)
    begun(plan, MIB // 5)
    assert plan.assign(0.2) == []


def test_the_time_until_the_first_byte_makes_the_part_smaller() -> None:
    plan = schedule(1, a=1.0 * MIB, b=3.0 * MIB)
    begun(plan, MIB // 5)
    plan._sources[key("b")].latency = 0.1
    [b] = plan.assign(0.2)
    assert b.skip == pytest.approx(0.55 * MIB, rel=0.01), "for two round trips the first source is alone"


def test_pieces_that_are_not_begun_move_together() -> None:
    plan = schedule(12, a=6.0 * MIB, b=2.0 * MIB)
    a = begun(plan, 3 * MIB)
    assert (a.first, a.stop) == (0, 12)
    plan.begin(a, 3, 0.5)
    [b] = plan.assign(0.5)
    assert (b.first, b.stop, b.skip, a.stop) == (10, 12, 0, 10), "a quarter of the nine that are missing"


def test_a_part_is_left_to_a_faster_source_that_is_free_soon() -> None:
    plan = schedule(2, a=1.0 * MIB, b=1.0 * MIB, c=8.0 * MIB)
    plan._sources[key("c")].backoff_until = 0.0
    requests = {each.source.value: each for each in plan.assign(0.0)}
    requests["a"].received, requests["c"].received = MIB // 10, MIB * 9 // 10
    assert plan.assign(0.1) == [], "c has an eightieth of a second left"


def untried(size: int) -> Schedule:
    """One piece, and two sources of which nothing is known."""
    return Schedule([0, size], [0], {key("a"): SourceHealth(), key("b"): SourceHealth()}, TransferLimits())


def test_a_small_piece_stays_with_an_untried_source_that_brings_it() -> None:
    plan = untried(800_000)
    a = begun(plan, 0)
    assert plan.assign(0.5) == [], "a round trip may be as long"
    a.answered, a.received = 0.5, 200_000
    assert plan.assign(1.4) == [], "a connection is slow at first"
    assert len(plan.assign(1.6)) == 1, "half of its bytes would have come by now"


def test_a_small_piece_is_fetched_from_another_when_an_untried_source_does_not_answer() -> None:
    plan = untried(800_000)
    begun(plan, 0)
    [b] = plan.assign(0.7)
    assert b.source == key("b")


def test_a_large_piece_of_an_untried_source_is_shared_at_once() -> None:
    plan = untried(4 * MIB)
    begun(plan, 0)
    assert len(plan.assign(0.5)) == 1


def test_what_a_silent_source_has_brought_is_not_requested_again() -> None:
    plan = schedule(1, a=1.0 * MIB, b=1.0 * MIB)
    a = begun(plan, MIB - 600)
    assert plan.assign(1.0) == []
    [b] = plan.assign(3.5)
    assert b.skip == a.received


def test_both_sources_of_a_piece_are_proven_by_it() -> None:
    plan = schedule(1, a=1.0 * MIB, b=3.0 * MIB)
    a = begun(plan, MIB // 5)
    [b] = plan.assign(0.2)
    for source in plan._sources.values():
        source.failures = 1
    a.received, b.received = b.skip, MIB - b.skip
    assert plan.verified(b, 0, 0.4, a)
    assert [source.failures for source in plan._sources.values()] == [0, 0]
    assert not a.active and b.active and plan.finished


@pytest.mark.parametrize("honest", ["a", "b"])
def test_who_brings_a_mixed_piece_alone_shows_that_the_other_lied(honest: str) -> None:
    plan = schedule(1, a=1.0 * MIB, b=3.0 * MIB)
    a = begun(plan, MIB // 5)
    [b] = plan.assign(0.2)
    plan.mixed(b, a)
    assert not plan.dropped, "not known yet"
    assert plan.verified(a if honest == "a" else b, 0, 1.0)
    assert [source.value for source in plan.dropped] == ["b" if honest == "a" else "a"]


def fetch(tmp_path: Path, data: bytes, *sources: FarLink) -> tuple[FetchResult, float]:
    want = WantedFile(sha256(data), len(data), cut(data, PIECE_SIZE))
    health = {source.key: SourceHealth(rate=source.rate, latency=source.round_trip) for source in sources}
    options = FetchOptions(executor=virtual_time.Inline(), jitter=lambda: 0.5, health=health)
    return virtual_time.run(fetch_file(want, sources, tmp_path / "partial", options=options))


DATA = bytes(PIECE_SIZE)


def with_wrong_byte(at: int) -> bytes:
    wrong = bytearray(DATA)
    wrong[at] = 1
    return bytes(wrong)


def test_one_piece_comes_from_two_sources_in_the_time_of_both(tmp_path: Path) -> None:
    fetched, seconds = fetch(tmp_path, DATA, FarLink("a", DATA, 8, 0.05), FarLink("b", DATA, 8, 0.05))
    assert seconds < 0.65 * len(DATA) / 1e6
    assert sorted(named(fetched.bytes_by_source)) == ["a", "b"]
    assert fetched.refetched < 0.02 * len(DATA)


@pytest.mark.parametrize(("liar", "wrong"), [(0, 0), (1, PIECE_SIZE - 1)], ids=["its start", "its end"])
def test_a_source_that_lies_in_its_part_is_found_and_the_other_stays(tmp_path: Path, liar: int, wrong: int) -> None:
    names = ["honest", "honest"]
    names[liar] = "liar"
    sources = [FarLink(name, with_wrong_byte(wrong) if name == "liar" else DATA, 8, 0.05) for name in names]
    fetched, _ = fetch(tmp_path, DATA, *sources)
    assert named(fetched.bytes_by_source) == {"honest": len(DATA)}
    assert list(named(fetched.dropped)) == ["liar"]
    assert (tmp_path / "partial").read_bytes() == DATA


def test_the_rest_of_a_piece_of_a_source_that_becomes_silent_is_fetched_from_another(tmp_path: Path) -> None:
    dying = FarLink("dying", DATA, 8, 0.05)
    dying.budget = MIB
    fetched, seconds = fetch(tmp_path, DATA, dying, FarLink("other", DATA, 8, 0.05))
    assert seconds < (len(DATA) - MIB) / 1e6 + 3.0
    assert fetched.refetched < 0.02 * len(DATA), "what the silent one brought counts"
