"""Writing a `model.sig` that other tools accept: whole files, SHA-256, one ECDSA signature, nothing of our own in it.

The reference tool never looks at the four names in `LEFT_OUT` at the root of a folder, and calls a list that has them
false. They are left out here, therefore, and strict readers will find them unsigned.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from comity.trust.errors import ComityError, Malformed
from comity.trust.evidence import MODEL_SIG
from comity.trust.keys import PrivateKey, ecdsa_der
from comity.trust.manifest import RESERVED, FileEntry
from comity.trust.model_signing.bundle import Bundle, KeyMaterial
from comity.trust.model_signing.ec_keys import ModelKey
from comity.trust.model_signing.statement import ModelStatement, Resource

LEFT_OUT: Final = (".git", ".gitattributes", ".github", ".gitignore")


def left_out(path: str) -> bool:
    """Whether no signature of ours covers this file of an artifact."""
    return path == MODEL_SIG or path.partition("/")[0] in LEFT_OUT


def list_files(model: str, files: Iterable[FileEntry]) -> ModelStatement:
    """What to sign about a folder that is called `model`. Raises Malformed where nothing is left to sign."""
    resources = [Resource(file.path, file.sha256) for file in files if not left_out(file.path)]
    if not resources:
        raise Malformed("nothing to sign", why="no file that a model.sig covers", code="EMPTY")
    ignored = sorted({*LEFT_OUT, *RESERVED, MODEL_SIG})
    return ModelStatement(model, tuple(sorted(resources, key=lambda resource: resource.path)), ignored=tuple(ignored))


def sign_model(statement: ModelStatement, key: PrivateKey) -> bytes:
    """The bytes of the `model.sig`; the same each time. Raises Malformed unless the key is on P-256 or P-384."""
    public = ModelKey.of_raw(key.public)
    unsigned = Bundle(KeyMaterial(public.hint), statement.encode(), b"")
    return Bundle(unsigned.material, unsigned.payload, ecdsa_der(key.public.alg, key.sign(unsigned.signed))).encode()


def signed_by(data: bytes, key: ModelKey) -> bool:
    """Whether these are the bytes of a `model.sig` by `key`, about whatever files."""
    try:
        bundle = Bundle.parse(data)
        key.verify(bundle.signature, bundle.signed)
    except ComityError:
        return False
    return True
