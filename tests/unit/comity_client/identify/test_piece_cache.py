"""The cache of piece records keeps the newest files, and no more bytes than its bound."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from comity.trust.encoding import sha256
from comity_client.identify.piece_cache import CACHE_FILE, PieceCache
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

MOST = 2_000
FILES = [sha256(bytes([number])) for number in range(8)]


@given(st.lists(st.tuples(st.sampled_from(FILES), st.integers(0, 40)), max_size=30))
@settings(max_examples=examples(40))
def test_the_newest_records_are_kept_within_the_bound_and_the_oldest_go(kept: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cache, newest = PieceCache(Path(folder), MOST), dict[str, bytes]()
        for file, pieces in kept:
            records = bytes([pieces]) * 36 * pieces
            cache.keep(sha256(file.encode()), records)
            newest.pop(file, None)
            newest[file] = records
        found = {file: cache.get(sha256(file.encode())) for file in newest}
    there = [file for file, records in found.items() if records is not None]
    assert sum(len(newest[file]) for file in there) <= MOST
    assert all(found[file] == newest[file] for file in there)
    assert there == list(newest)[len(newest) - len(there) :], "only the oldest are gone"
    assert not kept or there[-1:] == [kept[-1][0]], "the last one fits"


def test_a_file_stays_on_the_disk_as_large_as_its_bound_however_much_is_kept(tmp_path: Path) -> None:
    cache, sizes = PieceCache(tmp_path, 100_000), list[int]()
    for number in range(60):
        cache.keep(sha256(b"%d" % number), bytes(36 * 500))
        sizes.append((tmp_path / CACHE_FILE).stat().st_size)
    assert max(sizes) < 250_000


def test_records_of_one_file_that_exceed_the_bound_are_not_kept_and_move_nothing_out(tmp_path: Path) -> None:
    cache = PieceCache(tmp_path, MOST)
    cache.keep(FILES[0], b"small")
    cache.keep(FILES[1], bytes(MOST))
    assert (cache.get(FILES[0]), cache.get(FILES[1])) == (b"small", None)


def test_the_table_of_an_earlier_version_which_had_no_bound_goes(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / CACHE_FILE)) as database, database:
        database.execute("CREATE TABLE cut (sha256 BLOB PRIMARY KEY, records BLOB) WITHOUT ROWID")
        database.execute("INSERT INTO cut VALUES (?, ?)", (b"file", bytes(500_000)))
    cache = PieceCache(tmp_path, MOST)
    cache.keep(FILES[0], b"records")
    assert cache.get(FILES[0]) == b"records"
    with closing(sqlite3.connect(tmp_path / CACHE_FILE)) as database:
        assert database.execute("SELECT name FROM sqlite_master WHERE name = 'cut'").fetchall() == []
