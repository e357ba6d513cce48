"""Node records and addresses: what a member binds as one node, and where the node says that it can be reached.

    node-record   a member binds log, cosigner and online keys and TLS certificates as one node
    addresses     addresses of a node (hints, never trusted)

The parse functions do not verify the author; `check_node_record` and `signed_by_node` do. Source: protocol, sections 3
and 5.

A node has one form of TLS certificate, in DER: all its fields but the signature follow from its key. X.509 v3; serial:
the first 128 bits of the key id, lowest bit set; signature ecdsa-with-SHA256; issuer and subject CN=`n-<32 hex digits
of the key id>.comity.invalid`; valid 1970-01-01T00:00:00Z to 9999-12-31T23:59:59Z; extensions basicConstraints
(critical) CA:false, keyUsage (critical) digitalSignature, subjectAltName the same name. So it is read by making the
same one from its key and comparing bytes: no parser of X.509 decides, and a command that only reads node records loads
none. Source of the encoding: RFC 5280, section 4.1; RFC 5480, section 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field
from typing import Annotated, ClassVar, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from comity.trust.codec import ABSENT, JsonBytes, JsonItems, JsonRead, JsonText
from comity.trust.content import ByAuthor, ById, Content, Label
from comity.trust.encoding import Fields, parse_decimal, sha256
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.identity import Signatory
from comity.trust.keys import PublicKey, VerifyingKey
from comity.trust.places import Place
from comity.trust.statement import MAX_SUBJECTS, Author, Entry, Statement, Subject
from comity.trust.statement_kinds import ADDRESSES, NODE_RECORD
from comity.trust.tlog.note import COSIGNER_ALGORITHMS, ED25519, VerifierKey

MAX_CERTIFICATE: Final = 4096
MAX_COSIGNERS: Final = 2
MAX_OPERATORS: Final = 4
MAX_ADDRESSES: Final = 8
ALGORITHM: Final = "ecdsa-p256"
_POINT: Final = 65
"""Bytes of an uncompressed point of P-256."""
_INTEGER, _BITS, _OCTETS, _TEXT, _SEQUENCE, _SET = 0x02, 0x03, 0x04, 0x0C, 0x30, 0x31
_DNS_NAME, _EXTENSIONS = 0x82, 0xA3
_VERSION: Final = bytes.fromhex("a003020102")
_ECDSA_WITH_SHA256: Final = bytes.fromhex("300a06082a8648ce3d040302")
_VALIDITY: Final = b"\x30\x20\x17\x0d700101000000Z\x18\x0f99991231235959Z"
_KEY_BEGINS: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
"""Of a subjectPublicKeyInfo: all before the coordinates of the point."""
_CONSTRAINTS: Final = bytes.fromhex("300c0603551d130101ff04023000300e0603551d0f0101ff040403020780")
_COMMON_NAME: Final = bytes.fromhex("0603550403")
_ALTERNATIVE_NAME: Final = bytes.fromhex("0603551d11")


class _CosignerKey(JsonRead):
    """Any text is read as a verifier key, whose error says more."""

    def read(self, fields: Fields, name: str) -> VerifierKey:
        text = fields.take(name)
        if not isinstance(text, str):
            raise fields.error("a cosigner key must be a verifier key string")
        return VerifierKey.parse(text)


_NOTE_KEY: Final = JsonRead(VerifierKey.parse, "noteKey")
_CERTIFICATE: Final = JsonBytes(MAX_CERTIFICATE, 1)


@frozen
class NodeRecord(Content):
    """A member says which keys and certificates belong to its node. Source: protocol, section 3.

    `member` is the id of the member; `log` the key of the node's log (the key name is the origin); `cosigners` the keys
    of the node's mirror cosigner (Ed25519 0x04, ML-DSA-44 0x06; one name); `online` the key that signs the node's
    statements (`hold`, …); `tls` and `operators` are certificates in DER; `place` is what the member declares about the
    node's machines, None where it declares nothing: the first form of the record, without this member.

    The member's governance keys sign the record, and *every* bound key countersigns, so that nobody can claim a key
    that they do not hold. A key bound by several members counts for each of them.
    """

    predicate: ClassVar = NODE_RECORD
    member: ById
    name: Annotated[str, JsonText(100)]
    log: Annotated[VerifierKey, _NOTE_KEY, "The key of the log (type 0x01); its name is the origin."]
    cosigners: Annotated[
        tuple[VerifierKey, ...],
        JsonItems(MAX_COSIGNERS, 1, of=_CosignerKey(VerifierKey.parse, "noteKey"), once=True),
        "Types 0x04 and 0x06, of one name.",
    ]
    online: Annotated[VerifyingKey, "The key of the node's own statements."]
    tls: Annotated[bytes, _CERTIFICATE, "The TLS certificate in DER: the exact bytes that the node presents."]
    operators: Annotated[tuple[bytes, ...], JsonItems(MAX_OPERATORS, of=_CERTIFICATE)] = ()
    place: Annotated[
        Place | None,
        ABSENT,
        "What the member declares about the node's machines; nobody verifies it. Absent in the first form.",
    ] = None
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

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject(self.origin, sha256(self.origin.encode())),)

    def check(self, statement: Statement) -> None:
        if statement.subject != sha256(self.origin.encode()):
            raise self.malformed("its subject is not the origin of its log")


@frozen
class NodeCertificate:
    """A certificate of this form. Whether its signature holds, `verify` says."""

    key: PublicKey
    signature: bytes

    @property
    def der(self) -> bytes:
        """The whole certificate."""
        return _item(_SEQUENCE, signed_part(self.key), _ECDSA_WITH_SHA256, _item(_BITS, b"\0", self.signature))

    def verify(self) -> None:
        """Raises Malformed unless its own key signed it."""
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), self.key.raw)
        try:
            point.verify(self.signature, signed_part(self.key), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise Malformed("not a node certificate", why="it is not signed by its own key") from error


def read_node_certificate(der: bytes) -> NodeCertificate | None:
    """The certificate, if it has exactly this form; None if any byte outside key and signature differs, or if its key
    is no point of the curve."""
    begins = der.find(_KEY_BEGINS) + len(_KEY_BEGINS) - 1
    raw = der[begins : begins + _POINT]
    if len(raw) != _POINT:
        return None
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
    except ValueError:
        return None
    key = PublicKey(ALGORITHM, raw)
    head = len(_item(_SEQUENCE, signed_part(key), _ECDSA_WITH_SHA256, _item(_BITS, b"\0")))
    found = NodeCertificate(key, der[head:])
    return found if found.der == der else None


def server_name(key: PublicKey) -> str:
    """The DNS name in the certificate of this key."""
    return f"n-{key.id[:32]}.comity.invalid"


def signed_part(key: PublicKey) -> bytes:
    """The tbsCertificate of this ecdsa-p256 key."""
    name = server_name(key).encode("ascii")
    whole = _item(_SEQUENCE, _item(_SET, _item(_SEQUENCE, _COMMON_NAME, _item(_TEXT, name))))
    alternative = _item(_SEQUENCE, _ALTERNATIVE_NAME, _item(_OCTETS, _item(_SEQUENCE, _item(_DNS_NAME, name))))
    return _item(
        _SEQUENCE,
        _VERSION,
        _serial(key),
        _ECDSA_WITH_SHA256,
        whole,
        _VALIDITY,
        whole,
        _KEY_BEGINS[:-1] + key.raw,
        _item(_EXTENSIONS, _item(_SEQUENCE, _CONSTRAINTS, alternative)),
    )


def _serial(key: PublicKey) -> bytes:
    number = int(key.id[:32], 16) | 1
    return _item(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _item(tag: int, *parts: bytes) -> bytes:
    """A value in DER, of less than 64 KiB."""
    body = b"".join(parts)
    if len(body) < 128:
        return bytes((tag, len(body))) + body
    size = len(body).to_bytes(1 if len(body) < 256 else 2, "big")
    return bytes((tag, 0x80 | len(size))) + size + body


def certificate_key(der: bytes) -> PublicKey:
    """The P-256 key of a certificate. The other fields are not trusted. Raises Malformed."""
    made = read_node_certificate(der)
    return made.key if made else _key_of_another_form(der)


def _key_of_another_form(der: bytes) -> PublicKey:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise Malformed("certificate is malformed", why=str(error)[:120]) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Malformed("certificate is malformed", why="a node certificate must have an ECDSA P-256 key")
    return PublicKey(ALGORITHM, key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))


def check_node_record(entry: Entry, governance: Signatory) -> NodeRecord:
    """Return the record if the member's `governance` keys and every bound key signed it. Raises Malformed/Untrusted.

    Not checked: its time and its log. A record is valid by its signatures, whatever its source.
    """
    return prove_node_record(NodeRecord.parse(entry.statement), entry, governance)


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


def signed_by_node(entry: Entry, record: NodeRecord) -> bool:
    """Whether the entry is a statement of this node, signed by its online key and no other key."""
    return entry.statement.by == record.node and entry.envelope.verified_by(record.online)


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    shown = 3 <= len(text) <= 300 and text.isprintable() and " " not in text
    if shown and host and parse_decimal(port, limit=65_535) > 0:
        return text
    raise Malformed("addresses are malformed", why="expected host:port")


ADDRESS_LIST: Final = JsonItems(MAX_ADDRESSES, of=JsonRead(_address, "address"), form="addresses")
"""At most eight `host:port`."""


@frozen
class Addresses(Content):
    """A node says where it can be reached: `host:port` each. `mutual` requires a known certificate, `open` does not."""

    predicate: ClassVar = ADDRESSES
    subject_count: ClassVar = (1, MAX_SUBJECTS)
    by: ByAuthor
    mutual: Annotated[tuple[str, ...], ADDRESS_LIST, "Of the port for members."]
    open: Annotated[tuple[str, ...], ADDRESS_LIST, "Of the port for everybody."]
    label: Label = field(default="", compare=False)

    @classmethod
    def of(cls, record: NodeRecord, mutual: Iterable[str], open_: Iterable[str], replaced: bytes = b"") -> Addresses:
        """`replaced` is the line that it replaces, which its label names: a log has no statement twice, and a node may
        go back to addresses that it had before."""
        label = f"{record.origin}{_after(replaced)}" if replaced else record.origin
        return cls(record.node, tuple(mutual), tuple(open_), label)

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject(self.label, self.by.id),)

    def replaces(self, line: bytes) -> bool:
        """Whether the node says here that these addresses replaced those of `line`."""
        return self.label.endswith(_after(line))


def _after(line: bytes) -> str:
    return f" after {sha256(line)[:16]}"


def read_addresses(entry: Entry, record: NodeRecord) -> Addresses | None:
    """The addresses in a node's statement; None if it is none of this node, or invalid."""
    try:
        return Addresses.parse(entry.statement) if signed_by_node(entry, record) else None
    except ComityError:
        return None


def newest_first(found: Sequence[tuple[bytes, Addresses]]) -> list[tuple[bytes, Addresses]]:
    """Statements of one node, each with its line, as they are, but after all others those that the node says it
    replaced: whatever place in its log an answer gives them."""
    return sorted(found, key=lambda each: any(other.replaces(each[0]) for _, other in found))
