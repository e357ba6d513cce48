"""What did not verify and counts for nothing: said, so that nothing is passed over in silence."""

from __future__ import annotations

from dataclasses import dataclass

from comity.trust.digest import Digest


@dataclass(frozen=True, slots=True)
class Remark:
    """`evidence` is the SHA-256 of the line or proof that it is about."""

    text: str
    evidence: Digest | None = None
