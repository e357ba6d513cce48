"""Reads a TOML file with a list of named rules, as operators write it: for mirroring, and for retention. Pure.

    other keys of the document                    those that the caller knows
    [[rule]]                                      at most MAX_RULES tables, with the keys that the caller knows
    name = "…"                                    of each rule: printable text, given once

Rules name artifacts by patterns: `*` and `?` are the only wildcards.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, Protocol, TypeVar

from comity.trust.errors import Malformed

MAX_PATTERNS: Final = 1_000
MAX_PATTERN: Final = 200
MAX_STARS: Final = 4
"""Stars of one pattern: what matching may cost grows with each."""
_PATTERN: Final = re.compile(r"[A-Za-z0-9_.:/\-*?+]+\Z")
_VERSIONED: Final = re.compile(r"[A-Za-z0-9_.:/\-*?+]+(@[A-Za-z0-9_.:/\-*?+]+)?\Z")
MAX_BYTES: Final = 1024 * 1024
MAX_RULES: Final = 1_000


def read_texts(value: object) -> Sequence[str]:
    """A list of 1 to `MAX_PATTERNS` texts of at most `MAX_PATTERN` characters. Raises Malformed."""
    texts = [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
    if not isinstance(value, list) or not 1 <= len(value) == len(texts) <= MAX_PATTERNS:
        raise Malformed("rule is malformed", why=f"must be a list of 1 to {MAX_PATTERNS} texts")
    if any(not 1 <= len(text) <= MAX_PATTERN for text in texts):
        raise Malformed("rule is malformed", why=f"has a text that is empty or longer than {MAX_PATTERN} characters")
    return texts


def name_pattern(texts: Sequence[str], *, versions: bool = False) -> re.Pattern[str]:
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


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Rule = TypeVar("Rule", bound=_Named)


def read_rule_file(
    data: bytes,
    known: AbstractSet[str],
    rule_keys: AbstractSet[str],
    read_rule: Callable[[str, Mapping[str, Any]], Rule],
    malformed: Callable[[str], Malformed],
) -> tuple[Mapping[str, Any], tuple[Rule, ...]]:
    """Returns the document, and its rules in their order.

    Args:
        known: keys of the document besides "rule".
        rule_keys: keys of a rule.
        read_rule: makes a rule of its name and its table.
        malformed: makes the error that is raised, from its reason.

    Raises Malformed, also what `read_rule` raises.
    """
    if len(data) > MAX_BYTES:
        raise malformed(f"at most {MAX_BYTES} bytes are read")
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # invalid TOML or UTF-8
        raise malformed(str(error)[:200]) from error
    keys = {*known, "rule"}
    if unknown := sorted(document.keys() - keys):
        raise malformed(f"unknown key {unknown[0][:60]!r}; known: {', '.join(sorted(keys))}")
    listed = document.get("rule", [])
    if not isinstance(listed, list) or len(listed) > MAX_RULES:
        raise malformed(f"'rule' must be at most {MAX_RULES} tables: [[rule]]")
    rules = tuple(read_rule(_name(item, number, rule_keys, malformed), item) for number, item in enumerate(listed, 1))
    if len({rule.name for rule in rules}) != len(rules):
        raise malformed("two rules have one name")
    return document, rules


def _name(item: object, number: int, keys: AbstractSet[str], malformed: Callable[[str], Malformed]) -> str:
    if not isinstance(item, dict):
        raise malformed(f"rule {number} must be a table")
    if unknown := sorted(item.keys() - keys):
        raise malformed(f"rule {number} has an unknown key {unknown[0][:60]!r}; known: {', '.join(sorted(keys))}")
    name = item.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_PATTERN or not name.isprintable():
        raise malformed(f"rule {number} needs a name: printable text of at most {MAX_PATTERN} characters")
    return name
