"""Pages of the console, read as a browser would: their elements and text, forbidden content, hostile texts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"meta", "link", "input", "br", "hr", "img"})
ISOLATED = re.compile("\u2068([^\u2066-\u2069]*)\u2069")
"""A value between marks, as it stands where no element may be (`comity.gateway.console.directions`)."""
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "</title></select></textarea><svg/onload=alert(1)>",
    "{{ 7 * 7 }}{% include 'base.html' %}",
    "%(num)s %s %",
    "safe\u202egnp.exe\u2066",
    "\x1b[31m\x00\x07\r\n\u2028",
    "a" * 4_000,
)
"""Names and notes of strangers. Some are no valid names; each test takes those that it can use."""

HOSTILE_CARDS = tuple(
    text.encode()
    for text in (
        *HOSTILE,
        "[click](javascript:alert(1))",
        "[click](JaVaScRiPt:alert(1)) [x](data:text/html;base64,PHNjcmlwdD4=) [y](vbscript:x)",
        "[click](&#106;avascript:alert(1)) [click](\\javascript:alert(1))",
        '<https://a.example/"onmouseover=alert(1)>',
        "<javascript:alert(1)>",
        "[a]: javascript:alert(1)\n\n[a] [b][a]",
        "![x](https://tracker.example/x.png) ![y](javascript:alert(1))",
        '[x](https://a.example "title\\" onmouseover=\\"alert(1)")',
        "<details open ontoggle=alert(1)>",
        "<!-- --><iframe src=//a.example></iframe>",
        "```html\n</code></pre><script>alert(1)</script>\n```",
        '``` "><script>alert(1)</script>\nx\n```',
        "| <script> | b |\n|--|--|\n| <img src=x onerror=alert(1)> | [x](javascript:alert(1)) |",
        "<style>*{display:none}</style>\n\n<div style=position:fixed>",
        "[" * 5_000 + "](" * 5_000,
        "> " * 5_000 + "x",
        "- " * 5_000 + "x",
        "---\n" * 5_000,
        "\u202e" * 50 + "# reversed",
        "[x](//evil.example) [y](/-/logs) [z](#main)",
    )
)


@dataclass
class ReadPage(HTMLParser):
    """`elements` in their order with attributes, `text` without them, `problems` of the nesting."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""
    problems: list[str] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        alone = self._open and self._open[-1] in ("title", "option")
        self.text += ISOLATED.sub(r"\1", data) if alone else data

    def found(self, name: str) -> list[dict[str, str]]:
        """The attributes of every element of a name."""
        return [attributes for tag, attributes in self.elements if tag == name]


def read_page(text: str) -> ReadPage:
    page = ReadPage()
    page.feed(text)
    page.close()
    return page


def check_page(text: str) -> ReadPage:
    """Read a page and assert the rules for all pages: its elements nest, no styles or scripts are inline, tables are
    tables.
    """
    page = read_page(text)
    assert page.problems == []
    names = {name for name, _ in page.elements}
    assert not names & {"script", "style", "iframe", "object", "embed", "base", "math"}
    for name, attributes in page.elements:
        assert "style" not in attributes
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("href", "src", "action"):
            target = attributes.get(key, "")
            assert target.startswith(("/", "#", "?", "https://", "http://")) or not target, (name, target)
            assert not target.startswith("//")
    assert len(page.found("h1")) == len(page.found("main")) == 1
    assert page.found("html")[0]["lang"]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    labels = {attributes.get("for") for attributes in page.found("label")}
    for kind in ("input", "select"):
        for control in page.found(kind):
            assert control.get("type") == "hidden" or control["id"] in labels
    assert not [character for character in page.text if character in "\u202a\u202b\u202d\u202e\u2066\u2067\u2068"]
    return page
