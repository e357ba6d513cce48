"""A ledger in PostgreSQL: how it is reached, who may write, and what the server must support."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from comity.ledger import schema
from comity.ledger.database import Database, WriterSeen, migrate
from comity.ledger.entry_index import EntryQuery
from comity.ledger.ledger import Ledger
from comity.ledger.postgres import KEY, AdvisoryLock, PostgresDatabase, PostgresReader, PostgresStandby
from comity.node.ledger_mark import FileMark, RowMark
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Refused, Unavailable
from sqlalchemy import text
from support.logs import LogKeys, statement_line, statement_lines
from support.postgres import KEYED, PASSWORD, READER, SHARED, Postgres
from support.tables import PORTABLE
from support.waiting import PATIENCE

pytestmark = pytest.mark.postgres

LOG = LogKeys.generate("own.example/log")
SECRET = "hunter2"
SOCKET = ".s.PGSQL.5432"
PROCESS = b"K\0\0\0\x0c"
"""The type of the message in which a server tells the process id of its backend."""


@pytest.fixture(scope="module")
def empty(postgres: Postgres) -> str:
    """A database with all tables and nothing in them, to be copied."""
    name = postgres.database()
    migrated(postgres.url(name))
    return name


@pytest.fixture
def name(postgres: Postgres) -> str:
    """The database that tests share, a thousand files, with nothing in its tables."""
    postgres.emptied()
    return SHARED


@pytest.fixture
def ledger(postgres: Postgres, name: str, tmp_path: Path) -> Iterator[Ledger]:
    with closing(opened(postgres, name, tmp_path)) as ledger:
        ledger.logs.create(LOG.origin, LOG.vkey, own=True)
        yield ledger


def opened(postgres: Postgres, name: str, folder: Path) -> Ledger:
    return Ledger.open(folder, lambda: 1_000, backing=PostgresDatabase(postgres.url(name), None))


def migrated(url: str) -> None:
    with database(url) as made:
        migrate(made)
        with made.reading() as connection:
            assert compare_metadata(MigrationContext.configure(connection, opts=PORTABLE), schema.metadata) == []


@contextmanager
def database(url: str) -> Iterator[Database]:
    """The transactions alone, under the lock."""
    backing = PostgresDatabase(url, None)
    lock = backing.lock()
    with closing(Database(backing.engine(), lock)) as made:
        yield made
    lock.release()


def refusal_of(work: Callable[[], object], kind: type[ComityError]) -> ComityError:
    with pytest.raises(kind) as refusal:
        work()
    return refusal.value


def test_opening_a_locked_ledger_is_refused(
    postgres: Postgres, name: str, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comity.ledger.postgres.LOCK_SECONDS", 1)
    assert refusal_of(lambda: opened(postgres, name, tmp_path / "other"), Conflict).code == "LEDGER-LOCKED"
    ledger.close()
    opened(postgres, name, tmp_path / "other").close()


def test_a_new_writer_waits_for_a_lock_that_is_released_soon(
    postgres: Postgres, name: str, ledger: Ledger, tmp_path: Path
) -> None:
    waiting = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND wait_event = 'advisory'"
    with ThreadPoolExecutor() as pool:
        second = pool.submit(opened, postgres, name, tmp_path / "other")
        while postgres.admin(waiting) != [(1,)]:
            assert not second.done(), second.result()
        ledger.close()
        second.result().close()


def test_a_closed_ledger_is_free_before_its_server_sees_the_end_of_the_connection(
    postgres: Postgres, name: str, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comity.ledger.postgres.LOCK_SECONDS", 1)
    connection = ledger._lock._connection  # type: ignore[attr-defined]
    with closing(connection), monkeypatch.context() as context:
        context.setattr(connection, "close", lambda: None)
        ledger.close()
        opened(postgres, name, tmp_path / "other").close()


def wait_for_the_end(ledger: Ledger) -> None:
    """Return once the end of the lock's connection has reached this process."""
    watched = select.poll()
    watched.register(ledger._lock._connection.fileno(), select.POLLRDHUP)  # type: ignore[attr-defined]  # it is connected
    assert watched.poll(20_000)


