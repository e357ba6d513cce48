"""SHA-256 digests as values: 64 lower-case hex digits, made only by the functions here."""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from comity.trust.errors import Malformed

Digest = NewType("Digest", str)

_HEX = re.compile(r"[0-9a-f]{64}\Z")


def sha256(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


def bare_digest(text: object) -> Digest:
    """The digest that `text` spells in the one way that documents spell it: 64 hex digits. Raises Malformed."""
    if isinstance(text, str) and _HEX.match(text):
        return Digest(text)
    raise Malformed("not a sha256 digest", why=f"expected 64 lower-case hex digits, got {str(text)[:80]!r}")


def parse_digest(text: object) -> Digest:
    """The digest that a person wrote, bare or as `sha256:<hex>`. Raises Malformed."""
    return bare_digest(text.removeprefix("sha256:") if isinstance(text, str) else text)


def short(digest: Digest) -> str:
    """`9f2c41…e01a`, for people; never parse it back."""
    return f"{digest[:6]}…{digest[-4:]}"
