"""Cases of the short form of a slow suite."""

from __future__ import annotations

import pytest
from support.short_form import cases


def test_cases_that_are_not_of_the_short_form_are_long() -> None:
    made = cases(["one", "two", "three"], ["two"])
    marks = {str(each.values[0]): [mark.name for mark in each.marks] for each in made}
    assert marks == {"one": ["long"], "two": [], "three": ["long"]}


@pytest.mark.parametrize("short", [[], ["four"], ["one", "four"]])
def test_a_short_form_has_a_case_and_only_cases_that_exist(short: list[str]) -> None:
    with pytest.raises(ValueError, match="no cases of this suite"):
        cases(["one", "two"], short)
