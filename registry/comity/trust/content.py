"""What a statement of a kind says, as a frozen dataclass: reader, writer and schema are derived from its fields.

    @frozen
    class EvaluationAnnounced(Content):
        '''Somebody will evaluate an artifact by criteria that are fixed now.'''

        predicate: ClassVar = EVALUATION_ANNOUNCED
        by: ByAuthor
        artifact: SubjectDigest
        criteria: Digest

Fields that are no members of the predicate say what they are: its author, its subject, and the label of that. What the
fields must be to each other, and to subjects that are not the field of one, is in `check`. Side objects are the members
that are one. `comity.rules.signing` signs. Source: protocol, section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, Self, TypeAlias

from comity.trust.codec import Given, JsonInner, JsonObject, shape_of
from comity.trust.encoding import Digest, Fields
from comity.trust.errors import Malformed
from comity.trust.statement import Author, SideObject, Statement, Subject
from comity.trust.statement_kinds import STATEMENT_KINDS, AuthorRule

ByAuthor: TypeAlias = Annotated[Author, Given("author")]
ById: TypeAlias = Annotated[Digest, Given("id")]
"""The author, whose kind follows from the statement's kind."""
SubjectDigest: TypeAlias = Annotated[Digest, Given("subject")]
"""The first subject."""
Label: TypeAlias = Annotated[str, Given("label")]
"""The name of the first subject, which is only for display."""
Subjects: TypeAlias = Annotated[tuple[Subject, ...], Given("subjects")]


class SideFile(JsonInner):
    """A side object of at most `most` bytes."""

    def __init__(self, most: int) -> None:
        super().__init__(SideObject)
        self.most = most

    def read(self, fields: Fields, name: str) -> SideObject:
        found: SideObject = super().read(fields, name)
        if found.size > self.most:
            raise fields.error(f"the side object {name!r} has at most {self.most} bytes")
        return found


class Content(JsonObject):
    """What a statement of one kind says; the signatures are not verified here.

    Attributes:
        predicate: the kind.
        author: `identity` or `node`, where a kind says something else if the other one is its author.
        named_objects: how many side objects it names by their digests alone; `check` says which.
        objects_rule: what is said of a statement with other side objects.
        subject_count: the fewest and the most subjects; `check` says what those after the first are.
    """

    __slots__ = ()
    predicate: ClassVar[str]
    author: ClassVar[str] = ""
    named_objects: ClassVar[int] = 0
    objects_rule: ClassVar[str] = "'objects' must list exactly the side objects that it uses"
    subject_count: ClassVar[tuple[int, int]] = (1, 1)

    @classmethod
    def parse(cls, statement: Statement) -> Self:
        """Raises Malformed."""
        by, subjects = statement.author(cls.predicate), statement.subjects
        if not cls.is_form_of(statement):
            raise cls.malformed(f"not by a {cls.author}")
        least, most = cls.subject_count
        if not least <= len(subjects) <= most:
            many = f"{least} to {most}" if least < most else "one" if most == 1 else f"{most}"
            raise cls.malformed(f"{len(subjects)} subjects instead of {many}")
        first = subjects[0]
        given = {"author": by, "id": by.id, "subject": first.digest, "label": first.name, "subjects": subjects}
        content = cls.read(statement.fields(), **given)
        used, listed = content.objects(), statement.objects
        if not cls.named_objects and used != listed and set(used) != set(listed):
            raise content.malformed(cls.objects_rule)
        content.check(statement)
        return content

    @classmethod
    def is_form_of(cls, statement: Statement) -> bool:
        """Whether a statement of this kind has this form, where the kind has several."""
        return statement.by is not None and cls.author in ("", statement.by.kind)

    def check(self, statement: Statement) -> None:
        """Raises Malformed for fields that do not fit together, or for other subjects than its own."""

    def statement(self, by: Author | None = None) -> Statement:
        """The statement to sign. `by`: its author, where no field is."""
        return Statement(self.predicate, self.subjects(), by or self._author(), self.to_json(), self.objects())

    def subjects(self) -> tuple[Subject, ...]:
        given = shape_of(type(self)).given
        label = getattr(self, given["label"]) if "label" in given else ""
        return (Subject(label, getattr(self, given["subject"])),)

    def objects(self) -> tuple[SideObject, ...]:
        return tuple(dict.fromkeys(_side_objects(self))) if STATEMENT_KINDS[self.predicate].objects else ()

    @classmethod
    def malformed(cls, why: str) -> Malformed:
        return Malformed(f"{cls.predicate} is malformed", why=why)

    def _author(self) -> Author:
        given = shape_of(type(self)).given
        if "author" in given:
            author: Author = getattr(self, given["author"])
            return author
        kind = "node" if STATEMENT_KINDS[self.predicate].by is AuthorRule.NODE else "identity"
        return Author(self.author or kind, getattr(self, given["id"]))


_HOLDERS: Final[dict[type, tuple[Callable[[Any], Any], ...]]] = {}
"""For each class, what gets the members that may be or hold a side object."""


def _side_objects(value: JsonObject) -> Iterator[SideObject]:
    kind = type(value)
    if kind not in _HOLDERS:
        members = shape_of(kind).members
        _HOLDERS[kind] = tuple(m.get for m in members if isinstance(getattr(m.rule, "of", m.rule), JsonInner))
    for get in _HOLDERS[kind]:
        item = get(value)
        if isinstance(item, SideObject):
            yield item
        elif isinstance(item, JsonObject):
            yield from _side_objects(item)
        elif isinstance(item, Mapping):
            yield from item.values()
