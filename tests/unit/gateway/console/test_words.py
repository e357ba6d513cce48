"""The words of pages: every message has its translation in every language, with what must stay as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources

import pytest
from comity.gateway.console.directions import settled
from comity.gateway.console.languages import LANGUAGES
from comity.gateway.console.words import Formats, environment, parse_po, translations
from comity.trust.errors import Malformed
from comity.trust.statement_kinds import STATEMENT_KINDS

HEAD = 'msgid ""\nmsgstr "Plural-Forms: nplurals=2; plural=(n > 1);"\n\n'
KEPT = re.compile(r"<[^>]*>|&\w+;|\.?\b\w*[_\d]\w*|\w+\.\w+|comity \w+|[●✕✓]", re.ASCII)
"""What stays in a translation: markup, numbers, names of files, fields and algorithms, commands and signs."""
UNSEEN = re.compile("[\u0000-\u001f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
PLACEHOLDER = re.compile(r"%\((\w+)\)s")
MARKED = re.compile(r'marked\(\s*"((?:[^"\\]|\\.)*)"')
TRANSLATED = [language for language in LANGUAGES if language != "en"]
VERIFIED = {"fr": "vérifi", "de": r"\b(ge)?prüfen\b|geprüft", "ar": "تُ?حقِّ?ّ?ق", "ko": "검증", "hi": "सत्याप"}
"""What only the word for "verified" has in it, in each language."""


def test_a_catalogue_that_cannot_be_read_is_refused() -> None:
    for bad in ('msgid "a"\nmsgstr b\n', 'msgid "a"\nmsgstr "b"\n', HEAD.replace("n > 1", "n > ")):
        with pytest.raises(Malformed):
            parse_po(bad, "fr")
    read = parse_po(HEAD + '#, fuzzy\nmsgid "a"\nmsgstr "b"\n\nmsgid "c\\n"\nmsgstr "d"\n"e"\n', "fr")
    assert read.messages == {"c\n": ("de",)}


def test_a_number_has_the_plural_form_that_the_head_of_its_file_declares() -> None:
    three = "nplurals=3; plural=(n == 0 ? 0 : n == 1 ? 1 : 2);"
    forms = "".join(f'msgstr[{number}] "{number}"\n' for number in range(3))
    read = parse_po(HEAD.replace("nplurals=2; plural=(n > 1);", three) + f'msgid "a"\nmsgid_plural "b"\n{forms}', "fr")
    assert [read.ngettext("a", "b", count) for count in (0, 1, 2, 3)] == ["0", "1", "2", "2"]
    assert [read.ngettext("c", "d", count) for count in (0, 1)] == ["d", "c"]


def messages() -> Iterator[tuple[str, str]]:
    """Every message of the templates and of the code: the singular, and the plural or the same again."""
    templates = resources.files("comity.gateway.console").joinpath("templates")
    for file in templates.iterdir():
        for _, _, found in environment("en").extract_translations(file.read_text("utf-8")):  # type: ignore[attr-defined]
            if isinstance(found, tuple):
                texts = [text for text in found if text]
                if texts:
                    yield texts[0], texts[-1]
            elif found:
                yield found, found
    for file in resources.files("comity.gateway.console").iterdir():
        if file.name.endswith(".py"):
            yield from ((text, text) for text in MARKED.findall(file.read_text("utf-8")))
    for unit in ("day", "hour", "minute", "second"):
        yield f"%(num)s {unit}", f"%(num)s {unit}s"
    yield from ((kind.did, kind.did) for kind in STATEMENT_KINDS.values() if kind.logged)


@pytest.mark.parametrize("language", TRANSLATED)
def test_every_message_is_translated_with_the_same_placeholders(language: str) -> None:
    """A form for one number only may leave the number out."""
    words, wanted = translations(language), dict(messages())
    assert sorted(set(wanted) - set(words.messages)) == []
    assert sorted(set(words.messages) - set(wanted)) == []
    counts = [[count for count in range(1_000) if words.form(count) == form] for form in range(words.forms)]
    for one, many in wanted.items():
        forms = words.messages[one]
        assert len(forms) == (1 if one == many else words.forms), one
        for form, numbers in zip(forms, counts, strict=False):
            implied = {"num"} if one != many and len(numbers) == 1 else set()
            assert placeholders(form) | implied == placeholders(many) | implied, one


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_translation_keeps_markup_numbers_names_and_commands(language: str) -> None:
    for message, forms in translations(language).messages.items():
        for form in forms:
            assert kept(form) == kept(message), message


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_translation_calls_verified_what_the_message_calls_so(language: str) -> None:
    """What somebody claimed, tested or checked is not called verified; readers may be told to verify it themselves."""
    word = re.compile(VERIFIED[language], re.IGNORECASE)
    for message, forms in translations(language).messages.items():
        if message != "Check it yourself" and word.search(" ".join(forms)):
            assert "verif" in message.lower()
    assert word.search(translations(language).gettext("Verified here"))


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_translation_has_no_character_that_cannot_be_seen(language: str) -> None:
    """Marks of direction are made where a page needs them; a space at an end is a slip."""
    for forms in translations(language).messages.values():
        for form in forms:
            assert form == form.strip() and not UNSEEN.search(form), form


def placeholders(text: str) -> set[str]:
    return set(PLACEHOLDER.findall(text))


def kept(text: str) -> list[str]:
    return sorted(KEPT.findall(PLACEHOLDER.sub("", text)))


@pytest.mark.slow
def test_pages_of_all_languages_share_their_templates() -> None:
    """The compiled code is shared: the language of the first page must not decide that of the others."""
    for name in environment("en").list_templates():
        made = [environment(language) for language in LANGUAGES]
        sources = [each.loader.get_source(each, name)[0] for each in made if each.loader]
        assert len({each.compile(text, name, name, raw=True) for each, text in zip(made, sources, strict=True)}) == 1


@pytest.mark.parametrize("text", ["{{ 'overview' | words }}", "{{ 2500000 | size }}", "{{ 90000 | span }}"])
def test_compiling_a_template_calls_no_filter_that_depends_on_the_language(text: str) -> None:
    sources = {environment(language).compile(text, raw=True) for language in LANGUAGES}
    assert len(sources) == 1
    assert "environment.filters" in sources.pop()


def test_arabic_has_six_forms_of_a_number() -> None:
    shown = environment("ar").from_string("{{ ngettext('%(num)s file', '%(num)s files', count) }}")
    texts = [settled(shown.render(count=count)) for count in (0, 1, 2, 5, 42, 300)]
    assert texts[:3] == ["لا ملفات", "ملف واحد", "ملفان"]
    assert texts[3:] == ["5 ملفات", "42 ملفًا", "300 ملف"]


def test_numbers_are_written_as_the_language_writes_them() -> None:
    english, french = (Formats(translations(language)) for language in ("en", "fr"))
    assert (english.count(12_345), french.count(12_345)) == ("12,345", "12\u202f345")
    files = "{{ ngettext('%(num)s file', '%(num)s files', 12345) }}"
    shown = [environment(language).from_string(files).render() for language in ("en", "fr")]
    assert shown == ["12,345 files", "12\u202f345 fichiers"]
    assert (english.size(999), english.size(1_500), english.size(250_000_000)) == ("999\xa0B", "1.5\xa0kB", "250\xa0MB")
    german = Formats(translations("de"))
    assert (german.count(12_345), german.size(1_500), german.span(180_000)) == ("12.345", "1,5\xa0kB", "2 Tage")
    korean = Formats(translations("ko"))
    assert (korean.span(60), korean.span(180_000)) == ("1분", "2일")
    assert (french.size(1_500), english.size(5 * 10**18)) == ("1,5\xa0ko", "5000\xa0PB")
    assert (english.span(90_000), french.span(0)) == ("1 day", "0 seconde")


def test_a_line_of_french_never_begins_with_a_sign() -> None:
    for forms in translations("fr").messages.values():
        for form in forms:
            assert not re.search(" [:;?!»]|« ", form), form


def test_a_marked_message_is_shown_as_its_translation_has_it() -> None:
    """A value of a stranger loses characters that it may not have; a translation keeps its spaces."""
    shown = environment("fr").from_string("{{ text | words }}")
    for kind in STATEMENT_KINDS.values():
        assert shown.render(text=kind.did) == translations("fr").gettext(kind.did)
