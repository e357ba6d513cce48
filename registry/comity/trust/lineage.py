"""May what is made from something under one licence stand under another? A small, conservative table; no legal advice.

SPDX expressions of one licence are sorted into families by what they ask of derived works. Everything else (other
licences, `other`, expressions with AND, OR or WITH) is unknown, and unknown is never said to be fine.

    permissive      asks for attribution at most
    share-alike     derived works stand under the same licence
    non-commercial  what is derived may not be used commercially either
    no-derivatives  nothing derived may be given on
    terms           an agreement with use restrictions that has to be passed on

Sources: the licences' own texts; identifiers of the SPDX list, and those that the Hub uses where SPDX has none.


Lineage: artifacts and what they were made from, as a graph of claims, each with whose word it is.

Built from what is proven to be somebody's word: `published` statements, which name parents, and `derived` ones, whose
signers made the child's weights again. A parent that nobody here describes is in the graph as missing. Parents named
by digest are edges between digests; a parent named by name alone is a node of its own, since what a name means is
decided elsewhere and changes.

Strangers write what is read here: nodes, edges and depth are bounded, what was cut off is said, and a circle ends where
it closes. Source: protocol, section 5.


From claims to a lineage graph: who is proven to have said what about an artifact and all that it comes from.

A publication counts by its publisher's keys. Where the owner's trust names a publisher for a namespace, that one's word
about an artifact of this namespace is taken and nobody else's, so that a stranger who publishes the same bytes under
other terms changes nothing. A `derived` statement counts by the keys of an identity whose inception is among the
claims, of a member's seat, or of a bound node.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from comity.trust.claims import BoundNode, KnownAuthors, Publication, Readings
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, Untrusted
from comity.trust.evidence import Remark
from comity.trust.policy import Policy
from comity.trust.statement import Author, Entry
from comity.trust.statements import DERIVED, Derived, Extent, Published, check_published, parse_derived

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


@dataclass(frozen=True, slots=True)
class LicenceFit:
    """Whether a licence fits the one above it, and why in one clause."""

    answer: Answer
    why: str


def fit(child: str, parent: str) -> LicenceFit:
    """Whether something under `child` may be made from something under `parent`, as their SPDX expressions say."""
    below, above = FAMILY.get(child.lower()), FAMILY.get(parent.lower())
    if above is None:
        return LicenceFit("unknown", f"{parent} is not in the table")
    if above == "no-derivatives":
        return LicenceFit("conflict", f"{parent} allows nothing derived to be given on")
    if child.lower() == parent.lower():
        return LicenceFit("fits", "the same licence")
    if above == "permissive":
        return LicenceFit("fits", f"{parent} asks for attribution at most") if below else _not_listed(child)
    if below is None:
        return _not_listed(child)
    return _of_stricter(child, below, parent, above)


def _of_stricter(child: str, below: str, parent: str, above: str) -> LicenceFit:
    """Where the parent's licence asks something of what is derived, and the child's is another one."""
    asks = {
        "share-alike": f"{parent} asks for itself",
        "non-commercial": f"{parent} forbids commercial use",
        "terms": f"the terms of {parent} have to be passed on",
    }[above]
    if below == "permissive":
        return LicenceFit("conflict", f"{asks}, {child} does not")
    if above == "non-commercial":
        if below == "non-commercial":
            return LicenceFit("unknown", f"{asks}, and so does {child}; whether it is enough is not in the table")
        if below == "share-alike":
            return LicenceFit("conflict", f"{asks}, {child} does not")
    return LicenceFit("unknown", f"{asks}; whether {child} does it is not in the table")


def _not_listed(child: str) -> LicenceFit:
    return LicenceFit("unknown", f"{child} is not in the table")


MAX_NODES: Final = 256
MAX_DEPTH: Final = 32
MAX_EDGES: Final = 1024

Key: TypeAlias = str
"""`sha256:<digest>`, or `name:<name>` of a parent that is named without one."""


@dataclass(frozen=True, slots=True)
class ParentClaim:
    """What one publisher says about an artifact: its name and licence, and its parents as (relation, name, digest)."""

    publisher: Digest
    by: str
    name: str
    licence: str
    parents: tuple[tuple[str, str, Digest | None], ...]
    line: Digest


@dataclass(frozen=True, slots=True)
class DerivationClaim:
    """A `derived` statement, and how its signer is called here."""

    by: str
    derived: Derived
    line: Digest


@dataclass(frozen=True, slots=True)
class FoundArtifact:
    """What a comparison on this machine found: as a `derived` statement says it, but nobody's word."""

    exact: bool
    tensors: Extent
    steps: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class KnownClaims:
    """What is proven to be said about one artifact: by publishers, and by those who made its weights again."""

    claims: tuple[ParentClaim, ...] = ()
    words: tuple[DerivationClaim, ...] = ()


