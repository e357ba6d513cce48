"""`published`: a publisher says "these bytes are my model", under which name, licence and lineage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from comity.trust.digest import Digest, bare_digest
from comity.trust.encoding import Json
from comity.trust.errors import Malformed, Untrusted
from comity.trust.fields import Fields
from comity.trust.identity import Inception, Signatory
from comity.trust.keys import Signer
from comity.trust.names import Name
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject, sign_statement

RELATIONS = ("finetune", "adapter", "quantized", "merge", "distilled", "converted")
DOCUMENTS = ("card", "training-summary", "evaluation")
MAX_PARENTS = 32


@dataclass(frozen=True, slots=True)
class Licence:
    """The SPDX expression that the publisher claims, and the text as it was obtained (absent: none was given)."""

    spdx: str
    text: SideObject | None = None


@dataclass(frozen=True, slots=True)
class Parent:
    """A claimed lineage edge: by digest where known, else by name only."""

    relation: str
    name: str
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """What a `published` statement says. `by` claims to be the publisher; signatures decide elsewhere."""

    by: Digest
    name: Name
    artifact: Digest
    manifest: SideObject
    pieces: SideObject
    licence: Licence
    lineage: tuple[Parent, ...] = ()
    documents: Mapping[str, SideObject] = field(default_factory=dict)

    def statement(self) -> Statement:
        body: dict[str, Json] = {
            "name": str(self.name),
            "manifest": self.manifest.to_json(),
            "pieces": self.pieces.to_json(),
            "licence": {
                "spdx": self.licence.spdx,
                "text": self.licence.text.to_json() if self.licence.text else None,
            },
            "lineage": [{"relation": p.relation, "name": p.name, "digest": p.digest} for p in self.lineage],
            "documents": {kind: item.to_json() for kind, item in self.documents.items()},
        }
        subjects = (Subject(str(self.name), self.artifact),)
        return Statement("published", subjects, Author("identity", self.by), body, self.objects())

    def objects(self) -> tuple[SideObject, ...]:
        licence = (self.licence.text,) if self.licence.text else ()
        return tuple(dict.fromkeys((self.manifest, self.pieces, *licence, *self.documents.values())))

    @classmethod
    def parse(cls, statement: Statement) -> Published:
        """Raises Malformed."""
        if statement.predicate != "published" or statement.by is None or statement.by.kind != "identity":
            raise Malformed("published is malformed", why="not a published statement of an identity")
        fields = statement.fields()
        made = cls(
            by=statement.by.id,
            name=Name.parse(fields.text("name", most=300)),
            artifact=statement.sole_subject(),
            manifest=SideObject.from_json(fields.take("manifest")),
            pieces=SideObject.from_json(fields.take("pieces")),
            licence=_licence(fields.object("licence")),
            lineage=tuple(_parent(item) for item in fields.items("lineage", most=MAX_PARENTS)),
            documents=_documents(fields.take("documents")),
        )
        fields.done()
        if made.manifest.digest != made.artifact:
            raise Malformed("published is malformed", why="its subject must be the digest of its manifest")
        if set(made.objects()) != set(statement.objects):
            raise Malformed("published is malformed", why="'objects' are not the side objects that it uses")
        return made


def publish(published: Published, *signers: Signer) -> Entry:
    """Seal a `published` statement into the line that will be logged. Raises Malformed for one that nobody accepts."""
    statement = published.statement()
    Published.parse(statement)
    return sign_statement(statement, *signers)


def check_published(entry: Entry, publisher: Inception, keys: Signatory | None = None) -> Published:
    """The claim, proven to be `publisher`'s. Raises Malformed/Untrusted.

    Args:
        keys: the publisher's, where its rotations are at hand; by default those of its inception.
    """
    published = Published.parse(entry.statement)
    if published.by != publisher.id:
        raise Untrusted("published refused", why="it names another publisher", code="SIGNATURE")
    if not (keys or publisher.keys).signed(entry.envelope):
        raise Untrusted("published refused", why=f"not signed by {publisher.display}'s keys", code="SIGNATURE")
    return published


def _licence(fields: Fields) -> Licence:
    spdx = fields.text("spdx", most=200)
    text = fields.take("text")
    fields.done()
    return Licence(spdx, SideObject.from_json(text) if text is not None else None)


def _parent(item: Json) -> Parent:
    fields = Fields(item, "lineage")
    relation, name = fields.choice("relation", RELATIONS), fields.text("name", most=300)
    digest = fields.take("digest")
    fields.done()
    return Parent(relation, name, None if digest is None else bare_digest(digest))


def _documents(value: Json) -> dict[str, SideObject]:
    if not isinstance(value, Mapping) or any(kind not in DOCUMENTS for kind in value):
        raise Malformed("published is malformed", why=f"documents are of the kinds {', '.join(DOCUMENTS)}")
    return {kind: SideObject.from_json(item) for kind, item in value.items()}
