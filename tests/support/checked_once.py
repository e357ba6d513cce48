"""Signatures that occur repeatedly in the tests of one process: each is verified once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from comity.trust.keys import PublicKey

REMEMBERED: Final = 50_000


def check_signatures_once() -> Callable[[], None]:
    """From now on, `PublicKey.verify` of this process does not verify again what it found valid: hundreds of tests use
    the same case. Invalid signatures are verified, and refused, each time. Returns a function that forgets all.
    """
    real = PublicKey.verify
    valid: set[tuple[str, bytes]] = set()

    def verify(self: PublicKey, signature: bytes, message: bytes) -> None:
        about = hashlib.sha256(len(signature).to_bytes(8, "big") + signature)
        about.update(message)
        found = (self.id, about.digest())
        if found not in valid:
            real(self, signature, message)
            if len(valid) >= REMEMBERED:
                valid.clear()
            valid.add(found)

    PublicKey.verify = verify  # type: ignore[method-assign]
    return valid.clear
