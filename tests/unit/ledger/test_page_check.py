"""A start compares the pages of a ledger with their sums before it reads them, and writes a changed byte again."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from comity.ledger import sqlite
from comity.ledger.ledger import DATABASE_FILE, Ledger
from comity.ledger.page_check import examine_pages
from comity.ledger.page_files import SUFFIX
from comity.ledger.page_sums import check_pages
from support.logs import LogKeys, statement_line, statement_lines

OWN = LogKeys.generate("own.example/log")
FAR = LogKeys.generate("far.example/log")
LINES = statement_lines(0, 300)
PAGE = 4096
FLIPS = 100


def opened(folder: Path) -> Ledger:
    return Ledger.open(folder, lambda: 1_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a closed ledger, all of whose pages have sums."""
    with closing(opened(tmp_path)) as ledger:
        ledger.logs.create(OWN.origin, OWN.vkey, own=True)
        ledger.logs.create(FAR.origin, FAR.vkey)
        ledger.logs.append(OWN.origin, LINES)
        ledger.logs.set_note(OWN.origin, OWN.note_over(LINES))
        ledger.logs.advance(FAR.origin, 0, LINES, FAR.note_over(LINES))
    with closing(opened(tmp_path)) as ledger:
        assert damage(ledger) == ()
    return tmp_path


def damage(ledger: Ledger) -> tuple[int, ...]:
    assert ledger.pages is not None
    return check_pages(ledger.pages)


def change(folder: Path, *places: int, bits: int = 0x40) -> None:
    """Change a byte of the file at each of `places`."""
    with (folder / DATABASE_FILE).open("r+b") as file:
        for place in places:
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ bits]))


def page_of(folder: Path, table: str) -> int:
    with closing(sqlite3.connect(f"file:{folder / DATABASE_FILE}?mode=ro", uri=True)) as database:
        (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    return int(page)


def test_each_of_a_hundred_changed_bytes_is_named_and_written_again(folder: Path) -> None:
    file, sound = folder / DATABASE_FILE, (folder / DATABASE_FILE).read_bytes()
    chance, pages = random.Random(20261201), len(sound) // PAGE
    for nth in range(FLIPS):
        page = nth % pages  # every page first, then more of them
        change(folder, page * PAGE + chance.randrange(PAGE), bits=chance.randrange(1, 256))
        found = examine_pages(file, mend=True)
        assert (found.mended, found.damaged, found.unchecked) == ((page + 1,), (), "")
        assert file.read_bytes() == sound


def test_a_start_reads_what_was_written_before_the_damage(folder: Path) -> None:
    pages = (folder / DATABASE_FILE).stat().st_size // PAGE
    for page in (0, *range(1, pages, 9)):
        change(folder, page * PAGE + random.Random(page).randrange(100))
        with closing(opened(folder)) as ledger:
            assert ledger.examined.mended == (page + 1,)
            assert ledger.history.entries(OWN.origin, 0, 300) == LINES == ledger.history.entries(FAR.origin, 0, 300)
            assert damage(ledger) == ()


def test_a_damaged_fencing_token_is_no_sign_of_another_writer(folder: Path) -> None:
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as database:
        (number,) = database.execute("SELECT number FROM writer").fetchone()
    place = page_of(folder, "writer") * PAGE - 1  # the number is the last value of the only row
    change(folder, place, bits=number ^ 99)
    found = examine_pages(folder / DATABASE_FILE, mend=True)
    assert found.mended == (page_of(folder, "writer"),)


def test_a_page_that_changed_in_two_bytes_is_named_and_left(folder: Path) -> None:
    page = page_of(folder, "subjects")
    change(folder, page * PAGE - 7, page * PAGE - 900)
    before = (folder / DATABASE_FILE).read_bytes()
    found = examine_pages(folder / DATABASE_FILE, mend=True)
    assert (found.mended, found.damaged) == ((), (page,))
    assert (folder / DATABASE_FILE).read_bytes() == before


def test_a_check_for_people_changes_nothing(folder: Path) -> None:
    change(folder, 5 * PAGE + 5)
    before = (folder / DATABASE_FILE).read_bytes()
    assert examine_pages(folder / DATABASE_FILE, mend=False).mended == (6,)
    assert (folder / DATABASE_FILE).read_bytes() == before


def crash(folder: Path, line: bytes = statement_line(300)) -> None:
    """Leave the files of a ledger whose process died after an append, in place."""
    ledger = opened(folder)
    ledger.logs.create(OWN.origin, OWN.vkey, own=True)
    ledger.checkpoint()
    ledger.logs.append(OWN.origin, [line])
    left = {file: file.read_bytes() for file in folder.glob(DATABASE_FILE + "*")}
    ledger.close()
    for file, data in left.items():
        with file.open("r+b" if file.exists() else "w+b") as again:
            again.truncate(0)
            again.write(data)


def test_pages_are_compared_after_a_crash_except_those_of_the_write_ahead_log(folder: Path) -> None:
    crash(folder)
    change(folder, (page_of(folder, "claimants") - 1) * PAGE + 9)
    with closing(opened(folder)) as ledger:
        assert ledger.examined.mended == (page_of(folder, "claimants"),)
        assert ledger.history.entries(OWN.origin, 0, 301) == [*LINES, statement_line(300)]
        assert damage(ledger) == ()


def remove_log(folder: Path) -> None:
    crash(folder)
    (folder / (DATABASE_FILE + "-wal")).unlink()


def write_elsewhere(folder: Path) -> None:
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as database, database:
        database.execute("UPDATE writer SET number = number + 1")
        database.execute("INSERT INTO outside_shares VALUES ('author', 'somebody', 1, 1)")


def move(folder: Path) -> None:
    data = (folder / DATABASE_FILE).read_bytes()
    (folder / DATABASE_FILE).rename(folder / "away")
    (folder / DATABASE_FILE).write_bytes(data)


def damage_header(folder: Path) -> None:
    with (folder / (DATABASE_FILE + SUFFIX)).open("r+b") as file:
        file.write(b"?")


@pytest.mark.parametrize(
    ("cause", "why"),
    [
        (remove_log, "write-ahead log is gone"),
        (write_elsewhere, "another program"),
        (move, "another file"),
        (damage_header, "missing or damaged"),
        (lambda folder: (folder / (DATABASE_FILE + SUFFIX)).unlink(), "no sums yet"),
    ],
)
def test_sums_of_another_state_are_not_believed(folder: Path, cause: Callable[[Path], None], why: str) -> None:
    cause(folder)
    change(folder, 5 * PAGE + 5)
    before = (folder / DATABASE_FILE).read_bytes()
    found = examine_pages(folder / DATABASE_FILE, mend=True)
    assert (found.mended, found.damaged) == ((), ()) and why in found.unchecked
    assert (folder / DATABASE_FILE).read_bytes() == before


def test_a_large_ledger_is_compared_after_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "MAX_EXAMINED_BYTES", PAGE)
    place = page_of(folder, "claimants") * PAGE - 1
    change(folder, place)
    with closing(opened(folder)) as ledger:
        assert "large" in ledger.examined.unchecked
        ledger.doubt()
    with closing(opened(folder)) as ledger:
        assert ledger.examined.mended == (place // PAGE + 1,)


def test_a_large_ledger_that_cannot_be_opened_is_compared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "MAX_EXAMINED_BYTES", PAGE)
    change(folder, (page_of(folder, "writer") - 1) * PAGE)  # the type of the page
    with closing(opened(folder)) as ledger:
        assert ledger.examined.mended == (page_of(folder, "writer"),)
        assert damage(ledger) == ()


