"""Derived schemas say of each member what its reader says: the same values fit, and the same are beyond a bound."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pytest
from comity.trust.codec import (
    ABSENT,
    JsonBytes,
    JsonFollows,
    JsonItems,
    JsonMap,
    JsonNumber,
    JsonObject,
    JsonPath,
    JsonPlain,
    JsonRead,
    JsonText,
    JsonTime,
    JsonWord,
    MemberRule,
    OrNull,
    rule_of,
)
from comity.trust.content import ById, Content, SideFile, SubjectDigest
from comity.trust.encoding import MAX_INTEGER, Digest, Fields, parse_decimal, sha256
from comity.trust.errors import Malformed
from comity.trust.statement import Author, SideObject
from comity.trust.statement_kinds import PUBLISHED
from statement_schemas import object_schema, predicate_schema, rule_schema, summary
from support.command_documents import fits

OBJECT = SideObject(sha256(b"1"), 10)
RULES: dict[str, tuple[MemberRule, list[Any], list[Any]]] = {
    "text": (JsonText(3), ["a", "abc"], ["", "abcd", "a\nb", "\x7f", 1, None]),
    "lines": (JsonText(5, 0, lines=True), ["", "a\nb"], ["abcdef", "a\x00", "a\rb"]),
    "integer": (rule_of(int), [0, MAX_INTEGER], [-1, MAX_INTEGER + 1, "1", True, 1.5]),
    "number": (JsonNumber(2, 5), [2, 5], [1, 6, "2"]),
    "word": (JsonWord(("a", "b")), ["a", "b"], ["c", "", None]),
    "flag": (rule_of(bool), [True, False], [0, "true", None]),
    "digest": (rule_of(Digest), [sha256(b"x")], ["0" * 63, "A" * 64, 1]),
    "time": (JsonTime(), ["2026-11-25T15:04:05Z"], ["2026-11-25", "2026-11-25T15:04:05+01:00", 5]),
    "data": (JsonBytes(3), ["", "MTIz"], ["MTIzNA==", "MTI", "*", 1]),
    "exact": (JsonBytes(size=3), ["MTIz"], ["", "MTIzNDU2"]),
    "read": (JsonRead(parse_decimal, re.compile(r"[0-9]+\Z"), most=3), ["1", "123"], ["", "1234", "x", "1\n", 1]),
    "items": (JsonItems(2, 1, of=JsonNumber(0, 9), once=True), [[1], [1, 2]], [[], [1, 2, 3], [1, 1], [10], {}]),
    "map": (
        JsonMap(2, re.compile(r"[a-z]\Z"), of=JsonNumber(0, 9)),
        [{}, {"a": 1, "b": 2}],
        [{"ab": 1}, {"a": 10}, []],
    ),
    "names": (JsonMap(2, ("x", "y"), of=JsonNumber(0, 9)), [{"x": 1}], [{"z": 1}, {"x": "1"}]),
    "null": (OrNull(JsonNumber(0, 9)), [None, 9], [10, "1"]),
    "file": (SideFile(10), [OBJECT.to_json()], [SideObject(sha256(b"1"), 11).to_json(), {}, None]),
}


def reads(rule: MemberRule, value: Any) -> bool:
    try:
        rule.read(Fields({"member": value}, "test"), "member")
    except Malformed:
        return False
    return True


@pytest.mark.parametrize("name", RULES)
def test_a_schema_fits_what_the_reader_takes(name: str) -> None:
    rule, good, bad = RULES[name]
    schema = rule_schema(rule)
    assert [value for value in good if not (fits(schema, value) and reads(rule, value))] == []
    assert [value for value in bad if fits(schema, value)] == []
    assert [value for value in bad if reads(rule, value)] == []


def test_a_rule_without_a_schema_is_an_error() -> None:
    class Other(JsonPlain):
        def read(self, fields: Fields, name: str) -> Any:
            return fields.take(name)

    with pytest.raises(TypeError):
        rule_schema(Other())


@dataclass(frozen=True, slots=True)
class Inner(JsonObject):
    size: int


@dataclass(frozen=True, slots=True)
class Whole(JsonObject):
    constants: ClassVar = {"schema": "x/v1", "outer.follows": JsonFollows(lambda whole: "aa", re.compile(r"a+\Z"))}
    inner: Annotated[Inner, "What is inside."]
    deep: Annotated[int, JsonPath("outer.deep")]
    absent: Annotated[int | None, ABSENT] = None


def test_an_object_has_its_members_and_no_others() -> None:
    schema = object_schema(Whole)
    good = Whole(Inner(1), 2, 3).to_json()
    assert fits(schema, good) and fits(schema, Whole(Inner(1), 2).to_json())
    for name in ("schema", "inner", "outer"):
        assert not fits(schema, {key: value for key, value in good.items() if key != name})
    for wrong in ({"more": 1}, {"schema": "x/v2"}, {"inner": {"size": 1, "more": 1}}, {"outer": {"deep": 2}},
                  {"outer": {"deep": 2, "follows": "b"}}, {"absent": None}):  # fmt: skip
        assert not fits(schema, {**good, **wrong})
    assert schema["properties"]["inner"]["description"] == "What is inside."


@dataclass(frozen=True, slots=True)
class Plain(Content):
    """A model is released. Everybody may read this."""

    predicate: ClassVar = PUBLISHED
    by: ById
    artifact: SubjectDigest
    manifest: SideObject
    card: SideObject | None = None


@dataclass(frozen=True, slots=True)
class WithoutFiles(Content):
    """A form of it."""

    predicate: ClassVar = PUBLISHED
    by: ById
    artifact: SubjectDigest
    card: SideObject | None = None


BY = Author("identity", sha256(b"publisher"))


def payload(made: Content) -> dict[str, Any]:
    """The predicate of a statement, with its author and side objects."""
    said = made.statement()
    objects = {"objects": [item.to_json() for item in said.objects]} if said.objects else {}
    by = said.author(PUBLISHED)
    return {"by": {by.kind: by.id}, **made.to_json(), **objects}


def test_side_objects_are_counted_where_members_name_them() -> None:
    schema = predicate_schema([Plain])
    good = payload(Plain(BY.id, OBJECT.digest, OBJECT))
    three = [SideObject(sha256(name), 1).to_json() for name in (b"1", b"2", b"3")]
    assert fits(schema, good) and fits(schema, {**good, "objects": three[:2]})
    assert not fits(schema, {key: value for key, value in good.items() if key != "objects"})
    assert not fits(schema, {**good, "objects": three}) and not fits(schema, {**good, "objects": []})
    form = predicate_schema([WithoutFiles])
    without, having = payload(WithoutFiles(BY.id, OBJECT.digest)), payload(WithoutFiles(BY.id, OBJECT.digest, OBJECT))
    assert fits(form, without) and fits(form, having)
    assert not fits(form, {**without, "objects": [OBJECT.to_json()]})
    assert not fits(form, {key: value for key, value in having.items() if key != "objects"})


def test_an_author_of_another_kind_does_not_fit() -> None:
    good = payload(Plain(BY.id, OBJECT.digest, OBJECT))
    assert not fits(predicate_schema([Plain]), {**good, "by": {"node": BY.id}})


def test_two_forms_of_a_predicate_are_alternatives() -> None:
    schema = predicate_schema([Plain, WithoutFiles])
    assert [form["description"] for form in schema["oneOf"]] == ["A model is released.", "A form of it."]
    assert fits(schema, payload(WithoutFiles(BY.id, OBJECT.digest)))
    assert fits(schema, payload(Plain(BY.id, OBJECT.digest, OBJECT)))


def test_the_title_is_the_first_sentence() -> None:
    assert summary(Plain) == "a model is released"
