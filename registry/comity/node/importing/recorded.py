"""What logs here say was observed: by this node, and by others. Blocking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from comity.ledger.index import Query
from comity.node.core import Core
from comity.node.scan import every
from comity.trust.errors import ComityError
from comity.trust.statement import parse_entry
from comity.trust.upstream.observed import OBSERVED, Observed

MAX_OBSERVATIONS = 10_000


@dataclass(frozen=True, slots=True)
class Recorded:
    """An `observed` line, read, and where it stands."""

    observed: Observed
    line: bytes
    origin: str
    vkey: str
    index: int


def own(core: Core, name: str) -> list[Recorded]:
    """What this node itself observed of a commit, in its own log, oldest first."""
    node = core.seat.record.node.id
    query = Query(prefix=name, predicate=OBSERVED, by=node, origin=core.log)
    return [found for found in _read(core, query) if found.observed.upstream.name == name and found.observed.by == node]


def all_of(core: Core, prefix: str = "hf:") -> Iterator[Recorded]:
    """What anybody says to have observed below a name; each line proven by nothing yet."""
    return _read(core, Query(prefix=prefix, predicate=OBSERVED))


def _read(core: Core, query: Query) -> Iterator[Recorded]:
    for found in every(core.ledger, query, most=MAX_OBSERVATIONS):
        try:
            observed = Observed.parse(parse_entry(found.line).statement)
        except ComityError:
            continue
        yield Recorded(observed, found.line, found.origin, found.vkey, found.index)
