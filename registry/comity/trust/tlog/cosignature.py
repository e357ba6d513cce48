"""Cosignatures (C2SP tlog-cosignature): a cosigner's dated statement about a checkpoint.

    — node-b.example/cosigner 1+vjgQAAAABrBg+FiKiDl4p3nlIDNMJjkGj2lniYoaNuZPtf0Fn7mpE71TfaIIZyMZhfFSBVADMubecZKy6aJp7WH…

It says: at this time, this was the largest consistent tree that I had seen for this origin. What a cosigner promises
beyond that (to hold every entry, say) belongs to its key and is agreed elsewhere. An Ed25519 cosignature (type 0x04)
does not name the cosigner, so one such key must never serve two names; an ML-DSA-44 one (type 0x06) does.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from comity.trust.errors import Malformed, Untrusted
from comity.trust.keys import PrivateKey, PublicKey
from comity.trust.tlog.checkpoint import Checkpoint
from comity.trust.tlog.note import ED25519_COSIGNATURE, MLDSA44_COSIGNATURE, NoteSignature, SignedNote, VerifierKey

MAX_TIMESTAMP: Final = 2**63 - 1

_TYPES: Final = {"ed25519": ED25519_COSIGNATURE, "ml-dsa-44": MLDSA44_COSIGNATURE}
_TIMESTAMP_SIZE: Final = 8


def cosigner_key(name: str, public: PublicKey) -> VerifierKey:
    """The key called `name` under which `public` cosigns. Raises Malformed unless it is Ed25519 or ML-DSA-44."""
    if public.alg not in _TYPES:
        raise Malformed("not a cosigner key", why=f"{public.alg} does not cosign", code="NOTE-KEY-TYPE")
    return VerifierKey(name, _TYPES[public.alg], public.raw)


def cosign(checkpoint: Checkpoint, name: str, key: PrivateKey, timestamp: int) -> NoteSignature:
    """State as `name` that at `timestamp` (POSIX seconds) `checkpoint` was the largest seen. Raises Malformed."""
    if not 0 <= timestamp <= MAX_TIMESTAMP:
        raise Malformed("not a cosignature time", why=f"{timestamp} is not in 0 to 2**63 - 1", code="COSIGNATURE-TIME")
    verifier = cosigner_key(name, key.public)
    signature = key.sign(_message(checkpoint, verifier, timestamp))
    return NoteSignature(name, verifier.key_id, timestamp.to_bytes(_TIMESTAMP_SIZE, "big") + signature)


def verify_cosignature(signature: NoteSignature, key: VerifierKey, checkpoint: Checkpoint) -> int:
    """The time (POSIX seconds) at which the cosigner `key` signed `checkpoint`. Raises Untrusted(code="COSIGNATURE").

    0 says that the cosigner makes no statement about time, nor about the tree being the largest it saw.
    """
    if not signature.by(key) or key.type not in _TYPES.values():
        raise Untrusted("bad cosignature", why=f"not a cosignature line of {key.name}", code="COSIGNATURE")
    timestamp = int.from_bytes(signature.signature[:_TIMESTAMP_SIZE], "big")
    if timestamp > MAX_TIMESTAMP:
        raise Untrusted("bad cosignature", why="its time is out of range", code="COSIGNATURE")
    try:
        key.public_key.verify(signature.signature[_TIMESTAMP_SIZE:], _message(checkpoint, key, timestamp))
    except Untrusted as error:
        why = f"the line of {key.name} is not its signature of this checkpoint"
        raise Untrusted("bad cosignature", why=why, code="COSIGNATURE") from error
    return timestamp


def verified_cosigners(note: SignedNote, keys: Iterable[VerifierKey], checkpoint: Checkpoint) -> dict[VerifierKey, int]:
    """Those of `keys` that cosigned `checkpoint` in `note`, each with the newest time at which it did; may be empty.

    Lines of unknown keys are passed over. Raises Untrusted(code="COSIGNATURE") where a known key's line is wrong.
    """
    cosigners: dict[VerifierKey, int] = {}
    for key in dict.fromkeys(keys):
        times = [verify_cosignature(line, key, checkpoint) for line in note.signatures if line.by(key)]
        if times:
            cosigners[key] = max(times)
    return cosigners


def _message(checkpoint: Checkpoint, key: VerifierKey, timestamp: int) -> bytes:
    """The bytes that are signed. `Checkpoint` has no extension lines, so its text is the whole note text."""
    if key.type == ED25519_COSIGNATURE:
        return f"cosignature/v1\ntime {timestamp}\n{checkpoint.text}".encode()
    name, origin = key.name.encode("utf-8"), checkpoint.origin.encode("utf-8")
    return b"".join(
        (
            b"subtree/v1\n\x00",
            bytes([len(name)]),
            name,
            struct.pack(">Q", timestamp),
            bytes([len(origin)]),
            origin,
            struct.pack(">QQ", 0, checkpoint.size),
            checkpoint.root,
        )
    )
