"""A lineage graph as one SVG file: no script, no font, no address in it, and every word escaped.

Boxes are artifacts, ancestors left. How a line is drawn says on what it rests, and the legend says it in words: solid
was made again on this machine, long dashes are somebody's signed word that they did, short dashes a mere claim. Each
box and line has all that is known about it as its title, which browsers show and readers read aloud.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final
from xml.sax.saxutils import escape

from comity.drawing.layers import Layout, lay_out
from comity.drawing.words import BASES, details, grounds, relation, remarks, title
from comity.trust.lineage import Edge, Graph, Node

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


def render_svg(graph: Graph) -> str:
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


def _box(graph: Graph, node: Node, layout: Layout) -> str:
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


def _on_edge(edge: Edge) -> str:
    conflict = ", licence conflict" if edge.licence.answer == "conflict" else ""
    return relation(edge) + (", circle" if edge.closes else "") + conflict


def _word_place(edge: Edge, stops: tuple[tuple[int, float], ...], before: int) -> tuple[float, float]:
    """Where the line leaves its box: by turns above and below it, where `before` others have theirs already."""
    x, y = _corner(stops[0])
    if edge.closes:
        return x + BOX[0] * 0.6 - 60, y - 8
    aside = 12 * (before // 2)
    return x + BOX[0] + 8, y + BOX[1] / 2 + (14 + aside if before % 2 else -6 - aside)


def _curve(edge: Edge, stops: tuple[tuple[int, float], ...]) -> str:
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
