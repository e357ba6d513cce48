"""Node records and addresses: what a member binds as one node, and where the node says that it can be reached.

    node-record   a member binds log, cosigner and online keys and TLS certificates as one node
    addresses     addresses of a node (hints, never trusted)

The parse functions do not verify the author; `check_node_record` and `signed_by_node` do. Source: protocol, sections 3
and 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field
from typing import Annotated, ClassVar, Final

from comity.trust.codec import ABSENT, JsonBytes, JsonItems, JsonRead, JsonText
from comity.trust.content import ByAuthor, ById, Content, Label
from comity.trust.encoding import Fields, parse_decimal, sha256
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.identity import Signatory
from comity.trust.keys import PublicKey, VerifyingKey
from comity.trust.node_certificates import ALGORITHM, read_node_certificate
from comity.trust.places import Place
from comity.trust.statement import MAX_SUBJECTS, Author, Entry, Statement, Subject
from comity.trust.statement_kinds import ADDRESSES, NODE_RECORD
from comity.trust.tlog.note import COSIGNER_ALGORITHMS, ED25519, VerifierKey

MAX_CERTIFICATE: Final = 4096
MAX_COSIGNERS: Final = 2
MAX_OPERATORS: Final = 4
MAX_ADDRESSES: Final = 8


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


def certificate_key(der: bytes) -> PublicKey:
    """The P-256 key of a certificate. The other fields are not trusted. Raises Malformed."""
    made = read_node_certificate(der)
    return made.key if made else _key_of_another_form(der)


def _key_of_another_form(der: bytes) -> PublicKey:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise Malformed("certificate is malformed", why=str(error)[:120]) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Malformed("certificate is malformed", why="a node certificate must have an ECDSA P-256 key")
    raw = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return PublicKey(ALGORITHM, raw)


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
