"""From whom artifacts descend: their roots by lineage, and how many artifacts have each set of roots. Pure.

An artifact descends from its ancestors that name no parent: its roots. What a publisher says of parents is a claim; a
`derived` statement of a member that computed the child from the parent exactly is a computation that the member signed.
Each root says how it is known:

    signed      every step to the root was computed and signed by members
    claimed     a step to the root is what the publisher of the child says
    own         the artifact is its own root: its publisher names no parent
    mirrored    the artifact is its own root as it was mirrored: an upstream repository, whose parents nobody read
    unknown     a parent is known by a name alone, is not published here, or is beyond the limits of a lineage graph

Publishers are 64 hex digits, upstream organisations `hf:org`; the author of an unknown root is empty. Nothing here
says under whose law an author is: the charter has the seats of members, and of others only who asks can say it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.trust.names import UPSTREAM

SIGNED: Final = "signed"
CLAIMED: Final = "claimed"
OWN: Final = "own"
MIRRORED: Final = "mirrored"
UNKNOWN: Final = "unknown"
BASES: Final = (SIGNED, OWN, MIRRORED, CLAIMED, UNKNOWN)
"""How a root is known, the strongest first."""
MAX_ROOTS: Final = 16
"""Roots of one artifact that are told apart; one with more has an unknown one besides."""


@frozen
class LineageRoot:
    """A root of an artifact: its author, and how it is known (`BASES`)."""

    author: str
    basis: str


NOWHERE: Final = LineageRoot("", UNKNOWN)


@frozen
class ParentEdge:
    """A parent of an artifact. `parent` is its key, None where no digest is named; `author` the organisation that the
    name of an upstream repository has, or empty; `signed` whether a member computed the child from it exactly."""

    parent: int | None
    author: str
    signed: bool


@frozen
class LineageFacts:
    """What is known of an artifact: the authors of its publications, and its parents."""

    authors: tuple[str, ...] = ()
    parents: tuple[ParentEdge, ...] = ()


def roots_of(
    artifact: int, known: Callable[[int], LineageFacts], most_nodes: int, most_depth: int
) -> tuple[LineageRoot, ...]:
    """The roots of an artifact, each author once with the strongest basis, in order. A cycle has no root, so it adds
    an unknown root where nothing else does. `known` is called at most twice for each of `most_nodes`
    ancestors, of which none is further than `most_depth` steps: the limits of `comity.trust.lineage`, which a reader of
    counts does not load."""
    first = known(artifact)
    found = _own(first) if not first.parents else set[LineageRoot]()
    seen = {artifact: True}
    """Whether every step to an ancestor is signed, at the best of the ways that were seen."""
    waiting = [(edge, True, 1) for edge in first.parents]
    while waiting:
        edge, signed, depth = waiting.pop()
        signed = signed and edge.signed
        if edge.parent is None:
            found.add(LineageRoot(edge.author, CLAIMED) if edge.author else NOWHERE)
            continue
        if seen.get(edge.parent, False) or (edge.parent in seen and not signed):
            continue
        if len(seen) >= most_nodes or depth > most_depth:
            found.add(NOWHERE)
            continue
        seen[edge.parent] = signed
        item = known(edge.parent)
        if item.parents:
            waiting += [(each, signed, depth + 1) for each in item.parents]
        elif item.authors:
            found |= {LineageRoot(author, SIGNED if signed else CLAIMED) for author in item.authors}
        else:
            found.add(LineageRoot(edge.author, CLAIMED) if edge.author else NOWHERE)
    return _strongest(found or {NOWHERE})


def _own(item: LineageFacts) -> set[LineageRoot]:
    return {LineageRoot(author, MIRRORED if author.startswith(UPSTREAM) else OWN) for author in item.authors}


def _strongest(found: Iterable[LineageRoot]) -> tuple[LineageRoot, ...]:
    best: dict[str, LineageRoot] = {}
    for root in sorted(found, key=lambda each: (each.author, BASES.index(each.basis))):
        best.setdefault(root.author, root)
    chosen = list(best.values())
    return tuple(chosen) if len(chosen) <= MAX_ROOTS else (NOWHERE, *[o for o in chosen if o.author][:MAX_ROOTS])


@frozen
class DescentQuestion:
    """Which artifacts are counted: all, those that a member or a node holds, or those that an identity published."""

    holder: Digest | None = None
    publisher: Digest | None = None


@frozen
class DescentCount:
    """How many artifacts have exactly these roots.

    Attributes:
        roots: in order.
        of_members: published or mirrored by members, or by publishers to whom the charter binds a namespace.
        size: bytes of their files, each artifact by itself; `unsized` of them are not known, and count as 0.
        pulls: how often they were pulled from the node that counts, in the weeks that it says.
        requiring: artifacts that name packages which they do not contain.
    """

    roots: tuple[LineageRoot, ...]
    of_members: bool
    artifacts: int
    size: int
    unsized: int
    pulls: int
    requiring: int


def added(first: DescentCount, second: DescentCount) -> DescentCount:
    """Two counts of artifacts with the same roots."""
    return DescentCount(
        first.roots,
        first.of_members,
        first.artifacts + second.artifacts,
        first.size + second.size,
        first.unsized + second.unsized,
        first.pulls + second.pulls,
        first.requiring + second.requiring,
    )


REQUIREMENT_FILES: Final = ("requirements", "pyproject.toml", "setup.py", "pipfile", "environment.yml")
"""How the names of files begin in which an artifact says which packages it needs."""
WHEEL: Final = ".whl"


def requires_packages(paths: Sequence[str]) -> bool:
    """Whether an artifact with these files says which packages it needs and contains no package, as far as names of
    files tell: to install it, a package index is asked."""
    names = [path.rpartition("/")[2].lower() for path in paths]
    return any(name.startswith(REQUIREMENT_FILES) for name in names) and not any(name.endswith(WHEEL) for name in names)
