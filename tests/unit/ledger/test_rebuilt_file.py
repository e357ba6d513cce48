"""A ledger with damaged pages is written again without them, where its tables can be filled again."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from attackers.forging import Identity, Release
from comity.ledger import rebuilt_file
from comity.ledger.ledger import DATABASE_FILE, Ledger
from comity.ledger.page_sums import check_pages
from comity.ledger.quotas import OutsideAmount, OutsideQuota
from comity.ledger.rebuilt_file import REBUILT
from comity.node.intake import LineProver
from support.logs import LogKeys, statement_line, statement_lines

OWN, FAR = LogKeys.generate("own.example/log"), LogKeys.generate("far.example/log")
HONEST, RIVAL = Identity.made("honest"), Identity.made("rival")
CLAIMS = [
    line
    for who in (HONEST, RIVAL)
    for line in (who.inception, *(who.publish(f"a/b@v{n}", Release(f"{who.label} {n}".encode())) for n in range(3)))
]
LINES = statement_lines(0, 600)
PAGE = 4096
OUTSIDER = OutsideQuota("author", "somebody", OutsideAmount(9, 99_999))


def opened(folder: Path) -> Ledger:
    return Ledger.open(folder, lambda: 1_000)


def proven(ledger: Ledger) -> list[str]:
    LineProver(ledger, lambda who: ()).finish_all()
    found = [claimant.publisher for claimant in ledger.proven.claimants("a/b").found]
    return [*found, *(ledger.proven.names_with(["a/b@v2"], 9) or [])]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a closed ledger, all of whose pages have sums."""
    with closing(opened(tmp_path)) as ledger:
        ledger.logs.create(OWN.origin, OWN.vkey, own=True)
        ledger.logs.create(FAR.origin, FAR.vkey)
        ledger.logs.append(OWN.origin, CLAIMS)
        ledger.logs.set_note(OWN.origin, OWN.note_over(CLAIMS))
        ledger.logs.advance(FAR.origin, 0, LINES, FAR.note_over(LINES))
        ledger.outside_usage.charge(OWN.origin, CLAIMS[:1], [OUTSIDER])
        assert set(proven(ledger)) >= {HONEST.id, RIVAL.id}
    with closing(opened(tmp_path)) as ledger:
        assert ledger.pages is not None and check_pages(ledger.pages) == ()
    return tmp_path


def damage(folder: Path, name: str, *, last: bool = False) -> int:
    """Overwrite a page of a table or index. Returns its number."""
    with closing(sqlite3.connect(f"file:{folder / DATABASE_FILE}?immutable=1", uri=True)) as database:
        rows = database.execute("SELECT pageno FROM dbstat WHERE name = ? ORDER BY path", (name,)).fetchall()
    (page,) = rows[-1 if last else 0]
    with (folder / DATABASE_FILE).open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(random.Random(page).randbytes(PAGE))
    return int(page)


