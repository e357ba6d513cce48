from collections.abc import Callable

import pytest
from comity.rules.toml_table import TomlTable, read_toml
from comity.trust.errors import Malformed

FILE = b"""
word = "a"
count = 3
day = 2027-06-30
list = ["x", "y"]
[inner]
key = 1
[[item]]
name = "one"
[[item.part]]
size = "big"
"""


def table() -> TomlTable:
    return read_toml(FILE, "shopping list")


def test_each_kind_of_value_is_read() -> None:
    found = table()
    assert found.one_of("word", ("a", "b")) == "a" and found.number("count", 1, 3) == 3
    assert str(found.day("day")) == "2027-06-30" and found.texts("list", most=2) == ("x", "y")
    assert found.number("absent", 1, 3, 0) == 0 and found.texts("absent", most=2) == ()
    inner, (item,) = found.table("inner"), found.tables("item", most=1, name="item")
    assert inner.number("key", 0, 1) == 1 and item.text("name") == "one"
    inner.done()
    found.done()


def part_of(found: TomlTable) -> TomlTable:
    return found.tables("item", most=1, name="item")[0].tables("part", most=1, name="part")[0]


@pytest.mark.parametrize(
    ("read", "why"),
    [
        (lambda t: t.text("count"), "'count' must be a text of 1 to 200 printable characters, not 3"),
        (lambda t: t.text("none"), "'none' is missing; it must be a text"),
        (lambda t: t.text("word", most=0), "printable characters, not 'a'"),
        (lambda t: t.one_of("word", ("b", "c")), "'word' must be \"b\" or \"c\", not 'a'"),
        (lambda t: t.number("count", 4, 9), "'count' must be a whole number from 4 to 9, not 3"),
        (lambda t: t.day("count"), "'count' must be a date without quotes"),
        (lambda t: t.texts("list", most=1), "'list' must be a list of at most 1 texts"),
        (lambda t: t.texts("list", most=2, of=0), "'list' must be a list of texts"),
        (lambda t: t.table("word"), "'word' must be a table, not 'a'"),
        (lambda t: t.tables("inner", most=1, name="inner"), "1 to 1 tables [[inner]]"),
        (lambda t: t.table("inner").number("key", 2, 3), "inner: 'key' must be a whole number from 2 to 3, not 1"),
        (lambda t: t.table("inner").done(), "inner: unknown key 'key'; known keys: "),
        (
            lambda t: part_of(t).number("size", 1, 2),
            "item 1 'one', part 1: 'size' must be a whole number from 1 to 2, not 'big'",
        ),
    ],
)  # fmt: skip
def test_an_error_names_the_place_and_what_would_be_right(read: Callable[[TomlTable], object], why: str) -> None:
    with pytest.raises(Malformed, match="shopping list is malformed") as refused:
        read(table())
    assert why in refused.value.why
