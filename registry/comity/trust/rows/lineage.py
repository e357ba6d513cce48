"""What it was made from: who says so, what of it somebody made again, and where licences conflict."""

from __future__ import annotations

from collections.abc import Iterator

from comity.trust.digest import short
from comity.trust.lineage import Edge, Graph, Node
from comity.trust.rows.findings import Findings
from comity.trust.rows.wording import here
from comity.trust.statements.derived import Derived
from comity.trust.verdict import Fact, Row

NAME = "lineage"
STEP = 8
HINT = "comity lineage REF"


def lineage_row(found: Findings) -> Row:
    """It passes where all that it comes from is named by digest, and described by somebody, up to those that name no
    parent; it fails only for what the policy asks."""
    graph, rule = found.lineage, found.policy.lineage
    if found.chosen is None:
        return Row(NAME, "unknown", "nobody says what it was made from", STEP, "missing", hint="comity pull REF")
    facts = tuple(_facts(graph))
    own = [edge for edge in graph.edges if edge.child == graph.root.key]
    nameless = [graph.node(edge.parent) for edge in own if graph.node(edge.parent).digest is None]
    if rule.by_digest and nameless:
        text = f"its parent {nameless[0].title} is named without a digest"
        return Row(NAME, "fail", text, STEP, "short", facts, HINT)
    if rule.no_conflicts and graph.conflicts:
        return Row(NAME, "fail", _conflicts(graph)[0], STEP, "short", facts, HINT)
    if not graph.edges:
        claim = found.chosen.publication
        fact = Fact("no parent is named", "claimed", claim.publisher.display, claim.entry.digest)
        return Row(NAME, "pass", "its publisher names no parent", STEP, facts=(fact,))
    text = ", ".join(f"{_relation(edge)} of {graph.node(edge.parent).title} ({_standing(edge)})" for edge in own[:3])
    text += f" and {len(own) - 3} more" if len(own) > 3 else ""
    if open_end := _open_end(graph):
        return Row(NAME, "unknown", f"{text}; {open_end}", STEP, "missing", facts, HINT)
    return Row(NAME, "pass", text, STEP, facts=facts)


def conflict_facts(found: Findings) -> tuple[Fact, ...]:
    """Conflicts of licences along the lineage, for the row about licences: claims both, by a table that is ours."""
    return tuple(_conflict_facts(found.lineage))


def _conflict_facts(graph: Graph) -> Iterator[Fact]:
    for text, (child, _, _) in zip(_conflicts(graph), graph.conflicts, strict=True):
        yield Fact(text, "claimed", ", ".join(child.publishers))


def _conflicts(graph: Graph) -> list[str]:
    return [
        f"licence conflict: {child.title} ({child.licence}) comes from {parent.title} ({parent.licence}): {fit.why}"
        for child, parent, fit in graph.conflicts
    ]


def _facts(graph: Graph) -> Iterator[Fact]:
    for edge in graph.edges:
        child, parent = graph.node(edge.child), graph.node(edge.parent)
        for by, line in edge.claimed_by:
            yield Fact(f"{child.title} is a {_relation(edge)} of {_named(parent)}", "claimed", by, line)
        for word in edge.words:
            text = f"{child.title} from {_named(parent)}: {said_to_be_derived(word.derived)}"
            yield Fact(text, "claimed", word.by, word.line)
        if edge.closes:
            yield here(f"{child.title} and {parent.title} are said to be made from one another")
    for node in graph.missing:
        yield Fact(f"{_named(node)}: nothing that its publisher says is here", "stale or absent")
    yield from _conflict_facts(graph)
    if graph.cut:
        yield Fact(f"more is claimed than is read: {graph.cut}", "stale or absent")


def said_to_be_derived(derived: Derived) -> str:
    """What a `derived` statement says, in words."""
    steps = ", ".join(f"{count} {step}" for step, count in derived.steps.items())
    if derived.exact:
        return f"all {derived.tensors.total} tensors made again, bit for bit ({steps})"
    return f"{derived.tensors.equal} of {derived.tensors.total} tensors are the same" + (f" ({steps})" if steps else "")


def _relation(edge: Edge) -> str:
    return " and ".join(edge.relations)


def _named(node: Node) -> str:
    return f"{node.title}, sha256 {short(node.digest)}" if node.digest else f"{node.title}, without a digest"


def _standing(edge: Edge) -> str:
    """On whose word an edge stands."""
    exact = [word.by for word in edge.words if word.derived.exact]
    if not edge.claimed_by:
        return f"which its publisher does not name; {_first(exact or [word.by for word in edge.words])} derived it"
    return f"claimed; derived bit for bit by {_first(exact)}, as they say" if exact else "claimed"


def _first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _open_end(graph: Graph) -> str:
    """Why not all of it is known here; empty where it is."""
    if circle := next((edge for edge in graph.edges if edge.closes), None):
        return f"the claims about {graph.node(circle.child).title} go in a circle"
    if nameless := [node for node in graph.nodes if node.digest is None]:
        return f"{nameless[0].title} is named without a digest"
    if graph.missing:
        return f"nothing about {graph.missing[0].title} is here"
    return graph.cut
