"""The kinds of published artifacts, as their publishers state them, for the routes and lists of a Hub.

An artifact is a model unless its publisher states another kind (`comity.rules.artifact_kind`). Of each artifact only
what its own publisher stated is read, and a limited number of lines, so that what others state costs nothing.

The list of datasets reads the statements of kinds, and no other names: of a million models it reads none. Such a
statement is a claim about a name. So `is_listed` compares it with the item of the list, which was made from what the
name means here: another publisher's statement, an older version and a kind that was corrected list nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from comity.gateway.hub.catalogue import is_within_reach
from comity.ledger.intake import fold_name
from comity.ledger.proven import ProvenLine
from comity.node.threads import AsyncLedger
from comity.rules.artifact_kind import HUB_DATASETS, KindStated, hub_types
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import ARTIFACT_KIND

STEP: Final = 256
"""Statements of kinds that are read at once."""
SCANNED: Final = 4_096
"""Statements of kinds that one request reads at most. A page may be short, with a cursor to continue."""


@frozen
class StatedDataset:
    """A statement that a repository has a dataset, and its place in the order of the list."""

    stated: KindStated
    number: int


class DatasetList:
    """Names of the repositories that a Hub lists as datasets. Not thread-safe: call from the event loop."""

    def __init__(self, ledger: AsyncLedger) -> None:
        self._ledger = ledger

    async def names(
        self, words: str, author: str, after: str, most: int, reach: Sequence[str]
    ) -> tuple[dict[str, StatedDataset], str]:
        """Return at most `most` statements that a repository is a dataset, by its folded name, whose name contains all
        of `words`, is of `author` if given, and is within `reach`; and the cursor to continue, empty at the end.
        Raises Malformed (CURSOR)."""
        number = _number(after)
        prefix = f"{fold_name(author)}/" if author else ""
        wanted = fold_name(words).split()
        found: dict[str, StatedDataset] = {}
        for _ in range(SCANNED // STEP):
            lines = await self._ledger.run(self._some, number)
            for line, stated in _datasets(lines):
                number = line.number
                name = fold_name(stated.name.repository)
                fits = name.startswith(prefix) and all(word in name for word in wanted)
                if fits and is_within_reach(name, reach):
                    found[name] = StatedDataset(stated, line.number)
                if len(found) == most:
                    return found, str(number)
            if len(lines) < STEP:
                return found, ""
            number = lines[-1].number
        return found, str(number)

    def _some(self, after: int) -> list[ProvenLine]:
        """Blocking."""
        return self._ledger.tables.proven.since(after, (ARTIFACT_KIND,), STEP)


def is_listed(item: Mapping[str, Any], stated: Mapping[str, StatedDataset] | None) -> bool:
    """Whether an item of the list belongs into the list of datasets, by the statement about its name; with None, into
    the list of models."""
    types = hub_types(item["kind"])
    if stated is None:
        return types[0] != HUB_DATASETS
    found = stated.get(fold_name(item["id"]))
    if found is None or types[0] != HUB_DATASETS:
        return False
    return found.stated.kind == item["kind"] and found.stated.artifact.startswith(item["_id"])


def _datasets(lines: Collection[ProvenLine]) -> Iterator[tuple[ProvenLine, KindStated]]:
    for line in lines:
        try:
            stated = KindStated.parse(parse_entry(line.line).statement)
        except Malformed:  # proven to be its author's, and still no statement of a kind
            continue
        if hub_types(stated.kind)[0] == HUB_DATASETS:
            yield line, stated


def _number(cursor: str) -> int:
    if not cursor:
        return 0
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 15:
        raise Malformed("not a cursor of this node", why="start again from the first page", code="CURSOR")
    return int(cursor)
