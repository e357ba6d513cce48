"""How well links are used, and the cost of faults, in seconds of a virtual clock and with the limits of production."""

from __future__ import annotations

import functools
import random
from pathlib import Path

import pytest
from comity.transfer.fetch import FetchOptions, FetchResult, fetch_file
from comity.transfer.limits import MIB
from comity.transfer.pieces import WantedFile
from comity.trust.artifact import PIECE_SIZE
from comity.trust.encoding import sha256
from comity.trust.errors import Unavailable
from support import virtual_time
from support.sources import Dripping, Failing, Liar, Link, MemorySource, Silent, cut, named, source_key

SUM_OF_LINKS = 170.0


@functools.cache
def whole() -> bytes:
    return random.Random(7).randbytes(96 * MIB)


@functools.cache
def wanted() -> WantedFile:
    return WantedFile(sha256(whole()), len(whole()), cut(whole(), PIECE_SIZE))


def links() -> list[MemorySource]:
    return [Link("a", whole(), 100), Link("b", whole(), 50), Link("c", whole(), 20)]


def fetch(sources: list[MemorySource], folder: Path, want: WantedFile | None = None) -> tuple[FetchResult, float]:
    """The transfer, and its rate in Mbit/s."""
    want = want or wanted()
    work = fetch_file(
        want, sources, folder / "partial", options=FetchOptions(executor=virtual_time.Inline(), jitter=lambda: 0.5)
    )
    fetched, seconds = virtual_time.run(work)
    return fetched, want.size * 8 / 1e6 / seconds


def test_one_link_is_used_fully(tmp_path: Path) -> None:
    _, mbit = fetch([Link("a", whole(), 100)], tmp_path)
    assert mbit > 98


def test_links_of_different_rates_are_used_together(tmp_path: Path) -> None:
    fetched, mbit = fetch(links(), tmp_path)
    assert mbit > 0.9 * SUM_OF_LINKS
    assert fetched.refetched < 0.05 * len(whole())


def test_a_lying_and_a_dead_source_cost_little_time(tmp_path: Path) -> None:
    faulty: list[MemorySource] = [Liar("liar", whole()), Silent("dead", whole())]
    fetched, mbit = fetch([*faulty, *links()], tmp_path)
    assert mbit > 0.9 * SUM_OF_LINKS
    assert "liar" in named(fetched.dropped) and "dead" not in named(fetched.dropped)


def test_a_small_file_does_not_wait_out_the_silence_of_a_dead_source(tmp_path: Path) -> None:
    data = whole()[:100_000]
    sources = [Silent("dead", data), Link("a", data, 100)]
    _, mbit = fetch(sources, tmp_path, WantedFile(sha256(data), len(data), cut(data, PIECE_SIZE)))
    assert len(data) * 8 / 1e6 / mbit < 1.0, "seconds; the silence alone would take 3"


def test_the_last_per_cent_does_not_wait_for_a_source_that_becomes_silent(tmp_path: Path) -> None:
    alone = len(whole()) * 8 / 1e6 / 100
    _, mbit = fetch([Silent("dying", whole(), budget=len(whole()) // 3), Link("a", whole(), 100)], tmp_path)
    assert len(whole()) * 8 / 1e6 / mbit < alone + 1.0


def test_a_source_that_recovers_is_used_again(tmp_path: Path) -> None:
    back = Failing("back", whole(), lambda: Unavailable("restarting"), times=3)
    fetched, _ = fetch([back, Link("a", whole(), 20)], tmp_path)
    assert named(fetched.faults) == {"back": ("restarting",)}
    assert named(fetched.bytes_by_source)["back"] > len(whole()) // 2


@pytest.mark.parametrize("drips", [7, 8, 30])
def test_no_number_of_very_slow_sources_keeps_an_honest_one_out(tmp_path: Path, drips: int) -> None:
    data = whole()[: 8 * MIB]
    sources = [Dripping(f"drip-{number}", data, every=2.0) for number in range(drips)]
    want = WantedFile(sha256(data), len(data), cut(data, PIECE_SIZE))
    fetched, mbit = fetch([*sources, Link("a", data, 100)], tmp_path, want)
    assert named(fetched.bytes_by_source) == {"a": len(data)}
    assert len(data) * 8 / 1e6 / mbit < drips + 7.0, "seconds: each slow source delays it by less than one"


def ways_to_one_host(*ways: MemorySource) -> list[MemorySource]:
    for way in ways:
        way.host = source_key("node")
    return list(ways)


@pytest.mark.parametrize(("grpc", "https"), [(20, 100), (100, 20)])
def test_the_faster_way_to_a_host_carries_nearly_all(tmp_path: Path, grpc: int, https: int) -> None:
    fetched, mbit = fetch(ways_to_one_host(Link("grpc", whole(), grpc), Link("https", whole(), https)), tmp_path)
    assert mbit > 0.85 * max(grpc, https)
    assert named(fetched.bytes_by_host) == {"node": len(whole())}


def test_a_second_way_that_stalls_costs_seconds_and_no_more(tmp_path: Path) -> None:
    alone = len(whole()) * 8 / 1e6 / 100
    _, mbit = fetch(ways_to_one_host(Link("grpc", whole(), 100), Silent("https", whole())), tmp_path)
    assert len(whole()) * 8 / 1e6 / mbit < alone + 4.0
