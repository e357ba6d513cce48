"""Opening a ledger: one writer, migrations of the tables, and the errors of a failing database."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from comity.ledger import schema
from comity.ledger.database import LOCK_FILE as LOCK
from comity.ledger.database import SCRIPTS, Database, find_log, migrate
from comity.ledger.history import History
from comity.ledger.intake import IntakeStore
from comity.ledger.ledger import DATABASE_FILE, Ledger
from comity.ledger.piece_records import PieceLocation, PieceRecordTable
from comity.ledger.proven import ProvenTables
from comity.ledger.revisions import NEWEST
from comity.ledger.sqlite import CACHED_KIB, SqliteFile
from comity.ledger.subject_reads import OTHER
from comity.rules.pieces import FIXED_LAYOUT, encode_records
from comity.rules.signing import sign_content
from comity.trust.artifact import PieceRecord
from comity.trust.copies import HeldArtifact, Holds
from comity.trust.encoding import sha256
from comity.trust.errors import Conflict, OutOfSpace, Refused, Unavailable, Untrusted
from comity.trust.statement import SideObject
from comity.trust.statement_kinds import HOLDS
from comity.trust.tlog.merkle import EMPTY_ROOT
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import OperationalError
from support.case import nodes
from support.logs import LogKeys, statement_line, statement_lines
from support.tables import PORTABLE

LOG = LogKeys.generate("own.example/log")


def opened(folder: Path) -> Ledger:
    return Ledger.open(folder, lambda: 1_000)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = opened(tmp_path)
    ledger.logs.create(LOG.origin, LOG.vkey, own=True)
    yield ledger
    ledger.close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    file = SqliteFile(tmp_path / "test.sqlite")
    with closing(Database(file.engine(), file.lock())) as database:
        yield database
    database._lock.release()


def test_opening_a_locked_ledger_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(Conflict) as refusal:
        opened(tmp_path)
    assert refusal.value.code == "LEDGER-LOCKED"


def test_a_closed_ledger_opens_again_and_has_everything(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.logs.create(LOG.origin, LOG.vkey, own=True)
    lines = statement_lines(0, 3)
    first.logs.append(LOG.origin, lines)
    state = first.logs.get(LOG.origin)
    first.close()
    second = opened(tmp_path)
    assert second.logs.get(LOG.origin) == state
    assert second.history.entries(LOG.origin, 0, 3) == lines
    second.close()


def test_the_lock_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(Conflict):
            opened(tmp_path)
        holder.kill()
    opened(tmp_path).close()


def test_opening_a_ledger_excludes_an_earlier_writer_that_lost_its_lock(ledger: Ledger, tmp_path: Path) -> None:
    ledger.logs.append(LOG.origin, [statement_line(0)])
    (tmp_path / LOCK).unlink()
    with closing(opened(tmp_path)) as second:
        for write in (
            lambda: ledger.logs.append(LOG.origin, [statement_line(1)]),
            lambda: ledger.logs.set_note(LOG.origin, LOG.note_over([statement_line(0)])),
        ):
            with pytest.raises(Unavailable) as refusal:
                write()
            assert refusal.value.code == "LEDGER-LOCK-LOST"
        assert second.logs.append(LOG.origin, [statement_line(1)]) == [1]
    assert ledger.logs.get(LOG.origin).size == 2


def test_a_ledger_that_did_not_open_leaves_no_lock(tmp_path: Path) -> None:
    (tmp_path / DATABASE_FILE).write_bytes(b"not a database" * 1_000)
    for _ in range(2):
        with pytest.raises(Untrusted) as refusal:
            opened(tmp_path)
        assert refusal.value.code == "LEDGER-CORRUPT"


def test_the_migrations_make_the_tables_that_the_code_knows(database: Database) -> None:
    migrate(database)
    with database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts=PORTABLE), schema.metadata) == []


def test_the_newest_revision_is_that_of_the_newest_script() -> None:
    """A ledger with this revision is opened without Alembic."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    assert ScriptDirectory.from_config(config).get_current_head() == NEWEST


@pytest.mark.slow
def test_a_ledger_of_this_version_is_opened_without_alembic(tmp_path: Path) -> None:
    opening = f"from pathlib import Path; Ledger.open(Path({str(tmp_path)!r}), lambda: 0.0).close()"
    asking = f"import sys; from comity.ledger.ledger import Ledger; {opening}; print('alembic' in sys.modules)"
    runs = [subprocess.run([sys.executable, "-c", asking], capture_output=True, check=True) for _ in range(2)]
    assert [run.stdout.strip() for run in runs] == [b"True", b"False"]


