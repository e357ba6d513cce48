"""A ledger in PostgreSQL: its connections, its lock, and the requirements on the server.

The writer lock is an advisory lock, held by a connection that does nothing else. The server gives the lock to one
connection of a database at a time, and releases it when the node says so, or when that connection ends for any reason:
end of the process, network failure, or an administrator. The server may notice that end late, so a node that finds the
lock taken waits for it, up to `LOCK_SECONDS`. The node checks its end of the connection before each write and each
commit, and every second in between. Between the check and the commit another process may still get the lock; the
fencing token (`database.raise_fence`) covers this case.

The process that holds the lock stores a sign of life every few seconds (`_SignsOfLife`): the lock of a process that is
stopped, or whose machine is paused, stays held for as long as that lasts. `PostgresStandby` watches the lock and these
signs for a process that waits to become the writer, and ends the connections of a writer that gives none.

`PostgresReader` is for a process that only reads a ledger which another process writes: its transactions are read-only,
and a database role that may only SELECT is enough. Whether somebody holds the lock is in `pg_locks`, which every role
may read.

Passwords come only from a file (libpq's `passfile`); a local server may authenticate the node by its user. Every
connection must reach the server that holds the lock, and commits durably whatever the defaults of the server are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from select import POLLIN, poll
from typing import Any, Final

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Engine, create_engine

from comity.content.secrets import read_secret
from comity.ledger.database import Look, WriterLock, WriterSeen, ledger_locked, lock_lost, replaced
from comity.ledger.page_check import ExaminedPages
from comity.trust.errors import Malformed, Refused, Unavailable
from comity.trust.frozen import frozen

KEY: Final = int.from_bytes(b"comity\0\1", "big", signed=True)

BEAT_SECONDS: Final = 5
"""Seconds between two signs of life of a writer."""
FIRST_SIGN_SECONDS: Final = 0.2
LOCK_SECONDS: Final = 10
"""Seconds for which a new writer waits for the lock. The server needs milliseconds to see that a process has ended,
seconds under load."""

_log: Final = structlog.get_logger("comity.ledger")


class AdvisoryLock:
    """Holds the lock with `connection`, and owns that connection.

    Raises Conflict(code="LEDGER-LOCKED") if another connection still has the lock after `LOCK_SECONDS`.
    """

    def __init__(self, connection: psycopg.Connection, conninfo: str) -> None:
        self._connection = connection
        self._end_reason = self._last_notice = ""
        """Why the lock is no longer held, and the last notice of the server."""
        self._check_lock = threading.Lock()
        self._poll = poll()
        self._poll.register(connection.fileno(), POLLIN)
        connection.add_notice_handler(self._store_notice)
        if not connection.execute("SELECT pg_try_advisory_lock(%s)", (KEY,)).fetchall()[0][0]:
            self._wait()
        self._signs = _SignsOfLife(conninfo)

    def _wait(self) -> None:
        """The server may still end the connection of a writer that has just stopped."""
        _log.warning("waiting for the lock of the ledger: another process has it", seconds=LOCK_SECONDS)
        try:
            self._connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{LOCK_SECONDS}s",))
            self._connection.execute("SELECT pg_advisory_lock(%s)", (KEY,))
        except psycopg.errors.LockNotAvailable as error:
            self._connection.close()
            raise ledger_locked("stop the node that uses this database, or wait until that node ends") from error

    def require(self) -> None:
        with self._check_lock:
            if not self._end_reason:
                self._check_connection()
            if self._end_reason:
                raise lock_lost(f"the connection that held the lock has ended: {self._end_reason}")

    def release(self) -> None:
        """Tell the server, which otherwise releases the lock only when it notices the end of the connection."""
        with self._check_lock:
            self._signs.end()
            held = not self._end_reason
            self._end_reason = self._end_reason or "the lock was released"
            if held:
                with suppress(psycopg.Error):  # the connection has ended, and the lock with it
                    self._connection.execute("SELECT pg_advisory_unlock(%s)", (KEY,))
            self._connection.close()

    def _check_connection(self) -> None:
        """Read what the server sent. No query runs on this connection, so the server sends notices or closes it."""
        try:
            while self._poll.poll(0):
                self._connection.pgconn.consume_input()
                self._connection.pgconn.notifies()  # libpq parses the input and calls the notice handler
        except psycopg.OperationalError as error:
            self._end_reason = self._last_notice or " ".join(str(error).split())

    def _store_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        self._last_notice = notice.message_primary or ""


CONNECTIONS: Final = 16
"""Connections of the pool; those that hold the lock and give signs of life are extra."""
TIMEOUT: Final = 10
"""Timeout, in seconds, for a connection or for the locks of another transaction."""

READER_SECONDS: Final = 60
"""Seconds for which a reader may run one query, or hold a snapshot without a query: one that hangs must not keep the
server from removing what the writer replaced."""

_SECRETS: Final = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})
_DEFAULTS: Final = {
    "application_name": "comity",
    "connect_timeout": TIMEOUT,
    "target_session_attrs": "read-write",
    # A failed network is detected within 30 s.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
_READER_DEFAULTS: Final = {**_DEFAULTS, "application_name": "comity front end", "target_session_attrs": "primary"}
"""A role whose sessions are read-only by default does not count as "read-write" for libpq."""
_STANDBY_DEFAULTS: Final = {**_DEFAULTS, "application_name": "comity standby", "options": "-c statement_timeout=10s"}
_BRIEF: Final = {"options": "-c statement_timeout=5s -c lock_timeout=5s -c synchronous_commit=off"}
"""Of the connection for signs of life: one that is late, or lost in a crash, is none."""
_FORCED: Final = {
    "client_encoding": "UTF8",
    "password": "",  # overrides PGPASSWORD and service files, so libpq reads only the password file
}
_SESSION_SETTINGS: Final = f"""
SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit')
           WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false),
       set_config('lock_timeout', '{TIMEOUT}s', false),
       set_config('idle_session_timeout', '0', false),
       set_config('tcp_keepalives_idle', '10', false),
       set_config('tcp_keepalives_interval', '5', false),
       set_config('tcp_keepalives_count', '3', false)
