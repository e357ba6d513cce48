"""Lineage: the graph of artifacts and their parents, built from verified statements, and a licence compatibility table.

A `published` statement names parents and counts if the publisher's keys signed it. If the policy names a publisher for
a namespace, only that publisher's statements about artifacts of the namespace count, so that others who publish the
same bytes under other terms change nothing. If the policy names no publisher of an ancestor, statements under the
namespace by which its child names it come before all others, for the same reason. A `derived` statement counts if
signed by the keys of an identity whose inception is among the claims, of a member, or of a bound node. Anybody may sign
one about any two artifacts: alone it adds an edge that is shown, and decides nothing (`claimed_lineage`).

A parent without a statement is in the graph as missing. A parent named without a digest is a separate node, because
names resolve elsewhere and change. Input is untrusted: nodes, edges and depth are limited, truncation is reported, and
a path ends where it closes a cycle. Source: protocol, section 5.

The licence table is small and conservative; it is not legal advice. It sorts SPDX expressions of one licence into
families by their conditions for derived works. All other expressions (other licences, `other`, AND, OR, WITH) are
unknown, and an unknown licence never fits.

    permissive      requires attribution at most
    share-alike     derived works must have the same licence
    non-commercial  derived works must not be used commercially either
    no-derivatives  derived works must not be distributed
    terms           an agreement with use restrictions that must be passed on

Sources: the texts of the licences; identifiers of the SPDX list, and those of the Hub if SPDX has none.
"""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from comity.trust.bound_nodes import BoundNode
from comity.trust.claims import KnownAuthor, KnownAuthors, ParsedClaims, Publication, in_turn, prove_each, unsigned_note
from comity.trust.encoding import Digest, short
from comity.trust.evidence import Remark
from comity.trust.frozen import frozen
from comity.trust.policy import Policy
from comity.trust.statement import Entry
from comity.trust.statement_kinds import DERIVED, PUBLISHED
from comity.trust.statements import Derived, Extent, Published

Answer = Literal["fits", "conflict", "unknown"]

_FAMILIES: Final[Mapping[str, str]] = {
    "permissive": "0BSD AFL-3.0 Apache-2.0 Artistic-2.0 BSD-2-Clause BSD-3-Clause BSD-3-Clause-Clear BSL-1.0 CC-BY-2.0 "
    "CC-BY-3.0 CC-BY-4.0 CC0-1.0 CDLA-Permissive-1.0 CDLA-Permissive-2.0 ECL-2.0 ISC MIT MIT-0 MS-PL NCSA OpenMDW "
    "OpenMDW-1.0 PDDL-1.0 PostgreSQL Unlicense WTFPL Zlib",
    "share-alike": "AGPL-3.0 AGPL-3.0-only AGPL-3.0-or-later CC-BY-SA-3.0 CC-BY-SA-4.0 EPL-2.0 EUPL-1.1 EUPL-1.2 "
    "GPL-2.0 GPL-2.0-only GPL-2.0-or-later GPL-3.0 GPL-3.0-only GPL-3.0-or-later LGPL-2.1 LGPL-2.1-only "
    "LGPL-2.1-or-later LGPL-3.0 LGPL-3.0-only LGPL-3.0-or-later MPL-2.0 ODbL-1.0 OSL-3.0",
    "non-commercial": "CC-BY-NC-2.0 CC-BY-NC-3.0 CC-BY-NC-4.0 CC-BY-NC-SA-2.0 CC-BY-NC-SA-3.0 CC-BY-NC-SA-4.0",
    "no-derivatives": "CC-BY-ND-4.0 CC-BY-NC-ND-3.0 CC-BY-NC-ND-4.0",
    "terms": "bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m creativeml-openrail-m gemma llama2 "
    "llama3 llama3.1 llama3.2 llama3.3 llama4 openrail openrail++ apple-amlr deepfloyd-if-license intel-research",
}
FAMILY: Final[Mapping[str, str]] = {name.lower(): kind for kind, names in _FAMILIES.items() for name in names.split()}


@frozen
class LicenceFit:
    """Whether the child's licence fits the parent's, and the reason in one clause."""

    answer: Answer
    why: str


