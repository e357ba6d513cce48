"""What is said about nodes and edges, in the same words in every form."""

from __future__ import annotations

from typing import Final

from comity.trust.digest import short
from comity.trust.lineage import Edge, Found, Graph, Node
from comity.trust.spelling import plain
from comity.trust.statements.derived import Derived

BASES: Final = {
    "here": "made again on this machine, bit for bit",
    "signed": "somebody signed that they made it again, bit for bit",
    "claimed": "claimed by its publisher, and no more",
}
"""What the three kinds of edges mean: solid, long dashes, short dashes."""


def title(node: Node) -> str:
    return plain(node.title)


def details(node: Node) -> list[str]:
    """Digest, then licence and publisher, as they are claimed; or that there is nothing."""
    lines = [f"sha256 {short(node.digest)}" if node.digest else "named without a digest"]
    if node.missing:
        return [*lines, "nothing about it is here"]
    licences = " / ".join(node.licences)
    return [*lines, plain(f"{licences}, says {', '.join(node.publishers)}")]


def relation(edge: Edge) -> str:
    return plain(" and ".join(edge.relations))


def grounds(edge: Edge) -> list[str]:
    """On whose word the edge stands, strongest first."""
    lines = []
    if edge.here is not None:
        lines.append(f"here: {_found(edge.here)}")
    lines += [plain(f"{word.by} signed: {_found(word.derived)}") for word in edge.words]
    if edge.claimed_by:
        lines.append(plain(f"claimed by {', '.join(by for by, _ in edge.claimed_by)}"))
    else:
        lines.append("its publisher does not name this parent")
    if edge.closes:
        lines.append("closes a circle")
    if edge.licence.answer == "conflict":
        lines.append(plain(f"licence conflict: {edge.licence.why}"))
    return lines


def remarks(graph: Graph) -> list[str]:
    """What holds for the graph as a whole: conflicts, what is missing, what was cut off."""
    lines = [
        plain(f"licence conflict, as claimed: {_licensed(child)}, {_licensed(parent)}: {fit.why}")
        for child, parent, fit in graph.conflicts
    ]
    if graph.missing:
        names = ", ".join(node.title for node in graph.missing[:5])
        more = f" and {len(graph.missing) - 5} more" if len(graph.missing) > 5 else ""
        lines.append(plain(f"missing: nothing about {names}{more} is here"))
    if graph.cut:
        lines.append(plain(f"not all is shown: {graph.cut}"))
    return lines


def _licensed(node: Node) -> str:
    return f"{node.title} ({node.licence})"


def _found(derived: Derived | Found) -> str:
    steps = ", ".join(f"{count} {step}" for step, count in derived.steps.items())
    if derived.exact:
        return f"exact, {derived.tensors.total} tensors ({steps})"
    return f"{derived.tensors.equal} of {derived.tensors.total} tensors are the same"
