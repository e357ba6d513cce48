"""What `comity storage migrate` refuses, counts and prints, and that no second ledger of one log ever opens.

With killed processes, a bucket and running nodes: tests/integration/test_storage_move.py.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from comity.content.blobs import FolderStore
from comity.ledger.ledger import Ledger
from comity.ledger.postgres import PostgresDatabase
from comity.node.config import NodeConfig
from comity.node.home import ledger_backing, ledger_mark
from comity.node.ledger_mark import LEDGER_MARK, OUTSIDE_MARK
from comity.node.maintenance import ledger_move, storage_move
from comity.node.maintenance.doctor import diagnose
from comity.node.maintenance.storage_move import BEFORE, StorageMove
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, OutOfSpace
from comity_cli.commands.storage import command as storage
from support.federation import NodeHome, make_home
from support.logs import statement_lines
from support.postgres import Postgres
from support.run_command import printed, refused, said


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> NodeHome:
    """A node with 20 entries and two blobs, that does not run."""
    home = make_home(tmp_path / "node", 0)
    with opened(home.config()) as ledger:
        ledger_mark(home.config(), ledger, LEDGER_MARK).write()
        ledger.logs.create(home.origin, str(home.record.log), own=True)
        ledger.logs.append(home.origin, statement_lines(0, 20))
    for data in (b"one", b"two"):
        FolderStore(home.config().storage.blobs).put(sha256(data), data)
    return home


@contextmanager
def opened(config: NodeConfig) -> Iterator[Ledger]:
    with closing(Ledger.open(config.storage.ledger.parent, lambda: 1_000, backing=ledger_backing(config))) as ledger:
        yield ledger


def settings(home: NodeHome, name: str, section: str = "storage", **values: object) -> Path:
    """A copy of node.toml with other values."""
    file, new = home.directory / "node.toml", home.directory / f"{name}.toml"
    kept = file.read_bytes()
    home.set(section, **values)
    shutil.copy(file, new)
    file.write_bytes(kept)
    return new


@pytest.fixture(scope="module", name="empty")
def _empty(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with all tables and nothing in them, to be copied."""
    name = postgres.database()
    Ledger.open(tmp_path_factory.mktemp("empty"), time.time, backing=PostgresDatabase(postgres.url(name), None)).close()
    return name


@pytest.fixture(name="database")
def _database(postgres: Postgres, empty: str) -> Callable[..., Path]:
    """Writes settings with another new database of PostgreSQL."""

    def database(home: NodeHome, name: str = "new", **others: str) -> Path:
        url = postgres.url(postgres.database(template=empty))
        return settings(home, name, "storage", database=url, **others)

    return database


def config(file: Path) -> NodeConfig:
    return NodeConfig.load(file, environ={})


def migrate(home: NodeHome, new: Path) -> dict[str, object]:
    return printed(storage, "migrate", new, "--node", home.directory, "--yes")


def error(home: NodeHome, new: Path) -> ComityError:
    return refused(storage, "migrate", new, "--node", home.directory, "--yes")


def code_of(work: Callable[[], object]) -> str:
    with pytest.raises(ComityError) as refusal:
        work()
    return refusal.value.code


def opens(file: Path) -> str:
    """The code with which the ledger in the settings is refused; empty if it opens."""
    try:
        with opened(config(file)):
            return ""
    except ComityError as refusal:
        return refusal.code


@contextmanager
def dying(before: str) -> Iterator[None]:
    """The process ends before this step."""

    def end(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ledger_move, before, end)
        yield


