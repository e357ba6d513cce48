"""Statements: signed claims about a digest. An in-toto Statement v1 in a DSSE v1 envelope; one line is one log entry.

    {"payload":"<base64>","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"<hex>","sig":"<base64>"}]}

    {"_type":"https://in-toto.io/Statement/v1",
     "subject":[{"name":"swiss-ai/apertus-8b@v1","digest":{"sha256":"9f2c…"}}],
     "predicateType":"urn:comity:published:v1",
     "predicate":{"by":{"identity":"51aa…"},"objects":[{"digest":"0a1b…","size":612}],…}}

A log entry is an envelope on one line, without its line feed. An envelope has one valid encoding: RFC 8785 JSON,
canonical base64, signatures sorted by key id, each with the length that some algorithm defines. `keyid` is
`PublicKey.id`; a hybrid signer adds one signature per half.

`by` names the claimed author; the author's record and the envelope's signatures prove it, in other modules. `objects`
lists the side objects that a log must hold before it logs the statement: each once, at most 16 and 64 MiB in total,
and only in predicates that define side objects. Unknown predicate types are parsed, kept and shown as unknown.
Source: protocol, sections 5 and 5a.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Final

from comity.trust.encoding import (
    Digest,
    Fields,
    Json,
    b64decode,
    b64encode,
    bare_digest,
    canonical,
    parse_canonical,
    parse_json,
    sha256,
)
from comity.trust.errors import Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.keys import SIGNATURE_SIZES, PublicKey, Signer, VerifyingKey
from comity.trust.statement_kinds import STATEMENT_KINDS

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_LINE: Final = 65_535
MAX_SIGNATURES: Final = 24
"""The largest statement has two halves of each of seven governance keys, and ten keys bound by a node record."""
_SIZES: Final = frozenset(SIGNATURE_SIZES.values())


@frozen
class EnvelopeSignature:
    keyid: Digest
    sig: bytes


@frozen
class Envelope:
    """A signed payload. The signatures are not verified until `signed_by` is called; then each is verified once, and
    this object keeps the answer: one for each signature at most, because a key id belongs to one key."""

    payload_type: str
    payload: bytes
    signatures: tuple[EnvelopeSignature, ...]
    statement_digest: Digest = field(init=False, repr=False, compare=False)
    """SHA-256 of the pre-authentication encoding; independent of the signatures."""
    _checked: dict[PublicKey, bool] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "statement_digest", sha256(pae(self.payload_type, self.payload)))

    @classmethod
    def parse(cls, line: bytes) -> Envelope:
        """Parse one line of at most 65,535 bytes in canonical form. Raises Malformed."""
        fields = Fields(parse_canonical(line, limit=MAX_LINE, what="envelope"), "envelope")
        payload = b64decode(fields.take("payload"))
        payload_type = fields.text("payloadType", most=100)
        signatures = tuple(_signature(item) for item in fields.items("signatures", least=1, most=MAX_SIGNATURES))
        fields.done()
        ids = [signature.keyid for signature in signatures]
        if ids != sorted(set(ids)):
            raise Malformed("envelope is malformed", why="signatures are not sorted by key id, each key once")
        return cls(payload_type, payload, signatures)

    def encode(self) -> bytes:
        """One line, without line feed. Raises Malformed if it is longer than 65,535 bytes."""
        line = canonical(
            {
                "payload": b64encode(self.payload),
                "payloadType": self.payload_type,
                "signatures": [{"keyid": s.keyid, "sig": b64encode(s.sig)} for s in self.signatures],
            }
        )
        if len(line) > MAX_LINE:
            raise Malformed("envelope too large", why=f"{len(line)} bytes; a log entry has at most {MAX_LINE}")
        return line

    def signed_by(self, keys: Sequence[VerifyingKey], threshold: int, extra_keys: Iterable[PublicKey] = ()) -> bool:
        """Whether at least `threshold` of `keys` and each of `extra_keys` signed this, and no other key.

        This is the only rule for accepting signatures: each key that signed did so with every half, every signature
        is valid, and no signature is by a key that the record does not list.
        """
        present = {signature.keyid for signature in self.signatures}
        complete = [key for key in keys if present.issuperset(half.id for half in key.halves)]
        halves = {half.id: half for half in (*(half for key in complete for half in key.halves), *extra_keys)}
        if len(complete) < threshold or present != halves.keys():
            return False
        return all(self._is_valid(halves[signature.keyid], signature.sig) for signature in self.signatures)

    def verified_by(self, key: VerifyingKey) -> bool:
        """Whether `key`, and no other key, signed this."""
        return self.signed_by((key,), 1)

    def has_valid_signature(self, key: VerifyingKey) -> bool:
        """Whether every half of `key` has a valid signature, whatever other signatures there are. This alone does not
        prove a statement: use it to collect signatures, or to find uses of a key."""
        signatures = {signature.keyid: signature.sig for signature in self.signatures}
        return all(half.id in signatures and self._is_valid(half, signatures[half.id]) for half in key.halves)

    def _is_valid(self, key: PublicKey, signature: bytes) -> bool:
        """Whether `signature`, the one of this envelope with the id of `key`, is valid."""
        if key not in self._checked:
            self._checked[key] = _is_valid(key, signature, pae(self.payload_type, self.payload))
        return self._checked[key]


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign_payload(payload: bytes, *signers: Signer, payload_type: str = PAYLOAD_TYPE) -> Envelope:
    """Sign `payload` with every signer. Raises Malformed if two signers share a key."""
    message = pae(payload_type, payload)
    signatures = (EnvelopeSignature(keyid, sig) for signer in signers for keyid, sig in signer.sign(message))
    return assemble_envelope(payload, signatures, payload_type=payload_type)


def assemble_envelope(
    payload: bytes, signatures: Iterable[EnvelopeSignature], *, payload_type: str = PAYLOAD_TYPE
) -> Envelope:
    """Build an envelope from separate signatures. Raises Malformed for two of one key, or too many."""
    ordered = tuple(sorted(signatures, key=lambda signature: signature.keyid))
    if len({signature.keyid for signature in ordered}) != len(ordered):
        raise Malformed("cannot sign", why="one key would sign twice")
    if len(ordered) > MAX_SIGNATURES:
        raise Malformed("cannot sign", why=f"{len(ordered)} signatures; a line has at most {MAX_SIGNATURES}")
    return Envelope(payload_type, payload, ordered)


def _signature(item: Json) -> EnvelopeSignature:
    fields = Fields(item, "envelope signature")
    signature = EnvelopeSignature(fields.digest("keyid"), b64decode(fields.take("sig")))
    fields.done()
    if len(signature.sig) not in _SIZES:
        raise Malformed("envelope is malformed", why=f"no algorithm has signatures of {len(signature.sig)} bytes")
    return signature


def _is_valid(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except Untrusted:
        return False
    return True


STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
MAX_PAYLOAD: Final = 49_152
MAX_SUBJECTS: Final = 64
MAX_OBJECTS: Final = 16
MAX_OBJECT_BYTES: Final = 64 * 1024 * 1024
"""Total of all side objects of a statement."""
_PREDICATE = re.compile(r"urn:comity:([a-z][a-z0-9-]{0,62}):v1\Z")


@frozen
class Author:
    """The claimed author: an `identity` (publisher or member) or a `node`, by id."""

    kind: str
    id: Digest

    def to_json(self) -> dict[str, str]:
        return {self.kind: self.id}


@frozen
class Subject:
    """The subject of a statement. `name` is only a label; `digest` identifies the subject."""

    name: str
    digest: Digest


@frozen
class SideObject:
    """Reference to data that is too large for the log line: SHA-256 and size in bytes (at most 64 MiB)."""

    digest: Digest
    size: int

    @classmethod
    def of(cls, data: bytes) -> SideObject:
        return cls(sha256(data), len(data))

    @classmethod
    def from_json(cls, value: Json) -> SideObject:
        fields = Fields(value, "side object")
        side_object = cls(fields.digest("digest"), fields.integer("size", most=MAX_OBJECT_BYTES))
        fields.done()
        return side_object

    def to_json(self) -> dict[str, Json]:
        return {"digest": self.digest, "size": self.size}


@frozen
class Statement:
    """A parsed statement.

    `predicate` is the short name (`published`) of a Comity predicate. For any other predicate it is the full predicate
    type, and `by` is None. `body` is the predicate without `by` and `objects`.
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
            _objects(predicate, ours.group(1) if ours else predicate_type) if "objects" in predicate else (),
        )

    def encode(self) -> bytes:
        """The payload to sign; deterministic. Raises Malformed unless it is a Comity predicate with an author."""
        if self.by is None or not _PREDICATE.match(f"urn:comity:{self.predicate}:v1"):
            raise Malformed("cannot write a statement", why="expected a Comity predicate with an author")
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

    def author(self, predicate: str) -> Author:
        """The author, if this is a statement of this kind by an author that may say it. Raises Malformed."""
        allowed = STATEMENT_KINDS[predicate].by
        if self.predicate == predicate and self.by is not None and allowed.allows(self.by.kind):
            return self.by
        article = "an" if predicate[0] in "aeiou" else "a"
        why = f"not {article} {predicate} statement of {allowed.value}"
        raise Malformed(f"{predicate} is malformed", why=why)

    def sole_subject(self) -> Digest:
        """The digest of the only subject. Raises Malformed if there are more subjects."""
        if len(self.subjects) != 1:
            raise Malformed(f"{self.predicate} is malformed", why=f"{len(self.subjects)} subjects instead of one")
        return self.subject


