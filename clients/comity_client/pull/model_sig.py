"""A publisher's `model.sig`: the key for it, beside the identity, and the file, in the folder that is published.

publishers/<name>/model-sig.pem    an ECDSA key on P-256; 0600; made when it is first wanted
                  model-sig.pub    its public half in PEM, for whoever verifies with other tools

The file is an ordinary one of the artifact: signed last, hashed like the others and listed in the manifest, so that the
publisher's own statement covers it and every copy has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.content.ingest import Ingested, with_file
from comity.content.secrets import read_keys, write_keys
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.errors import Conflict, Malformed
from comity.trust.evidence import MAX_MODEL_SIG, MODEL_SIG
from comity.trust.keys import PrivateKey
from comity.trust.model_signing.bundle import left_out, list_files, sign_model, signed_by
from comity.trust.model_signing.certificates import ModelKey
from comity.trust.policy import Policy
from comity.verifier import read_bounded
from comity_client.publishers import Publisher
from comity_client.pull.destinations import Destination

KEY: Final = "model-sig.pem"
PUBLIC: Final = "model-sig.pub"
ALGORITHM: Final = "ecdsa-p256"


@dataclass(frozen=True, slots=True)
class ModelSigned:
    """A folder with its `model.sig`: what is published of it, by which key it was signed, and the paths that the
    signature does not cover, since the reference tool passes them over."""

    ingested: Ingested
    key: ModelKey
    uncovered: tuple[str, ...]


def own_key(publisher: Publisher) -> PrivateKey:
    """The publisher's key for models; made where there is none yet. Raises as `read_keys` and `write_keys` do."""
    path = publisher.folder / KEY
    if not path.exists():
        write_keys(path, [PrivateKey.generate(ALGORITHM)])
    key = read_model_key(path)
    _show(publisher, ModelKey.of_raw(key.public))
    return key


def read_model_key(path: Path) -> PrivateKey:
    """The key in a file. Raises as `read_keys` does; Malformed (code MODEL-KEY) unless it is one on P-256 or P-384."""
    keys = read_keys(path)
    if len(keys) != 1:
        why = f"{path.name} holds {len(keys)} keys; a model.sig has one signature"
        raise Malformed("not a model-signing key", why=why, code="MODEL-KEY")
    ModelKey.of_raw(keys[0].public)
    return keys[0]


def public_file(publisher: Publisher) -> Path | None:
    """Where others find the public key; None before the first `model.sig`. Raises as `own_key` does."""
    if not (publisher.folder / KEY).exists():
        return None
    own_key(publisher)
    return publisher.folder / PUBLIC


def sign_folder(made: Ingested, folder: Path, model: str, key: PrivateKey) -> ModelSigned:
    """Sign what was ingested from `folder`, as `model`, and write the `model.sig` there. Doing so again gives the same.

    Raises Conflict (code MODEL-SIG-EXISTS) where the folder has one by another key, Malformed where nothing can be
    signed, OutOfSpace, Unavailable.
    """
    public, path = ModelKey.of_raw(key.public), folder / MODEL_SIG
    files = [entry for entry in made.manifest.files if entry.path != MODEL_SIG]
    data = sign_model(list_files(model, files), key)
    before = read_bounded(path, MAX_MODEL_SIG) if MODEL_SIG in made.files else None
    if before is not None and not signed_by(before, public):
        hint = "publish without --model-sig: it goes along as it is"
        why = f"{path} is not by key {public.hint[:16]}"
        raise Conflict("the folder has a model.sig already", why=why, hint=hint, code="MODEL-SIG-EXISTS")
    if before != data:
        durable.write_file(path, data, mode=0o644, point="model-sig")
    uncovered = tuple(entry.path for entry in files if left_out(entry.path))
    return ModelSigned(with_file(made, MODEL_SIG, path), public, uncovered)


def judgeable_before(policy: Policy, manifest: Manifest) -> Policy:
    """`policy` without what only the artifact's `model.sig` can answer, for a judgement before it is fetched."""
    if MODEL_SIG not in manifest.by_path or not policy.model_signing.believes_anybody:
        return policy
    require = tuple(row for row in policy.require if row != "signatures")
    return replace(policy, require=require, model_signing=replace(policy.model_signing, require=False))


def fetched_model_sig(place: Destination, complete: Sequence[FileEntry], missing: Sequence[FileEntry]) -> bytes | None:
    """The `model.sig` of a pull whose files are complete: those of `missing` not yet in their place."""
    entry = next((entry for entry in complete if entry.path == MODEL_SIG), None)
    if entry is None or entry.size > MAX_MODEL_SIG:
        return None
    return read_bounded(place.incoming / entry.sha256 if entry in missing else place.holder(entry), MAX_MODEL_SIG)


def _show(publisher: Publisher, public: ModelKey) -> None:
    path = publisher.folder / PUBLIC
    if not path.exists() or path.read_bytes() != public.pem:
        durable.write_file(path, public.pem, mode=0o644, point="model-sig")
