"""`[time]`: the moment to judge, and how old the cosignatures may be then."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Final

from comity.trust.policy.table import Table, wrong

DEFAULT_MAX_AGE_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class Freshness:
    """Seconds since 1970 of the moment to judge, and how old the newest cosignature may be then."""

    as_of: int
    max_age: int


def read_freshness(table: Table) -> Freshness | None:
    as_of = table.take("as_of", (datetime.datetime, type(None)), None)
    days = table.take("max_age_days", (int, type(None)), None)
    table.done()
    if days is not None and (days < 0 or as_of is None):
        raise wrong(table.what, "'max_age_days' is a count of days before 'as_of'")
    if as_of is None:
        return None
    if as_of.tzinfo is None:
        raise wrong(table.what, "'as_of' needs an offset, such as Z")
    return Freshness(int(as_of.timestamp()), (DEFAULT_MAX_AGE_DAYS if days is None else days) * 86_400)