def test_a_ledger_of_the_first_version_keeps_its_logs_and_takes_a_second_key(database: Database) -> None:
    migrate(database, "0001")
    other = LogKeys.generate(LOG.origin)
    row = "INSERT INTO logs (id, origin, vkey, own, size, root, staged) VALUES (:id, :origin, :vkey, 0, 0, :root, 0)"
    entry = 'INSERT INTO entries (log_id, "index", line, digest) VALUES (7, 0, :line, :digest)'
    with database.writing("test") as connection:
        connection.execute(text(row), {"id": 7, "origin": LOG.origin, "vkey": LOG.vkey, "root": EMPTY_ROOT})
        connection.execute(text(entry), {"line": b"{}", "digest": bytes(32)})
    migrate(database)
    with database.writing("test") as connection:
        connection.execute(text(row), {"id": 8, "origin": LOG.origin, "vkey": other.vkey, "root": EMPTY_ROOT})
    with database.reading() as connection:
        assert find_log(connection, LOG.origin).id == 7
        assert find_log(connection, other.vkey).id == 8
        assert connection.scalar(text("SELECT count(*) FROM entries")) == 1
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1


def test_piece_records_of_an_earlier_version_are_kept_and_sealed(database: Database) -> None:
    migrate(database, "0004")
    blob, records = sha256(b"a blob"), encode_records([PieceRecord(5, bytes(32))])
    row = "INSERT INTO piece_records (id, blob, layout, records) VALUES (3, :blob, :layout, :records)"
    piece = 'INSERT INTO pieces (sha256, record_id, "offset", length) VALUES (:sha256, 3, 0, 5)'
    with database.writing("test") as connection:
        connection.execute(text(row), {"blob": bytes.fromhex(blob), "layout": FIXED_LAYOUT, "records": records})
        connection.execute(text(piece), {"sha256": bytes(32)})
    migrate(database)
    pieces = PieceRecordTable(database)
    assert pieces.records(blob, FIXED_LAYOUT) == records
    assert pieces.find_piece(bytes(32)) == [PieceLocation(blob, 0, 5)]
    pieces.delete_records(blob)
    assert pieces.find_piece(bytes(32)) == []


def test_lines_of_an_earlier_version_go_through_the_intake(database: Database) -> None:
    migrate(database, "0006")
    row = "INSERT INTO logs (id, origin, vkey, own, size, root, staged) VALUES (1, :origin, :vkey, 1, 2, :root, 2)"
    entry = 'INSERT INTO entries (log_id, "index", line, digest) VALUES (1, :index, :line, :digest)'
    said = 'INSERT INTO statements (log_id, "index", predicate) VALUES (1, :index, :predicate)'
    lines = (b"free text", statement_line(0))
    with database.writing("test") as connection:
        connection.execute(text(row), {"origin": LOG.origin, "vkey": LOG.vkey, "root": EMPTY_ROOT})
        for index, line in enumerate(lines):
            connection.execute(text(entry), {"index": index, "line": line, "digest": bytes(32)})
            connection.execute(text(said), {"index": index, "predicate": "vouched" if index else ""})
    migrate(database)
    assert IntakeStore(database).next_batch(LOG.origin).lines == lines
    assert ProvenTables(database).last_number() == 0


def test_lines_that_an_earlier_version_stored_read_back(database: Database) -> None:
    """Also those of a mirrored log that look as if they were compressed: more than one page of them."""
    migrate(database, "0017")
    row = "INSERT INTO logs (id, origin, vkey, own, size, root, staged, weight) VALUES (1, :o, :v, 0, :n, :root, :n, 0)"
    entry = 'INSERT INTO entries (log_id, "index", line, digest) VALUES (1, :index, :line, :digest)'
    lines = [b"", b"\x00", b"\x01", b"free text", statement_line(0), *(b"\x01%d" % number for number in range(600))]
    with database.writing("test") as connection:
        connection.execute(text(row), {"o": LOG.origin, "v": LOG.vkey, "root": EMPTY_ROOT, "n": len(lines)})
        values = [{"index": index, "line": line, "digest": bytes(32)} for index, line in enumerate(lines)]
        connection.execute(text(entry), values)
    migrate(database)
    assert History(database).entries(LOG.origin, 0, len(lines)) == lines


def test_claims_of_many_copies_that_an_earlier_version_stored_are_found_by_each_artifact(database: Database) -> None:
    migrate(database, "0012")
    row = "INSERT INTO logs (id, origin, vkey, own, size, root, staged, weight) VALUES (1, :o, :v, 0, 3, :root, 3, 0)"
    entry = 'INSERT INTO entries (log_id, "index", line, digest) VALUES (1, :index, :line, :digest)'
    said = "INSERT INTO statements VALUES (1, :index, :number, :statement, :predicate, :by)"
    about = "INSERT INTO subjects VALUES (:digest, '', 1, :turn, :index)"
    node = nodes(1)[0]
    pieces = SideObject(sha256(b"pieces"), 2)
    held = [HeldArtifact(node.record.node, SideObject(sha256(b"%d" % number), 1), pieces) for number in range(2)]
    line = sign_content(Holds.of(node.record.node, held), node.online).line
    first, second = (item.artifact for item in held)
    with database.writing("test") as connection:
        connection.execute(text(row), {"o": LOG.origin, "v": LOG.vkey, "root": EMPTY_ROOT})
        for index, predicate in enumerate(("unknown", "holds", "unknown")):
            connection.execute(text(entry), {"index": index, "line": line, "digest": bytes(32)})
            values = {"statement": bytes([index]) * 32, "predicate": predicate, "by": bytes(32)}
            connection.execute(text(said), {"index": index, "number": index + 1, **values})
            connection.execute(text(about), {"digest": bytes.fromhex(first), "turn": index, "index": index})
        connection.execute(text(about), {"digest": bytes.fromhex(second), "turn": 0, "index": 1})
    migrate(database)
    proven = ProvenTables(database)
    for artifact, others in ((first, [0, 2]), (second, [])):
        assert [found.index for found in proven.about(artifact, (HOLDS,)).found] == [1]
        assert [found.index for found in proven.about(artifact, (OTHER,)).found] == others


