"""A lineage graph as lines for a terminal: the root, and below each artifact what it was made from."""

from __future__ import annotations

from collections.abc import Iterator

from comity.drawing.words import details, grounds, relation, remarks, title
from comity.trust.lineage import Graph, Key


def render_tree(graph: Graph) -> str:
    """An artifact that is there by several ways is unfolded once."""
    root = graph.root
    lines = [f"{title(root)}  ({'; '.join(details(root))})"]
    lines += _below(graph, root.key, "", {root.key})
    if not graph.edges:
        lines.append("  no parent is known")
    return "\n".join([*lines, *(f"! {remark}" for remark in remarks(graph))]) + "\n"


def _below(graph: Graph, key: Key, indent: str, shown: set[Key]) -> Iterator[str]:
    edges = [edge for edge in graph.edges if edge.child == key]
    for edge in edges:
        last = edge is edges[-1]
        parent = graph.node(edge.parent)
        again = parent.key in shown
        note = "shown above" if again else "; ".join(details(parent))
        yield f"{indent}{'└─' if last else '├─'} {relation(edge)} of {title(parent)}  ({note})"
        further = indent + ("   " if last else "│  ")
        yield from (f"{further}   · {line}" for line in grounds(edge))
        if not again:
            shown.add(parent.key)
            yield from _below(graph, parent.key, further, shown)
