"""Statements: signed claims about a digest. An in-toto Statement v1 inside a DSSE envelope.

    {"_type":"https://in-toto.io/Statement/v1",
     "subject":[{"name":"swiss-ai/apertus-8b@v1","digest":{"sha256":"9f2c…"}}],
     "predicateType":"urn:comity:published:v1",
     "predicate":{"by":{"identity":"51aa…"},"objects":[{"digest":"0a1b…","size":612}],…}}

`by` says who claims to speak; whether they do is decided by their record and the envelope's signatures, elsewhere.
`objects` lists the side objects that a log must hold before it logs the statement: each once, at most 16 and 64 MiB of
them, and only in predicates that define some. Types that this version does not know are parsed, kept and shown as
unknown. Source: protocol, sections 5 and 5a.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest, bare_digest, sha256
from comity.trust.dsse import PAYLOAD_TYPE, Envelope, seal
from comity.trust.encoding import Json, canonical, parse_json
from comity.trust.errors import Malformed
from comity.trust.fields import Fields
from comity.trust.keys import Signer

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
MAX_PAYLOAD: Final = 49_152
MAX_SUBJECTS: Final = 64
MAX_OBJECTS: Final = 16
MAX_OBJECT_BYTES: Final = 64 * 1024 * 1024
"""Of all side objects of a statement together."""
WITH_OBJECTS: Final = frozenset(
    {
        "adopted",
        "consented",
        "draft",
        "hold",
        "left",
        "misbehaviour",
        "observed",
        "published",
        "verified",
        "vouched",
    }
)
"""The predicates that define side objects."""
_PREDICATE = re.compile(r"urn:comity:([a-z][a-z0-9-]{0,62}):v1\Z")


@dataclass(frozen=True, slots=True)
class Author:
    """Who claims to speak: an `identity` (publisher or member) or a `node`, by id."""

    kind: str
    id: Digest

    def to_json(self) -> dict[str, str]:
        return {self.kind: self.id}


@dataclass(frozen=True, slots=True)
class Subject:
    """What the statement is about. `name` is a label; only `digest` binds."""

    name: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class SideObject:
    """A body too large for the log line: SHA-256 and size in bytes (at most 64 MiB)."""

    digest: Digest
    size: int

    @classmethod
    def of(cls, data: bytes) -> SideObject:
        return cls(sha256(data), len(data))

    @classmethod
    def from_json(cls, value: Json) -> SideObject:
        fields = Fields(value, "side object")
        made = cls(fields.digest("digest"), fields.integer("size", most=MAX_OBJECT_BYTES))
        fields.done()
        return made

    def to_json(self) -> dict[str, Json]:
        return {"digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True)
class Statement:
    """A parsed claim.

    `predicate` is the short name (`published`) of a Comity predicate, or the full predicate type of a foreign one, of
    which `by` is None. `body` is the predicate without `by` and `objects`.
    """

    predicate: str
    subjects: tuple[Subject, ...]
    by: Author | None
    body: Mapping[str, Json]
    objects: tuple[SideObject, ...] = ()

    @classmethod
    def parse(cls, payload: bytes) -> Statement:
        """Parse an envelope's payload. Raises Malformed."""
        fields = Fields(parse_json(payload, limit=MAX_PAYLOAD, what="statement"), "statement")
        fields.constant("_type", STATEMENT_TYPE)
        subjects = tuple(_subject(item) for item in fields.items("subject", least=1, most=MAX_SUBJECTS))
        predicate_type = fields.text("predicateType", most=255)
        predicate = fields.take("predicate") if fields.has("predicate") else {}
        fields.done()
        if not isinstance(predicate, Mapping):
            raise Malformed("statement is malformed", why="the predicate must be an object")
        ours = _PREDICATE.match(predicate_type)
        body = {name: value for name, value in predicate.items() if name not in ("by", "objects")}
        return cls(
            ours.group(1) if ours else predicate_type,
            subjects,
            _author(predicate.get("by")) if ours else None,
            body,
            _objects(predicate["objects"], ours.group(1) if ours else predicate_type) if "objects" in predicate else (),
        )

    def encode(self) -> bytes:
        """The payload to be signed; deterministic. Only Comity predicates are written."""
        if self.by is None or not _PREDICATE.match(f"urn:comity:{self.predicate}:v1"):
            raise Malformed("cannot write a statement", why="only Comity's own predicates, with an author, are written")
        predicate: dict[str, Json] = {**self.body, "by": self.by.to_json()}
        if self.objects:
            predicate["objects"] = [item.to_json() for item in self.objects]
        subjects: list[Json] = [{"name": s.name, "digest": {"sha256": s.digest}} for s in self.subjects]
        document: dict[str, Json] = {
            "_type": STATEMENT_TYPE,
            "subject": subjects,
            "predicateType": f"urn:comity:{self.predicate}:v1",
            "predicate": predicate,
        }
        return canonical(document)

    def fields(self) -> Fields:
        return Fields(self.body, self.predicate)

    @property
    def subject(self) -> Digest:
        return self.subjects[0].digest

    def sole_subject(self) -> Digest:
        """What the statement is about where its type allows one subject only. Raises Malformed where there are more."""
        if len(self.subjects) != 1:
            raise Malformed(f"{self.predicate} is malformed", why=f"{len(self.subjects)} subjects instead of one")
        return self.subjects[0].digest


