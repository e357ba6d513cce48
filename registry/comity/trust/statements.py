"""Statement types of nodes, publishers and verifiers: content, encoding and checks.

    node-record   a member binds log, cosigner and online keys and TLS certificates as one node
    hold          a node has a full verified copy of an artifact
    addresses     addresses of a node (hints, never trusted)
    advisory      a warning about an artifact, by any author; it deletes and blocks nothing
    published     a publisher publishes an artifact under a name, licence and lineage
    vouched       a statement of any author about an artifact: rehashed, evaluated, reproduced
    derived       the author derived the child's weights from the parent's; how many tensors are equal
    verified      the result of verifying an artifact under a policy, in the form of SLSA's VSA v1

The parse functions do not verify the author; `check_*`, `signed_by_node` and `Signatory` do. A statement proves only
that its author signed it. Source: protocol, sections 3, 5 and 8.
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
from comity.trust.places import Place
from comity.trust.report import VerdictReport
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject, sign_statement
from comity.trust.tlog.note import COSIGNER_ALGORITHMS, ED25519, VerifierKey, check_name

MAX_CERTIFICATE: Final = 4096
MAX_COSIGNERS: Final = 2
MAX_OPERATORS: Final = 4


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """The keys and certificates that a member binds as one node (protocol, section 3).

    `member` is the id of the member; `log` the key of the node's log (the key name is the origin); `cosigners` the keys
    of the node's mirror cosigner (Ed25519 0x04, ML-DSA-44 0x06; one name); `online` the key that signs the node's
    statements (`hold`, …); `tls` and `operators` are certificates in DER; `place` is what the member declares about the
    node's machines, None where it declares nothing: the first form of the record, without this member.

    The member's governance keys sign the record, and *every* bound key countersigns, so that nobody can claim a key
    that they do not hold. A key bound by several members counts for each of them.
    """

    member: Digest
    name: str
    log: VerifierKey
    cosigners: tuple[VerifierKey, ...]
    online: VerifyingKey
    tls: bytes
    operators: tuple[bytes, ...] = ()
    place: Place | None = None
    bound_keys: tuple[PublicKey, ...] = field(init=False, repr=False, compare=False)
    """Every key that must countersign."""

    def __post_init__(self) -> None:
        if self.log.type != ED25519:
            raise Malformed("node record is malformed", why="the log key must be of type 0x01 (Ed25519)")
        known = all(key.type in COSIGNER_ALGORITHMS for key in self.cosigners)
        if not 1 <= len(self.cosigners) <= MAX_COSIGNERS or not known:
            raise Malformed("node record is malformed", why="expected one or two cosigner keys of type 0x04 or 0x06")
        if len({key.name for key in self.cosigners}) != 1 or len({key.type for key in self.cosigners}) != len(
            self.cosigners
        ):
            raise Malformed("node record is malformed", why="cosigner keys must have one name and different types")
        cosigners = (PublicKey(COSIGNER_ALGORITHMS[key.type], key.public) for key in self.cosigners)
        certificates = (certificate_key(der) for der in (self.tls, *self.operators))
        bound = (PublicKey("ed25519", self.log.public), *cosigners, *self.online.halves, *certificates)
        object.__setattr__(self, "bound_keys", bound)
        ids = [key.id for key in bound]
        if len(set(ids)) != len(ids):
            raise Malformed("node record is malformed", why="one key has two roles")

    @property
    def node(self) -> Author:
        """The author of the node's statements: the id of its online key."""
        return Author("node", self.online.id)

    @property
    def origin(self) -> str:
        return self.log.name


def certificate_key(der: bytes) -> PublicKey:
    """The P-256 key of a certificate. The other fields are not trusted. Raises Malformed."""
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise Malformed("certificate is malformed", why=str(error)[:120]) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Malformed("certificate is malformed", why="a node certificate must have an ECDSA P-256 key")
    raw = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return PublicKey("ecdsa-p256", raw)


def sign_node_record(record: NodeRecord, governance: Sequence[Signer], bound: Sequence[Signer]) -> Entry:
    """Sign the `node-record` statement with the member's keys and every bound key.

    Args:
        governance: enough of the member's keys to reach its threshold.
        bound: signers that together have every key of `record.bound_keys`.
    """
    return sign_statement(node_record_statement(record), *governance, *bound)


def node_record_statement(record: NodeRecord) -> Statement:
    """The unsigned statement, for signers on different machines."""
    body: dict[str, Json] = {
        "name": record.name,
        "log": str(record.log),
        "cosigners": [str(key) for key in record.cosigners],
        "online": record.online.to_json(),
        "tls": b64encode(record.tls),
        "operators": [b64encode(der) for der in record.operators],
    }
    if record.place is not None:
        body["place"] = record.place.to_json()
    subject = Subject(record.origin, sha256(record.origin.encode()))
    return Statement("node-record", (subject,), Author("identity", record.member), body)


