"""Lineage: artifacts and what they were made from, as a graph of claims, each with whose word it is.

Built from what is proven to be somebody's word: `published` statements, which name parents, and `derived` ones, whose
signers made the child's weights again. A parent that nobody here describes is in the graph as missing. Parents named
by digest are edges between digests; a parent named by name alone is a node of its own, since what a name means is
decided elsewhere and changes.

Strangers write what is read here: nodes, edges and depth are bounded, what was cut off is said, and a circle ends where
it closes. Source: protocol, section 5.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from comity.trust.digest import Digest, short
from comity.trust.licences import Fit, fit
from comity.trust.statements.derived import Derived, Extent

MAX_NODES: Final = 256
MAX_DEPTH: Final = 32
MAX_EDGES: Final = 1024

Key: TypeAlias = str
"""`sha256:<digest>`, or `name:<name>` of a parent that is named without one."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What one publisher says about an artifact: its name and licence, and its parents as (relation, name, digest)."""

    publisher: Digest
    by: str
    name: str
    licence: str
    parents: tuple[tuple[str, str, Digest | None], ...]
    line: Digest


@dataclass(frozen=True, slots=True)
class Word:
    """A `derived` statement, and how its signer is called here."""

    by: str
    derived: Derived
    line: Digest


@dataclass(frozen=True, slots=True)
class Found:
    """What a comparison on this machine found: as a `derived` statement says it, but nobody's word."""

    exact: bool
    tensors: Extent
    steps: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Known:
    """What is proven to be said about one artifact: by publishers, and by those who made its weights again."""

    claims: tuple[Claim, ...] = ()
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """An artifact. `licences` are what its claimants say, each once; `missing` where no claim about it is here."""

    key: Key
    digest: Digest | None
    title: str
    publishers: tuple[str, ...]
    licences: tuple[str, ...]
    depth: int
    missing: bool

    @property
    def licence(self) -> str | None:
        """The one licence that all claim; None where there is none, or they differ."""
        return self.licences[0] if len(self.licences) == 1 else None


@dataclass(frozen=True, slots=True)
class Edge:
    """`child` was made from `parent`, as some say.

    Args:
        relations: what publishers call it (`finetune`, …), or signers of `derived` statements where no publisher does.
        claimed_by: publishers who claim it, each with the digest of the line; empty where only a `derived` statement
            does.
        words: who signed that they derived it, and what they found.
        closes: it leads back to where the path came from.
        licence: how the child's licence fits the parent's.
        here: what a comparison on this machine found, if there was one.
    """

    child: Key
    parent: Key
    relations: tuple[str, ...]
    claimed_by: tuple[tuple[str, Digest], ...]
    words: tuple[Word, ...]
    closes: bool
    licence: Fit
    here: Found | None = None

    @property
    def basis(self) -> str:
        """`here` re-derived on this machine, `signed` re-derived by somebody else, `claimed` said by its publisher."""
        if self.here is not None and self.here.exact:
            return "here"
        return "signed" if any(word.derived.exact for word in self.words) else "claimed"