def test_a_changed_byte_in_the_file_of_a_running_ledger_is_written_again(folder: Path) -> None:
    page = page_of(folder, "claimants")
    with closing(opened(folder)) as ledger:
        change(folder, (page - 1) * PAGE)
        assert damage(ledger) == (page,)
        assert ledger.mend_pages((page,)) == (page,)
        assert damage(ledger) == ()
        ledger.logs.append(OWN.origin, [statement_line(300)])
        ledger.history.verify_all(OWN.origin)
    with closing(opened(folder)) as ledger:
        assert ledger.examined.mended == () and damage(ledger) == ()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9])
def test_a_young_ledger_outlives_the_loss_of_a_part_of_its_write_ahead_log(tmp_path: Path, share: float) -> None:
    crash(tmp_path, LINES[0])
    log = tmp_path / (DATABASE_FILE + "-wal")
    os.truncate(log, int(log.stat().st_size * share))
    with closing(opened(tmp_path)) as ledger:
        assert [each.origin for each in ledger.logs.all()] == [OWN.origin]
        assert damage(ledger) == ()


def test_a_checkpoint_leaves_nothing_that_depends_on_the_write_ahead_log(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as ledger:
        ledger.logs.create(OWN.origin, OWN.vkey, own=True)
        ledger.logs.append(OWN.origin, LINES)
        ledger.checkpoint()
        with closing(sqlite3.connect(f"file:{tmp_path / DATABASE_FILE}?immutable=1", uri=True)) as file:
            assert file.execute("SELECT count(*) FROM entries").fetchone() == (len(LINES),)
        assert damage(ledger) == ()


def test_the_tables_of_a_new_ledger_are_in_its_file_at_once(tmp_path: Path) -> None:
    with (
        closing(opened(tmp_path)),
        closing(sqlite3.connect(f"file:{tmp_path / DATABASE_FILE}?immutable=1", uri=True)) as file,
    ):
        assert file.execute("SELECT number FROM writer").fetchone() == (1,)
