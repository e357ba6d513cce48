"""How much of a log this node takes: entries, and bytes of entries and side objects together. Beyond it the log does
not advance here and is not cosigned, and the status says so."""

from __future__ import annotations

from comity.ledger.ledger import Ledger
from comity.node.config import Limits
from comity.node.core import Core
from comity.trust.errors import Malformed, OutOfSpace
from comity.trust.statement import Statement, parse_entry
from comity.trust.tlog.note import VerifierKey
from comity.wire.values import Quota

_WINDOW = 256


class Quotas:
    """Counts what is held of each mirrored log. Touched by the event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._limits: Limits = core.config.limits
        self._bytes: dict[VerifierKey, int] = {}
        self._full: dict[VerifierKey, str] = {}

    async def require(self, log: VerifierKey, size: int, more: int = 0) -> None:
        """Raises OutOfSpace (QUOTA) where the log, at `size` entries and with `more` bytes to come, is too large."""
        held = await self._held(log)
        if size > self._limits.entries_per_origin:
            self._full[log] = f"{size} entries, {self._limits.entries_per_origin} are mirrored"
        elif held + more > self._limits.bytes_per_origin:
            self._full[log] = f"{held + more} bytes, {self._limits.bytes_per_origin} are mirrored"
        else:
            self._full.pop(log, None)
            return
        raise OutOfSpace(f"quota reached for {log.name}", why=self._full[log], code="QUOTA")

    async def took(self, log: VerifierKey, count: int) -> None:
        self._bytes[log] = await self._held(log) + count

    @property
    def full(self) -> dict[VerifierKey, str]:
        """Why a log does not advance any more, by its key."""
        return self._full

    def used(self) -> tuple[Quota, ...]:
        return tuple(
            Quota(f"bytes of {log.name}", count, self._limits.bytes_per_origin) for log, count in self._bytes.items()
        )

    async def _held(self, log: VerifierKey) -> int:
        if log not in self._bytes:
            self._bytes[log] = await self._core.pools.ledger(_weigh, self._core.ledger, str(log))
        return self._bytes[log]


def weight(line: bytes, statement: Statement | None) -> int:
    """What an entry costs to keep: its line, and the side objects that it names."""
    return len(line) + (sum(item.size for item in statement.objects) if statement else 0)


def statement_of(line: bytes) -> Statement | None:
    """The statement in a line of somebody's log, which may hold anything."""
    try:
        return parse_entry(line).statement
    except Malformed:
        return None


def _weigh(ledger: Ledger, log: str) -> int:
    size = ledger.logs.get(log).size
    total = 0
    for start in range(0, size, _WINDOW):
        lines = ledger.history.entries(log, start, min(start + _WINDOW, size))
        total += sum(weight(line, statement_of(line)) for line in lines)
    return total