def test_without_its_lock_a_ledger_refuses_writes_with_the_reason(
    postgres: Postgres, name: str, ledger: Ledger
) -> None:
    ledger.logs.append(LOG.origin, [statement_line(0)])
    assert postgres.end(name, "pg_try_advisory_lock") == 1
    wait_for_the_end(ledger)
    for work in (ledger.require_lock, lambda: ledger.logs.append(LOG.origin, [statement_line(1)])):
        refusal = refusal_of(work, Unavailable)
        assert refusal.code == "LEDGER-LOCK-LOST"
        assert "terminating connection due to administrator command" in refusal.why
    assert ledger.logs.get(LOG.origin).size == 1


def test_a_lock_lost_during_a_write_undoes_the_write(postgres: Postgres, name: str, ledger: Ledger) -> None:
    def lines(_: object) -> list[bytes]:
        postgres.end(name, "pg_try_advisory_lock")
        wait_for_the_end(ledger)
        return [statement_line(0)]

    assert refusal_of(lambda: ledger.logs.compose(LOG.origin, lines), Unavailable).code == "LEDGER-LOCK-LOST"
    assert ledger.logs.get(LOG.origin).size == 0


def test_a_writer_that_lost_its_lock_unnoticed_is_excluded(
    postgres: Postgres, name: str, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(ledger._lock), "_check_connection", lambda self: None)
    postgres.end(name, "pg_try_advisory_lock")
    with closing(opened(postgres, name, tmp_path)) as second:
        append = lambda: ledger.logs.append(LOG.origin, [statement_line(0)])  # noqa: E731
        assert refusal_of(append, Unavailable).code == "LEDGER-LOCK-LOST"
        assert second.logs.append(LOG.origin, [statement_line(0)]) == [0]


def test_a_new_writer_waits_for_the_running_write(
    postgres: Postgres, name: str, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(ledger._lock), "_check_connection", lambda self: None)
    seen: list[int] = []

    def take_over() -> None:
        with closing(opened(postgres, name, tmp_path)) as second:
            seen.append(second.logs.get(LOG.origin).size)

    taking = threading.Thread(target=take_over)

    def lines(_: object) -> list[bytes]:
        postgres.end(name, "pg_try_advisory_lock")
        taking.start()
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while postgres.admin(waits) == [(0,)]:
            assert taking.is_alive()
        return statement_lines(0, 3)

    ledger.logs.compose(LOG.origin, lines)
    taking.join()
    assert seen == [3]


