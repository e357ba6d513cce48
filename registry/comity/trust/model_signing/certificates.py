"""Keys and certificate chains of OpenSSF Model Signing.

Keys are on P-256, P-384 or P-521, each with the hash of its size. The SHA-256 of the PEM text (SubjectPublicKeyInfo, as
OpenSSL writes it) is the hint in a `model.sig` that identifies the key.

A chain is judged at a given time: the owner's `as_of`, or a time by which cosigners had seen the signature; never the
certificate's own `not valid before`, because then a leaf that expired years ago would still pass. Revocation is not
checked, because that needs a network. Sources: RFC 5280 as `cryptography.x509.verification` implements it; OpenSSF
Model Signing v1.0 for the required usage of a leaf.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import field
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    ClientVerifier,
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.keys import PublicKey

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


E = TypeVar("E", x509.KeyUsage, x509.ExtendedKeyUsage)

MAX_ROOTS: Final = 1000
_MAX_TIME: Final = 253_402_300_799  # the end of year 9999, the latest time in a certificate


@frozen
class TrustedTime:
    """A time (POSIX seconds) and its source, as text at the end of a sentence, such as `as_of of the policy`."""

    at: int
    source: str

    def __str__(self) -> str:
        return f"{_datetime(self.at):%Y-%m-%dT%H:%M:%SZ}, {self.source}"


@frozen
class SigningCertificate:
    """A certificate whose chain verified: its subject, its key, and the root of the chain."""

    subject: str
    key: ModelKey
    root: str


def parse_roots(text: bytes) -> tuple[bytes, ...]:
    """Return the certificates (DER) of a PEM file. Raises Malformed (MODEL-KEY)."""
    try:
        found = x509.load_pem_x509_certificates(text)
        roots = tuple(dict.fromkeys(root.public_bytes(Encoding.DER) for root in found))
    except (ValueError, x509.InvalidVersion) as error:
        raise Malformed("not certificates", why="expected X.509 certificates in PEM", code="MODEL-KEY") from error
    if len(roots) > MAX_ROOTS:
        raise Malformed("too many certificates", why=f"at most {MAX_ROOTS}", code="MODEL-KEY")
    return roots


@frozen
class CertificateChain:
    """The leaf and the intermediate certificates of a bundle."""

    leaf: x509.Certificate
    others: tuple[x509.Certificate, ...]

    @classmethod
    def parse(cls, certificates: Sequence[bytes]) -> CertificateChain:
        """Read certificates (DER), leaf first. Raises Untrusted (MODEL-SIG) if one is malformed."""
        leaf, *others = (_load(der) for der in certificates)
        return cls(leaf, tuple(others))

    @property
    def key(self) -> ModelKey:
        """The leaf's key, also if the chain does not verify. Raises Untrusted (MODEL-SIG) if it cannot sign models."""
        try:
            return ModelKey.of(self.leaf.public_key())
        except (Malformed, ValueError, UnsupportedAlgorithm) as error:
            raise _untrusted("the certificate has no key that can sign models", str(error)[:200]) from error

    def valid_at(self, time: TrustedTime) -> bool:
        """Whether `time` is in the validity period of all certificates. A cheap check before `verify`."""
        return self._not_before <= _datetime(time.at) <= self._not_after

    @property
    def validity(self) -> str:
        return f"valid from {self._not_before:%Y-%m-%d} to {self._not_after:%Y-%m-%d}"

    @property
    def _not_before(self) -> datetime.datetime:
        return max(each.not_valid_before_utc for each in (self.leaf, *self.others))

    @property
    def _not_after(self) -> datetime.datetime:
        return min(each.not_valid_after_utc for each in (self.leaf, *self.others))

    def verify(self, roots: Sequence[bytes], time: TrustedTime) -> SigningCertificate:
        """Verify the chain up to one of `roots` (DER), with every certificate valid at `time`.

        Raises Untrusted (MODEL-SIG) if the chain does not verify or the leaf may not sign.
        """
        verifier = _verifier([_load(der) for der in roots], time)
        try:
            found = verifier.verify(self.leaf, list(self.others)).chain
        except (VerificationError, x509.UnsupportedGeneralNameType, ValueError) as error:
            why = f"at {time}: {str(error).partition(' (encountered')[0][:200]}"
            raise _untrusted("the certificate does not verify", why) from error
        _check_usage(self.leaf)
        return SigningCertificate(_subject(self.leaf), self.key, _subject(found[-1]))


def _verifier(roots: list[x509.Certificate], time: TrustedTime) -> ClientVerifier:
    """A verifier with the WebPKI rules for authorities; a leaf needs neither a host name nor a TLS purpose."""
    authorities = ExtensionPolicy.webpki_defaults_ca().may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None)
    builder = PolicyBuilder().store(Store(roots)).time(_datetime(time.at).replace(tzinfo=None))
    builder = builder.extension_policies(ca_policy=authorities, ee_policy=ExtensionPolicy.permit_all())
    return builder.build_client_verifier()


def _check_usage(leaf: x509.Certificate) -> None:
    """Raises Untrusted (MODEL-SIG) unless the leaf allows digital signatures or code signing."""
    try:
        usage = _extension(leaf, x509.KeyUsage)
        purposes = _extension(leaf, x509.ExtendedKeyUsage)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise _untrusted("the certificate's extensions are malformed", str(error)[:200]) from error
    signs = usage is not None and usage.digital_signature
    if not signs and (purposes is None or ExtendedKeyUsageOID.CODE_SIGNING not in purposes):
        raise _untrusted("the certificate is not for signing", "it allows neither digital signatures nor code signing")


def _extension(leaf: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return leaf.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _load(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as error:
        raise _untrusted("the certificate is malformed", str(error)[:200]) from error


def _subject(certificate: x509.Certificate) -> str:
    try:
        return certificate.subject.rfc4514_string()[:200] or "no subject"
    except ValueError:
        return "a subject that cannot be read"


def _datetime(at: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(min(at, _MAX_TIME), datetime.UTC)


def _untrusted(what: str, why: str) -> Untrusted:
    return Untrusted(what, why=why, code="MODEL-SIG")
