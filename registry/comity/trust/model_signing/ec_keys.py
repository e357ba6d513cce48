"""Elliptic-curve keys as OpenSSF Model Signing uses them: P-256, P-384 and P-521, each with the hash of its size.

A key is told by its PEM text (SubjectPublicKeyInfo, as OpenSSL writes it): the SHA-256 of that text is the hint that a
`model.sig` carries.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from comity.trust.digest import Digest, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.keys import PublicKey

_HASHES: Final[dict[str, tuple[str, hashes.HashAlgorithm]]] = {
    "secp256r1": ("ecdsa-p256", hashes.SHA256()),
    "secp384r1": ("ecdsa-p384", hashes.SHA384()),
    "secp521r1": ("ecdsa-p521", hashes.SHA512()),
}
_CURVES: Final[dict[str, ec.EllipticCurve]] = {"ecdsa-p256": ec.SECP256R1(), "ecdsa-p384": ec.SECP384R1()}


@dataclass(frozen=True, slots=True)
class ModelKey:
    """A public key that may sign models. `hint` is the SHA-256 of its PEM text, which is how others name it."""

    pem: bytes
    algorithm: str
    hint: Digest = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hint", sha256(self.pem))

    @classmethod
    def parse(cls, text: bytes) -> ModelKey:
        """Read a public key in PEM, however it is wrapped. Raises Malformed for anything but the three curves."""
        try:
            key = serialization.load_pem_public_key(text)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise Malformed(
                "not a public key", why="expected a SubjectPublicKeyInfo in PEM", code="MODEL-KEY"
            ) from error
        return cls.of(key)

    @classmethod
    def of(cls, key: object) -> ModelKey:
        """Raises Malformed for anything but a public key on one of the three curves."""
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
            why = "models are signed with keys on P-256, P-384 or P-521"
            raise Malformed("not a model-signing key", why=why, code="MODEL-KEY")
        pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return cls(pem, _HASHES[key.curve.name][0])

    @classmethod
    def of_raw(cls, key: PublicKey) -> ModelKey:
        """The same key as one of Comity's. Raises Malformed unless it is on P-256 or P-384."""
        if key.alg not in _CURVES:
            why = f"models are signed with ECDSA, and this is {key.alg}"
            raise Malformed("not a model-signing key", why=why, code="MODEL-KEY")
        return cls.of(ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[key.alg], key.raw))

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raises Untrusted unless `signature` over `message` is this key's."""
        key = serialization.load_pem_public_key(self.pem)
        assert isinstance(key, ec.EllipticCurvePublicKey)  # no other is made into a ModelKey
        try:
            key.verify(signature, message, ec.ECDSA(_HASHES[key.curve.name][1]))
        except InvalidSignature as error:
            why = f"it is not {self.algorithm} key {self.hint[:16]}'s over this list of files"
            raise Untrusted("bad signature", why=why, code="MODEL-SIG") from error