"""
_READER_SETTINGS: Final = f"""
SELECT set_config('default_transaction_read_only', 'on', false),
       set_config('statement_timeout', '{READER_SECONDS}s', false),
       set_config('idle_in_transaction_session_timeout', '{READER_SECONDS}s', false)
"""
_SERVER_QUERY: Final = """
SELECT current_setting('fsync'), current_setting('server_encoding'), pg_backend_pid(), concat_ws(':',
           (SELECT system_identifier FROM pg_control_system()),
           substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8),
           (SELECT oid FROM pg_database WHERE datname = current_database()))
"""
_HOLDER: Final = f"""
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid::bigint = {KEY >> 32 & 0xFFFF_FFFF} AND objid::bigint = {KEY & 0xFFFF_FFFF}
"""
_END_WRITER: Final = f"""
SELECT pg_terminate_backend(other.pid) FROM pg_stat_activity other, pg_stat_activity holder
WHERE holder.pid IN ({_HOLDER}) AND other.datname = holder.datname AND other.usename = holder.usename
    AND other.application_name = holder.application_name AND other.pid <> pg_backend_pid()
"""
"""All connections of the holder of the lock: those with its user and application name."""
_NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_BEAT: Final = f"""
INSERT INTO writer_heartbeat VALUES (1, {_NOW}) ON CONFLICT (id) DO UPDATE SET at = excluded.at
"""
_SILENT: Final = f"SELECT ({_NOW} - at) / 1000.0 FROM writer_heartbeat"
_LOOK_QUERY: Final = """
SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint, split_part(pg_current_snapshot()::text, ':', 3),
       'logs'::regclass::oid, (SELECT version_num FROM alembic_version)
