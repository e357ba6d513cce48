"""The direction of text on a page, in which values of strangers stand.

A value loses all marks that turn text around. On a page that is written from right to left each value is then set
apart from the text around it, so that neither changes the order of the other (Unicode Standard Annex 9, isolates): the
templates' environment puts marks around the value, and `settled` makes elements of the marks. Commands, digests and
other code stay as they are, from left to right: people copy them.
"""

from __future__ import annotations

import re
from typing import Final

from comity.trust.encoding import printable

_MARKS: Final = re.compile("[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]")
_BEGIN: Final = "\u2068"
_END: Final = "\u2069"
_PART: Final = re.compile(
    r"<(?P<code>pre|code)(?P<rest>[\s>].*?</(?P=code)>)"
    r"|(?P<tag><(?:option|title)\b[^>]*>)(?P<text>[^<]*)"
    f"|<[^>]*>|[{_BEGIN}{_END}]",
    re.DOTALL,
)
"""Code; an element that has text and no elements; another tag; a mark."""
_ELEMENTS: Final = {_BEGIN: "<bdi>", _END: "</bdi>"}


def shown(value: object) -> object:
    """A value on a page: markup, or text without control characters and direction marks."""
    return value if hasattr(value, "__html__") else shown_text(str(value))


def shown_apart(value: object) -> object:
    """A value on a page from right to left, between marks; the page is given to `settled`."""
    text = shown(value)
    return text if hasattr(value, "__html__") or not text else f"{_BEGIN}{text}{_END}"


def shown_text(text: str) -> str:
    """`text` without control characters and direction marks."""
    return printable(_MARKS.sub("", text))


def settled(page: str) -> str:
    """Return a page with an element around each value: none in attributes and code, which has its direction instead,
    and marks where no element may be."""
    return _PART.sub(_settled, page)


def _settled(part: re.Match[str]) -> str:
    if part["code"]:
        return f'<{part["code"]} dir="ltr"{_MARKS.sub("", part["rest"])}'
    if part["tag"]:
        return _MARKS.sub("", part["tag"]) + part["text"]
    return _ELEMENTS.get(part[0]) or _MARKS.sub("", part[0])
