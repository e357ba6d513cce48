"""Signed notes (C2SP signed-note): text, an empty line, signature lines; and the keys that sign them.

    node-a.example/log
    300
    DzRPLD2l81iYCQEyyxWWSMkMVDJBvbJZDoKmOgX9rIY=

    — node-a.example/log uVCkwSLkJFSWfNHRb+VidGCiFs54L8lqAP6I+TcC5pxH34H3zYyYxRI1uG/Vo4wdM2BHJfDCHAF8uNd3tTsZZf2cKgM=

Here are the syntax and the plain Ed25519 signature of a log (type 0x01). What the text says is read in `checkpoint`,
what a cosigner's signature says in `cosignature`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from comity.trust.encoding import b64decode, b64encode
from comity.trust.errors import Malformed, Untrusted
from comity.trust.keys import PrivateKey, PublicKey

ED25519: Final = 0x01
ED25519_COSIGNATURE: Final = 0x04
MLDSA44_COSIGNATURE: Final = 0x06
ALGORITHMS: Final = {ED25519: "ed25519", ED25519_COSIGNATURE: "ed25519", MLDSA44_COSIGNATURE: "ml-dsa-44"}

MAX_NOTE: Final = 1_000_000
"""Bytes; room for 200 cosigners with ML-DSA-44 signatures, and what Go's note package reads."""
MAX_SIGNATURES: Final = 100
MAX_NAME: Final = 255

_KEY_ID_SIZE: Final = 4
_DASH: Final = "\u2014 "
_UNFIT: Final = re.compile("[\x00-\x09\x0b-\x1f\ud800-\udfff]")

_UNFIT_NAME: Final = re.compile("[\x00-\x1f+]")


def check_name(name: str) -> None:
    """A key name, and so an origin: 1 to 255 bytes, no white space, no '+', no control character. Raises Malformed."""
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise Malformed("bad key name", why="a lone surrogate", code="NOTE-NAME") from error
    if not 1 <= size <= MAX_NAME:
        raise Malformed("bad key name", why=f"{size} bytes, 1 to {MAX_NAME} are allowed", code="NOTE-NAME")
    if _UNFIT_NAME.search(name) or any(map(str.isspace, name)):
        raise Malformed("bad key name", why="white space, '+' or a control character in it", code="NOTE-NAME")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A named key: `node-a.example/log+b950a4c1+AUHHUwjEiOiq1D5FJH0Omc6UUfe5eqb/xmiy6D0KXlDT`.

    `type` is one of the three signature types we know; `public` is the raw key. Raises Malformed.
    """

    name: str
    type: int
    public: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.type not in ALGORITHMS:
            raise Malformed("unknown kind of note key", why=f"type byte {self.type:#04x}", code="NOTE-KEY-TYPE")
        PublicKey(ALGORITHMS[self.type], self.public)  # checks the length

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Inverse of `str`. Raises Malformed, also where the key ID is not the key's."""
        parts = text.split("+", 2)  # base64 may hold a '+' too
        if len(parts) != 3:
            raise Malformed("not a note key", why="expected name+id+key", code="NOTE-KEY")
        name, key_id, blob = parts
        data = b64decode(blob)
        if not data:
            raise Malformed("not a note key", why="no key in it", code="NOTE-KEY")
        key = cls(name, data[0], data[1:])
        if key_id != key.key_id.hex():
            raise Malformed("not a note key", why=f"its ID is {key.key_id.hex()}", code="NOTE-KEY")
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{b64encode(bytes([self.type]) + self.public)}"

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell keys of one name apart. An identifier only: it proves nothing."""
        material = self.name.encode("utf-8") + b"\n" + bytes([self.type]) + self.public
        return hashlib.sha256(material).digest()[:_KEY_ID_SIZE]

    @property
    def public_key(self) -> PublicKey:
        return PublicKey(ALGORITHMS[self.type], self.public)


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: `— node-a.example/log uVCkwSLkJFSW…`. Of any kind, known or not. Raises Malformed."""

    name: str
    key_id: bytes
    signature: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.key_id) != _KEY_ID_SIZE or not self.signature:
            raise Malformed(
                "not a note signature", why="expected a 4-byte key ID and a signature", code="NOTE-SIGNATURE"
            )

    @classmethod
    def parse(cls, line: str) -> NoteSignature:
        """Inverse of `str`; `line` comes without its line feed. Raises Malformed."""
        name, space, blob = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not space:
            raise Malformed("not a note signature", why="expected '— name base64'", code="NOTE-SIGNATURE")
        data = b64decode(blob)
        return cls(name, data[:_KEY_ID_SIZE], data[_KEY_ID_SIZE:])

    def __str__(self) -> str:
        return f"{_DASH}{self.name} {b64encode(self.key_id + self.signature)}"

    def by(self, key: VerifierKey) -> bool:
        """Whether the line names `key`. Says nothing about the signature."""
        return self.name == key.name and self.key_id == key.key_id