def parse_node_record(entry: Entry) -> NodeRecord:
    """Read a `node-record` statement without verifying signatures. Raises Malformed."""
    statement = entry.statement
    if statement.predicate != "node-record" or statement.by is None or statement.by.kind != "identity":
        raise Malformed("node record is malformed", why="not a node-record statement of an identity")
    fields = statement.fields()
    record = NodeRecord(
        member=statement.by.id,
        name=fields.text("name", most=100),
        log=VerifierKey.parse(fields.text("log")),
        cosigners=tuple(_verifier_key(item) for item in fields.items("cosigners", least=1, most=MAX_COSIGNERS)),
        online=VerifyingKey.from_json(fields.take("online")),
        tls=_certificate(fields.take("tls")),
        operators=tuple(_certificate(item) for item in fields.items("operators", most=MAX_OPERATORS)),
        place=Place.read(fields.object("place")) if fields.has("place") else None,
    )
    fields.done()
    if statement.sole_subject() != sha256(record.origin.encode()):
        raise Malformed("node record is malformed", why="its subject is not the origin of its log")
    return record


def check_node_record(entry: Entry, governance: Signatory) -> NodeRecord:
    """Return the record if the member's `governance` keys and every bound key signed it. Raises Malformed/Untrusted.

    Not checked: its time and its log. A record is valid by its signatures, whatever its source.
    """
    return prove_node_record(parse_node_record(entry), entry, governance)


def prove_node_record(record: NodeRecord, entry: Entry, governance: Signatory) -> NodeRecord:
    """As `check_node_record`, for a `record` already parsed from `entry`."""
    present = {signature.keyid for signature in entry.envelope.signatures}
    for key in record.bound_keys:
        if key.id not in present:
            why = f"the bound {key.alg} key {key.id[:16]} did not countersign"
            raise Untrusted("node record refused", why=why, code="NODE-RECORD")
    if not governance.signed(entry.envelope, record.bound_keys):
        why = "not signed by exactly the member's governance keys and each bound key"
        raise Untrusted("node record refused", why=why, code="NODE-RECORD")
    return record


def _verifier_key(item: object) -> VerifierKey:
    if not isinstance(item, str):
        raise Malformed("node record is malformed", why="a cosigner key must be a verifier key string")
    return VerifierKey.parse(item)


def _certificate(item: object) -> bytes:
    der = b64decode(item)
    if len(der) > MAX_CERTIFICATE:
        raise Malformed("node record is malformed", why=f"a certificate has at most {MAX_CERTIFICATE} bytes")
    return der


KEY_COMPROMISE: Final = "key-compromise"
ADVISORIES: Final = ("yank", "superseded", "vulnerability", "malware", "licence-change", KEY_COMPROMISE)
INFO: Final = "info"
"""A severity that warns of nothing: the advisory is listed and fails no row."""
SEVERITIES: Final = (INFO, "low", "medium", "high", "critical")
STATE_SETTING: Final = ("yank", "superseded")
MAX_ADDRESSES: Final = 8


