"""Keyless `model.sig` files (Sigstore), checked without a network by the extra `[sigstore]`.

What the owner's `trusted_root.json` says decides: the certificate chain, its place in a certificate log, the signed and
logged entry. No update of that file is fetched, and the moment of signing is what log or time stamp say. The package
looks at this machine's clock once: parts of a trusted root that begin later than that are left out, so that a clock
which is years behind refuses.
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
    """What checks keyless bundles; None where the policy names nobody who signs like that, or the extra is not here."""
    if not policy.model_signing.identities or importlib.util.find_spec("sigstore") is None:
        return None
    return verify_keyless


def verify_keyless(bundle: bytes, identities: tuple[KeylessIdentity, ...], sigstore_root: bytes) -> KeylessIdentity:
    """Who of `identities` signed the bundle.

    Raises Unavailable where the trusted root cannot be used, Untrusted where the bundle does not hold or is somebody
    else's.
    """
    from sigstore.models import Bundle as SigstoreBundle

    verifier, anybody = _verifier(sigstore_root), _AnyOf(identities)
    try:
        _, payload = verifier.verify_dsse(SigstoreBundle.from_json(bundle), anybody)
    except ComityError:
        raise
    except Exception as error:  # whatever a foreign package raises over hostile bytes, it is a refusal
        raise Untrusted("the keyless signature does not hold", why=str(error)[:300], code="MODEL-SIG") from error
    if payload != Bundle.parse(bundle).payload:
        raise Untrusted("the keyless signature is over something else", code="MODEL-SIG")
    return anybody.found


def _verifier(sigstore_root: bytes) -> Verifier:
    try:
        from sigstore.models import TrustedRoot
        from sigstore.verify import Verifier

        with tempfile.NamedTemporaryFile() as file:  # the package reads it from a path only
            file.write(sigstore_root)
            file.flush()
            return Verifier(trusted_root=TrustedRoot.from_file(file.name))
    except Exception as error:  # the owner's file, or another version of the package: nothing is told by either
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise Unavailable("the Sigstore trusted root cannot be used", why=why, code="MODEL-KEY") from error


class _AnyOf:
    """Sigstore's protocol of a policy about certificates; remembers whom it found."""

    def __init__(self, identities: tuple[KeylessIdentity, ...]) -> None:
        self._identities = identities
        self._found: KeylessIdentity | None = None

    @property
    def found(self) -> KeylessIdentity:
        if self._found is None:
            raise Malformed("nobody was asked for")
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
        raise Untrusted("it is not by anybody whom the policy lists", code="MODEL-SIG")
