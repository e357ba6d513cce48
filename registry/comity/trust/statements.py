"""One kind of signed claim a file: what it says, how it is encoded, what makes it refused.

The node record: a member's word that this log, this cosigner, these keys and this TLS certificate are its node's.

Signed by the member's governance keys and countersigned by *every* key that it binds, so that nobody can claim a key
that they do not hold. A key bound by several members counts for each of them. Source: protocol, section 3.


Smaller statements: what nodes say of their copies and addresses, and what anybody warns of.

    hold        a node: I keep a full verified copy
    addresses   a node: I listen here (hints, never trust)
    advisory    anybody: a warning beside an artifact; it deletes nothing and blocks nothing by itself

Readers here parse; whether the author is who they claim to be is decided by their record (`signed_by_node`) or
identity. Source: protocol, section 5.


`published`: a publisher says "these bytes are my model", under which name, licence and lineage.

`vouched`: somebody's word about an artifact's digest, beside its publisher's.

    {"statement":"rehashed","text":"on two machines","document":null}

    rehashed     its bytes were here, and hashed to the manifest; `comity vouch` logs it only after it did so
    evaluated    somebody measured what it does; the document holds the results
    reproduced   somebody made it again, from data and code; the document says how

The subject is the artifact. Whoever said it stands for it; nothing else follows. Source: protocol, section 5.


`derived`: somebody made the child's weights again from the parent's, and says how much came out the same.

    {"parent":"9f2c…","relation":"quantized","result":"exact",
     "method":{"id":"comity/tensors/v1","steps":{"copy":62,"q8_0":39},"tools":{"comity":"0.1.0","gguf":"0.19.0"}},
     "files":{"child":1,"parent":1},"tensors":{"total":101,"equal":101,"left_out":3},
     "bytes":{"total":24065952,"equal":24065952}}

The subject is the child's artifact digest. `exact` says that every tensor of the child follows from the parent by the
steps that are counted; `share` says how many tensors do, and claims nothing of the rest. Like any statement it is the
word of whoever signed it: anybody who holds both can do the same and compare. Source: protocol, section 5.


`verified`: somebody checked these bytes under a policy, and signs what came out. The shape is SLSA's verification
summary (VSA v1), its members spelled as there.

    {"by":{"identity":"51aa…"},"objects":[{"digest":"0a1b…","size":9120}],
     "inputAttestations":[{"digest":{"sha256":"…"}}],"policy":{"digest":{"sha256":"77c0…"}},
     "report":{"digest":"0a1b…","size":9120},"resourceUri":"urn:comity:artifact:9f2c…",
     "timeVerified":"2026-11-25T15:04:05Z","verificationResult":"PASSED","verifiedLevels":["COMITY_BYTES"],
     "verifier":{"id":"urn:comity:identity:51aa…","version":{"comity":"0.1.0"}}}

The report is a side object; all but the time and the signer follows from it, and `check_report` holds it to that. To
everybody else it stays a claim of its signer's. Source: protocol, sections 5 and 8.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from comity.trust.encoding import Digest, Fields, Json, b64decode, b64encode, bare_digest, parse_decimal, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.identity import Inception, Signatory
from comity.trust.keys import PublicKey, Signer, VerifyingKey
from comity.trust.names import Name
from comity.trust.report import VerdictReport
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject, sign_statement
from comity.trust.tlog.note import VerifierKey, check_name

NOTE_ED25519: Final = 0x01
COSIGNER_TYPES: Final = {0x04: "ed25519", 0x06: "ml-dsa-44"}
MAX_CERTIFICATE: Final = 4096
MAX_COSIGNERS: Final = 2
MAX_OPERATORS: Final = 4


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What a member binds together as one node.

    `member` is the seat's id; `log` the key of the one log it writes (its name is the origin); `cosigners` the keys of
    its mirror cosigner (Ed25519 0x04, ML-DSA-44 0x06; one name); `online` the key of its own statements (`hold`, …);
    `tls` and `operators` are certificates in DER.
    """

    member: Digest
    name: str
    log: VerifierKey
    cosigners: tuple[VerifierKey, ...]
    online: VerifyingKey
    tls: bytes
    operators: tuple[bytes, ...] = ()
    bound_keys: tuple[PublicKey, ...] = field(init=False, repr=False, compare=False)
    """Every key that has to countersign."""

    def __post_init__(self) -> None:
        if self.log.type != NOTE_ED25519:
            raise Malformed("node record is malformed", why="the log key must be of type 0x01 (Ed25519)")
        if not 1 <= len(self.cosigners) <= MAX_COSIGNERS or any(k.type not in COSIGNER_TYPES for k in self.cosigners):
            raise Malformed("node record is malformed", why="one or two cosigner keys of type 0x04 or 0x06")
        if len({key.name for key in self.cosigners}) != 1 or len({key.type for key in self.cosigners}) != len(
            self.cosigners
        ):
            raise Malformed("node record is malformed", why="cosigner keys share one name and differ in type")
        cosigners = (PublicKey(COSIGNER_TYPES[key.type], key.public) for key in self.cosigners)
        certificates = (certificate_key(der) for der in (self.tls, *self.operators))
        bound = (PublicKey("ed25519", self.log.public), *cosigners, *self.online.halves, *certificates)
        object.__setattr__(self, "bound_keys", bound)
        ids = [key.id for key in bound]
        if len(set(ids)) != len(ids):
            raise Malformed("node record is malformed", why="one key in two roles")

    @property
    def node(self) -> Author:
        """The author id of the node's own statements: its online key."""
        return Author("node", self.online.id)

    @property
    def origin(self) -> str:
        return self.log.name


