"""Which files the artifacts that this node holds have: so that a removal finds shared files without reading manifests.

A table beside the index of copies, in the same file. It is derived from this node's own `hold` statements and the
manifests that they name, and kept up to date in pages, in the background; a removal waits until it is complete. The
rows of a withdrawn artifact are deleted with its withdrawal. An artifact whose manifest cannot be read is remembered,
and tried again.

    grows with                       bound
    files of held artifacts          the manifests: about 80 bytes a file on disk; one page of manifests in memory
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from comity.content.blobs import BlobStore
from comity.content.durable import disk_errors
from comity.content.sqlite_cache import MAX_WAL_BYTES, locked_cache, sqlite_cache_error
from comity.ledger.proven import ProvenLine
from comity.node.members import Membership
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.node.uploads import read_manifest
from comity.rules.audit import DAY
from comity.trust.copies import read_holds
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.statement import SideObject, parse_entry
from comity.trust.statement_kinds import HOLD_PREDICATES

PAGE: Final = 64
"""Manifests that are read in one step."""
TOGETHER: Final = 2_048
"""Files that are added in one transaction; more if one artifact has more."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS held_file (
    file BLOB NOT NULL, artifact BLOB NOT NULL, PRIMARY KEY (file, artifact)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS held_since (artifact BLOB PRIMARY KEY, day INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unread_manifest (artifact BLOB PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS held_file_position (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL);
"""
_STANDS: Final = (
    "EXISTS (SELECT 1 FROM copy JOIN log ON log.id = copy.log"
    " WHERE copy.artifact = {table}.artifact AND log.vkey = ? AND copy.withdrawn < copy.held)"
)


class HeldFiles:
    """Blocking; thread-safe. Each call raises Unavailable (INDEX) where SQLite fails, and OutOfSpace for a full disk.

    Args:
        file: the database of the index of copies, which exists.
        own_log: the verifier key of the log of this node.
    """

    def __init__(self, file: Path, own_log: str) -> None:
        """Raises Unavailable, OutOfSpace."""
        self._own_log = own_log
        self._lock = threading.Lock()
        what = "the index of held files was not opened"
        try:
            with disk_errors(what):
                self._database = sqlite3.connect(file, check_same_thread=False, timeout=30)
                self._database.execute("PRAGMA synchronous = NORMAL")
                self._database.execute(f"PRAGMA journal_size_limit = {MAX_WAL_BYTES}")
                self._database.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise sqlite_cache_error(what, error) from error

    def close(self) -> None:
        with self._lock:
            self._database.close()

    @property
    def position(self) -> int:
        """The number of the last own hold whose manifest was read, or tried."""
        with self._reading():
            row = self._database.execute("SELECT number FROM held_file_position").fetchone()
        return int(row[0]) if row else 0

    def restart(self) -> None:
        """Forget everything: the ledger is another one."""
        with self._writing() as database:
            for table in ("held_file", "held_since", "unread_manifest", "held_file_position"):
                database.execute(f"DELETE FROM {table}")

    def add(
        self,
        files: Mapping[Digest, Collection[Digest]],
        unread: Mapping[Digest, int],
        position: int | None = None,
        day: int = 0,
    ) -> None:
        """Add the files of artifacts, about `TOGETHER` in one transaction, then the sizes of manifests that could not
        be read, and move the position: what a failure cuts short is read again. `day` is today, counted from 1970: from
        now on this node knows that it holds them."""
        rest = list(files.items())
        while rest:
            with self._writing() as database:
                added = 0
                while rest and added < TOGETHER:
                    artifact, names = rest.pop()
                    self._add_files(database, artifact, names)
                    added += len(names)
        with self._writing() as database:
            days = [(_blob(artifact), day) for artifact in (*files, *unread)]
            database.executemany("INSERT OR IGNORE INTO held_since VALUES (?, ?)", days)
            sizes = [(_blob(artifact), size) for artifact, size in unread.items()]
            database.executemany("INSERT OR REPLACE INTO unread_manifest VALUES (?, ?)", sizes)
            if position is not None:
                database.execute("INSERT OR REPLACE INTO held_file_position VALUES (1, ?)", (position,))

    def _add_files(self, database: sqlite3.Connection, artifact: Digest, names: Iterable[Digest]) -> None:
        rows = [(_blob(name), _blob(artifact)) for name in names]
        database.executemany("INSERT OR IGNORE INTO held_file VALUES (?, ?)", rows)
        database.execute("DELETE FROM unread_manifest WHERE artifact = ?", (_blob(artifact),))

    def forget(self, artifact: Digest, files: Iterable[Digest]) -> None:
        """This node's copy of an artifact was withdrawn."""
        with self._writing() as database:
            rows = [(_blob(name), _blob(artifact)) for name in files]
            database.executemany("DELETE FROM held_file WHERE file = ? AND artifact = ?", rows)
            for table in ("unread_manifest", "held_since"):
                database.execute(f"DELETE FROM {table} WHERE artifact = ?", (_blob(artifact),))

    def days(self, artifacts: Iterable[Digest]) -> dict[Digest, int]:
        """The day, counted from 1970, on which this node noted that it holds each of these artifacts; without those of
        which it did not yet."""
        wanted = "SELECT day FROM held_since WHERE artifact = ?"
        with self._reading():
            found = ((item, self._database.execute(wanted, (_blob(item),)).fetchone()) for item in artifacts)
            return {artifact: int(row[0]) for artifact, row in found if row}

    def shared(self, artifact: Digest, files: Iterable[Digest]) -> set[Digest]:
        """Those of the files that another artifact with a standing hold of this node has."""
        wanted = "SELECT 1 FROM held_file WHERE file = ? AND artifact <> ? AND " + _STANDS.format(table="held_file")
        with self._reading():
            return {
                name
                for name in files
                if self._database.execute(wanted + " LIMIT 1", (_blob(name), _blob(artifact), self._own_log)).fetchone()
            }

    def unread(self, after: Digest | None, limit: int) -> list[tuple[Digest, int]]:
        """Held artifacts, after `after`, whose manifest could not be read, and the size of the manifest."""
        wanted = (
            "SELECT artifact, size FROM unread_manifest WHERE artifact > ? AND "
            + _STANDS.format(table="unread_manifest")
            + " ORDER BY artifact LIMIT ?"
        )
        with self._reading():
            values = (_blob(after) if after else b"", self._own_log, limit)
            return [(Digest(artifact.hex()), size) for artifact, size in self._database.execute(wanted, values)]

    def _reading(self) -> AbstractContextManager[sqlite3.Connection]:
        return locked_cache(self._lock, self._database, "the index of held files was not read")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with locked_cache(self._lock, self._database, "the index of held files was not written") as database, database:
            yield database


class HeldFilesReader:
    """Keeps the table up to date. Not thread-safe: call from the event loop."""

    def __init__(
        self,
        ledger: AsyncLedger,
        store: BlobStore,
        pools: Pools,
        membership: Membership,
        held: HeldFiles,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._membership = membership
        self._held = held
        self._clock = clock

    async def read(self) -> None:
        """Read the manifests of all new holds, in bounded steps."""
        while await self.step():
            pass

    async def read_again(self) -> None:
        """Try the manifests again that could not be read."""
        after: Digest | None = None
        while page := await self._ledger.run(self._held.unread, after, PAGE):
            objects = [SideObject(artifact, size) for artifact, size in page]
            await self._ledger.run(
                self._held.add, *await self._pools.files(self._files, objects), None, int(self._clock()) // DAY
            )
            after = page[-1][0]

    async def step(self) -> bool:
        """Read the manifests of the next page of holds. Returns whether more may follow."""
        proven = self._ledger.tables.proven
        last, position = await self._ledger.read(proven.last_number), self._held.position
        if position > last:
            await self._ledger.run(self._held.restart)
            position = 0
        lines = await self._ledger.run(proven.since, position, HOLD_PREDICATES, PAGE, self._membership.own_node.log)
        if not lines:
            return False
        found = await self._pools.files(self._files, self._manifests(lines))
        await self._ledger.run(self._held.add, *found, lines[-1].number, int(self._clock()) // DAY)
        return len(lines) == PAGE

    def _manifests(self, lines: Sequence[ProvenLine]) -> list[SideObject]:
        statements = [parse_entry(line.line).statement for line in lines]
        own = [statement for statement in statements if statement.by == self._membership.own_node.record.node]
        return [item.manifest for statement in own for item in read_holds(statement)]

    def _files(self, manifests: Iterable[SideObject]) -> tuple[dict[Digest, set[Digest]], dict[Digest, int]]:
        """The files of artifacts, and the manifests that cannot be read. Blocking."""
        files, unread = dict[Digest, set[Digest]](), dict[Digest, int]()
        for item in manifests:
            try:
                manifest = read_manifest(self._store, item)
            except ComityError:
                unread[item.digest] = item.size
            else:
                files[item.digest] = {entry.sha256 for entry in manifest.files if entry.size}
        return files, unread


def _blob(digest: Digest) -> bytes:
    return bytes.fromhex(digest)
