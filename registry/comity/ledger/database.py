"""The database of a ledger: transactions, errors, writer lock, fencing token, migrations, and rows of logs.

A commit that returned survives a power failure. Readers read one snapshot and never wait. Writers run one after
another, so a transaction changes the same state that it read. `sqlite` and `postgres` configure their databases for
this.

Each ledger has one writer process. For a ledger in a folder, the lock is a kernel lock (`flock`), which ends with the
process; the contents of the lock file do not matter. `postgres` has the lock of a ledger in PostgreSQL.

The fencing token stops a writer that lost the lock and has not noticed yet. Opening the ledger increments a number in
the table `writer`. Each write transaction reads the number again and locks its row, so the increment waits for running
transactions of the earlier writer. After it, the earlier writer reads another number and writes nothing. No clock is
used.

Another process may read the ledger that its writer writes (`ReadBacking`): it takes no lock, migrates nothing, and only
reads.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from filelock import Timeout
from sqlalchemy import Connection, Engine, bindparam, column, inspect, select, table, update
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from comity.content import fault
from comity.content.durable import file_lock
from comity.ledger import schema
from comity.ledger.moves import require_whole
from comity.ledger.revisions import NEWEST
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, OutOfSpace, Refused, Unavailable
from comity.trust.frozen import frozen
from comity.trust.tlog.note import VerifierKey

_SQLITE_FULL: Final = frozenset({sqlite3.SQLITE_FULL})
_SQLITE_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY})
_SQLITE_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

# SQLSTATE, as PostgreSQL lists them.
_DISK_FULL: Final = frozenset({"53100"})
_CONTENDED: Final = frozenset({"40001", "40P01", "55P03"})
"""The transaction conflicted with another one, or a wait for its locks timed out."""
_CORRUPTED: Final = frozenset({"XX001", "XX002"})


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise errors of the database as the errors that `failure` returns."""
    try:
        yield
    except SQLAlchemyError as error:
        raise failure(error) from error


def failure(error: SQLAlchemyError) -> ComityError:
    """Returns OutOfSpace, Conflict(code="LEDGER-BUSY"), Untrusted(code="LEDGER-CORRUPT"), Malformed for a value that
    the database cannot store, or Unavailable(code="LEDGER-FAILED") for every other error."""
    why = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    if _has_code(error, _SQLITE_FULL, _DISK_FULL):
        return OutOfSpace("the ledger's disk is full", why=why, hint="free some space and try again")
    if _has_code(error, _SQLITE_BUSY, _CONTENDED) or isinstance(error, PoolTimeout):
        return Conflict("the ledger's database is busy", why=why, code="LEDGER-BUSY")
    undecodable = isinstance(error, OperationalError) and "Could not decode to UTF-8" in why
    if _has_code(error, _SQLITE_CORRUPT, _CORRUPTED) or isinstance(error, IntegrityError) or undecodable:
        return schema.damaged_ledger(why)
    if isinstance(error, DataError):
        return Malformed("the ledger cannot store this value", why=why)
    return Unavailable("the ledger's database failed", why=why, hint="comity doctor --node HOME", code="LEDGER-FAILED")


def certainly_not_written(error: SQLAlchemyError) -> bool:
    """Returns whether a commit that failed with this error certainly wrote nothing."""
    return _has_code(error, _SQLITE_FULL | _SQLITE_BUSY, _DISK_FULL | _CONTENDED)


def _has_code(error: SQLAlchemyError, sqlite_codes: frozenset[int], sqlstates: frozenset[str]) -> bool:
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", None)  # the low byte is SQLite's primary result code
    return (code is not None and code & 0xFF in sqlite_codes) or getattr(error.orig, "sqlstate", None) in sqlstates


LOCK_FILE: Final = "ledger.lock"


class WriterLock(Protocol):
    """A lock that is held from its creation until `release`, or until it is lost."""

    def require(self) -> None:
        """Raises Unavailable(code="LEDGER-LOCK-LOST") if the lock is no longer held. Fast; thread-safe."""

    def release(self) -> None:
        """Release the lock."""


class FolderLock:
    """Holds the exclusive lock on a ledger folder. Raises Conflict(code="LEDGER-LOCKED")."""

    def __init__(self, folder: Path) -> None:
        self._lock = file_lock(folder / LOCK_FILE)
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise ledger_locked("stop the node that uses this folder, or wait until that node ends") from error

    def require(self) -> None:
        """Never raises: the kernel keeps the lock until the process ends."""

    def release(self) -> None:
        self._lock.release()


def ledger_locked(hint: str) -> Conflict:
    why = "another process has it open, and a log has one writer"
    return Conflict("the ledger is in use", why=why, hint=hint, code="LEDGER-LOCKED")


def lock_lost(why: str) -> Unavailable:
    return Unavailable(
        "this node lost the write lock of its ledger",
        why=why,
        hint="restart the node: it takes the lock again, or reports that another process has it",
        code="LEDGER-LOCK-LOST",
    )


