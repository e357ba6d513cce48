"""Sources behind links of any rate and length, on virtual time: a file takes little longer than all links together
need, and few bytes come twice, though packets are lost, a source lies, or one dies in the middle.
"""

from __future__ import annotations

import functools
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comity.transfer.fetch import FetchOptions, FetchResult, fetch_file
from comity.transfer.limits import TransferLimits
from comity.transfer.pieces import WantedFile
from comity.trust.encoding import sha256
from hypothesis import given, settings
from hypothesis import strategies as st
from support import virtual_time
from support.examples import examples
from support.sources import FarLink, cut

MIB = 1 << 20
LONGEST = 16 * MIB


@dataclass(frozen=True)
class Given:
    """A link: Mbit/s and seconds of a round trip."""

    mbit: float
    round_trip: float

    @property
    def rate(self) -> float:
        return self.mbit * 1e6 / 8


@functools.cache
def content(*, wrong: bool = False) -> bytes:
    data = bytearray(random.Random(7).randbytes(LONGEST))
    for at in range(0, LONGEST, MIB) if wrong else ():
        data[at] ^= 0xFF
    return bytes(data)


def sources(links: Sequence[Given], size: int, loss: float) -> list[FarLink]:
    made = [FarLink(f"n{at}", content()[:size], link.mbit, link.round_trip) for at, link in enumerate(links)]
    for source in made:
        source.loss = loss
    return made


def fetch(from_: Sequence[FarLink], size: int) -> tuple[FetchResult, float]:
    data = content()[:size]
    want = WantedFile(sha256(data), size, cut(data, MIB))
    options = FetchOptions(executor=virtual_time.Inline(), jitter=lambda: 0.5)
    with tempfile.TemporaryDirectory() as folder:
        fetched, seconds = virtual_time.run(fetch_file(want, from_, Path(folder) / "partial", options=options))
        assert sha256((Path(folder) / "partial").read_bytes()) == want.digest
    return fetched, seconds


def twice(fetched: FetchResult) -> int:
    """Bytes that came twice: all that did not count, but not those that were wrong."""
    return fetched.refetched - fetched.wrong


link = st.builds(Given, mbit=st.sampled_from((2, 4, 8, 16, 32)), round_trip=st.sampled_from((0.02, 0.05, 0.15)))
links = st.lists(link, min_size=2, max_size=5)
sizes = st.integers(6 * MIB, LONGEST)
losses = st.sampled_from((0.0, 0.01))


def least(given: Sequence[Given], size: int) -> float:
    """Seconds of the file if all links are full all the time."""
    return size / sum(each.rate for each in given)


def learning(given: Sequence[Given]) -> float:
    """Seconds of two pieces: what is begun before any rate is known can be with a link that is too slow for it."""
    return 2 * MIB / sum(each.rate for each in given)


def round_trip(given: Sequence[Given]) -> float:
    return max(each.round_trip for each in given)


@settings(max_examples=examples(40), deadline=None)
@given(given=links, size=sizes, loss=losses)
def test_uneven_links_are_full_and_bring_few_bytes_twice(given: list[Given], size: int, loss: float) -> None:
    fetched, seconds = fetch(sources(given, size, loss), size)
    assert twice(fetched) <= 0.02 * size
    assert seconds <= 1.15 * least(given, size) + 5 * round_trip(given) + learning(given)


@settings(max_examples=examples(40), deadline=None)
@given(given=links, size=sizes, loss=losses, liar=link)
def test_a_liar_costs_its_wrong_bytes_and_the_time_of_two_pieces(
    given: list[Given], size: int, loss: float, liar: Given
) -> None:
    lying = FarLink("liar", content(wrong=True)[:size], liar.mbit, liar.round_trip)
    fetched, seconds = fetch([lying, *sources(given, size, loss)], size)
    assert twice(fetched) <= 0.02 * size + MIB, "what was brought beside the liar may come twice too"
    assert fetched.wrong <= 2 * MIB
    again = 2 * MIB / sum(each.rate for each in given)
    assert seconds <= 1.15 * least(given, size) + 5 * round_trip(given) + learning(given) + again


@settings(max_examples=examples(40), deadline=None)
@given(given=st.lists(link, min_size=3, max_size=5), size=sizes, dies=st.integers(0, 4), after=st.floats(0.0, 1.0))
def test_a_source_that_dies_costs_its_unfinished_pieces(given: list[Given], size: int, dies: int, after: float) -> None:
    made, dying = sources(given, size, 0.0), dies % len(given)
    made[dying].budget = after * size / len(given)
    fetched, seconds = fetch(made, size)
    alive = [each for at, each in enumerate(given) if at != dying]
    assert twice(fetched) <= 0.02 * size + 2 * MIB
    again = 2 * MIB / sum(each.rate for each in alive)
    assert seconds <= 1.15 * least(alive, size) + 5 * round_trip(given) + again + TransferLimits().read_timeout
