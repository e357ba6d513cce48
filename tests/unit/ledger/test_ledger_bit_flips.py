"""A bit that changed on the disk is detected in every page of a ledger, and opening such a ledger does not crash."""

from __future__ import annotations

import random
import resource
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from comity.ledger.ledger import DATABASE_FILE, Ledger
from comity.ledger.page_files import SUFFIX
from comity.ledger.page_sums import PageSums, check_pages, damaged_pages
from comity.ledger.sqlite import SqliteFile
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from support.logs import LogKeys, statement_line, statement_lines

OWN = LogKeys.generate("own.example/log")
FAR = LogKeys.generate("far.example/log")
PAGE = 4096
FLIPS = 100
FENCE = 3
"""The fencing token of the third process that opens it."""


def opened(folder: Path) -> Ledger:
    return Ledger.open(folder, lambda: 1_000)


def opened_with_small_checkpoints(folder: Path) -> Ledger:
    backing = SqliteFile(folder / DATABASE_FILE, checkpoint_bytes=64 * 1024)
    return Ledger.open(folder, lambda: 1_000, backing=backing)


def damage(ledger: Ledger) -> tuple[int, ...]:
    assert ledger.pages is not None
    return check_pages(ledger.pages)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a closed, undamaged ledger."""
    folder = tmp_path_factory.mktemp("sound")
    with closing(opened(folder)) as ledger:
        ledger.logs.create(OWN.origin, OWN.vkey, own=True)
        ledger.logs.create(FAR.origin, FAR.vkey)
        lines = statement_lines(0, 300)
        ledger.logs.append(OWN.origin, lines)
        ledger.logs.set_note(OWN.origin, OWN.note_over(lines))
        ledger.logs.advance(FAR.origin, 0, lines, FAR.note_over(lines))
    with closing(opened(folder)) as ledger:
        assert not damage(ledger)
    return folder


def damaged_copy(sound: Path, folder: Path, *, bit: int) -> None:
    """Copy `sound` into `folder`, with one bit of the database changed."""
    for name in (DATABASE_FILE, DATABASE_FILE + SUFFIX):
        data = bytearray((sound / name).read_bytes())
        if name == DATABASE_FILE:
            data[bit // 8] ^= 1 << bit % 8
        with (folder / name).open("r+b") as file:
            file.truncate(0)
            file.write(data)


@pytest.fixture
def one_inode(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test treats copies of a ledger as the ledger itself, not as a copied ledger."""
    inode = (sound / DATABASE_FILE).stat().st_ino
    monkeypatch.setattr(PageSums, "_inode", lambda self: inode)


@pytest.fixture
def copied(tmp_path: Path, one_inode: None) -> Path:
    for name in (DATABASE_FILE, DATABASE_FILE + SUFFIX):
        (tmp_path / name).touch()
    return tmp_path


def test_all_of_a_hundred_bit_flips_are_found_and_named(sound: Path, copied: Path) -> None:
    pages = (sound / DATABASE_FILE).stat().st_size // PAGE
    choose = random.Random(20261127)
    found = Counter[str]()
    for nth in range(FLIPS):
        page = nth % pages  # every page first, then more of them
        bit = page * PAGE * 8 + choose.randrange(PAGE * 8)
        damaged_copy(sound, copied, bit=bit)
        found[_said_by_sums(copied, page + 1)] += 1
    assert found.total() == found["LEDGER-CORRUPT"] == FLIPS


def test_a_damaged_ledger_opens_or_is_refused_by_name(sound: Path, copied: Path) -> None:
    pages = (sound / DATABASE_FILE).stat().st_size // PAGE
    choose = random.Random(32)
    for page in range(0, pages, 8):
        damaged_copy(sound, copied, bit=page * PAGE * 8 + choose.randrange(PAGE * 8))
        assert _said(copied, page + 1) == "LEDGER-CORRUPT"


def _said_by_sums(folder: Path, page: int) -> str:
    sums = PageSums(folder / DATABASE_FILE)
    try:
        sums.begin(FENCE)
        assert check_pages(sums) == (page,)
        return damaged_pages(sums, (page,)).code
    except ComityError as error:  # the header of the file
        return error.code
    finally:
        sums.close()


def _said(folder: Path, page: int) -> str:
    """The code by which a damaged ledger is refused, at its start or by the check of its pages."""
    try:
        with closing(opened(folder)) as ledger:
            assert ledger.pages is not None
            assert damage(ledger) == (page,)
            for log in (OWN, FAR):
                _ends_with_known_errors(ledger, log)
            raise damaged_pages(ledger.pages, (page,))
    except ComityError as error:
        return error.code


