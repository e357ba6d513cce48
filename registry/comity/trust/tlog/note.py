"""C2SP signed notes, checkpoints and cosignatures (signed-note, tlog-checkpoint, tlog-cosignature), and their keys.

    node-a.example/log
    300
    DzRPLD2l81iYCQEyyxWWSMkMVDJBvbJZDoKmOgX9rIY=
                                                              (an empty line)
    — node-a.example/log uVCkwSLkJFSWfNHRb+VidGCiFs54L8lqAP6I+TcC5pxH34H3zYyYxRI1uG/Vo4wdM2BHJfDCHAF8uNd3tTsZZf2cKgM=

A note is a text, an empty line and signature lines. The text of a checkpoint is the origin of a log, its size and its
root; extension lines, which the format allows, are refused, because an ML-DSA cosignature does not cover them. A log
signs with Ed25519 (type 0x01).

A cosignature states that at a time, this was the largest consistent tree of this origin that the cosigner had seen.
Further promises of a cosigner (for example to store every entry) belong to its key and are agreed elsewhere. An Ed25519
cosignature (type 0x04) does not contain the name of the cosigner, so one such key must never have two names; an
ML-DSA-44 cosignature (type 0x06) contains the name.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import field
from typing import Final

from comity.trust.encoding import b64decode, b64encode, parse_decimal
from comity.trust.errors import Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.keys import PrivateKey, PublicKey
from comity.trust.tlog.merkle import EMPTY_ROOT, HASH_SIZE, MAX_SIZE

ED25519: Final = 0x01
ED25519_COSIGNATURE: Final = 0x04
MLDSA44_COSIGNATURE: Final = 0x06
COSIGNER_ALGORITHMS: Final = {ED25519_COSIGNATURE: "ed25519", MLDSA44_COSIGNATURE: "ml-dsa-44"}
ALGORITHMS: Final = {ED25519: "ed25519", **COSIGNER_ALGORITHMS}

MAX_NOTE: Final = 1_000_000
"""Bytes; enough for 200 cosigners with ML-DSA-44 signatures, and the limit of Go's note package."""
MAX_SIGNATURES: Final = 100
MAX_NAME: Final = 255

_KEY_ID_SIZE: Final = 4
_TIMESTAMP_SIZE: Final = 8
_DASH: Final = "\u2014 "
_FORBIDDEN_IN_TEXT: Final = re.compile("[\x00-\x09\x0b-\x1f\ud800-\udfff]")

_FORBIDDEN_IN_NAME: Final = re.compile("[\x00-\x1f+]")


def check_name(name: str) -> str:
    """Return `name` if it is a key name or origin: 1 to 255 bytes, no white space, '+' or control character. Raises
    Malformed."""
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise Malformed("bad key name", why="a lone surrogate", code="NOTE-NAME") from error
    if not 1 <= size <= MAX_NAME:
        raise Malformed("bad key name", why=f"{size} bytes, 1 to {MAX_NAME} are allowed", code="NOTE-NAME")
    if _FORBIDDEN_IN_NAME.search(name) or any(map(str.isspace, name)):
        raise Malformed("bad key name", why="it contains white space, '+' or a control character", code="NOTE-NAME")
    return name


