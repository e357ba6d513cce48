"""No file costs more than 30 CPU seconds or 300 MB to inspect, and what costs too much is not clean.

All costs as a table: `python tests/fuzz/costs.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from attackers.costly_files import costly_files
from comity.formats.pickles import is_pickle
from comity.formats.source import BoundedFile, NotInspected, Work
from fuzz.costs import Cost, cost_of_made

FILES = {what: (name, make) for what, name, make in costly_files()}
FAST = ("templates: ", "documents: levels", "documents: a long number", "tars: records", "others: marks")
SHORT = [what for what in FILES if what.startswith(FAST) and "many" not in what and "large" not in what]


def over(whats: list[str], folder: Path) -> dict[str, Cost | None]:
    """The files that cost more than they may; None: the inspection was killed."""
    costs = {what: cost_of_made(FILES[what][1], FILES[what][0], folder) for what in whats}
    return {what: cost for what, cost in costs.items() if cost is None or not cost.within_bounds}


@pytest.mark.parametrize("what", SHORT)
def test_a_text_of_any_shape_is_searched_once(what: str, tmp_path: Path) -> None:
    assert over([what], tmp_path) == {}


@pytest.mark.long
def test_no_file_costs_more_than_it_may(tmp_path: Path) -> None:
    assert over(list(FILES), tmp_path) == {}
    assert len(FILES) >= 100


@pytest.mark.parametrize(
    "read", [lambda source: is_pickle(source), lambda source: [source.read_at(0, 1) for _ in range(5)]]
)
def test_steps_are_counted_and_the_last_one_ends_the_inspection(read: Callable[[BoundedFile], object]) -> None:
    with pytest.raises(NotInspected):
        read(BoundedFile.of(b"N0N0N0N0\xff", Work(steps=4)))
    read(BoundedFile.of(b"N0N0N0N0\xff", Work(steps=40)))


def test_all_that_is_in_a_file_shares_its_steps() -> None:
    whole = BoundedFile.of(bytes(8), Work(steps=3))
    whole.part(0, 4).read_at(0, 4)
    BoundedFile.of(b"1", whole.work).read_at(0, 1)
    whole.read_at(0, 1)
    with pytest.raises(NotInspected):
        whole.part(0, 1).read_at(0, 1)