@dataclass(frozen=True, slots=True)
class Entry:
    """One log entry: its exact bytes (the leaf data), the envelope, the statement. Nothing in it is verified yet."""

    line: bytes
    envelope: Envelope
    statement: Statement

    @property
    def digest(self) -> Digest:
        """SHA-256 of the line: what proofs are about."""
        return sha256(self.line)

    @property
    def statement_digest(self) -> Digest:
        """The same for every envelope of one statement: what duplicates, shares and votes go by."""
        return self.envelope.statement_digest


def parse_entry(line: bytes) -> Entry:
    """Parse a log line whose payload is an in-toto statement. Raises Malformed."""
    envelope = Envelope.parse(line)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise Malformed("entry is malformed", why=f"payload type is not {PAYLOAD_TYPE}")
    return Entry(line, envelope, Statement.parse(envelope.payload))


def sign_statement(statement: Statement, *signers: Signer) -> Entry:
    """Seal a statement into the line that will be logged. Raises Malformed for one that nobody could read back."""
    return parse_entry(seal(statement.encode(), *signers).encode())


def _author(value: Json) -> Author:
    if isinstance(value, Mapping) and len(value) == 1:
        kind, identifier = next(iter(value.items()))
        if kind in ("identity", "node"):
            return Author(kind, bare_digest(identifier))
    raise Malformed("statement is malformed", why="'by' must be one of {identity: digest}, {node: digest}")


def _subject(item: Json) -> Subject:
    fields = Fields(item, "statement subject")
    name = fields.text("name", least=0, most=1024) if fields.has("name") else ""
    return Subject(name, fields.object("digest").digest("sha256"))


def _objects(value: Json, predicate: str) -> tuple[SideObject, ...]:
    if predicate not in WITH_OBJECTS:
        raise Malformed("statement is malformed", why=f"{predicate[:60]!r} has no side objects")
    if isinstance(value, str) or not isinstance(value, Sequence) or not 1 <= len(value) <= MAX_OBJECTS:
        raise Malformed("statement is malformed", why=f"'objects' must be a list of 1 to {MAX_OBJECTS}")
    objects = tuple(SideObject.from_json(item) for item in value)
    if len({item.digest for item in objects}) != len(objects):
        raise Malformed("statement is malformed", why="a side object is named twice")
    if sum(item.size for item in objects) > MAX_OBJECT_BYTES:
        raise Malformed("statement is malformed", why=f"its side objects have more than {MAX_OBJECT_BYTES} bytes")
    return objects
