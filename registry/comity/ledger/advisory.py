"""The lock of a ledger in PostgreSQL: an advisory lock, held by a connection that does nothing else.

The server gives it to one connection of a database at a time, and frees it when that connection ends, however it ends:
with the process, with the network, or by an administrator's word. The operating system tells this side of the end; it
is looked for before each write and each commit, and every second in between. Between such a look and the commit lies a
moment in which another process may have got the lock: `fence` closes it.
"""

from __future__ import annotations

import select
import threading
from typing import Final

import psycopg

from comity.ledger.lock import lost, taken

KEY: Final = int.from_bytes(b"comity\0\1", "big", signed=True)


class AdvisoryLock:
    """Holds the lock by `connection`, which is its own from now on. Raises Conflict(code="LEDGER-LOCKED")."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._ended = self._said = ""
        """Why it is held no longer, and the last that the server said."""
        self._looking = threading.Lock()
        self._poll = select.poll()
        self._poll.register(connection.fileno(), select.POLLIN)
        connection.add_notice_handler(self._hear)
        if not connection.execute("SELECT pg_try_advisory_lock(%s)", (KEY,)).fetchall()[0][0]:
            connection.close()
            raise taken("stop the node that uses this database, or wait until it has ended")

    def require(self) -> None:
        with self._looking:
            if not self._ended:
                self._look()
            if self._ended:
                raise lost(f"the connection that held the lock has ended: {self._ended}")

    def release(self) -> None:
        with self._looking:
            self._ended = self._ended or "it was given back"
            self._connection.close()

    def _look(self) -> None:
        """Nothing is asked on this connection: what comes is a notice, or the end."""
        try:
            while self._poll.poll(0):
                self._connection.pgconn.consume_input()
                self._connection.pgconn.notifies()  # has libpq read what came, and hand on what was said
        except psycopg.OperationalError as error:
            self._ended = self._said or " ".join(str(error).split())

    def _hear(self, said: psycopg.errors.Diagnostic) -> None:
        self._said = said.message_primary or ""
