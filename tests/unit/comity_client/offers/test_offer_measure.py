"""Measured figures of machines: the benchmark, the figures in an offer, and how `fit` uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from comity.addons.fit.fit import GIB, AcceleratorGroup, Workload, fit, group_of
from comity.addons.fit.kv_cache import UnknownCache
from comity.addons.fit.model_memory import Model, ModelWeights
from comity.rules.offers.offer import Offer, Slice
from comity.trust.errors import Malformed, Unavailable
from comity_cli.main import command
from comity_client.offers import measure as module
from comity_client.offers.measure import (
    MIB,
    NAME,
    REPEATS,
    WARM_UPS,
    MeasuredFigures,
    MeasuredRate,
    find_backend,
    measure,
    with_figures,
)
from hypothesis import given
from hypothesis import strategies as st
from support.offers import an_offer

FIGURES = MeasuredFigures(
    NAME,
    MeasuredRate(3_000_000, 2_900_000, 3_100_000, "MB/s"),
    MeasuredRate(700_000, 650_000, 710_000, "GFLOP/s bf16"),
    81_079,
    "torch 2.9, H100; copy 1024 MiB, matrix 8192, 10 runs; 2026-11-27",
)


class FakeBackend:
    """A device whose work takes the time that the test sets."""

    label = "fake 1.0, nothing"

    def __init__(self, capacity: int = 0) -> None:
        self.capacity = capacity
        self.sizes: list[int] = []
        self.runs = 0

    def _work(self) -> None:
        self.runs += 1

    def copier(self, size: int) -> Callable[[], None]:
        self.sizes.append(size)
        return self._work

    def multiplier(self, n: int) -> tuple[str, Callable[[], None]]:
        self.sizes.append(n)
        return "bf16", self._work


def clock(*seconds: float) -> Callable[[], float]:
    def ticks() -> Iterator[float]:
        now = 0.0
        while True:
            for each in seconds:
                yield now
                now += each
                yield now

    each = ticks()
    return lambda: next(each)


def test_the_benchmark_is_ten_runs_of_a_copy_and_of_a_product() -> None:
    backend = FakeBackend()
    found = measure(backend, clock(1.0, 2.0), "2026-11-27")
    assert (backend.runs, backend.sizes) == (2 * (WARM_UPS + REPEATS), [256 * MIB, 1024])
    assert str(found.memory) == "402 MB/s, 268 to 537"
    assert str(found.matrix) == "2 GFLOP/s bf16, 1 to 2"
    assert found.conditions == "fake 1.0, nothing; copy 256 MiB, matrix 1024, 10 runs; 2026-11-27"
    assert found.capacity_mib == 0


def test_an_accelerator_has_larger_sizes_and_a_capacity() -> None:
    backend = FakeBackend(capacity=80 * GIB)
    found = measure(backend, clock(0.001), "2026-11-27")
    assert backend.sizes == [1024 * MIB, 8192] and found.capacity_mib == 80 * 1024


def test_numpy_measures_this_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpy")
    backend = find_backend("numpy")
    backend.copier(4096)()
    kind, multiply = backend.multiplier(8)
    multiply()
    assert (kind, backend.capacity) == ("fp32", 0) and backend.label.startswith("numpy ")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("", "torch"):
        with pytest.raises(Unavailable) as refused:
            find_backend(name)
        assert refused.value.code == "NO-BACKEND"


rates = st.lists(st.integers(1, 10**12), min_size=3, max_size=3).map(sorted)


@given(rates, rates, st.integers(0, 10**9 - 1), st.sampled_from(("bf16", "fp16", "fp32")))
def test_figures_round_trip_as_a_file_and_as_attributes(
    memory: list[int], matrix: list[int], capacity: int, kind: str
) -> None:
    made = MeasuredFigures(
        NAME,
        MeasuredRate(memory[1], memory[0], memory[2], "MB/s"),
        MeasuredRate(matrix[1], matrix[0], matrix[2], f"GFLOP/s {kind}"),
        capacity,
        "somewhere",
    )
    assert MeasuredFigures.parse(made.encode()) == made
    assert MeasuredFigures.of_attributes(made.attributes()) == made


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        FIGURES.encode().replace(b"measure/1", b"measure/2"),
        FIGURES.encode().replace(b"3000000 MB/s", b"3e6 MB/s"),
        FIGURES.encode().replace(b"2900000", b"9900000"),
        FIGURES.encode().replace(b'"measured/memory"', b'"other"'),
        b" " * 70_000,
    ],
)
def test_invalid_figures_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        MeasuredFigures.parse(data)
    assert refused.value.code == "MEASURED"


def the_slice(**changed: object) -> Slice:
    part = an_offer().slices[0]
    return replace(part, accelerator="H100", count=8, memory_gib=80, **changed)  # type: ignore[arg-type]


def test_an_offer_with_figures_is_read_by_every_reader_and_names_them_once() -> None:
    offer = an_offer()
    other = replace(FIGURES, conditions="again")
    slices = tuple(with_figures(with_figures(part, FIGURES), other) for part in offer.slices)
    made = replace(offer, slices=slices)
    read = Offer.parse(made.encode())
    assert read == made and read.id != offer.id
    assert MeasuredFigures.of_attributes(dict(read.slices[0].attributes)) == other


def test_a_strict_slice_with_figures_is_checked() -> None:
    group = group_of(with_figures(the_slice(strict=True, attributes=()), FIGURES))
    assert isinstance(group, AcceleratorGroup) and group.measured == FIGURES
    assert isinstance(group_of(the_slice(strict=True, attributes=(("odd", "x"),))), str)


def answer(group: AcceleratorGroup) -> dict[str, str]:
    weights = ModelWeights({"BF16": 30 * GIB}, "the headers of 1 file", ("model.safetensors",))
    return dict(fit(Model("m", weights, UnknownCache("tests")), group, Workload(8192)).lines)


def test_fit_uses_the_measured_memory_and_bandwidth_and_says_so() -> None:
    lines = answer(AcceleratorGroup("H100", 1, 80, 1, measured=FIGURES))
    assert lines["usable"].startswith(
        "71.26 GiB each, of the memory measured by the lender (79.18 GiB, comity-measure/1)"
    )
    assert lines["rate"].startswith("all of it can be read 93 times a second (3000000 MB/s")
    assert lines["rate"].endswith("measured by the lender with comity-measure/1: its claim)")


def test_fit_says_that_figures_are_declared_and_trusts_no_larger_memory() -> None:
    declared = answer(AcceleratorGroup("H100", 1, 80, 1))
    assert declared["usable"].startswith("72.00 GiB each, of the memory declared:")
    assert declared["rate"] == "not computed: the offer has declared figures only"
    larger = replace(FIGURES, capacity_mib=200 * 1024)
    assert answer(AcceleratorGroup("H100", 1, 80, 1, measured=larger))["usable"].startswith(
        "72.00 GiB each, of the memory declared; the lender measured 204800 MiB"
    )


def test_the_figures_of_the_command_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_backend", lambda name: FakeBackend())
    file = tmp_path / "measured.json"
    ran = CliRunner().invoke(command, ["offer", "measure", "--out", str(file)], standalone_mode=False)
    assert ran.exception is None, ran.output
    assert MeasuredFigures.parse(file.read_bytes()).benchmark == NAME
    assert "--measured SLICE" in ran.output
