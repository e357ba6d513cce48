"""Curves as SVG, without a library: panels beside one another, linear axes from zero, a dot for each measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 340, 260, 56, 44, 40
COLOURS = ("#0b6e99", "#c2570c", "#4d7c0f")


@dataclass(frozen=True)
class Panel:
    """`curves` are named points (x, y); y is in the unit that the title names."""

    title: str
    x: str
    curves: Mapping[str, Sequence[tuple[float, float]]]


def draw(path: Path, panels: Sequence[Panel]) -> None:
    """Write the panels, left to right."""
    size = f'width="{WIDTH * len(panels)}" height="{HEIGHT}" viewBox="0 0 {WIDTH * len(panels)} {HEIGHT}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">']
    parts.append('<rect width="100%" height="100%" fill="white"/>')
    for at, panel in enumerate(panels):
        parts += [f'<g transform="translate({at * WIDTH} 0)">', *_panel(panel), "</g>"]
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _panel(panel: Panel) -> list[str]:
    points = [point for curve in panel.curves.values() for point in curve]
    most_x, most_y = max(x for x, _ in points), max(y for _, y in points) or 1
    wide, high = WIDTH - LEFT - 20, HEIGHT - TOP - BOTTOM
    base = TOP + high

    def place(x: float, y: float) -> tuple[float, float]:
        return round(LEFT + wide * x / most_x, 1), round(base - high * y / most_y, 1)

    parts = [f'<text x="{LEFT}" y="16" font-weight="bold">{escape(panel.title)}</text>']
    for share in (0, 0.5, 1):
        y = place(0, share * most_y)[1]
        parts.append(f'<path d="M{LEFT} {y}h{wide}" stroke="#ccc"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{share * most_y:.3g}</text>')
    for x in sorted({x for x, _ in points}):
        if x >= most_x / 8:
            parts.append(f'<text x="{place(x, 0)[0]}" y="{base + 14}" text-anchor="middle">{x:g}</text>')
    parts.append(f'<text x="{LEFT + wide / 2}" y="{base + 30}" text-anchor="middle">{escape(panel.x)}</text>')
    for at, (name, curve) in enumerate(panel.curves.items()):
        colour, dots = COLOURS[at % len(COLOURS)], [place(x, y) for x, y in sorted(curve)]
        way = "L".join(f"{x} {y}" for x, y in dots)
        parts.append(f'<path d="M{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in dots]
        parts.append(f'<text x="{LEFT + 8}" y="{TOP + 16 + 14 * at}" fill="{colour}">{escape(name)}</text>')
    return parts