@dataclass(frozen=True, slots=True)
class Hold:
    """A node claims a complete copy of `artifact`; `pieces` is the digest of the piece index."""

    by: Author
    artifact: Digest
    pieces: Digest


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses that a node claims, `host:port` each: `mutual` requires a known certificate, `open` does not."""

    by: Author
    mutual: tuple[str, ...]
    open: tuple[str, ...]


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


def sign_hold(
    record: NodeRecord, artifact: Digest, manifest: SideObject, pieces: SideObject, online: Signer, label: str = ""
) -> Entry:
    """`label` makes a repeated hold another statement."""
    body = {"manifest": manifest.to_json(), "pieces": pieces.to_json()}
    statement = Statement("hold", (Subject(label, artifact),), record.node, body, (manifest, pieces))
    return sign_statement(statement, online)


def parse_hold(statement: Statement) -> Hold:
    """Raises Malformed."""
    by = _author(statement, "hold", "node")
    fields = statement.fields()
    manifest, pieces = SideObject.from_json(fields.take("manifest")), SideObject.from_json(fields.take("pieces"))
    fields.done()
    artifact = statement.sole_subject()
    if manifest.digest != artifact or {manifest, pieces} != set(statement.objects):
        raise Malformed("hold is malformed", why="its subject must be the digest of its manifest")
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
    """Read the member `name`: at most eight `host:port` items. Raises Malformed."""
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
    compromise = Compromise(key, since.text("origin", most=255), since.integer("index"))
    since.done()
    check_name(compromise.origin)
    return compromise


def signed_by_node(entry: Entry, record: NodeRecord) -> bool:
    """Whether the entry is a statement of this node, signed by its online key and no other key."""
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
        published = cls(
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


VOUCHED: Final = "vouched"
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
    if statement.predicate != VOUCHED or statement.by is None:
        raise Malformed("vouched is malformed", why="not a vouched statement")
    fields = statement.fields()
    vouched = Vouched(
        by=statement.by,
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


DERIVED: Final = "derived"
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


VERIFIED: Final = "verified"
MAX_INPUTS: Final = 256
"""Maximum of attestations in the statement; the report lists all."""
MAX_LEVELS: Final = 64
RESULTS: Final = {True: "PASSED", False: "FAILED"}
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_TIME_FORM: Final = re.compile(r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")
_LEVEL: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Verified:
    """Content of a `verified` statement, an SLSA verification summary (VSA v1). Source: protocol, sections 5 and 8.

        {"by":{"identity":"51aa…"},"objects":[{"digest":"0a1b…","size":9120}],
         "inputAttestations":[{"digest":{"sha256":"…"}}],"policy":{"digest":{"sha256":"77c0…"}},
         "report":{"digest":"0a1b…","size":9120},"resourceUri":"urn:comity:artifact:9f2c…",
         "timeVerified":"2026-11-25T15:04:05Z","verificationResult":"PASSED","verifiedLevels":["COMITY_BYTES"],
         "verifier":{"id":"urn:comity:identity:51aa…","version":{"comity":"0.1.0"}}}

    The report is a side object. All members except the time and the signer follow from it (`check_report`). `time` is
    the signer's claim, in seconds since 1970; `by` is the claimed signer, an identity.
    """

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
            "timeVerified": format_time(self.time),
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
        verified = cls(
            by=statement.by.id,
            name=statement.subjects[0].name,
            artifact=artifact,
            time=read_time(fields, "timeVerified"),
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
        if statement.objects != (verified.report,):
            raise Malformed("verified is malformed", why="its report must be its only side object")
        return verified


def summarise_report(report: VerdictReport, by: Digest, time: int) -> Verified:
    """The summary of `report` by the identity `by` at `time`. Raises Malformed without an artifact or a policy."""
    verdict = report.verdict
    if verdict.artifact is None or verdict.policy is None:
        missing = "a manifest" if verdict.artifact is None else "a policy file"
        why = f"a verification summary needs an artifact and a policy; the report is without {missing}"
        raise Malformed("report cannot be signed", why=why, hint="comity policy new", code="UNSIGNABLE-REPORT")
    return Verified(
        by=by,
        name=verdict.name,
        artifact=verdict.artifact,
        time=time,
        policy=verdict.policy,
        passed=verdict.accepted,
        levels=tuple(vsa_level(row.name) for row in verdict.rows if row.state == "pass"),
        inputs=verdict.inputs[:MAX_INPUTS],
        report=SideObject.of(report.encode()),
        version=report.version,
    )


def sign_verified(verified: Verified, *signers: Signer) -> Entry:
    """Raises Malformed if the statement is not valid."""
    statement = verified.statement()
    Verified.parse(statement)
    return sign_statement(statement, *signers)


def check_report(entry: Entry, signer: Signatory, report: VerdictReport) -> Verified:
    """Return the content if `signer` signed the statement and it agrees with `report`.

    Raises Malformed, and Untrusted with code SIGNATURE or REPORT.
    """
    verified = Verified.parse(entry.statement)
    if not signer.signed(entry.envelope):
        raise Untrusted("report refused", why="not signed by the keys of its author", code="SIGNATURE")
    if SideObject.of(report.encode()) != verified.report:
        raise Untrusted("report refused", why="another report was signed", code="REPORT")
    if verified != summarise_report(report, verified.by, verified.time):
        raise Untrusted("report refused", why="the signed summary differs from the report", code="REPORT")
    return verified


def format_time(time: int) -> str:
    """`2026-11-25T15:04:05Z` for seconds since 1970."""
    return datetime.datetime.fromtimestamp(time, datetime.UTC).strftime(_TIME)


def vsa_level(row: str) -> str:
    """The VSA level of a report row: `key policy` gives COMITY_KEY_POLICY."""
    return f"COMITY_{row.upper().replace(' ', '_')}"


def _resource(artifact: Digest) -> str:
    return f"urn:comity:artifact:{artifact}"


def _verifier(identity: Digest) -> str:
    return f"urn:comity:identity:{identity}"


def read_time(fields: Fields, name: str) -> int:
    """The member `name`, a time as `format_time` writes it, in seconds since 1970. Raises Malformed."""
    text = fields.text(name, most=20)
    try:
        if _TIME_FORM.match(text):
            return int(datetime.datetime.strptime(text, _TIME).replace(tzinfo=datetime.UTC).timestamp())
    except ValueError:
        pass
    raise fields.error(f"{name!r} must be a time in UTC, such as 2026-11-25T15:04:05Z")


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
        raise Malformed("verified is malformed", why="a level must be upper-case letters, digits and underscores")
    return item
