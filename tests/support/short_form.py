"""The short form of a slow suite with many cases of one kind: some run in `.ci/run`; the others are `long`."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pytest
from _pytest.mark.structures import ParameterSet


def cases(every: Iterable[object], short: Collection[object]) -> list[ParameterSet]:
    """All cases as parameters of a test; those that are not in `short` are marked `long`.

    Raises:
        ValueError: `short` has no case, or one that does not exist: the suite would lose its short form unnoticed.
    """
    known = list(every)
    if not short or any(each not in known for each in short):
        raise ValueError(f"no cases of this suite: {short}")
    return [pytest.param(each, marks=() if each in short else pytest.mark.long) for each in known]
