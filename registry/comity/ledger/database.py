"""Transactions on the database under a ledger, and what becomes of them when it fails.

A commit that has returned survives a power cut. Readers see one snapshot and never wait; writers take turns, so that
what they read is what they change. How a database is told to keep that is said in `sqlite` and `postgres`; no table is
known here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from comity.content import fault
from comity.ledger.failures import nothing_written, translated
from comity.ledger.lock import WriterLock
from comity.trust.errors import Unavailable, Untrusted


class Database:
    """Transactions on one database, whose lock is held. Thread-safe.

    A commit that fails may or may not have reached the disk, unless the failure says that nothing was written. From
    then on every write is refused with Unavailable(code="LEDGER-FAILED"): only opening the ledger again finds out what
    stands. Without the lock, writes are refused with Unavailable(code="LEDGER-LOCK-LOST").
    """

    def __init__(self, engine: Engine, lock: WriterLock) -> None:
        self._engine = engine
        self._writers = engine.execution_options(comity_writes=True)
        self._lock = lock
        self._admit: Callable[[Connection], None] = lambda connection: None
        self._turn = threading.Lock()
        self._failed = False
        self.version = 0
        """How often something was committed here: while the number stands, so do all answers."""

    def guard(self, admit: Callable[[Connection], None]) -> None:
        """Have `admit` called at the beginning of each write; what it raises refuses that."""
        self._admit = admit

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one snapshot and leaves nothing. Raises what `failures.failure` returns."""
        with translated(), self._engine.connect() as connection, connection.begin() as transaction:
            yield connection
            transaction.rollback()

    @contextmanager
    def writing(self, step: str) -> Iterator[Connection]:
        """A transaction that is on the disk, whole, when the block has ended without an exception, and else nowhere.

        Args:
            step: names the fault points `ledger.<step>.before-commit` and `ledger.<step>.after-commit`.
        """
        with self._writing(self._writers, step) as connection:
            yield connection

    @contextmanager
    def rebuilding(self, step: str) -> Iterator[Connection]:
        """As `writing`, and tables may be made anew, as SQLite alters them: meanwhile rows may refer to nothing.

        Raises Untrusted(code="LEDGER-CORRUPT") where one does in the end.
        """
        with self._writing(self._writers.execution_options(comity_rebuilds=True), step) as connection:
            yield connection
            if connection.dialect.name == "sqlite" and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                raise Untrusted(
                    "the ledger is damaged", why="a row refers to one that is missing", code="LEDGER-CORRUPT"
                )

    @contextmanager
    def _writing(self, engine: Engine, step: str) -> Iterator[Connection]:
        with self._turn, translated(), engine.connect() as connection, connection.begin() as transaction:
            self._require()
            self._admit(connection)
            yield connection
            fault.point(f"ledger.{step}.before-commit")
            self._require()
            try:
                transaction.commit()
            except SQLAlchemyError as error:
                self._failed = not nothing_written(error)
                raise
            self.version += 1
            fault.point(f"ledger.{step}.after-commit")

    def _require(self) -> None:
        self._lock.require()
        if self._failed:
            raise Unavailable(
                "the ledger takes no more writes",
                why="an earlier commit failed, and may or may not have reached the disk",
                hint="restart the node: it finds out at start",
                code="LEDGER-FAILED",
            )
