"""A log that was changed without the ledger is detected, and not written to."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from comity.ledger.ledger import DATABASE_FILE, Ledger
from comity.trust.errors import Untrusted
from support.logs import LogKeys, statement_line, statement_lines

LOG = LogKeys.generate("own.example/log")
LINES = statement_lines(0, 600)

AT_THE_EDGE = [
    "UPDATE logs SET root = zeroblob(32)",
    "UPDATE logs SET size = 599",
    "UPDATE entries SET line = X'00' WHERE \"index\" = 599",
    'DELETE FROM entries WHERE "index" = 599',
    'DELETE FROM entries WHERE "index" = 512',
    "UPDATE tiles SET hashes = zeroblob(length(hashes)) WHERE level = 0 AND number = 2",
    "UPDATE tiles SET hashes = substr(hashes, 33) WHERE level = 0 AND number = 2",
    "UPDATE tiles SET hashes = zeroblob(length(hashes)) WHERE level = 1",
    "DELETE FROM tiles WHERE level = 1",
    "UPDATE checkpoints SET root = zeroblob(32) WHERE size = 600",
    "UPDATE checkpoints SET size = 601 WHERE size = 600",
]
LEFT_OF_THE_EDGE = [
    "UPDATE entries SET line = X'00' WHERE \"index\" = 100",
    'DELETE FROM entries WHERE "index" = 100',
    "UPDATE tiles SET hashes = zeroblob(length(hashes)) WHERE level = 0 AND number = 1",
    "DELETE FROM tiles WHERE level = 0 AND number = 0",
    "UPDATE checkpoints SET root = zeroblob(32) WHERE size = 300",
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The database file of an undamaged ledger."""
    folder = tmp_path_factory.mktemp("sound")
    ledger = Ledger.open(folder, lambda: 1_000)
    ledger.logs.create(LOG.origin, LOG.vkey, own=True)
    ledger.logs.append(LOG.origin, LINES)
    for size in (300, 600):
        ledger.logs.set_note(LOG.origin, LOG.note_over(LINES[:size]))
    ledger.close()
    return (folder / DATABASE_FILE).read_bytes()


@contextmanager
def tampered(sound: bytes, folder: Path, change: str) -> Iterator[Ledger]:
    (folder / DATABASE_FILE).write_bytes(sound)
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as connection, connection:
        assert connection.execute(change).rowcount >= 1
    with closing(Ledger.open(folder, lambda: 1_000)) as ledger:
        yield ledger


def test_an_undamaged_log_passes(sound: bytes, tmp_path: Path) -> None:
    with tampered(sound, tmp_path, "UPDATE logs SET root = root") as ledger:
        ledger.history.verify_right_edge(LOG.origin)
        ledger.history.verify_all(LOG.origin)


@pytest.mark.parametrize("change", AT_THE_EDGE)
def test_damage_at_the_edge_is_found_at_start(sound: bytes, tmp_path: Path, change: str) -> None:
    with tampered(sound, tmp_path, change) as ledger, pytest.raises(Untrusted) as refusal:
        ledger.history.verify_right_edge(LOG.origin)
    assert refusal.value.code == "LEDGER-CORRUPT"


@pytest.mark.parametrize("change", AT_THE_EDGE + LEFT_OF_THE_EDGE)
def test_damage_anywhere_is_found_by_the_whole_check(sound: bytes, tmp_path: Path, change: str) -> None:
    with tampered(sound, tmp_path, change) as ledger, pytest.raises(Untrusted) as refusal:
        ledger.history.verify_all(LOG.origin)
    assert refusal.value.code == "LEDGER-CORRUPT"


def test_nothing_is_written_to_a_damaged_log_even_without_a_requested_check(sound: bytes, tmp_path: Path) -> None:
    with tampered(sound, tmp_path, AT_THE_EDGE[0]) as ledger:
        for write in (
            lambda: ledger.logs.append(LOG.origin, [statement_line(600)]),
            lambda: ledger.logs.set_note(LOG.origin, LOG.note_over(LINES)),
        ):
            with pytest.raises(Untrusted) as refusal:
                write()
            assert refusal.value.code == "LEDGER-CORRUPT"
        assert ledger.history.entry(LOG.origin, 0) == LINES[0]


def test_damaged_hashes_give_no_proof(sound: bytes, tmp_path: Path) -> None:
    change = "DELETE FROM tiles WHERE level = 0 AND number = 0"
    with tampered(sound, tmp_path, change) as ledger, pytest.raises(Untrusted) as refusal:
        ledger.history.inclusion(LOG.origin, 0, 600)
    assert refusal.value.code == "LEDGER-CORRUPT"
