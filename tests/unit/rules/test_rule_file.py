"""Files of named rules: the bounds of each field, and the refusal beyond each bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from comity.rules.rule_file import (
    MAX_BYTES,
    MAX_PATTERN,
    MAX_PATTERNS,
    MAX_RULES,
    MAX_STARS,
    name_pattern,
    read_rule_file,
    read_texts,
)
from comity.trust.errors import Malformed


@dataclass(frozen=True)
class Named:
    name: str
    value: int


def made(name: str, item: Mapping[str, Any]) -> Named:
    return Named(name, item.get("value", 0))


def refusal(why: str) -> Malformed:
    return Malformed("the file is malformed", why=why)


def read(text: str | bytes) -> tuple[Mapping[str, Any], tuple[Named, ...]]:
    data = text.encode() if isinstance(text, str) else text
    return read_rule_file(data, {"zone", "area"}, {"name", "value"}, made, refusal)


def why(text: str | bytes) -> str:
    with pytest.raises(Malformed) as refused:
        read(text)
    return refused.value.why


def rule(name: str = '"a"', more: str = "") -> str:
    return f"[[rule]]\nname = {name}\n{more}\n"


def test_rules_are_read_in_their_order_beside_the_other_keys() -> None:
    document, rules = read("zone = 1\n" + rule('"b"', "value = 2") + rule('"a"'))
    assert (document["zone"], rules) == (1, (Named("b", 2), Named("a", 0)))
    assert read("") == ({}, ())


def test_a_file_of_the_most_bytes_and_the_most_rules_is_read() -> None:
    text = "".join(rule(f'"{number}"') for number in range(MAX_RULES))
    assert len(read(text + "#" * (MAX_BYTES - len(text)))[1]) == MAX_RULES
    assert str(MAX_BYTES) in why(text + "#" * (MAX_BYTES - len(text) + 1))
    assert str(MAX_RULES) in why(text + rule('"one more"'))


@pytest.mark.parametrize("listed", ["rule = 1", 'rule = "abc"', "rule = {}"])
def test_rules_that_are_no_list_are_refused(listed: str) -> None:
    assert "[[rule]]" in why(listed)


def test_the_first_unknown_key_is_named_beside_those_that_are_known() -> None:
    unknown = "\n".join(f"x{number} = 1" for number in range(60, 9, -1))
    assert why(unknown) == "unknown key 'x10'; known: area, rule, zone"
    assert why(rule() + rule('"b"', unknown)) == "rule 2 has an unknown key 'x10'; known: name, value"
    assert why("rule = [1]") == "rule 1 must be a table"
    assert "'" + "x" * 60 + "'" in why("x" * 61 + " = 1")


def test_a_name_is_printable_text_of_bounded_length_and_names_one_rule() -> None:
    for name in ("a", "x" * MAX_PATTERN, "grüße an alle"):
        assert read(rule(f'"{name}"'))[1] == (Named(name, 0),)
    for bad in ('""', '"' + "x" * (MAX_PATTERN + 1) + '"', r'"a\nb"', r'"\u202e"', "1", '["a"]'):
        assert why(rule() + rule(bad)).startswith("rule 2 needs a name"), bad
    assert why("[[rule]]").startswith("rule 1 needs a name")
    assert why(rule() + rule('"b"') + rule()) == "two rules have one name"


def test_invalid_toml_and_utf_8_are_refused_with_a_short_reason() -> None:
    for data in (b"zone = ", b"zone = 1\n# \xff", b"zone = " + b"[" * 5_000, b"zone = 1" + b"0" * 5_000):
        assert 0 < len(why(data)) <= 200


def test_texts_are_read_at_each_bound_and_refused_beyond_it() -> None:
    for texts in (["a"], ["x" * MAX_PATTERN, "y"], ["a"] * MAX_PATTERNS):
        assert read_texts(texts) == texts
    for bad in (None, "a", ("a",), {"a": 1}, [], ["a"] * (MAX_PATTERNS + 1), ["a", 1], [1], [True]):
        with pytest.raises(Malformed, match=f"list of 1 to {MAX_PATTERNS} texts"):
            read_texts(bad)
    for bad in ([""], ["a", ""], ["a", "x" * (MAX_PATTERN + 1)]):
        with pytest.raises(Malformed, match="empty or longer"):
            read_texts(bad)


@pytest.mark.parametrize(
    ("pattern", "fits", "others"),
    [
        ("lab/x", ["lab/x", "LAB/X"], ["lab/xy", "a/lab/x", "lab/x\n", "lab-x"]),
        ("lab/x.1", ["lab/x.1"], ["lab/xy1"]),
        ("lab/*", ["lab/", "lab/x", "lab/x.y"], ["lab", "lab/x/y"]),
        ("lab/**", ["lab/x"], ["lab/x/y"]),
        ("lab/?", ["lab/x"], ["lab/", "lab/xy", "lab//"]),
        ("lab/x+", ["lab/x+"], ["lab/xx", "lab/x"]),
        ("hf:a/b-c_d", ["hf:a/b-c_d"], ["hf:a/b-c-d"]),
    ],
)
def test_a_pattern_fits_these_names_and_no_others(pattern: str, fits: list[str], others: list[str]) -> None:
    for found in (name_pattern([pattern]), name_pattern(["never", pattern]), name_pattern([pattern], versions=True)):
        assert [name for name in [*fits, *others] if found.match(name)] == fits


def test_only_patterns_with_versions_name_a_version_and_no_pattern_has_many_stars() -> None:
    assert name_pattern(["lab/x@v?"], versions=True).match("lab/x@v1")
    assert not name_pattern(["lab/x@v?"], versions=True).match("lab/x")
    assert name_pattern(["a*" * MAX_STARS]).match("ab" * MAX_STARS)
    for bad in ("lab/x@v1", "a(b)", "a b", "", "a\n", "a*" * (MAX_STARS + 1)):
        with pytest.raises(Malformed):
            name_pattern(["fine", bad])
    for bad in ("lab/x@", "@v1", "a@b@c", "a(b)", "a\n"):
        with pytest.raises(Malformed):
            name_pattern(["fine", bad], versions=True)
