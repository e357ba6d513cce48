"""Vectors of OpenSSF model signing: keys with fixed secrets, signatures by RFC 6979, and changes that must be
refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from comity.trust.artifact import FileEntry
from comity.trust.encoding import sha256
from comity.trust.evidence import FoundFile
from comity.trust.keys import PrivateKey
from comity.trust.model_signing.bundle import Bundle, ModelKey, sign_model, statement_of_files
from comity.trust.model_signing.judging import ModelSigningRule, judge
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from support.model_sig import changed, sealed, sealed_as_before_v1, with_second_signature

FILES: Final[Mapping[str, bytes]] = {
    "config.json": b'{"architectures":["Tiny"]}\n',
    "empty.txt": b"",
    "tokenizer/hé.txt": b"a\n",
    "weights.safetensors": bytes(range(256)),
}
SECRETS: Final = {"ecdsa-p256": (ec.SECP256R1(), 2**200 + 7), "ecdsa-p384": (ec.SECP384R1(), 2**300 + 7)}


def _key(algorithm: str) -> PrivateKey:
    curve, secret = SECRETS[algorithm]
    private = ec.derive_private_key(secret, curve)
    return PrivateKey.from_pem(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _found(files: Mapping[str, bytes]) -> tuple[FoundFile, ...]:
    return tuple(FoundFile(path, len(data), sha256(data)) for path, data in sorted(files.items()))


def bundles() -> dict[str, Any]:
    statement = statement_of_files("tiny", (FileEntry(path, len(data), sha256(data)) for path, data in FILES.items()))
    return {
        "about": "OpenSSF Model Signing v1.0 as Comity writes and reads it. `accepted`: bundles over `files`, each "
        "with its key, and the SHA-256 of the key's PEM text, which is its hint. `refused`: bundles by the first key "
        "that do not hold, whatever the files. `findings`: the first accepted bundle over other files (path: bytes; "
        "null: removed), and what is found.",
        "files": {path: data.hex() for path, data in FILES.items()},
        "root": statement.root,
        "accepted": [_accepted(algorithm, sign_model(statement, _key(algorithm))) for algorithm in SECRETS],
        "refused": [{"why": why, "bundle": made(statement.encode()).decode()} for why, made in _REFUSED.items()],
        "findings": [_finding(statement.encode(), files) for files in _FOUND],
    }


def _accepted(algorithm: str, bundle: bytes) -> dict[str, Any]:
    public = ModelKey.of_raw(_key(algorithm).public)
    parsed = Bundle.parse(bundle)
    return {
        "algorithm": algorithm,
        "public_key": public.pem.decode(),
        "hint": public.hint,
        "payload": parsed.payload.decode(),
        "signed_hex": parsed.signed.hex(),
        "bundle": bundle.decode(),
    }


def _sealed(payload: bytes) -> bytes:
    return sealed(payload, _key("ecdsa-p256"))


def _changing(**members: Any) -> Callable[[bytes], bytes]:
    return lambda payload: _sealed(json.dumps({**json.loads(payload), **members}).encode())


_REFUSED: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "two signatures": lambda payload: with_second_signature(_sealed(payload)),
    "the faulty encoding of version 0.2": lambda payload: sealed_as_before_v1(payload, _key("ecdsa-p256")),
    "the statement of version 0.2": _changing(predicateType="https://model_signing/Digests/v0.1"),
    "another key's signature": lambda payload: changed(
        sealed(payload, _key("ecdsa-p384")),
        lambda bundle: bundle["verificationMaterial"]["publicKey"].update(
            hint=ModelKey.of_raw(_key("ecdsa-p256").public).hint
        ),
    ),
    "a root that is not that of the list": _changing(subject=[{"name": "tiny", "digest": {"sha256": "00" * 32}}]),
    "a member that the format does not know": lambda payload: changed(_sealed(payload), lambda b: b.update(more=1)),
}

_FOUND: Final[tuple[Mapping[str, bytes | None], ...]] = (
    {},
    {"config.json": b"{}"},
    {"empty.txt": None},
    {"added.txt": b""},
    {".git/hooks/post-checkout": b"#!/bin/sh\n"},
    {".gitattributes": b""},
)


def _finding(payload: bytes, change: Mapping[str, bytes | None]) -> dict[str, Any]:
    files = {path: data for path, data in {**FILES, **change}.items() if data is not None}
    rule = ModelSigningRule(keys=(ModelKey.of_raw(_key("ecdsa-p256").public),))
    coverage = judge(_sealed(payload), _found(files), rule).coverage
    assert coverage is not None
    return {
        "change": {path: None if data is None else data.hex() for path, data in change.items()},
        "wrong": list(coverage.wrong),
        "missing": list(coverage.missing),
        "unsigned": list(coverage.unsigned),
    }
