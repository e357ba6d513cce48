"""Statements of publishers and others about artifacts: content, encoding and checks.

    advisory      a warning about an artifact, by any author; it deletes and blocks nothing
    published     a publisher publishes an artifact under a name, licence and lineage
    vouched       a statement of any author about an artifact: rehashed, evaluated, reproduced
    derived       the author derived the child's weights from the parent's; how many tensors are equal

The parse functions do not verify the author; `check_published` and `Signatory` do. A statement proves only that its
author signed it. Source: protocol, sections 5 and 8.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from comity.trust.encoding import Digest, Fields, Json, bare_digest
from comity.trust.errors import Malformed, Untrusted
from comity.trust.identity import Inception, Signatory
from comity.trust.keys import Signer
from comity.trust.names import Name
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject, sign_statement
from comity.trust.statement_kinds import ADVISORY, DERIVED, PUBLISHED, VOUCHED
from comity.trust.tlog.note import check_name

KEY_COMPROMISE: Final = "key-compromise"
ADVISORIES: Final = ("yank", "superseded", "vulnerability", "malware", "licence-change", KEY_COMPROMISE)
INFO: Final = "info"
"""A severity that warns of nothing: the advisory is listed and fails no row."""
SEVERITIES: Final = (INFO, "low", "medium", "high", "critical")
STATE_SETTING: Final = ("yank", "superseded")


@dataclass(frozen=True, slots=True)
class Compromise:
    """A key (SHA-256 of its JSON) that is compromised from entry `index` of the log `origin` on."""

    key: Digest
    origin: str
    index: int


@dataclass(frozen=True, slots=True)
class Advisory:
    """A logged warning about `artifact`; with `compromise`, about a key of the identity with the id `artifact`."""

    by: Author
    artifact: Digest
    kind: str
    severity: str
    text: str
    compromise: Compromise | None = None


def sign_advisory(advisory: Advisory, *signers: Signer) -> Entry:
    body: dict[str, Json] = {"kind": advisory.kind, "severity": advisory.severity, "text": advisory.text}
    if advisory.compromise is not None:
        since: dict[str, Json] = {"origin": advisory.compromise.origin, "index": advisory.compromise.index}
        body |= {"key": advisory.compromise.key, "since": since}
    statement = Statement(ADVISORY, (Subject("", advisory.artifact),), advisory.by, body)
    parse_advisory(statement)
    return sign_statement(statement, *signers)


def parse_advisory(statement: Statement) -> Advisory:
    """Raises Malformed."""
    by, fields = statement.author(ADVISORY), statement.fields()
    kind, severity = fields.choice("kind", ADVISORIES), fields.choice("severity", SEVERITIES)
    text = fields.text("text", least=0, most=4000, lines=True)
    compromise = _compromise(fields) if kind == KEY_COMPROMISE and fields.has("key") else None
    fields.done()
    return Advisory(by, statement.sole_subject(), kind, severity, text, compromise)


def _compromise(fields: Fields) -> Compromise:
    key, since = fields.digest("key"), fields.object("since")
    compromise = Compromise(key, since.text("origin"), since.integer("index"))
    since.done()
    check_name(compromise.origin)
    return compromise


LINEAGE_RELATIONS = ("finetune", "adapter", "quantized", "merge", "distilled", "converted")
DOCUMENTS = ("card", "training-summary", "evaluation")
MAX_PARENTS = 32


@dataclass(frozen=True, slots=True)
class Licence:
    """The SPDX expression that the publisher claims, and the licence text as obtained (None: no text)."""

    spdx: str
    text: SideObject | None = None


@dataclass(frozen=True, slots=True)
class Parent:
    """A claimed lineage edge: by digest if known, else by name only."""

    relation: str
    name: str
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """Content of a `published` statement. `by` is the claimed publisher; `check_published` verifies it."""

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
        return Statement(PUBLISHED, subjects, Author("identity", self.by), body, self.objects())

    def objects(self) -> tuple[SideObject, ...]:
        licence = (self.licence.text,) if self.licence.text else ()
        return tuple(dict.fromkeys((self.manifest, self.pieces, *licence, *self.documents.values())))

    @classmethod
    def parse(cls, statement: Statement) -> Published:
        """Raises Malformed."""
        by, fields = statement.author(PUBLISHED), statement.fields()
        published = cls(
            by=by.id,
            name=Name.parse(fields.text("name")),
            artifact=statement.sole_subject(),
            manifest=SideObject.from_json(fields.take("manifest")),
            pieces=SideObject.from_json(fields.take("pieces")),
            licence=_licence(fields.object("licence")),
            lineage=tuple(_parent(item) for item in fields.items("lineage", most=MAX_PARENTS)),
            documents=_documents(fields.take("documents")),
        )
        fields.done()
        if published.manifest.digest != published.artifact:
            raise Malformed("published is malformed", why="its subject must be the digest of its manifest")
        if set(published.objects()) != set(statement.objects):
            raise Malformed("published is malformed", why="'objects' must list exactly the side objects that it uses")
        return published


def sign_published(published: Published, *signers: Signer) -> Entry:
    """Sign a `published` statement and return its log entry. Raises Malformed if the statement is not valid."""
    statement = published.statement()
    Published.parse(statement)
    return sign_statement(statement, *signers)


def check_published(entry: Entry, publisher: Inception, keys: Signatory | None = None) -> Published:
    """Return the content if `publisher` is the author and signed it. Raises Malformed/Untrusted (SIGNATURE).

    Args:
        keys: the publisher's keys including rotations; by default the keys of its inception.
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
    relation, name = fields.choice("relation", LINEAGE_RELATIONS), fields.text("name", most=300)
    digest = fields.take("digest")
    fields.done()
    return Parent(relation, name, None if digest is None else bare_digest(digest))