@frozen
class VerifierKey:
    """A named key: `node-a.example/log+b950a4c1+AUHHUwjEiOiq1D5FJH0Omc6UUfe5eqb/xmiy6D0KXlDT`.

    `type` is one of the three known signature types; `public` is the raw key. Raises Malformed.
    """

    name: str
    type: int
    public: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.type not in ALGORITHMS:
            raise Malformed("unknown type of note key", why=f"type byte {self.type:#04x}", code="NOTE-KEY-TYPE")
        PublicKey(ALGORITHMS[self.type], self.public)  # checks the length

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Inverse of `str`. Raises Malformed, also if the key ID does not match the key."""
        parts = text.split("+", 2)  # base64 may hold a '+' too
        if len(parts) != 3:
            raise Malformed("not a note key", why="expected name+id+key", code="NOTE-KEY")
        name, key_id, blob = parts
        data = b64decode(blob)
        if not data:
            raise Malformed("not a note key", why="the key is empty", code="NOTE-KEY")
        key = cls(name, data[0], data[1:])
        if key_id != key.key_id.hex():
            raise Malformed("not a note key", why=f"its ID is {key.key_id.hex()}", code="NOTE-KEY")
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{b64encode(bytes([self.type]) + self.public)}"

    @property
    def key_id(self) -> bytes:
        """Four bytes that distinguish keys of one name. An identifier only; it proves nothing."""
        material = self.name.encode("utf-8") + b"\n" + bytes([self.type]) + self.public
        return hashlib.sha256(material).digest()[:_KEY_ID_SIZE]

    @property
    def public_key(self) -> PublicKey:
        return PublicKey(ALGORITHMS[self.type], self.public)


@frozen
class NoteSignature:
    """One signature line, `— node-a.example/log uVCkwSLkJFSW…`, of a known or unknown type. Raises Malformed.

    The object keeps the last answer of `verify`, so that one signature over one text is verified once.
    """

    name: str
    key_id: bytes
    signature: bytes
    _checked: tuple[VerifierKey, bytes, bool] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.key_id) != _KEY_ID_SIZE or not self.signature:
            raise Malformed(
                "not a note signature", why="expected a 4-byte key ID and a signature", code="NOTE-SIGNATURE"
            )

    @classmethod
    def parse(cls, line: str) -> NoteSignature:
        """Inverse of `str`; `line` has no line feed. Raises Malformed."""
        name, space, blob = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not space:
            raise Malformed("not a note signature", why="expected '— name base64'", code="NOTE-SIGNATURE")
        data = b64decode(blob)
        return cls(name, data[:_KEY_ID_SIZE], data[_KEY_ID_SIZE:])

    def __str__(self) -> str:
        return f"{_DASH}{self.name} {b64encode(self.key_id + self.signature)}"

    def by(self, key: VerifierKey) -> bool:
        """Whether the line has the name and ID of `key`. Does not verify the signature."""
        return self.name == key.name and self.key_id == key.key_id

    def is_valid(self, key: VerifierKey, message: bytes) -> bool:
        """Whether `key` signed `message`. In a cosignature, eight bytes of time precede the signature itself."""
        known = self._checked
        if known is None or known[:2] != (key, message):
            known = key, message, self._verifies(key, message)
            object.__setattr__(self, "_checked", known)
        return known[2]

    def _verifies(self, key: VerifierKey, message: bytes) -> bool:
        try:
            key.public_key.verify(self.signature[_TIMESTAMP_SIZE if key.type in COSIGNER_ALGORITHMS else 0 :], message)
        except Untrusted:
            return False
        return True


@frozen
class SignedNote:
    """A text with at least one signature; signatures are not verified.

    `text` ends with a line feed, which is signed too. Raises Malformed.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    def __post_init__(self) -> None:
        if not self.text.endswith("\n"):
            raise Malformed("not a note", why="the text does not end with a line feed", code="NOTE-TEXT")
        if forbidden := _FORBIDDEN_IN_TEXT.search(self.text):
            raise Malformed("not a note", why=f"forbidden character {forbidden[0]!r}", code="NOTE-TEXT")
        if not self.signatures:
            raise Malformed("not a note", why="no signature", code="NOTE-UNSIGNED")

    @classmethod
    def parse(
        cls,
        data: bytes,
        max_signatures: int = MAX_SIGNATURES,
        parse_signature: Callable[[str], NoteSignature] = NoteSignature.parse,
    ) -> SignedNote:
        """Inverse of `encode`. Raises Malformed."""
        if len(data) > MAX_NOTE:
            raise Malformed("note too large", why=f"{len(data)} bytes, at most {MAX_NOTE} allowed", code="NOTE-SIZE")
        try:
            note = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed("not a note", why="not UTF-8", code="NOTE-TEXT") from error
        split = note.rfind("\n\n")
        if split < 0 or not note.endswith("\n"):
            raise Malformed("not a note", why="expected text, an empty line and signature lines", code="NOTE-TEXT")
        text, lines = note[: split + 1], note[split + 2 :].split("\n")[:-1]
        if len(lines) > max_signatures:
            why = f"{len(lines)}, at most {max_signatures} allowed"
            raise Malformed("too many signatures", why=why, code="NOTE-SIGNATURES")
        return cls(text, tuple(map(parse_signature, lines)))

    def encode(self) -> bytes:
        lines = "".join(f"{signature}\n" for signature in self.signatures)
        return f"{self.text}\n{lines}".encode()

    def with_signatures(self, *signatures: NoteSignature) -> SignedNote:
        """This note with `signatures` appended; duplicate lines are removed."""
        return SignedNote(self.text, tuple(dict.fromkeys(self.signatures + signatures)))