def test_a_connection_to_another_server_than_that_of_the_lock_is_not_used(
    postgres: Postgres, empty: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger._database._engine.dispose()
    pool = ledger._database._engine.pool
    backing = PostgresDatabase(postgres.url(empty), None)
    backing._server = "the server that holds the lock"
    monkeypatch.setattr(pool, "_creator", backing._connect)
    refusal = refusal_of(lambda: ledger.logs.append(LOG.origin, []), Unavailable)
    assert refusal.what == "connected to another PostgreSQL server"


@pytest.fixture(scope="module")
def configured(postgres: Postgres, empty: str) -> str:
    """A database whose defaults tests set."""
    return postgres.database(template=empty)


@pytest.mark.parametrize("given", ["off", "local", "remote_write", "on", "remote_apply"])
def test_commits_are_durable_with_any_default_of_the_server(postgres: Postgres, configured: str, given: str) -> None:
    name = configured
    postgres.admin(f"ALTER DATABASE {name} SET synchronous_commit = {given}")
    with database(postgres.url(name)) as made, made.writing("test") as connection:
        expected = "remote_apply" if given == "remote_apply" else "on"
        assert connection.scalar(text("SHOW synchronous_commit")) == expected
        assert connection.scalar(text("SHOW transaction_isolation")) == "repeatable read"


def test_a_database_that_does_not_hold_all_text_is_refused(postgres: Postgres) -> None:
    postgres.admin("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' OWNER ledger")
    refusal = refusal_of(PostgresDatabase(postgres.url("latin"), None).lock, Unavailable)
    assert (refusal.code, "LATIN1" in refusal.why) == ("LEDGER-FAILED", True)


def test_a_server_that_does_not_wait_for_its_disk_is_refused(postgres: Postgres, empty: str) -> None:
    backing = PostgresDatabase(postgres.url(empty), None)
    try:
        postgres.configure("fsync", "off")
        refusal = refusal_of(backing.lock, Unavailable)
    finally:
        postgres.configure("fsync", "on")
    assert (refusal.code, "fsync is off" in refusal.why) == ("LEDGER-FAILED", True)


def test_a_connection_pooler_is_refused(postgres: Postgres, empty: str, tmp_path: Path) -> None:
    with another_process_named(postgres.folder / SOCKET, tmp_path / SOCKET):
        url = Postgres(tmp_path).url(empty)
        refusal = refusal_of(PostgresDatabase(url, None).lock, Unavailable)
    assert refusal.what == "not a direct connection to PostgreSQL"


@contextmanager
def another_process_named(server: Path, front: Path) -> Iterator[None]:
    """Forward one connection to `server`, but name the id of another server process, as a pooler does."""

    def copy(source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(65_536):
            at = data.find(PROCESS)
            target.sendall(data if at < 0 else data[: at + 5] + bytes(4) + data[at + 9 :])
        target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with listener.accept()[0] as client, socket.socket(socket.AF_UNIX) as behind:
            behind.connect(str(server))
            answering = threading.Thread(target=copy, args=(behind, client))
            answering.start()
            copy(client, behind)
            answering.join()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(front))
        listener.listen()
        serving = threading.Thread(target=serve)
        serving.start()
        yield
        serving.join()


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    backing = PostgresDatabase(f"postgresql:///x?host={tmp_path}", None)
    for work in (backing.lock, backing.identity):
        refusal = refusal_of(work, Unavailable)
        assert (refusal.code, str(tmp_path) in refusal.why) == ("LEDGER-FAILED", True)


def test_a_restored_database_is_another_one(postgres: Postgres, empty: str, tmp_path: Path) -> None:
    name = postgres.database(template=empty)

    def mark(database: str) -> FileMark:
        with closing(opened(postgres, database, tmp_path)) as ledger:
            return FileMark(tmp_path / "mark", ledger.identity)

    mark(name).write()
    assert not mark(name).mismatches(begun=True)
    assert mark(postgres.database(template=name)).mismatches(begun=True)
    postgres.admin(
        "BEGIN; CREATE TABLE again (LIKE logs); DROP TABLE logs CASCADE; "
        "ALTER TABLE again RENAME TO logs; ALTER TABLE logs OWNER TO ledger; COMMIT",
        name,
    )
    assert mark(name).mismatches(begun=True)


def test_a_text_that_postgresql_cannot_store_is_not_found(ledger: Ledger) -> None:
    for work in (lambda: ledger.logs.get("a\0log"), lambda: ledger.index.find(EntryQuery(predicate="a\0name"))):
        refusal_of(work, Malformed)
    refusal_of(lambda: ledger.logs.get("another/log"), NotFound)


def test_a_server_that_loses_a_connection_loses_no_reader(postgres: Postgres, name: str, ledger: Ledger) -> None:
    assert ledger.logs.get(LOG.origin).size == 0
    assert postgres.end(name, "ROLLBACK") >= 1
    assert ledger.logs.get(LOG.origin).size == 0


@pytest.mark.parametrize(
    "conninfo",
    [
        f"postgresql://me:{SECRET}@db.example/comity",
        f"postgresql://db.example/comity?password={SECRET}",
        f"host=db.example password={SECRET}",
        f"postgresql://db.example/comity?sslpassword={SECRET}",
    ],
)
def test_a_password_in_the_configuration_is_refused_and_not_repeated(conninfo: str) -> None:
    refusal = refusal_of(lambda: PostgresDatabase(conninfo, None), Refused)
    assert refusal.code == "SECRET-EXPOSED"
    assert "password_file" in refusal.hint
    assert SECRET not in f"{refusal} {refusal.hint} {refusal.__cause__}"


def test_an_invalid_connection_string_is_not_repeated_in_the_error() -> None:
    refusal = refusal_of(lambda: PostgresDatabase(f"postgresql://me:{SECRET}@[::1/comity", None), Malformed)
    assert refusal.code == "CONFIG"
    assert SECRET not in f"{refusal} {refusal.hint} {refusal.__cause__}"


def locked(database: PostgresDatabase) -> AdvisoryLock:
    """The lock, once the server has ended the session that held it before."""
    for _ in range(600):
        with suppress(Conflict):
            return database.lock()
        time.sleep(0.05)
    return database.lock()


def test_a_password_is_read_from_its_file_only(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.url(postgres.database(owner=KEYED), KEYED)
    service = tmp_path / "services"
    service.write_text(f"[node]\npassword={PASSWORD}\n")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    for tried in (url, f"{url}&service=node"):
        refusal_of(PostgresDatabase(tried, None).lock, Unavailable)
    file = tmp_path / "pgpass"
    file.write_text(f"*:*:*:{KEYED}:{PASSWORD}\n")
    file.chmod(0o644)
    for given, named in ((url, file), (f"{url}&passfile={file}", None)):
        assert refusal_of(lambda: PostgresDatabase(given, named), Refused).code == "SECRET-EXPOSED"  # noqa: B023
    file.chmod(0o600)
    for given, named in ((url, file), (f"{url}&passfile={file}", None)):
        locked(PostgresDatabase(given, named)).release()


def test_a_local_server_knows_the_node_by_its_user(postgres: Postgres, empty: str) -> None:
    url = postgres.url(empty).replace("ledger@", "", 1)
    lock = PostgresDatabase(url, None).lock()
    lock.require()
    lock.release()


def test_the_lock_is_one_that_an_administrator_finds(postgres: Postgres, ledger: Ledger) -> None:
    high, low = divmod(KEY, 1 << 32)
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    assert postgres.admin(f"{held} AND classid = {high} AND objid = {low}") == [(1,)]


def standby(postgres: Postgres, name: str) -> PostgresStandby:
    return PostgresStandby(postgres.url(name), None)


def seen(database: PostgresStandby, wanted: Callable[[WriterSeen], bool]) -> WriterSeen:
    """What the standby sees once it is as wanted."""
    deadline = time.monotonic() + PATIENCE
    while not wanted(found := database.look()):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def test_a_standby_sees_the_lock_and_the_signs_of_life_of_a_writer(
    postgres: Postgres, name: str, tmp_path: Path
) -> None:
    watching = standby(postgres, name)
    assert not watching.look().held
    with closing(opened(postgres, name, tmp_path)):
        assert seen(watching, lambda found: found.silent is not None).runs
    assert not watching.look().runs


def test_a_writer_that_is_silent_does_not_count_as_running(postgres: Postgres, name: str, ledger: Ledger) -> None:
    watching = standby(postgres, name)
    seen(watching, lambda found: found.silent is not None)
    postgres.admin("UPDATE writer_heartbeat SET at = at - 60000", name)
    found = watching.look()
    assert (found.held, found.runs) == (True, False)
    postgres.allow_reading(name)
    assert not PostgresReader(postgres.url(name, READER), None).look().writer


def test_an_ended_writer_loses_its_lock_and_writes_nothing_more(
    postgres: Postgres, name: str, ledger: Ledger, tmp_path: Path
) -> None:
    watching = standby(postgres, name)
    assert watching.end_writer() >= 1
    seen(watching, lambda found: not found.held)
    with pytest.raises(Unavailable) as refused:
        ledger.logs.append(LOG.vkey, [statement_line(1)])
    assert refused.value.code == "LEDGER-LOCK-LOST"
    with closing(opened(postgres, name, tmp_path / "second")) as second:
        second.logs.append(LOG.vkey, [statement_line(1)])
    assert watching.end_writer() == 0


def test_the_mark_of_a_database_is_in_it_and_one_beside_it_counts_before(
    postgres: Postgres, name: str, ledger: Ledger, tmp_path: Path
) -> None:
    mark = RowMark(ledger, "ledger.inode", postgres.url(name), tmp_path / "ledger.inode")
    assert mark.mismatches(begun=True) and not mark.mismatches(begun=False)
    mark.file.write_text(f"{ledger.identity}\n")
    assert not mark.mismatches(begun=True), "written by an earlier version"
    mark.file.write_text("another\n")
    assert mark.mismatches(begun=True)
    mark.write()
    mark.file.unlink()
    assert not mark.mismatches(begun=True)
    ledger.marks.put("ledger.inode", "another database")
    assert mark.mismatches(begun=True)
    accept = mark.reset_command()
    assert postgres.url(name) in accept and ledger.identity in accept
    for statement in accept.partition(" -c ")[2].strip("'").replace("'\"'\"'", "'").split("; "):
        postgres.admin(statement, name)
    assert not mark.mismatches(begun=True)
