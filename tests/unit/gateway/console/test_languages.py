"""The languages of the console: each has its message file, and a reader's language is the reader's choice."""

from __future__ import annotations

from importlib import resources

from comity.gateway.console.languages import LANGUAGES, choose_language


def test_each_language_but_english_has_a_file_and_each_file_a_language() -> None:
    files = resources.files("comity.gateway.console").joinpath("locales").iterdir()
    assert {f"{language}.po" for language in LANGUAGES if language != "en"} == {file.name for file in files}


def test_each_language_has_names_for_six_sizes() -> None:
    assert {len(language.units) for language in LANGUAGES.values()} == {6}


def test_the_language_is_the_readers_choice_then_the_browsers() -> None:
    assert choose_language("fr", "en") == "fr"
    assert choose_language("", "fr-CH, fr;q=0.9, en;q=0.8") == "fr"
    assert choose_language("", "xx, en;q=0.5, fr;q=0.4") == "en"
    assert choose_language("xx", "yy") == "en"
    assert choose_language("", "fr;q=9, en;q=0.1") == "en"
    assert choose_language("", ";q=,,,fr;q=9" * 1000) in LANGUAGES