def log_verifier_key(origin: str, public: PublicKey) -> VerifierKey:
    """The key of a log for its checkpoints. Raises Malformed unless `public` is an Ed25519 key."""
    if public.alg != "ed25519":
        raise Malformed("not a log key", why=f"a log signs with ed25519, not {public.alg}", code="NOTE-KEY-TYPE")
    return VerifierKey(origin, ED25519, public.raw)


def sign_note(text: str, name: str, key: PrivateKey) -> NoteSignature:
    """Sign `text`, which ends with a line feed, with Ed25519 (type 0x01). Raises Malformed for any other key."""
    verifier = log_verifier_key(name, key.public)
    return NoteSignature(name, verifier.key_id, key.sign(text.encode("utf-8")))


def verify_note(note: SignedNote, keys: Iterable[VerifierKey]) -> tuple[VerifierKey, ...]:
    """Return those of `keys` of type 0x01 that signed `note`, in the given order.

    Signatures of unknown keys, and of keys of other types, are ignored. Raises Untrusted if the signature of a known
    key is not valid (code "NOTE-SIGNATURE"), or if no known key signed (code "NOTE-UNSIGNED").
    """
    signers: list[VerifierKey] = []
    for key in dict.fromkeys(keys):
        own = [signature for signature in note.signatures if key.type == ED25519 and signature.by(key)]
        for signature in own:
            if not signature.is_valid(key, note.text.encode("utf-8")):
                why = f"the signature of {key.name} over this text is not valid"
                raise Untrusted("bad note signature", why=why, code="NOTE-SIGNATURE")
        if own:
            signers.append(key)
    if not signers:
        raise Untrusted("no signature by a known key", code="NOTE-UNSIGNED")
    return tuple(signers)


@frozen
class Checkpoint:
    """Size and root of the log `origin` (1 to 255 bytes, no white space, no '+').

    Raises Malformed; code "CHECKPOINT-EMPTY-ROOT" if the size is 0 and the root is not that of the empty tree.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        check_name(self.origin)
        if not 0 <= self.size <= MAX_SIZE or len(self.root) != HASH_SIZE:
            raise Malformed("not a checkpoint", why="size or root out of bounds", code="CHECKPOINT")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise Malformed(
                "not a checkpoint", why="size 0, but not the root of the empty tree", code="CHECKPOINT-EMPTY-ROOT"
            )

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Inverse of `text`. Raises Malformed; code "CHECKPOINT-EXTENSION" for an extension line."""
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1]:
            raise Malformed("not a checkpoint", why="expected three lines: origin, size, root", code="CHECKPOINT")
        if len(lines) > 4:
            raise Malformed("not a checkpoint", why="extension lines are refused", code="CHECKPOINT-EXTENSION")
        origin, size, root, _ = lines
        return cls(origin, parse_decimal(size), b64decode(root, size=HASH_SIZE))

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{b64encode(self.root)}\n"

    def signed(self, key: PrivateKey) -> SignedNote:
        """The note that the log publishes. Raises Malformed unless `key` is an Ed25519 key."""
        return SignedNote(self.text, (sign_note(self.text, self.origin, key),))


