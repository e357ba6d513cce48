"""The JSON documents that commands print, compared with docs/schemas/commands in every test that prints one.

The published schemas allow additional members. Here every member must be in the schema, so that a new member of a
document is described when it is added.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from comity_cli.output import Output
from support.fenced import ROOT

FOLDER = ROOT / "docs" / "schemas"
BASE = "https://schemas.invalid/"
DESCRIBED = {path.stem for path in (FOLDER / "commands").glob("*.json")}


def watch_documents() -> None:
    """From now on, a command of this process that prints a document against its schema raises AssertionError."""
    printed = Output.document

    def document(self: Output, kind: str, value: Mapping[str, Any]) -> None:
        if kind in DESCRIBED:
            check(kind, {"schema": f"comity.dev/{kind}/v1", **value})
        printed(self, kind, value)

    Output.document = document  # type: ignore[method-assign]


def check(kind: str, document: Mapping[str, Any]) -> None:
    """Asserts that a document is as its schema says, and has no other members."""
    found = faults(kind, json.loads(json.dumps(document)))
    assert not found, f"{found[0]}: mend the class of {kind}, run docs/generate.py, or mend what is printed"


def faults(kind: str, document: Any) -> list[str]:
    """The differences of a document from its schema, read strictly."""
    return [
        f"{'/'.join(map(str, error.absolute_path)) or 'the document'}: {error.message[:300]}"
        for error in _validator(kind).iter_errors(document)
    ]


def schema(kind: str) -> Any:
    return json.loads((FOLDER / "commands" / f"{kind}.json").read_text("utf-8"))


@functools.cache
def _validator(kind: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator({"$ref": f"{BASE}commands/{kind}.json"}, registry=_registry())


def fits(made: dict[str, Any], document: Any) -> bool:
    """Whether a document is one of a schema that would be in docs/schemas/predicates."""
    from jsonschema import Draft202012Validator

    schema = {**made, "$id": f"{BASE}predicates/made-by-a-test.json"}
    return bool(Draft202012Validator(schema, registry=_registry()).is_valid(document))


@functools.cache
def _registry() -> Any:
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT202012

    read = ((path, json.loads(path.read_text("utf-8"))) for path in FOLDER.rglob("*.json"))
    return Registry[Any]().with_resources(
        (BASE + path.relative_to(FOLDER).as_posix(), Resource.from_contents(_strict(found), DRAFT202012))
        for path, found in read
    )


def _strict(found: Any) -> Any:
    """The schema without additional members in any object."""
    if isinstance(found, list):
        return [_strict(item) for item in found]
    if not isinstance(found, dict):
        return found
    closed = {"additionalProperties": False} if found.get("additionalProperties") is True else {}
    return {key: _strict(value) for key, value in found.items()} | closed
