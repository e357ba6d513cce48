"""The repositories there are, for lists and search: names that somebody claims, read from the logs as they grow.

A name here is a claim. Whoever lists it asks the catalogue what it stands for, and leaves out what stands for nothing.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable
from typing import Final

from comity.ledger.facts import fold
from comity.node.core import Core
from comity.trust.errors import Malformed
from comity.trust.names import Reference
from comity.trust.statement import parse_entry
from comity.trust.upstream.observed import OBSERVED

MAX_NAMES: Final = 200_000


class Shelf:
    """Names in order, without case. One event loop uses it."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._read = 0
        self._names: dict[str, str] = {}
        self._sorted: list[str] = []
        self._reading = asyncio.Lock()

    async def names(self, words: str, author: str, after: str, most: int, readable: Callable[[str], bool]) -> list[str]:
        """At most `most` names after `after` that hold every one of `words`, and are `author`'s where one is given.

        Only `readable` ones are counted: the last name of a page becomes a cursor, which the reader sees.
        """
        async with self._reading:
            return await self._core.pools.ledger(self._find, words, author, after, most, readable)

    def _find(self, words: str, author: str, after: str, most: int, readable: Callable[[str], bool]) -> list[str]:
        if self._grow():
            self._sorted = sorted(self._names)
        wanted, prefix = fold(words).split(), f"{fold(author)}/" if author else ""
        found = []
        for key in self._sorted[bisect_right(self._sorted, fold(after)) if after else 0 :]:
            if key.startswith(prefix) and all(word in key for word in wanted) and readable(self._names[key]):
                found.append(self._names[key])
                if len(found) == most:
                    break
        return found

    def _grow(self) -> bool:
        """Take in what was published or mirrored since the last look; whether that was anything new."""
        before = len(self._names)
        while page := self._core.ledger.proven.since(self._read, ("published", OBSERVED)):
            self._read = page[-1].number
            for found in page:
                if len(self._names) < MAX_NAMES and (name := _repository(found.line)):
                    self._names.setdefault(fold(name), name)
        return len(self._names) > before


def _repository(line: bytes) -> str:
    try:
        return Reference.parse(parse_entry(line).statement.subjects[0].name).local
    except Malformed:
        return ""