def open_checkpoint(note: SignedNote, log_key: VerifierKey) -> Checkpoint:
    """Return the checkpoint in `note` if the log `log_key.name` signed it. Raises Malformed and Untrusted.

    Not checked: cosignatures, and consistency with other checkpoints.
    """
    verify_note(note, (log_key,))
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != log_key.name:
        why = f"{log_key.name} signed for {checkpoint.origin}"
        raise Untrusted("checkpoint of another log", why=why, code="CHECKPOINT-ORIGIN")
    return checkpoint


MAX_TIMESTAMP: Final = 2**63 - 1

_COSIGNATURE_TYPES: Final = {alg: kind for kind, alg in COSIGNER_ALGORITHMS.items()}


def cosigner_key(name: str, public: PublicKey) -> VerifierKey:
    """The cosigner key `name` with the key `public`. Raises Malformed unless that is Ed25519 or ML-DSA-44."""
    if public.alg not in _COSIGNATURE_TYPES:
        raise Malformed("not a cosigner key", why=f"{public.alg} keys cannot cosign", code="NOTE-KEY-TYPE")
    return VerifierKey(name, _COSIGNATURE_TYPES[public.alg], public.raw)


def cosign(checkpoint: Checkpoint, name: str, key: PrivateKey, timestamp: int) -> NoteSignature:
    """Sign as `name` that `checkpoint` was the largest one seen at `timestamp` (POSIX seconds). Raises Malformed."""
    if not 0 <= timestamp <= MAX_TIMESTAMP:
        raise Malformed("not a cosignature time", why=f"{timestamp} is not in 0 to 2**63 - 1", code="COSIGNATURE-TIME")
    verifier = cosigner_key(name, key.public)
    signature = key.sign(_message(checkpoint, verifier, timestamp))
    return NoteSignature(name, verifier.key_id, timestamp.to_bytes(_TIMESTAMP_SIZE, "big") + signature)


def verify_cosignature(signature: NoteSignature, key: VerifierKey, checkpoint: Checkpoint) -> int:
    """Return the time (POSIX seconds) at which the cosigner `key` signed. Raises Untrusted(code="COSIGNATURE").

    0 means that the cosigner states neither a time nor that the tree was the largest one seen.
    """
    if not signature.by(key) or key.type not in COSIGNER_ALGORITHMS:
        raise Untrusted("bad cosignature", why=f"not a cosignature line of {key.name}", code="COSIGNATURE")
    timestamp = int.from_bytes(signature.signature[:_TIMESTAMP_SIZE], "big")
    if timestamp > MAX_TIMESTAMP:
        raise Untrusted("bad cosignature", why="its time is out of range", code="COSIGNATURE")
    if not signature.is_valid(key, _message(checkpoint, key, timestamp)):
        why = f"the signature of {key.name} over this checkpoint is not valid"
        raise Untrusted("bad cosignature", why=why, code="COSIGNATURE")
    return timestamp


def _message(checkpoint: Checkpoint, key: VerifierKey, timestamp: int) -> bytes:
    """The signed bytes. `Checkpoint` has no extension lines, so its text is the whole note text."""
    if key.type == ED25519_COSIGNATURE:
        return f"cosignature/v1\ntime {timestamp}\n{checkpoint.text}".encode()
    name, origin = key.name.encode("utf-8"), checkpoint.origin.encode("utf-8")
    return b"".join(
        (
            b"subtree/v1\n\x00",
            bytes([len(name)]),
            name,
            struct.pack(">Q", timestamp),
            bytes([len(origin)]),
            origin,
            struct.pack(">QQ", 0, checkpoint.size),
            checkpoint.root,
        )
    )
