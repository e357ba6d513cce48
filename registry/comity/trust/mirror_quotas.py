"""How many bytes the mirror rules may copy, for each rule and in all. Pure.

An artifact is charged to the rule that copies it before its first byte is fetched, with the size of all its files. So
what is fetched is never more than what was charged, and charges never pass a quota: a copy waits if it does not fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

WARN_SHARE: Final = 0.8
"""The share of a quota from which operators are warned."""
ALL: Final = ""
"""Names the quota of all rules and the default together."""


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """`rule` is `ALL` for what all rules copy together."""

    rule: str
    used: int
    limit: int

    @property
    def nearly_full(self) -> bool:
        return self.used >= WARN_SHARE * self.limit

    def __str__(self) -> str:
        return f"mirror rule {self.rule!r}" if self.rule else "all that is mirrored"


class MirrorQuotas:
    """The quotas and what is charged to them. Not thread-safe."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._limits = dict(limits)
        self._used: Counter[str] = Counter()

    def __bool__(self) -> bool:
        """Whether there is any quota."""
        return bool(self._limits)

    def load(self, used: Mapping[str, int]) -> None:
        """Set what is charged, by the name of the rule; the empty name stands for the default here."""
        self._used = Counter(used)

    def charge(self, rule: str, change: int) -> None:
        """Charge bytes to a rule, or take some back. Not refused: call `exceeded` before."""
        self._used[rule] += change

    def exceeded(self, rule: str, more: int) -> QuotaUse | None:
        """The quota that `more` bytes for a rule would pass; None if they fit."""
        return next((use for use in self._concerned(rule) if more > 0 and use.used + more > use.limit), None)

    def room(self, rule: str) -> int | None:
        """Bytes that a rule may still copy; None without a limit."""
        return min((max(0, use.limit - use.used) for use in self._concerned(rule)), default=None)

    def uses(self) -> Iterator[QuotaUse]:
        """Each quota, that of all first."""
        for rule in sorted(self._limits):
            yield self._use(rule)

    def _concerned(self, rule: str) -> Iterator[QuotaUse]:
        for name in dict.fromkeys((rule, ALL)):
            if name in self._limits:
                yield self._use(name)

    def _use(self, rule: str) -> QuotaUse:
        used = sum(self._used.values()) if rule == ALL else self._used[rule]
        return QuotaUse(rule, used, self._limits[rule])
