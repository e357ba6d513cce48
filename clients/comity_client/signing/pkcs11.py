"""A governance key in an HSM or smart card, through PKCS#11.

The token signs with the classical half. The post-quantum half, which few tokens support, is in a file; a member may
also declare a classical-only key. A TOML file describes the key:

    schema   = "comity/token-key/v1"
    module   = "/usr/lib/softhsm/libsofthsm2.so"   # the vendor's PKCS#11 library
    token    = "ministry"                          # label of the token
    key      = "governance"                        # label of the key pair in it: ECDSA P-256, P-384 or Ed25519
    pin_file = "pin"                               # a file that only its owner can read
    second   = "governance-pq.pem"                 # ML-DSA-65 half, made with the seat; omitted: a classical-only key
    votes    = "governance.votes"                  # the vote file of this key

Relative paths start from the folder of the file. The PIN is read from its file for each signature, and from nowhere
else. Keys are made with the vendor's tools. Source: PKCS#11 v3.0, sections 2.3.5 (ECDSA) and 2.3.14 (EdDSA).
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from comity.bounded_file import read_bounded
from comity.content.secrets import read_keys, read_secret, write_keys
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, NotFound, Refused, Unavailable, Untrusted
from comity.trust.frozen import frozen
from comity.trust.keys import RAW_SIZES, PrivateKey, PublicKey, Signer, VerifyingKey, ecdsa_signature

if TYPE_CHECKING:
    from pkcs11 import Session
    from pkcs11.types import SignMixin


SCHEMA: Final = "comity/token-key/v1"
MAX_FILE: Final = 64 * 1024

_CURVES: Final = {
    bytes.fromhex("06082a8648ce3d030107"): "ecdsa-p256",
    bytes.fromhex("06052b81040022"): "ecdsa-p384",
    bytes.fromhex("06032b6570"): "ed25519",
    b"\x13\x0cedwards25519": "ed25519",  # PKCS#11 allows both names of the curve
}
_HASHES: Final = {"ecdsa-p256": "sha256", "ecdsa-p384": "sha384"}


@frozen
class _Description:
    module: str
    token: str
    key: str
    pin_file: Path
    second: Path | None
    votes: Path


@frozen
class TokenSigner:
    """Signs with the token's half and, if present, the half in a file. Each signature opens its own session."""

    where: _Description
    half: PublicKey
    second: tuple[PrivateKey, ...]

    @property
    def public(self) -> VerifyingKey:
        return VerifyingKey.of((self.half, *(key.public for key in self.second)))

    def sign(self, message: bytes) -> tuple[tuple[Digest, bytes], ...]:
        """Raises Refused (TOKEN-PIN), NotFound, Unavailable (TOKEN); Untrusted if the token's signature does not verify
        with its public key."""
        with _session(self.where) as session:
            signature = _sign(_private(session, self.where.key), self.half.alg, message)
        self.half.verify(signature, message)
        return ((self.half.id, signature), *((key.public.id, key.sign(message)) for key in self.second))


def open_token_key(path: Path) -> tuple[Signer, Path]:
    """The signer that the TOML file `path` describes, and the path of its vote file.

    Raises Malformed (TOKEN-FILE) for an invalid file or an unsupported key; NotFound, Refused,
    Unavailable.
    """
    where = _describe(path)
    with _session(where) as session:
        half = _public(session, where.key)
    second = read_keys(where.second) if where.second else ()
    return TokenSigner(where, half, second), where.votes


def new_token_key(path: Path) -> None:
    """Prepare a key for a new seat: generate the half in a file, if the TOML file names one that does not exist.

    Raises Malformed (TOKEN-FILE), OutOfSpace, Unavailable.
    """
    second = _describe(path).second
    if second is not None and not second.exists():
        write_keys(second, [PrivateKey.generate("ml-dsa-65")])