def test_a_ledger_and_its_blobs_move_and_come_back(home: NodeHome, database: Callable[..., Path]) -> None:
    old = settings(home, "old")
    new = database(home, "new", blobs="data/other")
    before = (home.directory / "node.toml").read_bytes()
    counted = printed(storage, "migrate", new, "--node", home.directory, "--dry-run")
    assert (counted["blobs"], counted["size"], counted["missing"], counted["others"]) == (2, 6, 2, 0)
    assert counted["free"] > 0 and not (home.directory / "data" / "other").exists()
    result = migrate(home, new)
    assert result["moved"] and result["ledger"]["rows"] == counted["rows"] == result["ledger"]["written"]  # type: ignore[index]
    assert (result["ledger"]["entries"], result["blobs"]["copied"]) == (20, 2)  # type: ignore[index]
    assert (home.directory / f"node.toml{BEFORE}").read_bytes() == before
    assert home.config().storage.database
    with opened(home.config()) as ledger:
        assert not ledger_mark(home.config(), ledger, LEDGER_MARK).mismatches(begun=True)
        ledger.logs.append(home.origin, statement_lines(20, 25))
    assert opens(old) == "LEDGER-MOVED"
    assert "nothing left to move" in said(storage, "migrate", new, "--node", home.directory, "--yes")
    result = migrate(home, old)
    assert result["ledger"]["entries"] == 25 and result["ledger"]["written"] < 25 * 4  # type: ignore[index]
    assert opens(new) == "LEDGER-MOVED"
    with opened(home.config()) as ledger:
        assert not ledger_mark(home.config(), ledger, LEDGER_MARK).mismatches(begun=True)
        ledger.history.verify_all(home.origin)


@pytest.mark.postgres
def test_a_move_that_died_goes_on_with_its_own_target_only(home: NodeHome, database: Callable[..., Path]) -> None:
    """Two targets were begun, and the source was given up for the first one: the second never becomes a ledger."""
    old, first, second = settings(home, "old"), database(home, "first"), database(home, "second")
    for step, target in (("_mark_moved", second), ("_complete", first)):
        with dying(step):
            StorageMove.read(home.directory / "node.toml", target).run(no_step, lambda: 1_000)
    assert (opens(old), opens(first), opens(second)) == ("LEDGER-MOVED", "LEDGER-COPYING", "LEDGER-COPYING")
    assert error(home, second).code == "LEDGER-MOVED"
    assert migrate(home, first)["moved"]
    assert (opens(old), opens(first), opens(second)) == ("LEDGER-MOVED", "", "LEDGER-COPYING")


@contextmanager
def no_step(_what: str, _total: int) -> Iterator[Callable[[int], None]]:
    yield lambda count: None


@pytest.mark.postgres
def test_a_copy_stays_a_copy(home: NodeHome, database: Callable[..., Path]) -> None:
    """A ledger of which nobody knows whether it has all that was signed asks its peers at the new place too."""
    (home.directory / "data" / LEDGER_MARK).write_text("7\n")
    new = database(home)
    migrate(home, new)
    with opened(home.config()) as ledger:
        assert ledger_mark(home.config(), ledger, LEDGER_MARK).mismatches(begun=True)
        assert not ledger_mark(home.config(), ledger, OUTSIDE_MARK).mismatches(begun=True)


@pytest.mark.postgres
def test_a_ledger_that_is_in_use_is_copied_and_not_moved(home: NodeHome, database: Callable[..., Path]) -> None:
    old, new = settings(home, "old"), database(home)
    with opened(home.config()) as ledger:
        assert printed(storage, "migrate", new, "--node", home.directory, "--dry-run")["rows"] > 20
        result = migrate(home, new)
        assert (result["moved"], result["ledger"]["entries"]) == (False, 0)  # type: ignore[index]
        assert opens(new) == "LEDGER-COPYING"
        ledger.logs.append(home.origin, statement_lines(20, 23))
    assert opens(old) == ""
    result = migrate(home, new)
    assert result["moved"] and 0 < result["ledger"]["written"] < 20  # type: ignore[index]


@pytest.mark.postgres
def test_the_target_of_another_node_is_refused(home: NodeHome, database: Callable[..., Path], tmp_path: Path) -> None:
    new, other = database(home), make_home(tmp_path / "other", 1)
    with opened(other.config()) as ledger:
        ledger.logs.create(other.origin, str(other.record.log), own=True)
    begun = settings(other, "begun", database=config(new).storage.database)
    with opened(other.config()):
        migrate(other, begun)
    assert "another node" in error(home, new).why
    migrate(other, begun)
    assert error(home, new).code == "STORAGE-TARGET"
    assert opens(begun) == ""


@pytest.mark.postgres
def test_a_moved_ledger_is_filled_again_only_by_what_it_became(home: NodeHome, database: Callable[..., Path]) -> None:
    """A ledger that was restored from an earlier state must not replace a later one."""
    old, new = settings(home, "old"), database(home)
    earlier = home.directory / "earlier.sqlite"
    shutil.copy(home.config().storage.ledger, earlier)
    with opened(home.config()) as ledger:
        ledger.logs.append(home.origin, statement_lines(20, 30))
    migrate(home, new)
    further = database(home, "further")
    migrate(home, further)
    assert opens(new) == "LEDGER-MOVED"
    shutil.copy(earlier, home.config().storage.ledger)
    shutil.copy(old, home.directory / "node.toml")
    assert "not an earlier state" in error(home, new).why


