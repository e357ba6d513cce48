"""Model cards as HTML. A card is text of a stranger.

CommonMark with tables is parsed by markdown-it-py with HTML switched off; the parser's own renderer is not used. This
module writes HTML from a table of allowed elements, and escapes everything else, so that no text of a card can become
markup. There are no images, because they would be loaded from elsewhere. A link is kept if it begins with https: or
http:, and says to the browser that it is untrusted. Headings move down by two levels, below those of the page.

Decision: markdown-it-py, because rich installs it already, it is the reference of CommonMark in Python, and its cost is
near linear (0.7 s for the worst 64 KiB found); a subset of our own would surprise authors. nh3 would clean HTML, but
here none is made from the card, and it is a compiled package more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

MAX_CARD: Final = 32 * 1024
"""Bytes of a card that are shown. The whole file is one of the artifact's files."""
MAX_LINK: Final = 2_000
LINK_RELATION: Final = "nofollow noopener noreferrer ugc"

_FRONT_MATTER: Final = re.compile(r"\A---[ \t]*\r?\n.*?\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_LINK: Final = re.compile(r"https?://[^\s<>\"'\\]+\Z", re.IGNORECASE)
_BIDI: Final = {ord(mark): None for mark in "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c"}
"""Marks that change the direction of the text after them; with them, a card could rewrite its surroundings. They are
taken from what is written: Markdown makes them from entities such as `&#x202e;`, too."""
_ELEMENTS: Final = {
    "paragraph": "p",
    "bullet_list": "ul",
    "ordered_list": "ol",
    "list_item": "li",
    "blockquote": "blockquote",
    "thead": "thead",
    "tbody": "tbody",
    "tr": "tr",
    "th": "th",
    "td": "td",
    "em": "em",
    "strong": "strong",
}


def card_html(card: bytes) -> Markup:
    """The beginning of a card, at most `MAX_CARD` bytes, as HTML that cannot contain its markup. CPU-bound: up to 0.4 s
    for a hostile card."""
    text = card[:MAX_CARD].decode("utf-8", "replace").replace("\0", "\ufffd")
    return Markup("").join(_render(_parser().parse(_FRONT_MATTER.sub("", text, count=1))))


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt  # loaded with the first card: most nodes show none for days

    parser = MarkdownIt("commonmark", {"html": False, "linkify": False, "maxNesting": 20})
    return parser.enable("table").disable(["html_block", "html_inline", "image"])


def _render(tokens: Sequence[Token]) -> Iterator[Markup]:
    closing: list[Markup] = []
    for token in tokens:
        if token.type == "inline":
            yield from _render(token.children or ())
        elif token.type.endswith("_open"):
            opened, closed = _tags(token)
            if not token.hidden:
                yield opened
            closing.append(Markup("") if token.hidden else closed)
        elif token.type.endswith("_close"):
            if closing:
                yield closing.pop()
        else:
            yield _leaf(token)


def _tags(token: Token) -> tuple[Markup, Markup]:
    """The start and the end of an element; both empty for one that is not allowed."""
    kind = token.type.removesuffix("_open")
    if kind == "heading":
        level = min(6, int(token.tag[1:]) + 2)
        return Markup(f"<h{level}>"), Markup(f"</h{level}>\n")
    if kind == "table":
        return Markup('<div class="scroll" tabindex="0" role="group"><table>'), Markup("</table></div>\n")
    if kind == "link":
        target = str(token.attrGet("href") or "").translate(_BIDI)
        if len(target) > MAX_LINK or not _LINK.match(target):
            return Markup("<span>"), Markup("</span>")
        return Markup('<a href="{}" rel="{}">').format(target, LINK_RELATION), Markup("</a>")
    name = _ELEMENTS.get(kind)
    if name is None:
        return Markup(""), Markup("")
    return Markup(f"<{name}>"), Markup(f"</{name}>") + ("\n" if token.block else "")


def _leaf(token: Token) -> Markup:
    if token.type in ("fence", "code_block"):
        return Markup('<pre tabindex="0"><code>{}</code></pre>\n').format(_shown(token))
    if token.type == "code_inline":
        return Markup("<code>{}</code>").format(_shown(token))
    if token.type == "softbreak":
        return Markup("\n")
    if token.type == "hardbreak":
        return Markup("<br>\n")
    if token.type == "hr":
        return Markup("<hr>\n")
    return escape(_shown(token))


def _shown(token: Token) -> str:
    return token.content.translate(_BIDI)
