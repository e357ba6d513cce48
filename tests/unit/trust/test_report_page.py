"""The page of a report: it needs no other file, names each state in words, and treats texts of others as plain text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from comity.trust.evidence import BASES, STATES, Evidence, Row, RowFact, Verdict
from comity.trust.policy import ROWS, Policy
from comity.trust.report import VerdictReport
from comity.trust.rows.publication import COMPARE
from comity.trust.verify import verify
from comity_client.reports import BASIS_MEANS, QUESTIONS, STATE_MEANS, meaning, render_page
from hypothesis import given, settings
from hypothesis import strategies as st
from support.case import case
from support.examples import examples

GOOD = VerdictReport.of(case().verdict(), "1.0")
VOID = {"meta", "br"}
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "main", "section", "h1", "h2", "p", "strong", "span", "code"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "ul", "li", "dl", "dt", "dd", "br"),
}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><style>*{display:none}",
    "</title><h1>PASS",
    "&lt;b&gt; & &amp; '\"",
    "javascript:alert(1)",
    "\x1b[2J\x00\r\n",
    "‮txt.exe⁦",
    "\udcff",
)


class Reader(HTMLParser):
    """Elements, attributes and text; fails if an element is closed that is not open."""

    def __init__(self, document: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(document)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def said_everywhere(text: str) -> VerdictReport:
    facts = tuple(RowFact(text, basis, text) for basis in BASES)
    rows = tuple(Row(name, STATES[at % len(STATES)], text, at, "short", facts, text) for at, name in enumerate(ROWS, 1))
    return VerdictReport.of(Verdict(None, text, rows, 4, None, ROWS[:3]), "1.0")


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_of_strangers_stay_plain_text(text: str) -> None:
    document = render_page(said_everywhere(text))
    reader = Reader(document)
    assert {tag for tag, _ in reader.elements} <= ALLOWED
    assert document.count("<style>") == document.count("</style>") == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", document)
    assert len(reader.elements) == len(Reader(render_page(said_everywhere("word"))).elements)


@given(st.text(st.characters(), min_size=1, max_size=30))
@settings(max_examples=examples(40))
def test_no_text_at_all_adds_an_element_or_an_attribute(text: str) -> None:
    elements = Reader(render_page(said_everywhere(text))).elements
    assert elements == Reader(render_page(said_everywhere("word"))).elements


def test_the_page_fetches_and_runs_nothing() -> None:
    elements = Reader(render_page(GOOD)).elements
    allowed = {"lang", "charset", "http-equiv", "content", "name", "class", "aria-label", "scope"}
    assert {name for _, attributes in elements for name in attributes} == allowed
    assert "url(" not in render_page(GOOD)
    assert "@import" not in render_page(GOOD)
    policy = next(a["content"] for tag, a in elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_all_rows_states_and_bases_are_on_the_page_as_text() -> None:
    text = Reader(render_page(GOOD)).text
    for word in (*ROWS, *QUESTIONS.values(), *STATE_MEANS.values(), *BASIS_MEANS.values()):
        assert word in text
    assert "ACCEPTED: every row" in text
    for row in GOOD.verdict.rows:
        assert row.summary in text
        assert all(fact.evidence in text for fact in row.facts if fact.evidence)


def test_tables_have_captions_and_headers_with_a_scope() -> None:
    elements = Reader(render_page(GOOD)).elements
    tables, captions = (sum(tag == name for tag, _ in elements) for name in ("table", "caption"))
    assert tables == captions == 3
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in elements if tag == "th")
    assert elements[0] == ("html", {"lang": "en"})


def test_the_same_report_gives_the_same_page_without_a_time() -> None:
    assert render_page(GOOD) == render_page(VerdictReport.parse(GOOD.encode()))
    assert not re.search(r"20\d\d-\d\d-\d\dT", render_page(GOOD))


@pytest.mark.parametrize(
    ("status", "words"), [(3, "Do not use"), (4, "The bytes are valid"), (5, "Pull again"), (8, "partial")]
)
def test_each_exit_status_means_something_else(status: int, words: str) -> None:
    what = meaning(replace(GOOD.verdict, exit_status=status))
    assert words in what.advice
    assert what.headline.startswith(f"NOT ACCEPTED (exit {status})")


def test_rows_that_are_not_required_and_failed_are_marked() -> None:
    rows = tuple(replace(row, state="fail") if row.name in ("licence", "bytes") else row for row in GOOD.verdict.rows)
    what = meaning(replace(GOOD.verdict, rows=rows, exit_status=3))
    assert [row.name for row in what.deciding] == ["bytes"]
    assert [row.name for row in what.notable] == ["licence"]


def test_after_a_failed_check_the_next_step_is_another_pull_and_not_to_trust_the_publisher() -> None:
    rows = tuple(
        replace(row, state="unknown", hint=f"{COMPARE} X") if row.name == "key policy" else row
        for row in GOOD.verdict.rows
    )
    accepted = replace(GOOD.verdict, rows=rows)
    assert meaning(accepted).steps == (f"{COMPARE} X",)
    assert meaning(replace(accepted, exit_status=3)).steps == (f"comity pull {accepted.name} --out ELSEWHERE",)


def test_a_folder_without_a_manifest_is_reported_as_such() -> None:
    what = meaning(verify(Evidence(None, None), Policy()))
    assert [row.name for row in what.deciding] == ["artifact"]
    assert "no manifest beside these files" in what.advice
    assert what.steps == ("comity pull REF",)