"""
"""The transactions that a snapshot shows, as in `_Shown`; the table of logs; the revision of the tables."""
_NEWEST_SIGN: Final = "SELECT xmin::text::bigint FROM writer_heartbeat"


class PostgresDatabase:
    """The database that a libpq connection string or URL names.

    Args:
        password_file: in libpq's format, `host:port:database:user:password`, mode 0600; None if no password is needed.

    Raises Malformed for an invalid string, Refused for a string with a secret, and the errors of `read_secret`.
    """

    def __init__(self, conninfo: str, password_file: Path | None) -> None:
        self._conninfo = _parse(conninfo, password_file)
        self._server = ""
        """The cluster, timeline and database of the lock."""

    def lock(self) -> AdvisoryLock:
        try:
            connection = psycopg.connect(self._conninfo, autocommit=True)
        except psycopg.OperationalError as error:
            raise _cannot_connect(error) from error
        try:
            self._server = _configure_session(connection)
            return AdvisoryLock(connection, self._conninfo)
        except psycopg.Error as error:
            connection.close()
            raise _failed("PostgreSQL does not serve a ledger", str(error)) from error
        except BaseException:
            connection.close()
            raise

    def examine(self, lock: WriterLock, *, all_pages: bool) -> ExaminedPages:
        """The server has checksums of its own."""
        return ExaminedPages()

    def pages(self) -> None:
        """PostgreSQL has checksums of its pages (`initdb --data-checksums`)."""

    def engine(self) -> Engine:
        return _make_engine(self._connect)

    def identity(self) -> str:
        """Returns the cluster, timeline, database and table. The value changes when a backup is restored or a standby
        takes over."""
        try:
            with self._connect() as connection:
                ((table,),) = connection.execute("SELECT 'logs'::regclass::oid").fetchall()
        except psycopg.Error as error:
            raise _failed("PostgreSQL does not serve a ledger", str(error)) from error
        return f"{self._server}:{table}"

    def _connect(self) -> psycopg.Connection:
        connection = psycopg.connect(self._conninfo)
        try:
            server = _configure_session(connection)
            connection.commit()
            if server != self._server:
                why = "the lock is at another server: a standby took over, or an address changed"
                raise _failed("connected to another PostgreSQL server", why)
        except BaseException:
            connection.close()
            raise
        return connection


class _SignsOfLife:
    """Stores a sign of life every `BEAT_SECONDS` until `end`, in a thread and by a connection of its own: no write
    waits for it, and it waits for no write and no migration. One that fails is logged, and tried again."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = make_conninfo(conninfo, **_BRIEF)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="signs of life", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join(1)  # it may wait for a server that does not answer; it holds nothing

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with closing(psycopg.connect(self._conninfo, autocommit=True)) as connection:
                    self._give(connection)
            except psycopg.Error as error:
                _log.warning("a sign of life was not stored", why=" ".join(str(error).split()))
            self._ended.wait(BEAT_SECONDS)

    def _give(self, connection: psycopg.Connection) -> None:
        while not _has_signs(connection):  # the first migration has not made the table yet
            if self._ended.wait(FIRST_SIGN_SECONDS):
                return
        while True:
            connection.execute(_BEAT)
            if self._ended.wait(BEAT_SECONDS):
                return


def _has_signs(connection: psycopg.Connection) -> bool:
    return connection.execute("SELECT to_regclass('writer_heartbeat')").fetchone() != (None,)


def _newest_sign(connection: psycopg.Connection) -> int | None:
    """The number of the transaction of the newest sign of life, in 32 bits."""
    found = connection.execute(_NEWEST_SIGN).fetchone() if _has_signs(connection) else None
    return None if found is None else int(found[0])


class PostgresStandby:
    """The same database for a process that waits to become its writer. It holds no connection between two looks.
    Arguments and errors as for `PostgresDatabase`."""

    def __init__(self, conninfo: str, password_file: Path | None) -> None:
        self._conninfo = _parse(conninfo, password_file, _STANDBY_DEFAULTS)

    def look(self) -> WriterSeen:
        """Raises Unavailable."""
        with self._connected() as connection:
            return _seen(connection)

    def end_writer(self) -> int:
        """End all connections of the process that holds the lock. Whatever it had not committed is undone, and if it
        comes back it ends by itself. Returns their number. Raises Unavailable."""
        with self._connected() as connection:
            return sum(bool(ended) for (ended,) in connection.execute(_END_WRITER).fetchall())

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection]:
        try:
            with closing(psycopg.connect(self._conninfo, autocommit=True)) as connection:
                yield connection
        except psycopg.Error as error:
            raise _cannot_connect(error) from error


def _seen(connection: psycopg.Connection) -> WriterSeen:
    held = bool(connection.execute(_HOLDER).fetchall())
    if not _has_signs(connection):
        return WriterSeen(held, None)
    found = connection.execute(_SILENT).fetchone()
    return WriterSeen(held, None if found is None else float(found[0]))


@frozen
class _Shown:
    """The transactions that a snapshot shows: those with numbers below `following` that are not in `running`. Equal
    ones show the same rows: PostgreSQL decides by nothing else which changes a transaction sees."""

    following: int
    running: str

    def adds_only(self, transaction: int | None, before: _Shown) -> bool:
        """Whether this shows what `before` showed and one transaction, whose number is known in 32 bits."""
        one_more = _Shown(before.following + 1, before.running)
        return self == one_more and transaction == before.following & 0xFFFF_FFFF


