"""`comity lineage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from comity_cli.command import Command, client, examples, output

if TYPE_CHECKING:
    from comity.trust.lineage import LineageEdge, LineageGraph, LineageNode

FORMATS = ("text", "dot", "svg")


@examples(
    "comity lineage swiss-ai/apertus-8b@v1",
    "comity lineage ./apertus-8b --check",
    "comity lineage inst/tiny-gguf@v1 --format svg > lineage.svg",
)
@click.command(cls=Command, name="lineage", short_help="Show what an artifact was made from, and who claims it.")
@click.argument("target", metavar="REF|DIR")
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--check", is_flag=True, help="Derive weights again here if both sides were pulled.")
def command(target: str, form: str, check: bool) -> None:
    """Show the ancestors of REF, up to those that name no parent, as publishers claim them; who signed that they
    derived an artifact again; missing artifacts, and conflicting licences. For DIR the evidence pack is read, without
    a network.

    Everything is a claim, except the derivations that --check repeats on this machine.
    """
    out = output()
    lineage = client().lineage(target, check=check)
    out.say(_rendered(lineage.graph, form).rstrip("\n"))
    for note in (*lineage.notes, *(f"not derived again here: {why}" for why in lineage.unchecked)):
        out.warn(note)
    document = {**_document(lineage.graph), "notes": list(lineage.notes), "unchecked": list(lineage.unchecked)}
    out.document("lineage", document)


def _rendered(graph: LineageGraph, form: str) -> str:
    from comity.drawing.graph_text import render_dot, render_svg, render_tree

    return {"text": render_tree, "dot": render_dot, "svg": render_svg}[form](graph)


def _document(graph: LineageGraph) -> dict[str, Any]:
    return {
        "root": graph.root.digest,
        "nodes": [_node(node) for node in graph.nodes],
        "edges": [_edge(edge) for edge in graph.edges],
        "conflicts": [
            {"child": child.key, "parent": parent.key, "why": fit.why} for child, parent, fit in graph.conflicts
        ],
        "missing": [node.key for node in graph.missing],
        "cut": graph.truncation,
    }


def _node(node: LineageNode) -> dict[str, Any]:
    return {
        "key": node.key,
        "artifact": node.digest,
        "title": node.title,
        "publishers": list(node.publishers),
        "licences": list(node.licences),
        "missing": node.missing,
    }


def _edge(edge: LineageEdge) -> dict[str, Any]:
    return {
        "child": edge.child,
        "parent": edge.parent,
        "relations": list(edge.relations),
        "basis": edge.basis,
        "claimed_by": [{"by": by, "line": line} for by, line in edge.claimed_by],
        "derived_by": [
            {
                "by": item.by,
                "line": item.line,
                "result": item.derived.result,
                "steps": dict(item.derived.steps),
                "tensors": {"total": item.derived.tensors.total, "equal": item.derived.tensors.equal},
            }
            for item in edge.derivations
        ],
        "here": None if edge.comparison is None else "exact" if edge.comparison.exact else "share",
        "closes_a_circle": edge.closes_cycle,
        "licence": {"answer": edge.licence.answer, "why": edge.licence.why},
    }
