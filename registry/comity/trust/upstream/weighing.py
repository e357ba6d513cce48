"""What nodes of pinned members say about where an artifact is from, as far as it is theirs.

Members corroborate one another where their nodes fetched the same bytes under the same commit from the upstream
themselves. Nodes that observed other bytes under that commit contradict them: then somebody is wrong, and nothing here
says who. Only statements that bound nodes signed count, each member once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from comity.trust.charter import Member
from comity.trust.digest import Digest
from comity.trust.errors import ComityError
from comity.trust.judging.witnessing import Bound
from comity.trust.statement import Author, Entry, Statement
from comity.trust.statements.claims import signed_by_node
from comity.trust.upstream.news import CHANGED, GONE, Changed, Gone, parse_changed, parse_gone
from comity.trust.upstream.observed import OBSERVED, Observed

News: TypeAlias = Changed | Gone
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen:
    """An observation that is proven to be a bound node's. A node that several members bind speaks for each."""

    entry: Entry
    observed: Observed
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Mirroring:
    """What is proven about one artifact: who observed it, who observed other bytes under the same commits (`rivals`),
    and what they found when they asked again."""

    seen: tuple[Seen, ...]
    rivals: tuple[Seen, ...]
    news: tuple[tuple[Entry, News, tuple[Member, ...]], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The commits, by name."""
        return tuple(dict.fromkeys(item.observed.upstream.name for item in self.seen))

    def corroborating(self, name: str) -> tuple[Member, ...]:
        """The members whose nodes fetched these bytes under this commit themselves, each once."""
        fetched = (item for item in self.seen if item.observed.fetched and item.observed.upstream.name == name)
        return tuple(dict.fromkeys(member for item in fetched for member in item.members))

    @property
    def corroborated(self) -> int:
        """How many members corroborate one another, for the commit for which most do."""
        return max((len(self.corroborating(name)) for name in self.names), default=0)


def weigh(entries: Iterable[Entry], artifact: Digest, bound: Sequence[Bound]) -> Mirroring:
    """Raises nothing for what the entries hold: what does not verify is left out."""
    nodes: dict[Author, list[Bound]] = {}
    for node in bound:
        nodes.setdefault(node.record.node, []).append(node)
    observations: list[Seen] = []
    news: list[tuple[Entry, News, tuple[Member, ...]]] = []
    for entry in entries:
        predicate = entry.statement.predicate
        if predicate not in (OBSERVED, CHANGED, GONE):
            continue
        members = _speaking(entry, nodes)
        if not members:
            continue
        if predicate == OBSERVED and (observed := _read(Observed.parse, entry.statement)) is not None:
            observations.append(Seen(entry, observed, members))
        reader: Callable[[Statement], News] = parse_changed if predicate == CHANGED else parse_gone
        if predicate != OBSERVED and (said := _read(reader, entry.statement)) is not None and said.artifact == artifact:
            news.append((entry, said, members))
    seen = tuple(item for item in observations if item.observed.artifact == artifact)
    names = {item.observed.upstream.name for item in seen}
    rivals = (s for s in observations if s.observed.artifact != artifact and s.observed.upstream.name in names)
    return Mirroring(seen, tuple(rivals), tuple(news))


def _speaking(entry: Entry, nodes: dict[Author, list[Bound]]) -> tuple[Member, ...]:
    """The members for whom the entry speaks: those that bind the node whose word it is."""
    known = nodes.get(entry.statement.by, []) if entry.statement.by else []
    return tuple(dict.fromkeys(node.member for node in known if signed_by_node(entry, node.record)))


def _read(reader: Callable[[Statement], T], statement: Statement) -> T | None:
    try:
        return reader(statement)
    except ComityError:
        return None
