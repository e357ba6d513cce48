"""The page of what was found: everything is there, and nothing of a name becomes markup or is hidden."""

from __future__ import annotations

import re

import pytest
from comity_client.identify import page
from comity_client.identify.page import HEADLINES, render_identified
from support.identified import BAD, identified


def rendered(*unknown: str, status: int = 3) -> str:
    return render_identified(identified(*unknown), status, 1_800_000_000, "ministry.toml", "{} B".format)


def test_everything_that_was_found_is_on_the_page() -> None:
    text = rendered()
    for said in (
        HEADLINES[3],
        "2027-01-15T08:00:00Z",
        "ministry.toml",
        "org/good@v1",
        "the policy needs a vouch",
        f"sha256:{BAD}",
        "stored as org/x@main",
        "a b.bin",
        "config.json",
        "undecided",
        "an unpacker could write it outside its folder",
        "timed out",
        "says that it left nothing out",
        "tuned/one.safetensors",
        "8 of 9 the same, 80 B of 90 B",
        "x = a",
        "quantised from org/bad@v1, as lab [abcd] computed and signed",
    ):
        assert said in text, said


def test_a_name_is_no_markup_and_has_no_control_character() -> None:
    text = rendered()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not any(sign in text for sign in ("\x1b", "\u202e", "\udcff"))
    assert text.encode()


def test_the_page_loads_and_runs_nothing() -> None:
    text = rendered("plain")
    assert "default-src 'none'" in text
    assert not re.search(r"<(script|link|img|iframe|object|form)\b|\bon\w+=|url\(|https?://", text)


def test_a_page_is_the_same_for_the_same_result_and_each_status_has_a_sentence() -> None:
    assert rendered() == rendered()
    assert all(sentence in rendered(status=status) for status, sentence in HEADLINES.items())


def test_tables_end_and_say_how_many_more_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MAX_ROWS", 3)
    text = rendered(*(f"file-{number}" for number in range(10)))
    assert "file-2" in text and "file-3" not in text and "7 more are not shown here" in text
