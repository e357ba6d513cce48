"""Indexes of files that nodes gave, on this machine: with them, nobody is asked which artifacts have a file.

    <id of the node>.json       the signed state, and which file has its records, of how many bytes
    <id of the node>.<n>        these records, and perhaps what a fetch that was cut short has added; see
                                `comity.rules.file_records`

Records are appended; a state is replaced when all before its end is on the disk. Whatever is read here is compared with
what the node signed: records that were changed, or cut, are refused whole, and the indexes of other nodes count. A file
that is carried has one or several indexes, each as

    comity/file-index/v1 BYTES-OF-THE-RECORDS\\n || line of the state || \\n || records

    grows with                    bound
    bytes of one index            MAX_BYTES; one block of it in memory
    indexes                       one of each node of the pinned federations
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.rules.file_records import (
    MAX_RECORD,
    START,
    FileIndexState,
    FileRecord,
    check_state,
    malformed,
    next_head,
    read_records,
)
from comity.trust.encoding import Digest, Fields, canonical, parse_canonical
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Untrusted
from comity.trust.frozen import frozen
from comity.trust.node_records import NodeRecord
from comity.trust.statement import MAX_LINE

from comity_client.home import exclusive

MAX_BYTES: Final = 4 * 1024**3
"""Bytes of the records of one node: of about 170 million files."""
BLOCK: Final = 1024 * 1024
MAX_STATE: Final = 4 * MAX_LINE
FETCH: Final = "comity index fetch"
_HEADER: Final = re.compile(rb"comity/file-index/v1 ([0-9]{1,12})\n\Z")


@frozen
class KeptIndex:
    """An index of a node, of which the signature was checked, and the records were not yet."""

    node: NodeRecord
    state: FileIndexState
    line: bytes
    records: Path
    size: int

    def read(self) -> Iterator[FileRecord]:
        """Its records. Blocking. Raises Untrusted (FILE-INDEX-DAMAGED) at the end, or before it, if they are not what
        the node signed: nothing that was read counts before the end is reached. Raises Unavailable."""
        head, count, rest = START, 0, b""
        try:
            for block in self.blocks():
                rest += block
                used = 0
                for record, data in read_records(rest):
                    head, count, used = next_head(head, data), count + 1, used + len(data)
                    yield record
                rest = rest[used:]
        except Malformed as error:
            raise self._damaged(error.why) from error
        if rest or (head.hex(), count) != (self.state.head, self.state.records):
            raise self._damaged("its records are not those that the node signed")

    def blocks(self) -> Iterator[bytes]:
        """The bytes of the records. Blocking. Raises Untrusted (FILE-INDEX-DAMAGED), Unavailable."""
        left = self.size
        with durable.disk_errors(f"{self.records} was not read"), self.records.open("rb") as file:
            while block := file.read(min(BLOCK, left)):
                left -= len(block)
                yield block
        if left:
            raise self._damaged("its records end too early")

    def carried(self) -> Iterator[bytes]:
        """Itself, to be carried to another machine. Raises as `blocks` does."""
        yield b"comity/file-index/v1 %d\n%b\n" % (self.size, self.line)
        yield from self.blocks()

    def _damaged(self, why: str) -> Untrusted:
        what = f"the index of files of {self.node.name} is damaged"
        return Untrusted(what, why=f"{self.records}: {why}", hint=f"{FETCH} --again", code="FILE-INDEX-DAMAGED")


@frozen
class DamagedIndex:
    """An index of a node of which nothing counts, and why."""

    node: NodeRecord
    error: ComityError

    @property
    def problem(self) -> str:
        """The file, what is wrong with it, and what replaces it."""
        return f"{self.error}; to replace it: {self.error.hint}" if self.error.hint else str(self.error)


@frozen
class IndexesHere:
    """The indexes that are here, by the names of their nodes."""

    kept: tuple[KeptIndex, ...]
    damaged: tuple[DamagedIndex, ...]

    @property
    def nodes(self) -> frozenset[Digest]:
        """Whose they are, the damaged ones too."""
        named = (*(each.node for each in self.kept), *(each.node for each in self.damaged))
        return frozenset(record.node.id for record in named)

    def checked(self) -> IndexesHere:
        """The same, with the records of each compared with what its node signed. Reads all. Blocking."""
        whole, damaged = list[KeptIndex](), list(self.damaged)
        for index in self.kept:
            try:
                for _ in index.read():
                    pass
            except ComityError as error:
                damaged.append(DamagedIndex(index.node, error))
            else:
                whole.append(index)
        return replace(self, kept=tuple(whole), damaged=tuple(damaged))


class KeptIndexes:
    """The indexes in `folder`, which exists, of nodes of the pinned federations.

    Args:
        nodes: their records.
    """

    def __init__(self, folder: Path, nodes: Iterable[NodeRecord]) -> None:
        self.folder = folder
        self._nodes: Mapping[Digest, NodeRecord] = {record.node.id: record for record in nodes}

    def all(self) -> IndexesHere:
        """All of them. A damaged one costs no other one."""
        kept, damaged = list[KeptIndex](), list[DamagedIndex]()
        for node in sorted(self._nodes.values(), key=lambda record: record.name):
            try:
                found = self.of(node)
            except ComityError as error:
                damaged.append(DamagedIndex(node, error))
            else:
                kept += [found] if found else []
        return IndexesHere(tuple(kept), tuple(damaged))

    def of(self, node: NodeRecord) -> KeptIndex | None:
        """The index of a node; None if none is here. Raises Malformed if it is damaged, and Unavailable."""
        path = self._path(node)
        try:
            data = read_bounded(path, MAX_STATE)
            fields = Fields(parse_canonical(data, limit=MAX_STATE, what="kept index"), "kept index")
            line, size = fields.text("line", most=MAX_LINE).encode(), fields.integer("size", most=MAX_BYTES)
            number = fields.integer("number")
            fields.done()
            state, _ = check_state(line, [node])
        except NotFound:
            return None
        except (Malformed, Untrusted) as error:
            what = f"the index of files of {node.name} is damaged"
            raise Malformed(what, why=f"{path}: {error}", hint=FETCH) from error
        return KeptIndex(node, state, line, self._records(node, number), size)

    def _continued(self, node: NodeRecord) -> KeptIndex | None:
        """As `of`, but None also for a damaged one: a new one takes its place, as if it had been removed."""
        with suppress(Malformed):
            return self.of(node)
        return None

    def locked(self) -> AbstractContextManager[None]:
        """For who writes."""
        return exclusive(self.folder)

    @contextmanager
    def writing(self, node: NodeRecord, *, again: bool = False) -> Iterator[IndexWriter]:
        """What continues the index of a node, or with `again`, and where it is damaged, begins one that takes its place
        when it is complete. Locked by the caller. What was not kept is removed at the end."""
        kept = None if again else self._continued(node)
        suffixes = [path.suffix[1:] for path in self.folder.glob(f"{node.node.id}.*")]
        numbers = [int(suffix) for suffix in suffixes if suffix.isdecimal()]
        number = int(kept.records.suffix[1:]) if kept else 1 + max(numbers, default=0)
        path = self._records(node, number)
        with durable.disk_errors(f"{path} was not written"), path.open("ab") as file:
            writer = IndexWriter(node, kept, file, lambda line, size: self._keep(node, number, line, size))
            try:
                yield writer
            finally:
                for unused in [number] if writer.kept is None else set(numbers) - {number}:
                    self._records(node, unused).unlink(missing_ok=True)

    def import_file(self, path: Path, *, again: bool = False) -> list[KeptIndex]:
        """Keep the indexes in a file, each once all of it was checked. Raises Malformed, Untrusted (FILE-INDEX-SIGNER,
        FILE-INDEX-DAMAGED), Conflict (FILE-INDEX-OLDER), Unavailable.

        Args:
            again: also what is older than what is here.
        """
        taken = list[KeptIndex]()
        with self.locked(), durable.disk_errors(f"{path} was not read"), path.open("rb") as file:
            while header := file.readline(BLOCK):
                said = _HEADER.match(header)
                if said is None:
                    hint = "comity index export FILE, where indexes are"
                    raise Malformed(f"{path} is no index of files", why="it does not begin as one", hint=hint)
                line = file.readline(MAX_LINE + 1).rstrip(b"\n")
                taken.append(self._import_one(file, line, int(said[1]), again=again))
        if not taken:
            raise Malformed(f"{path} is no index of files", why="it is empty")
        return taken

    def _import_one(self, file: BinaryIO, line: bytes, size: int, *, again: bool) -> KeptIndex:
        state, node = check_state(line, self._nodes.values())
        if not again and (kept := self._continued(node)) is not None:
            require_not_older(state, kept)
        with self.writing(node, again=True) as writer:
            while size:
                block = file.read(min(BLOCK, size))
                if not block:
                    raise malformed("it ends within its records")
                size -= len(block)
                writer.add(block)
            return writer.keep(line)

    def _keep(self, node: NodeRecord, number: int, line: bytes, size: int) -> None:
        data = canonical({"line": line.decode("ascii"), "number": number, "size": size})
        durable.write_file(self._path(node), data, mode=0o600, point="memory")

    def _path(self, node: NodeRecord) -> Path:
        return self.folder / f"{node.node.id}.json"

    def _records(self, node: NodeRecord, number: int) -> Path:
        return self.folder / f"{node.node.id}.{number}"


class IndexWriter:
    """Adds records to an index of a node. Not thread-safe. Blocking.

    Attributes:
        kept: the index that is continued; None for a new one.
        count: records that were added or were there, and `head` theirs.
        size: their bytes.
    """

    def __init__(
        self, node: NodeRecord, kept: KeptIndex | None, file: BinaryIO, keep: Callable[[bytes, int], None]
    ) -> None:
        self.kept = kept
        self.count, self.head, self.size = START_OF_INDEX
        self._node = node
        self._file = file
        self._keep = keep
        self._rest = b""
        if kept is not None:
            self.count, self.head, self.size = kept.state.records, bytes.fromhex(kept.state.head), kept.size
        self._end = self.count, self.head, self.size
        self.back()

    def back(self) -> None:
        """Forget what was added since the last `done`, or since what was kept."""
        self.count, self.head, self.size = self._end
        self._rest = b""
        self._file.truncate(self.size)

    def add(self, data: bytes) -> None:
        """Add records, of which the last may be continued by what is added next. Raises Malformed."""
        self._rest += data
        used = 0
        for _, record in read_records(self._rest):
            self.count, self.head, used = self.count + 1, next_head(self.head, record), used + len(record)
        self._file.write(self._rest[:used])
        self.size += used
        self._rest = self._rest[used:]
        if self.size > MAX_BYTES or len(self._rest) > MAX_RECORD:
            raise Malformed("the index of files is too long", why=f"more than {MAX_BYTES} bytes", code="UNBOUNDED")

    def done(self, line: bytes) -> FileIndexState:
        """Check that the node signed exactly what was added. Raises Malformed, Untrusted; then it must be forgotten."""
        state, _ = check_state(line, [self._node])
        if self._rest or (state.head, state.records) != (self.head.hex(), self.count):
            why = "its records are not those that the node signed"
            raise Untrusted(f"the index of files of {self._node.name} is damaged", why=why, code="FILE-INDEX-DAMAGED")
        self._end = self.count, self.head, self.size
        return state

    def keep(self, line: bytes) -> KeptIndex:
        """Keep what was added. Raises as `done`, and OutOfSpace, Unavailable."""
        state = self.done(line)
        with durable.disk_errors("an index of files was not written"):
            self._file.flush()
            durable.fsync(self._file.fileno(), point="memory")
        self._keep(line, self.size)
        self.kept = KeptIndex(self._node, state, line, Path(os.fsdecode(self._file.name)), self.size)
        return self.kept


START_OF_INDEX: Final = (0, START, 0)


def require_not_older(state: FileIndexState, kept: KeptIndex) -> None:
    """Raises Conflict (FILE-INDEX-OLDER): an old index in place of a newer one would hide what was published since."""
    if state.older_than(kept.state):
        raise Conflict(
            f"this index of files of {kept.node.name} is older than the one that is here",
            why="it has less of a log, or an earlier time",
            hint="to take it nevertheless: --again",
            code="FILE-INDEX-OLDER",
        )


@frozen
class NamedByIndex:
    """Files of an artifact that an index names: whose it is (`file_records.MEMBERS`, `OTHERS`), and what it is called
    there."""

    whose: int
    name: str
    references: frozenset[bytes]


@frozen
class FoundInIndex:
    """How many files an index has, each in each artifact that has it; and the artifacts that have those looked for."""

    files: int
    artifacts: Mapping[Digest, NamedByIndex]


def find_files(index: KeptIndex, wanted: frozenset[bytes]) -> FoundInIndex:
    """Which artifacts have these files, as an index says. Reads all of it. Blocking. Raises as `KeptIndex.read`."""
    found, files = dict[Digest, NamedByIndex](), 0
    for record in index.read():
        references = record.references
        files += len(references)
        here = wanted.intersection(references)
        if here:
            before = found.get(record.artifact, NamedByIndex(record.whose, record.name, frozenset()))
            first = min((before.whose, before.name), (record.whose, record.name), key=lambda each: each[0])
            found[record.artifact] = NamedByIndex(*first, before.references | here)
    return FoundInIndex(files, found)
