"""Whose statements are read first, where more were made than are read. The one rule for every list with a limit.

    named     those whom the reader names, the publisher of an artifact, the owner of an identity: each for itself
    members   members of the federation, their nodes, and publishers to whom the charter binds a namespace
    others    everybody else: in turn over the places where they spoke, and there over the authors

Statements of named authors and of members come apart and first, so that no number of statements of others displaces
one of them. Anybody can become a named author of an artifact: who publishes the same bytes. So each of the two groups
is sure of half of the places, and gets what the other one leaves; within a group the authors take turns, and copies of
statements in other places come after the statements of everybody. An author can then displace only its own. What a
bound left out is part of the result: a reader that needs all statements of an author knows that it does not have them.
Source: protocol, section 9.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final, Generic, TypeVar

from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.trust.turns import in_turns

T = TypeVar("T")

NAMED: Final = 0
MEMBERS: Final = 1
OTHERS: Final = 2


@frozen
class Precedence:
    """Authors by group: ids of identities and of nodes."""

    named: frozenset[Digest] = frozenset()
    members: frozenset[Digest] = frozenset()

    def group(self, author: Digest) -> int:
        """NAMED, MEMBERS or OTHERS."""
        return NAMED if author in self.named else MEMBERS if author in self.members else OTHERS

    def naming(self, authors: Iterable[Digest]) -> Precedence:
        """This precedence with more named authors."""
        return Precedence(self.named | frozenset(authors), self.members)


@frozen
class Bounds:
    """How many statements are read: of each named author, of each member or node, of all others together (if more were
    read of the first two groups, as many as of these; with 0 none). `total` bounds what is read of all together: of an
    author also copies in other places, at most as many as statements."""

    named: int = 128
    member: int = 16
    others: int = 32
    total: int = 5_000

    @classmethod
    def within(cls, total: int) -> Bounds:
        """Bounds for a list of at most `total`, at least 1, in which the others have what is left."""
        return cls(max(1, total // 2), max(1, total // 8), total, total)

    def of_group(self, group: int) -> int:
        """The bound of one author of a group."""
        return self.named if group == NAMED else self.member if group == MEMBERS else self.total


@frozen
class Said(Generic[T]):
    """A statement where it was read. `statement` is the same for copies of one statement; `place` is where it was said,
    such as a log."""

    author: Digest
    statement: Hashable
    place: Hashable
    item: T


@frozen
class Selection(Generic[T]):
    """What is read: of named authors and members, then of others. `cut` are the named authors and members who said more
    than that; `more_others`: so did others."""

    first: tuple[T, ...]
    others: tuple[T, ...] = ()
    cut: frozenset[Digest] = frozenset()
    more_others: bool = False

    @property
    def found(self) -> tuple[T, ...]:
        return self.first + self.others

    @property
    def limited(self) -> bool:
        return bool(self.cut) or self.more_others


def select(said: Sequence[Said[T]], precedence: Precedence, bounds: Bounds) -> Selection[T]:
    """Choose what is read.

    Args:
        said: statements, those of one author in the order in which they are read; copies of one statement count once.
    """
    groups: list[list[Said[T]]] = [[], [], []]
    for each in said:
        groups[precedence.group(each.author)].append(each)
    first = _first(groups, bounds)
    cut = frozenset(_left_out([*groups[NAMED], *groups[MEMBERS]], first))
    if not bounds.others:
        return Selection(_items(first), (), cut)
    ordered = in_turns(groups[OTHERS], lambda each: each.place, _author)
    most = min(max(bounds.others, len({each.statement for each in first})), bounds.total - len(first))
    others = _first_statements(ordered, most, min(2 * most, bounds.total - len(first)))
    left = len({each.statement for each in ordered}) > len({each.statement for each in others})
    return Selection(_items(first), _items(others), cut, left)


def _author(said: Said[T]) -> Digest:
    return said.author


def _items(said: Iterable[Said[T]]) -> tuple[T, ...]:
    return tuple(each.item for each in said)


def _first(groups: Sequence[Sequence[Said[T]]], bounds: Bounds) -> list[Said[T]]:
    """What is read of named authors, and then of members: of each group the statements, and then copies of these."""
    kept: tuple[list[Said[T]], list[Said[T]]] = [], []
    bounded = [_bounded(groups[group], bounds.of_group(group)) for group in (NAMED, MEMBERS)]
    for named, members in zip(*bounded, strict=True):
        sizes = _halves(bounds.total - sum(map(len, kept)), len(named), len(members))
        for group, queue, size in zip(kept, (named, members), sizes, strict=True):
            group += queue[:size]
    return [*kept[NAMED], *kept[MEMBERS]]


def _bounded(said: Iterable[Said[T]], each: int) -> tuple[list[Said[T]], list[Said[T]]]:
    """The first `each` statements of every author, each once, and the first `each` copies of these; authors take
    turns."""
    found: tuple[list[Said[T]], list[Said[T]]] = [], []
    known, numbers = set[tuple[Digest, Hashable]](), Counter[tuple[Digest, bool]]()
    for item in said:
        is_copy = (item.author, item.statement) in known
        if numbers[item.author, is_copy] < each:
            numbers[item.author, is_copy] += 1
            known.add((item.author, item.statement))
            found[is_copy].append(item)
    return in_turns(found[False], _author), in_turns(found[True], _author)


def _halves(total: int, named: int, members: int) -> tuple[int, int]:
    """The places, of `total`, of named authors and of members who said so much: half each, and what the other group
    leaves."""
    of_members = min(members, max(total // 2, total - named))
    return total - of_members, of_members


def _left_out(ordered: Sequence[Said[T]], kept: Sequence[Said[T]]) -> set[Digest]:
    """The authors with a statement that was not kept."""
    there = {(each.author, each.statement) for each in kept}
    return {each.author for each in ordered if (each.author, each.statement) not in there}


def _first_statements(ordered: Iterable[Said[T]], most: int, total: int) -> list[Said[T]]:
    """The items of the first `most` statements, at most `total`."""
    known: dict[Hashable, None] = {}
    kept: list[Said[T]] = []
    for said in ordered:
        if len(kept) >= total:
            break
        if said.statement in known or len(known) < most:
            known.setdefault(said.statement)
            kept.append(said)
    return kept


def newest(said: Sequence[Said[T]], group: Callable[[Said[T]], int], most: int) -> list[Said[T]]:
    """Choose at most `most` statements for a list of the newest ones, each of which is in a group.

    Others are sure of a quarter, named authors and members of half of the rest each; a group gets what another one does
    not use. Within a group, the authors of each place take turns, their newest statements first, so that one with many
    statements displaces its own.

    Args:
        said: statements, the oldest first, as is the result; of the copies of one statement the first is taken.
    """
    once: dict[Hashable, Said[T]] = {}
    for each in said:
        once.setdefault(each.statement, each)
    at = {statement: number for number, statement in enumerate(once)}
    queues: list[list[Said[T]]] = [[], [], []]
    for each in reversed(once.values()):
        queues[group(each)].append(each)
    ordered = [in_turns(queue, lambda each: each.place, _author) for queue in queues]
    others = min(len(ordered[OTHERS]), max(most // 4, most - len(ordered[NAMED]) - len(ordered[MEMBERS])))
    sizes = (*_halves(most - others, len(ordered[NAMED]), len(ordered[MEMBERS])), others)
    kept = [each for queue, size in zip(ordered, sizes, strict=True) for each in queue[:size]]
    return sorted(kept, key=lambda each: at[each.statement])
