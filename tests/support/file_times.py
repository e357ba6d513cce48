"""How long the tests of each file took, printed with the slowest tests: many short tests can take longer than one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Timed(Protocol):
    """What pytest reports of one phase of a test."""

    @property
    def nodeid(self) -> str: ...

    @property
    def duration(self) -> float: ...


def slowest_files(reports: Iterable[Timed], most: int) -> list[str]:
    """The `most` files whose tests took longest, with the seconds of all phases of their tests, and their number."""
    seconds, tests = dict[str, float](), dict[str, set[str]]()
    for report in reports:
        file = report.nodeid.partition("::")[0]
        seconds[file] = seconds.get(file, 0.0) + report.duration
        tests.setdefault(file, set()).add(report.nodeid)
    slowest = sorted(seconds, key=lambda file: -seconds[file])[:most]
    return [f"{seconds[file]:.1f}s {file} ({len(tests[file])} tests)" for file in slowest]
