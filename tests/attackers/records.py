"""Node records, certificates and rotations, built without Comity's encoders."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from attackers.forging import Author, Identity, Key, RawKey, b64, canonical, key_id, sha256, signed, statement

USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def vkey(name: str, kind: int, public: bytes) -> str:
    """A C2SP verifier key: name+hash+base64."""
    tag = hashlib.sha256(name.encode() + b"\n" + bytes((kind,)) + public).digest()[:4]
    return f"{name}+{tag.hex()}+{base64.b64encode(bytes((kind,)) + public).decode()}"


def tls_key(seed: str) -> RawKey:
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest(), "big") >> 1
    return RawKey("ecdsa-p256", ec.derive_private_key(number, ec.SECP256R1()))


def certificate(key: RawKey) -> bytes:
    """The one certificate that a node of this key can show, DER."""
    tag = key_id(key)[:32]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"n-{tag}.comity.invalid")])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.secret.public_key())
        .serial_number(int(tag, 16) | 1)
        .not_valid_before(datetime(1970, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(USAGE, critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(f"n-{tag}.comity.invalid")]), critical=False)
    )
    return built.sign(key.secret, hashes.SHA256()).public_bytes(Encoding.DER)


@dataclass(frozen=True)
class RawNode:
    """A node that does not run: keys made of `seed`, all of which countersign its record."""

    seed: str
    name: str
    log: RawKey = field(init=False)
    cosigner: RawKey = field(init=False)
    online: RawKey = field(init=False)
    tls: RawKey = field(init=False)

    def __post_init__(self) -> None:
        for part in ("log", "cosigner", "online"):
            object.__setattr__(self, part, RawKey.of_seed(f"{self.seed} {part}"))
        object.__setattr__(self, "tls", tls_key(f"{self.seed} tls"))

    @property
    def origin(self) -> str:
        return f"{self.seed}.example/log"

    @property
    def by(self) -> dict[str, str]:
        return {"node": sha256(canonical({"ed25519": b64(self.online.public)}))}

    def record(self, member: Author) -> bytes:
        """The `node-record` by which `member` binds it."""
        body = {
            "cosigners": [vkey(f"{self.seed}.example/cosigner", 4, self.cosigner.public)],
            "log": vkey(self.origin, 1, self.log.public),
            "name": self.name,
            "online": {"ed25519": b64(self.online.public)},
            "operators": [],
            "tls": b64(certificate(self.tls)),
        }
        payload = statement("node-record", member.by, (self.origin, sha256(self.origin.encode())), body)
        keys: tuple[Key, ...] = (*member.keys, self.log, self.cosigner, self.online, self.tls)
        return signed(payload, keys)

    def addresses(self, mutual: Sequence[str], open_: Sequence[str]) -> bytes:
        body = {"mutual": list(mutual), "open": list(open_)}
        payload = statement("addresses", self.by, (self.origin, self.by["node"]), body)
        return signed(payload, (self.online,))


def state(identity: str, keys: Sequence[Mapping[str, str]], recovery: Sequence[str]) -> str:
    """The reference of a rotation to the keys that it replaces."""
    ids = sorted(sha256(canonical(key)) for key in keys)
    return sha256(canonical({"identity": identity, "keys": ids, "recovery": sorted(recovery), "threshold": 1}))


def rotation(who: Identity, recovery: Key, new: Key) -> bytes:
    """The first rotation of an identity whose only recovery key is `recovery`."""
    used, keys = {recovery.alg: b64(recovery.public)}, {new.alg: b64(new.public)}
    old: list[Mapping[str, str]] = [{key.alg: b64(key.public)} for key in who.keys]
    body = {
        "cut": [],
        "home": "",
        "keys": [keys],
        "prev": state(who.id, old, [sha256(canonical(used))]),
        "recovery": [],
        "seq": 1,
        "threshold": 1,
        "used": [used],
    }
    return signed(statement("rotated", who.by, ("", who.id), body), (recovery, new))
