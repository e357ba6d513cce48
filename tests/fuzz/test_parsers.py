"""Two thousand mutated inputs for each parser; the fast suite takes the first third of them. Each run has the same
inputs.

For longer: `python tests/fuzz/run.py --seconds 600`.
"""

from __future__ import annotations

import itertools

import pytest
from attackers import emitted
from fuzz.check import check
from fuzz.mutate import mutations
from fuzz.parsers import PARSERS
from support.examples import examples
from support.hardware import certificates_checked_once

INPUTS = examples(2000)
EMITTED = emitted()


@pytest.mark.parametrize("name", PARSERS)
def test_samples_are_accepted(name: str) -> None:
    assert all(check(PARSERS[name], sample) for sample in PARSERS[name].samples)


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_raises_nothing_but_its_own_errors(name: str) -> None:
    inputs = list(itertools.islice(mutations(PARSERS[name].samples, seed=1), INPUTS))
    with certificates_checked_once():
        refused = sum(not check(PARSERS[name], data) for data in inputs)
    assert refused > INPUTS // 10  # the mutations do reach what must be refused


@pytest.mark.parametrize("name", PARSERS)
def test_bytes_of_attackers_are_accepted_or_refused(name: str) -> None:
    for data in EMITTED:
        check(PARSERS[name], data)


@pytest.mark.parametrize("name", PARSERS)
def test_nothing_and_noise_are_not_fatal(name: str) -> None:
    for data in (b"", b"\n", b"\n\n", b"\x00", b"\xff" * 5000, b"A" * 70_000, b"[" * 70_000, "— ".encode() * 1000):
        check(PARSERS[name], data)
