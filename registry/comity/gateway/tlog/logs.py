"""The logs that the routes know, by origin and by prefix; and whether this ledger may be a copy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import structlog

from comity.ledger.ledger import Ledger
from comity.node.ledger_mark import LedgerMark
from comity.node.members import Membership
from comity.node.settings import Tlog
from comity.node.threads import AsyncLedger
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, Unavailable
from comity.trust.tlog.note import VerifierKey

_log: Final = structlog.get_logger("comity.gateway")


class KnownLogs:
    """Logs by origin and by prefix. Not thread-safe: call from the event loop."""

    def __init__(self, ledger: AsyncLedger, membership: Membership, settings: Tlog, mark: LedgerMark | None) -> None:
        """Blocking. `mark` is the mark of what was signed for outside logs; None in a process that signs nothing."""
        self._ledger = ledger
        self._membership = membership
        self._pushed = tuple(map(VerifierKey.parse, settings.mirror))
        self.witnessed = frozenset(map(VerifierKey.parse, settings.witness))
        """Logs that the plain witness signs."""
        outside = (*self._pushed, *self.witnessed)
        self._ledger_copy_error = None if mark is None else _ledger_copy_error(ledger.tables, mark, outside)
        self._prefixes: dict[str, VerifierKey] = {}

    def require_original_ledger(self, key: VerifierKey) -> None:
        """Raise Unavailable (LEDGER-COPY) for an outside log if this ledger may be older than the last signature for
        outside logs."""
        if self._ledger_copy_error is not None and key not in self._membership.log_keys(key.name):
            raise self._ledger_copy_error

    async def stored_logs(self) -> list[VerifierKey]:
        """Return the logs whose entries are stored; of one origin, the first log comes first."""
        return await self._ledger.run(self._ledger.tables.logs.keys)

    async def mirrored(self, origin: str) -> tuple[VerifierKey, ...]:
        """Return the logs of `origin` that accept uploads: of members and outside ones, never the own log."""
        bound = self._membership.log_keys(origin)
        keys = [*await self.stored_logs(), *bound, *self._pushed]
        own = self._membership.own_node.record.log
        return tuple(dict.fromkeys(key for key in keys if key.name == origin and key != own))

    async def submitted(self, origin: str) -> tuple[VerifierKey, ...]:
        """Return the logs of `origin` that accept checkpoints. Raises NotFound (UNKNOWN-LOG)."""
        keys = (*await self.mirrored(origin), *(key for key in self.witnessed if key.name == origin))
        if not keys:
            why = "the log is not of a member, and the operator has not added it"
            raise NotFound("unknown log", why=why, code="UNKNOWN-LOG")
        return tuple(dict.fromkeys(keys))

    async def log_by_prefix(self, prefix: str) -> VerifierKey:
        """Return the log that is served under `prefix`. Raises NotFound (NO-SUCH-LOG)."""
        if prefix not in self._prefixes:
            for key in await self.stored_logs():
                self._prefixes.setdefault(sha256(key.name.encode()), key)
                self._prefixes.setdefault(sha256(str(key).encode()), key)
        if prefix not in self._prefixes:
            raise NotFound("no such log", why="no stored log has this prefix", code="NO-SUCH-LOG")
        return self._prefixes[prefix]

    async def prefix(self, key: VerifierKey) -> Digest:
        """Return the prefix of a stored log."""
        shared = sha256(key.name.encode())
        return shared if await self.log_by_prefix(shared) == key else sha256(str(key).encode())

    def witnessed_log(self, prefix: str) -> VerifierKey:
        """Return the log of the plain witness with this `prefix`. Raises NotFound (NO-SUCH-LOG)."""
        for key in sorted(self.witnessed, key=str):
            if prefix in (sha256(key.name.encode()), sha256(str(key).encode())):
                return key
        raise NotFound("no such log", why="no witnessed log has this prefix", code="NO-SUCH-LOG")


def _ledger_copy_error(ledger: Ledger, mark: LedgerMark, outside: Iterable[VerifierKey]) -> Unavailable | None:
    """Return the error that blocks signatures for outside logs: a copied ledger may miss signatures, and no peer has a
    record of them. None if the ledger is not a copy."""
    logs = list(outside)
    if not logs:
        return None
    begun = any(ledger.witnessed.submitted(log) for log in logs)
    if not mark.mismatches(begun=begun):
        mark.write()
        return None
    why = "it may be older than the last signature for outside logs, and no peer has a record"
    hint = f"if nothing was signed since the copy: {mark.reset_command()}"
    _log.error("ledger is a copy: not signing for outside logs", why=why, hint=hint)
    return Unavailable("this ledger is a copy", why=why, hint=hint, code="LEDGER-COPY")
