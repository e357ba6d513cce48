"""The table of files that took longest."""

from __future__ import annotations

from dataclasses import dataclass

from support.file_times import slowest_files


@dataclass(frozen=True)
class Phase:
    nodeid: str
    duration: float


def test_files_are_listed_by_the_time_of_all_phases_of_their_tests() -> None:
    phases = [
        Phase("tests/a.py::test_one", 1.0),
        Phase("tests/b.py::test_short[1]", 0.5),
        Phase("tests/b.py::test_short[1]", 0.3),
        Phase("tests/b.py::test_short[2]", 0.4),
        Phase("tests/c.py::test_two", 0.1),
    ]
    assert slowest_files(phases, 2) == ["1.2s tests/b.py (2 tests)", "1.0s tests/a.py (1 tests)"]
