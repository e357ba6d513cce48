"""Wire and log bytes built from the formats: protobuf, RFC 6962 trees, signed notes, statements. Nothing of Comity is
used here, so that a test sends what the formats allow, and not only what our own encoders write.

Sources: protobuf's encoding guide; RFC 6962, section 2.1; C2SP signed-note and tlog-checkpoint; DSSE v1.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*encoded, number))


def message(*fields: tuple[int, int | bytes | str]) -> bytes:
    """A protobuf message of (number, value) in the order given: integers as varints, all others length-delimited."""
    encoded = b""
    for number, value in fields:
        if isinstance(value, int):
            encoded += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            encoded += varint(number << 3 | 2) + varint(len(data)) + data
    return encoded


def parsed(data: bytes) -> dict[int, list[int | bytes]]:
    """The fields of a protobuf message that has varints and length-delimited fields only."""
    fields: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value, at = _varint(data, at)
        if tag & 7 == 2:
            at += value
            fields.setdefault(tag >> 3, []).append(data[at - value : at])
        else:
            fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:
            return number, at


def leaf_hash(line: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + line).digest()


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962, over leaf hashes."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256().digest()
    middle = _split(len(leaves))
    return hashlib.sha256(b"\x01" + tree_hash(leaves[:middle]) + tree_hash(leaves[middle:])).digest()


def inclusion(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 6962, the sibling first."""
    if len(leaves) < 2:
        return []
    middle = _split(len(leaves))
    if index < middle:
        return [*inclusion(index, leaves[:middle]), tree_hash(leaves[middle:])]
    return [*inclusion(index - middle, leaves[middle:]), tree_hash(leaves[:middle])]


def consistency(old: int, leaves: Sequence[bytes], *, whole: bool = True) -> list[bytes]:
    """PROOF of RFC 6962: SUBPROOF(old, leaves, whole)."""
    if old == len(leaves):
        return [] if whole else [tree_hash(leaves)]
    middle = _split(len(leaves))
    if old <= middle:
        return [*consistency(old, leaves[:middle], whole=whole), tree_hash(leaves[middle:])]
    return [*consistency(old - middle, leaves[middle:], whole=False), tree_hash(leaves[:middle])]


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


@dataclass
class RawLog:
    """A log with arbitrary lines, and notes over any prefix of them."""

    origin: str
    key: Ed25519PrivateKey
    lines: list[bytes] = field(default_factory=list)

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(self.origin.encode() + b"\n\x01" + self.public).digest()[:4]

    @property
    def vkey(self) -> str:
        public = base64.b64encode(b"\x01" + self.public).decode()
        return f"{self.origin}+{self.key_id.hex()}+{public}"

    def leaves(self, size: int | None = None) -> list[bytes]:
        return [leaf_hash(line) for line in self.lines[:size]]

    def note(self, size: int | None = None, *, signer: Ed25519PrivateKey | None = None) -> bytes:
        leaves = self.leaves(size)
        root = base64.b64encode(tree_hash(leaves)).decode()
        text = f"{self.origin}\n{len(leaves)}\n{root}\n"
        signature = self.key_id + (signer or self.key).sign(text.encode())
        return f"{text}\n— {self.origin} {base64.b64encode(signature).decode()}\n".encode()

    def forked(self, at: int, lines: Sequence[bytes]) -> RawLog:
        """Another history under the same key: the first `at` entries, and then `lines`."""
        return RawLog(self.origin, self.key, [*self.lines[:at], *lines])


def statement(key: Ed25519PrivateKey, about: bytes, *, objects: Mapping[bytes, int] | None = None) -> bytes:
    """A DSSE line like a statement of a node, about `about`, which names side objects as (digest, size). It is of an
    unknown type or, since those have no side objects, of the type `vouched`.
    """
    predicate = "vouched" if objects else "noted"
    named = [{"digest": digest.hex(), "size": size} for digest, size in (objects or {}).items()]
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    said: dict[str, object] = {"by": {"node": hashlib.sha256(public).hexdigest()}, "text": about.hex()}
    payload = json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "predicate": said | ({"objects": named} if named else {}),
            "predicateType": f"urn:comity:{predicate}:v1",
            "subject": [{"digest": {"sha256": hashlib.sha256(about).hexdigest()}, "name": ""}],
        },
        separators=(",", ":"),
    ).encode()
    kind = "application/vnd.in-toto+json"
    signature = key.sign(b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload))
    return json.dumps(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind,
            "signatures": [
                {"keyid": hashlib.sha256(public).hexdigest(), "sig": base64.b64encode(signature).decode()},
            ],
        },
        separators=(",", ":"),
    ).encode()
