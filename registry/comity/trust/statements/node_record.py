"""The node record: a member's word that this log, this cosigner, these keys and this TLS certificate are its node's.

Signed by the member's governance keys and countersigned by *every* key that it binds, so that nobody can claim a key
that they do not hold. A key bound by several members counts for each of them. Source: protocol, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from comity.trust.digest import Digest, sha256
from comity.trust.encoding import b64decode, b64encode
from comity.trust.errors import Malformed, Untrusted
from comity.trust.identity import Signatory
from comity.trust.keys import PublicKey, Signer, VerifyingKey
from comity.trust.statement import Author, Entry, Statement, Subject, sign_statement
from comity.trust.tlog.note import VerifierKey

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