@frozen
class Entry:
    """One log entry: its exact bytes (the leaf data), the envelope, the statement. Nothing is verified yet."""

    line: bytes
    envelope: Envelope
    statement: Statement
    digest: Digest = field(init=False, repr=False, compare=False)
    """SHA-256 of the line; inclusion proofs refer to it."""
    statement_digest: Digest = field(init=False, repr=False, compare=False)
    """The same for every envelope of one statement; used for duplicates, quotas and votes."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", sha256(self.line))
        object.__setattr__(self, "statement_digest", self.envelope.statement_digest)


def parse_entry(line: bytes) -> Entry:
    """Parse a log line whose payload is an in-toto statement. Raises Malformed."""
    envelope = Envelope.parse(line)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise Malformed("entry is malformed", why=f"payload type is not {PAYLOAD_TYPE}")
    return Entry(line, envelope, Statement.parse(envelope.payload))


def sign_statement(statement: Statement, *signers: Signer) -> Entry:
    """Sign a statement and return its log entry. Raises Malformed if the line cannot be parsed back."""
    return parse_entry(sign_payload(statement.encode(), *signers).encode())


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


def _objects(predicate: Mapping[str, Json], kind: str) -> tuple[SideObject, ...]:
    if kind not in STATEMENT_KINDS or not STATEMENT_KINDS[kind].objects:
        raise Malformed("statement is malformed", why=f"{kind[:60]!r} has no side objects")
    items = Fields(predicate, "statement").items("objects", least=1, most=MAX_OBJECTS)
    objects = tuple(SideObject.from_json(item) for item in items)
    if len({item.digest for item in objects}) != len(objects):
        raise Malformed("statement is malformed", why="a side object is listed twice")
    if sum(item.size for item in objects) > MAX_OBJECT_BYTES:
        raise Malformed("statement is malformed", why=f"side objects have more than {MAX_OBJECT_BYTES} bytes in total")
    return objects
