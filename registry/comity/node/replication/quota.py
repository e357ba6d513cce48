"""How much of a log this node takes: entries, and bytes of entries and side objects together. Beyond it the log does
not advance here and is not cosigned, and the status says so."""

from __future__ import annotations

from comity.ledger.ledger import Ledger
from comity.node.config import Limits
from comity.node.core import Core
from comity.trust.errors import Malformed, OutOfSpace
from comity.trust.statement import Statement, parse_entry
from comity.wire.values import Quota

_WINDOW = 256


class Quotas:
    """Counts what is held of each mirrored log. Touched by the event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._limits: Limits = core.config.limits
        self._bytes: dict[str, int] = {}
        self._full: dict[str, str] = {}

    async def require(self, origin: str, size: int, more: int = 0) -> None:
        """Raises OutOfSpace (QUOTA) where the log, at `size` entries and with `more` bytes to come, is too large."""
        held = await self._held(origin)
        if size > self._limits.entries_per_origin:
            self._full[origin] = f"{size} entries, {self._limits.entries_per_origin} are mirrored"
        elif held + more > self._limits.bytes_per_origin:
            self._full[origin] = f"{held + more} bytes, {self._limits.bytes_per_origin} are mirrored"
        else:
            self._full.pop(origin, None)
            return
        raise OutOfSpace(f"quota reached for {origin}", why=self._full[origin], code="QUOTA")

    async def took(self, origin: str, count: int) -> None:
        self._bytes[origin] = await self._held(origin) + count

    @property
    def full(self) -> dict[str, str]:
        """Why a log does not advance any more, by origin."""
        return self._full

    def used(self) -> tuple[Quota, ...]:
        return tuple(
            Quota(f"bytes of {origin}", count, self._limits.bytes_per_origin) for origin, count in self._bytes.items()
        )

    async def _held(self, origin: str) -> int:
        if origin not in self._bytes:
            self._bytes[origin] = await self._core.pools.ledger(_weigh, self._core.ledger, origin)
        return self._bytes[origin]


def weight(line: bytes, statement: Statement | None) -> int:
    """What an entry costs to keep: its line, and the side objects that it names."""
    return len(line) + (sum(item.size for item in statement.objects) if statement else 0)


def statement_of(line: bytes) -> Statement | None:
    """The statement in a line of somebody's log, which may hold anything."""
    try:
        return parse_entry(line).statement
    except Malformed:
        return None


def _weigh(ledger: Ledger, origin: str) -> int:
    size = ledger.logs.get(origin).size
    total = 0
    for start in range(0, size, _WINDOW):
        lines = ledger.history.entries(origin, start, min(start + _WINDOW, size))
        total += sum(weight(line, statement_of(line)) for line in lines)
    return total