def certificate_key(der: bytes) -> PublicKey:
    """The P-256 key of a certificate. Its other fields carry no trust. Raises Malformed."""
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise Malformed("certificate is malformed", why=str(error)[:120]) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Malformed("certificate is malformed", why="node certificates carry an ECDSA P-256 key")
    raw = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return PublicKey("ecdsa-p256", raw)


def sign_node_record(record: NodeRecord, governance: Sequence[Signer], bound: Sequence[Signer]) -> Entry:
    """The `node-record` statement, signed by the member and countersigned by every bound key.

    Args:
        governance: enough of the member's keys to reach its threshold.
        bound: signers that together hold every key of `record.bound_keys`.
    """
    return sign_statement(node_record_statement(record), *governance, *bound)


def node_record_statement(record: NodeRecord) -> Statement:
    """What is signed, where the signers are not in one place."""
    return Statement(
        "node-record",
        (Subject(record.origin, sha256(record.origin.encode())),),
        Author("identity", record.member),
        {
            "name": record.name,
            "log": str(record.log),
            "cosigners": [str(key) for key in record.cosigners],
            "online": record.online.to_json(),
            "tls": b64encode(record.tls),
            "operators": [b64encode(der) for der in record.operators],
        },
    )


def parse_node_record(entry: Entry) -> NodeRecord:
    """Read a `node-record` statement without judging who signed it. Raises Malformed."""
    statement = entry.statement
    if statement.predicate != "node-record" or statement.by is None or statement.by.kind != "identity":
        raise Malformed("node record is malformed", why="not a node-record statement of an identity")
    fields = statement.fields()
    record = NodeRecord(
        member=statement.by.id,
        name=fields.text("name", most=100),
        log=VerifierKey.parse(fields.text("log")),
        cosigners=tuple(_vkey(item) for item in fields.items("cosigners", least=1, most=MAX_COSIGNERS)),
        online=VerifyingKey.from_json(fields.take("online")),
        tls=_certificate(fields.take("tls")),
        operators=tuple(_certificate(item) for item in fields.items("operators", most=MAX_OPERATORS)),
    )
    fields.done()
    if statement.sole_subject() != sha256(record.origin.encode()):
        raise Malformed("node record is malformed", why="its subject is not its log's origin")
    return record


def check_node_record(entry: Entry, governance: Signatory) -> NodeRecord:
    """The record, proven by the member's `governance` keys and by every key it binds. Raises Malformed/Untrusted.

    Not checked: when it was made, or in which log it stands; a record counts by its signatures wherever it is found.
    """
    return prove_node_record(parse_node_record(entry), entry, governance)