@dataclass(frozen=True, slots=True)
class LineageNode:
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
class LineageEdge:
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
    words: tuple[DerivationClaim, ...]
    closes: bool
    licence: LicenceFit
    here: FoundArtifact | None = None

    @property
    def basis(self) -> str:
        """`here` re-derived on this machine, `signed` re-derived by somebody else, `claimed` said by its publisher."""
        if self.here is not None and self.here.exact:
            return "here"
        return "signed" if any(word.derived.exact for word in self.words) else "claimed"


@dataclass(frozen=True, slots=True)
class LineageGraph:
    """Breadth first from the root, which is the first node; `cut` says what was left away, empty where nothing was."""

    nodes: tuple[LineageNode, ...]
    edges: tuple[LineageEdge, ...]
    cut: str = ""

    @property
    def root(self) -> LineageNode:
        return self.nodes[0]

    def node(self, key: Key) -> LineageNode:
        return next(node for node in self.nodes if node.key == key)

    @property
    def missing(self) -> tuple[LineageNode, ...]:
        return tuple(node for node in self.nodes if node.missing)

    @property
    def conflicts(self) -> tuple[tuple[LineageNode, LineageNode, LicenceFit], ...]:
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

    def checked(self, child: Digest, parent: Digest, found: FoundArtifact) -> LineageGraph:
        """This graph, with what a comparison on this machine found about one edge."""
        pair = key_of(child), key_of(parent)
        edges = (replace(edge, here=found) if (edge.child, edge.parent) == pair else edge for edge in self.edges)
        return replace(self, edges=tuple(edges))


def build(root: Digest, known: Callable[[Digest], KnownClaims], title: str = "") -> LineageGraph:
    """The graph of all that `root` comes from.

    Args:
        known: what is proven to be said about an artifact; asked once for each in the graph.
        title: what to call the root where nobody published it.
    """
    growing = _Growing(known, title, root)
    waiting = deque([root])
    while waiting:
        waiting.extend(growing.parents_of(waiting.popleft()))
    return LineageGraph(tuple(growing.nodes.values()), tuple(growing.edges), growing.cut)


class _Growing:
    """A graph under construction, within its bounds."""

    def __init__(self, ask: Callable[[Digest], KnownClaims], title: str, root: Digest) -> None:
        self._ask = ask
        self._known = {root: ask(root)}
        self._above: dict[Key, set[Key]] = {}
        self.nodes: dict[Key, LineageNode] = {key_of(root): _node(root, self._known[root], title, 0)}
        self.edges: list[LineageEdge] = []
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
                known = KnownClaims()
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
    words: list[DerivationClaim] = field(default_factory=list)

    def edge(self, child: LineageNode, parent: LineageNode, closes: bool) -> LineageEdge:
        relations = self.relations or dict.fromkeys(word.derived.relation for word in self.words)
        licence = _fit(child, parent)
        return LineageEdge(
            child.key, parent.key, tuple(relations), tuple(self.claimed_by), tuple(self.words), closes, licence
        )


def _parents(known: KnownClaims) -> Iterable[_Said]:
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


def _node(digest: Digest | None, known: KnownClaims, name: str, depth: int) -> LineageNode:
    claims = known.claims
    title = claims[0].name if claims else name or (f"sha256:{short(digest)}" if digest else "")
    publishers = tuple(dict.fromkeys(claim.by for claim in claims))
    licences = tuple({claim.licence.lower(): claim.licence for claim in claims}.values())
    key = key_of(digest) if digest else f"name:{name}"
    return LineageNode(key, digest, title, publishers, licences, depth, not claims)


