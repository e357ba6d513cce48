"""Reads a TOML file with a list of named rules, as operators write it: for mirroring, and for retention. Pure.

other keys of the document                    those that the caller knows
[[rule]]                                      at most MAX_RULES tables, with the keys that the caller knows
name = "…"                                    of each rule: printable text, given once
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final, Protocol, TypeVar

from comity.trust.errors import Malformed
from comity.trust.name_patterns import MAX_PATTERN

MAX_BYTES: Final = 1024 * 1024
MAX_RULES: Final = 1_000


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