def prove_node_record(record: NodeRecord, entry: Entry, governance: Signatory) -> NodeRecord:
    """As `check_node_record`, for `record` that was read from `entry` already."""
    present = {signature.keyid for signature in entry.envelope.signatures}
    for key in record.bound_keys:
        if key.id not in present:
            why = f"{key.alg} key {key.id[:16]} that it binds did not countersign"
            raise Untrusted("node record refused", why=why, code="NODE-RECORD")
    if not governance.signed(entry.envelope, record.bound_keys):
        why = "not signed by the member's governance keys and each key that it binds, and no other"
        raise Untrusted("node record refused", why=why, code="NODE-RECORD")
    return record


def _vkey(item: object) -> VerifierKey:
    if not isinstance(item, str):
        raise Malformed("node record is malformed", why="a cosigner key must be a vkey string")
    return VerifierKey.parse(item)


def _certificate(item: object) -> bytes:
    der = b64decode(item)
    if len(der) > MAX_CERTIFICATE:
        raise Malformed("node record is malformed", why=f"a certificate has at most {MAX_CERTIFICATE} bytes")
    return der


KEY_COMPROMISE: Final = "key-compromise"
ADVISORIES: Final = ("yank", "superseded", "vulnerability", "malware", "licence-change", KEY_COMPROMISE)
SEVERITIES: Final = ("info", "low", "medium", "high", "critical")
STATE_SETTING: Final = ("yank", "superseded")
MAX_ADDRESSES: Final = 8


