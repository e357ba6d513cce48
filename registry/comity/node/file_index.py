"""Which artifacts have a file: the files of the manifests of all proven publications, by the first half of their
SHA-256. And which files have a piece: of weight files that this node has hashed (`comity.node.piece_rows`).

Rows beside the ledger (`comity.node.projection`), read in the background. A manifest is here before the log that names
it advances, so one that cannot be read was lost, and is passed over until the rows are computed again.

Files of publishers to whom the charter binds a namespace, and of members and their nodes, are apart from those of
others, so that no stranger can fill the part of an answer that is theirs. When the charter changes who these are, all
rows are computed again; until then, answers say how much is unread.

    grows with                       bound
    files of published artifacts     the manifests: at most 100 bytes a file on disk; one page of manifests in memory
    pieces of weight files           the bytes that are here: about 28 bytes for each piece of at least 256 KiB on disk,
                                     `piece_rows.MOST` pieces a file; the piece records of one file in memory

Beside the rows by which files are found are the records by which others have the whole index
(`comity.rules.file_records`), in the order in which they were made, each with the head of all up to it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from comity.content.blobs import BlobStore
from comity.formats.tensors import tensor_reader
from comity.ledger.proven import ProvenLine
from comity.node import piece_rows
from comity.node.members import Membership
from comity.node.projection import TOGETHER, Follower, Position, Projection, ProjectionTables, packed, unpacked
from comity.node.reading import ReadState
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Pools
from comity.node.uploads import read_in_one_step, read_manifest
from comity.rules.file_records import FILES_TOGETHER, MEMBERS, OTHERS, START, FileRecord, next_head
from comity.rules.pieces import TENSOR_LAYOUT
from comity.trust.encoding import Digest, canonical, sha256
from comity.trust.errors import ComityError, NotFound
from comity.trust.frozen import frozen
from comity.trust.statement import SideObject, Statement, parse_entry
from comity.trust.statement_kinds import PUBLICATION_PREDICATES, PUBLISHED
from comity.trust.statements import Published
from comity.trust.upstream import Observed
from comity.wire import limits
from comity.wire.files import FilePrefixes, file_reference

FILE_NAME: Final = "files.sqlite"
"""The index, beside the ledger."""
PAGE: Final = 128
"""Statements that are read in one step, at most: `read_in_one_step`."""
PIECE_RECORDS: Final = 256
"""Piece records that are read in one step."""
TIMING: Final = LoopTiming(interval=2.0, deadline=86_400.0)
UNFINISHED: Final = OTHERS + 1
"""In place of whose files, while those of an artifact are being written: what a crash cuts short is read again."""
_SCHEMA: Final = """
CREATE TABLE artifact (digest BLOB PRIMARY KEY, number INTEGER NOT NULL, whose INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE file (
    whose INTEGER, reference BLOB, number INTEGER, digest BLOB NOT NULL, PRIMARY KEY (whose, reference, number)
    ) WITHOUT ROWID;
CREATE TABLE record (number INTEGER PRIMARY KEY, data BLOB NOT NULL, head BLOB NOT NULL);
CREATE TABLE counted (files INTEGER NOT NULL, artifacts INTEGER NOT NULL);
INSERT INTO counted VALUES (0, 0);
"""
_log: Final = structlog.get_logger("comity.node")
_TABLES: Final = ProjectionTables("files", "the index of files", 4, _SCHEMA + piece_rows.SCHEMA)
_FILES: Final = "SELECT reference, digest FROM file WHERE whose = ? AND reference BETWEEN ? AND ? LIMIT ?"
"""References, each with the digest of an artifact. It is in the row: to look for it elsewhere took two thirds of the
time of an answer, as each of its artifacts is on another page."""


@frozen
class IndexedArtifact:
    """An artifact whose files are to be indexed, whose they are, and how a publication names it."""

    digest: Digest
    whose: int
    references: frozenset[bytes]
    name: str = ""


@frozen
class RecordsRead:
    """Records, joined; how many there are up to the last one, and the head of these."""

    data: bytes
    number: int
    head: bytes


@frozen
class FilesFound:
    """References of files with the digests of artifacts that have them, or of pieces with those of files: those of
    members, and those of others; prefixes of which there are more."""

    of_members: list[bytes]
    of_others: list[bytes]
    cut: list[int]


class FileIndex(Projection):
    """Each call raises as those of `Projection`.

    Args:
        file: the database; made if it is missing.
        basis: whose files come first, as one text.
    """

    def __init__(self, file: Path, basis: str) -> None:
        """Raises Unavailable, OutOfSpace."""
        super().__init__(file, _TABLES, basis)

    @property
    def count(self) -> int:
        """Files in the index: each in each artifact that has it."""
        with self._reading() as database:
            (count,) = database.execute("SELECT files FROM counted").fetchone()
        return int(count)

    @property
    def pieces(self) -> int:
        """Pieces in the index: each in each file that has it."""
        with self._reading() as database:
            return piece_rows.counted(database).pieces

    @property
    def piece_records_read(self) -> int:
        """The number of the last piece records that were read."""
        with self._reading() as database:
            return piece_rows.counted(database).read

    def whose(self, artifacts: Sequence[Digest]) -> dict[Digest, int]:
        """Of artifacts that are indexed, whose they are."""
        wanted = f"SELECT digest, whose FROM artifact WHERE digest IN ({','.join('?' * len(artifacts))})"
        with self._reading() as database:
            return {unpacked(digest): whose for digest, whose in database.execute(wanted, [*map(packed, artifacts)])}

    def whose_files(self, files: Sequence[Digest]) -> dict[Digest, int]:
        """Of files that are indexed, whose they are."""
        found = dict[Digest, int]()
        wanted = "SELECT min(whose) FROM file WHERE whose IN (?, ?) AND reference = ?"
        with self._reading() as database:
            for file in files:
                (whose,) = database.execute(wanted, (MEMBERS, OTHERS, file_reference(file))).fetchone()
                if whose is not None:
                    found[file] = whose
        return found

    def add_pieces(self, file: Digest, whose: int, records: bytes) -> None:
        """Add the pieces of a file, from its piece records. Raises Malformed."""
        self._write(piece_rows.references_of(records), partial(piece_rows.add, file, whose))

    def move_piece_records(self, number: int) -> None:
        with self._writing() as database:
            piece_rows.records_were_read(database, number)

    def add(self, artifacts: Iterable[IndexedArtifact], position: Position) -> None:
        """Add artifacts, and move the position with the last one."""
        for parts in _transactions(artifacts):
            with self._writing() as database:
                for part in parts:
                    _add(database, part)
        with self._writing(position):
            pass

    @property
    def last_record(self) -> int:
        """The number of the last record."""
        with self._reading() as database:
            (number,) = database.execute("SELECT coalesce(max(number), 0) FROM record").fetchone()
        return int(number)

    def records(self, after: int, head: bytes, size: int) -> RecordsRead:
        """The records after the first `after`, of at most `size` bytes together. Raises NotFound (FILE-INDEX-REPLACED)
        if `head` is not the head of those."""
        found, number = list[bytes](), after
        with self._reading() as database:
            if _head(database, after) != head:
                why = "this index was computed again, for example because the charter has other members"
                raise NotFound("the index has other records", why=why, code="FILE-INDEX-REPLACED")
            for number_read, data, head_read in database.execute(_RECORDS, (after,)):
                size -= len(data)
                if size < 0:
                    break
                found.append(data)
                number, head = number_read, head_read
        return RecordsRead(b"".join(found), number, head)

    def with_prefixes(self, asked: FilePrefixes) -> FilesFound:
        """What is indexed of each prefix: of members, and of others, at most `limits.PREFIX_FILES` of either."""
        found, most = FilesFound([], [], []), limits.PREFIX_FILES
        wanted = piece_rows.WITH_PREFIX if asked.pieces else _FILES
        for prefix, first, last in asked.bounds():
            with self._reading() as database:
                parts = [_with_prefix(database, wanted, whose, first, last, most) for whose in (MEMBERS, OTHERS)]
            found.of_members.extend(parts[MEMBERS][:most])
            found.of_others.extend(parts[OTHERS][:most])
            if any(len(part) > most for part in parts):
                found.cut.append(prefix)
        return found

    def artifacts_with(self, file: Digest, most: int) -> tuple[list[Digest], bool]:
        """Artifacts that have a file, at most `most` of members, and then as many of others, each in the order in which
        they were indexed; and whether there are more. The index has half of each digest: read their manifests."""
        reference = file_reference(file)
        with self._reading() as database:
            parts = [_with_prefix(database, _FILES, whose, reference, reference, most) for whose in (MEMBERS, OTHERS)]
        found = (pair.removeprefix(reference) for part in parts for pair in part[:most])
        return list(dict.fromkeys(map(unpacked, found))), any(len(part) > most for part in parts)


@frozen
class _ArtifactPart:
    """Files of an artifact that are one record; `last`: whether there are no others after these."""

    artifact: IndexedArtifact
    references: Sequence[bytes]
    last: bool


def _transactions(artifacts: Iterable[IndexedArtifact]) -> Iterator[list[_ArtifactPart]]:
    """Parts of artifacts: of one transaction those of at most `TOGETHER` files."""
    some, files = list[_ArtifactPart](), 0
    for artifact in artifacts:
        references = sorted(artifact.references)
        for start in range(0, max(1, len(references)), FILES_TOGETHER):
            end = start + FILES_TOGETHER
            part = _ArtifactPart(artifact, references[start:end], end >= len(references))
            if some and files + len(part.references) > TOGETHER:
                yield some
                some, files = [], 0
            some.append(part)
            files += len(part.references)
    if some:
        yield some


def _add(database: sqlite3.Connection, part: _ArtifactPart) -> None:
    artifact, references = part.artifact, part.references
    digest, whose = packed(artifact.digest), artifact.whose
    number = _number(database, digest)
    if part.last:
        database.execute("UPDATE artifact SET whose = min(whose, ?) WHERE digest = ?", (whose, digest))
    before = database.total_changes
    rows = ((whose, reference, number, digest) for reference in references)
    database.executemany("INSERT OR IGNORE INTO file VALUES (?, ?, ?, ?)", rows)
    new = database.total_changes - before
    database.execute("UPDATE counted SET files = files + ?", (new,))
    if new:  # otherwise these were written before their statement was read to its end, and are again
        last = database.execute("SELECT number, head FROM record ORDER BY number DESC LIMIT 1").fetchone() or (0, START)
        record = FileRecord(whose, artifact.digest, artifact.name, b"".join(references)).encode()
        database.execute("INSERT INTO record VALUES (?, ?, ?)", (last[0] + 1, record, next_head(last[1], record)))


def _number(database: sqlite3.Connection, artifact: bytes) -> int:
    """The number of an artifact, in the order in which they were indexed."""
    found = database.execute("SELECT number FROM artifact WHERE digest = ?", (artifact,)).fetchone()
    if found is None:
        found = database.execute("UPDATE counted SET artifacts = artifacts + 1 RETURNING artifacts").fetchone()
        database.execute("INSERT INTO artifact VALUES (?, ?, ?)", (artifact, *found, UNFINISHED))
    return int(found[0])


_RECORDS: Final = "SELECT number, data, head FROM record WHERE number > ? ORDER BY number"


def _head(database: sqlite3.Connection, number: int) -> bytes | None:
    """The head of so many records; None if there are fewer."""
    row = database.execute("SELECT head FROM record WHERE number = ?", (number,)).fetchone()
    return START if not number else row and row[0]


def _with_prefix(
    database: sqlite3.Connection, wanted: str, whose: int, first: bytes, last: bytes, most: int
) -> list[bytes]:
    """References, each with the digest of what has it: one more than an answer has."""
    rows = database.execute(wanted, (whose, first, last, most + 1))
    return [reference + digest for reference, digest in rows]


@frozen
class _IndexedPublication:
    """The manifest that a publication names, whose it is, and the name."""

    manifest: SideObject
    whose: int
    name: str


class FileIndexReader:
    """Keeps the index up to date. Not thread-safe: call from the event loop."""

    def __init__(
        self, ledger: AsyncLedger, store: BlobStore, pools: Pools, membership: Membership, index: FileIndex
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._membership = membership
        self.index = index
        self._follower = Follower(ledger, index, PUBLICATION_PREDICATES, basis=partial(index_basis, membership))

    def begin(self, supervisor: Supervisor) -> None:
        supervisor.loop("file index", self.read, TIMING)

    def progress(self) -> ReadState:
        """Up to which statement the manifests were read. Blocking."""
        return self._follower.progress()

    async def read(self) -> None:
        """Read the manifests of all new publications, and all new piece records, in bounded steps."""
        while await self.step():
            pass

    async def step(self) -> bool:
        """Read the manifests of the next publications, or piece records. Returns whether more may follow."""
        lines = await self._follower.next(PAGE)
        if not lines:
            return await self._pools.files(self._add_new_pieces)
        await self._pools.files(self._add, lines, self._membership.precedence.members)
        return True

    def _add(self, lines: Sequence[ProvenLine], first: Collection[Digest]) -> None:
        """Blocking. The first of these lines, as many as are read in one step."""
        published = [_published(line, first) for line in lines]
        del published[read_in_one_step(each.manifest for each in published) :]
        known = self.index.whose([each.manifest.digest for each in published])
        new = dict[Digest, _IndexedPublication]()
        for each in published:
            digest = each.manifest.digest
            if each.whose < known.get(digest, UNFINISHED):
                new[digest], known[digest] = each, each.whose
        self.index.add(filter(None, map(self._read, new.values())), Position.at(lines[len(published) - 1]))

    def _add_new_pieces(self) -> bool:
        """Add pieces of published files whose piece records came after the publication. Returns whether more may
        follow. Blocking."""
        pieces, read = self._ledger.tables.pieces, self.index.piece_records_read
        if (last := pieces.last_number()) == read:
            return False
        if last < read:  # the newest ones were deleted
            read = 0
        found = pieces.blobs_since(read, TENSOR_LAYOUT, PIECE_RECORDS)
        for file, whose in self.index.whose_files([file for _, file in found]).items():
            self._add_pieces(file, whose)
        self.index.move_piece_records(found[-1][0] if len(found) == PIECE_RECORDS else last)
        return len(found) == PIECE_RECORDS

    def _add_pieces(self, file: Digest, whose: int) -> None:
        """Add the pieces of a file, where its piece records are here."""
        records = self._ledger.tables.pieces.records(file, TENSOR_LAYOUT)
        if records is not None:
            self.index.add_pieces(file, whose, records)

    def _read(self, named: _IndexedPublication) -> IndexedArtifact | None:
        manifest = named.manifest
        try:
            files = read_manifest(self._store, manifest).files
        except ComityError as error:
            _log.warning("the files of an artifact are not indexed", artifact=manifest.digest, why=str(error))
            return None
        weights = frozenset(entry.sha256 for entry in files if tensor_reader(entry.path) is not None)
        for file in weights:
            self._add_pieces(file, named.whose)
        references = frozenset(file_reference(entry.sha256) for entry in files)
        return IndexedArtifact(manifest.digest, named.whose, references, named.name)


def index_basis(membership: Membership) -> str:
    """Whose files come first, of all who sign publications: the publishers of the charter's namespaces, and members."""
    body = membership.body
    return sha256(canonical(sorted({*membership.known, *(body.namespaces.values() if body else ())})))


def _published(line: ProvenLine, first: Collection[Digest]) -> _IndexedPublication:
    statement = parse_entry(line.line).statement
    whose = MEMBERS if statement.by is not None and statement.by.id in first else OTHERS
    published = publication_of(statement)
    return _IndexedPublication(published.manifest, whose, str(published.name))


def publication_of(statement: Statement) -> Published | Observed:
    """What a `published` or `observed` statement says. Raises Malformed."""
    return (Published if statement.predicate == PUBLISHED else Observed).parse(statement)
