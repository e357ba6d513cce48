"""Which files the artifacts that this node holds have: so that a removal finds shared files without reading manifests.

Tables beside the index of copies, in the same file (`comity.node.projection`). They are derived from this node's own
`hold` statements and the manifests that they name, in the background; a removal waits until they are complete. The
rows of a withdrawn artifact are deleted with its withdrawal. An artifact whose manifest cannot be read is remembered,
and tried again.

    grows with                       bound
    files of held artifacts          the manifests: about 80 bytes a file on disk; one page of manifests in memory
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from comity.content.blobs import BlobStore
from comity.ledger.proven import ProvenLine
from comity.node.members import Membership
from comity.node.projection import Follower, Position, Projection, ProjectionTables, packed, unpacked
from comity.node.reading import ReadState
from comity.node.telemetry import warn_of_kept_file
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
TOGETHER: Final = 200
"""Artifacts in one query."""
_SCHEMA: Final = """
CREATE TABLE held_file (file BLOB NOT NULL, artifact BLOB NOT NULL, PRIMARY KEY (file, artifact)) WITHOUT ROWID;
CREATE TABLE unread_manifest (artifact BLOB PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
"""
_KEPT: Final = """
CREATE TABLE IF NOT EXISTS held_since (artifact BLOB PRIMARY KEY, day INTEGER NOT NULL) WITHOUT ROWID;
"""
_TABLES: Final = ProjectionTables("held files", "the index of held files", 1, _SCHEMA, _KEPT, warn_of_kept_file)
_STANDS: Final = (
    "EXISTS (SELECT 1 FROM copy JOIN log ON log.id = copy.log"
    " WHERE copy.artifact = {table}.artifact AND log.vkey = ? AND copy.withdrawn < copy.held)"
)


class HeldFiles(Projection):
    """Each call raises as those of `Projection`.

    Args:
        file: the database of the index of copies, which exists.
        own_log: the verifier key of the log of this node.
    """

    def __init__(self, file: Path, own_log: str) -> None:
        """Raises Unavailable, OutOfSpace."""
        self._own_log = own_log
        super().__init__(file, _TABLES, own_log)

    def add(
        self,
        files: Mapping[Digest, Collection[Digest]],
        unread: Mapping[Digest, int],
        position: Position | None = None,
        day: int = 0,
    ) -> None:
        """Add the files of artifacts, then the sizes of manifests that could not be read, and move the position. `day`
        is today, counted from 1970: from now on this node knows that it holds them."""
        rows = ((packed(name), packed(artifact)) for artifact, names in files.items() for name in names)
        self._write(
            rows, lambda database, some: database.executemany("INSERT OR IGNORE INTO held_file VALUES (?, ?)", some)
        )
        with self._writing(position) as database:
            read = [(packed(artifact),) for artifact in files]
            database.executemany("DELETE FROM unread_manifest WHERE artifact = ?", read)
            days = [(packed(artifact), day) for artifact in (*files, *unread)]
            database.executemany("INSERT OR IGNORE INTO held_since VALUES (?, ?)", days)
            sizes = [(packed(artifact), size) for artifact, size in unread.items()]
            database.executemany("INSERT OR REPLACE INTO unread_manifest VALUES (?, ?)", sizes)

    def forget(self, artifact: Digest, files: Iterable[Digest]) -> None:
        """This node's copy of an artifact was withdrawn."""
        with self._writing() as database:
            rows = [(packed(name), packed(artifact)) for name in files]
            database.executemany("DELETE FROM held_file WHERE file = ? AND artifact = ?", rows)
            for table in ("unread_manifest", "held_since"):
                database.execute(f"DELETE FROM {table} WHERE artifact = ?", (packed(artifact),))

    def days(self, artifacts: Iterable[Digest]) -> dict[Digest, int]:
        """The day, counted from 1970, on which this node noted that it holds each of these artifacts; without those of
        which it did not yet."""
        keys = [packed(artifact) for artifact in artifacts]
        found: dict[Digest, int] = {}
        with self._reading() as database:
            for start in range(0, len(keys), TOGETHER):
                some = keys[start : start + TOGETHER]
                wanted = f"SELECT artifact, day FROM held_since WHERE artifact IN ({','.join('?' * len(some))})"
                found |= {unpacked(artifact): int(day) for artifact, day in database.execute(wanted, some)}
        return found

    def shared(self, artifact: Digest, files: Iterable[Digest]) -> set[Digest]:
        """Those of the files that another artifact with a standing hold of this node has."""
        wanted = "SELECT 1 FROM held_file WHERE file = ? AND artifact <> ? AND " + _STANDS.format(table="held_file")
        with self._reading():
            return {
                name
                for name in files
                if self._database.execute(
                    wanted + " LIMIT 1", (packed(name), packed(artifact), self._own_log)
                ).fetchone()
            }

    def unread(self, after: Digest | None, limit: int) -> list[tuple[Digest, int]]:
        """Held artifacts, after `after`, whose manifest could not be read, and the size of the manifest."""
        wanted = (
            "SELECT artifact, size FROM unread_manifest WHERE artifact > ? AND "
            + _STANDS.format(table="unread_manifest")
            + " ORDER BY artifact LIMIT ?"
        )
        with self._reading():
            values = (packed(after) if after else b"", self._own_log, limit)
            return [(unpacked(artifact), size) for artifact, size in self._database.execute(wanted, values)]


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
        self._follower = Follower(ledger, held, HOLD_PREDICATES, log=membership.own_node.log)

    def progress(self) -> ReadState:
        """Up to which statement the manifests were read. Blocking."""
        return self._follower.progress()

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
        lines = await self._follower.next(PAGE)
        if not lines:
            return False
        found = await self._pools.files(self._files, self._manifests(lines))
        await self._ledger.run(self._held.add, *found, Position.at(lines[-1]), int(self._clock()) // DAY)
        return True

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
