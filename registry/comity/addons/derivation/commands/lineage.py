"""`comity lineage`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import click
from comity_cli.command import Command, client, examples, output
from comity_cli.document import document

from comity.trust.encoding import Digest
from comity.trust.frozen import frozen

if TYPE_CHECKING:
    from comity.addons.derivation.lineage import Lineage
    from comity.trust.lineage import LicenceFit, LineageEdge, LineageGraph, LineageNode
    from comity.trust.statements import Extent

FORMATS = ("text", "dot", "svg")


@frozen
class AncestorItem:
    """An artifact of the graph."""

    key: str
    artifact: Digest | None
    title: str
    publishers: tuple[str, ...]
    licences: tuple[str, ...]
    missing: bool

    @classmethod
    def of(cls, node: LineageNode) -> AncestorItem:
        return cls(node.key, node.digest, node.title, node.publishers, node.licences, node.missing)


@frozen
class ClaimingLine:
    """Who claims an edge, and the digest of the line."""

    by: str
    line: Digest


@frozen
class DerivedItem:
    """Who signed that the child was derived again."""

    by: str
    line: Digest
    result: Literal["exact", "share"]
    steps: Mapping[str, int]
    tensors: Extent


@frozen
class EdgeItem:
    """The claim that `child` was made from `parent`; `here`: the result of a comparison on this machine."""

    child: str
    parent: str
    relations: tuple[str, ...]
    basis: str
    claimed_by: tuple[ClaimingLine, ...]
    derived_by: tuple[DerivedItem, ...]
    here: str | None
    closes_a_circle: bool
    licence: LicenceFit

    @classmethod
    def of(cls, edge: LineageEdge) -> EdgeItem:
        found = ((item, item.derived) for item in edge.derivations)
        return cls(
            child=edge.child,
            parent=edge.parent,
            relations=edge.relations,
            basis=edge.basis,
            claimed_by=tuple(ClaimingLine(by, line) for by, line in edge.claimed_by),
            derived_by=tuple(DerivedItem(i.by, i.line, d.result, d.steps, d.tensors) for i, d in found),
            here=None if edge.comparison is None else "exact" if edge.comparison.exact else "share",
            closes_a_circle=edge.closes_cycle,
            licence=edge.licence,
        )


@frozen
class ConflictItem:
    """A child whose licence does not fit that of an ancestor."""

    child: str
    parent: str
    why: str


@document("lineage")
class LineageDocument:
    """What an artifact was made from, as `comity lineage --json` prints it.

    Edges are claims, with the `basis` here, signed or claimed. `missing`: ancestors that no claim is about. `cut`: the
    limit that was exceeded. `unchecked`: what --check could not derive again.
    """

    root: Digest | None
    nodes: tuple[AncestorItem, ...]
    edges: tuple[EdgeItem, ...]
    conflicts: tuple[ConflictItem, ...]
    missing: tuple[str, ...]
    cut: str
    notes: tuple[str, ...]
    unchecked: tuple[str, ...]

    @classmethod
    def of(cls, lineage: Lineage) -> LineageDocument:
        graph = lineage.graph
        return cls(
            root=graph.root.digest,
            nodes=tuple(map(AncestorItem.of, graph.nodes)),
            edges=tuple(map(EdgeItem.of, graph.edges)),
            conflicts=tuple(ConflictItem(child.key, parent.key, fit.why) for child, parent, fit in graph.conflicts),
            missing=tuple(node.key for node in graph.missing),
            cut=graph.truncation,
            notes=tuple(lineage.notes),
            unchecked=tuple(lineage.unchecked),
        )


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
    from comity.addons.derivation.lineage import find_lineage

    out = output()
    lineage = find_lineage(client(), target, check=check)
    out.say(_rendered(lineage.graph, form).rstrip("\n"))
    for note in (*lineage.notes, *(f"not derived again here: {why}" for why in lineage.unchecked)):
        out.warn(note)
    out.answer(LineageDocument.of(lineage))


def _rendered(graph: LineageGraph, form: str) -> str:
    from comity.drawing.graph_text import render_dot, render_svg, render_tree

    return {"text": render_tree, "dot": render_dot, "svg": render_svg}[form](graph)
