"""The JSON Schemas of docs/schemas describe exactly what the code writes and reads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from comity.trust.encoding import canonical
from comity.trust.errors import ComityError, Malformed
from comity.trust.statement_kinds import STATEMENT_KINDS
from comity_cli.output import Output
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from support.case import case
from support.documents import broken, documents, read_statement, statements

DOCS = Path(__file__).resolve().parents[3] / "docs"
FOLDER = DOCS / "schemas"
FILES = {path.relative_to(FOLDER).as_posix(): json.loads(path.read_text("utf-8")) for path in FOLDER.rglob("*.json")}
BASE = "https://schemas.invalid/"
REGISTRY: Any = Registry().with_resources(
    (BASE + name, Resource.from_contents(schema, default_specification=DRAFT202012)) for name, schema in FILES.items()
)
PREDICATES = {
    name.removeprefix("predicates/").removesuffix(".json") for name in FILES if name.startswith("predicates/")
}
STATEMENTS = [(json.loads(payload)["predicateType"].split(":")[2], payload) for payload in statements()]
DOCUMENTS = documents()
RELATIONS = (
    "'objects' must list exactly",
    "'fetched', and only for 'fetched'",
    "a genesis needs every member",
    "belongs to no key of its panels",
    "is not JSON",  # a document in a string
    "it ends before it begins",
    "its artifacts are not in ascending order",
    "its members contradict each other",
    "its size is not the sum",
    "its subject is not its offer",
    "its subject is not the record that it contains",
    "its subjects must be the artifact",
    "no valid inception of",
    "not one manifest and one piece index for each",
    "a piece index has a size that no side object has",
    "the sum of its steps",
    "the command begins with",
    "it has neither a command nor an image",
    "it has wheels and names no Python",
    "its command needs a Python",
    "the weights that it names are not its parts",
    "is in none of the folders",
)
"""Rules between members, and of what a string contains: no schema states them, so the code alone refuses."""


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"{BASE}{name}.json"}, registry=REGISTRY)


STATEMENT = validator("statement")


def refused(read: Any, data: bytes) -> str:
    try:
        read(data)
    except ComityError as error:
        return f"{error.what}: {error.why}"
    return ""


def agree(valid: bool, why: str) -> bool:
    """Whether a schema accepts the same documents as the code, except those that break a rule which no schema can
    state.
    """
    return valid if not why else not valid or any(rule in why for rule in RELATIONS)


@pytest.mark.parametrize("name", FILES)
def test_a_schema_is_one_of_draft_2020_12(name: str) -> None:
    Draft202012Validator.check_schema(FILES[name])
    assert FILES[name]["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert FILES[name]["title"]


def test_every_predicate_of_the_protocol_has_a_schema_and_an_example() -> None:
    section = (DOCS / "protocol.md").read_text("utf-8").partition("| predicate | by |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in section.splitlines()[2:]]
    listed = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)}
    assert listed | {"audit-answer", "file-index"} == PREDICATES == {predicate for predicate, _ in STATEMENTS}


def test_the_protocol_names_each_member_of_a_seat() -> None:
    text = (
        (DOCS / "protocol.md")
        .read_text("utf-8")
        .partition("A\nmember has `id`")[2]
        .partition("schemas/charter.json")[0]
    )
    seat = FILES["charter.json"]["properties"]["members"]["items"]["properties"]
    assert set(re.findall(r"`(\w+)`", text)) - {"active", "observer"} == seat.keys() - {"id"}


def test_every_document_has_an_example() -> None:
    own = {name.removesuffix(".json") for name in FILES if "/" not in name}
    assert own - {"common", "statement", "verdict", "error"} == {name for name, _, _ in DOCUMENTS}


@pytest.mark.parametrize(("predicate", "payload"), STATEMENTS, ids=[name for name, _ in STATEMENTS])
def test_a_statement_of_each_predicate_is_valid(predicate: str, payload: bytes) -> None:
    assert refused(read_statement, payload) == ""
    STATEMENT.validate(json.loads(payload))
    schema = FILES[f"predicates/{predicate}.json"]
    shapes = schema.get("oneOf", [schema])
    assert any("objects" in shape["properties"] for shape in shapes) == STATEMENT_KINDS[predicate].objects


@pytest.mark.parametrize(("predicate", "payload"), STATEMENTS, ids=[name for name, _ in STATEMENTS])
def test_a_changed_statement_is_valid_exactly_if_the_code_reads_it(predicate: str, payload: bytes) -> None:
    changes = [
        (place, copy) for place, copy in broken(json.loads(payload)) if place.split()[1].startswith("predicate/")
    ]
    assert len(changes) > 3
    for place, copy in changes:
        why = refused(read_statement, canonical(copy))
        assert agree(STATEMENT.is_valid(copy), why), f"{place}: {why}"


@pytest.mark.parametrize(("name", "data", "read"), DOCUMENTS, ids=[name for name, _, _ in DOCUMENTS])
def test_a_changed_document_is_valid_exactly_if_the_code_reads_it(name: str, data: bytes, read: Any) -> None:
    schema, document = validator(name), json.loads(data)
    schema.validate(document)
    assert refused(read, data) == ""
    for place, copy in broken(document):
        why = refused(read, canonical(copy))
        assert agree(schema.is_valid(copy), why), f"{place}: {why}"


def test_a_verdict_and_an_error_are_valid_as_the_commands_print_them(capsys: pytest.CaptureFixture[str]) -> None:
    printed = Output(as_json=True)
    printed.document("verdict", {key: value for key, value in case().verdict().to_json().items() if key != "schema"})
    validator("verdict").validate(verdict := json.loads(capsys.readouterr().out))
    printed.error(Malformed("what", why="why", hint="comity status", code="A-CODE"))
    validator("error").validate(error := json.loads(capsys.readouterr().out))
    assert not validator("verdict").is_valid({**verdict, "accepted": not verdict["accepted"]})
    assert not validator("error").is_valid({**error, "exit_status": 0})


def test_the_table_of_schemas_names_each_file() -> None:
    page = (FOLDER / "README.md").read_text("utf-8")
    assert set(re.findall(r"\]\(([a-z/-]+\.json)\)", page)) == {
        name for name in FILES if not name.startswith("predicates/")
    }
