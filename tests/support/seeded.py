"""Keys and bytes that are the same in every run: for vectors, and for tests whose failures must repeat. For nothing
else."""

from __future__ import annotations

import hashlib

from comity.trust.keys import PrivateKey
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


def seed(name: str) -> bytes:
    """32 bytes: SHA-256 over `name`."""
    return hashlib.sha256(name.encode("utf-8")).digest()


def seeded_key(alg: str, name: str) -> PrivateKey:
    """The key of `alg` (Ed25519 or ML-DSA) whose private seed is `seed(name)`."""
    if alg == "ed25519":
        return PrivateKey(alg, ed25519.Ed25519PrivateKey.from_private_bytes(seed(name)))
    if alg == "ml-dsa-44":
        return PrivateKey(alg, mldsa.MLDSA44PrivateKey.from_seed_bytes(seed(name)))
    if alg == "ml-dsa-65":
        return PrivateKey(alg, mldsa.MLDSA65PrivateKey.from_seed_bytes(seed(name)))
    raise ValueError(f"{alg} keys are not made from a seed here")


def seeded_bytes(size: int, name: str) -> bytes:
    """`size` incompressible bytes: AES-256 in counter mode under `seed(name)`, which is fast."""
    return Cipher(algorithms.AES(seed(name)), modes.CTR(bytes(16))).encryptor().update(bytes(size))