def _documents(value: Json) -> dict[str, SideObject]:
    if not isinstance(value, Mapping) or any(kind not in DOCUMENTS for kind in value):
        raise Malformed("published is malformed", why=f"documents must be of the kinds {', '.join(DOCUMENTS)}")
    return {kind: SideObject.from_json(item) for kind, item in value.items()}


VOUCH_KINDS: Final = ("rehashed", "evaluated", "reproduced")
MAX_VOUCH_TEXT: Final = 4000


@dataclass(frozen=True, slots=True)
class Vouched:
    """A `vouched` statement of `by` about `artifact`; `document` is a side object. Source: protocol, section 5.

        {"statement":"rehashed","text":"on two machines","document":null}

    `rehashed`: the author had the bytes, and their hashes match the manifest (`comity vouch` checks before it logs).
    `evaluated`: the author measured the model; the document has the results. `reproduced`: the author made the model
    again from data and code; the document says how.
    """

    by: Author
    artifact: Digest
    statement: str
    text: str = ""
    document: SideObject | None = None


def sign_vouched(vouched: Vouched, *signers: Signer) -> Entry:
    """Raises Malformed if the statement is not valid."""
    body = {
        "statement": vouched.statement,
        "text": vouched.text,
        "document": vouched.document.to_json() if vouched.document else None,
    }
    objects = (vouched.document,) if vouched.document else ()
    statement = Statement(VOUCHED, (Subject("", vouched.artifact),), vouched.by, body, objects)
    parse_vouched(statement)
    return sign_statement(statement, *signers)


def parse_vouched(statement: Statement) -> Vouched:
    """Raises Malformed."""
    by, fields = statement.author(VOUCHED), statement.fields()
    vouched = Vouched(
        by=by,
        artifact=statement.sole_subject(),
        statement=fields.choice("statement", VOUCH_KINDS),
        text=fields.text("text", least=0, most=MAX_VOUCH_TEXT, lines=True),
        document=_document(fields),
    )
    fields.done()
    if statement.objects != ((vouched.document,) if vouched.document else ()):
        raise Malformed("vouched is malformed", why="its side objects must be exactly its document")
    return vouched


def _document(fields: Fields) -> SideObject | None:
    value = fields.take("document")
    return None if value is None else SideObject.from_json(value)


METHOD: Final = "comity/tensors/v1"
DERIVED_RELATIONS: Final = ("same-weights", "converted", "quantized", "overlap")
"""Equal tensors, in any distribution over files; cast to another width; quantised; or only some tensors equal."""
MAX_STEPS: Final = 16
MAX_TOOLS: Final = 8
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9_+./-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Extent:
    """`equal` of `total` tensors or bytes are the same as derived from the parent."""

    total: int
    equal: int


