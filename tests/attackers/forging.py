"""Statements built from JSON, DSSE and keys of `cryptography`. Nothing of Comity is used, so that an attacker can say
all that the formats allow, and not only what our own encoders write.

Sources: RFC 8785, DSSE v1, in-toto Statement v1; the names of fields are those of `docs/protocol.md`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA65PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

KIND = "application/vnd.in-toto+json"
COMMIT = "1f" * 20


def canonical(value: object) -> bytes:
    """RFC 8785, for text, whole numbers and ASCII member names."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Key(Protocol):
    """One half of a hybrid key: its name in a record, its public bytes, and its signatures."""

    @property
    def alg(self) -> str: ...

    @property
    def public(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes: ...


@dataclass(frozen=True)
class RawKey:
    alg: str
    secret: Any

    @classmethod
    def of_seed(cls, seed: str) -> RawKey:
        return cls("ed25519", Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed.encode()).digest()))

    @property
    def public(self) -> bytes:
        if isinstance(self.secret, ec.EllipticCurvePrivateKey):
            return self.secret.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        public: bytes = self.secret.public_key().public_bytes_raw()
        return public

    def sign(self, message: bytes) -> bytes:
        if isinstance(self.secret, ec.EllipticCurvePrivateKey):
            return self.secret.sign(message, ec.ECDSA(hashes.SHA256()))
        signature: bytes = self.secret.sign(message)
        return signature


def keys_in(path: Path) -> tuple[RawKey, ...]:
    """The keys of a PEM file."""
    end = b"-----END PRIVATE KEY-----\n"
    loaded = [load_pem_private_key(block + end, None) for block in path.read_bytes().split(end) if block.strip()]
    return tuple(RawKey(_alg(key), key) for key in loaded)


def _alg(key: object) -> str:
    if isinstance(key, MLDSA44PrivateKey):
        return "ml-dsa-44"
    if isinstance(key, MLDSA65PrivateKey):
        return "ml-dsa-65"
    return "ed25519" if isinstance(key, Ed25519PrivateKey) else "ecdsa-p256"


def key_id(key: Key) -> str:
    return sha256(key.alg.encode() + b"\n" + key.public)


def pae(payload: bytes) -> bytes:
    return b"DSSEv1 %d %b %d %b" % (len(KIND), KIND.encode(), len(payload), payload)


def envelope(payload: bytes, signatures: Sequence[tuple[str, bytes]]) -> bytes:
    """A line with these (key id, signature) pairs, in the order of their ids."""
    listed = [{"keyid": keyid, "sig": b64(signature)} for keyid, signature in sorted(signatures)]
    return canonical({"payload": b64(payload), "payloadType": KIND, "signatures": listed})


def signed(payload: bytes, keys: Sequence[Key]) -> bytes:
    return envelope(payload, [(key_id(key), key.sign(pae(payload))) for key in keys])


def opened(line: bytes) -> dict[str, Any]:
    """The statement in a line."""
    said: dict[str, Any] = json.loads(base64.b64decode(json.loads(line)["payload"]))
    return said


def named(data: bytes) -> dict[str, object]:
    """The name of a side object in a statement."""
    return {"digest": sha256(data), "size": len(data)}


def statement(
    predicate: str,
    by: Mapping[str, str],
    subject: tuple[str, str],
    body: Mapping[str, object],
    objects: Sequence[Mapping[str, object]] = (),
) -> bytes:
    """The payload of a statement about (name, digest)."""
    said = {**body, "by": dict(by)} | ({"objects": list(objects)} if objects else {})
    return canonical(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "predicate": said,
            "predicateType": f"urn:comity:{predicate}:v1",
            "subject": [{"digest": {"sha256": subject[1]}, "name": subject[0]}],
        }
    )


