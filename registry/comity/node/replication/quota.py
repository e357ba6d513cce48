"""How much of a log this node takes: entries, and bytes of entries and side objects together, each object once. Beyond
it the log does not advance here and is not cosigned, and the status says so. The ledger keeps the sums."""

from __future__ import annotations

from collections.abc import Sequence

from comity.node.config import Limits
from comity.node.core import Core
from comity.trust.errors import Malformed, OutOfSpace
from comity.trust.statement import Statement, parse_entry
from comity.trust.tlog.note import VerifierKey
from comity.wire.values import Quota


class Quotas:
    """Compares what is held of each mirrored log with its quota. Touched by the event loop only, but for `used`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._limits: Limits = core.config.limits
        self._full: dict[VerifierKey, str] = {}

    async def require(self, log: VerifierKey, size: int, lines: Sequence[bytes] = ()) -> None:
        """Raises OutOfSpace (QUOTA) where the log, at `size` entries and with `lines` to come, is too large."""
        held = await self._core.pools.ledger(self._weigh, str(log), lines)
        if size > self._limits.entries_per_origin:
            self._full[log] = f"{size} entries, {self._limits.entries_per_origin} are mirrored"
        elif held > self._limits.bytes_per_origin:
            self._full[log] = f"{held} bytes, {self._limits.bytes_per_origin} are mirrored"
        else:
            self._full.pop(log, None)
            return
        raise OutOfSpace(f"quota reached for {log.name}", why=self._full[log], code="QUOTA")

    @property
    def full(self) -> dict[VerifierKey, str]:
        """Why a log does not advance any more, by its key."""
        return self._full

    def used(self) -> tuple[Quota, ...]:
        """Blocking."""
        most = self._limits.bytes_per_origin
        mirrored = (log for log in self._core.ledger.logs.all() if not log.own)
        return tuple(Quota(f"bytes of {log.origin}", log.weight, most) for log in mirrored)

    def _weigh(self, log: str, lines: Sequence[bytes]) -> int:
        logs = self._core.ledger.logs
        return logs.weight(log) + (logs.cost(log, lines) if lines else 0)


def statement_of(line: bytes) -> Statement | None:
    """The statement in a line of somebody's log, which may hold anything."""
    try:
        return parse_entry(line).statement
    except Malformed:
        return None
