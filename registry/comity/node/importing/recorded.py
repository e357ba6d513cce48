"""What logs here say was observed: by this node, and by others. Blocking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from comity.ledger.proven import MAX_ANSWER, Line, Publication
from comity.node.core import Core
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
    repository, _, commit = name.rpartition("@")
    answer = core.ledger.proven.observations(repository, (core.seat.record.node.id,), commit, MAX_ANSWER)
    found = (_read(item) for item in answer.found if item.vkey == core.log)
    return sorted((item for item in found if item.observed.upstream.name == name), key=lambda item: item.index)


def of_nodes(core: Core) -> Iterator[Recorded]:
    """What nodes of this federation observed: of each an even share, the first that it said."""
    nodes = core.membership.node_ids
    share = min(MAX_ANSWER, max(16, MAX_OBSERVATIONS // len(nodes)))
    for node in nodes:
        yield from (_read(item) for item in core.ledger.proven.by(node, OBSERVED, share).found)


def _read(found: Line | Publication) -> Recorded:
    observed = Observed.parse(parse_entry(found.line).statement)
    return Recorded(observed, found.line, found.origin, found.vkey, found.index)
