"""DSSE envelopes: bytes, their type, and who signed exactly these bytes. Source: the DSSE specification, v1.

    {"payload":"<base64>","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"<hex>","sig":"<base64>"}]}

An envelope on one line, without its line feed, is a log entry. It has one form, so that one payload with one set of
signatures is one line: RFC 8785 JSON, base64 without bits to spare, signatures in order of their key ids, each of the
length that a signature of some algorithm has. The `keyid` is the id of one public key (`PublicKey.id`); a hybrid signer
leaves one signature a half. Source: protocol, section 5a.


Statements: signed claims about a digest. An in-toto Statement v1 inside a DSSE envelope.

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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
from comity.trust.keys import SIGNATURE_SIZES, PublicKey, Signer, VerifyingKey

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_LINE: Final = 65_535
MAX_SIGNATURES: Final = 24
"""Of the largest statement: two halves of each of seven governance keys, and ten keys that a node record binds."""
_SIZES: Final = frozenset(SIGNATURE_SIZES.values())


@dataclass(frozen=True, slots=True)
class EnvelopeSignature:
    keyid: Digest
    sig: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A signed payload. `signed_by` decides; the mere presence of a signature means nothing."""

    payload_type: str
    payload: bytes
    signatures: tuple[EnvelopeSignature, ...]

    @classmethod
    def parse(cls, line: bytes) -> Envelope:
        """Parse one line (at most 65,535 bytes) in the one form that an envelope has. Raises Malformed."""
        fields = Fields(parse_canonical(line, limit=MAX_LINE, what="envelope"), "envelope")
        payload = b64decode(fields.take("payload"))
        payload_type = fields.text("payloadType", most=100)
        signatures = tuple(_signature(item) for item in fields.items("signatures", least=1, most=MAX_SIGNATURES))
        fields.done()
        ids = [signature.keyid for signature in signatures]
        if ids != sorted(set(ids)):
            raise Malformed("envelope is malformed", why="its signatures are not in order of their keys, each key once")
        return cls(payload_type, payload, signatures)

    def encode(self) -> bytes:
        """One line, without line feed. Raises Malformed beyond 65,535 bytes."""
        line = canonical(
            {
                "payload": b64encode(self.payload),
                "payloadType": self.payload_type,
                "signatures": [{"keyid": s.keyid, "sig": b64encode(s.sig)} for s in self.signatures],
            }
        )
        if len(line) > MAX_LINE:
            raise Malformed("envelope too large", why=f"{len(line)} bytes, a log entry has at most {MAX_LINE}")
        return line

    @property
    def statement_digest(self) -> Digest:
        """What is said, whoever signed it: SHA-256 of the pre-authentication encoding."""
        return sha256(pae(self.payload_type, self.payload))

    def signed_by(self, keys: Sequence[VerifyingKey], threshold: int, beside: Iterable[PublicKey] = ()) -> bool:
        """Whether at least `threshold` of `keys` signed this, and each of `beside`, and nobody else.

        The one rule by which signatures count: each key that signed did so with every half, every signature here
        holds, and none is there that the record does not list.
        """
        present = {signature.keyid for signature in self.signatures}
        whole = [key for key in keys if present.issuperset(half.id for half in key.halves)]
        halves = {half.id: half for half in (*(half for key in whole for half in key.halves), *beside)}
        if len(whole) < threshold or present != halves.keys():
            return False
        message = pae(self.payload_type, self.payload)
        return all(_holds(halves[signature.keyid], signature.sig, message) for signature in self.signatures)

    def verified_by(self, key: VerifyingKey) -> bool:
        """Whether `key`, and nobody else, signed this."""
        return self.signed_by((key,), 1)

    def bears(self, key: VerifyingKey) -> bool:
        """Whether every half of `key` has a valid signature here, whoever else signed. That alone proves no statement:
        it is for whoever still collects signatures, or asks what a key was used for."""
        message = pae(self.payload_type, self.payload)
        given = {signature.keyid: signature.sig for signature in self.signatures}
        return all(half.id in given and _holds(half, given[half.id], message) for half in key.halves)


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, *signers: Signer, payload_type: str = PAYLOAD_TYPE) -> Envelope:
    """Sign `payload` by every signer. Raises Malformed where two signers share a key."""
    message = pae(payload_type, payload)
    made = (EnvelopeSignature(keyid, sig) for signer in signers for keyid, sig in signer.sign(message))
    return assemble(payload, made, payload_type=payload_type)


def assemble(payload: bytes, made: Iterable[EnvelopeSignature], *, payload_type: str = PAYLOAD_TYPE) -> Envelope:
    """The envelope of signatures that were made one by one. Raises Malformed for two of one key, or too many."""
    signatures = tuple(sorted(made, key=lambda signature: signature.keyid))
    if len({signature.keyid for signature in signatures}) != len(signatures):
        raise Malformed("cannot sign", why="one key would sign twice")
    if len(signatures) > MAX_SIGNATURES:
        raise Malformed("cannot sign", why=f"{len(signatures)} signatures, and a line has at most {MAX_SIGNATURES}")
    return Envelope(payload_type, payload, signatures)


def _signature(item: Json) -> EnvelopeSignature:
    fields = Fields(item, "envelope signature")
    signature = EnvelopeSignature(fields.digest("keyid"), b64decode(fields.take("sig")))
    fields.done()
    if len(signature.sig) not in _SIZES:
        raise Malformed("envelope is malformed", why=f"no signature has {len(signature.sig)} bytes")
    return signature


def _holds(key: PublicKey, signature: bytes, message: bytes) -> bool:
    if len(signature) != SIGNATURE_SIZES[key.alg]:
        return False
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
