"""The columns of a table: aligned for a pipe, or fitted to a narrow terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

GAP: Final = 2
"""Cells between two columns."""
LEAST_NAME: Final = 12
"""Cells to which a name is shortened at most."""
ELLIPSIS: Final = "…"


def cell_len(text: str) -> int:
    """The cells of a terminal that a text takes."""
    if text.isascii() and text.isprintable():
        return len(text)
    from rich import cells  # its tables are loaded where a text needs them

    return cells.cell_len(text)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in which nothing is wrapped or cut."""
    widths = _widths(rows)
    return [_line(row, widths) for row in rows]


def shortened(rows: Sequence[Sequence[str]], columns: Sequence[int], space: int) -> list[list[str]]:
    """Return the rows with the cells of these columns shortened in the middle, the widest column first, until the table
    fits in `space` cells or each has `LEAST_NAME` cells."""
    widths = _widths(rows)
    space -= GAP * (len(widths) - 1)
    while sum(widths) > space:
        long = [n for n in columns if widths[n] > LEAST_NAME]
        if not long:
            break
        widths[max(long, key=lambda n: widths[n])] -= 1
    return [[shorten(cell, widths[n]) if n in columns else cell for n, cell in enumerate(row)] for row in rows]


def shorten(text: str, width: int) -> str:
    """Return `text` without its middle, so that it takes at most `width` cells."""
    head, tail = (len(text) + 1) // 2, len(text) // 2
    if cell_len(text) <= width:
        return text
    while head + tail and cell_len(text[:head] + ELLIPSIS + text[len(text) - tail :]) > width:
        head, tail = (head - 1, tail) if head > tail else (head, tail - 1)
    return text[:head] + ELLIPSIS + text[len(text) - tail :]


def column_widths(rows: Sequence[Sequence[str]], space: int) -> list[int | None]:
    """Return a width in cells for each column so that no word is broken: values that people copy (a URL, a digest,
    syllables) stay on one line, and columns of several words wrap. All None if everything fits in `space`, or if
    no widths fit.
    """
    columns = list(zip(*rows, strict=True))
    space -= GAP * (len(columns) - 1)
    widths = _widths(rows)
    least = [max(cell_len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    if sum(widths) <= space or sum(least) > space:
        return [None] * len(columns)
    widths = [min(width, space) for width in widths]
    while sum(widths) > space:
        widest = max((n for n in range(len(widths)) if widths[n] > least[n]), key=lambda n: widths[n])
        widths[widest] -= 1
    return list(widths)


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(*rows, strict=True)]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
    return (" " * GAP).join(padded).rstrip()