@dataclass(frozen=True, slots=True)
class SignedNote:
    """A text and the signatures that came with it, none of them checked.

    `text` ends with a line feed, which is signed too; there is at least one signature. Raises Malformed.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    def __post_init__(self) -> None:
        if not self.text.endswith("\n"):
            raise Malformed("not a note", why="the text does not end with a line feed", code="NOTE-TEXT")
        if unfit := _UNFIT.search(self.text):
            raise Malformed("not a note", why=f"a character {unfit[0]!r} in it", code="NOTE-TEXT")
        if not self.signatures:
            raise Malformed("not a note", why="no signature", code="NOTE-UNSIGNED")

    @classmethod
    def parse(cls, data: bytes, max_signatures: int = MAX_SIGNATURES) -> SignedNote:
        """Inverse of `encode`. Raises Malformed."""
        if len(data) > MAX_NOTE:
            raise Malformed("note too large", why=f"{len(data)} bytes, at most {MAX_NOTE} are read", code="NOTE-SIZE")
        try:
            note = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed("not a note", why="not UTF-8", code="NOTE-TEXT") from error
        split = note.rfind("\n\n")
        if split < 0 or not note.endswith("\n"):
            raise Malformed("not a note", why="expected text, an empty line and signature lines", code="NOTE-TEXT")
        text, lines = note[: split + 1], note[split + 2 :].split("\n")[:-1]
        if len(lines) > max_signatures:
            why = f"{len(lines)}, at most {max_signatures} are read"
            raise Malformed("too many signatures", why=why, code="NOTE-SIGNATURES")
        return cls(text, tuple(NoteSignature.parse(line) for line in lines))

    def encode(self) -> bytes:
        lines = "".join(f"{signature}\n" for signature in self.signatures)
        return f"{self.text}\n{lines}".encode()

    def adding(self, *signatures: NoteSignature) -> SignedNote:
        """This note with `signatures` after its own, each distinct line once."""
        return SignedNote(self.text, tuple(dict.fromkeys(self.signatures + signatures)))


def log_verifier_key(origin: str, public: PublicKey) -> VerifierKey:
    """The key under which a log signs its own checkpoints. Raises Malformed unless it is an Ed25519 key."""
    if public.alg != "ed25519":
        raise Malformed("not a log key", why=f"a log signs with ed25519, not {public.alg}", code="NOTE-KEY-TYPE")
    return VerifierKey(origin, ED25519, public.raw)


def sign_note(text: str, name: str, key: PrivateKey) -> NoteSignature:
    """Ed25519 (type 0x01) over `text`, which ends with a line feed. Raises Malformed for another kind of key."""
    verifier = log_verifier_key(name, key.public)
    return NoteSignature(name, verifier.key_id, key.sign(text.encode("utf-8")))


def verify_note(note: SignedNote, keys: Iterable[VerifierKey]) -> tuple[VerifierKey, ...]:
    """Those of `keys` of type 0x01 that signed `note`, in the order given.

    Signatures of unknown keys, and of keys of other types, are passed over. Raises Untrusted where a known key's
    signature is wrong (code "NOTE-SIGNATURE"), or where no known key signed (code "NOTE-UNSIGNED").
    """
    signers: list[VerifierKey] = []
    for key in dict.fromkeys(keys):
        own = [signature for signature in note.signatures if key.type == ED25519 and signature.by(key)]
        for signature in own:
            _verify(note.text, signature, key)
        if own:
            signers.append(key)
    if not signers:
        raise Untrusted("no signature by a known key", code="NOTE-UNSIGNED")
    return tuple(signers)


def _verify(text: str, signature: NoteSignature, key: VerifierKey) -> None:
    try:
        key.public_key.verify(signature.signature, text.encode("utf-8"))
    except Untrusted as error:
        why = f"the line of {key.name} is not its signature of this text"
        raise Untrusted("bad note signature", why=why, code="NOTE-SIGNATURE") from error