def rows(folder: Path, table: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{folder / DATABASE_FILE}?mode=ro", uri=True)) as database:
        return sorted(database.execute(f"SELECT * FROM {table}"))


@pytest.mark.parametrize(
    "name",
    [
        "statements",
        "subjects",
        "claimants",
        "publication_words_data",
        "ix_statements_predicate_number",
        "sqlite_autoindex_witnessed_1",
        "ix_waiting_copies_due",
        "tiles",
        "log_objects",
        "cosignatures",
        "piece_records",
    ],
)
def test_a_damaged_page_of_what_can_be_made_again_is_repaired_at_the_start(folder: Path, name: str) -> None:
    known = {table: rows(folder, table) for table in ("tiles", "log_objects", "outside_shares", "checkpoints", "logs")}
    inode = (folder / DATABASE_FILE).stat().st_ino
    with closing(opened(folder)) as ledger:
        before = proven(ledger)
    page = damage(folder, name)
    with closing(opened(folder)) as ledger:
        assert ledger.examined.rewritten == (page,) and ledger.examined.damaged == ()
        assert f"{page} ({name})" in ledger.examined.named
        assert proven(ledger) == before
        for log, lines in ((OWN, CLAIMS), (FAR, LINES)):
            assert ledger.history.entries(log.origin, 0, len(lines)) == lines
            ledger.history.verify_all(log.origin)
        assert ledger.logs.append(OWN.origin, [statement_line(700)]) == [len(CLAIMS)]
        assert ledger.pages is not None and check_pages(ledger.pages) == ()
    changed = {"tiles", "logs"}  # by the entry that was added
    assert {table: rows(folder, table) for table in known if table not in changed} == {
        table: found for table, found in known.items() if table not in changed
    }
    assert (folder / DATABASE_FILE).stat().st_ino == inode
    with closing(opened(folder)) as ledger:
        assert (ledger.examined.named, ledger.examined.unchecked) == ("", "")


def test_lost_entries_leave_gaps_that_a_peer_can_fill(folder: Path) -> None:
    page = damage(folder, "entries", last=True)
    with closing(opened(folder)) as ledger:
        assert ledger.examined.rewritten == (page,)
        damaged = [part for log in (OWN, FAR) for n in range(3) if (part := ledger.repair.check(log.vkey, n))]
        assert damaged
        for part in damaged:
            lines = CLAIMS if part.log == OWN.vkey else LINES
            ledger.repair.mend(part, lines[part.start : part.end])
        for log in (OWN, FAR):
            ledger.history.verify_all(log.origin)


@pytest.mark.parametrize("name", ["outside_shares", "writer"])
def test_damage_of_what_is_nowhere_else_is_named_and_left(folder: Path, name: str) -> None:
    page = damage(folder, name)
    before = (folder / DATABASE_FILE).read_bytes()[: PAGE * page]
    try:
        with closing(opened(folder)) as ledger:
            assert ledger.examined.damaged == (page,) and f"{page} ({name})" in ledger.examined.named
    except Exception as error:
        assert getattr(error, "code", "") == "LEDGER-CORRUPT"
    assert (folder / DATABASE_FILE).read_bytes()[PAGE * (page - 1) : PAGE * page] == before[-PAGE:]


def test_a_start_ends_a_repair_that_a_crash_interrupted(folder: Path) -> None:
    file = folder / DATABASE_FILE
    shutil.copyfile(file, folder / (DATABASE_FILE + REBUILT))
    with file.open("r+b") as half:
        half.write(bytes(20 * PAGE))
    inode = file.stat().st_ino
    with closing(opened(folder)) as ledger:
        assert ledger.history.entries(FAR.origin, 0, 600) == LINES
    assert file.stat().st_ino == inode and not (folder / (DATABASE_FILE + REBUILT)).exists()


def test_what_a_crash_left_in_the_write_ahead_log_is_kept(folder: Path) -> None:
    ledger = opened(folder)
    ledger.logs.append(OWN.origin, [statement_line(700)])
    left = {file: file.read_bytes() for file in folder.glob(DATABASE_FILE + "*")}
    ledger.close()
    for each, data in left.items():
        with each.open("r+b" if each.exists() else "w+b") as again:
            again.truncate(0)
            again.write(data)
    page = damage(folder, "claimants")
    with closing(opened(folder)) as ledger:
        assert ledger.examined.rewritten == (page,)
        assert ledger.history.entries(OWN.origin, 0, len(CLAIMS) + 1) == [*CLAIMS, statement_line(700)]
        ledger.history.verify_all(OWN.origin)
        assert set(proven(ledger)) >= {HONEST.id, RIVAL.id}


def test_no_table_is_read_from_an_index_of_it(folder: Path) -> None:
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as database:
        for (table,) in database.execute(rebuilt_file._TABLES).fetchall():
            order = rebuilt_file._order(database, table)
            plan = database.execute(f"EXPLAIN QUERY PLAN SELECT * FROM {table} NOT INDEXED ORDER BY {order}").fetchall()
            assert [row[3] for row in plan] == [f"SCAN {table}"]
