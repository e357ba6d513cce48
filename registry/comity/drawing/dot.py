"""A lineage graph in DOT, the language of Graphviz and of what reads it."""

from __future__ import annotations

from typing import Final

from comity.drawing.words import BASES, details, grounds, relation, remarks, title
from comity.trust.lineage import Edge, Graph, Node

_STYLES: Final = {"here": "solid", "signed": "dashed", "claimed": "dotted"}


def render_dot(graph: Graph) -> str:
    """Parents point to what was made from them."""
    names = {node.key: f"n{number}" for number, node in enumerate(graph.nodes)}
    legend = "".join(f"  // {_STYLES[basis]}: {meaning}\n" for basis, meaning in BASES.items())
    nodes = "".join(f"  {names[node.key]} [{_node(node)}]\n" for node in graph.nodes)
    edges = "".join(f"  {names[edge.parent]} -> {names[edge.child]} [{_edge(edge)}]\n" for edge in graph.edges)
    notes = _text("\n".join(remarks(graph)))
    head = f'  rankdir=LR\n  label="{notes}"\n  node [shape=box, fontname="sans-serif"]\n'
    return f"digraph lineage {{\n{legend}{head}{nodes}{edges}}}\n"


def _node(node: Node) -> str:
    label = _text("\n".join([title(node), *details(node)]))
    return f'label="{label}"' + (", style=dashed" if node.missing else "")


def _edge(edge: Edge) -> str:
    label = _text("\n".join([relation(edge), *grounds(edge)]))
    constraint = ", constraint=false" if edge.closes else ""
    return f'label="{label}", style={_STYLES[edge.basis]}{constraint}'


def _text(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
