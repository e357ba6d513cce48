"""Signatures that come up in every example of a property, checked once each."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from comity.trust.errors import Untrusted
from comity.trust.keys import PublicKey


@contextmanager
def signatures_checked_once() -> Iterator[None]:
    """While the block lasts, `PublicKey.verify` remembers what it found."""
    real = PublicKey.verify

    @functools.cache
    def holds(key: PublicKey, signature: bytes, message: bytes) -> bool:
        try:
            real(key, signature, message)
        except Untrusted:
            return False
        return True

    def verify_once(key: PublicKey, signature: bytes, message: bytes) -> None:
        if not holds(key, signature, message):
            raise Untrusted("bad signature")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PublicKey, "verify", verify_once)
        yield