@dataclass(frozen=True, slots=True)
class Graph:
    """Breadth first from the root, which is the first node; `cut` says what was left away, empty where nothing was."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    cut: str = ""

    @property
    def root(self) -> Node:
        return self.nodes[0]

    def node(self, key: Key) -> Node:
        return next(node for node in self.nodes if node.key == key)

    @property
    def missing(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.missing)

    @property
    def conflicts(self) -> tuple[tuple[Node, Node, Fit], ...]:
        """(child, parent or farther ancestor of the root, why): edges, and the root against all that it comes from."""
        found = {(edge.child, edge.parent): edge.licence for edge in self.edges}
        for node in self.nodes[1:]:
            found.setdefault((self.root.key, node.key), _fit(self.root, node))
        by_key = {node.key: node for node in self.nodes}
        return tuple(
            (by_key[child], by_key[parent], licence)
            for (child, parent), licence in found.items()
            if licence.answer == "conflict"
        )

    def checked(self, child: Digest, parent: Digest, found: Found) -> Graph:
        """This graph, with what a comparison on this machine found about one edge."""
        pair = key_of(child), key_of(parent)
        edges = (replace(edge, here=found) if (edge.child, edge.parent) == pair else edge for edge in self.edges)
        return replace(self, edges=tuple(edges))


def build(root: Digest, known: Callable[[Digest], Known], title: str = "") -> Graph:
    """The graph of all that `root` comes from.

    Args:
        known: what is proven to be said about an artifact; asked once for each in the graph.
        title: what to call the root where nobody published it.
    """
    growing = _Growing(known, title, root)
    waiting = deque([root])
    while waiting:
        waiting.extend(growing.parents_of(waiting.popleft()))
    return Graph(tuple(growing.nodes.values()), tuple(growing.edges), growing.cut)


class _Growing:
    """A graph under construction, within its bounds."""

    def __init__(self, ask: Callable[[Digest], Known], title: str, root: Digest) -> None:
        self._ask = ask
        self._known = {root: ask(root)}
        self._above: dict[Key, set[Key]] = {}
        self.nodes: dict[Key, Node] = {key_of(root): _node(root, self._known[root], title, 0)}
        self.edges: list[Edge] = []
        self.cut = ""

    def parents_of(self, digest: Digest) -> Iterator[Digest]:
        """Add the edges up from `digest`; the parents that were not in the graph before."""
        child = self.nodes[key_of(digest)]
        for said in _parents(self._known[digest]):
            if len(self.edges) >= MAX_EDGES:
                self.cut = f"more than {MAX_EDGES} edges"
                return
            if said.key not in self.nodes:
                if len(self.nodes) >= MAX_NODES or child.depth >= MAX_DEPTH:
                    self.cut = f"more than {MAX_NODES} artifacts, or {MAX_DEPTH} generations"
                    continue
                known = Known()
                if said.digest:
                    known = self._known[said.digest] = self._ask(said.digest)
                    yield said.digest
                self.nodes[said.key] = _node(said.digest, known, said.name, child.depth + 1)
            closes = _leads_to(said.key, child.key, self._above)
            if not closes:
                self._above.setdefault(child.key, set()).add(said.key)
            self.edges.append(said.edge(child, self.nodes[said.key], closes))


@dataclass(slots=True)
class _Said:
    """What is said about one parent of one artifact."""

    key: Key
    digest: Digest | None
    name: str = ""
    relations: dict[str, None] = field(default_factory=dict)
    claimed_by: dict[tuple[str, Digest], None] = field(default_factory=dict)
    words: list[Word] = field(default_factory=list)

    def edge(self, child: Node, parent: Node, closes: bool) -> Edge:
        relations = self.relations or dict.fromkeys(word.derived.relation for word in self.words)
        licence = _fit(child, parent)
        return Edge(child.key, parent.key, tuple(relations), tuple(self.claimed_by), tuple(self.words), closes, licence)


def _parents(known: Known) -> Iterable[_Said]:
    """Each parent once: those that publishers name, then those that only a `derived` statement does."""
    said: dict[Key, _Said] = {}
    for claim in known.claims:
        for relation, name, digest in claim.parents:
            key = key_of(digest) if digest else f"name:{name}"
            parent = said.setdefault(key, _Said(key, digest, name))
            parent.relations[relation] = parent.claimed_by[claim.by, claim.line] = None
    for word in known.words:
        digest = word.derived.parent
        said.setdefault(key_of(digest), _Said(key_of(digest), digest)).words.append(word)
    return said.values()


def _node(digest: Digest | None, known: Known, name: str, depth: int) -> Node:
    claims = known.claims
    title = claims[0].name if claims else name or (f"sha256:{short(digest)}" if digest else "")
    publishers = tuple(dict.fromkeys(claim.by for claim in claims))
    licences = tuple({claim.licence.lower(): claim.licence for claim in claims}.values())
    key = key_of(digest) if digest else f"name:{name}"
    return Node(key, digest, title, publishers, licences, depth, not claims)


def _fit(child: Node, parent: Node) -> Fit:
    if parent.missing or child.missing:
        return Fit("unknown", "one side's licence is not here")
    if child.licence is None or parent.licence is None:
        return Fit("unknown", "its publishers claim different licences")
    return fit(child.licence, parent.licence)


def _leads_to(start: Key, goal: Key, above: Mapping[Key, set[Key]]) -> bool:
    """Whether `goal` is `start`, or among what it comes from."""
    seen, waiting = {start}, [start]
    while waiting:
        here = waiting.pop()
        if here == goal:
            return True
        more = above.get(here, set()) - seen
        seen |= more
        waiting.extend(more)
    return False


def key_of(digest: Digest) -> Key:
    """The key of an artifact that is known by its digest."""
    return f"sha256:{digest}"
