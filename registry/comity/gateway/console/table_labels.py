"""Tables of pages with the title of its column in each cell, so that a narrow window can show each row as a card.

A style sheet cannot read the head of a table, and pages have no scripts. The titles are taken from the rendered head,
so no template writes one twice. A row whose cells do not fit the head, such as one over all columns, is left as it is.
"""

from __future__ import annotations

import re
from typing import Final

_WITHIN: Final = r"([^<]*(?:<(?!/?(?:thead|tbody)\b)[^<]*)*)"
"""Up to the end of a part. It never looks beyond: cards of models may have thousands of heads without a body."""
_TABLE: Final = re.compile(f"<thead>{_WITHIN}</thead>\\s*<tbody>{_WITHIN}</tbody>")
_TITLE: Final = re.compile(r"<th\b[^>]*>(.*?)</th>", re.DOTALL)
_ROW: Final = re.compile(r"<tr>.*?</tr>", re.DOTALL)
_CELL: Final = re.compile(r"<(td|th)\b(?=[\s>])")
_TAG: Final = re.compile(r"<[^>]*>")


def labelled_tables(page: str) -> str:
    """Return a page whose cells of tables with a head have `data-label`. The tables are those of the templates: values
    in them are escaped, and no table is within another."""
    return _TABLE.sub(_labelled, page)


def _labelled(table: re.Match[str]) -> str:
    titles = [_TAG.sub("", title).replace('"', "&quot;").strip() for title in _TITLE.findall(table[1])]
    rows = _ROW.sub(lambda row: _row(row[0], titles), table[2])
    return f"<thead>{table[1]}</thead>\n<tbody>{rows}</tbody>"


def _row(row: str, titles: list[str]) -> str:
    if len(_CELL.findall(row)) != len(titles):
        return row
    left = iter(titles)
    return _CELL.sub(lambda cell: f'<{cell[1]} data-label="{next(left)}"', row)