def _fit(child: LineageNode, parent: LineageNode) -> LicenceFit:
    if parent.missing or child.missing:
        return LicenceFit("unknown", "one side's licence is not here")
    if child.licence is None or parent.licence is None:
        return LicenceFit("unknown", "its publishers claim different licences")
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


MAX_STATEMENTS: Final = 16
"""Publications, and derivations, of one artifact whose signatures are looked at; those of publishers whom the owner's
trust names come first."""


def lineage_of(
    readings: Readings, artifact: Digest, chosen: Publication | None, policy: Policy, bound: Iterable[BoundNode]
) -> tuple[LineageGraph, tuple[Remark, ...]]:
    """What `artifact` comes from as its publisher says, and notes on derivations of it that are not proven.

    Args:
        chosen: its publication to go by; None where there is none.
    """
    asked = _Asked(readings, policy, tuple(bound))

    def known(digest: Digest) -> KnownClaims:
        claims = asked.claims(digest) if digest != artifact else (_claim(chosen),) if chosen else ()
        return KnownClaims(claims, asked.words(digest))

    graph = build(artifact, known)
    return graph, tuple(
        Remark(f"derived {short(line)} counts for nothing: {why}", line) for line, why in asked.refused.items()
    )


class _Asked:
    """The statements among the claims, by the artifact that they are about; proven when somebody asks for them."""

    def __init__(self, readings: Readings, policy: Policy, bound: tuple[BoundNode, ...]) -> None:
        self._readings = readings
        self._policy = policy
        self._speakers = KnownAuthors(readings, bound, [seat for body in policy.pins for seat in body.members])
        self._entries: dict[tuple[str, Digest], list[Entry]] = {}
        self.refused: dict[Digest, ComityError] = {}
        for entry in sorted(readings.entries, key=lambda entry: entry.digest):
            if entry.statement.predicate in ("published", DERIVED):
                self._entries.setdefault((entry.statement.predicate, entry.statement.subject), []).append(entry)

    def claims(self, artifact: Digest) -> tuple[ParentClaim, ...]:
        entries = self._entries.get(("published", artifact), [])
        entries.sort(key=lambda entry: not self._named(entry.statement.by, entry.statement.subjects[0].name))
        found: list[ParentClaim] = []
        for entry in entries[:MAX_STATEMENTS]:
            with contextlib.suppress(ComityError):  # a stranger's, about an artifact that is not the one judged
                found.append(_claim(_publication(entry, self._readings)))
        named = [claim for claim in found if self._named(Author("identity", claim.publisher), claim.name)]
        return tuple(named or found)

    def words(self, artifact: Digest) -> tuple[DerivationClaim, ...]:
        found: list[DerivationClaim] = []
        for entry in self._entries.get((DERIVED, artifact), [])[:MAX_STATEMENTS]:
            try:
                found.append(_word(entry, self._speakers))
            except ComityError as error:
                self.refused[entry.digest] = error
        return tuple(found)

    def _named(self, by: Author | None, name: str) -> bool:
        """Whether the owner's trust names this publisher, for the namespace of this name or at all."""
        if by is None:
            return False
        return by.id in self._policy.publishers or self._policy.bound_publisher(name.partition("/")[0]) == by.id


def _publication(entry: Entry, readings: Readings) -> Publication:
    by = entry.statement.by.id if entry.statement.by else Digest("")
    publisher, chain = readings.inceptions.get(by), readings.chain(by)
    if publisher is None or chain is None:
        raise Untrusted("published refused", why=f"the record of publisher {short(by)} is not here", code="SIGNATURE")
    return Publication(entry, check_published(entry, publisher, chain), publisher, chain)


def _claim(publication: Publication) -> ParentClaim:
    said: Published = publication.published
    parents = tuple((parent.relation, parent.name, parent.digest) for parent in said.lineage)
    by = f"{publication.publisher.display} [{said.by[:12]}]"
    return ParentClaim(said.by, by, str(said.name), said.licence.spdx, parents, publication.entry.digest)


def _word(entry: Entry, speakers: KnownAuthors) -> DerivationClaim:
    derived = parse_derived(entry.statement)
    speaker = speakers.speaker(entry)
    if speaker is None:
        raise Untrusted("derived refused", why=f"not proven to be {short(derived.by.id)}'s", code="SIGNATURE")
    return DerivationClaim(speaker.name, derived, entry.digest)