def _ends_with_known_errors(ledger: Ledger, log: LogKeys) -> None:
    for work in (ledger.history.verify_right_edge, ledger.history.verify_all, ledger.logs.get, ledger.logs.weight):
        with suppress(ComityError):
            work(log.origin)


def test_a_flip_in_a_page_that_is_written_again_stays_known(sound: Path, copied: Path) -> None:
    """The row of the fencing token is written at each start, with all other bytes of its page."""
    with closing(sqlite3.connect(f"file:{sound / DATABASE_FILE}?mode=ro", uri=True)) as database:
        (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'writer'").fetchone()
    damaged_copy(sound, copied, bit=((page - 1) * PAGE + 2_000) * 8)
    for _ in range(3):
        with closing(opened(copied)) as ledger:
            assert damage(ledger) == (page,)
    with closing(opened(copied)) as ledger:
        assert ledger.pages is not None
        ledger.pages.accept((page,))
        assert damage(ledger) == ()


def test_pages_are_undamaged_during_transactions_and_after_a_crash(tmp_path: Path, one_inode: None) -> None:
    """A large write-ahead log is moved to the file repeatedly; the crash leaves the last one."""
    first = opened_with_small_checkpoints(tmp_path)
    first.logs.create(OWN.origin, OWN.vkey, own=True)
    for start in range(0, 320, 32):
        first.logs.append(OWN.origin, statement_lines(start, start + 32))
        assert damage(first) == ()
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for file in tmp_path.glob(DATABASE_FILE + "*"):
        (crashed / file.name).write_bytes(file.read_bytes())
    first.close()
    with closing(opened(crashed)) as again:
        assert damage(again) == ()
        assert again.logs.append(OWN.origin, [statement_line(400)]) == [320]
    with closing(opened(crashed)) as again:
        assert damage(again) == ()


def test_a_reader_that_keeps_an_old_state_raises_no_alarm(tmp_path: Path) -> None:
    with closing(opened_with_small_checkpoints(tmp_path)) as ledger:
        ledger.logs.create(OWN.origin, OWN.vkey, own=True)
        with closing(sqlite3.connect(tmp_path / DATABASE_FILE, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM entries").fetchone()
            for start in range(0, 128, 32):
                ledger.logs.append(OWN.origin, statement_lines(start, start + 32))
                assert damage(ledger) == ()
            reader.execute("ROLLBACK")
        ledger.logs.append(OWN.origin, statement_lines(128, 160))
        assert damage(ledger) == ()


def test_a_file_that_another_program_wrote_gets_new_sums(sound: Path, copied: Path) -> None:
    damaged_copy(sound, copied, bit=0)
    with closing(sqlite3.connect(sound / DATABASE_FILE)) as source, closing(opened(copied.parent / "fresh")) as ledger:
        assert damage(ledger) == ()
        assert source.execute("SELECT number FROM writer").fetchone() == (2,)
    with (copied / DATABASE_FILE).open("r+b") as file:
        file.write((sound / DATABASE_FILE).read_bytes())
    with closing(sqlite3.connect(copied / DATABASE_FILE)) as database, database:
        database.execute("UPDATE writer SET number = number + 1")  # as an older version of the program does
    with closing(opened(copied)) as ledger:
        assert damage(ledger) == ()


def test_a_damaged_key_of_a_node_is_named(tmp_path: Path) -> None:
    with closing(opened(tmp_path)):
        pass
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as database, database:
        database.execute("INSERT INTO nodes VALUES (zeroblob(32), X'7BEA')")
    (tmp_path / (DATABASE_FILE + SUFFIX)).unlink()  # with its sums, the start would make the table again
    with closing(opened(tmp_path)) as ledger, pytest.raises(ComityError) as refusal:
        ledger.proven.node_key(Digest("00" * 32))
    assert refusal.value.code == "LEDGER-CORRUPT"


@contextmanager
def full_disk(file: Path) -> Iterator[None]:
    """No file can become larger than this one is now: its pages can be written, and none can be added."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint_is_no_damage(tmp_path: Path) -> None:
    lines = statement_lines(0, 320)
    with closing(opened(tmp_path)) as ledger:
        ledger.logs.create(OWN.origin, OWN.vkey, own=True)
        ledger.logs.append(OWN.origin, lines[:300])
    with closing(opened_with_small_checkpoints(tmp_path)) as ledger:
        assert not damage(ledger)
        with full_disk(tmp_path / DATABASE_FILE):
            ledger.logs.append(OWN.origin, lines[300:])
        assert not damage(ledger), "some pages were moved to the file, and have no new sum yet"
        ledger.logs.append(OWN.origin, [statement_line(320)])
        assert not damage(ledger)
    with closing(opened(tmp_path)) as ledger:
        assert not damage(ledger)
