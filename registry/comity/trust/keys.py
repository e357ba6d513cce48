"""Public and private keys tagged with their algorithm, and composite keys.

A `PublicKey` is one key of one algorithm. A `VerifyingKey` is the composite key that a record lists: one or two halves
of different algorithms. A signature by a composite key has one signature per half, and *every* half must verify. The
record, not the envelope, defines the required halves (protocol, section 3). Unknown algorithms are refused, never
skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Final, Protocol, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from comity.trust.encoding import Digest, Json, b64decode, b64encode, canonical, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.frozen import frozen

_Private: TypeAlias = (
    ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey
)
_Public: TypeAlias = (
    ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey
)

RAW_SIZES: Final[Mapping[str, int]] = {
    "ecdsa-p256": 65,
    "ecdsa-p384": 97,
    "ed25519": 32,
    "ml-dsa-44": 1312,
    "ml-dsa-65": 1952,
}
SIGNATURE_SIZES: Final[Mapping[str, int]] = {
    "ecdsa-p256": 64,
    "ecdsa-p384": 96,
    "ed25519": 64,
    "ml-dsa-44": 2420,
    "ml-dsa-65": 3309,
}
"""Bytes. An ECDSA signature is r and s, each big-endian with the length of the curve (IEEE P1363)."""
POST_QUANTUM: Final = frozenset({"ml-dsa-44", "ml-dsa-65"})
MAX_HALVES: Final = 2

_CURVES: Final[Mapping[str, tuple[ec.EllipticCurve, hashes.HashAlgorithm]]] = {
    "ecdsa-p256": (ec.SECP256R1(), hashes.SHA256()),
    "ecdsa-p384": (ec.SECP384R1(), hashes.SHA384()),
}


@frozen
class PublicKey:
    """One public key. `alg` names the algorithm; `raw` is 32 bytes for Ed25519, the uncompressed point for ECDSA, the
    FIPS 204 encoding for ML-DSA. Raises Malformed for an unknown algorithm or a wrong length.

    `id`, the DSSE `keyid`, is the SHA-256 over the algorithm's name, a line feed and the raw key.
    """

    alg: str
    raw: bytes
    id: Digest = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.alg not in RAW_SIZES:
            raise Malformed("unknown algorithm", why=f"{self.alg[:40]!r} is not one of {', '.join(RAW_SIZES)}")
        if len(self.raw) != RAW_SIZES[self.alg]:
            raise Malformed("wrong key length", why=f"{self.alg} keys have {RAW_SIZES[self.alg]} bytes")
        object.__setattr__(self, "id", sha256(self.alg.encode() + b"\n" + self.raw))

    def to_pem(self) -> bytes:
        """The key as other programs read it: SubjectPublicKeyInfo in PEM. Raises Malformed if it is no point of its
        curve."""
        return self._encoded(der=False)

    def to_der(self) -> bytes:
        """As `to_pem`, in DER."""
        return self._encoded(der=True)

    def _encoded(self, *, der: bool) -> bytes:
        # Loads what SSH keys need too, as long as all other modules for keys: not for a command that only verifies.
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        try:
            return self._loaded().public_bytes(Encoding.DER if der else Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        except ValueError as error:
            raise Malformed("not a public key", why=f"it is no point of the curve of {self.alg}") from error

    def _loaded(self) -> _Public:
        if self.alg == "ed25519":
            return ed25519.Ed25519PublicKey.from_public_bytes(self.raw)
        if self.alg == "ml-dsa-44":
            return mldsa.MLDSA44PublicKey.from_public_bytes(self.raw)
        if self.alg == "ml-dsa-65":
            return mldsa.MLDSA65PublicKey.from_public_bytes(self.raw)
        return ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[self.alg][0], self.raw)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raises Untrusted unless `signature` is this key's valid signature of `message`, canonically encoded."""
        try:
            key = self._loaded()
            if isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(ecdsa_der(self.alg, signature), message, ec.ECDSA(_CURVES[self.alg][1]))
            else:
                key.verify(signature, message)
        except (InvalidSignature, ValueError) as error:
            raise Untrusted("bad signature", why=f"not a signature by {self.alg} key {self.id[:16]}") from error


