"""JSON objects from dataclasses: each rule at its bounds, members that are merged, null or absent, and whole values."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import pytest
from comity.trust.codec import (
    ABSENT,
    Given,
    JsonBytes,
    JsonFollows,
    JsonItems,
    JsonMap,
    JsonMerged,
    JsonNumber,
    JsonObject,
    JsonPath,
    JsonRead,
    JsonText,
    JsonTime,
    JsonWord,
    OrAbsent,
    OrNull,
    rule_of,
    shape_of,
)
from comity.trust.encoding import MAX_INTEGER, MAX_TEXT, Digest, Fields, Json, sha256
from comity.trust.errors import Malformed

DIGEST = sha256(b"a digest")


@dataclass(frozen=True, slots=True)
class Inner(JsonObject):
    size: int
    note: Annotated[str | None, JsonText(10), ABSENT] = None


@dataclass(frozen=True, slots=True)
class Pair(JsonObject):
    left: Annotated[int, JsonNumber(1, 9)]
    right: Annotated[int, JsonNumber(1, 9)]


@dataclass(frozen=True, slots=True)
class Whole(JsonObject):
    """A value with a member of each rule."""

    constants: ClassVar = {
        "schema": "tests/whole/v1",
        "sum": JsonFollows(lambda whole: str(whole.merged.left + whole.merged.right), re.compile(r"[0-9]{1,2}\Z")),
    }
    name: str
    count: int
    flag: bool
    digest: Digest
    inner: Inner
    merged: Annotated[Pair, JsonMerged()]
    kind: Annotated[str, JsonWord(("a", "b"))]
    time: Annotated[int, JsonTime()]
    data: Annotated[bytes, JsonBytes(4)]
    exact: Annotated[bytes, JsonBytes(size=3)]
    hexed: Annotated[
        int, JsonRead(lambda text: int(text, 16), re.compile(r"[0-9a-f]+\Z"), write=lambda n: f"{n:x}", most=4)
    ]
    items: Annotated[tuple[int, ...], JsonItems(3, 1, once=True)]
    several: Annotated[tuple[Inner | None, ...], JsonItems(2)]
    named: Annotated[dict[str, int], JsonMap(2, re.compile(r"[a-z]{1,3}\Z"))]
    some: Annotated[dict[str, bool], JsonMap(2, ("x", "y"))]
    deep: Annotated[int, JsonPath("outer.deep")]
    by: Annotated[str, Given("author")]
    null: int | None = None
    absent: Annotated[int | None, ABSENT] = None
    pair: Annotated[Pair | None, JsonMerged("pair")] = None
    derived: int = field(default=7, init=False)


GOOD: dict[str, Any] = {
    "name": "a name", "count": 0, "flag": True, "digest": DIGEST, "inner": Inner(1), "merged": Pair(1, 9), "kind": "a",
    "time": 0, "data": b"1234", "exact": b"123", "hexed": 0xFFFF, "items": (1, 2, 3), "several": (None, Inner(2, "x")),
    "named": {"abc": 1}, "some": {"y": True}, "deep": 5, "by": "me",
}  # fmt: skip


def whole(**changed: Any) -> Whole:
    return Whole(**{**GOOD, **changed})


def read(value: Json) -> Whole:
    return Whole.read(Fields(value, "whole"), author="me")


def changed(**members: Any) -> dict[str, Json]:
    return {**whole().to_json(), **members}


def test_each_member_is_at_its_place() -> None:
    assert whole(null=3, absent=4, pair=Pair(2, 3)).to_json() == {
        "schema": "tests/whole/v1", "sum": "10", "name": "a name", "count": 0, "flag": True, "digest": DIGEST,
        "inner": {"size": 1}, "left": 1, "right": 9, "kind": "a", "time": "1970-01-01T00:00:00Z", "data": "MTIzNA==",
        "exact": "MTIz", "hexed": "ffff", "items": [1, 2, 3], "several": [None, {"size": 2, "note": "x"}],
        "named": {"abc": 1}, "some": {"y": True}, "outer": {"deep": 5}, "null": 3, "absent": 4,
        "pair": {"left": 2, "right": 3},
    }  # fmt: skip
    plain = whole().to_json()
    assert plain["null"] is None and "absent" not in plain and "pair" not in plain and "by" not in plain


@pytest.mark.parametrize("seed", range(20))
def test_reading_is_the_inverse_of_writing(seed: int) -> None:
    chance = random.Random(seed)

    def number() -> int:
        return chance.choice((0, 1, chance.randrange(MAX_INTEGER), MAX_INTEGER))

    def line() -> str:
        return "".join(chance.choices("aé-字 ", k=chance.randint(1, 8))).strip() or "x"

    def inner() -> Inner:
        return Inner(number(), chance.choice((None, line())))

    def pair() -> Pair:
        return Pair(chance.randint(1, 9), chance.randint(1, 9))

    made = whole(
        name=line(),
        count=number(),
        flag=chance.random() < 0.5,
        inner=inner(),
        merged=pair(),
        kind=chance.choice("ab"),
        time=chance.randrange(2**31),
        data=chance.randbytes(chance.randint(0, 4)),
        hexed=chance.randint(0, 0xFFFF),
        items=tuple(chance.sample(range(100), chance.randint(1, 3))),
        several=tuple(chance.choice((None, inner())) for _ in range(chance.randint(0, 2))),
        named={name: number() for name in chance.sample(("a", "ab", "abc"), chance.randint(0, 2))},
        some={name: chance.random() < 0.5 for name in chance.sample("xy", chance.randint(0, 2))},
        null=chance.choice((None, number())),
        absent=chance.choice((None, number())),
        pair=chance.choice((None, pair())),
    )
    assert read(made.to_json()) == made


@pytest.mark.parametrize(
    "members",
    [
        {"name": ""},
        {"name": "x" * (MAX_TEXT + 1)},
        {"name": "a\nb"},
        {"name": 1},
        {"count": -1},
        {"count": MAX_INTEGER + 1},
        {"count": True},
        {"count": 1.0},
        {"flag": 1},
        {"digest": "0" * 63},
        {"inner": None},
        {"inner": {}},
        {"inner": {"size": 1, "more": 1}},
        {"inner": {"size": 1, "note": None}},
        {"inner": {"size": 1, "note": "x" * 11}},
        {"left": 0},
        {"right": 10},
        {"kind": "c"},
        {"kind": ["a"]},
        {"time": "1970-01-01"},
        {"time": 0},
        {"data": "MTIzNDU="},
        {"data": "MTIzNA"},
        {"exact": "MTI="},
        {"hexed": "10000"},
        {"items": []},
        {"items": [1, 2, 3, 4]},
        {"items": [1, 1]},
        {"items": ["1"]},
        {"items": {}},
        {"several": [{"size": 1}] * 3},
        {"several": [{"size": -1}]},
        {"named": {"a": 1, "b": 1, "c": 1}},
        {"named": {"abcd": 1}},
        {"named": {"": 1}},
        {"named": {"a": None}},
        {"named": []},
        {"some": {"z": True}},
        {"some": {"x": 1}},
        {"outer": {}},
        {"outer": {"deep": 5, "more": 1}},
        {"outer": 5},
        {"absent": None},
        {"null": "x"},
        {"pair": {"left": 1}},
        {"pair": {"left": 1, "right": 1, "more": 1}},
        {"schema": "tests/whole/v2"},
        {"schema": None},
        {"sum": "11"},
        {"sum": 10},
        {"more": 1},
        {"by": "me"},
        {"derived": 7},
    ],
)  # fmt: skip
def test_a_value_beyond_a_bound_is_refused(members: dict[str, Json]) -> None:
    with pytest.raises(Malformed):
        read(changed(**members))


@pytest.mark.parametrize("name", list(whole().to_json()))
def test_every_member_but_those_that_may_be_absent_is_required(name: str) -> None:
    value = whole().to_json()
    del value[name]
    with pytest.raises(Malformed):
        read(value)


@pytest.mark.parametrize("value", [None, [], "x", 1, {}, [{}]])
def test_another_value_than_an_object_is_refused(value: Json) -> None:
    with pytest.raises(Malformed):
        read(value)
    with pytest.raises(Malformed):
        Inner.from_json(value)


def test_a_count_is_checked_before_the_items_are_read() -> None:
    rule = JsonItems(2, of=JsonRead(lambda text: pytest.fail("an item was read"), "text"))
    with pytest.raises(Malformed):
        rule.read(Fields({"items": ["x"] * 3}, "test"), "items")
    named = JsonMap(1, re.compile("[a-z]"), of=rule.of)
    with pytest.raises(Malformed):
        named.read(Fields({"named": {"a": "x", "b": "x"}}, "test"), "named")


def test_the_shape_names_each_member_with_its_path() -> None:
    shape = shape_of(Whole)
    paths = {member.path: member for member in shape.members}
    assert ("outer", "deep") in paths and ("pair", "left") in paths and ("left",) in paths and ("by",) not in paths
    assert shape.given == {"author": "by"} and shape.inner == {("outer",): False, ("pair",): True}
    assert isinstance(paths["null",].rule, OrNull) and not paths["null",].optional
    assert isinstance(paths["absent",].rule, OrAbsent) and paths["absent",].optional
    assert shape_of(Whole) is shape


def test_a_type_without_a_rule_has_none() -> None:
    for kind in (bytes, float, dict, object):
        with pytest.raises(TypeError):
            rule_of(kind)
