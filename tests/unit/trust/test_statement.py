"""Statements: in-toto payloads with a predicate of Comity or of other tools."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity.trust.statement import (
    MAX_OBJECT_BYTES,
    MAX_OBJECTS,
    MAX_SUBJECTS,
    Author,
    SideObject,
    Statement,
    Subject,
    parse_entry,
    sign_payload,
    sign_statement,
)
from support.world import signer

ABOUT = Subject("a thing", sha256(b"thing"))
BY = Author("identity", sha256(b"somebody"))
SIMPLE = Statement("vouched", (ABOUT,), BY, {"why": "because"}, (SideObject.of(b"a document"),))


def document(**change: Any) -> bytes:
    return json.dumps({**json.loads(SIMPLE.encode()), **change}).encode()


def predicate(**change: Any) -> bytes:
    return document(predicate={**json.loads(SIMPLE.encode())["predicate"], **change})


def test_a_statement_reads_back() -> None:
    assert Statement.parse(SIMPLE.encode()) == SIMPLE


def test_the_payload_is_an_in_toto_statement() -> None:
    assert json.loads(SIMPLE.encode()) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "a thing", "digest": {"sha256": ABOUT.digest}}],
        "predicateType": "urn:comity:vouched:v1",
        "predicate": {
            "by": {"identity": BY.id},
            "objects": [{"digest": sha256(b"a document"), "size": 10}],
            "why": "because",
        },
    }


def test_a_comity_predicate_of_an_unknown_type_is_kept() -> None:
    statement = Statement.parse(replace(SIMPLE, predicate="from-the-future", objects=()).encode())
    assert (statement.predicate, statement.by) == ("from-the-future", BY)


def test_a_foreign_predicate_is_kept_under_its_full_type_and_has_no_author() -> None:
    foreign = document(predicateType="https://slsa.dev/provenance/v1", predicate={"by": BY.to_json()})
    statement = Statement.parse(foreign)
    assert (statement.predicate, statement.by) == ("https://slsa.dev/provenance/v1", None)
    with pytest.raises(Malformed):
        statement.encode()


def test_a_foreign_statement_may_have_no_predicate_and_a_long_type() -> None:
    """In-toto leaves the predicate to its type."""
    bare = json.loads(document(predicateType="x" * 255))
    del bare["predicate"]
    assert Statement.parse(json.dumps(bare).encode()) == Statement("x" * 255, (ABOUT,), None, {})
    with pytest.raises(Malformed, match="1 to 255 characters"):
        Statement.parse(json.dumps({**bare, "predicateType": "x" * 256}).encode())


def test_the_subject_of_a_statement_is_its_first_and_its_sole_subject_the_only_one() -> None:
    other = Subject("", sha256(b"another thing"))
    assert SIMPLE.subject == SIMPLE.sole_subject() == ABOUT.digest
    both = replace(SIMPLE, subjects=(ABOUT, other, other))
    assert both.subject == ABOUT.digest
    with pytest.raises(Malformed, match="3 subjects instead of one"):
        both.sole_subject()


def test_the_label_of_a_subject_is_bounded() -> None:
    longest = replace(SIMPLE, subjects=(replace(ABOUT, name="x" * 1024),))
    assert Statement.parse(longest.encode()) == longest


@pytest.mark.parametrize("predicate", ["inception", "rotated", "node-record", "offer", "dreamt"])
def test_a_predicate_that_defines_no_side_objects_has_none(predicate: str) -> None:
    """Every mirror would have to store the objects of an inception that lists some."""
    assert Statement.parse(replace(SIMPLE, predicate=predicate, objects=()).encode()).objects == ()
    with pytest.raises(Malformed, match="no side objects"):
        Statement.parse(replace(SIMPLE, predicate=predicate).encode())


@pytest.mark.parametrize("foreign", ["https://slsa.dev/provenance/v1", "urn:comity:vouched:v2"])
def test_a_predicate_that_is_not_ours_has_no_side_objects_either(foreign: str) -> None:
    with pytest.raises(Malformed, match="no side objects"):
        Statement.parse(document(predicateType=foreign))


def test_side_objects_are_bounded_together() -> None:
    most = tuple(SideObject(sha256(b"%d" % at), MAX_OBJECT_BYTES // MAX_OBJECTS) for at in range(MAX_OBJECTS))
    assert Statement.parse(replace(SIMPLE, objects=most).encode()).objects == most
    for objects in (
        (*most[1:], replace(most[0], size=most[0].size + 1)),
        (*most, SideObject(sha256(b"one more"), 0)),
    ):
        with pytest.raises(Malformed):
            Statement.parse(replace(SIMPLE, objects=objects).encode())


def test_a_side_object_is_named_once() -> None:
    """One object of 64 MiB that is listed 64 times counts 4 GiB."""
    item = SideObject.of(b"once")
    for objects in ((item, item), (item, replace(item, size=5))):
        with pytest.raises(Malformed, match="listed twice"):
            Statement.parse(replace(SIMPLE, objects=objects).encode())


def test_a_second_version_of_a_predicate_is_another_type() -> None:
    newer = document(predicateType="urn:comity:vouched:v2", predicate={"by": BY.to_json()})
    assert Statement.parse(newer).predicate == "urn:comity:vouched:v2"


def test_a_subject_may_carry_other_digests_and_fields_of_in_toto() -> None:
    subject = {"name": "n", "uri": "https://example.org", "digest": {"sha256": ABOUT.digest, "sha512": "00"}}
    assert Statement.parse(document(subject=[subject])).subjects == (Subject("n", ABOUT.digest),)


def test_a_subject_without_a_name_is_about_its_digest_alone() -> None:
    for subject in ({"digest": {"sha256": ABOUT.digest}}, {"name": "", "digest": {"sha256": ABOUT.digest}}):
        assert Statement.parse(document(subject=[subject])).subjects == (Subject("", ABOUT.digest),)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(document(_type="https://in-toto.io/Statement/v0.1"), id="another statement type"),
        pytest.param(document(subject=[]), id="no subject"),
        pytest.param(document(subject=[{"digest": {"sha256": ABOUT.digest}}] * (MAX_SUBJECTS + 1)), id="subjects"),
        pytest.param(document(subject=[{"name": "n", "digest": {"sha512": "00"}}]), id="no sha256"),
        pytest.param(document(subject=[{"name": "n", "digest": {"sha256": ABOUT.digest.upper()}}]), id="upper case"),
        pytest.param(document(subject=[{"name": "n", "digest": {"sha256": "sha256:" + ABOUT.digest}}]), id="prefix"),
        pytest.param(document(subject=[{"name": "x" * 1025, "digest": {"sha256": ABOUT.digest}}]), id="long name"),
        pytest.param(document(predicate=[]), id="a predicate that is no object"),
        pytest.param(document(extra=1), id="an unknown member"),
        pytest.param(document(predicateType=""), id="no type"),
        pytest.param(predicate(by=None), id="no author"),
        pytest.param(predicate(by={"person": BY.id}), id="an author of an unknown kind"),
        pytest.param(predicate(by={"identity": BY.id, "node": BY.id}), id="two authors"),
        pytest.param(predicate(by={"identity": "sha256:" + BY.id}), id="a second spelling of the author"),
        pytest.param(predicate(objects="ab"), id="objects that are no list"),
        pytest.param(predicate(objects=[]), id="an empty list of objects"),
        pytest.param(predicate(objects=[{"digest": BY.id, "size": 1}] * (MAX_OBJECTS + 1)), id="objects"),
        pytest.param(predicate(objects=5), id="objects that are a number"),
        pytest.param(predicate(objects={"digest": BY.id}), id="objects that are an object"),
        pytest.param(predicate(objects=[{"digest": BY.id, "size": 1, "name": "x"}]), id="an object with more members"),
        pytest.param(predicate(objects=[{"digest": BY.id, "size": -1}]), id="a negative size"),
        pytest.param(predicate(objects=[{"digest": BY.id, "size": 2**40}]), id="an object beyond 64 MiB"),
        pytest.param(b" " * 60_000 + SIMPLE.encode(), id="too many bytes"),
    ],
)
def test_a_malformed_statement_is_refused(payload: bytes) -> None:
    with pytest.raises(Malformed):
        Statement.parse(payload)


def test_the_body_cannot_name_another_author() -> None:
    forged = Statement("vouched", (ABOUT,), BY, {"by": {"identity": sha256(b"another")}})
    assert Statement.parse(forged.encode()).by == BY


def test_an_entry_is_its_line() -> None:
    entry = sign_statement(SIMPLE, signer("a"))
    assert parse_entry(entry.line) == entry
    assert entry.statement == SIMPLE
    assert entry.digest == sha256(entry.line)


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(Statement("vouched", (ABOUT,) * (MAX_SUBJECTS + 1), BY, {}), id="too many subjects"),
        pytest.param(Statement("vouched", (Subject("\x1b[2J", ABOUT.digest),), BY, {}), id="a control character"),
        pytest.param(Statement("vouched", (ABOUT,), BY, {"text": "x" * 49_000}), id="too large"),
        pytest.param(Statement("Vouched!", (ABOUT,), BY, {}), id="a bad predicate"),
        pytest.param(Statement("vouched", (ABOUT,), None, {}), id="no author"),
    ],
)
def test_a_statement_that_cannot_be_read_back_is_not_signed(statement: Statement) -> None:
    with pytest.raises(Malformed):
        sign_statement(statement, signer("a"))


def test_an_envelope_of_another_payload_type_is_no_entry() -> None:
    line = sign_payload(SIMPLE.encode(), signer("a"), payload_type="text/plain").encode()
    with pytest.raises(Malformed, match="payload type"):
        parse_entry(line)
