"""Rounds in which there is nothing to do: most of them, and then they should cost next to nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest, sha256
from comity.wire.values import LogHead

LONGEST: Final = 30.0
"""Seconds after which the same heads are looked at again all the same: some of what is due is due by the clock."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """What a peer showed, and how often this ledger had been written to.

    Attributes:
        shown: digest of the heads, in their order.
        since: POSIX seconds.
    """

    shown: Digest
    version: int
    since: float

    @classmethod
    def of(cls, heads: Iterable[LogHead], version: int, now: float) -> Quiet:
        parts = [part for head in heads for part in (head.origin.encode(), head.vkey.encode(), head.note)]
        return cls(sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)), version, now)

    def goes_on_from(self, before: Quiet | None) -> bool:
        """Whether nothing has changed, there or here, since `before`, when nothing was left to be done."""
        if before is None or not 0 <= self.since - before.since < LONGEST:
            return False
        return (self.shown, self.version) == (before.shown, before.version)