class Author:
    """An author that signs statements with `keys`; `by` is the author field of its statements."""

    by: dict[str, str]
    keys: tuple[Key, ...]

    def say(
        self,
        predicate: str,
        subject: tuple[str, str],
        body: Mapping[str, object],
        objects: Sequence[Mapping[str, object]] = (),
    ) -> bytes:
        return signed(statement(predicate, self.by, subject, body, objects), self.keys)

    def publish(self, name: str, release: Release, parents: Sequence[str] = ()) -> bytes:
        """A `published` line for `namespace/name@version`, with the claimed `parents`."""
        body = {
            "documents": {},
            "licence": {"spdx": "MIT", "text": None},
            "lineage": [{"digest": None, "name": parent, "relation": "finetune"} for parent in parents],
            "manifest": named(release.manifest),
            "name": name,
            "pieces": named(release.pieces),
        }
        return self.say("published", (name, sha256(release.manifest)), body, [body["manifest"], body["pieces"]])  # type: ignore[list-item]  # named above

    def advise(self, artifact: str, text: str, kind: str = "malware") -> bytes:
        return self.say("advisory", ("", artifact), {"kind": kind, "severity": "critical", "text": text})


@dataclass(frozen=True)
class Holder(Author):
    """An author by id: a member, or its node."""

    by: dict[str, str]
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class Identity(Author):
    """An identity with keys: a record, and its inception line."""

    keys: tuple[Key, ...]
    label: str = "somebody"
    kind: str = "publisher"
    jurisdiction: str = "CH"
    recovery: tuple[str, ...] = ()
    record: Mapping[str, object] = field(init=False)

    def __post_init__(self) -> None:
        record = {
            "home": "",
            "jurisdiction": self.jurisdiction,
            "keys": [{key.alg: b64(key.public) for key in self.keys}],
            "kind": self.kind,
            "label": self.label,
            "recovery": list(self.recovery),
            "schema": "comity/inception/v1",
            "threshold": 1,
        }
        object.__setattr__(self, "record", record)

    @classmethod
    def made(cls, seed: str, **more: Any) -> Identity:
        return cls((RawKey.of_seed(seed),), **more)

    @property
    def id(self) -> str:
        return sha256(canonical(self.record))

    @property
    def by(self) -> dict[str, str]:  # type: ignore[override]  # a property here
        return {"identity": self.id}

    @property
    def inception(self) -> bytes:
        return self.say("inception", (self.label, self.id), {"record": self.record})


@dataclass(frozen=True)
class Release:
    """One file of at most 4 MiB, its manifest, and its piece index."""

    data: bytes

    @property
    def manifest(self) -> bytes:
        file = {"path": "weights.bin", "sha256": sha256(self.data), "size": len(self.data)}
        return canonical({"files": [file], "schema": "comity/manifest/v1", "size": len(self.data)})

    @property
    def pieces(self) -> bytes:
        record = len(self.data).to_bytes(4, "big") + hashlib.sha256(self.data).digest()
        root = sha256(b"\x00" + record)
        file = {"count": 1, "layout": "fixed-4MiB/1", "path": "weights.bin", "root": root}
        return canonical({"files": [file], "schema": "comity/pieces/v1"})

    @property
    def objects(self) -> tuple[bytes, bytes]:
        return self.manifest, self.pieces


def observations(release: Release) -> bytes:
    """The side object of an `observed` line: the file, and that the Hub listed it with the same hash."""
    digest, size = sha256(release.data), len(release.data)
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n".encode()
    blob = hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest()
    file = {
        "blob": blob,
        "lfs": digest,
        "match": "sha256",
        "path": "weights.bin",
        "pointer": True,
        "sha256": digest,
        "size": size,
        "xet": "",
    }
    return canonical({"files": [file], "schema": "comity/observation/v1"})


def observe(node: Author, repository: str, commit: str, endpoint: str, release: Release) -> bytes:
    """An `observed` line of a node: that `release` came from a commit of a repository of the Hub."""
    files = observations(release)
    named_objects = [named(release.manifest), named(release.pieces), named(files)]
    body = {
        "conditions": {"card": None, "gated": "", "licence": "", "licence_text": None, "terms": None},
        "files": named(files),
        "manifest": named(release.manifest),
        "matched": {"files": 1, "folders": 0, "folders_listed": 0, "git_blob": 0, "pointers": 0, "sha256": 1},
        "obtained": {"begun": 1, "ended": 2, "how": "fetched", "tls": None, "tool": "by hand"},
        "pieces": named(release.pieces),
        "unchecked": ["commit"],
        "upstream": {
            "commit": commit,
            "endpoint": endpoint,
            "kind": "huggingface-hub",
            "repository": repository,
            "requested": "main",
        },
    }
    name = f"hf:{repository}@{commit}"
    return node.say("observed", (name, sha256(release.manifest)), body, named_objects)
