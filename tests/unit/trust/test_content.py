"""Contents of statements: author, subjects and side objects of a kind, as a class declares them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import pytest
from comity.trust.codec import JsonMap
from comity.trust.content import ById, Content, Label, SideFile, SubjectDigest, Subjects
from comity.trust.encoding import Fields, sha256
from comity.trust.errors import Malformed
from comity.trust.statement import Author, SideObject, Statement, Subject
from comity.trust.statement_kinds import EVALUATION_ANNOUNCED, PUBLISHED

ARTIFACT, OTHER = sha256(b"artifact"), sha256(b"other")
FIRST, SECOND, THIRD = (SideObject(sha256(name), size) for name, size in ((b"1", 5), (b"2", 10), (b"3", 11)))
BY = Author("identity", sha256(b"publisher"))


@dataclass(frozen=True, slots=True)
class Release(Content):
    """A model is released."""

    predicate: ClassVar = PUBLISHED
    by: ById
    name: Label
    artifact: SubjectDigest
    manifest: SideObject
    card: Annotated[SideObject | None, SideFile(10)]
    texts: Annotated[dict[str, SideObject], JsonMap(2, ("a", "b"))]


@dataclass(frozen=True, slots=True)
class Several(Content):
    """An evaluation of two or three artifacts is announced."""

    predicate: ClassVar = EVALUATION_ANNOUNCED
    subject_count: ClassVar = (2, 3)
    by: ById
    of: Subjects
    text: str

    def subjects(self) -> tuple[Subject, ...]:
        return self.of

    def check(self, statement: Statement) -> None:
        if self.text == "wrong":
            raise self.malformed("a wrong text")


MADE = Release(BY.id, "inst/tiny@v1", ARTIFACT, FIRST, SECOND, {"a": FIRST})


def test_a_statement_is_read_as_it_was_made() -> None:
    said = MADE.statement()
    assert (said.predicate, said.by, said.subjects) == (PUBLISHED, BY, (Subject("inst/tiny@v1", ARTIFACT),))
    assert said.objects == (FIRST, SECOND)  # each once
    assert Release.parse(said) == MADE
    without = replace(MADE, card=None, texts={})
    assert without.statement().objects == (FIRST,) and Release.parse(without.statement()) == without


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"subjects": (Subject("a", ARTIFACT), Subject("b", OTHER))}, "2 subjects instead of one"),
        ({"objects": ()}, "objects"),
        ({"objects": (FIRST,)}, "objects"),
        ({"objects": (FIRST, SECOND, THIRD)}, "objects"),
        ({"body": {}}, "manifest"),
        ({"predicate": "vouched"}, "published"),
    ],
)
def test_another_subject_object_or_member_is_refused(changed: dict[str, object], why: str) -> None:
    said = MADE.statement()
    with pytest.raises(Malformed, match=why):
        Release.parse(replace(said, **changed))  # type: ignore[arg-type]


def test_the_order_of_side_objects_does_not_matter() -> None:
    said = MADE.statement()
    assert Release.parse(replace(said, objects=(SECOND, FIRST))) == MADE


@pytest.mark.parametrize(("item", "fits"), [(SECOND, True), (THIRD, False)])
def test_a_side_object_has_a_size(item: SideObject, fits: bool) -> None:
    fields = Fields({"card": item.to_json()}, "test")
    if fits:
        assert SideFile(10).read(fields, "card") == item
    else:
        with pytest.raises(Malformed, match="at most 10 bytes"):
            SideFile(10).read(fields, "card")


def test_a_kind_has_its_author() -> None:
    node = replace(MADE.statement(), by=Author("node", BY.id))
    with pytest.raises(Malformed):
        Release.parse(node)
    announced = Several(BY.id, (Subject("", ARTIFACT), Subject("", OTHER)), "x")
    assert announced.statement(Author("identity", OTHER)).by == Author("identity", OTHER)


@pytest.mark.parametrize(("count", "fits"), [(1, False), (2, True), (3, True), (4, False)])
def test_subjects_have_a_number(count: int, fits: bool) -> None:
    subjects = tuple(Subject("", sha256(b"%d" % number)) for number in range(count))
    said = Several(BY.id, subjects, "x").statement()
    if fits:
        assert Several.parse(said).of == subjects
    else:
        with pytest.raises(Malformed, match=f"{count} subjects instead of 2 to 3"):
            Several.parse(said)


def test_the_check_of_a_class_is_made() -> None:
    subjects = (Subject("", ARTIFACT), Subject("", OTHER))
    with pytest.raises(Malformed, match="a wrong text"):
        Several.parse(Several(BY.id, subjects, "wrong").statement())
