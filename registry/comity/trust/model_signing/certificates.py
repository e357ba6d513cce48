"""Certificate chains of OpenSSF Model Signing. Loaded only where a signature names a certificate.

A chain is judged at a given time: the owner's `as_of`, or a time by which cosigners had seen the signature; never the
certificate's own `not valid before`, because then a leaf that expired years ago would still pass. Revocation is not
checked, because that needs a network. Sources: RFC 5280 as `cryptography.x509.verification` implements it; OpenSSF
Model Signing v1.0 for the required usage of a leaf.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
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

from comity.trust.errors import Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.model_signing.bundle import ModelKey, TrustedTime

E = TypeVar("E", x509.KeyUsage, x509.ExtendedKeyUsage)

MAX_ROOTS: Final = 1000


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
        return self._not_before <= time.date <= self._not_after

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
    builder = PolicyBuilder().store(Store(roots)).time(time.date.replace(tzinfo=None))
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


def _untrusted(what: str, why: str) -> Untrusted:
    return Untrusted(what, why=why, code="MODEL-SIG")
