"""Damaged entries and hashes of a log are found part by part, and replaced only with bytes that the log signed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from comity.ledger.history import DamagedPart
from comity.ledger.ledger import DATABASE_FILE, Ledger
from comity.trust.errors import ComityError, Untrusted
from support.logs import LogKeys, statement_line, statement_lines

FAR = LogKeys.generate("far.example/log")
LINES = statement_lines(0, 600)
SECOND = DamagedPart(FAR.vkey, FAR.origin, 256, 512)
LAST = DamagedPart(FAR.vkey, FAR.origin, 512, 600)
DAMAGED_LINES = {
    "UPDATE entries SET line = X'00' WHERE \"index\" = 300": SECOND,
    'UPDATE entries SET digest = zeroblob(32) WHERE "index" = 300': SECOND,
    'DELETE FROM entries WHERE "index" = 300': SECOND,
    "UPDATE entries SET line = X'00' WHERE \"index\" = 599": LAST,
}
DAMAGED_HASHES = {
    "UPDATE tiles SET hashes = zeroblob(length(hashes)) WHERE level = 0 AND number = 1": SECOND,
    "DELETE FROM tiles WHERE level = 0 AND number = 1": SECOND,
    "UPDATE tiles SET hashes = CAST(substr(hashes, 1, 32) || zeroblob(32) AS BLOB) WHERE level = 1": SECOND,
    "UPDATE tiles SET hashes = zeroblob(length(hashes)) WHERE level = 0 AND number = 2": LAST,
}
DAMAGED_ABOVE = {
    "UPDATE logs SET root = zeroblob(32)",
    "UPDATE checkpoints SET root = zeroblob(32)",
    "UPDATE checkpoints SET note = X'00'",
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("sound")
    with closing(Ledger.open(folder, lambda: 1_000)) as ledger:
        ledger.logs.create(FAR.origin, FAR.vkey)
        ledger.logs.advance(FAR.origin, 0, LINES, FAR.note_over(LINES))
    return (folder / DATABASE_FILE).read_bytes()


@contextmanager
def tampered(sound: bytes, folder: Path, change: str) -> Iterator[Ledger]:
    (folder / DATABASE_FILE).write_bytes(sound)
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as connection, connection:
        assert connection.execute(change).rowcount == 1
    with closing(Ledger.open(folder, lambda: 1_000)) as ledger:
        yield ledger


def damaged_parts(ledger: Ledger) -> list[DamagedPart]:
    found = [ledger.repair.check(FAR.origin, number) for number in range(4)]
    return [part for part in found if part is not None]


@pytest.mark.parametrize("change", DAMAGED_LINES)
def test_damaged_entries_are_repaired_with_the_entries_of_a_peer(sound: bytes, tmp_path: Path, change: str) -> None:
    part = DAMAGED_LINES[change]
    with tampered(sound, tmp_path, change) as ledger:
        assert damaged_parts(ledger) == [part]
        ledger.repair.mend(part, LINES[part.start : part.end])
        assert damaged_parts(ledger) == []
        ledger.repair.check_upper(FAR.origin)
        ledger.history.verify_all(FAR.origin)
        assert ledger.history.entries(FAR.origin, 0, 600) == LINES


@pytest.mark.parametrize("change", DAMAGED_HASHES)
def test_damaged_hashes_are_repaired_from_the_entries_that_are_here(sound: bytes, tmp_path: Path, change: str) -> None:
    part = DAMAGED_HASHES[change]
    with tampered(sound, tmp_path, change) as ledger:
        assert damaged_parts(ledger) == [part]
        ledger.repair.mend(part, ledger.repair.readable(part))
        ledger.history.verify_all(FAR.origin)


def test_other_entries_of_a_peer_are_not_written(sound: bytes, tmp_path: Path) -> None:
    (change, part), *_ = DAMAGED_LINES.items()
    with tampered(sound, tmp_path, change) as ledger:
        lies = [*LINES[part.start : part.end - 1], statement_line(999)]
        with pytest.raises(Untrusted) as refusal:
            ledger.repair.mend(part, lies)
        assert refusal.value.code == "INCLUSION"
        assert damaged_parts(ledger) == [part]
        assert ledger.history.entries(FAR.origin, 256, 300) == LINES[256:300]


@pytest.mark.parametrize("change", sorted(DAMAGED_ABOVE))
def test_damage_above_the_entries_is_named(sound: bytes, tmp_path: Path, change: str) -> None:
    with tampered(sound, tmp_path, change) as ledger:
        assert damaged_parts(ledger) == []
        with pytest.raises(ComityError) as refusal:
            ledger.repair.check_upper(FAR.origin)
        assert refusal.value.code == "LEDGER-CORRUPT"


def test_entries_that_no_checkpoint_covers_are_not_repaired(sound: bytes, tmp_path: Path) -> None:
    with tampered(sound, tmp_path, "DELETE FROM checkpoints") as ledger, pytest.raises(ComityError) as refusal:
        ledger.repair.mend(LAST, LINES[LAST.start : LAST.end])
    assert refusal.value.code == "LEDGER-CORRUPT"
