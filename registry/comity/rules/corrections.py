"""Statements that their author corrects: each has a number, and the one with the highest number counts.

They arrive in any order and from several logs, so nothing but the number says which one is the newest. Where an author
signed two with the highest number that say different things, none counts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Final, Protocol, TypeVar

MAX_NUMBER: Final = 15
"""An author corrects what it says about one thing so many times."""


class Numbered(Protocol):
    """A statement that can be corrected."""

    @property
    def number(self) -> int: ...


T = TypeVar("T", bound=Numbered)


def newest(stated: Iterable[T], content: Callable[[T], Hashable]) -> T | None:
    """The statement that counts, of those of one author about one thing; None if none does.

    Args:
        content: what a statement says.
    """
    by_number: dict[int, dict[Hashable, T]] = {}
    for each in stated:
        by_number.setdefault(each.number, {})[content(each)] = each
    found = tuple(by_number[max(by_number)].values()) if by_number else ()
    return found[0] if len(found) == 1 else None


def next_number(stated: Iterable[Numbered]) -> int:
    """The number of the next statement, after these of the same author: above `MAX_NUMBER`, there can be none."""
    return max((each.number for each in stated), default=-1) + 1
