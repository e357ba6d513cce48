"""How often each file was sent to clients, by week: counts, and nothing about who asked.

A file is counted when its last byte was sent to a client: through the gateway, a signed URL, or the open port. What
other members' nodes copy is not counted. The pulls of an artifact are the counts of its largest file: a client that
has the files already asks for none, one that resumes is counted once, and one that takes parts from several nodes is
counted where it took the end. Two artifacts with the same largest file have the same counts.

The counts are in `pulls.sqlite` beside the ledger, written every half minute; a process that dies loses that much. If
the file is damaged, it is kept under another name at the next start, and the counts begin again.

    grows with                   bound       at the bound
    files counted in one week    MAX_FILES   further files are counted together, without their names
    weeks                        KEPT_WEEKS  the oldest are removed
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from comity.content.sqlite_cache import kept_file_errors, make_tables_or_set_aside
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.telemetry import warn_of_kept_file
from comity.node.threads import Clock, Pools
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen

PULLS_FILE: Final = "pulls.sqlite"
"""Beside the ledger."""
TIMING: Final = LoopTiming(interval=30.0, deadline=60.0)
MAX_FILES: Final = 100_000
MAX_UNWRITTEN: Final = 10_000
KEPT_WEEKS: Final = 105
DAY: Final = 86_400
FAILED: Final = "the counts of pulls were not read or written"
"""What failed, for errors."""
OTHERS: Final = b""
"""The key of the files of a week that are counted together."""
ASKED_TOGETHER: Final = 500
"""Files whose counts are read together."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS pulls (
    week INTEGER NOT NULL, file BLOB NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (week, file)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pulls_file ON pulls (file, week);
"""


_log: Final = structlog.get_logger("comity.node")


@frozen
class WeekCount:
    """Pulls in the week that begins on a Monday, 00:00 UTC; `begins` as YYYY-MM-DD."""

    begins: str
    count: int


def week_of(now: float) -> int:
    """The number of a week; weeks begin on Mondays in UTC."""
    return (int(now) // DAY + 3) // 7


def week_begins(week: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime((week * 7 - 3) * DAY))


def counted_file(manifest: Manifest) -> Digest:
    """The file of an artifact whose counts are its pulls: the largest; of equal ones, the smallest digest."""
    return min(manifest.files, key=lambda file: (-file.size, file.sha256)).sha256


class PullCounts:
    """Counts and writes. `count` is for the event loop; `write` and the reads block, and are thread-safe."""

    def __init__(self, folder: Path, pools: Pools, clock: Clock) -> None:
        """Blocking. Raises Unavailable, OutOfSpace."""
        self._path = folder / PULLS_FILE
        self._pools = pools
        self._clock = clock
        self._lock = threading.Lock()
        self._unwritten: Counter[tuple[int, bytes]] = Counter()
        self._files: tuple[int, int] = (0, 0)
        """A week, and the number of its rows."""
        with kept_file_errors(FAILED):
            make_tables_or_set_aside(self._path, _SCHEMA, warn_of_kept_file)

    def begin(self, supervisor: Supervisor) -> None:
        supervisor.loop("pull counts", self._step, TIMING)

    def count(self, file: Digest) -> None:
        """The last byte of a file was sent to a client."""
        key = week_of(self._clock()), bytes.fromhex(file)
        if len(self._unwritten) >= MAX_UNWRITTEN and key not in self._unwritten:
            key = key[0], OTHERS
        self._unwritten[key] += 1

    async def _step(self) -> None:
        """The counts that are not written yet are written, or kept for the next step."""
        taken, self._unwritten = self._unwritten, Counter()
        writing = asyncio.ensure_future(self._pools.files(self.write, taken))
        writing.add_done_callback(partial(self._keep_unwritten, taken))
        await asyncio.shield(writing)  # the thread goes on when this step is cancelled

    def _keep_unwritten(self, taken: Counter[tuple[int, bytes]], writing: asyncio.Future[None]) -> None:
        if writing.cancelled() or writing.exception() is not None:
            self._unwritten.update(taken)

    def close(self) -> None:
        """Write what is left. Blocking. What cannot be written is lost, as when the process dies."""
        taken, self._unwritten = self._unwritten, Counter()
        try:
            self.write(taken)
        except ComityError as error:
            _log.warning("the last counts of pulls are lost", why=str(error), code=error.code)

    def write(self, counts: Counter[tuple[int, bytes]]) -> None:
        """Blocking. Raises Unavailable, OutOfSpace."""
        if not counts:
            return
        with self._lock, self._database() as database, database:
            for (week, file), count in counts.items():
                self._add(database, week, file, count)
            database.execute("DELETE FROM pulls WHERE week <= ?", (week_of(self._clock()) - KEPT_WEEKS,))

    def _add(self, database: sqlite3.Connection, week: int, file: bytes, count: int) -> None:
        if self._files[0] != week:
            (rows,) = database.execute("SELECT count(*) FROM pulls WHERE week = ?", (week,)).fetchone()
            self._files = week, rows
        sql = "UPDATE pulls SET count = count + ? WHERE week = ? AND file = ?"
        if database.execute(sql, (count, week, file)).rowcount:
            return
        if self._files[1] >= MAX_FILES and file != OTHERS:
            self._add(database, week, OTHERS, count)
            return
        database.execute("INSERT INTO pulls VALUES (?, ?, ?)", (week, file, count))
        self._files = week, self._files[1] + 1

    def weeks(self, file: Digest, most: int = KEPT_WEEKS) -> list[WeekCount]:
        """Blocking. As `read_weeks`."""
        return read_weeks(self._path, file, most)

    def recent(self, files: Sequence[Digest], weeks: int) -> Counter[Digest]:
        """How often each of these files was counted in the newest weeks, this one included. Blocking. Raises
        Unavailable."""
        found = Counter[Digest]()
        first = week_of(self._clock()) - weeks + 1
        with self._database() as database:
            for start in range(0, len(files), ASKED_TOGETHER):
                some = [bytes.fromhex(file) for file in files[start : start + ASKED_TOGETHER]]
                among = ",".join("?" * len(some))
                wanted = f"SELECT file, sum(count) FROM pulls WHERE file IN ({among}) AND week >= ? GROUP BY file"
                for file, count in database.execute(wanted, (*some, first)):
                    found[Digest(file.hex())] = count
        return found

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        with kept_file_errors(FAILED), closing(sqlite3.connect(self._path, timeout=10)) as database:
            yield database


def read_weeks(path: Path, file: Digest | None, most: int = KEPT_WEEKS) -> list[WeekCount]:
    """The newest weeks in which a file was counted, the newest first; of all files together, if `file` is None.
    Blocking. Raises Unavailable."""
    if not path.exists():
        return []
    with (
        kept_file_errors(FAILED),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database,
    ):
        if file is None:
            sql, values = "SELECT week, sum(count) FROM pulls GROUP BY week ORDER BY week DESC LIMIT ?", (most,)
            found: Sequence[tuple[int, int]] = database.execute(sql, values).fetchall()
        else:
            sql = "SELECT week, count FROM pulls WHERE file = ? ORDER BY week DESC LIMIT ?"
            found = database.execute(sql, (bytes.fromhex(file), most)).fetchall()
    return [WeekCount(week_begins(week), count) for week, count in found]