def licence_fit(child: str, parent: str) -> LicenceFit:
    """Whether a work under `child` may be derived from a work under `parent`; both are SPDX expressions."""
    child_family, parent_family = FAMILY.get(child.lower()), FAMILY.get(parent.lower())
    if parent_family is None:
        return LicenceFit("unknown", f"{parent} is not in the table")
    if parent_family == "no-derivatives":
        return LicenceFit("conflict", f"{parent} does not allow distribution of derived works")
    if child.lower() == parent.lower():
        return LicenceFit("fits", "the same licence")
    if parent_family == "permissive":
        return LicenceFit("fits", f"{parent} requires attribution at most") if child_family else _not_listed(child)
    if child_family is None:
        return _not_listed(child)
    return _fit_with_conditions(child, child_family, parent, parent_family)


def _fit_with_conditions(child: str, child_family: str, parent: str, parent_family: str) -> LicenceFit:
    """The fit if the parent's licence has conditions for derived works, and the child's licence is a different one."""
    condition = {
        "share-alike": f"{parent} requires the same licence for derived works",
        "non-commercial": f"{parent} forbids commercial use",
        "terms": f"the terms of {parent} must be passed on",
    }[parent_family]
    if child_family == "permissive":
        return LicenceFit("conflict", f"{condition}; {child} does not meet this")
    if parent_family == "non-commercial":
        if child_family == "non-commercial":
            return LicenceFit("unknown", f"{condition}, and so does {child}; the table does not say if it is enough")
        if child_family == "share-alike":
            return LicenceFit("conflict", f"{condition}; {child} does not meet this")
    return LicenceFit("unknown", f"{condition}; the table does not say if {child} meets this")


def _not_listed(child: str) -> LicenceFit:
    return LicenceFit("unknown", f"{child} is not in the table")


MAX_NODES: Final = 256
MAX_DEPTH: Final = 32
MAX_EDGES: Final = 1024

ArtifactKey: TypeAlias = str
"""`sha256:<digest>`, or `name:<name>` of a parent without a digest."""


@frozen
class PublicationClaim:
    """One publisher's claims about an artifact: name, licence, and parents as (relation, name, digest).

    `by` is the publisher for display; `line` the digest of the statement's line.
    """

    publisher: Digest
    by: str
    name: str
    licence: str
    parents: tuple[tuple[str, str, Digest | None], ...]
    line: Digest


@frozen
class DerivationClaim:
    """A `derived` statement with the signer for display and the digest of the line."""

    by: str
    derived: Derived
    line: Digest


@frozen
class LocalComparison:
    """The result of a comparison on this machine, as in a `derived` statement, but not signed."""

    exact: bool
    tensors: Extent
    steps: Mapping[str, int]


@frozen
class ArtifactClaims:
    """The verified statements about one artifact: `claims` of publishers, and `derivations`."""

    claims: tuple[PublicationClaim, ...] = ()
    derivations: tuple[DerivationClaim, ...] = ()


@frozen
class LineageNode:
    """An artifact. `licences` are the distinct claimed licences; `missing` if there is no claim about the artifact."""

    key: ArtifactKey
    digest: Digest | None
    title: str
    publishers: tuple[str, ...]
    licences: tuple[str, ...]
    depth: int
    missing: bool

    @property
    def licence(self) -> str | None:
        """The licence that all publishers claim; None if there is none, or if the claims differ."""
        return self.licences[0] if len(self.licences) == 1 else None


@frozen
class LineageEdge:
    """The claim that `child` was made from `parent`.

    Args:
        relations: the relations that publishers claim (`finetune`, …), or else those of `derived` statements.
        claimed_by: publishers who claim the edge, each with the digest of the line; empty if only a `derived` statement
            does.
        derivations: the `derived` statements for this edge.
        closes_cycle: the edge leads back to an artifact on its own path.
        licence: whether the child's licence fits the parent's.
        comparison: the result of a comparison on this machine, if there was one.
    """

    child: ArtifactKey
    parent: ArtifactKey
    relations: tuple[str, ...]
    claimed_by: tuple[tuple[str, Digest], ...]
    derivations: tuple[DerivationClaim, ...]
    closes_cycle: bool
    licence: LicenceFit
    comparison: LocalComparison | None = None

    @property
    def basis(self) -> str:
        """`here`: derived exactly on this machine; `signed`: by the signer of a statement; `claimed`: not derived."""
        if self.comparison is not None and self.comparison.exact:
            return "here"
        return "signed" if any(claim.derived.exact for claim in self.derivations) else "claimed"