@dataclass(frozen=True, slots=True)
class Derived:
    """Content of a `derived` statement. The subject is the child's artifact digest. Source: protocol, section 5.

        {"parent":"9f2c…","relation":"quantized","result":"exact",
         "method":{"id":"comity/tensors/v1","steps":{"copy":62,"q8_0":39},"tools":{"comity":"0.1.0","gguf":"0.19.0"}},
         "files":{"child":1,"parent":1},"tensors":{"total":101,"equal":101,"left_out":3},
         "bytes":{"total":24065952,"equal":24065952}}

    `exact` means that every tensor of the child follows from the parent by the counted steps; `share` gives the number
    of tensors that do, and claims nothing about the others. `left_out` counts tensors of the parent that the child
    does not have. Anyone with both artifacts can repeat the derivation and compare.
    """

    by: Author
    child: Digest
    parent: Digest
    relation: str
    result: Literal["exact", "share"]
    steps: Mapping[str, int]
    tools: Mapping[str, str]
    files: int
    parent_files: int
    tensors: Extent
    left_out: int
    bytes: Extent

    @property
    def exact(self) -> bool:
        return self.result == "exact"

    def statement(self) -> Statement:
        body: dict[str, Json] = {
            "parent": self.parent,
            "relation": self.relation,
            "result": self.result,
            "method": {"id": METHOD, "steps": dict(self.steps), "tools": dict(self.tools)},
            "files": {"child": self.files, "parent": self.parent_files},
            "tensors": {"total": self.tensors.total, "equal": self.tensors.equal, "left_out": self.left_out},
            "bytes": {"total": self.bytes.total, "equal": self.bytes.equal},
        }
        return Statement(DERIVED, (Subject("", self.child),), self.by, body)


def sign_derived(derived: Derived, *signers: Signer) -> Entry:
    """Raises Malformed if the statement contradicts itself."""
    statement = derived.statement()
    parse_derived(statement)
    return sign_statement(statement, *signers)


def parse_derived(statement: Statement) -> Derived:
    """Raises Malformed, also if the statement contradicts itself."""
    by, fields = statement.author(DERIVED), statement.fields()
    parent, relation = fields.digest("parent"), fields.choice("relation", DERIVED_RELATIONS)
    exact = fields.choice("result", ("exact", "share")) == "exact"
    steps, tools = _method(fields.object("method"))
    files, tensors = fields.object("files"), fields.object("tensors")
    left_out = tensors.integer("left_out")
    derived = Derived(
        by=by,
        child=statement.sole_subject(),
        parent=parent,
        relation=relation,
        result="exact" if exact else "share",
        steps=steps,
        tools=tools,
        files=files.integer("child"),
        parent_files=files.integer("parent"),
        tensors=_extent(tensors),
        left_out=left_out,
        bytes=_extent(fields.object("bytes")),
    )
    files.done()
    fields.done()
    _check_consistent(derived)
    return derived


def _method(fields: Fields) -> tuple[dict[str, int], dict[str, str]]:
    fields.constant("id", METHOD)
    steps, tools = fields.take("steps"), fields.take("tools")
    fields.done()
    return (
        {name: Fields(steps, "derived.steps").integer(name, least=1) for name in _labels(steps, MAX_STEPS)},
        {name: Fields(tools, "derived.tools").text(name, most=64) for name in _labels(tools, MAX_TOOLS)},
    )


def _labels(value: Json, most: int) -> list[str]:
    if not isinstance(value, Mapping) or len(value) > most or not all(map(_LABEL.match, value)):
        raise Malformed("derived is malformed", why=f"steps and tools must be objects of at most {most} short names")
    return list(value)


def _extent(fields: Fields) -> Extent:
    extent = Extent(fields.integer("total"), fields.integer("equal"))
    fields.done()
    return extent


def _check_consistent(derived: Derived) -> None:
    contradictions = {
        "child and parent are the same artifact": derived.child == derived.parent,
        "'equal' is larger than 'total'": derived.tensors.equal > derived.tensors.total
        or derived.bytes.equal > derived.bytes.total,
        "the sum of its steps is not the number of equal tensors": sum(derived.steps.values()) != derived.tensors.equal,
        "an exact result needs at least one tensor, and all tensors equal": derived.exact
        and (derived.tensors.total == 0 or derived.tensors.equal != derived.tensors.total),
        "an exact result needs all bytes equal": derived.exact and derived.bytes.equal != derived.bytes.total,
        "result 'share' and relation 'overlap' require each other": derived.exact == (derived.relation == "overlap"),
    }
    for why, found in contradictions.items():
        if found:
            raise Malformed("derived is malformed", why=why)
