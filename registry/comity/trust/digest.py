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


def parse_digest(text: object) -> Digest:
    """The digest that `text` spells, bare or as `sha256:<hex>`. Raises Malformed."""
    if isinstance(text, str) and _HEX.match(text.removeprefix("sha256:")):
        return Digest(text.removeprefix("sha256:"))
    raise Malformed("not a sha256 digest", why=f"expected 64 lower-case hex digits, got {str(text)[:80]!r}")


def short(digest: Digest) -> str:
    """`9f2c41…e01a`, for people; never parse it back."""
    return f"{digest[:6]}…{digest[-4:]}"
