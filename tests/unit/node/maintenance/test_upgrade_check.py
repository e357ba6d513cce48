"""`comity upgrade check`: an older ledger is migrated as a copy, a damaged one is reported, and the home is
only read.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from comity.ledger.database import SCRIPTS, Database, FolderLock, migrate
from comity.ledger.ledger import Ledger
from comity.ledger.revisions import NEWEST
from comity.ledger.sqlite import SqliteFile
from comity.node.maintenance.home_checks import Diagnosis
from comity.node.maintenance.upgrade_check import check_upgrade, migrations, releases_interoperate
from comity_cli.main import command

SETTINGS = '[node]\nname = "node-a.example"\n[listen]\nmutual = "127.0.0.1:7443"\nopen = "127.0.0.1:7444"\n'


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "node.toml").write_text(SETTINGS)
    return tmp_path / "node.toml"


def older_ledger(file: Path, revision: str) -> Path:
    """A ledger with the tables of an earlier version."""
    ledger = file.parent / "data" / "ledger.sqlite"
    lock = FolderLock(ledger.parent)
    with closing(Database(SqliteFile(ledger).engine(), lock)) as database:
        migrate(database, revision)
    lock.release()
    return ledger


def ledger_findings(file: Path) -> list[Diagnosis]:
    found = check_upgrade(file, clock=lambda: 1, ask_peers=False, environ={})
    return [finding for finding in found if finding.topic in ("ledger", "migration")]


def revision_of(ledger: Path) -> str:
    with closing(sqlite3.connect(ledger)) as database:
        (revision,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(revision)


def test_an_older_ledger_is_migrated_as_a_copy_only(file: Path) -> None:
    ledger = older_ledger(file, "0009")
    first, *steps = ledger_findings(file)
    assert (first.level, f"from 0009 to {NEWEST}" in first.text) == ("warn", True)
    assert first.fix.startswith("comity backup create")
    migrations = sorted(path.name[:4] for path in (SCRIPTS / "versions").glob("0*.py"))
    assert [step.text[:4] for step in steps] == [number for number in migrations if number > "0009"]
    assert revision_of(ledger) == "0009"


def test_a_ledger_of_this_version_changes_nothing_while_its_node_runs(file: Path) -> None:
    with closing(Ledger.open(file.parent / "data", lambda: 1)):
        (finding,) = ledger_findings(file)
    assert finding.level == "ok"


def test_a_ledger_that_would_not_open_is_reported(file: Path) -> None:
    ledger = older_ledger(file, "head")
    with closing(sqlite3.connect(ledger)) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    (finding,) = ledger_findings(file)
    assert (finding.level, finding.fix) == ("fail", "comity explain LEDGER-NEWER")


def test_a_home_without_a_ledger_is_not_reported_as_ok(file: Path) -> None:
    (finding,) = ledger_findings(file)
    assert finding.level == "unknown"


def test_every_migration_has_a_description() -> None:
    found = list(migrations())
    assert found[-1][0] == NEWEST
    assert all(len(about) > 10 for _, about in found)


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("comity 0.1.0", "comity 0.2.3", True),
        ("comity 0.1.0", "comity 0.3.0", False),
        ("comity 1.0.0", "comity 2.0.0", False),
        ("comity 0.1", "comity 0.1.5", True),
        ("another node", "comity 0.1.0", True),
    ],
)
def test_neighbouring_releases_interoperate(one: str, other: str, meet: bool) -> None:
    assert releases_interoperate(one, other) is meet is releases_interoperate(other, one)


def test_the_exit_status_of_the_command_follows_its_findings(file: Path) -> None:
    older_ledger(file, "0009")
    line = ["upgrade", "check", "--no-peers", "--node", str(file.parent)]
    ran = CliRunner().invoke(command, line, catch_exceptions=False, standalone_mode=False)
    assert ran.return_value == 8
    assert "tried on a copy, without an error" in ran.output