def test_rows_that_refer_to_nothing_are_not_migrated(database: Database) -> None:
    migrate(database, "0001")
    with pytest.raises(Untrusted), database.rebuilding("test") as connection:
        connection.execute(
            text("INSERT INTO entries VALUES (9, 0, :line, :digest)"), {"line": b"", "digest": bytes(32)}
        )
    with database.reading() as connection:
        assert connection.scalar(text("SELECT count(*) FROM entries")) == 0


def test_migrating_twice_changes_nothing(database: Database) -> None:
    migrate(database)
    migrate(database)
    with database.reading() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == NEWEST


def test_a_ledger_that_a_newer_program_wrote_is_refused(database: Database) -> None:
    migrate(database)
    with database.writing("test") as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Refused) as refusal:
        migrate(database)
    assert refusal.value.code == "LEDGER-NEWER"


@pytest.mark.parametrize(("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)])
def test_a_commit_that_returned_survives_a_power_cut(database: Database, pragma: str, value: object) -> None:
    with database.reading() as connection:
        assert connection.scalar(text(f"PRAGMA {pragma}")) == value


def test_each_connection_keeps_few_pages_in_memory(database: Database) -> None:
    with database.reading() as connection:
        assert connection.scalar(text("PRAGMA cache_size")) == -CACHED_KIB


def test_a_reader_sees_one_state_while_a_writer_continues(database: Database) -> None:
    with database.writing("test") as connection:
        connection.execute(text("CREATE TABLE seen (number INTEGER)"))
    count = text("SELECT count(*) FROM seen")
    with database.reading() as reader:
        assert reader.scalar(count) == 0
        with database.writing("test") as writer:
            writer.execute(text("INSERT INTO seen VALUES (1)"))
        assert reader.scalar(count) == 0
    with database.reading() as reader:
        assert reader.scalar(count) == 1


def test_a_write_that_raises_leaves_nothing(database: Database) -> None:
    with database.writing("test") as connection:
        connection.execute(text("CREATE TABLE seen (number INTEGER)"))
    with pytest.raises(RuntimeError), database.writing("test") as connection:
        connection.execute(text("INSERT INTO seen VALUES (1)"))
        raise RuntimeError
    with database.reading() as connection:
        assert connection.scalar(text("SELECT count(*) FROM seen")) == 0


def test_a_full_disk_refuses_the_write_and_the_ledger_continues(ledger: Ledger) -> None:
    ledger.logs.append(LOG.origin, statement_lines(0, 1))
    with full_disk(ledger), pytest.raises(OutOfSpace):
        ledger.logs.append(LOG.origin, statement_lines(1, 400))
    assert ledger.logs.get(LOG.origin).size == 1
    assert ledger.logs.append(LOG.origin, [statement_line(1)]) == [1]
    ledger.history.verify_all(LOG.origin)


def test_after_a_commit_of_unknown_outcome_nothing_is_written_until_it_is_opened_again(ledger: Ledger) -> None:
    def fails(_: Connection) -> None:
        cause = sqlite3.OperationalError("disk I/O error")
        cause.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise OperationalError("COMMIT", None, cause)

    event.listen(ledger._database._writers, "commit", fails)
    with pytest.raises(Unavailable):
        ledger.logs.append(LOG.origin, [statement_line(0)])
    event.remove(ledger._database._writers, "commit", fails)
    with pytest.raises(Unavailable) as refusal:
        ledger.logs.append(LOG.origin, [statement_line(0)])
    assert refusal.value.code == "LEDGER-FAILED"
    assert ledger.logs.get(LOG.origin).size == 0


@contextmanager
def full_disk(ledger: Ledger) -> Iterator[None]:
    """The database may not grow by another page."""
    engine = ledger._database._engine
    event.listen(engine, "checkout", _no_page_more)
    yield
    event.remove(engine, "checkout", _no_page_more)
    event.listen(engine, "checkout", _pages_again)


def _no_page_more(connection: sqlite3.Connection, *_: object) -> None:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count={pages}")


def _pages_again(connection: sqlite3.Connection, *_: object) -> None:
    connection.execute("PRAGMA max_page_count=1000000")


_HOLD = """
import sys
from pathlib import Path
from comity.ledger.ledger import Ledger
ledger = Ledger.open(Path(sys.argv[1]), lambda: 0)
print("open", flush=True)
sys.stdin.read()
"""
