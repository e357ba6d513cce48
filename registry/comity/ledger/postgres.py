"""The lock of a ledger in PostgreSQL: an advisory lock, held by a connection that does nothing else.

The server gives it to one connection of a database at a time, and frees it when that connection ends, however it ends:
with the process, with the network, or by an administrator's word. The operating system tells this side of the end; it
is looked for before each write and each commit, and every second in between. Between such a look and the commit lies a
moment in which another process may have got the lock: `fence` closes it.


A ledger in PostgreSQL, for those who run one: how it is reached, and what is demanded of it.

Passwords come from a file (libpq's `passfile`) and from nowhere else; a local server may know the node by its user.
Every connection must lead to the server at which the lock is held, and commits durably, whatever the server's defaults.
"""

from __future__ import annotations

import threading
from pathlib import Path
from select import POLLIN, poll
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Engine, create_engine

from comity.content.secrets import read_secret
from comity.ledger.database import lost, taken
from comity.trust.errors import Malformed, Refused, Unavailable

KEY: Final = int.from_bytes(b"comity\0\1", "big", signed=True)


class AdvisoryLock:
    """Holds the lock by `connection`, which is its own from now on. Raises Conflict(code="LEDGER-LOCKED")."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._ended = self._said = ""
        """Why it is held no longer, and the last that the server said."""
        self._looking = threading.Lock()
        self._poll = poll()
        self._poll.register(connection.fileno(), POLLIN)
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


CONNECTIONS: Final = 16
"""Beside the one that holds the lock."""
PATIENCE: Final = 10
"""Seconds to wait for a connection, or for another transaction's locks."""

_SECRETS: Final = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})
_DEFAULTS: Final = {
    "application_name": "comity",
    "connect_timeout": PATIENCE,
    "target_session_attrs": "read-write",
    # A dead network is noticed within half a minute.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
_FORCED: Final = {
    "client_encoding": "UTF8",
    "password": "",  # neither PGPASSWORD nor a service file: libpq then looks into the password file alone
}
_SETTLE: Final = f"""
SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit')
           WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false),
       set_config('lock_timeout', '{PATIENCE}s', false),
       set_config('idle_session_timeout', '0', false),
       set_config('tcp_keepalives_idle', '10', false),
       set_config('tcp_keepalives_interval', '5', false),
       set_config('tcp_keepalives_count', '3', false)
"""
_LOOK: Final = """
SELECT current_setting('fsync'), current_setting('server_encoding'), pg_backend_pid(), concat_ws(':',
           (SELECT system_identifier FROM pg_control_system()),
           substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8),
           (SELECT oid FROM pg_database WHERE datname = current_database()))
"""


class PostgresDatabase:
    """The database that a libpq connection string or URL names.

    Args:
        password_file: in libpq's format, `host:port:database:user:password`, mode 0600; None where none is needed.

    Raises Malformed and Refused for a string that is none or holds a secret, and what `read_secret` raises.
    """

    def __init__(self, conninfo: str, password_file: Path | None) -> None:
        self._conninfo = _parse(conninfo, password_file)
        self._server = ""
        """Which cluster, timeline and database the lock is held in."""

    def lock(self) -> AdvisoryLock:
        try:
            connection = psycopg.connect(self._conninfo, autocommit=True)
        except psycopg.OperationalError as error:
            hint = "look at [storage] database in node.toml, and at the server's log"
            raise _failed("PostgreSQL was not reached", str(error), hint) from error
        try:
            self._server = _settle_postgres(connection)
            return AdvisoryLock(connection)
        except psycopg.Error as error:
            connection.close()
            raise _failed("PostgreSQL does not serve a ledger", str(error)) from error
        except BaseException:
            connection.close()
            raise

    def engine(self) -> Engine:
        return create_engine(
            "postgresql+psycopg://",
            creator=self._connect,
            isolation_level="REPEATABLE READ",
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=PATIENCE,
            pool_pre_ping=True,
        )

    def identity(self) -> str:
        """Which cluster, timeline, database and table it is: another one wherever a backup was restored or a standby
        took over."""
        try:
            with self._connect() as connection:
                ((table,),) = connection.execute("SELECT 'logs'::regclass::oid").fetchall()
        except psycopg.Error as error:
            raise _failed("PostgreSQL does not serve a ledger", str(error)) from error
        return f"{self._server}:{table}"

    def _connect(self) -> psycopg.Connection:
        connection = psycopg.connect(self._conninfo)
        try:
            server = _settle_postgres(connection)
            connection.commit()
            if server != self._server:
                why = "another one answers than the one that holds the lock: a standby took over, or an address moved"
                raise _failed("this is another PostgreSQL", why)
        except BaseException:
            connection.close()
            raise
        return connection


def _settle_postgres(connection: psycopg.Connection[Any]) -> str:
    """Have this session commit durably, and refuse a server that cannot; which server and database it is."""
    connection.execute(_SETTLE)
    ((fsync, encoding, process, server),) = connection.execute(_LOOK).fetchall()
    if fsync != "on":
        raise _failed("the ledger cannot be kept here", "this PostgreSQL runs with fsync off", "turn it on")
    if encoding != "UTF8":
        hint = "createdb --encoding=UTF8 --template=template0 NAME"
        raise _failed("the ledger cannot be kept here", f"the encoding of this database is {encoding}", hint)
    if process != connection.pgconn.backend_pid:
        why = "something between here and PostgreSQL shares its connections, and the ledger's lock is one connection's"
        raise _failed("this is not PostgreSQL itself", why, "name the server itself, not a connection pooler")
    return str(server)


def _parse(conninfo: str, password_file: Path | None) -> str:
    try:
        given: dict[str, Any] = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        why = "expected a URL or connection string of PostgreSQL"  # libpq's own words would quote it, secrets and all
        hint = 'such as database = "postgresql:///comity?host=/var/run/postgresql"'
        raise Malformed("[storage] database is not usable", why=why, hint=hint, code="CONFIG") from None
    if secret := _SECRETS & given.keys():
        raise Refused(
            "[storage] database holds a secret",
            why=f"a {min(secret)} stands in it, where logs, backups and process lists may show it",
            hint="take it out, and put it into a file of mode 0600 that [storage] password_file names",
            code="SECRET-EXPOSED",
        )
    file = password_file or given.get("passfile")
    if file is not None:
        read_secret(Path(str(file)))
        given["passfile"] = str(file)
    return make_conninfo(**{**_DEFAULTS, **given, **_FORCED})


def _failed(what: str, why: str, hint: str = "") -> Unavailable:
    return Unavailable(what, why=why, hint=hint, code="LEDGER-FAILED")
