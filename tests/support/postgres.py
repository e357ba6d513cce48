"""A real PostgreSQL server while a block lasts, on a Unix socket only, with a database for each caller.

It runs as a user without privileges, as PostgreSQL requires, and with all of its settings for durability. It begins no
transaction by itself: tests count those of others.
"""

from __future__ import annotations

import functools
import getpass
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from comity.ledger import name_search
from comity.ledger.schema import metadata
from support.ceph import run
from support.tools import missing, needs, running

if TYPE_CHECKING:
    import psycopg
    from comity.ledger.postgres import PostgresDatabase

UNLOCK: Final = "apt-get install --no-install-recommends postgresql"
ADMIN: Final = "postgres"
OWNER: Final = "ledger"
SHARED: Final = "shared"
KEYED: Final = "keyed"
"""A role that has to present `PASSWORD`; the owner need not."""
PASSWORD: Final = "not a secret"
READER: Final = "front_end"
"""A role that may read the owner's tables, and nothing else: see `Postgres.allow_reading`."""

HBA: Final = f"""\
local all {ADMIN} trust
local replication {ADMIN} trust
local all {OWNER} trust
local all {READER} trust
local all {KEYED} scram-sha-256
local all all     peer
"""

_numbers = count()

_TABLES: Final = [
    name_search.TABLE,
    *(table.name for table in reversed(metadata.sorted_tables) if table.name != "writer"),
]
_DELETE_ALL: Final = "; ".join(f"DELETE FROM {table}" for table in _TABLES).encode()


@dataclass(frozen=True)
class Postgres:
    """A running server; `folder` has its socket."""

    folder: Path

    def url(self, database: str, user: str = OWNER) -> str:
        return f"postgresql://{user}@/{database}?host={quote(str(self.folder), safe='')}"

    def database(self, *, template: str = "template1", owner: str = OWNER) -> str:
        """The name of a new database, a copy of `template`."""
        name = f"ledger_{next(_numbers)}"
        self.admin(f"CREATE DATABASE {name} OWNER {owner} TEMPLATE {template}")
        return name

    def admin(self, command: str, database: str = ADMIN) -> list[tuple[object, ...]]:
        """The server's answer to its administrator."""
        import psycopg

        with psycopg.connect(self.url(database, ADMIN), autocommit=True) as connection:
            found = connection.execute(command)
            return found.fetchall() if found.description else []

    def allow_reading(self, database: str) -> None:
        """Let `READER` read all tables of the owner in this database, as docs/operations/grow.md says."""
        self.admin(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER}", database)
        self.admin(
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} IN SCHEMA public GRANT SELECT ON TABLES TO {READER}", database
        )

    def emptied(self) -> PostgresDatabase:
        """One database that all tests use in turn, with all tables and nothing in them, once the first has
        made them.
        """
        from comity.ledger.postgres import PostgresDatabase

        if self._cleaner.execute("SELECT to_regclass('writer')").fetchone() != (None,):
            self._cleaner.execute(_DELETE_ALL, prepare=False)
        return PostgresDatabase(self.url(SHARED), None)

    @functools.cached_property
    def _cleaner(self) -> psycopg.Connection[tuple[object, ...]]:
        """A connection to the shared database: the server needs longer for another one than for deleting."""
        import psycopg

        self.admin(f"CREATE DATABASE {SHARED} OWNER {OWNER}")
        return psycopg.connect(self.url(SHARED, ADMIN), autocommit=True)

    def close(self) -> None:
        if "_cleaner" in vars(self):
            self._cleaner.close()

    def configure(self, setting: str, value: str) -> None:
        """Set a setting of the whole server."""
        self.admin(f"ALTER SYSTEM SET {setting} = {value}")
        self.admin("SELECT pg_reload_conf()")
        while self.admin(f"SHOW {setting}") != [(value,)]:
            time.sleep(0.02)

    def end(self, database: str, query: str) -> int:
        """End the connections to `database` whose last query contains `query`. Returns their number, once they are
        closed.
        """
        ended = self.admin(
            "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity"
            f" WHERE datname = '{database}' AND query LIKE '%{query}%' AND pid <> pg_backend_pid()"
        )
        return len(ended)

    def crash(self) -> None:
        """Kill one of its processes: it ends all others, and starts again from its log. Returns once it answers."""
        import psycopg

        with suppress(psycopg.OperationalError), psycopg.connect(self.url(ADMIN, ADMIN), autocommit=True) as one:
            os.kill(one.info.backend_pid, signal.SIGKILL)
            one.execute("SELECT 1")
        wait_until_it_answers(self)


@contextmanager
def start_postgres() -> Iterator[Postgres]:
    """Start a server. Skips where PostgreSQL is not installed."""
    programs = server_programs()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comity-pg-")))
        prefix = as_nobody_special(folder)
        data = folder / "data"
        initdb = ("--auth=trust", f"--username={ADMIN}", "--encoding=UTF8", "--locale=C", "--no-sync")
        run(*prefix, str(programs / "initdb"), *initdb, str(data))
        (data / "pg_hba.conf").write_text(HBA)
        settings = ("-c", "listen_addresses=", "-c", "autovacuum=off")
        command = (str(programs / "postgres"), "-D", str(data), "-k", str(folder), *settings)
        stack.enter_context(running([*prefix, *command], folder / "log", stop=signal.SIGQUIT))
        server = stack.enter_context(closing(Postgres(folder)))
        wait_until_it_answers(server)
        for role in (OWNER, READER, f"{KEYED} PASSWORD '{PASSWORD}'", f'"{getpass.getuser()}"'):
            server.admin(f"CREATE ROLE {role.partition(' ')[0]} LOGIN {role.partition(' ')[2]}")
        yield server


def server_programs() -> Path:
    """The folder of the server's programs in Debian, of the newest version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        missing(f"PostgreSQL is not installed; unlock: {UNLOCK}")
    return found[-1].parent


def as_nobody_special(folder: Path) -> tuple[str, ...]:
    """The prefix of a command that runs it without privileges; `folder` belongs to its user then."""
    if os.geteuid():
        return ()
    needs("setpriv", unlock="apt-get install util-linux")
    shutil.chown(folder, ADMIN, ADMIN)
    return ("setpriv", f"--reuid={ADMIN}", f"--regid={ADMIN}", "--clear-groups")


def wait_until_it_answers(server: Postgres) -> None:
    import psycopg

    for _ in range(200):
        try:
            server.admin("SELECT 1")
            return
        except psycopg.OperationalError:
            time.sleep(0.05)
    raise AssertionError((server.folder / "log").read_text()[-2000:])
