"""Elliptic-curve keys as OpenSSF Model Signing uses them: P-256, P-384 and P-521, each with the hash of its size.

A key is told by its PEM text (SubjectPublicKeyInfo, as OpenSSL writes it): the SHA-256 of that text is the hint that a
`model.sig` carries.


Certificate chains of a `model.sig`, judged at a moment that is given.

The moment is the owner's `as_of`, or one by which others had seen the signature; never the certificate's own
`not valid before`, at which a leaf that expired years ago would still pass. Revocation is not checked: there is nothing
to check it by without a network. Source: RFC 5280 as `cryptography.x509.verification` implements it; OpenSSF Model
Signing v1.0 for what a leaf has to allow.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
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


E = TypeVar("E", x509.KeyUsage, x509.ExtendedKeyUsage)

MAX_ROOTS: Final = 1000
_LATEST: Final = 253_402_300_799  # the end of year 9999, beyond which certificates tell no time


@dataclass(frozen=True, slots=True)
class TrustedTime:
    """POSIX seconds, and who says that it is then: words that end a sentence, such as `as_of of the policy`."""

    at: int
    source: str

    def __str__(self) -> str:
        return f"{_time(self.at):%Y-%m-%dT%H:%M:%SZ}, {self.source}"


@dataclass(frozen=True, slots=True)
class SigningCertificate:
    """Whose certificate signed, by a chain that holds: its subject, its key, and the root that it leads to."""

    subject: str
    key: ModelKey
    root: str


def parse_roots(text: bytes) -> tuple[bytes, ...]:
    """The certificates (DER) in a PEM file. Raises Malformed."""
    try:
        found = x509.load_pem_x509_certificates(text)
        roots = tuple(dict.fromkeys(root.public_bytes(Encoding.DER) for root in found))
    except (ValueError, x509.InvalidVersion) as error:
        raise Malformed("not certificates", why="expected X.509 certificates in PEM", code="MODEL-KEY") from error
    if len(roots) > MAX_ROOTS:
        raise Malformed("too many certificates", why=f"at most {MAX_ROOTS}", code="MODEL-KEY")
    return roots


@dataclass(frozen=True, slots=True)
class CertificateChain:
    """A leaf and what leads from it towards a root, as a bundle brings them."""

    leaf: x509.Certificate
    others: tuple[x509.Certificate, ...]

    @classmethod
    def parse(cls, certificates: Sequence[bytes]) -> CertificateChain:
        """Read certificates (DER), leaf first. Raises Untrusted (code MODEL-SIG) for what is none."""
        leaf, *others = (_load(der) for der in certificates)
        return cls(leaf, tuple(others))

    @property
    def key(self) -> ModelKey:
        """The leaf's key, whether or not the chain holds. Raises Untrusted for one that cannot sign models."""
        try:
            return ModelKey.of(self.leaf.public_key())
        except (Malformed, ValueError, UnsupportedAlgorithm) as error:
            raise _untrusted("its certificate has no key that signs models", str(error)[:200]) from error

    def valid_at(self, moment: TrustedTime) -> bool:
        """Whether no certificate here had expired, or was not valid yet. A cheap question before `follow`."""
        return self._starts <= _time(moment.at) <= self._ends

    @property
    def validity(self) -> str:
        return f"valid from {self._starts:%Y-%m-%d} to {self._ends:%Y-%m-%d}"

    @property
    def _starts(self) -> datetime.datetime:
        return max(each.not_valid_before_utc for each in (self.leaf, *self.others))

    @property
    def _ends(self) -> datetime.datetime:
        return min(each.not_valid_after_utc for each in (self.leaf, *self.others))

    def follow(self, roots: Sequence[bytes], moment: TrustedTime) -> SigningCertificate:
        """Follow the chain to one of `roots` (DER), every certificate being valid at `moment`.

        Raises Untrusted (code MODEL-SIG) where it does not lead there, or the leaf may not sign.
        """
        verifier = _verifier([_load(der) for der in roots], moment)
        try:
            found = verifier.verify(self.leaf, list(self.others)).chain
        except (VerificationError, x509.UnsupportedGeneralNameType, ValueError) as error:
            why = f"at {moment}: {str(error).partition(' (encountered')[0][:200]}"
            raise _untrusted("its certificate does not hold", why) from error
        _may_sign(self.leaf)
        return SigningCertificate(_subject(self.leaf), self.key, _subject(found[-1]))


def _verifier(roots: list[x509.Certificate], moment: TrustedTime) -> ClientVerifier:
    """The rules of the web's certificates for authorities; a leaf needs neither a host name nor a web purpose."""
    authorities = ExtensionPolicy.webpki_defaults_ca().may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None)
    builder = PolicyBuilder().store(Store(roots)).time(_time(moment.at).replace(tzinfo=None))
    builder = builder.extension_policies(ca_policy=authorities, ee_policy=ExtensionPolicy.permit_all())
    return builder.build_client_verifier()


def _may_sign(leaf: x509.Certificate) -> None:
    """What a leaf has to allow."""
    try:
        usage = _extension(leaf, x509.KeyUsage)
        purposes = _extension(leaf, x509.ExtendedKeyUsage)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise _untrusted("its certificate is not understood", str(error)[:200]) from error
    signs = usage is not None and usage.digital_signature
    if not signs and (purposes is None or ExtendedKeyUsageOID.CODE_SIGNING not in purposes):
        raise _untrusted("its certificate is not for signing", "neither digital signatures nor code signing")


def _extension(leaf: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return leaf.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _load(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as error:
        raise _untrusted("its certificate is no certificate", str(error)[:200]) from error


def _subject(certificate: x509.Certificate) -> str:
    try:
        return certificate.subject.rfc4514_string()[:200] or "no subject"
    except ValueError:
        return "a subject that cannot be read"


def _time(at: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(min(at, _LATEST), datetime.UTC)


def _untrusted(what: str, why: str) -> Untrusted:
    return Untrusted(what, why=why, code="MODEL-SIG")
