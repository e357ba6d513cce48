"""Patterns of names that an operator writes in a TOML file of rules: `*` and `?` are the only wildcards. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from comity.trust.errors import Malformed

MAX_PATTERNS: Final = 1_000
MAX_PATTERN: Final = 200
MAX_STARS: Final = 4
"""Stars of one pattern: what matching may cost grows with each."""
_PATTERN: Final = re.compile(r"[A-Za-z0-9_.:/\-*?+]+\Z")
_VERSIONED: Final = re.compile(r"[A-Za-z0-9_.:/\-*?+]+(@[A-Za-z0-9_.:/\-*?+]+)?\Z")


def read_texts(value: object) -> Sequence[str]:
    """A list of 1 to `MAX_PATTERNS` texts of at most `MAX_PATTERN` characters. Raises Malformed."""
    texts = [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
    if not isinstance(value, list) or not 1 <= len(value) == len(texts) <= MAX_PATTERNS:
        raise Malformed("rule is malformed", why=f"must be a list of 1 to {MAX_PATTERNS} texts")
    if any(not 1 <= len(text) <= MAX_PATTERN for text in texts):
        raise Malformed("rule is malformed", why=f"has a text that is empty or longer than {MAX_PATTERN} characters")
    return texts


def compile_patterns(texts: Sequence[str], *, versions: bool = False) -> re.Pattern[str]:
    """What one of these patterns fits, without regard to case. With `versions`, a pattern may end in `@` and a pattern
    of the version. Raises Malformed."""
    for text in texts:
        if not (_VERSIONED if versions else _PATTERN).match(text):
            why = f"has {text[:60]!r}, which is no pattern of letters, digits and - _ . : / * ?"
            raise Malformed("rule is malformed", why=why)
        if text.count("*") > MAX_STARS:
            raise Malformed("rule is malformed", why=f"has {text[:60]!r}, with more than {MAX_STARS} stars")
    return re.compile("(?:" + "|".join(map(_translate, texts)) + r")\Z", re.IGNORECASE)


def _translate(pattern: str) -> str:
    """`*` is any text without a slash, `?` any character but a slash."""
    parts = re.split(r"(\*+|\?)", pattern)
    return "".join("[^/]*" if part.startswith("*") else "[^/]" if part == "?" else re.escape(part) for part in parts)