@dataclass(frozen=True, slots=True)
class Hold:
    """A node's claim to hold every byte of `artifact`, cut as `pieces` says."""

    by: Author
    artifact: Digest
    pieces: Digest


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a node says it listens, `host:port` each: `mutual` needs a known certificate, `open` serves anybody."""

    by: Author
    mutual: tuple[str, ...]
    open: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compromise:
    """The key (the SHA-256 of its JSON) that was in other hands from entry `index` of the log `origin` on."""

    key: Digest
    origin: str
    index: int


@dataclass(frozen=True, slots=True)
class Advisory:
    """A logged warning about `artifact`; with `compromise`, about the keys of the identity that `artifact` names."""

    by: Author
    artifact: Digest
    kind: str
    severity: str
    text: str
    compromise: Compromise | None = None


def sign_hold(record: NodeRecord, artifact: Digest, manifest: SideObject, pieces: SideObject, online: Signer) -> Entry:
    body = {"manifest": manifest.to_json(), "pieces": pieces.to_json()}
    statement = Statement("hold", (Subject("", artifact),), record.node, body, (manifest, pieces))
    return sign_statement(statement, online)


def parse_hold(statement: Statement) -> Hold:
    """Raises Malformed."""
    by = _author(statement, "hold", "node")
    fields = statement.fields()
    manifest, pieces = SideObject.from_json(fields.take("manifest")), SideObject.from_json(fields.take("pieces"))
    fields.done()
    artifact = statement.sole_subject()
    if manifest.digest != artifact or {manifest, pieces} != set(statement.objects):
        raise Malformed("hold is malformed", why="its subject must be the digest of a manifest it carries")
    return Hold(by, artifact, pieces.digest)


def sign_addresses(record: NodeRecord, mutual: Sequence[str], open_: Sequence[str], online: Signer) -> Entry:
    body = {"mutual": list(mutual), "open": list(open_)}
    statement = Statement("addresses", (Subject(record.origin, record.node.id),), record.node, body)
    parse_addresses(statement)
    return sign_statement(statement, online)


def parse_addresses(statement: Statement) -> Addresses:
    """Raises Malformed."""
    by = _author(statement, "addresses", "node")
    fields = statement.fields()
    mutual, open_ = read_addresses(fields, "mutual"), read_addresses(fields, "open")
    fields.done()
    return Addresses(by, mutual, open_)


def read_addresses(fields: Fields, name: str) -> tuple[str, ...]:
    """The list of at most eight `host:port` called `name`. Raises Malformed."""
    return tuple(_address(item) for item in fields.items(name, most=MAX_ADDRESSES))


def sign_advisory(advisory: Advisory, *signers: Signer) -> Entry:
    body: dict[str, Json] = {"kind": advisory.kind, "severity": advisory.severity, "text": advisory.text}
    if advisory.compromise is not None:
        since: dict[str, Json] = {"origin": advisory.compromise.origin, "index": advisory.compromise.index}
        body |= {"key": advisory.compromise.key, "since": since}
    statement = Statement("advisory", (Subject("", advisory.artifact),), advisory.by, body)
    parse_advisory(statement)
    return sign_statement(statement, *signers)


def parse_advisory(statement: Statement) -> Advisory:
    """Raises Malformed."""
    if statement.predicate != "advisory" or statement.by is None:
        raise Malformed("advisory is malformed", why="not an advisory statement")
    fields = statement.fields()
    kind, severity = fields.choice("kind", ADVISORIES), fields.choice("severity", SEVERITIES)
    text = fields.text("text", least=0, most=4000, lines=True)
    compromise = _compromise(fields) if kind == KEY_COMPROMISE and fields.has("key") else None
    fields.done()
    return Advisory(statement.by, statement.sole_subject(), kind, severity, text, compromise)


def _compromise(fields: Fields) -> Compromise:
    key, since = fields.digest("key"), fields.object("since")
    made = Compromise(key, since.text("origin", most=255), since.integer("index"))
    since.done()
    check_name(made.origin)
    return made


def signed_by_node(entry: Entry, record: NodeRecord) -> bool:
    """Whether the entry is a statement of exactly this node, by its online key."""
    return entry.statement.by == record.node and entry.envelope.verified_by(record.online)


def _author(statement: Statement, predicate: str, kind: str) -> Author:
    if statement.predicate != predicate or statement.by is None or statement.by.kind != kind:
        raise Malformed(f"{predicate} is malformed", why=f"not a {predicate} statement of a {kind}")
    return statement.by


def _address(item: object) -> str:
    if isinstance(item, str) and 3 <= len(item) <= 300 and item.isprintable() and " " not in item:
        host, _, port = item.rpartition(":")
        if host and parse_decimal(port, limit=65_535) > 0:
            return item
    raise Malformed("addresses are malformed", why="expected host:port")


LINEAGE_RELATIONS = ("finetune", "adapter", "quantized", "merge", "distilled", "converted")
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
    relation, name = fields.choice("relation", LINEAGE_RELATIONS), fields.text("name", most=300)
    digest = fields.take("digest")
    fields.done()
    return Parent(relation, name, None if digest is None else bare_digest(digest))


def _documents(value: Json) -> dict[str, SideObject]:
    if not isinstance(value, Mapping) or any(kind not in DOCUMENTS for kind in value):
        raise Malformed("published is malformed", why=f"documents are of the kinds {', '.join(DOCUMENTS)}")
    return {kind: SideObject.from_json(item) for kind, item in value.items()}


VOUCHED: Final = "vouched"
STATEMENTS: Final = ("rehashed", "evaluated", "reproduced")
MAX_TEXT: Final = 4000


@dataclass(frozen=True, slots=True)
class Vouched:
    """What `by` says of `artifact`; `document` is a side object of the line."""

    by: Author
    artifact: Digest
    statement: str
    text: str = ""
    document: SideObject | None = None


def sign_vouched(vouched: Vouched, *signers: Signer) -> Entry:
    """Raises Malformed for what nobody would read."""
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
    if statement.predicate != VOUCHED or statement.by is None:
        raise Malformed("vouched is malformed", why="not a vouched statement")
    fields = statement.fields()
    made = Vouched(
        by=statement.by,
        artifact=statement.sole_subject(),
        statement=fields.choice("statement", STATEMENTS),
        text=fields.text("text", least=0, most=MAX_TEXT, lines=True),
        document=_document(fields),
    )
    fields.done()
    if statement.objects != ((made.document,) if made.document else ()):
        raise Malformed("vouched is malformed", why="its side objects are its document, and nothing else")
    return made


def _document(fields: Fields) -> SideObject | None:
    value = fields.take("document")
    return None if value is None else SideObject.from_json(value)


DERIVED: Final = "derived"
METHOD: Final = "comity/tensors/v1"
DERIVED_RELATIONS: Final = ("same-weights", "converted", "quantized", "overlap")
"""The same tensors, however dealt out over files; cast to another width; quantised; or only partly the same."""
MAX_STEPS: Final = 16
MAX_TOOLS: Final = 8
_WORD: Final = re.compile(r"[a-z0-9][a-z0-9_+./-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Extent:
    """Of `total` how many (tensors, bytes) are what the parent gives."""

    total: int
    equal: int


@dataclass(frozen=True, slots=True)
class Derived:
    """What somebody found. `left_out` counts tensors of the parent that the child has not."""

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
    """Raises Malformed for a claim that contradicts itself."""
    statement = derived.statement()
    parse_derived(statement)
    return sign_statement(statement, *signers)


def parse_derived(statement: Statement) -> Derived:
    """Raises Malformed, also for a claim that contradicts itself."""
    if statement.predicate != DERIVED or statement.by is None:
        raise Malformed("derived is malformed", why="not a derived statement")
    fields = statement.fields()
    parent, relation = fields.digest("parent"), fields.choice("relation", DERIVED_RELATIONS)
    exact = fields.choice("result", ("exact", "share")) == "exact"
    steps, tools = _method(fields.object("method"))
    files, tensors = fields.object("files"), fields.object("tensors")
    left_out = tensors.integer("left_out")
    derived = Derived(
        by=statement.by,
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
    _check(derived)
    return derived


def _method(fields: Fields) -> tuple[dict[str, int], dict[str, str]]:
    fields.constant("id", METHOD)
    steps, tools = fields.take("steps"), fields.take("tools")
    fields.done()
    return (
        {name: Fields(steps, "derived.steps").integer(name, least=1) for name in _words(steps, MAX_STEPS)},
        {name: Fields(tools, "derived.tools").text(name, most=64) for name in _words(tools, MAX_TOOLS)},
    )


def _words(value: Json, most: int) -> list[str]:
    if not isinstance(value, Mapping) or len(value) > most or not all(map(_WORD.match, value)):
        raise Malformed("derived is malformed", why=f"steps and tools are at most {most} named by short words")
    return list(value)


def _extent(fields: Fields) -> Extent:
    made = Extent(fields.integer("total"), fields.integer("equal"))
    fields.done()
    return made


def _check(derived: Derived) -> None:
    contradictions = {
        "an artifact is not derived from itself": derived.child == derived.parent,
        "more is equal than there is": derived.tensors.equal > derived.tensors.total
        or derived.bytes.equal > derived.bytes.total,
        "its steps are not as many as its equal tensors": sum(derived.steps.values()) != derived.tensors.equal,
        "an exact result is of all tensors, and of one at least": derived.exact
        and (derived.tensors.total == 0 or derived.tensors.equal != derived.tensors.total),
        "an exact result is of all bytes": derived.exact and derived.bytes.equal != derived.bytes.total,
        "a share is an overlap, and nothing else is": derived.exact == (derived.relation == "overlap"),
    }
    for why, holds in contradictions.items():
        if holds:
            raise Malformed("derived is malformed", why=why)


VERIFIED: Final = "verified"
MAX_INPUTS: Final = 256
"""Attestations that the statement names; the report has all of them."""
MAX_LEVELS: Final = 64
RESULTS: Final = {True: "PASSED", False: "FAILED"}
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_TIME_FORM: Final = re.compile(r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")
_LEVEL: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Verified:
    """What a `verified` statement says. `time` is its signer's, in seconds since 1970; `by` an identity that claims to
    speak, signatures decide elsewhere."""

    by: Digest
    name: str
    artifact: Digest
    time: int
    policy: Digest
    passed: bool
    levels: tuple[str, ...]
    inputs: tuple[Digest, ...]
    report: SideObject
    version: str

    def statement(self) -> Statement:
        body: dict[str, Json] = {
            "inputAttestations": [{"digest": {"sha256": digest}} for digest in self.inputs],
            "policy": {"digest": {"sha256": self.policy}},
            "report": self.report.to_json(),
            "resourceUri": _resource(self.artifact),
            "timeVerified": moment(self.time),
            "verificationResult": RESULTS[self.passed],
            "verifiedLevels": list(self.levels),
            "verifier": {"id": _verifier(self.by), "version": {"comity": self.version}},
        }
        subjects = (Subject(self.name, self.artifact),)
        return Statement(VERIFIED, subjects, Author("identity", self.by), body, (self.report,))

    @classmethod
    def parse(cls, statement: Statement) -> Verified:
        """Raises Malformed."""
        if statement.predicate != VERIFIED or statement.by is None or statement.by.kind != "identity":
            raise Malformed("verified is malformed", why="not a verified statement of an identity")
        fields = statement.fields()
        artifact = statement.sole_subject()
        fields.constant("resourceUri", _resource(artifact))
        made = cls(
            by=statement.by.id,
            name=statement.subjects[0].name,
            artifact=artifact,
            time=_time(fields),
            policy=_sha256(fields.object("policy")),
            passed=fields.choice("verificationResult", list(RESULTS.values())) == RESULTS[True],
            levels=tuple(_level(item) for item in fields.items("verifiedLevels", most=MAX_LEVELS)),
            inputs=tuple(
                _sha256(Fields(item, "verified.inputAttestations"))
                for item in fields.items("inputAttestations", most=MAX_INPUTS)
            ),
            report=SideObject.from_json(fields.take("report")),
            version=_version(fields.object("verifier"), statement.by.id),
        )
        fields.done()
        if statement.objects != (made.report,):
            raise Malformed("verified is malformed", why="its report must be its one side object")
        return made


def summarise(report: VerdictReport, by: Digest, time: int) -> Verified:
    """What `by` says who came to `report` at `time`. Raises Malformed for a report without an artifact or a policy."""
    verdict = report.verdict
    if verdict.artifact is None or verdict.policy is None:
        missing = "a manifest" if verdict.artifact is None else "a policy file"
        why = f"a verification summary is about an artifact under a policy, and there was no {missing}"
        raise Malformed("report cannot be signed", why=why, hint="comity policy new", code="UNSIGNABLE-REPORT")
    return Verified(
        by=by,
        name=verdict.name,
        artifact=verdict.artifact,
        time=time,
        policy=verdict.policy,
        passed=verdict.accepted,
        levels=tuple(level(row.name) for row in verdict.rows if row.state == "pass"),
        inputs=verdict.inputs[:MAX_INPUTS],
        report=SideObject.of(report.encode()),
        version=report.version,
    )


def sign_verified(verified: Verified, *signers: Signer) -> Entry:
    """Raises Malformed for what nobody could read back."""
    statement = verified.statement()
    Verified.parse(statement)
    return sign_statement(statement, *signers)


def check_report(entry: Entry, signer: Signatory, report: VerdictReport) -> Verified:
    """The statement, proven to be signed by `signer`'s keys and to say of `report` what is in it.

    Raises Malformed, and Untrusted with code SIGNATURE or REPORT.
    """
    verified = Verified.parse(entry.statement)
    if not signer.signed(entry.envelope):
        raise Untrusted("report refused", why="it is not signed by the keys of who it says", code="SIGNATURE")
    if SideObject.of(report.encode()) != verified.report:
        raise Untrusted("report refused", why="another report was signed", code="REPORT")
    if verified != summarise(report, verified.by, verified.time):
        raise Untrusted("report refused", why="what was signed is not what is in it", code="REPORT")
    return verified


def moment(time: int) -> str:
    """`2026-11-25T15:04:05Z` for seconds since 1970."""
    return datetime.datetime.fromtimestamp(time, datetime.UTC).strftime(_TIME)


def level(row: str) -> str:
    """The VSA level that a row stands for: `key policy` is COMITY_KEY_POLICY."""
    return f"COMITY_{row.upper().replace(' ', '_')}"


def _resource(artifact: Digest) -> str:
    return f"urn:comity:artifact:{artifact}"


def _verifier(identity: Digest) -> str:
    return f"urn:comity:identity:{identity}"


def _time(fields: Fields) -> int:
    text = fields.text("timeVerified", most=20)
    try:
        if _TIME_FORM.match(text):
            return int(datetime.datetime.strptime(text, _TIME).replace(tzinfo=datetime.UTC).timestamp())
    except ValueError:
        pass
    raise fields.error("'timeVerified' must be a moment in UTC, such as 2026-11-25T15:04:05Z")


def _version(fields: Fields, by: Digest) -> str:
    fields.constant("id", _verifier(by))
    versions = fields.object("version")
    version = versions.text("comity", most=64)
    versions.done()
    fields.done()
    return version


def _sha256(fields: Fields) -> Digest:
    digests = fields.object("digest")
    digest = digests.digest("sha256")
    digests.done()
    fields.done()
    return digest


def _level(item: Json) -> str:
    if not isinstance(item, str) or not _LEVEL.match(item):
        raise Malformed("verified is malformed", why="a level is upper-case letters, digits and underscores")
    return item
