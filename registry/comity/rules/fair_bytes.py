"""Items of several authors within a number of bytes: the author with most bytes gives way.

Where all of them do not fit, the author whose items have the most bytes loses its last one, until the rest fits. So an
author whose items have no more bytes than an equal share loses none, however long those of others are. Source:
protocol, section 9.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from comity.rules.precedence import Said
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen

T = TypeVar("T")


@frozen
class _Taken(Generic[T]):
    number: int
    said: Said[T]
    size: int


class FairBytes(Generic[T]):
    """Items of several authors that have at most `most` bytes together. Not thread-safe.

    Attributes:
        size: bytes of the items.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = 0
        self._numbers = itertools.count()
        self._known = set[tuple[Hashable, Hashable]]()
        self._taken: dict[Digest, list[_Taken[T]]] = {}
        self._sizes = Counter[Digest]()
        self._left_out: dict[Digest, set[Hashable]] = {}

    def __len__(self) -> int:
        """The number of items."""
        return sum(map(len, self._taken.values()))

    def add(self, said: Said[T], size: int, each: int | None = None) -> None:
        """Take an item, if there is none of this statement in this place. An author that lost one gets no later ones.

        Args:
            size: bytes of the item.
            each: bytes of all items of this author, of which the first may have more.
        """
        if (said.place, said.statement) in self._known:
            return
        self._known.add((said.place, said.statement))
        before = self._sizes[said.author]
        if said.author in self._left_out or (each is not None and before and before + size > each):
            self._leave_out(said)
            return
        self._taken.setdefault(said.author, []).append(_Taken(next(self._numbers), said, size))
        self._sizes[said.author] += size
        self.size += size
        while self.size > self.most:
            self._shorten(max(self._sizes, key=self._sizes.__getitem__))

    @property
    def found(self) -> Iterator[tuple[Digest, T]]:
        """Authors and items, in the order in which they were added."""
        taken = itertools.chain(*self._taken.values())
        return ((each.said.author, each.said.item) for each in sorted(taken, key=lambda each: each.number))

    @property
    def cut(self) -> frozenset[Digest]:
        """Authors of whom a statement is left out; not those of whom there are only fewer copies of one."""
        return frozenset(author for author, lost in self._left_out.items() if lost - self._statements_of(author))

    def _statements_of(self, author: Digest) -> set[Hashable]:
        return {each.said.statement for each in self._taken.get(author, ())}

    def _shorten(self, author: Digest) -> None:
        last = self._taken[author].pop()
        self._sizes[author] -= last.size
        self.size -= last.size
        self._leave_out(last.said)

    def _leave_out(self, said: Said[T]) -> None:
        self._left_out.setdefault(said.author, set()).add(said.statement)
