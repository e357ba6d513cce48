"""The repositories there are, for lists and search: names that somebody proves to claim, read from the ledger's tables.

A name here is a claim. Whoever lists it asks the catalogue what it stands for, and leaves out what stands for nothing.
Names are read in pages and kept nowhere, however many there are.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Final

from comity.ledger.facts import fold
from comity.ledger.ledger import Ledger
from comity.node.core import Core
from comity.trust.names import UPSTREAM

PAGE: Final = 500
"""Names that are read from the ledger at a time."""
LAST: Final = "\U0010ffff"
SCANNED: Final = 20_000
"""Names that one request looks at. A page of a search may come back short, with a cursor to go on from."""


class Shelf:
    """Repository names in order, without case."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def names(
        self, words: str, author: str, after: str, most: int, readable: Callable[[str], bool]
    ) -> tuple[list[str], str]:
        """At most `most` names after `after` that hold every one of `words`, and are `author`'s where one is given; and
        the cursor to go on from, empty at the end.

        Only `readable` names are given or become a cursor, which the reader sees.
        """
        return await self._core.pools.ledger(self._find, words, author, after, most, readable)

    def _find(
        self, words: str, author: str, after: str, most: int, readable: Callable[[str], bool]
    ) -> tuple[list[str], str]:
        wanted, prefix = fold(words).split(), f"{fold(author)}/" if author else ""
        found: list[str] = []
        for scanned, name in enumerate(_all(self._core.ledger, fold(after), prefix), 1):
            if not readable(name):
                continue
            if all(word in name for word in wanted):
                found.append(name)
            if len(found) == most or scanned >= SCANNED:
                return found, name
        return found, ""


def _all(ledger: Ledger, after: str, prefix: str) -> Iterator[str]:
    """Names after `after` that begin with `prefix`, each once, whether published here or mirrored from an upstream."""
    last = ""
    mirrored = (name.removeprefix(UPSTREAM) for name in _named(ledger, UPSTREAM + after, UPSTREAM + prefix))
    for name in heapq.merge(_published(ledger, after, prefix), mirrored):
        if name != last and name > after:
            yield name
        last = name


def _published(ledger: Ledger, after: str, prefix: str) -> Iterator[str]:
    """Names of which none is an upstream's: those stand together in the order, and are passed over at once."""
    for name in _named(ledger, after, prefix):
        if name.startswith(UPSTREAM):
            yield from _named(ledger, UPSTREAM + LAST, prefix)
            return
        yield name


def _named(ledger: Ledger, after: str, prefix: str) -> Iterator[str]:
    while page := ledger.proven.repositories(after, prefix, PAGE):
        yield from page
        after = page[-1]
