"""Keys that sign models, and the time at which a signature is judged. No certificate is read here.

Keys are on P-256, P-384 or P-521, each with the hash of its size. The SHA-256 of the PEM text (SubjectPublicKeyInfo, as
OpenSSL writes it) is the hint in a `model.sig` that identifies the key. Source: OpenSSF Model Signing v1.0.
"""

from __future__ import annotations

import datetime
from dataclasses import field
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.keys import PublicKey

_MAX_TIME: Final = 253_402_300_799  # the end of year 9999, the latest time in a certificate
_HASHES: Final[dict[str, tuple[str, hashes.HashAlgorithm]]] = {
    "secp256r1": ("ecdsa-p256", hashes.SHA256()),
    "secp384r1": ("ecdsa-p384", hashes.SHA384()),
    "secp521r1": ("ecdsa-p521", hashes.SHA512()),
}
_CURVES: Final[dict[str, ec.EllipticCurve]] = {"ecdsa-p256": ec.SECP256R1(), "ecdsa-p384": ec.SECP384R1()}


@frozen
class ModelKey:
    """A public key that may sign models. `hint` is the SHA-256 of its PEM text, by which a `model.sig` names the
    key."""

    pem: bytes
    algorithm: str
    hint: Digest = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hint", sha256(self.pem))

    @classmethod
    def parse(cls, text: bytes) -> ModelKey:
        """Read a public key in PEM, with any line length. Raises Malformed (MODEL-KEY) for other keys."""
        try:
            key = serialization.load_pem_public_key(text)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise Malformed(
                "not a public key", why="expected a SubjectPublicKeyInfo in PEM", code="MODEL-KEY"
            ) from error
        return cls.of(key)

    @classmethod
    def of(cls, key: object) -> ModelKey:
        """Raises Malformed (MODEL-KEY) if `key` is not a public key on one of the three curves."""
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
            why = "models are signed with keys on P-256, P-384 or P-521"
            raise Malformed("not a model-signing key", why=why, code="MODEL-KEY")
        pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return cls(pem, _HASHES[key.curve.name][0])

    @classmethod
    def of_raw(cls, key: PublicKey) -> ModelKey:
        """Convert a Comity public key. Raises Malformed (MODEL-KEY) unless it is on P-256 or P-384."""
        if key.alg not in _CURVES:
            why = f"models are signed with ECDSA on P-256 or P-384, and this key is {key.alg}"
            raise Malformed("not a model-signing key", why=why, code="MODEL-KEY")
        return cls.of(ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[key.alg], key.raw))

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raises Untrusted (MODEL-SIG) unless `signature` is a signature of `message` by this key."""
        key = serialization.load_pem_public_key(self.pem)
        assert isinstance(key, ec.EllipticCurvePublicKey)  # no other is made into a ModelKey
        try:
            key.verify(signature, message, ec.ECDSA(_HASHES[key.curve.name][1]))
        except InvalidSignature as error:
            why = f"it is not a signature of this list of files by {self.algorithm} key {self.hint[:16]}"
            raise Untrusted("bad signature", why=why, code="MODEL-SIG") from error


@frozen
class TrustedTime:
    """A time (POSIX seconds) and its source, as text at the end of a sentence, such as `as_of of the policy`."""

    at: int
    source: str

    def __str__(self) -> str:
        return f"{self.date:%Y-%m-%dT%H:%M:%SZ}, {self.source}"

    @property
    def date(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(min(self.at, _MAX_TIME), datetime.UTC)