@frozen
class LineageGraph:
    """Nodes breadth first from the root. `truncation` says which limit was exceeded; empty if the graph is complete."""

    nodes: tuple[LineageNode, ...]
    edges: tuple[LineageEdge, ...]
    truncation: str = ""

    @property
    def root(self) -> LineageNode:
        return self.nodes[0]

    def node(self, key: ArtifactKey) -> LineageNode:
        return next(node for node in self.nodes if node.key == key)

    @property
    def missing(self) -> tuple[LineageNode, ...]:
        return tuple(node for node in self.nodes if node.missing)

    @property
    def conflicts(self) -> tuple[tuple[LineageNode, LineageNode, LicenceFit], ...]:
        """Licence conflicts as (child, ancestor, reason): of every edge, and of the root with all its ancestors."""
        fits = {(edge.child, edge.parent): edge.licence for edge in self.edges}
        for node in self.nodes[1:]:
            fits.setdefault((self.root.key, node.key), _node_fit(self.root, node))
        by_key = {node.key: node for node in self.nodes}
        return tuple(
            (by_key[child], by_key[parent], licence)
            for (child, parent), licence in fits.items()
            if licence.answer == "conflict"
        )

    def with_comparison(self, child: Digest, parent: Digest, found: LocalComparison) -> LineageGraph:
        """This graph, with the result of a comparison on this machine for one edge."""
        pair = artifact_key(child), artifact_key(parent)
        edges = (replace(edge, comparison=found) if (edge.child, edge.parent) == pair else edge for edge in self.edges)
        return replace(self, edges=tuple(edges))


def build_graph(root: Digest, claims_of: Callable[[Digest], ArtifactClaims], title: str = "") -> LineageGraph:
    """The graph of all ancestors of `root`.

    Args:
        claims_of: returns the verified statements about an artifact; called once per artifact.
        title: name of the root if no publisher names it.
    """
    builder = _GraphBuilder(claims_of, title, root)
    queue = deque([root])
    while queue:
        queue.extend(builder.add_parents(queue.popleft()))
    return LineageGraph(tuple(builder.nodes.values()), tuple(builder.edges), builder.truncation)


class _GraphBuilder:
    """A graph under construction, within the limits."""

    def __init__(self, claims_of: Callable[[Digest], ArtifactClaims], title: str, root: Digest) -> None:
        self._claims_of = claims_of
        self._claims = {root: claims_of(root)}
        self._parents: dict[ArtifactKey, set[ArtifactKey]] = {}
        self.nodes: dict[ArtifactKey, LineageNode] = {artifact_key(root): _node(root, self._claims[root], title, 0)}
        self.edges: list[LineageEdge] = []
        self.truncation = ""

    def add_parents(self, digest: Digest) -> Iterator[Digest]:
        """Add the edges from `digest` to its parents. Yields the parents that are new in the graph."""
        child = self.nodes[artifact_key(digest)]
        for parent in _parents(self._claims[digest]):
            if len(self.edges) >= MAX_EDGES:
                self.truncation = f"more than {MAX_EDGES} edges"
                return
            if parent.key not in self.nodes:
                if len(self.nodes) >= MAX_NODES or child.depth >= MAX_DEPTH:
                    self.truncation = f"more than {MAX_NODES} artifacts, or {MAX_DEPTH} generations"
                    continue
                claims = ArtifactClaims()
                if parent.digest:
                    claims = self._claims[parent.digest] = self._claims_of(parent.digest)
                    yield parent.digest
                self.nodes[parent.key] = _node(parent.digest, claims, parent.name, child.depth + 1)
            closes_cycle = _is_ancestor(child.key, parent.key, self._parents)
            if not closes_cycle:
                self._parents.setdefault(child.key, set()).add(parent.key)
            self.edges.append(parent.edge(child, self.nodes[parent.key], closes_cycle))