@frozen
class PrivateKey:
    """One private key. Only `to_pem` returns the key bytes; `repr` shows the key id only."""

    alg: str
    _key: _Private

    def __repr__(self) -> str:
        return f"<PrivateKey {self.alg} {self.public.id[:16]}>"

    @classmethod
    def generate(cls, alg: str) -> PrivateKey:
        if alg == "ed25519":
            return cls(alg, ed25519.Ed25519PrivateKey.generate())
        if alg == "ml-dsa-44":
            return cls(alg, mldsa.MLDSA44PrivateKey.generate())
        if alg == "ml-dsa-65":
            return cls(alg, mldsa.MLDSA65PrivateKey.generate())
        if alg in _CURVES:
            return cls(alg, ec.generate_private_key(_CURVES[alg][0]))
        raise Malformed("unknown algorithm", why=f"{alg[:40]!r} is not one of {', '.join(RAW_SIZES)}")

    @classmethod
    def from_pem(cls, pem: bytes) -> PrivateKey:
        """Read an unencrypted PKCS#8 key (ML-DSA in its seed form). Raises Malformed."""
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise Malformed("not a private key", why="expected an unencrypted PKCS#8 PEM block") from error
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return cls("ed25519", key)
        if isinstance(key, mldsa.MLDSA44PrivateKey):
            return cls("ml-dsa-44", key)
        if isinstance(key, mldsa.MLDSA65PrivateKey):
            return cls("ml-dsa-65", key)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            for alg, (curve, _) in _CURVES.items():
                if key.curve.name == curve.name:
                    return cls(alg, key)
        raise Malformed("unknown algorithm", why=f"expected one of {', '.join(RAW_SIZES)}")

    def to_pem(self) -> bytes:
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def public(self) -> PublicKey:
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

            point = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            return PublicKey(self.alg, point)
        return PublicKey(self.alg, self._key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Sign `message`. ECDSA follows RFC 6979: deterministic, without randomness."""
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            der = self._key.sign(message, ec.ECDSA(_CURVES[self.alg][1], deterministic_signing=True))
            return ecdsa_signature(self.alg, *decode_dss_signature(der))
        return self._key.sign(message)


def ecdsa_signature(alg: str, r: int, s: int) -> bytes:
    """The canonical encoding of an ECDSA signature: r, and the lower of the two valid values of s."""
    size = SIGNATURE_SIZES[alg] // 2
    return r.to_bytes(size, "big") + min(s, _CURVES[alg][0].group_order - s).to_bytes(size, "big")


def ecdsa_der(alg: str, signature: bytes) -> bytes:
    """The X9.62 DER form of an ECDSA signature. Raises ValueError for a wrong length or a high s."""
    size = SIGNATURE_SIZES[alg] // 2
    r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
    if len(signature) != 2 * size or s > _CURVES[alg][0].group_order // 2:
        raise ValueError("not the canonical encoding of an ECDSA signature")
    return encode_dss_signature(r, s)


@frozen
class VerifyingKey:
    """A composite key: halves sorted by algorithm name, all of which must verify."""

    halves: tuple[PublicKey, ...]
    _id: Digest | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        algs = [half.alg for half in self.halves]
        if not 1 <= len(algs) <= MAX_HALVES or algs != sorted(set(algs)):
            raise Malformed("bad composite key", why="one or two halves of different algorithms, sorted by name")

    @classmethod
    def of(cls, halves: Iterable[PublicKey]) -> VerifyingKey:
        return cls(tuple(sorted(halves, key=lambda half: half.alg)))

    @classmethod
    def from_json(cls, value: Json) -> VerifyingKey:
        """Parse `{"ed25519": "<base64>", "ml-dsa-65": "<base64>"}`. Raises Malformed."""
        if not isinstance(value, Mapping):
            raise Malformed("bad composite key", why="expected an object of one or two halves")
        return cls.of(PublicKey(alg, b64decode(raw)) for alg, raw in value.items())

    def to_json(self) -> dict[str, str]:
        return {half.alg: b64encode(half.raw) for half in self.halves}

    @property
    def id(self) -> Digest:
        """SHA-256 of the canonical JSON form, computed once."""
        if self._id is None:
            object.__setattr__(self, "_id", found := sha256(canonical(self.to_json())))
            return found
        return self._id

    @property
    def post_quantum(self) -> bool:
        return any(half.alg in POST_QUANTUM for half in self.halves)


class Signer(Protocol):
    """Signs for one `VerifyingKey`: with key files, a hardware token or a transferred file."""

    @property
    def public(self) -> VerifyingKey: ...

    def sign(self, message: bytes) -> tuple[tuple[Digest, bytes], ...]:
        """One (key id, signature) per half, over exactly `message`."""


@frozen
class HybridSigner:
    """Signs with private keys in memory, by default Ed25519 and ML-DSA-65 together."""

    keys: tuple[PrivateKey, ...]

    @classmethod
    def generate(cls, algs: tuple[str, ...] = ("ed25519", "ml-dsa-65")) -> HybridSigner:
        return cls(tuple(PrivateKey.generate(alg) for alg in sorted(algs)))

    @property
    def public(self) -> VerifyingKey:
        return VerifyingKey.of(key.public for key in self.keys)

    def sign(self, message: bytes) -> tuple[tuple[Digest, bytes], ...]:
        return tuple((key.public.id, key.sign(message)) for key in self.keys)
