"""`model.sig` files: sign that of a publisher, and verify keyless ones (Sigstore) without a network.

publishers/<name>/model-sig.pem    an ECDSA key on P-256; 0600; created at first use
                  model-sig.pub    its public key in PEM, for verification with other tools

The file is an ordinary file of the artifact: signed last, hashed and listed in the manifest, so that the publication
covers it and every copy has it.

Keyless files need the extra [sigstore]. The owner's `trusted_root.json` decides: the certificate chain, its entry in a
certificate log, the signed and logged entry. Updates of that file are not fetched. The signing time is that of the log
or time stamp. The sigstore package reads the clock once: parts of a trusted root that begin later are ignored, so a
clock that is years behind refuses.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.content.ingest import Ingested, with_file
from comity.content.secrets import read_keys, write_keys
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.evidence import MAX_MODEL_SIG, MODEL_SIG
from comity.trust.frozen import frozen
from comity.trust.keys import PrivateKey
from comity.trust.model_signing.bundle import Bundle, ModelKey, is_excluded, sign_model, signed_by, statement_of_files
from comity.trust.model_signing.judging import KeylessIdentity, KeylessVerifier
from comity.trust.policy import Policy

from comity_client.publishers import Publisher
from comity_client.pull.destinations import Destination

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.verify import Verifier

KEY: Final = "model-sig.pem"
PUBLIC: Final = "model-sig.pub"
ALGORITHM: Final = "ecdsa-p256"


@frozen
class ModelSigned:
    """A folder with its `model.sig`: the ingested files, the key, and the paths that the signature does not cover
    because the reference tool ignores them."""

    ingested: Ingested
    key: ModelKey
    uncovered: tuple[str, ...]


def own_key(publisher: Publisher) -> PrivateKey:
    """Return the publisher's model key; created if missing. Raises as `read_keys` and `write_keys` do."""
    path = publisher.folder / KEY
    if not path.exists():
        write_keys(path, [PrivateKey.generate(ALGORITHM)])
    key = read_model_key(path)
    _write_public_key(publisher, ModelKey.of_raw(key.public))
    return key


def read_model_key(path: Path) -> PrivateKey:
    """Return the key in a file. Raises as `read_keys` does; Malformed (MODEL-KEY) unless it is on P-256 or P-384."""
    keys = read_keys(path)
    if len(keys) != 1:
        why = f"{path.name} has {len(keys)} keys; a model.sig has one signature"
        raise Malformed("not a model-signing key", why=why, code="MODEL-KEY")
    ModelKey.of_raw(keys[0].public)
    return keys[0]


def public_file(publisher: Publisher) -> Path | None:
    """Return the path of the public key; None before the first `model.sig`. Raises as `own_key` does."""
    if not (publisher.folder / KEY).exists():
        return None
    own_key(publisher)
    return publisher.folder / PUBLIC


def sign_folder(made: Ingested, folder: Path, model: str, key: PrivateKey) -> ModelSigned:
    """Sign the files ingested from `folder` as `model`, and write the `model.sig` there. Repeated calls give the same
    file.

    Raises Conflict (MODEL-SIG-EXISTS) if the folder has one by another key, Malformed if nothing can be signed,
    OutOfSpace, Unavailable.
    """
    public, path = ModelKey.of_raw(key.public), folder / MODEL_SIG
    files = [entry for entry in made.manifest.files if entry.path != MODEL_SIG]
    data = sign_model(statement_of_files(model, files), key)
    before = read_bounded(path, MAX_MODEL_SIG) if MODEL_SIG in made.files else None
    if before is not None and not signed_by(before, public):
        hint = "publish without --model-sig to include the file unchanged"
        why = f"{path} is not by key {public.hint[:16]}"
        raise Conflict("the folder has a model.sig already", why=why, hint=hint, code="MODEL-SIG-EXISTS")
    if before != data:
        durable.write_file(path, data, mode=0o644, point="model-sig")
    uncovered = tuple(entry.path for entry in files if is_excluded(entry.path))
    return ModelSigned(with_file(made, MODEL_SIG, path), public, uncovered)


def policy_before_fetch(policy: Policy, manifest: Manifest) -> Policy:
    """Return `policy` without the rules that need the `model.sig`, for the verdict before it is fetched."""
    if MODEL_SIG not in manifest.by_path or not policy.model_signing.lists_signers:
        return policy
    require = tuple(row for row in policy.require if row != "signatures")
    return replace(policy, require=require, model_signing=replace(policy.model_signing, require=False))


def fetched_model_sig(
    destination: Destination, complete: Sequence[FileEntry], missing: Sequence[FileEntry]
) -> bytes | None:
    """Return the `model.sig` of a pull with complete files; those in `missing` were not placed yet, but another pull
    may place them at any time."""
    entry = next((entry for entry in complete if entry.path == MODEL_SIG), None)
    if entry is None or entry.size > MAX_MODEL_SIG:
        return None
    if entry in missing:
        with contextlib.suppress(NotFound):
            return read_bounded(destination.incoming / entry.sha256, MAX_MODEL_SIG)
    return read_bounded(destination.path_of(entry), MAX_MODEL_SIG)


def _write_public_key(publisher: Publisher, public: ModelKey) -> None:
    path = publisher.folder / PUBLIC
    if not path.exists() or path.read_bytes() != public.pem:
        durable.write_file(path, public.pem, mode=0o644, point="model-sig")


def keyless_for(policy: Policy) -> KeylessVerifier | None:
    """Return the verifier of keyless bundles; None if the policy names no such identity or the extra is missing."""
    if not policy.model_signing.identities or importlib.util.find_spec("sigstore") is None:
        return None
    return verify_keyless


def verify_keyless(bundle: bytes, identities: tuple[KeylessIdentity, ...], sigstore_root: bytes) -> KeylessIdentity:
    """Return the one of `identities` that signed the bundle.

    Raises Unavailable if the trusted root is unusable, Untrusted if the bundle is invalid or of another identity.
    """
    return verify_keyless_payload(bundle, Bundle.parse(bundle).payload, identities, sigstore_root)


def verify_keyless_payload(
    bundle: bytes, signed: bytes, identities: tuple[KeylessIdentity, ...], sigstore_root: bytes
) -> KeylessIdentity:
    """As `verify_keyless`, for a bundle of any kind of statement; `signed` is the payload that was read from it."""
    from sigstore.models import Bundle as SigstoreBundle

    verifier, signer_policy = _verifier(sigstore_root), _AnyOf(identities)
    try:
        _, payload = verifier.verify_dsse(SigstoreBundle.from_json(bundle), signer_policy)
    except ComityError:
        raise
    except Exception as error:  # any exception of the package for untrusted bytes is a refusal
        raise Untrusted("the keyless signature is not valid", why=str(error)[:300], code="MODEL-SIG") from error
    if payload != signed:
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