@dataclass(slots=True)
class _ParentClaims:
    """The claims about one parent of one artifact."""

    key: ArtifactKey
    digest: Digest | None
    name: str = ""
    relations: dict[str, None] = field(default_factory=dict)
    claimed_by: dict[tuple[str, Digest], None] = field(default_factory=dict)
    derivations: list[DerivationClaim] = field(default_factory=list)

    def edge(self, child: LineageNode, parent: LineageNode, closes_cycle: bool) -> LineageEdge:
        return LineageEdge(
            child=child.key,
            parent=parent.key,
            relations=tuple(self.relations or dict.fromkeys(claim.derived.relation for claim in self.derivations)),
            claimed_by=tuple(self.claimed_by),
            derivations=tuple(self.derivations),
            closes_cycle=closes_cycle,
            licence=_node_fit(child, parent),
        )


def _parents(claims: ArtifactClaims) -> Iterable[_ParentClaims]:
    """Each parent once: first those that publishers name, then those named only by a `derived` statement."""
    parents: dict[ArtifactKey, _ParentClaims] = {}
    for claim in claims.claims:
        for relation, name, digest in claim.parents:
            key = artifact_key(digest) if digest else f"name:{name}"
            parent = parents.setdefault(key, _ParentClaims(key, digest, name))
            parent.relations[relation] = parent.claimed_by[claim.by, claim.line] = None
    for derivation in claims.derivations:
        digest = derivation.derived.parent
        key = artifact_key(digest)
        parents.setdefault(key, _ParentClaims(key, digest)).derivations.append(derivation)
    return parents.values()


def _node(digest: Digest | None, known: ArtifactClaims, name: str, depth: int) -> LineageNode:
    claims = known.claims
    title = claims[0].name if claims else name or (f"sha256:{short(digest)}" if digest else "")
    publishers = tuple(dict.fromkeys(claim.by for claim in claims))
    licences = tuple({claim.licence.lower(): claim.licence for claim in claims}.values())
    key = artifact_key(digest) if digest else f"name:{name}"
    return LineageNode(key, digest, title, publishers, licences, depth, not claims)


def _node_fit(child: LineageNode, parent: LineageNode) -> LicenceFit:
    if parent.missing or child.missing:
        return LicenceFit("unknown", "the licence of one artifact is missing")
    if child.licence is None or parent.licence is None:
        return LicenceFit("unknown", "publishers claim different licences")
    return licence_fit(child.licence, parent.licence)


def _is_ancestor(key: ArtifactKey, of: ArtifactKey, parents: Mapping[ArtifactKey, set[ArtifactKey]]) -> bool:
    """Whether `key` is `of`, or one of its ancestors."""
    seen, queue = {of}, [of]
    while queue:
        current = queue.pop()
        if current == key:
            return True
        added = parents.get(current, set()) - seen
        seen |= added
        queue.extend(added)
    return False


def artifact_key(digest: Digest) -> ArtifactKey:
    """The key of an artifact with this digest."""
    return f"sha256:{digest}"


MAX_STATEMENTS: Final = 16
"""Limit per artifact of proven `published` statements, and of proven `derived` statements. Those of publishers that
the policy names, and derivations of members of pinned bodies and of their nodes, come first, one of each in turn."""


def lineage_of(
    parsed: ParsedClaims, artifact: Digest, chosen: Publication | None, policy: Policy, bound: Iterable[BoundNode]
) -> tuple[LineageGraph, tuple[Remark, ...]]:
    """The lineage graph of `artifact`, and remarks on `derived` statements that are not proven.

    Args:
        chosen: the publication of `artifact` to use; None if there is none.
    """
    index = _StatementIndex(parsed, policy, tuple(bound))
    graph = build_graph(
        artifact, lambda digest: ArtifactClaims(index.claims(digest, artifact, chosen), index.derivations(digest))
    )
    return graph, tuple(index.refused)


def claimed_lineage(parsed: ParsedClaims, artifact: Digest, chosen: Publication | None, policy: Policy) -> LineageGraph:
    """The graph of the parents that publishers name, without what others say that they derived.

    Args:
        chosen: the publication of `artifact` to use; None if there is none.
    """
    index = _StatementIndex(parsed, policy, ())
    return build_graph(artifact, lambda digest: ArtifactClaims(index.claims(digest, artifact, chosen)))


