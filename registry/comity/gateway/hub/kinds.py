"""The kinds of published artifacts, as their publishers state them, for the routes and lists of a Hub.

An artifact is a model unless its publisher states another kind (`comity.rules.artifact_kind`). Of each artifact only
what its own publisher stated is read, and a limited number of lines, so that what others state costs nothing.

The list of datasets reads the publications of these kinds, and no other names: of a million models it reads none, and
publishers take turns in it. A publication is a claim about a name. So `is_listed` compares it with the item of the
list, which was made from what the name means here: another publisher's dataset and an older version list nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from comity.gateway.hub.catalogue import is_within_reach
from comity.ledger.intake import fold_name
from comity.ledger.proven import ListedPublication
from comity.node.services.artifact import read_cursor, write_cursor
from comity.node.threads import AsyncLedger
from comity.rules.artifact_kind import DATASET_KINDS, HUB_DATASETS, hub_types

STEP: Final = 256
"""Publications that are read at once."""
STEPS: Final = 4
"""Reads of one request at most. A page may be short, with a cursor to continue."""
DatasetPublications: TypeAlias = Mapping[str, Sequence[ListedPublication]]


class DatasetList:
    """Names of the repositories that a Hub lists as datasets. Not thread-safe: call from the event loop."""

    def __init__(self, ledger: AsyncLedger) -> None:
        self._ledger = ledger

    async def names(
        self, words: str, author: str, after: str, most: int, reach: Sequence[str]
    ) -> tuple[DatasetPublications, str]:
        """Return what is published as datasets under at most `most` names of repositories, by the folded name, which
        contains all of `words`, is of `author` if given, and is within `reach`; and the cursor to continue, empty at
        the end. Raises Malformed (CURSOR)."""
        place, named = read_cursor(after), self._ledger.tables.proven.named
        prefix = f"{fold_name(author)}/" if author else ""
        wanted = fold_name(words).split()
        found: dict[str, list[ListedPublication]] = {}
        for _ in range(STEPS):
            page = await self._ledger.run(named, [*wanted, prefix], place, STEP, DATASET_KINDS)
            for each in page.found:
                name = each.name.rpartition("@")[0]
                fits = name.startswith(prefix) and all(word in name for word in wanted)
                if fits and is_within_reach(name, reach):
                    found.setdefault(name, []).append(each)
                if len(found) == most:
                    return found, write_cursor(each.place)
            if page.after is None:
                return found, ""
            place = page.after
        return found, write_cursor(place)


def cursor_after(published: Sequence[ListedPublication]) -> str:
    """The cursor of a page that ends with this name. Those that were found after it are found again."""
    return write_cursor(published[0].place)


def is_listed(item: Mapping[str, Any], published: DatasetPublications | None) -> bool:
    """Whether an item of the list belongs into the list of datasets, by a publication of its name; with None, into the
    list of models."""
    types = hub_types(item["kind"])
    if published is None:
        return types[0] != HUB_DATASETS
    own = published.get(fold_name(item["id"]), ()) if types[0] == HUB_DATASETS else ()
    return any(each.kind == item["kind"] and each.artifact.startswith(item["_id"]) for each in own)
