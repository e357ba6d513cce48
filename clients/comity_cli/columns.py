"""Column widths of a table on a narrow terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len

GAP: Final = 2
"""Cells between two columns."""


def column_widths(rows: Sequence[Sequence[str]], space: int) -> list[int | None]:
    """Return a width in cells for each column so that no word is broken: values that people copy (a URL, a digest,
    syllables) stay on one line, and columns of several words wrap. All None if everything fits in `space`, or if
    no widths fit.
    """
    columns = list(zip(*rows, strict=True))
    space -= GAP * (len(columns) - 1)
    widths = [max(map(cell_len, column)) for column in columns]
    least = [max(cell_len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    if sum(widths) <= space or sum(least) > space:
        return [None] * len(columns)
    widths = [min(width, space) for width in widths]
    while sum(widths) > space:
        widest = max((n for n in range(len(widths)) if widths[n] > least[n]), key=lambda n: widths[n])
        widths[widest] -= 1
    return list(widths)
