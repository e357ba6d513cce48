"""Node records and addresses: what a member binds as one node, and where the node says that it can be reached.

    node-record   a member binds log, cosigner and online keys and TLS certificates as one node
    addresses     addresses of a node (hints, never trusted)

The parse functions do not verify the author; `check_node_record` and `signed_by_node` do. Source: protocol, sections 3
and 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from comity.trust.encoding import Digest, Fields, Json, b64decode, b64encode, parse_decimal, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.identity import Signatory
from comity.trust.keys import PublicKey, Signer, VerifyingKey
from comity.trust.places import Place
from comity.trust.statement import Author, Entry, Statement, Subject, sign_statement
from comity.trust.statement_kinds import ADDRESSES, NODE_RECORD
from comity.trust.tlog.note import COSIGNER_ALGORITHMS, ED25519, VerifierKey

MAX_CERTIFICATE: Final = 4096
MAX_COSIGNERS: Final = 2
MAX_OPERATORS: Final = 4
MAX_ADDRESSES: Final = 8


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
    return Statement(NODE_RECORD, (subject,), Author("identity", record.member), body)


def parse_node_record(entry: Entry) -> NodeRecord:
    """Read a `node-record` statement without verifying signatures. Raises Malformed."""
    statement = entry.statement
    by = statement.author(NODE_RECORD)
    fields = statement.fields()
    record = NodeRecord(
        member=by.id,
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


def signed_by_node(entry: Entry, record: NodeRecord) -> bool:
    """Whether the entry is a statement of this node, signed by its online key and no other key."""
    return entry.statement.by == record.node and entry.envelope.verified_by(record.online)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses that a node claims, `host:port` each: `mutual` requires a known certificate, `open` does not."""

    by: Author
    mutual: tuple[str, ...]
    open: tuple[str, ...]


def sign_addresses(
    record: NodeRecord, mutual: Sequence[str], open_: Sequence[str], online: Signer, replaced: bytes = b""
) -> Entry:
    """`replaced` is the line that it replaces, which its label names: a log has no statement twice, and a node may go
    back to addresses that it had before."""
    body = {"mutual": list(mutual), "open": list(open_)}
    label = f"{record.origin} after {sha256(replaced)[:16]}" if replaced else record.origin
    statement = Statement(ADDRESSES, (Subject(label, record.node.id),), record.node, body)
    parse_addresses(statement)
    return sign_statement(statement, online)


def parse_addresses(statement: Statement) -> Addresses:
    """Raises Malformed."""
    by = statement.author(ADDRESSES)
    fields = statement.fields()
    mutual, open_ = read_addresses(fields, "mutual"), read_addresses(fields, "open")
    fields.done()
    return Addresses(by, mutual, open_)


def read_addresses(fields: Fields, name: str) -> tuple[str, ...]:
    """Read the member `name`: at most eight `host:port` items. Raises Malformed."""
    return tuple(_address(item) for item in fields.items(name, most=MAX_ADDRESSES))


def _address(item: object) -> str:
    if isinstance(item, str) and 3 <= len(item) <= 300 and item.isprintable() and " " not in item:
        host, _, port = item.rpartition(":")
        if host and parse_decimal(port, limit=65_535) > 0:
            return item
    raise Malformed("addresses are malformed", why="expected host:port")
