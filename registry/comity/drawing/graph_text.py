"""Lineage graphs for people: as a tree of lines, as DOT for other tools, and as one self-contained SVG.

Pure: text in, text out. Names and licences in a graph are strangers' words, so that each form escapes what its readers
would obey, and leaves out what no reader can show.


What is said about nodes and edges, in the same words in every form.

A lineage graph in DOT, the language of Graphviz and of what reads it.

A lineage graph as lines for a terminal: the root, and below each artifact what it was made from.

A layered layout: ancestors left, the root right, each artifact in the column after the last of its parents.

After Sugiyama, Tagawa and Toda (1981), in its simplest useful form: columns by longest path, a place in every column
that an edge crosses, and a few sweeps that put everything near the middle of its neighbours. Edges that close a circle
take no part. Units are columns and rows, which a painter turns into pixels.


A lineage graph as one SVG file: no script, no font, no address in it, and every word escaped.

Boxes are artifacts, ancestors left. How a line is drawn says on what it rests, and the legend says it in words: solid
was made again on this machine, long dashes are somebody's signed word that they did, short dashes a mere claim. Each
box and line has all that is known about it as its title, which browsers show and readers read aloud.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from comity.trust.encoding import plain, short
from comity.trust.lineage import FoundArtifact, Key, LineageEdge, LineageGraph, LineageNode
from comity.trust.statements import Derived

BASES: Final = {
    "here": "made again on this machine, bit for bit",
    "signed": "somebody signed that they made it again, bit for bit",
    "claimed": "claimed by its publisher, and no more",
}
"""What the three kinds of edges mean: solid, long dashes, short dashes."""


def title(node: LineageNode) -> str:
    return plain(node.title)


def details(node: LineageNode) -> list[str]:
    """Digest, then licence and publisher, as they are claimed; or that there is nothing."""
    lines = [f"sha256 {short(node.digest)}" if node.digest else "named without a digest"]
    if node.missing:
        return [*lines, "nothing about it is here"]
    licences = " / ".join(node.licences)
    return [*lines, plain(f"{licences}, says {', '.join(node.publishers)}")]


def relation(edge: LineageEdge) -> str:
    return plain(" and ".join(edge.relations))


def grounds(edge: LineageEdge) -> list[str]:
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


def remarks(graph: LineageGraph) -> list[str]:
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


def _licensed(node: LineageNode) -> str:
    return f"{node.title} ({node.licence})"


def _found(derived: Derived | FoundArtifact) -> str:
    steps = ", ".join(f"{count} {step}" for step, count in derived.steps.items())
    if derived.exact:
        return f"exact, {derived.tensors.total} tensors ({steps})"
    return f"{derived.tensors.equal} of {derived.tensors.total} tensors are the same"


_STYLES: Final = {"here": "solid", "signed": "dashed", "claimed": "dotted"}


def render_dot(graph: LineageGraph) -> str:
    """Parents point to what was made from them."""
    names = {node.key: f"n{number}" for number, node in enumerate(graph.nodes)}
    legend = "".join(f"  // {_STYLES[basis]}: {meaning}\n" for basis, meaning in BASES.items())
    nodes = "".join(f"  {names[node.key]} [{_node(node)}]\n" for node in graph.nodes)
    edges = "".join(f"  {names[edge.parent]} -> {names[edge.child]} [{_edge(edge)}]\n" for edge in graph.edges)
    notes = _text("\n".join(remarks(graph)))
    head = f'  rankdir=LR\n  label="{notes}"\n  node [shape=box, fontname="sans-serif"]\n'
    return f"digraph lineage {{\n{legend}{head}{nodes}{edges}}}\n"


def _node(node: LineageNode) -> str:
    label = _text("\n".join([title(node), *details(node)]))
    return f'label="{label}"' + (", style=dashed" if node.missing else "")


def _edge(edge: LineageEdge) -> str:
    label = _text("\n".join([relation(edge), *grounds(edge)]))
    constraint = ", constraint=false" if edge.closes else ""
    return f'label="{label}", style={_STYLES[edge.basis]}{constraint}'


def _text(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def render_tree(graph: LineageGraph) -> str:
    """An artifact that is there by several ways is unfolded once."""
    root = graph.root
    lines = [f"{title(root)}  ({'; '.join(details(root))})"]
    lines += _below(graph, root.key, "", {root.key})
    if not graph.edges:
        lines.append("  no parent is known")
    return "\n".join([*lines, *(f"! {remark}" for remark in remarks(graph))]) + "\n"


def _below(graph: LineageGraph, key: Key, indent: str, shown: set[Key]) -> Iterator[str]:
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


SWEEPS: Final = 6

Spot = tuple[Key, Key, int]
"""An artifact (key, "", 0), or the place where the edge (child, parent) crosses a column."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns count from the left, rows from the top, in halves. `ways` gives the (column, row) of each stop of an
    edge, from the parent to the child."""

    places: Mapping[Key, tuple[int, float]]
    ways: tuple[tuple[LineageEdge, tuple[tuple[int, float], ...]], ...]
    columns: int
    rows: float


def lay_out(graph: LineageGraph) -> Layout:
    """Deterministic; of the size of the graph and of what its edges cross."""
    generations = _generations(graph)
    columns = max(generations.values()) + 1
    paths = {(edge.child, edge.parent): _path(edge, generations) for edge in graph.edges if not edge.closes}
    order = _order(graph, generations, paths)
    tallest = max(len(spots) for spots in order.values())
    rows = {spot: at + (tallest - len(spots)) / 2 for spots in order.values() for at, spot in enumerate(spots)}

    def stop(spot: Spot) -> tuple[int, float]:
        generation = generations[spot[0]] if not spot[1] else spot[2]
        return columns - 1 - generation, rows[spot]

    places = {node.key: stop((node.key, "", 0)) for node in graph.nodes}
    ways = tuple(
        (edge, tuple(stop(spot) for spot in reversed(paths.get((edge.child, edge.parent), _ends(edge)))))
        for edge in graph.edges
    )
    return Layout(places, ways, columns, tallest)


def _generations(graph: LineageGraph) -> dict[Key, int]:
    """The longest way from the root to each artifact, without edges that close a circle."""
    generations = {graph.root.key: 0}
    above: dict[Key, list[Key]] = defaultdict(list)
    below: dict[Key, int] = defaultdict(int)
    for edge in graph.edges:
        if not edge.closes:
            above[edge.child].append(edge.parent)
            below[edge.parent] += 1
    ready = [graph.root.key]
    while ready:
        child = ready.pop()
        for parent in above[child]:
            generations[parent] = max(generations.get(parent, 0), generations[child] + 1)
            below[parent] -= 1
            if not below[parent]:
                ready.append(parent)
    return generations


def _ends(edge: LineageEdge) -> tuple[Spot, ...]:
    return ((edge.child, "", 0), (edge.parent, "", 0))


def _path(edge: LineageEdge, generations: Mapping[Key, int]) -> tuple[Spot, ...]:
    """From the child to the parent, with a stop in every column between them."""
    child, parent = _ends(edge)
    between = range(generations[edge.child] + 1, generations[edge.parent])
    return (child, *((edge.child, edge.parent, column) for column in between), parent)


def _order(
    graph: LineageGraph, generations: Mapping[Key, int], paths: Mapping[tuple[Key, Key], tuple[Spot, ...]]
) -> dict[int, list[Spot]]:
    """The spots of each generation from the top, near the middle of their neighbours."""
    columns: dict[int, list[Spot]] = defaultdict(list)
    for node in graph.nodes:
        columns[generations[node.key]].append((node.key, "", 0))
    near: dict[Spot, list[Spot]] = defaultdict(list)
    for path in paths.values():
        for spot in path[1:-1]:
            columns[spot[2]].append(spot)
        for one, other in itertools.pairwise(path):
            near[one].append(other)
            near[other].append(one)
    for sweep in range(SWEEPS):
        numbers = sorted(columns, reverse=bool(sweep % 2))
        for before, number in itertools.pairwise(numbers):
            at = {spot: place for place, spot in enumerate(columns[before])}
            columns[number] = _by_middle(columns[number], near, at)
    return columns


def _by_middle(spots: list[Spot], near: Mapping[Spot, list[Spot]], at: Mapping[Spot, int]) -> list[Spot]:
    def middle(place: int, spot: Spot) -> float:
        neighbours = [at[other] for other in near.get(spot, ()) if other in at]
        return sum(neighbours) / len(neighbours) if neighbours else place

    return [spot for _, spot in sorted(enumerate(spots), key=lambda item: middle(*item))]


BOX: Final = (232, 62)
GAP: Final = (170, 34)
MARGIN: Final = 24
LINE: Final = 16
_LETTERS: Final = (28, 34)
"""What fits into a box, of its name and of other lines."""
_ON_EDGE: Final = 26
_DASHES: Final = {"here": "", "signed": ' stroke-dasharray="12 5"', "claimed": ' stroke-dasharray="2 5"'}
_STYLE: Final = (
    "svg{background:#fff;font-family:system-ui,sans-serif;font-size:12px}"
    "rect{fill:#f6f8fa;stroke:#57606a}.missing{fill:#fff;stroke-dasharray:4 4}.root{stroke:#0550ae;stroke-width:2}"
    "path{fill:none;stroke:#24292f;stroke-width:1.6}.bad{stroke:#b42318}text.bad{fill:#b42318;stroke:none}"
    "text{fill:#24292f}.small{font-size:11px;fill:#57606a}.name{font-weight:600}.head{fill:#24292f;stroke:none}"
)


def render_svg(graph: LineageGraph) -> str:
    """The whole file, as text in UTF-8."""
    layout = lay_out(graph)
    notes = remarks(graph)
    widest = max([0, *(len(note) for note in notes), *(len(meaning) + 12 for meaning in BASES.values())]) * 6.6
    width = max(layout.columns * BOX[0] + (layout.columns - 1) * GAP[0], round(widest)) + 2 * MARGIN
    below = round(layout.rows * (BOX[1] + GAP[1])) + 2 * MARGIN
    height = below + LINE * (len(BASES) + len(notes) + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-labelledby="t">',
        f'<title id="t">Lineage of {_safe(title(graph.root))}</title><style>{_STYLE}</style>',
        '<defs><marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="head" d="M0 0L8 4L0 8z"/></marker></defs>',
        *_edges(layout),
        *(_box(graph, node, layout) for node in graph.nodes),
        *_legend(below, notes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _corner(place: tuple[int, float]) -> tuple[float, float]:
    """Left and top of the box in (column, row)."""
    return MARGIN + place[0] * (BOX[0] + GAP[0]), MARGIN + place[1] * (BOX[1] + GAP[1])


def _box(graph: LineageGraph, node: LineageNode, layout: Layout) -> str:
    x, y = _corner(layout.places[node.key])
    kind = "missing" if node.missing else "root" if node is graph.root else "box"
    lines = [title(node), *details(node)]
    texts = "".join(
        f'<text class="{"small" if number else "name"}" x="{x + 10:g}" y="{y + 20 + number * LINE:g}">'
        f"{_safe(_fitted(line, _LETTERS[number > 0]))}</text>"
        for number, line in enumerate(lines)
    )
    box = f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}" rx="6"/>'
    full = [*lines, f"sha256:{node.digest}"] if node.digest else lines
    return f"<g><title>{_safe(chr(10).join(full))}</title>{box}{texts}</g>"


def _edges(layout: Layout) -> Iterator[str]:
    """Lines first, so that boxes lie over them."""
    leaving: Counter[str] = Counter()
    for edge, stops in layout.ways:
        bad = " bad" if edge.licence.answer == "conflict" else ""
        told = _safe("\n".join([relation(edge), *grounds(edge)]))
        line = f'<path class="edge{bad}"{_DASHES[edge.basis]} d="{_curve(edge, stops)}" marker-end="url(#a)"/>'
        x, y = _word_place(edge, stops, leaving[edge.parent])
        leaving[edge.parent] += 1
        words = _safe(_fitted(_on_edge(edge), _ON_EDGE))
        yield f'<g><title>{told}</title>{line}<text class="small{bad}" x="{x:g}" y="{y:g}">{words}</text></g>'


def _on_edge(edge: LineageEdge) -> str:
    conflict = ", licence conflict" if edge.licence.answer == "conflict" else ""
    return relation(edge) + (", circle" if edge.closes else "") + conflict


def _word_place(edge: LineageEdge, stops: tuple[tuple[int, float], ...], before: int) -> tuple[float, float]:
    """Where the line leaves its box: by turns above and below it, where `before` others have theirs already."""
    x, y = _corner(stops[0])
    if edge.closes:
        return x + BOX[0] * 0.6 - 60, y - 8
    aside = 12 * (before // 2)
    return x + BOX[0] + 8, y + BOX[1] / 2 + (14 + aside if before % 2 else -6 - aside)


def _curve(edge: LineageEdge, stops: tuple[tuple[int, float], ...]) -> str:
    """From the right side of the parent's box to the left side of the child's, through the columns between them."""
    if edge.closes:
        return _around(stops)
    middle = BOX[1] / 2
    x, y = _corner(stops[0])
    x, y = x + BOX[0], y + middle
    path = f"M{x:g} {y:g}"
    for stop in stops[1:]:
        to_x, to_y = _corner(stop)
        to_y += middle
        half = (to_x - x) / 2
        path += f"C{x + half:g} {y:g} {to_x - half:g} {to_y:g} {to_x:g} {to_y:g}"
        x, y = to_x + (BOX[0] if stop is not stops[-1] else 0), to_y
        if stop is not stops[-1]:
            path += f"L{x:g} {y:g}"
    return path


def _around(stops: tuple[tuple[int, float], ...]) -> str:
    """A line that goes back: from the top of one box over to the top of the other."""
    from_x, from_y = _corner(stops[0])
    to_x, to_y = _corner(stops[-1])
    from_x, to_x = from_x + BOX[0] * 0.6, to_x + BOX[0] * 0.4
    return f"M{from_x:g} {from_y:g}C{from_x:g} {from_y - 30:g} {to_x:g} {to_y - 30:g} {to_x:g} {to_y:g}"


def _legend(top: int, notes: list[str]) -> Iterator[str]:
    y = top
    for basis, meaning in BASES.items():
        yield f'<path class="edge"{_DASHES[basis]} d="M{MARGIN} {y - 4}h56"/>'
        yield f'<text class="small" x="{MARGIN + 66}" y="{y}">{_safe(meaning)}</text>'
        y += LINE
    y += LINE // 2
    for note in notes:
        yield f'<text class="bad" x="{MARGIN}" y="{y}">{_safe(note)}</text>'
        y += LINE


def _fitted(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _safe(text: str) -> str:
    """For element content. Characters that XML cannot hold do not come here: words pass `plain`, but for line feeds."""
    return escape(text, {'"': "&quot;"})