class Database:
    """Transactions on one database. The caller holds the lock. Thread-safe.

    After a failed commit the data may or may not be on the disk, unless the error excludes that. All later writes then
    raise Unavailable(code="LEDGER-FAILED") until the ledger is opened again. Writes without the lock raise
    Unavailable(code="LEDGER-LOCK-LOST").
    """

    def __init__(self, engine: Engine, lock: WriterLock) -> None:
        self._engine = engine
        self._writers = engine.execution_options(comity_writes=True)
        self._lock = lock
        self._check_writer: Callable[[Connection], None] = lambda connection: None
        self._write_lock = threading.Lock()
        self._failed = False
        self.version = 0
        """The number of commits. While it does not change, all reads return the same results."""
        self._watchers: tuple[Callable[[], None], ...] = ()

    def watch(self, committed: Callable[[], None]) -> None:
        """Call `committed` after each commit, in the writer's thread. It must be short and must not raise."""
        self._watchers = (*self._watchers, committed)

    def changed_elsewhere(self) -> None:
        """Another process has committed: count it as a commit of this one."""
        self._committed()

    def _committed(self) -> None:
        self.version += 1
        for committed in self._watchers:
            committed()

    def check_writes(self, check: Callable[[Connection], None]) -> None:
        """Call `check` at the beginning of each write transaction. An error that it raises stops the transaction."""
        self._check_writer = check

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that reads one snapshot and writes nothing. Raises the errors that `failure` returns."""
        with translate_errors(), self._engine.connect() as connection, connection.begin() as transaction:
            yield connection
            transaction.rollback()

    @contextmanager
    def writing(self, step: str) -> Iterator[Connection]:
        """A transaction that is durable when the block ends, and rolled back if the block raises.

        Args:
            step: names the fault points `ledger.<step>.before-commit` and `ledger.<step>.after-commit`.
        """
        with self._writing(self._writers, step) as connection:
            yield connection

    @contextmanager
    def rebuilding(self, step: str) -> Iterator[Connection]:
        """As `writing`, for migrations: SQLite alters a table by creating it again, so foreign keys are not enforced.

        Raises Untrusted(code="LEDGER-CORRUPT") if a foreign key is violated at the end.
        """
        with self._writing(self._writers.execution_options(comity_rebuilds=True), step) as connection:
            yield connection
            if connection.dialect.name == "sqlite" and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                raise schema.damaged_ledger("a row refers to one that is missing")

    @contextmanager
    def between_writes(self) -> Iterator[None]:
        """Nobody commits before the block ends."""
        with self._write_lock:
            yield

    @contextmanager
    def _writing(self, engine: Engine, step: str) -> Iterator[Connection]:
        with self._write_lock, translate_errors(), engine.connect() as connection, connection.begin() as transaction:
            self._check_writable()
            self._check_writer(connection)
            yield connection
            fault.point(f"ledger.{step}.before-commit")
            self._check_writable()
            try:
                transaction.commit()
            except SQLAlchemyError as error:
                self._failed = not certainly_not_written(error)
                raise
            self._committed()
            fault.point(f"ledger.{step}.after-commit")

    def _check_writable(self) -> None:
        self._lock.require()
        if self._failed:
            raise Unavailable(
                "the ledger accepts no more writes",
                why="an earlier commit failed; its data may or may not be on the disk",
                hint="restart the node: it checks the ledger at start",
                code="LEDGER-FAILED",
            )


SCRIPTS: Final = Path(__file__).parent / "migrations"
_VERSION: Final = table("alembic_version", column("version_num"))

_alembic_lock = threading.Lock()
"""Alembic passes the connection to its scripts in global variables."""


def revision_of(database: Database) -> str | None:
    """Returns the revision of the tables; None if there are none yet."""
    with database.reading() as connection:
        versioned = inspect(connection).has_table(_VERSION.name)
        return connection.scalar(select(_VERSION.c.version_num)) if versioned else None


def set_revision(connection: Connection, revision: str) -> None:
    """Say that the tables have another revision (`moves`)."""
    connection.execute(update(_VERSION).values(version_num=revision))


def ledger_newer(revision: str) -> Refused:
    return Refused(
        "the ledger was written by a newer version",
        why=f"this version does not know revision {revision} of the tables",
        hint="install the version of Comity that wrote it, or a later one",
        code="LEDGER-NEWER",
    )


def migrate(database: Database, revision: str = "head") -> None:
    """Apply the missing migrations up to `revision` in one transaction. Raises Refused(code="LEDGER-NEWER"), and as
    `require_whole`."""
    current = revision_of(database)
    if current == NEWEST:
        return
    require_whole(current or "")
    # Imported only for a new or older ledger: Alembic would stay in the memory of every node, 13 MB.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise ledger_newer(current)
    with _alembic_lock, database.rebuilding("migrate") as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


_LOG = schema.logs.c


@frozen
class LogRow:
    """A row of the table `logs`. `weight` is the bytes of its lines and side objects, staged ones included."""

    id: int
    origin: str
    vkey: str
    own: bool
    size: int
    root: bytes
    staged: int
    weight: int

    @property
    def key(self) -> VerifierKey:
        return VerifierKey.parse(self.vkey)


_NEXT = select(schema.logs).order_by(_LOG.id).limit(1)
_BY_KEY, _BY_ORIGIN = _NEXT.where(_LOG.vkey == bindparam("name")), _NEXT.where(_LOG.origin == bindparam("name"))
"""Built once: every read of a log begins with one of them."""


def find_log(connection: Connection, name: str) -> LogRow:
    """Returns the log with this verifier key or origin. Raises NotFound(code="NO-SUCH-LOG").

    A verifier key always names the same log. An origin, which has no '+', names the first log that was created here
    with this origin; a later log with the same origin and another key does not replace it.
    """
    row = connection.execute(_BY_KEY if "+" in name else _BY_ORIGIN, {"name": name}).mappings().one_or_none()
    if row is None:
        raise NotFound("no such log", why=f"this node has no log {name[:320]}", code="NO-SUCH-LOG")
    return LogRow(**row)


def all_logs(connection: Connection) -> list[LogRow]:
    """Returns all logs in the order of their creation."""
    rows = connection.execute(select(schema.logs).order_by(schema.logs.c.id)).mappings()
    return [LogRow(**row) for row in rows]


_NUMBER: Final = schema.writer.c.number


def raise_fence(database: Database) -> tuple[int, Callable[[Connection], None]]:
    """Increment the fencing token, which stops every earlier writer. Returns the token, and a check for each write
    transaction. The check raises Unavailable(code="LEDGER-LOCK-LOST") after a later writer incremented the token."""
    with database.writing("fence") as connection:
        connection.execute(update(schema.writer).values(number=_NUMBER + 1))
        ours: int = connection.scalars(select(_NUMBER)).one()

    def require(connection: Connection) -> None:
        if connection.scalar(select(_NUMBER).with_for_update(read=True)) != ours:
            raise lock_lost("another process opened the ledger later")

    return ours, require


def touch_fence(connection: Connection) -> None:
    """Write the row of the fencing token as it is: a commit of nothing else, after which SQLite reads pages again."""
    connection.execute(update(schema.writer).values(number=_NUMBER))


_HINT: Final = "start the writer of this ledger with this version of Comity first: it changes the tables"


@frozen
class Look:
    """What one look at a database found.

    Attributes:
        visible: names the set of transactions whose changes are visible.
        identity: as `Backing.identity`.
        revision: of the tables.
        writer: whether a process holds the writer's lock, and has given a sign of life in time.
    """

    visible: str
    identity: str
    revision: str
    writer: bool


FROZEN_SECONDS: Final = 30
"""Seconds without a sign of life after which a writer that holds the lock does not count as running. It may come back:
then it finds its connections ended, and the fencing token raised."""


@frozen
class WriterSeen:
    """What a standby saw of the writer. `held`: a process holds the lock; `silent`: the seconds since a writer gave the
    last sign of life, None if none ever did."""

    held: bool
    silent: float | None

    @property
    def runs(self) -> bool:
        """Whether a writer runs, as far as one knows: one of an older version holds the lock and gives no signs."""
        return self.held and (self.silent is None or self.silent < FROZEN_SECONDS)


class ReadBacking(Protocol):
    """The database of a ledger for a process that only reads it: a factory for its connections."""

    def engine(self) -> Engine:
        """Create an engine whose transactions read one snapshot and cannot write."""

    def identity(self) -> str:
        """As `Backing.identity`."""

    def look(self) -> Look:
        """Raises Unavailable(code="LEDGER-FAILED")."""


class NoWriter:
    """The lock of a process that never writes."""

    def require(self) -> None:
        """Raises Refused(code="FRONT-END")."""
        raise Refused(
            "this process only reads the ledger",
            why="it is a front end, and a ledger has one writer",
            hint="ask the writer of this node",
            code="FRONT-END",
        )

    def release(self) -> None:
        """Nothing is held."""


def require_revision(found: str | None) -> None:
    """Raises Refused(code="LEDGER-OLDER" or "LEDGER-NEWER") unless the tables are those of this version, and as
    `require_whole`."""
    if found == NEWEST:
        return
    require_whole(found or "")
    if found is not None and found > NEWEST:
        raise ledger_newer(found)
    why = f"its tables have revision {found}, this version reads {NEWEST}" if found else "it has no tables yet"
    raise Refused("this ledger is not ready to be read", why=why, hint=_HINT, code="LEDGER-OLDER")


def replaced(why: str) -> Unavailable:
    return Unavailable(
        "the ledger was replaced by another one",
        why=why,
        hint="start this front end again: it reads the ledger that is there now",
        code="LEDGER-REPLACED",
    )
