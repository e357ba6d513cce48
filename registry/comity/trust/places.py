"""Where a node's bytes lie, as its member declares it: who operates the machines, which cloud, whose law reaches them.

    {"cloud":"Example Cloud Inc.","operator":"Example Hosting AG","reach":["CH","US"]}

A declaration is a claim: nobody verifies it. It is used in one direction only. A member that declares that the law of
US reaches its machines is counted as within reach of US; a member that declares nothing is within nobody's known reach,
and what asks for copies *outside* a jurisdiction does not count it.

The number of *reaches* of some copies is the smallest number of jurisdictions that together reach every one of them: 1
if one legal order could have all of them removed. Three copies in three countries on one foreign cloud have one reach.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from comity.trust.encoding import Fields, Json
from comity.trust.errors import Malformed
from comity.trust.identity import check_jurisdiction

MAX_REACH: Final = 8
MAX_TEXT: Final = 100
MOST_REACHES: Final = 4
"""The largest number of reaches that is counted: more is shown as this number."""

Reach = tuple[str, ...]
"""Jurisdictions whose law reaches something, in order; empty where it is not declared."""


@dataclass(frozen=True, slots=True)
class Place:
    """`operator` runs the machines; `cloud` is the parent company whose platform they are, empty for the operator's
    own machines; `reach` are the jurisdictions whose law reaches any of these, sorted, at least one."""

    operator: str
    cloud: str
    reach: Reach

    def __post_init__(self) -> None:
        for code in self.reach:
            check_jurisdiction(code)
        if not 1 <= len(self.reach) <= MAX_REACH or list(self.reach) != sorted(set(self.reach)):
            why = f"'reach' needs 1 to {MAX_REACH} jurisdictions, in order, each once"
            raise Malformed("the declared place is malformed", why=why, code="PLACE")

    def to_json(self) -> Json:
        return {"cloud": self.cloud, "operator": self.operator, "reach": list(self.reach)}

    @classmethod
    def read(cls, fields: Fields) -> Place:
        """Raises Malformed."""
        operator = fields.text("operator", most=MAX_TEXT)
        cloud = fields.text("cloud", least=0, most=MAX_TEXT)
        reach = tuple(_code(item) for item in fields.items("reach", least=1, most=MAX_REACH))
        fields.done()
        return cls(operator, cloud, reach)


def _code(item: Json) -> str:
    if not isinstance(item, str):
        raise Malformed("the declared place is malformed", why="a jurisdiction must be text", code="PLACE")
    return item


def declared_reach(jurisdiction: str, place: Place | None) -> Reach:
    """The jurisdictions whose law reaches a copy of a member in `jurisdiction`: the declared ones and its own. Empty
    where nothing is declared."""
    return tuple(sorted({jurisdiction, *place.reach})) if place else ()


def is_outside(jurisdiction: str, reach: Reach, excluded: Collection[str]) -> bool:
    """Whether a copy is outside the jurisdictions `excluded`, by its member's seat and by its declared reach. One
    without a declaration is not."""
    return jurisdiction not in excluded and bool(reach) and excluded_reach(reach, excluded) == ()


def excluded_reach(reach: Reach, excluded: Collection[str]) -> Reach:
    """The jurisdictions of `excluded` that reach it, as declared."""
    return tuple(code for code in reach if code in excluded)


def count_reaches(reaches: Iterable[Reach]) -> int:
    """The smallest number of jurisdictions that together reach everything declared, at most MOST_REACHES. What is not
    declared is not counted: it could be within any of them."""
    return _smallest(frozenset(reach for reach in reaches if reach))


@functools.lru_cache(maxsize=16_384)
def _smallest(reaches: frozenset[Reach]) -> int:
    return next((most for most in range(MOST_REACHES) if _covered(reaches, most)), MOST_REACHES)


def _covered(reaches: frozenset[Reach], most: int) -> bool:
    """Whether `most` jurisdictions can reach all of them. One of the first one's jurisdictions has to be among them, so
    that at most MAX_REACH + 1 to the power of `most` cases are tried."""
    if not reaches or most == 0:
        return not reaches
    first = min(reaches, key=len)
    return any(_covered(frozenset(reach for reach in reaches if code not in reach), most - 1) for code in first)