def _describe(path: Path) -> _Description:
    try:
        document = tomllib.loads(read_bounded(path, MAX_FILE).decode())
    except ValueError as error:  # TOML and UTF-8 alike
        raise _malformed(path, str(error)) from error
    if document.pop("schema", None) != SCHEMA:
        raise _malformed(path, f"schema must be {SCHEMA!r}")
    needed = {"module", "token", "key", "pin_file", "votes"}
    if not needed <= set(document) <= needed | {"second"} or not all(isinstance(v, str) for v in document.values()):
        raise _malformed(path, f"expected strings: {', '.join(sorted(needed))}, and 'second' for a half in a file")
    second = path.parent / document["second"] if "second" in document else None
    pin_file, votes = path.parent / document["pin_file"], path.parent / document["votes"]
    return _Description(document["module"], document["token"], document["key"], pin_file, second, votes)


@contextmanager
def _session(where: _Description) -> Iterator[Session]:
    """A session with the token after its PIN was accepted."""
    try:
        import pkcs11
    except ImportError as error:
        hint = "pip install 'comity[pkcs11]'"
        raise Unavailable(
            "this installation does not support tokens", why=f"{error.name} is missing", hint=hint
        ) from error
    pin = read_secret(where.pin_file).decode(errors="replace").strip()
    try:
        with pkcs11.lib(where.module).get_token(token_label=where.token).open(user_pin=pin) as session:
            yield session
    except (pkcs11.NoSuchToken, pkcs11.MultipleTokensReturned) as error:
        raise NotFound(f"no token {where.token!r}", why="no token, or more than one, has this label") from error
    except (pkcs11.NoSuchKey, pkcs11.MultipleObjectsReturned) as error:
        why = "no key pair, or more than one, has this label"
        raise NotFound(f"no key pair {where.key!r} in token {where.token!r}", why=why) from error
    except (pkcs11.PinIncorrect, pkcs11.PinLocked, pkcs11.PinInvalid, pkcs11.PinLenRange) as error:
        why = f"{type(error).__name__}: the token may lock after a few more tries"
        hint = f"correct {where.pin_file.name} before you try again"
        raise Refused(f"token {where.token!r} refuses the PIN", why=why, hint=hint, code="TOKEN-PIN") from error
    except pkcs11.PKCS11Error as error:
        why = f"{type(error).__name__} {error}".strip()
        raise Unavailable(f"token {where.token!r} did not work", why=why, code="TOKEN") from error


def _public(session: Session, label: str) -> PublicKey:
    from pkcs11 import Attribute, ObjectClass

    found = session.get_key(object_class=ObjectClass.PUBLIC_KEY, label=label)
    alg = _CURVES.get(bytes(found[Attribute.EC_PARAMS]))
    if alg is None:
        raise Malformed(
            "the token's key type is not supported", why="expected ECDSA P-256, P-384 or Ed25519", code="TOKEN-FILE"
        )
    point, size = bytes(found[Attribute.EC_POINT]), RAW_SIZES[alg]
    wrapped = (
        point[:2] == bytes((4, size)) and len(point) == size + 2
    )  # an OCTET STRING; some tokens return the bare point
    return PublicKey(alg, point[2:] if wrapped else point)


def _private(session: Session, label: str) -> SignMixin:
    from pkcs11 import ObjectClass

    return cast("SignMixin", session.get_key(object_class=ObjectClass.PRIVATE_KEY, label=label))


def _sign(key: SignMixin, alg: str, message: bytes) -> bytes:
    from pkcs11 import Mechanism

    if alg == "ed25519":
        return bytes(key.sign(message, mechanism=Mechanism.EDDSA))
    raw = bytes(key.sign(hashlib.new(_HASHES[alg], message).digest(), mechanism=Mechanism.ECDSA))
    if len(raw) % 2:
        raise Untrusted("the token's signature is malformed", why=f"{len(raw)} bytes are not a pair of numbers")
    middle = len(raw) // 2
    return ecdsa_signature(alg, int.from_bytes(raw[:middle], "big"), int.from_bytes(raw[middle:], "big"))


def _malformed(path: Path, why: str) -> Malformed:
    return Malformed(f"{path} does not describe a key in a token", why=why, code="TOKEN-FILE")
