"""Renders a lineage graph as a text tree, as DOT, and as one self-contained SVG.

Pure functions: text in, text out. Names and licences in a graph are untrusted, so each form escapes what its reader
would interpret and removes characters that no reader can show. All forms use the same words for nodes and edges.

The layout is layered, after Sugiyama, Tagawa and Toda (1981), in a simple form: ancestors left, the root right, columns
by longest path, one point in every column that an edge crosses, and a few sweeps that move each point to the mean
position of its neighbours. Edges that close a cycle are ignored. Units are columns and rows.

The SVG has no script, font or external reference. The line style shows the evidence, and a legend explains it: solid
was re-derived on this machine, long dashes mean a signed statement, short dashes an unproven claim. Each box and line
has its full details as its title, which browsers show and screen readers read.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Final
from xml.sax.saxutils import escape

from comity.trust.encoding import printable, short
from comity.trust.frozen import frozen
from comity.trust.lineage import ArtifactKey, LineageEdge, LineageGraph, LineageNode, LocalComparison
from comity.trust.statements import Derived

BASIS_LABELS: Final = {
    "here": "re-derived on this machine, bit for bit",
    "signed": "re-derived bit for bit, according to a signed statement",
    "claimed": "claimed by its publisher, not verified",
}
"""The meanings of the three kinds of edges: solid, long dashes, short dashes."""


def node_title(node: LineageNode) -> str:
    return printable(node.title)


def node_details(node: LineageNode) -> list[str]:
    """Digest, then the claimed licence and its publishers; or that there are no claims."""
    lines = [f"sha256 {short(node.digest)}" if node.digest else "named without a digest"]
    if node.missing:
        return [*lines, "no claims found"]
    licences = " / ".join(node.licences)
    return [*lines, printable(f"{licences}, according to {', '.join(node.publishers)}")]


def edge_label(edge: LineageEdge) -> str:
    return printable(" and ".join(edge.relations))


def evidence_lines(edge: LineageEdge) -> list[str]:
    """The evidence for the edge, strongest first."""
    lines = []
    if edge.comparison is not None:
        lines.append(f"here: {_found(edge.comparison)}")
    lines += [printable(f"{statement.by} signed: {_found(statement.derived)}") for statement in edge.derivations]
    if edge.claimed_by:
        lines.append(printable(f"claimed by {', '.join(by for by, _ in edge.claimed_by)}"))
    else:
        lines.append("its publisher does not name this parent")
    if edge.closes_cycle:
        lines.append("closes a cycle")
    if edge.licence.answer == "conflict":
        lines.append(printable(f"licence conflict: {edge.licence.why}"))
    return lines


def graph_notes(graph: LineageGraph) -> list[str]:
    """Notes on the whole graph: licence conflicts, missing claims, truncation."""
    lines = [
        printable(f"licence conflict, as claimed: {_licensed(child)}, {_licensed(parent)}: {fit.why}")
        for child, parent, fit in graph.conflicts
    ]
    if graph.missing:
        names = ", ".join(node.title for node in graph.missing[:5])
        more = f" and {len(graph.missing) - 5} more" if len(graph.missing) > 5 else ""
        lines.append(printable(f"missing: no claims found about {names}{more}"))
    if graph.truncation:
        lines.append(printable(f"the graph is truncated: {graph.truncation}"))
    return lines


def _licensed(node: LineageNode) -> str:
    return f"{node.title} ({node.licence})"


def _found(derived: Derived | LocalComparison) -> str:
    steps = ", ".join(f"{count} {step}" for step, count in derived.steps.items())
    if derived.exact:
        return f"exact, {derived.tensors.total} tensors ({steps})"
    return f"{derived.tensors.equal} of {derived.tensors.total} tensors are the same"


_STYLES: Final = {"here": "solid", "signed": "dashed", "claimed": "dotted"}


def render_dot(graph: LineageGraph) -> str:
    """The graph in DOT (Graphviz). Edges lead from the parent to the child."""
    names = {node.key: f"n{number}" for number, node in enumerate(graph.nodes)}
    legend = "".join(f"  // {_STYLES[basis]}: {meaning}\n" for basis, meaning in BASIS_LABELS.items())
    nodes = "".join(f"  {names[node.key]} [{_node(node)}]\n" for node in graph.nodes)
    edges = "".join(f"  {names[edge.parent]} -> {names[edge.child]} [{_edge(edge)}]\n" for edge in graph.edges)
    notes = _escape_dot("\n".join(graph_notes(graph)))
    head = f'  rankdir=LR\n  label="{notes}"\n  node [shape=box, fontname="sans-serif"]\n'
    return f"digraph lineage {{\n{legend}{head}{nodes}{edges}}}\n"


def _node(node: LineageNode) -> str:
    label = _escape_dot("\n".join([node_title(node), *node_details(node)]))
    return f'label="{label}"' + (", style=dashed" if node.missing else "")


def _edge(edge: LineageEdge) -> str:
    label = _escape_dot("\n".join([edge_label(edge), *evidence_lines(edge)]))
    constraint = ", constraint=false" if edge.closes_cycle else ""
    return f'label="{label}", style={_STYLES[edge.basis]}{constraint}'


def _escape_dot(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def render_tree(graph: LineageGraph) -> str:
    """The graph as lines for a terminal: the root, and below each artifact its parents. An artifact that is reachable
    by several paths is expanded once."""
    root = graph.root
    lines = [f"{node_title(root)}  ({'; '.join(node_details(root))})"]
    lines += _tree_lines(graph, root.key, "", {root.key})
    if not graph.edges:
        lines.append("  no parent is known")
    return "\n".join([*lines, *(f"! {remark}" for remark in graph_notes(graph))]) + "\n"


def _tree_lines(graph: LineageGraph, key: ArtifactKey, indent: str, shown: set[ArtifactKey]) -> Iterator[str]:
    edges = [edge for edge in graph.edges if edge.child == key]
    for edge in edges:
        last = edge is edges[-1]
        parent = graph.node(edge.parent)
        again = parent.key in shown
        note = "shown above" if again else "; ".join(node_details(parent))
        yield f"{indent}{'└─' if last else '├─'} {edge_label(edge)} of {node_title(parent)}  ({note})"
        further = indent + ("   " if last else "│  ")
        yield from (f"{further}   · {line}" for line in evidence_lines(edge))
        if not again:
            shown.add(parent.key)
            yield from _tree_lines(graph, parent.key, further, shown)


SWEEPS: Final = 6

LayoutPoint = tuple[ArtifactKey, ArtifactKey, int]
"""An artifact (key, "", 0), or the point at which the edge (child, parent) crosses a column: (child, parent, layer)."""


@frozen
class Layout:
    """Columns count from the left, rows from the top, in halves. `edge_paths` gives the (column, row) of each point of
    an edge, from the parent to the child."""

    positions: Mapping[ArtifactKey, tuple[int, float]]
    edge_paths: tuple[tuple[LineageEdge, tuple[tuple[int, float], ...]], ...]
    columns: int
    rows: float


def lay_out(graph: LineageGraph) -> Layout:
    """Compute the layout. Deterministic; cost is linear in the graph and the columns that its edges cross."""
    layers = _layers(graph)
    columns = max(layers.values()) + 1
    paths = {(edge.child, edge.parent): _path(edge, layers) for edge in graph.edges if not edge.closes_cycle}
    order = _order_points(graph, layers, paths)
    tallest = max(len(points) for points in order.values())
    rows = {point: at + (tallest - len(points)) / 2 for points in order.values() for at, point in enumerate(points)}

    def stop(point: LayoutPoint) -> tuple[int, float]:
        generation = layers[point[0]] if not point[1] else point[2]
        return columns - 1 - generation, rows[point]

    positions = {node.key: stop((node.key, "", 0)) for node in graph.nodes}
    edge_paths = tuple(
        (edge, tuple(stop(point) for point in reversed(paths.get((edge.child, edge.parent), _end_points(edge)))))
        for edge in graph.edges
    )
    return Layout(positions, edge_paths, columns, tallest)


def _layers(graph: LineageGraph) -> dict[ArtifactKey, int]:
    """The length of the longest path from the root to each artifact, without edges that close a cycle."""
    layers = {graph.root.key: 0}
    above: dict[ArtifactKey, list[ArtifactKey]] = defaultdict(list)
    below: dict[ArtifactKey, int] = defaultdict(int)
    for edge in graph.edges:
        if not edge.closes_cycle:
            above[edge.child].append(edge.parent)
            below[edge.parent] += 1
    ready = [graph.root.key]
    while ready:
        child = ready.pop()
        for parent in above[child]:
            layers[parent] = max(layers.get(parent, 0), layers[child] + 1)
            below[parent] -= 1
            if not below[parent]:
                ready.append(parent)
    return layers


def _end_points(edge: LineageEdge) -> tuple[LayoutPoint, ...]:
    return ((edge.child, "", 0), (edge.parent, "", 0))


def _path(edge: LineageEdge, layers: Mapping[ArtifactKey, int]) -> tuple[LayoutPoint, ...]:
    """The points from the child to the parent, one in every column between them."""
    child, parent = _end_points(edge)
    between = range(layers[edge.child] + 1, layers[edge.parent])
    return (child, *((edge.child, edge.parent, column) for column in between), parent)


def _order_points(
    graph: LineageGraph,
    layers: Mapping[ArtifactKey, int],
    paths: Mapping[tuple[ArtifactKey, ArtifactKey], tuple[LayoutPoint, ...]],
) -> dict[int, list[LayoutPoint]]:
    """The points of each layer from the top, ordered by the mean position of their neighbours."""
    columns: dict[int, list[LayoutPoint]] = defaultdict(list)
    for node in graph.nodes:
        columns[layers[node.key]].append((node.key, "", 0))
    near: dict[LayoutPoint, list[LayoutPoint]] = defaultdict(list)
    for path in paths.values():
        for point in path[1:-1]:
            columns[point[2]].append(point)
        for one, other in itertools.pairwise(path):
            near[one].append(other)
            near[other].append(one)
    for sweep in range(SWEEPS):
        numbers = sorted(columns, reverse=bool(sweep % 2))
        for before, number in itertools.pairwise(numbers):
            at = {point: place for place, point in enumerate(columns[before])}
            columns[number] = _sort_by_barycenter(columns[number], near, at)
    return columns


def _sort_by_barycenter(
    points: list[LayoutPoint], near: Mapping[LayoutPoint, list[LayoutPoint]], at: Mapping[LayoutPoint, int]
) -> list[LayoutPoint]:
    def barycenter(place: int, point: LayoutPoint) -> float:
        neighbours = [at[other] for other in near.get(point, ()) if other in at]
        return sum(neighbours) / len(neighbours) if neighbours else place

    return [point for _, point in sorted(enumerate(points), key=lambda item: barycenter(*item))]


BOX: Final = (232, 62)
GAP: Final = (170, 34)
MARGIN: Final = 24
LINE: Final = 16
_LINE_LENGTHS: Final = (28, 34)
"""Characters that fit into a box: of the name, and of other lines."""
_LABEL_LENGTH: Final = 26
_DASHES: Final = {"here": "", "signed": ' stroke-dasharray="12 5"', "claimed": ' stroke-dasharray="2 5"'}
LINEAGE_STYLE: Final = (
    "svg{background:#fff;font-family:system-ui,sans-serif;font-size:12px}"
    "rect{fill:#f6f8fa;stroke:#57606a}.missing{fill:#fff;stroke-dasharray:4 4}.root{stroke:#0550ae;stroke-width:2}"
    "path{fill:none;stroke:#24292f;stroke-width:1.6}.bad{stroke:#b42318}text.bad{fill:#b42318;stroke:none}"
    "text{fill:#24292f}.small{font-size:11px;fill:#57606a}.name{font-weight:600}.head{fill:#24292f;stroke:none}"
)


def render_svg(graph: LineageGraph) -> str:
    """The complete SVG file as text, for UTF-8."""
    layout = lay_out(graph)
    notes = graph_notes(graph)
    widest = max([0, *(len(note) for note in notes), *(len(meaning) + 12 for meaning in BASIS_LABELS.values())]) * 6.6
    width = max(layout.columns * BOX[0] + (layout.columns - 1) * GAP[0], round(widest)) + 2 * MARGIN
    below = round(layout.rows * (BOX[1] + GAP[1])) + 2 * MARGIN
    height = below + LINE * (len(BASIS_LABELS) + len(notes) + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-labelledby="t">',
        f'<title id="t">Lineage of {_escape_xml(node_title(graph.root))}</title><style>{LINEAGE_STYLE}</style>',
        '<defs><marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="head" d="M0 0L8 4L0 8z"/></marker></defs>',
        *_edges(layout),
        *(_box(graph, node, layout) for node in graph.nodes),
        *_legend(below, notes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _corner(place: tuple[int, float]) -> tuple[float, float]:
    """The left and top coordinates of the box in (column, row)."""
    return MARGIN + place[0] * (BOX[0] + GAP[0]), MARGIN + place[1] * (BOX[1] + GAP[1])


def _box(graph: LineageGraph, node: LineageNode, layout: Layout) -> str:
    x, y = _corner(layout.positions[node.key])
    kind = "missing" if node.missing else "root" if node is graph.root else "box"
    lines = [node_title(node), *node_details(node)]
    texts = "".join(
        f'<text class="{"small" if number else "name"}" x="{x + 10:g}" y="{y + 20 + number * LINE:g}">'
        f"{_escape_xml(_truncate(line, _LINE_LENGTHS[number > 0]))}</text>"
        for number, line in enumerate(lines)
    )
    box = f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}" rx="6"/>'
    full = [*lines, f"sha256:{node.digest}"] if node.digest else lines
    return f"<g><title>{_escape_xml(chr(10).join(full))}</title>{box}{texts}</g>"


def _edges(layout: Layout) -> Iterator[str]:
    """The edges, drawn first so that boxes cover them."""
    leaving: Counter[str] = Counter()
    for edge, stops in layout.edge_paths:
        bad = " bad" if edge.licence.answer == "conflict" else ""
        tooltip = _escape_xml("\n".join([edge_label(edge), *evidence_lines(edge)]))
        line = f'<path class="edge{bad}"{_DASHES[edge.basis]} d="{_curve(edge, stops)}" marker-end="url(#a)"/>'
        x, y = _label_position(edge, stops, leaving[edge.parent])
        leaving[edge.parent] += 1
        label = _escape_xml(_truncate(_short_label(edge), _LABEL_LENGTH))
        yield f'<g><title>{tooltip}</title>{line}<text class="small{bad}" x="{x:g}" y="{y:g}">{label}</text></g>'


def _short_label(edge: LineageEdge) -> str:
    conflict = ", licence conflict" if edge.licence.answer == "conflict" else ""
    return edge_label(edge) + (", cycle" if edge.closes_cycle else "") + conflict


def _label_position(edge: LineageEdge, stops: tuple[tuple[int, float], ...], before: int) -> tuple[float, float]:
    """The position of an edge's label, where the line leaves its box: alternately above and below the line, after
    `before` other labels."""
    x, y = _corner(stops[0])
    if edge.closes_cycle:
        return x + BOX[0] * 0.6 - 60, y - 8
    aside = 12 * (before // 2)
    return x + BOX[0] + 8, y + BOX[1] / 2 + (14 + aside if before % 2 else -6 - aside)


def _curve(edge: LineageEdge, stops: tuple[tuple[int, float], ...]) -> str:
    """From the right side of the parent's box to the left side of the child's, through the columns between them."""
    if edge.closes_cycle:
        return _back_edge_path(stops)
    barycenter = BOX[1] / 2
    x, y = _corner(stops[0])
    x, y = x + BOX[0], y + barycenter
    path = f"M{x:g} {y:g}"
    for stop in stops[1:]:
        to_x, to_y = _corner(stop)
        to_y += barycenter
        half = (to_x - x) / 2
        path += f"C{x + half:g} {y:g} {to_x - half:g} {to_y:g} {to_x:g} {to_y:g}"
        x, y = to_x + (BOX[0] if stop is not stops[-1] else 0), to_y
        if stop is not stops[-1]:
            path += f"L{x:g} {y:g}"
    return path


def _back_edge_path(stops: tuple[tuple[int, float], ...]) -> str:
    """The path of an edge that closes a cycle: from the top of one box to the top of the other."""
    from_x, from_y = _corner(stops[0])
    to_x, to_y = _corner(stops[-1])
    from_x, to_x = from_x + BOX[0] * 0.6, to_x + BOX[0] * 0.4
    return f"M{from_x:g} {from_y:g}C{from_x:g} {from_y - 30:g} {to_x:g} {to_y - 30:g} {to_x:g} {to_y:g}"


def _legend(top: int, notes: list[str]) -> Iterator[str]:
    y = top
    for basis, meaning in BASIS_LABELS.items():
        yield f'<path class="edge"{_DASHES[basis]} d="M{MARGIN} {y - 4}h56"/>'
        yield f'<text class="small" x="{MARGIN + 66}" y="{y}">{_escape_xml(meaning)}</text>'
        y += LINE
    y += LINE // 2
    for note in notes:
        yield f'<text class="bad" x="{MARGIN}" y="{y}">{_escape_xml(note)}</text>'
        y += LINE


def _truncate(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _escape_xml(text: str) -> str:
    """Escape element content. `printable` has already removed characters that XML cannot hold, except line feeds."""
    return escape(text, {'"': "&quot;"})
