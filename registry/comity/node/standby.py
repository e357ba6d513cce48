"""A process that waits to become the writer of its node, on another machine than the writer.

It looks at the database every few seconds, and opens the ledger as a writer does as soon as

(1) no process holds the lock of the ledger: the writer was stopped, died, or lost its connection; or
(2) the process that holds the lock gives no sign of life: it is stopped, or its machine is paused. Its connections are
    ended then, so that the lock is free. If it comes back it finds them ended, and the fencing token raised.

A database that does not answer is waited for: nothing is known of the writer then. Source: docs/operations/grow.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from comity.ledger.database import FROZEN_SECONDS, WriterSeen
from comity.trust.errors import Unavailable

LOOK_SECONDS: Final = 2.0

_log: Final = structlog.get_logger("comity.node")


class WatchedDatabase(Protocol):
    """What a standby asks: `postgres.PostgresStandby`."""

    def look(self) -> WriterSeen:
        """Raises Unavailable."""

    def end_writer(self) -> int:
        """Raises Unavailable."""


async def until_writer_ends(database: WatchedDatabase, seconds: float = LOOK_SECONDS) -> None:
    """Wait until no other process holds the lock of the ledger; a writer that gives no sign of life in two looks in a
    row is ended. A writer takes the lock a moment before it gives its first sign.

    Args:
        seconds: between two looks.
    """
    said, frozen_before = "", False
    while True:
        try:
            seen = await asyncio.to_thread(database.look)
            if not seen.held:
                _log.info("standby: no process writes the ledger, so this one begins to")
                return
            frozen = not seen.runs
            if frozen and frozen_before:
                ended = await asyncio.to_thread(database.end_writer)
                _log.warning("standby: ended a writer that gave no sign of life", seconds=FROZEN_SECONDS, ended=ended)
            said = _say(said, "standby: a writer runs" if seen.runs else "standby: the writer gives no sign of life")
            frozen_before = frozen
        except Unavailable as error:
            frozen_before = False
            said = _say(said, "standby: the database does not answer", why=error.why)
        await asyncio.sleep(seconds)


def _say(said: str, what: str, **more: str) -> str:
    """Log a state once, and return it."""
    if what != said:
        log: Callable[..., object] = _log.info if what.endswith("runs") else _log.warning
        log(what, **more)
    return what