class PostgresReader:
    """The same database for a process that only reads it. Arguments and errors as for `PostgresDatabase`."""

    def __init__(self, conninfo: str, password_file: Path | None) -> None:
        self._conninfo = _parse(conninfo, password_file, _READER_DEFAULTS)
        self._server = ""
        """The cluster, timeline and database of the first connection."""
        self._shown = _Shown(0, "")
        self._visible = ""

    def engine(self) -> Engine:
        return _make_engine(self._connect)

    def identity(self) -> str:
        return self.look().identity

    def look(self) -> Look:
        """Look once, by a connection of its own: an old one may lead to a server that is no longer at the address."""
        try:
            with self._connect() as connection:
                ((following, running, table, revision),) = connection.execute(_LOOK_QUERY).fetchall()
                visible = self._name(_Shown(following, running), _newest_sign(connection))
                writer = _seen(connection).runs
        except psycopg.Error as error:
            raise _failed("PostgreSQL does not serve a ledger", str(error)) from error
        return Look(visible, f"{self._server}:{table}", revision, writer)

    def _name(self, shown: _Shown, sign: int | None) -> str:
        """The name of what is shown: the one before, if only a sign of life came since. Else the front end would
        forget every few seconds what it keeps of a ledger that did not change."""
        if not shown.adds_only(sign, self._shown):
            self._visible = f"{shown.following}:{shown.running}"
        self._shown = shown
        return self._visible

    def _connect(self) -> psycopg.Connection:
        """A connection whose transactions are read-only. Raises Unavailable(code="LEDGER-FAILED"), and Unavailable(
        code="LEDGER-REPLACED") if it leads to another server than the first one."""
        try:
            connection = psycopg.connect(self._conninfo)
        except psycopg.OperationalError as error:
            raise _cannot_connect(error) from error
        try:
            server = _configure_session(connection)
            connection.execute(_READER_SETTINGS)
            connection.commit()
            if server != (self._server or server):
                raise replaced("a standby took over, or the address leads to another database")
            self._server = server
        except BaseException:
            connection.close()
            raise
        return connection


def _make_engine(connect: Callable[[], psycopg.Connection]) -> Engine:
    return create_engine(
        "postgresql+psycopg://",
        creator=connect,
        isolation_level="REPEATABLE READ",
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=TIMEOUT,
        pool_pre_ping=True,
    )


def _configure_session(connection: psycopg.Connection[Any]) -> str:
    """Set durable commits for this session. Raises Unavailable if impossible. Returns the server and database."""
    connection.execute(_SESSION_SETTINGS)
    ((fsync, encoding, process, server),) = connection.execute(_SERVER_QUERY).fetchall()
    if fsync != "on":
        raise _failed("PostgreSQL cannot store the ledger durably", "fsync is off", "set fsync = on")
    if encoding != "UTF8":
        hint = "createdb --encoding=UTF8 --template=template0 NAME"
        raise _failed("PostgreSQL cannot store the ledger", f"the encoding of this database is {encoding}", hint)
    if process != connection.pgconn.backend_pid:
        why = "a proxy shares the connections to PostgreSQL, but the ledger's lock needs a connection of its own"
        raise _failed("not a direct connection to PostgreSQL", why, "connect to the server, not to a connection pooler")
    return str(server)


def _parse(conninfo: str, password_file: Path | None, defaults: Mapping[str, Any] = _DEFAULTS) -> str:
    try:
        given: dict[str, Any] = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:  # its text is not shown, because it may contain secrets
        why = "expected a URL or connection string of PostgreSQL"
        hint = 'such as database = "postgresql:///comity?host=/var/run/postgresql"'
        raise Malformed("[storage] database is not usable", why=why, hint=hint, code="CONFIG") from None
    if secret := _SECRETS & given.keys():
        raise Refused(
            "[storage] database contains a secret",
            why=f"it contains {min(secret)}, which logs, backups and process lists may show",
            hint="move it to a file of mode 0600, and name that file in [storage] password_file",
            code="SECRET-EXPOSED",
        )
    file = password_file or given.get("passfile")
    if file is not None:
        read_secret(Path(str(file)))
        given["passfile"] = str(file)
    return make_conninfo(**{**defaults, **given, **_FORCED})


def _cannot_connect(error: psycopg.Error) -> Unavailable:
    hint = "check [storage] database in node.toml, and the log of the server"
    return _failed("cannot connect to PostgreSQL", str(error), hint)


def _failed(what: str, why: str, hint: str = "") -> Unavailable:
    return Unavailable(what, why=why, hint=hint, code="LEDGER-FAILED")
