"""The languages of the console: a row here and a message file are all that a language needs.

English is the text of the templates, so it has no file. The plural forms of a language are those that the head of its
file declares. A reader's language is `?lang=`, else the best match of Accept-Language, else English.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

from comity.trust.frozen import frozen


@frozen
class Language:
    """A language: its own name, its direction, the signs in its numbers, its units of 1, 10^3, ... 10^15 bytes, and the
    signs between parts of a sentence."""

    name: str
    direction: Literal["ltr", "rtl"] = "ltr"
    thousands: str = ","
    point: str = "."
    units: tuple[str, ...] = ("B", "kB", "MB", "GB", "TB", "PB")
    comma: str = ", "
    semicolon: str = "; "


_FRENCH_UNITS: Final = ("o", "ko", "Mo", "Go", "To", "Po")
_ARABIC_UNITS: Final = ("بايت", "كيلوبايت", "ميغابايت", "غيغابايت", "تيرابايت", "بيتابايت")
LANGUAGES: Final[Mapping[str, Language]] = {
    "en": Language("English"),
    "fr": Language("Français", thousands="\u202f", point=",", units=_FRENCH_UNITS, semicolon="\u00a0; "),
    "de": Language("Deutsch", thousands=".", point=","),
    "ar": Language("العربية", "rtl", units=_ARABIC_UNITS, comma="، ", semicolon="؛ "),
    "ko": Language("한국어"),
    "hi": Language("हिन्दी"),
}
"""By the first part of a language tag (RFC 5646), in the order of the menu. Files of all but English: `locales`."""
MAX_ACCEPT_LANGUAGE: Final = 200


def choose_language(query: str, accepted: str) -> str:
    """The language for `?lang=` and an Accept-Language header."""
    if query in LANGUAGES:
        return query
    best, most = next(iter(LANGUAGES)), 0.0
    for part in accepted[:MAX_ACCEPT_LANGUAGE].split(","):
        tag, _, quality = part.strip().partition(";q=")
        language = tag.strip().lower().partition("-")[0]
        weight = float(quality) if re.fullmatch(r"[01](?:\.[0-9]{1,3})?", quality) else 0.0 if quality else 1.0
        if language in LANGUAGES and weight > most:
            best, most = language, weight
    return best
