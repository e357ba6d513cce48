"""The words of a page: message catalogues, numbers and dates, and the template environment.

A catalogue is a .po file, as translators' tools write it; it is parsed when the node starts, so nothing is compiled
(Babel would compile the same files to .mo in a build step).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from decimal import Decimal
from functools import cache
from gettext import c2py
from importlib import resources
from types import CodeType
from typing import Any, Final

from jinja2 import BytecodeCache, Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.bccache import Bucket
from jinja2.runtime import Context
from markupsafe import Markup

from comity.gateway.console.directions import shown, shown_apart
from comity.gateway.console.languages import LANGUAGES
from comity.trust.encoding import format_moment, short
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen

_ESCAPES: Final = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}
_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*)"\Z')
_PLURAL_FORMS: Final = re.compile(r"Plural-Forms: *nplurals=([1-9]); *plural=([^;\n]{1,300});")


def marked(message: str) -> str:
    """Mark a message that is translated where it is shown."""
    return message


def _english(count: int) -> int:
    return int(count != 1)


@frozen
class Translations:
    """The messages of one language: by message, its translation in each plural form; `form` returns the index of the
    form for a number."""

    language: str
    messages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    forms: int = 2
    form: Callable[[int], int] = _english

    def gettext(self, message: str) -> str:
        return self.messages.get(message, (message,))[0]

    def ngettext(self, one: str, many: str, count: int) -> str:
        forms = self.messages.get(one, ())
        if len(forms) == self.forms:
            return forms[self.form(count)]
        return (one, many)[_english(count)]

    def filled(self, message: str, values: Mapping[str, object]) -> Markup:
        """A message of this language with values, which are escaped and shown as elsewhere on a page."""
        return Markup(message) % {name: self.show(value) for name, value in values.items()}

    @property
    def show(self) -> Callable[[object], object]:
        """What makes text of a value: Jinja calls it for what stands alone in a template, and `filled` for the rest."""
        return shown_apart if LANGUAGES[self.language].direction == "rtl" else shown


def parse_po(text: str, language: str) -> Translations:
    """Parse a .po file; entries marked fuzzy are left out. Raises Malformed."""
    messages: dict[str, tuple[str, ...]] = {}
    for entry in _entries(text):
        forms = tuple(value for name, value in entry.items() if name.startswith("msgstr"))
        if "msgid" in entry and all(forms):
            messages[entry["msgid"]] = forms
    (head,) = messages.pop("", ("",))
    declared = _PLURAL_FORMS.search(head)
    if declared is None:
        raise Malformed("a message catalogue cannot be read", why="no Plural-Forms in its head")
    try:
        form = c2py(declared[2])
    except ValueError as error:
        raise Malformed("a message catalogue cannot be read", why=f"its Plural-Forms: {error}") from error
    return Translations(language, messages, int(declared[1]), form)


def _entries(text: str) -> Iterator[dict[str, str]]:
    entry: dict[str, str] = {}
    name, fuzzy = "", False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        line = line.strip()
        if line.startswith("#"):
            fuzzy |= line.startswith("#,") and "fuzzy" in line
            continue
        if not line:
            if entry and not fuzzy:
                yield entry
            entry, name, fuzzy = {}, "", False
            continue
        keyword, _, rest = line.partition(" ") if not line.startswith('"') else (name, "", line)
        if not line.startswith('"'):
            name = keyword
            entry[name] = ""
        value = _STRING.match(rest.strip())
        if value is None or not name:
            raise Malformed("a message catalogue cannot be read", why=f"line {number}: {line[:80]}")
        entry[name] += re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), value[1])


@cache
def translations(language: str) -> Translations:
    if language == next(iter(LANGUAGES)):
        return Translations(language)
    file = resources.files(__package__ or "").joinpath("locales", f"{language}.po")
    return parse_po(file.read_text("utf-8"), language)


class _SharedCode(BytecodeCache):
    """Compiles a template once for all languages: their environments differ by functions only, which are called when a
    page is made (`_at_rendering`)."""

    def __init__(self) -> None:
        self._compiled: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._compiled.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        if bucket.code is not None:
            self._compiled[bucket.key, bucket.checksum] = bucket.code


_SHARED_CODE: Final = _SharedCode()


def _at_rendering(made: Callable[..., object]) -> Callable[..., object]:
    """A filter that Jinja does not call when it compiles a template: its text depends on the language."""

    @pass_context
    def called(context: Context, *values: object, **named: object) -> object:
        return made(*values, **named)

    return called


@cache
def environment(language: str) -> Environment:
    """The templates in a language. Every value is escaped, and shown as module directions does it."""
    words = translations(language)
    formats = Formats(words)
    made = Environment(
        loader=PackageLoader("comity.gateway.console", "templates"),
        extensions=["jinja2.ext.i18n"],
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_at_rendering(words.show),
        bytecode_cache=_SHARED_CODE,
    )
    made.install_gettext_callables(words.gettext, words.ngettext, newstyle=True)  # type: ignore[attr-defined]

    def gettext(message: str, **values: object) -> Markup:
        return words.filled(words.gettext(message), values)

    def translated(message: str) -> Markup:
        return Markup(words.gettext(message))

    def ngettext(one: str, many: str, num: int, **values: object) -> Markup:
        return words.filled(words.ngettext(one, many, num), {"num": formats.count(num), **values})

    made.globals |= {"gettext": gettext, "ngettext": ngettext, "_": gettext}
    made.globals |= {"comma": Markup(LANGUAGES[language].comma), "semicolon": Markup(LANGUAGES[language].semicolon)}
    made.filters |= {
        "size": _at_rendering(formats.size),
        "count": _at_rendering(formats.count),
        "amount": _at_rendering(formats.amount),
        "decimal": _at_rendering(formats.decimal),
        "moment": moment,
        "day": day,
        "span": _at_rendering(formats.span),
        "short": short,
        "words": _at_rendering(translated),
    }
    return made


def prepare_templates() -> None:
    """Blocking. Parse all catalogues and templates, so that no reader waits for it."""
    for language in LANGUAGES:
        made = environment(language)
        for name in made.list_templates():
            made.get_template(name)


def moment(seconds: float) -> str:
    """`2027-01-04 00:00 UTC`."""
    return format_moment(seconds, "%Y-%m-%d %H:%M UTC")


def day(seconds: float) -> str:
    """`2027-01-04`."""
    return format_moment(seconds, "%Y-%m-%d")


class Formats:
    """Numbers, sizes and durations as a language writes them."""

    def __init__(self, words: Translations) -> None:
        self._words = words
        self._language = LANGUAGES[words.language]

    def count(self, number: int) -> Markup:
        return Markup(f"{number:,}".replace(",", self._language.thousands))

    def decimal(self, number: Decimal) -> Markup:
        """`1,051`, `12.3`, `0.004`: with two digits at least."""
        language = self._language
        if number >= 100 or number == number.to_integral_value():
            return self.count(int(number.to_integral_value()))
        if number < Decimal("0.001"):
            return Markup("&lt;0{}001").format(language.point)
        text = f"{number:.1f}" if number >= 10 else f"{number:.2f}" if number >= 1 else f"{number:.2g}"
        return Markup(text.replace(".", language.point))

    def amount(self, number: int) -> str:
        """A large number with three digits, such as `22.7 million`."""
        translate: Any = self._words.gettext
        for words, least in ((marked("%(number)s billion"), 1_000_000_000), (marked("%(number)s million"), 1_000_000)):
            if number >= least:
                value = number / least
                shown = f"{value:.{0 if value >= 100 else 1}f}".replace(".", self._language.point)
                return str(translate(words)) % {"number": shown}
        return str(self.count(number))

    def size(self, octets: int) -> Markup:
        """Bytes in decimal units, with three digits."""
        value, units = float(octets), self._language.units
        power = 0
        while value >= 1000 and power < len(units) - 1:
            value, power = value / 1000, power + 1
        digits = 0 if not power or value >= 100 else 1
        number = f"{value:.{digits}f}".replace(".", self._language.point)
        return Markup(f"{number}\u00a0{units[power]}")

    def span(self, seconds: float) -> str:
        """A duration in its largest unit."""
        translate: Any = self._words.ngettext
        for one, many, length in (
            ("%(num)s day", "%(num)s days", 86_400),
            ("%(num)s hour", "%(num)s hours", 3_600),
            ("%(num)s minute", "%(num)s minutes", 60),
        ):
            if seconds >= length:
                number = int(seconds // length)
                return str(translate(one, many, number)) % {"num": number}
        number = max(0, int(seconds))
        return str(translate("%(num)s second", "%(num)s seconds", number)) % {"num": number}
