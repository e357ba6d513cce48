"""Which logs the faces know: those that the node writes or mirrors, and those outside that the operator added.

A log's prefix is the SHA-256 of its origin, as tlog-mirror asks. Where several keys share an origin it means the log
that was first under it; each has the SHA-256 of its verifier key as a prefix besides.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import structlog

from comity.node import continuity
from comity.node.core import Core
from comity.trust.digest import Digest, sha256
from comity.trust.errors import NotFound, Unavailable
from comity.trust.tlog.note import VerifierKey

_log: Final = structlog.get_logger("comity.gateway")


class Known:
    """Logs by origin and by prefix. Touched by the event loop only."""

    def __init__(self, core: Core) -> None:
        """Blocking."""
        self._core = core
        self._pushed = tuple(map(VerifierKey.parse, core.config.tlog.mirror))
        self.witnessed = frozenset(map(VerifierKey.parse, core.config.tlog.witness))
        """The logs that the plain witness signs for."""
        self._forgetful = _forgetful(core, (*self._pushed, *self.witnessed))
        self._prefixes: dict[str, VerifierKey] = {}

    def require_memory(self, key: VerifierKey) -> None:
        """Raises Unavailable (LEDGER-COPY) for an outside log, where this ledger may be older than what was signed."""
        if self._forgetful is not None and key not in self._core.membership.log_keys(key.name):
            raise self._forgetful

    async def held(self) -> list[VerifierKey]:
        """The logs whose entries are here, the first under its origin first."""
        return await self._core.pools.ledger(self._core.ledger.logs.keys)

    async def mirrored(self, origin: str) -> tuple[VerifierKey, ...]:
        """The logs called `origin` whose entries may be pushed here: members' and outside ones, never our own."""
        bound = self._core.membership.log_keys(origin)
        keys = [*await self.held(), *bound, *self._pushed]
        own = self._core.seat.record.log
        return tuple(dict.fromkeys(key for key in keys if key.name == origin and key != own))

    async def submitted(self, origin: str) -> tuple[VerifierKey, ...]:
        """The logs called `origin` whose checkpoints are taken here. Raises NotFound (UNKNOWN-LOG)."""
        keys = (*await self.mirrored(origin), *(key for key in self.witnessed if key.name == origin))
        if not keys:
            why = "it is neither a member's log nor one that the operator has added"
            raise NotFound("not a log that is known here", why=why, code="UNKNOWN-LOG")
        return tuple(dict.fromkeys(keys))

    async def served(self, prefix: str) -> VerifierKey:
        """The log whose entries are served under `prefix`. Raises NotFound (NO-SUCH-LOG)."""
        if prefix not in self._prefixes:
            for key in await self.held():
                self._prefixes.setdefault(sha256(key.name.encode()), key)
                self._prefixes.setdefault(sha256(str(key).encode()), key)
        if prefix not in self._prefixes:
            raise NotFound("no such log", why="no log that is held here has this prefix", code="NO-SUCH-LOG")
        return self._prefixes[prefix]

    async def prefix(self, key: VerifierKey) -> Digest:
        """Where a log that is held here is served."""
        shared = sha256(key.name.encode())
        return shared if await self.served(shared) == key else sha256(str(key).encode())

    def watched(self, prefix: str) -> VerifierKey:
        """The log that the plain witness shows under `prefix`. Raises NotFound (NO-SUCH-LOG)."""
        for key in sorted(self.witnessed, key=str):
            if prefix in (sha256(key.name.encode()), sha256(str(key).encode())):
                return key
        raise NotFound("no such log", why="no log that is witnessed here has this prefix", code="NO-SUCH-LOG")


def _forgetful(core: Core, outside: Iterable[VerifierKey]) -> Unavailable | None:
    """Why nothing is signed for outside logs: no peer says what was, so a copy of a ledger may not go on from it."""
    logs, mark = list(outside), core.mark(continuity.OUTSIDE)
    if not logs:
        return None
    begun = any(core.ledger.witnessed.submitted(log) for log in logs)
    if not mark.is_of_another(begun=begun):
        mark.renew()
        return None
    why = "it may be older than what was signed for outside logs, and no peer could tell"
    hint = f"if nothing was signed since it was made: {mark.vouching_command()}"
    _log.error("this ledger is a copy: nothing is signed for outside logs", why=why, hint=hint)
    return Unavailable("this ledger is a copy", why=why, hint=hint, code="LEDGER-COPY")
