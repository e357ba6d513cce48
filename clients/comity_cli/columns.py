"""How wide the columns of a table are where the terminal is narrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len

GAP: Final = 2
"""Cells between two columns."""


def fitted(rows: Sequence[Sequence[str]], room: int) -> list[int | None]:
    """A width for each column, such that no word is broken: what people copy (a URL, a digest, syllables) stays in one
    piece, and columns of several words wrap. None for all where everything fits, and where no widths would do.
    """
    columns = list(zip(*rows, strict=True))
    room -= GAP * (len(columns) - 1)
    widths = [max(map(cell_len, column)) for column in columns]
    least = [max(cell_len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    if sum(widths) <= room or sum(least) > room:
        return [None] * len(columns)
    widths = [min(width, room) for width in widths]
    while sum(widths) > room:
        widest = max((n for n in range(len(widths)) if widths[n] > least[n]), key=lambda n: widths[n])
        widths[widest] -= 1
    return list(widths)
