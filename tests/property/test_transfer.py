"""Arbitrary pieces, messages and other sources: with one honest source the file is complete and correct."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256 as hashed
from pathlib import Path

from comity.transfer.fetch import FetchOptions, fetch_file
from comity.transfer.limits import TransferLimits
from comity.transfer.pieces import WantedFile
from comity.trust.artifact import PieceRecord
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound, Unavailable
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.sources import QUICK, Empty, Endless, Failing, Liar, MemorySource, Short, Silent, named, weights

DATA = weights(2)
OTHERS: dict[str, Callable[[str], MemorySource]] = {
    "liar": lambda name: Liar(name, DATA),
    "sometimes": lambda name: Liar(name, DATA, pieces=[1]),
    "short": lambda name: Short(name, DATA),
    "endless": lambda name: Endless(name, DATA),
    "empty": lambda name: Empty(name, DATA),
    "silent": lambda name: Silent(name, DATA, budget=20_000),
    "absent": lambda name: Failing(name, DATA, lambda: NotFound("not here")),
    "flaky": lambda name: Failing(name, DATA, lambda: Unavailable("busy"), times=3),
}
LIMITS: TransferLimits = replace(QUICK, streams=3, buffers=5, read_timeout=0.02, patience=30.0)


@settings(max_examples=examples(60), deadline=None)
@given(
    cuts=st.sets(st.integers(1, len(DATA) - 1), max_size=20),
    message=st.integers(1_000, 40_000),
    others=st.lists(st.sampled_from(sorted(OTHERS)), max_size=5),
    at=st.integers(0, 5),
    left=st.integers(0, len(DATA)),
)
def test_one_honest_source_is_enough(cuts: set[int], message: int, others: list[str], at: int, left: int) -> None:
    bounds = itertools.pairwise([0, *sorted(cuts), len(DATA)])
    records = [PieceRecord(stop - start, hashed(DATA[start:stop]).digest()) for start, stop in bounds]
    sources = [OTHERS[kind](f"{kind}-{number}") for number, kind in enumerate(others)]
    sources.insert(at, MemorySource("honest", DATA, message=message))
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "partial"
        into.write_bytes(DATA[:left])
        fetched = asyncio.run(
            fetch_file(
                WantedFile(sha256(DATA), len(DATA), records),
                sources,
                into,
                options=FetchOptions(limits=LIMITS, jitter=lambda: 0.5),
            )
        )
        assert into.read_bytes() == DATA
    assert fetched.resumed + sum(fetched.bytes_by_source.values()) == len(DATA)
    assert "honest" not in named(fetched.dropped)
    assert all(source.streams == 0 for source in sources)