@pytest.mark.parametrize(
    ("section", "values"),
    [("replication", {"interval_seconds": 9.0}), ("storage", {"ledger": "data/x.sqlite"}), ("storage", {"keys": "k"})],
)
def test_settings_that_differ_in_more_than_the_storage_are_refused(
    home: NodeHome, section: str, values: dict[str, object]
) -> None:
    assert error(home, settings(home, "new", section, **values)).code == "CONFIG"


def test_a_settings_file_of_another_folder_is_refused(home: NodeHome, tmp_path: Path) -> None:
    shutil.copy(home.directory / "node.toml", tmp_path / "new.toml")
    assert "is not in" in error(home, tmp_path / "new.toml").why


def test_a_folder_with_other_blobs_is_refused(home: NodeHome) -> None:
    new = settings(home, "new", blobs="data/other")
    FolderStore(config(new).storage.blobs).put(sha256(b"three"), b"three")
    assert error(home, new).code == "STORAGE-TARGET"
    FolderStore(config(new).storage.blobs).remove(sha256(b"three"))
    assert migrate(home, new)["moved"]


def test_a_blob_that_left_the_node_leaves_the_copy_too(home: NodeHome) -> None:
    new = settings(home, "new", blobs="data/other")
    with opened(home.config()):
        assert migrate(home, new)["blobs"]["copied"] == 2  # type: ignore[index]
    FolderStore(home.config().storage.blobs).remove(sha256(b"one"))
    assert migrate(home, new)["moved"]
    assert [digest for digest, _ in FolderStore(home.config().storage.blobs).sizes()] == [sha256(b"two")]


def test_a_damaged_blob_ends_the_move_with_a_way_out(home: NodeHome) -> None:
    new, store = settings(home, "new", blobs="data/other"), FolderStore(home.config().storage.blobs)
    path = store.path(sha256(b"one"))
    path.chmod(0o644)
    path.write_bytes(b"ona")
    refusal = error(home, new)
    assert (refusal.code, "scrub" in refusal.hint) == ("HASH", True)
    store.quarantine(sha256(b"one"), "test")
    assert migrate(home, new)["moved"]


def test_a_folder_without_room_is_refused_before_anything_is_copied(
    home: NodeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = settings(home, "new", blobs="data/other")
    monkeypatch.setattr(storage_move, "_links", lambda *stores: False)
    monkeypatch.setattr(FolderStore, "free_bytes", lambda store: 5)
    refusal = error(home, new)
    assert isinstance(refusal, OutOfSpace) and refusal.why.startswith("6 bytes")
    assert not [*FolderStore(config(new).storage.blobs).sizes()]


@pytest.mark.postgres
def test_a_damaged_ledger_is_not_moved(home: NodeHome, database: Callable[..., Path]) -> None:
    new, file = database(home), home.config().storage.ledger
    with file.open("r+b") as ledger:
        ledger.seek(4096)
        ledger.write(b"\xff" * 2048)
    refusal = error(home, new)
    assert (refusal.code, refusal.hint.startswith("comity doctor")) == ("LEDGER-CORRUPT", True)
    assert opens(new) in ("", "LEDGER-COPYING")


@pytest.mark.postgres
def test_settings_that_cannot_be_replaced_are_said_at_the_end(
    home: NodeHome, database: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    new = database(home)

    def fails(path: Path, most: int) -> bytes:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(storage_move, "read_bounded", fails)
    refusal = error(home, new)
    assert "node.toml has the old settings" in refusal.what and refusal.hint.startswith("cp ")
    monkeypatch.undo()
    assert migrate(home, new)["moved"]


@pytest.mark.postgres
def test_a_doctor_knows_a_moved_ledger(home: NodeHome, database: Callable[..., Path]) -> None:
    old = settings(home, "old")
    migrate(home, database(home))
    shutil.copy(old, home.directory / "node.toml")
    found = [each.text for each in diagnose(home.directory) if each.topic == "ledger"]
    assert any("LEDGER-MOVED" in text for text in found)