class _StatementIndex:
    """The statements by predicate and artifact; signatures are verified on request."""

    def __init__(self, parsed: ParsedClaims, policy: Policy, bound: tuple[BoundNode, ...]) -> None:
        self._parsed = parsed
        self._policy = policy
        self._authors = KnownAuthors(parsed, bound, [member for body in policy.pins for member in body.members])
        self._entries: dict[tuple[str, Digest], list[Entry]] = {}
        self._named = defaultdict[Digest, set[str]](set)
        """By artifact, the namespaces under which the publishers of its children name it, in lower case."""
        self.refused: list[Remark] = []
        for entry in sorted(parsed.entries, key=lambda entry: entry.digest):
            self._entries.setdefault((entry.statement.predicate, entry.statement.subject), []).append(entry)

    def claims(self, artifact: Digest, root: Digest, chosen: Publication | None) -> tuple[PublicationClaim, ...]:
        """What publishers claim about an artifact; about the `root`, what `chosen` claims. Its children come first."""
        own = (_publication_claim(chosen),) if chosen else ()
        found = own if artifact == root else self._ancestor_claims(artifact)
        for claim in found:
            for _, name, digest in claim.parents:
                if digest:
                    self._named[digest].add(namespace_of(name))
        return found

    def _ancestor_claims(self, artifact: Digest) -> tuple[PublicationClaim, ...]:
        """What the first of these publications claim that are proven."""
        ranked = rank_publications(self._entries.get((PUBLISHED, artifact), []), self._named[artifact], self._policy)
        return next(filter(None, map(self._first_claims, ranked)), ())

    def _first_claims(self, entries: Iterable[Entry]) -> tuple[PublicationClaim, ...]:
        """What the first of these statements that verify claim."""
        proven = (publication for entry in entries if (publication := self._parsed.publication(entry)) is not None)
        return tuple(map(_publication_claim, itertools.islice(proven, MAX_STATEMENTS)))

    def derivations(self, artifact: Digest) -> tuple[DerivationClaim, ...]:
        """What proven authors say that the artifact was derived from."""
        found, refused = prove_each(self._entries.get((DERIVED, artifact), []), self._prove_derivation)
        self.refused += refused
        return tuple(in_turn(said for _, said in found)[:MAX_STATEMENTS])

    def _prove_derivation(self, entry: Entry) -> tuple[KnownAuthor, DerivationClaim] | Remark:
        derived, author = Derived.parse(entry.statement), self._authors.author_of(entry)
        if author is None:
            return unsigned_note(entry, derived.by.id)
        return author, DerivationClaim(author.name, derived, entry.digest)


def rank_publications(
    published: Iterable[Entry], names: Collection[str], policy: Policy
) -> tuple[list[Entry], list[Entry], list[Entry]]:
    """The `published` statements about an ancestor, by whose they are: of publishers whom the policy names; under the
    names that children give; of anybody. The ancestor is described by the first of these that have a proven statement,
    and by at most `MAX_STATEMENTS` of them, in the order of the digests of their lines.

    Args:
        names: the namespaces under which the publishers of children name the ancestor, as `namespace_of` gives them.
    """
    by_policy, by_child, others = list[Entry](), list[Entry](), list[Entry]()
    for entry in sorted(published, key=lambda entry: entry.digest):
        is_named = _is_named_publisher(entry, policy)
        if is_named:
            by_policy.append(entry)
        elif is_named is None:
            (by_child if namespace_of(entry.statement.subjects[0].name) in names else others).append(entry)
    return by_policy, by_child, others


def _is_named_publisher(entry: Entry, policy: Policy) -> bool | None:
    """Whether the policy names the author, for the namespace of the statement or in general; None if it names nobody
    for that namespace."""
    author = entry.statement.by.id if entry.statement.by else None
    if author in policy.publishers:
        return True
    bound = policy.bound_publisher(namespace_of(entry.statement.subjects[0].name))
    return None if bound is None else bound == author


def namespace_of(name: str) -> str:
    """The namespace of a name, in lower case: case is ignored, as on the Hub."""
    return name.partition("/")[0].lower()


def _publication_claim(publication: Publication) -> PublicationClaim:
    published: Published = publication.published
    parents = tuple((parent.relation, parent.name, parent.digest) for parent in published.lineage)
    by = f"{publication.publisher.display} [{published.by[:12]}]"
    line = publication.entry.digest
    return PublicationClaim(published.by, by, str(published.name), published.licence.spdx, parents, line)
