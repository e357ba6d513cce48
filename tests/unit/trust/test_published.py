"""`published` statements."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from comity.rules.signing import sign_content
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.names import Name
from comity.trust.statement import SideObject, Statement, Subject, parse_entry, sign_statement
from comity.trust.statements import (
    DOCUMENTS,
    LINEAGE_RELATIONS,
    MAX_PARENTS,
    Licence,
    Parent,
    Published,
    check_published,
)
from support.world import identity, signer

SWISS_AI = identity("Swiss AI", "CH")
MANIFEST, PIECES, LICENCE = (SideObject.of(data) for data in (b"a manifest", b"a piece index", b"a licence"))
PUBLISHED = Published(
    by=SWISS_AI.id,
    name=Name("swiss-ai", "tiny", "v1"),
    artifact=MANIFEST.digest,
    manifest=MANIFEST,
    pieces=PIECES,
    licence=Licence("Apache-2.0", LICENCE),
    lineage=tuple(Parent(relation, "swiss-ai/base@v1", sha256(b"base")) for relation in LINEAGE_RELATIONS),
    documents={kind: SideObject.of(kind.encode()) for kind in DOCUMENTS},
)
PARENT = {"relation": "merge", "name": "a/b", "digest": None}


def said(**change: Any) -> Statement:
    statement = PUBLISHED.statement()
    return replace(statement, body={**statement.body, **change})


def test_a_publication_reads_back() -> None:
    entry = parse_entry(sign_content(PUBLISHED, SWISS_AI.signer).line)
    assert check_published(entry, SWISS_AI.inception) == PUBLISHED
    assert entry.statement.subjects == (Subject("swiss-ai/tiny@v1", MANIFEST.digest),)


def test_a_minimal_publication_reads_back() -> None:
    bare = replace(PUBLISHED, licence=Licence("LicenseRef-none"), lineage=(), documents={})
    assert check_published(sign_content(bare, SWISS_AI.signer), SWISS_AI.inception) == bare
    assert bare.statement().objects == (MANIFEST, PIECES)


def test_the_longest_texts_of_a_publication_read_back() -> None:
    longest = replace(
        PUBLISHED,
        name=Name(*("x" * 96,) * 3),
        licence=Licence("x" * 200, LICENCE),
        lineage=(Parent("merge", "x" * 300),),
    )
    assert check_published(sign_content(longest, SWISS_AI.signer), SWISS_AI.inception) == longest


def test_a_publication_without_an_author_is_refused() -> None:
    with pytest.raises(Malformed, match="not a published statement of an identity"):
        Published.parse(replace(said(), by=None))


def test_a_publisher_that_rotated_its_keys_publishes_with_the_new_ones() -> None:
    later = identity("Swiss AI, later")
    entry = sign_content(PUBLISHED, later.signer)
    assert check_published(entry, SWISS_AI.inception, later.inception.keys) == PUBLISHED
    with pytest.raises(Untrusted):
        check_published(sign_content(PUBLISHED, SWISS_AI.signer), SWISS_AI.inception, later.inception.keys)


def test_every_document_is_a_side_object() -> None:
    expected = {MANIFEST, PIECES, LICENCE, *PUBLISHED.documents.values()}
    assert set(PUBLISHED.statement().objects) == expected
    assert len(PUBLISHED.statement().objects) == len(expected)


def test_a_parent_may_be_known_by_name_only() -> None:
    child = replace(PUBLISHED, lineage=(Parent("finetune", "hf:org/repo@abc", None),))
    assert Published.parse(child.statement()) == child


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(replace(said(), predicate="observed"), id="another predicate"),
        pytest.param(replace(said(), by=replace(SWISS_AI.inception.author, kind="node")), id="by a node"),
        pytest.param(replace(said(), subjects=(Subject("", PIECES.digest),)), id="about another digest"),
        pytest.param(replace(said(), subjects=said().subjects * 2), id="two subjects"),
        pytest.param(replace(said(), objects=(MANIFEST, PIECES)), id="a licence text outside the objects"),
        pytest.param(replace(said(), objects=(MANIFEST, LICENCE)), id="a piece index outside the objects"),
        pytest.param(said(extra=1), id="an unknown member"),
        pytest.param(said(name="swiss-ai/" + "x" * 97 + "@v1"), id="a long name"),
        pytest.param(said(licence={"spdx": "MIT", "text": LICENCE.to_json(), "url": ""}), id="more of a licence"),
        pytest.param(said(licence={"spdx": "x" * 201, "text": LICENCE.to_json()}), id="a long licence expression"),
        pytest.param(said(lineage=[{**PARENT, "note": ""}]), id="more of a parent"),
        pytest.param(said(lineage=[{**PARENT, "name": "x" * 301}]), id="a long name of a parent"),
        pytest.param(said(name="tiny"), id="a name without namespace"),
        pytest.param(said(name="swiss-ai/tiny"), id="a name without version"),
        pytest.param(said(name="comity://swiss-ai/tiny@v1"), id="a second spelling of the name"),
        pytest.param(said(manifest=PIECES.to_json()), id="a manifest that is not the subject"),
        pytest.param(said(manifest={"digest": MANIFEST.digest}), id="a manifest without size"),
        pytest.param(said(licence={"spdx": "", "text": None}), id="no licence"),
        pytest.param(said(licence={"spdx": "MIT\n  PASS  everything", "text": None}), id="a licence of two lines"),
        pytest.param(said(licence={"spdx": "MIT"}), id="a licence without the member for its text"),
        pytest.param(said(lineage=[PARENT] * (MAX_PARENTS + 1)), id="too many parents"),
        pytest.param(said(lineage=[{**PARENT, "relation": "cousin"}]), id="an unknown relation"),
        pytest.param(said(lineage=[{**PARENT, "digest": ""}]), id="an empty digest of a parent"),
        pytest.param(said(lineage=[{**PARENT, "digest": 0}]), id="a digest of a parent that is no text"),
        pytest.param(said(documents={"poem": MANIFEST.to_json()}), id="an unknown kind of document"),
        pytest.param(said(documents=[]), id="documents that are no object"),
    ],
)
def test_a_malformed_publication_is_refused(statement: Statement) -> None:
    with pytest.raises(Malformed):
        check_published(sign_statement(statement, SWISS_AI.signer), SWISS_AI.inception)


@pytest.mark.parametrize(
    "change",
    [
        {"artifact": PIECES.digest},
        {"licence": Licence("")},
        {"lineage": (Parent("cousin", "a/b"),)},
        {"documents": {"poem": MANIFEST}},
    ],
)
def test_an_invalid_publication_is_not_signed(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        sign_content(replace(PUBLISHED, **change), SWISS_AI.signer)


def test_a_publication_is_its_publishers_own() -> None:
    other = identity("Other")
    for entry in (
        sign_content(PUBLISHED, other.signer),
        sign_content(PUBLISHED, signer("a stranger"), other.signer),
        sign_content(replace(PUBLISHED, by=other.id), SWISS_AI.signer),
    ):
        with pytest.raises(Untrusted) as refusal:
            check_published(entry, SWISS_AI.inception)
        assert refusal.value.code == "SIGNATURE"


@pytest.mark.parametrize("half", [0, 1])
def test_one_half_of_a_hybrid_signature_is_no_signature(half: int) -> None:
    entry = sign_content(PUBLISHED, SWISS_AI.signer)
    envelope = replace(entry.envelope, signatures=entry.envelope.signatures[half : half + 1])
    with pytest.raises(ComityError):
        check_published(parse_entry(envelope.encode()), SWISS_AI.inception)
