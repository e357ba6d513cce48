"""Values on a page from right to left: each stands apart, code stays from left to right, and no mark is left over."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from comity.gateway.console.directions import settled, shown, shown_apart
from comity.gateway.console.words import Translations, environment
from markupsafe import Markup, escape
from support.console import HOSTILE, read_page

MARK = re.compile("[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]")


def test_a_value_stands_apart_only_where_a_page_is_from_right_to_left() -> None:
    assert shown("a\u202eb") == "ab"
    assert settled(f"{shown_apart('a')}: {shown_apart(3)}") == "<bdi>a</bdi>: <bdi>3</bdi>"
    assert shown_apart("") == ""
    assert shown_apart(Markup("<b>")) == "<b>"


def test_commands_and_digests_have_the_direction_of_code_and_nothing_else_in_them() -> None:
    page = f'<pre class="command"><code>comity pull {shown_apart("a/b")}</code></pre> <code>{shown_apart("ab")}</code>'
    assert (
        settled(page) == '<pre dir="ltr" class="command"><code>comity pull a/b</code></pre> <code dir="ltr">ab</code>'
    )


def test_attributes_have_no_marks_and_titles_and_options_no_elements() -> None:
    value = shown_apart("a")
    page = f'<title>{value} – Comity</title><a href="/{value}">{value}</a><option value="{value}">{value} (3)</option>'
    assert settled(page) == (
        '<title>\u2068a\u2069 – Comity</title><a href="/a"><bdi>a</bdi></a><option value="a">\u2068a\u2069 (3)</option>'
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_values_neither_end_their_element_nor_turn_the_text(text: str) -> None:
    page = settled(str(Markup('<p title="{0}">{0}</p><code>{0}</code>').format(escape(shown_apart(text)))))
    read = read_page(page)
    assert [name for name, _ in read.elements] == ["p", "bdi", "code"]
    assert read.problems == [] and not MARK.search(page)


def test_the_style_sheet_knows_no_left_and_no_right() -> None:
    sheet = resources.files("comity.gateway.console").joinpath("static", "console.css").read_text("utf-8")
    assert re.findall(r"[^;{]*(?:-(?:left|right)|text-align: *(?:left|right)|[{; ](?:left|right)) *[:;]", sheet) == []


@pytest.mark.parametrize("frame", [".scroll", ".map-frame", ".picture"])
def test_on_paper_nothing_is_left_out_of_a_frame_that_scrolls(frame: str) -> None:
    sheet = resources.files("comity.gateway.console").joinpath("static", "console.css").read_text("utf-8")
    rules = re.findall(r"([^{}]+)\{([^{}]*)\}", sheet.partition("@media print {")[2])
    (declared,) = (rule for names, rule in rules if frame in re.split(r"[,\s]+", names.strip()))
    assert "overflow: visible" in declared


def test_the_templates_of_a_language_from_left_to_right_show_values_as_they_are() -> None:
    assert environment("en").from_string("{{ a }}").render(a="x\u2068") == "x"
    assert Translations("en").filled("%(a)s <b>", {"a": "<i>"}) == "&lt;i&gt; <b>"
