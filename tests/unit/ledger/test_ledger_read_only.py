"""A ledger in PostgreSQL that one process writes and others only read, with a role that may only SELECT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from comity.ledger.database import require_revision
from comity.ledger.ledger import Ledger, LedgerFollower
from comity.ledger.postgres import _BEAT, PostgresDatabase, PostgresReader
from comity.ledger.revisions import NEWEST
from comity.trust.errors import ComityError, Refused, Unavailable
from sqlalchemy import text
from support.logs import LogKeys, statement_lines
from support.postgres import READER, SHARED, Postgres

pytestmark = pytest.mark.postgres

LOG = LogKeys.generate("own.example/log")


@dataclass(frozen=True)
class Reading:
    """A ledger that a front end reads, and its notifications about the commits of others."""

    ledger: Ledger
    follower: LedgerFollower


@pytest.fixture
def name(postgres: Postgres, tmp_path: Path) -> str:
    """The database that tests share, with all tables and one log without entries, which the reader may read."""
    with closing(Ledger.open(tmp_path, lambda: 1_000, backing=postgres.emptied())) as ledger:
        ledger.logs.create(LOG.origin, LOG.vkey, own=True)
    postgres.allow_reading(SHARED)
    return SHARED


@pytest.fixture
def writer(postgres: Postgres, name: str, tmp_path: Path) -> Iterator[Ledger]:
    backing = PostgresDatabase(postgres.url(name), None)
    with closing(Ledger.open(tmp_path, lambda: 1_000, backing=backing)) as ledger:
        yield ledger


@pytest.fixture
def reading(postgres: Postgres, name: str) -> Iterator[Reading]:
    backing = PostgresReader(postgres.url(name, READER), None)
    with closing(Ledger.read_only(backing, lambda: 1_000)) as ledger:
        yield Reading(ledger, LedgerFollower(ledger, backing))


def refusal_of(work: Callable[[], object], kind: type[ComityError]) -> ComityError:
    with pytest.raises(kind) as caught:
        work()
    return caught.value


def append(writer: Ledger, start: int, end: int) -> None:
    writer.logs.append(LOG.origin, statement_lines(start, end))


def test_a_reader_opens_a_ledger_beside_its_writer_and_sees_what_it_commits(writer: Ledger, reading: Reading) -> None:
    assert reading.follower.look()
    before = reading.ledger.version
    assert not reading.follower.look()
    assert reading.ledger.version == before
    append(writer, 0, 3)
    assert reading.follower.look()
    assert reading.ledger.version > before
    assert reading.ledger.history.entries(LOG.origin, 0, 3) == statement_lines(0, 3)


def test_watchers_of_a_readers_ledger_are_notified_of_the_writers_commits(writer: Ledger, reading: Reading) -> None:
    told: list[int] = []
    reading.follower.look()
    reading.ledger.watch(lambda: told.append(1))
    reading.follower.look()
    assert not told
    append(writer, 0, 1)
    reading.follower.look()
    assert told == [1]


def test_a_sign_of_life_of_the_writer_is_no_change(postgres: Postgres, name: str, reading: Reading) -> None:
    """Else a front end forgot all that it keeps every five seconds."""
    reading.follower.look()
    for _ in range(3):
        postgres.admin(_BEAT, name)
        assert not reading.follower.look()
    postgres.admin(_BEAT, name)
    postgres.admin("UPDATE logs SET origin = origin", name)
    assert reading.follower.look()
    postgres.admin("UPDATE logs SET origin = origin", name)
    postgres.admin(_BEAT, name)
    assert reading.follower.look()
    assert not reading.follower.look()


def test_what_commits_beside_a_sign_of_life_is_a_change(postgres: Postgres, name: str, reading: Reading) -> None:
    with psycopg.connect(postgres.url(name)) as beside:
        beside.execute("UPDATE logs SET origin = origin")
        postgres.admin(_BEAT, name)
        reading.follower.look()
        postgres.admin(_BEAT, name)
        assert not reading.follower.look()
        beside.commit()
        postgres.admin(_BEAT, name)
        assert reading.follower.look()


def test_a_reader_knows_whether_a_writer_runs(postgres: Postgres, name: str, tmp_path: Path, reading: Reading) -> None:
    def writer_seen() -> bool:
        reading.follower.look()
        return reading.follower.writer

    assert not writer_seen()
    with closing(Ledger.open(tmp_path, lambda: 1_000, backing=PostgresDatabase(postgres.url(name), None))):
        assert writer_seen()
        other = postgres.database()
        with closing(Ledger.open(tmp_path, lambda: 1, backing=PostgresDatabase(postgres.url(other), None))):
            pass
    assert not writer_seen()


def test_a_reader_does_not_take_another_lock_for_that_of_the_writer(
    postgres: Postgres, name: str, reading: Reading
) -> None:
    with psycopg.connect(postgres.url(name), autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(7)")
        reading.follower.look()
    assert not reading.follower.writer


def test_a_reader_refuses_every_write_before_the_database_does(postgres: Postgres, name: str, reading: Reading) -> None:
    for role in (READER, "ledger"):
        backing = PostgresReader(postgres.url(name, role), None)
        with closing(Ledger.read_only(backing, lambda: 1_000)) as ledger:
            refusal = refusal_of(lambda: ledger.logs.append(LOG.origin, statement_lines(0, 1)), Refused)
            assert refusal.code == "FRONT-END"
            assert ledger.logs.get(LOG.origin).size == 0


def test_a_transaction_of_a_reader_cannot_write_even_as_the_owner_of_the_tables(postgres: Postgres, name: str) -> None:
    engine = PostgresReader(postgres.url(name), None).engine()
    with engine.connect() as connection, pytest.raises(Exception, match="read-only transaction"):
        connection.execute(text("UPDATE writer SET number = number + 1"))
    engine.dispose()


def test_a_reader_that_hangs_does_not_hold_a_snapshot_for_ever(postgres: Postgres, name: str) -> None:
    engine = PostgresReader(postgres.url(name), None).engine()
    with engine.connect() as connection:
        for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
            assert connection.scalar(text(f"SHOW {setting}")) == "1min"
    engine.dispose()


def test_a_reader_with_its_own_role_may_be_limited_to_read_only_sessions(postgres: Postgres, name: str) -> None:
    postgres.admin(f"ALTER ROLE {READER} SET default_transaction_read_only = on")
    try:
        with closing(Ledger.read_only(PostgresReader(postgres.url(name, READER), None), lambda: 1)) as ledger:
            assert ledger.logs.get(LOG.origin).size == 0
    finally:
        postgres.admin(f"ALTER ROLE {READER} RESET default_transaction_read_only")


@pytest.mark.parametrize(
    ("found", "code"), [(None, "LEDGER-OLDER"), ("0001", "LEDGER-OLDER"), ("9999", "LEDGER-NEWER"), (NEWEST, "")]
)
def test_tables_of_another_version_are_refused_with_the_next_step(found: str | None, code: str) -> None:
    if not code:
        require_revision(found)
        return
    refusal = refusal_of(lambda: require_revision(found), Refused)
    assert refusal.code == code
    assert "Comity" in refusal.hint


def test_a_database_without_tables_is_refused_and_left_without_tables(postgres: Postgres) -> None:
    empty = postgres.database()
    backing = PostgresReader(postgres.url(empty), None)
    refusal = refusal_of(lambda: Ledger.read_only(backing, lambda: 1), Refused)
    assert (refusal.code, "no tables yet" in refusal.why) == ("LEDGER-OLDER", True)
    assert postgres.admin("SELECT to_regclass('logs')", empty) == [(None,)]


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    backing = PostgresReader(f"postgresql:///x?host={tmp_path}", None)
    for work in (lambda: Ledger.read_only(backing, lambda: 1), backing.look):
        refusal = refusal_of(work, Unavailable)
        assert (refusal.code, str(tmp_path) in refusal.why) == ("LEDGER-FAILED", True)
        assert "[storage] database" in refusal.hint


def test_a_reader_ends_when_its_tables_are_migrated(postgres: Postgres, name: str, reading: Reading) -> None:
    reading.follower.look()
    postgres.admin("UPDATE alembic_version SET version_num = '9999'", name)
    try:
        assert refusal_of(reading.follower.look, Refused).code == "LEDGER-NEWER"
    finally:
        postgres.admin(f"UPDATE alembic_version SET version_num = '{NEWEST}'", name)


def test_a_reader_ends_when_its_tables_are_of_a_version_without_signs_of_life(
    postgres: Postgres, name: str, reading: Reading
) -> None:
    reading.follower.look()
    postgres.admin("UPDATE alembic_version SET version_num = '0022'", name)
    postgres.admin("ALTER TABLE writer_heartbeat RENAME TO later", name)
    try:
        assert refusal_of(reading.follower.look, Refused).code == "LEDGER-OLDER"
    finally:
        postgres.admin("ALTER TABLE later RENAME TO writer_heartbeat", name)
        postgres.admin(f"UPDATE alembic_version SET version_num = '{NEWEST}'", name)


def test_a_reader_ends_when_its_ledger_was_rolled_back(postgres: Postgres, writer: Ledger, reading: Reading) -> None:
    append(writer, 0, 3)
    reading.follower.look()
    append(writer, 3, 4)
    reading.follower.look()
    postgres.admin("UPDATE logs SET size = 3", SHARED)
    refusal = refusal_of(reading.follower.look, Unavailable)
    assert (refusal.code, LOG.origin in refusal.why) == ("LEDGER-REPLACED", True)


def test_a_reader_ends_when_a_log_has_another_history(postgres: Postgres, writer: Ledger, reading: Reading) -> None:
    append(writer, 0, 3)
    reading.follower.look()
    postgres.admin("UPDATE logs SET root = decode(repeat('00', 32), 'hex')", SHARED)
    assert refusal_of(reading.follower.look, Unavailable).code == "LEDGER-REPLACED"


def test_a_reader_ends_when_its_database_was_restored(postgres: Postgres, tmp_path: Path) -> None:
    template = postgres.database()
    with closing(Ledger.open(tmp_path, lambda: 1_000, backing=PostgresDatabase(postgres.url(template), None))) as made:
        made.logs.create(LOG.origin, LOG.vkey, own=True)
    postgres.allow_reading(template)
    database = postgres.database(template=template)
    backing = PostgresReader(postgres.url(database, READER), None)
    with closing(Ledger.read_only(backing, lambda: 1_000)) as ledger:
        follower = LedgerFollower(ledger, backing)
        follower.look()
        postgres.end(database, "")
        postgres.admin(f"DROP DATABASE {database}")
        assert refusal_of(follower.look, Unavailable).code == "LEDGER-FAILED"
        postgres.admin(f"CREATE DATABASE {database} OWNER ledger TEMPLATE {template}")
        assert refusal_of(follower.look, Unavailable).code == "LEDGER-REPLACED"
        assert refusal_of(lambda: ledger.logs.get(LOG.origin), Unavailable).code == "LEDGER-REPLACED"


def test_a_reader_continues_when_the_server_ended_its_connections(
    postgres: Postgres, writer: Ledger, reading: Reading
) -> None:
    reading.follower.look()
    assert postgres.admin(
        f"SELECT count(pg_terminate_backend(pid, 20000)) FROM pg_stat_activity WHERE usename = '{READER}'"
    ) != [(0,)]
    append(writer, 0, 2)
    assert reading.follower.look()
    assert reading.ledger.logs.get(LOG.origin).size == 2
