"""A class of documents gives the JSON of its values, and the schema that accepts them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from comity.trust.encoding import Digest, sha256
from comity.wire.codec import Number, OneOf
from comity_cli.document import ABSENT, INLINE, KINDS, Absent, document, members, named
from comity_cli.output import Output
from document_schemas import document_schema
from jsonschema import Draft202012Validator

if TYPE_CHECKING:
    from fractions import Fraction

    from comity.trust.places import Place

DIGEST = sha256(b"example")
REF = {"$ref": "../common.json#/$defs/digest"}


@dataclass(frozen=True, slots=True)
class Inner:
    state: str
    bytes: int


@document("example")
class Example:
    """An example, as `comity example --json` prints
    it.

    What its members
    mean.
    """

    artifact: Digest | None
    inner: Inner = field(metadata=INLINE)
    state: Literal["up", "down"]
    hint: Annotated[str, "What to do.", {"pattern": "^[a-z]+$"}] = field(metadata=named("try"))
    share: Annotated[int, Number(most=1000)]
    largest: Annotated[int | None, Number(most=2**63)]
    word: Annotated[str, OneOf(("one", "two"))]
    file: Path
    nested: Inner | None
    pair: tuple[str, int]
    names: Mapping[Digest, tuple[Inner, ...]]
    other: Annotated[Mapping[str, object], {"$ref": "other.json"}]
    place: Place | None = None
    epoch: int | Absent = ABSENT


VALUE = Example(
    DIGEST, Inner("down", 5), "up", "again", 7, None, "two", Path("/a/b"), Inner("x", 1), ("a", 1),
    {DIGEST: (Inner("y", 2),)}, {"any": [1]},
)  # fmt: skip
INNER: Mapping[str, Any] = {
    "type": "object",
    "properties": {"state": {"type": "string"}, "bytes": {"type": "integer", "minimum": 0}},
    "required": ["state", "bytes"],
    "additionalProperties": True,
}


def test_the_members_of_a_document_have_the_order_of_its_fields() -> None:
    expected = {
        "artifact": DIGEST, "state": "up", "bytes": 5, "try": "again", "share": 7, "largest": None, "word": "two",
        "file": "/a/b", "nested": {"state": "x", "bytes": 1}, "pair": ["a", 1],
        "names": {DIGEST: [{"state": "y", "bytes": 2}]}, "other": {"any": [1]}, "place": None,
    }  # fmt: skip
    assert json.dumps(members(VALUE)) == json.dumps(expected)


def test_a_document_is_printed_with_its_schema_first(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).answer(VALUE)
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"schema": "comity.dev/example/v1", **members(VALUE)}
    assert next(iter(printed)) == "schema"
    Output().answer(VALUE)
    assert capsys.readouterr().out == ""


def test_the_schema_of_a_document_follows_from_its_class() -> None:
    found = document_schema(Example)
    assert list(found) == ["$schema", "title", "description", "type", "properties", "required", "additionalProperties"]
    assert found["title"] == "An example, as `comity example --json` prints it"
    assert found["description"] == "What its members mean."
    properties = found["properties"]
    assert properties.pop("place")["oneOf"][1]["required"] == ["operator", "cloud", "reach"]
    assert properties == {
        "schema": {"const": "comity.dev/example/v1"},
        "artifact": {"oneOf": [{"type": "null"}, REF]},
        "state": {"enum": ["up", "down"]},
        "bytes": {"type": "integer", "minimum": 0},
        "try": {"type": "string", "description": "What to do.", "pattern": "^[a-z]+$"},
        "share": {"type": "integer", "minimum": 0, "maximum": 1000},
        "largest": {"type": ["integer", "null"], "minimum": 0},
        "word": {"enum": ["one", "two"]},
        "file": {"type": "string"},
        "nested": {"oneOf": [{"type": "null"}, INNER]},
        "pair": {
            "type": "array",
            "prefixItems": [{"type": "string"}, {"type": "integer", "minimum": 0}],
            "minItems": 2,
            "maxItems": 2,
        },
        "names": {
            "type": "object",
            "propertyNames": REF,
            "additionalProperties": {"type": "array", "items": INNER},
        },
        "other": {"$ref": "other.json"},
        "epoch": {"type": "integer", "minimum": 0},
    }
    optional = set(properties) | {"place"} - set(found["required"])
    assert optional >= {"epoch"} and len(found["required"]) == len(set(found["required"])) == len(properties)
    Draft202012Validator.check_schema(found)


def test_a_class_with_a_member_that_json_does_not_have_has_no_schema() -> None:
    @document("refused")
    class Refused:
        """A class that is refused."""

        share: Fraction

    try:
        with pytest.raises(TypeError, match="no member of the type"):
            document_schema(Refused)
    finally:
        del KINDS[Refused]
