"""Names and references of artifacts."""

from __future__ import annotations

import pytest
from comity.trust.encoding import bare_digest, format_id, parse_digest, sha256, short
from comity.trust.errors import Malformed
from comity.trust.names import Name, Reference, check_segment, is_segment, refers_to_upstream

DIGEST = sha256(b"x")


@pytest.mark.parametrize("text", ["swiss-ai", "A", "_x_", "a.b-c_d", "v1", "1.0.0", "x" * 96])
def test_a_segment_of_a_name(text: str) -> None:
    assert check_segment(text, "name") == text
    assert is_segment(text)


@pytest.mark.parametrize(
    "text", ["", "a b", "a/b", "-a", "a-", ".a", "a.", "a--b", "a..b", "x.git", "x" * 97, "é", "a\n", "a@b", "a:b"]
)
def test_a_name_that_the_hub_refuses_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as refusal:
        check_segment(text, "name")
    assert refusal.value.code == "BAD-NAME"
    assert not is_segment(text)


def test_a_full_name_reads_back() -> None:
    assert Name.parse("swiss-ai/apertus-8b@v1") == Name("swiss-ai", "apertus-8b", "v1")
    assert str(Name("swiss-ai", "apertus-8b", "v1")) == "swiss-ai/apertus-8b@v1"


@pytest.mark.parametrize(
    "text",
    ["swiss-ai/apertus-8b", "apertus@v1", f"a/b@sha256:{DIGEST}", f"sha256:{DIGEST}", "comity://a/b@v1", "a/b@v1@v2"],
)
def test_a_name_has_all_its_parts_and_one_spelling(text: str) -> None:
    with pytest.raises(Malformed):
        Name.parse(text)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("a/b", Reference("a/b", None, None)),
        ("a/b@v1", Reference("a/b", "v1", None)),
        (f"a/b@sha256:{DIGEST}", Reference("a/b", None, DIGEST)),
        (f"sha256:{DIGEST}", Reference(None, None, DIGEST)),
    ],
)
def test_typed_references_are_parsed(text: str, reference: Reference) -> None:
    assert Reference.parse(text) == reference
    assert Reference.parse(f"comity://{text}") == reference
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    ["", "a", "a/b/c", "a/b@", "/b", "a/", "sha256:", "sha256:12", f"a/b@sha256:{DIGEST[:-1]}", "comity://", "a/b@v 1"],
)
def test_an_invalid_reference_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        Reference.parse(text)


def test_a_digest_alone_or_a_spelled_id_is_a_reference_too() -> None:
    for text in (DIGEST, format_id(DIGEST)):
        assert Reference.parse(text) == Reference.parse(f"comity://{text}") == Reference(None, None, DIGEST)


def test_a_word_alone_is_refused_with_the_forms_that_a_reference_has() -> None:
    with pytest.raises(Malformed, match="expected namespace/name, namespace/name@version or sha256:"):
        Reference.parse("apertus")


@pytest.mark.parametrize("part", ["namespace", "name", "version"])
def test_a_name_cannot_be_built_with_a_part_that_is_refused(part: str) -> None:
    with pytest.raises(Malformed, match=f"{part} 'a b'"):
        Name(**{"namespace": "swiss-ai", "name": "tiny", "version": "v1", part: "a b"})


@pytest.mark.parametrize(
    ("text", "local", "mirrored"),
    [("a/b@v1", "a/b", False), ("hf:a/b@c1", "a/b", True), ("hf/b", "hf/b", False), (f"sha256:{DIGEST}", "", False)],
)
def test_a_repository_of_an_upstream_is_told_by_its_origin(text: str, local: str, mirrored: bool) -> None:
    reference = Reference.parse(text)
    assert (reference.local, reference.mirrored) == (local, mirrored)
    assert Reference.parse(f"comity://{text}") == reference
    assert refers_to_upstream(text) == refers_to_upstream(f"comity://{text}") == mirrored


@pytest.mark.parametrize("text", ["hf:a/b@sha256:51aa51aa", "comity://ms:a/b@sha256:51aa51aa"])
def test_a_reference_to_an_upstream_may_have_an_abbreviated_digest(text: str) -> None:
    assert refers_to_upstream(text)


def test_people_may_write_a_digest_with_its_algorithm_and_documents_may_not() -> None:
    assert parse_digest(DIGEST) == parse_digest(f"sha256:{DIGEST}") == bare_digest(DIGEST) == DIGEST
    for text in (f"sha256:{DIGEST}", DIGEST.upper(), DIGEST + "\n", DIGEST[:-1], "", None, 5, b"x" * 64):
        with pytest.raises(Malformed):
            bare_digest(text)
    for text in (f"sha256:sha256:{DIGEST}", f"sha512:{DIGEST}", DIGEST[1:], "", None):
        with pytest.raises(Malformed):
            parse_digest(text)


def test_the_short_form_of_a_digest_is_for_people() -> None:
    assert short(DIGEST) == f"{DIGEST[:6]}…{DIGEST[-4:]}"
