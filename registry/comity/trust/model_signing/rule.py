"""Whose `model.sig` an owner believes: keys, certificate authorities, and people whom a Sigstore authority knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from comity.trust.digest import sha256
from comity.trust.model_signing.ec_keys import ModelKey


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who signs without a key of their own: as `identity`, an address or a URL that `issuer` has checked."""

    identity: str
    issuer: str

    def __str__(self) -> str:
        return f"{self.identity} ({self.issuer})"


@dataclass(frozen=True, slots=True)
class ModelSigningRule:
    """The policy's table `[model_signing]`.

    `roots` are certificates (DER) that a chain may lead to. `sigstore_root` is a Sigstore `trusted_root.json`, by which
    the signatures of `identities` are checked. `unsigned` are paths and folders that need not be signed, in the owner's
    own judgement. With `require`, the row *signatures* passes by a `model.sig` only.
    """

    keys: tuple[ModelKey, ...] = ()
    roots: tuple[bytes, ...] = ()
    identities: tuple[Identity, ...] = ()
    sigstore_root: bytes | None = None
    unsigned: tuple[str, ...] = ()
    require: bool = False

    @property
    def believes_anybody(self) -> bool:
        return bool(self.keys or self.roots or self.identities)

    def key(self, hint: str) -> ModelKey | None:
        return next((key for key in self.keys if key.hint == hint), None)

    def root_name(self) -> str:
        """The Sigstore root by the beginning of its SHA-256."""
        return f"trusted root {sha256(self.sigstore_root)[:12]}" if self.sigstore_root else "no trusted root"


class KeylessVerifier(Protocol):
    """Checks a keyless bundle; given by whoever has the packages for that, for it cannot be done with `cryptography`
    alone. It must use no network."""

    def __call__(self, bundle: bytes, identities: tuple[Identity, ...], sigstore_root: bytes) -> Identity:
        """Who of `identities` signed. Raises Untrusted where nobody of them did, or the bundle does not hold, and
        Unavailable where that cannot be told."""
