"""Ending a writer that does not end by itself, so that a standby takes over. Source: docs/operations/grow.md."""

from __future__ import annotations

from pathlib import Path

from comity.node.config import NodeConfig
from comity.node.home import standby_database
from comity.trust.errors import Conflict, Malformed
from comity.trust.frozen import frozen


@frozen
class WriterState:
    """The writer of a database. `held`: a process holds the lock of the ledger; `silent`: the seconds since its last
    sign of life, None if it gave none."""

    held: bool
    silent: float | None


def writer_state(file: Path) -> WriterState:
    """The writer of the database in the settings of a home. Raises Malformed (CONFIG) for a home without a database,
    and Unavailable."""
    seen = standby_database(_config(file)).look()
    return WriterState(seen.held, seen.silent)


def end_writer(file: Path) -> int:
    """End all connections of the writer. It ends by itself then, and what it had not committed is undone. Returns the
    number of connections. Raises Conflict (NO-WRITER) if no process writes the ledger, and as `writer_state`."""
    database = standby_database(_config(file))
    if not database.look().held:
        why = "no process holds the lock of the ledger"
        raise Conflict("there is no writer to end", why=why, hint="comity serve --node HOME", code="NO-WRITER")
    return database.end_writer()


def _config(file: Path) -> NodeConfig:
    config = NodeConfig.load(file)
    if not config.storage.database:
        why = "storage.database is empty, and a ledger in a file has one machine"
        raise Malformed("this home has no database that a standby could write", why=why, code="CONFIG")
    return config
