"""Verify keyless `model.sig` files (Sigstore) without a network, with the extra [sigstore].

The owner's `trusted_root.json` decides: the certificate chain, its entry in a certificate log, the signed and logged
entry. Updates of that file are not fetched. The signing time is that of the log or time stamp. The sigstore package
reads the clock once: parts of a trusted root that begin later are ignored, so a clock that is years behind refuses.
"""

from __future__ import annotations

import importlib.util
import tempfile
from typing import TYPE_CHECKING

from comity.trust.errors import ComityError, Malformed, Unavailable, Untrusted
from comity.trust.model_signing.bundle import Bundle
from comity.trust.model_signing.judging import KeylessIdentity, KeylessVerifier
from comity.trust.policy import Policy

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.verify import Verifier


def keyless_for(policy: Policy) -> KeylessVerifier | None:
    """Return the verifier of keyless bundles; None if the policy names no such identity or the extra is missing."""
    if not policy.model_signing.identities or importlib.util.find_spec("sigstore") is None:
        return None
    return verify_keyless


def verify_keyless(bundle: bytes, identities: tuple[KeylessIdentity, ...], sigstore_root: bytes) -> KeylessIdentity:
    """Return the one of `identities` that signed the bundle.

    Raises Unavailable if the trusted root is unusable, Untrusted if the bundle is invalid or of another identity.
    """
    from sigstore.models import Bundle as SigstoreBundle

    verifier, signer_policy = _verifier(sigstore_root), _AnyOf(identities)
    try:
        _, payload = verifier.verify_dsse(SigstoreBundle.from_json(bundle), signer_policy)
    except ComityError:
        raise
    except Exception as error:  # any exception of the package for untrusted bytes is a refusal
        raise Untrusted("the keyless signature is not valid", why=str(error)[:300], code="MODEL-SIG") from error
    if payload != Bundle.parse(bundle).payload:
        raise Untrusted("the keyless signature covers another payload", code="MODEL-SIG")
    return signer_policy.found


def _verifier(sigstore_root: bytes) -> Verifier:
    try:
        from sigstore.models import TrustedRoot
        from sigstore.verify import Verifier

        with tempfile.NamedTemporaryFile() as file:  # the package reads only from a path
            file.write(sigstore_root)
            file.flush()
            return Verifier(trusted_root=TrustedRoot.from_file(file.name))
    except Exception as error:  # an invalid file, or an incompatible version of the package
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise Unavailable("the Sigstore trusted root cannot be used", why=why, code="MODEL-KEY") from error


class _AnyOf:
    """A Sigstore certificate policy that accepts any of several identities, and stores the match."""

    def __init__(self, identities: tuple[KeylessIdentity, ...]) -> None:
        self._identities = identities
        self._found: KeylessIdentity | None = None

    @property
    def found(self) -> KeylessIdentity:
        if self._found is None:
            raise Malformed("no identity was verified")
        return self._found

    def verify(self, cert: Certificate) -> None:
        from sigstore.errors import VerificationError
        from sigstore.verify import policy

        for identity in self._identities:
            try:
                policy.Identity(identity=identity.identity, issuer=identity.issuer).verify(cert)
            except VerificationError:
                continue
            self._found = identity
            return
        raise Untrusted("the signer is not listed by the policy", code="MODEL-SIG")
