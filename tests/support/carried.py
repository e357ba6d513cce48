"""A node in memory that bundles are exported from: one log, its side objects, and the files of some artifacts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Self, cast

from comity.rules.charter_drafts import genesis
from comity.trust.charter.document import CharterPolicy
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound, Refused
from comity.trust.tlog.note import NoteSignature
from comity.wire.blob import BlobStat
from comity.wire.client import NodeClient
from comity.wire.log import EntryBatch, LogHead, ShownMisbehaviour
from comity.wire.messages import LocatedEntry
from comity.wire.node import Charter, NodeFacts
from comity_client.bundles.exporting import ExportedBundle, ExportOrder, export_bundle
from comity_client.events import ignore_event
from support.assembly import members
from support.logs import LogKeys, statement_line
from support.publisher import Publisher, Release, model, release

ORIGIN = "node-ch/log"
CHUNK = 100_000


@cache
def a_charter(cosigner_quorum: int) -> bytes:
    """A charter that asks for so many cosigners."""
    seats = [who.member for who in members(4)]
    return genesis(seats, CharterPolicy(3, 1, 1, cosigner_quorum), {}).data


class Stopped(Exception):
    """The export was interrupted."""


@dataclass
class MemoryNode:
    """The data of a node. `budget` is how many bytes of files it sends before the reader is interrupted."""

    keys: LogKeys = field(default_factory=lambda: LogKeys.generate(ORIGIN))
    lines: list[bytes] = field(default_factory=list)
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    body: bytes = field(default_factory=lambda: a_charter(0))
    cosigners: tuple[str, ...] = ()
    """Names under which the checkpoint of its log is cosigned, with no valid signature."""
    budget: float = float("inf")
    asked: list[str] = field(default_factory=list)
    refusals: int = 0
    """How many calls for objects are refused because there are too many."""
    misbehaving: list[ShownMisbehaviour] = field(default_factory=list)
    limited: set[str] = field(default_factory=set)
    """Calls of which the next one is refused because there are too many."""
    lacks: str = ""
    """The piece layout for which it has no records."""
    on_read: Callable[[], None] = lambda: None
    """Called before each answer with bytes of a file."""

    def publish(self, folder: Path, name: str, *, weights: int, seed: int) -> Release:
        what = release(Publisher.generate(), model(folder, weights=weights, seed=seed), name)
        self.lines += what.lines
        self.blobs |= what.objects
        self.blobs |= {digest: path.read_bytes() for digest, path in what.blobs.items()}
        return what

    def write(self, count: int) -> None:
        start = len(self.lines)
        self.lines += [statement_line(number) for number in range(start, start + count)]

    @property
    def client(self) -> NodeClient:
        return cast(NodeClient, self)

    def with_timeout(self, timeout: float) -> Self:
        return self

    def _count(self, call: str) -> None:
        if call in self.limited:
            self.limited.remove(call)
            raise Refused("too many calls", code="RATE")

    async def node(self) -> NodeFacts:
        self._count("node")
        return NodeFacts("comity", ORIGIN)

    async def charter(self, epoch: int | None = None) -> Charter:
        self._count("charter")
        return Charter(0, self.body, (b"a line",))

    async def epochs(self, start: int = 0) -> tuple[Charter, ...]:
        self._count("epochs")
        if start:
            raise NotFound("no such charter")
        return (await self.charter(),)

    async def logs(self) -> tuple[LogHead, ...]:
        self._count("logs")
        cosigned = (NoteSignature(name, b"0000", bytes(64)) for name in self.cosigners)
        note = self.keys.note_over(self.lines).with_signatures(*cosigned)
        return (LogHead(ORIGIN, self.keys.vkey, note.encode()),)

    async def entries(self, origin: str, start: int, end: int) -> AsyncGenerator[EntryBatch, None]:
        self._count("entries")
        for at in range(start, end, 7):
            yield EntryBatch(at, tuple(self.lines[at : min(end, at + 7)]))

    async def misbehaviour(self) -> tuple[ShownMisbehaviour, ...]:
        self._count("misbehaviour")
        return tuple(self.misbehaving)

    async def claims(self, digest: Digest) -> tuple[LocatedEntry, ...]:
        return tuple(LocatedEntry(ORIGIN, index, line) for index, line in enumerate(self.lines))

    async def object(self, digest: Digest) -> bytes:
        self.asked.append(digest)
        if self.refusals:
            self.refusals -= 1
            raise Refused("too many calls", code="RATE")
        if digest not in self.blobs:
            raise NotFound("no such object here")
        return self.blobs[digest]

    async def stat(self, digests: Sequence[Digest]) -> tuple[BlobStat, ...]:
        return tuple(BlobStat(each, each in self.blobs, len(self.blobs.get(each, b""))) for each in digests)

    async def records(self, digest: Digest, layout: str) -> bytes:
        if layout == self.lacks:
            raise NotFound("no piece records here")
        return f"records of {digest} in {layout}".encode()

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        self._count("read")
        self.on_read()
        for at in range(offset, offset + length, CHUNK):
            data = self.blobs[digest][at : min(at + CHUNK, offset + length)]
            self.budget -= len(data)
            if self.budget < 0:
                raise Stopped
            yield data


async def exported(node: MemoryNode, folder: Path, order: ExportOrder | None = None) -> ExportedBundle:
    return await export_bundle(node.client, order or ExportOrder(everything=True), folder, ignore_event)


def some_node(tmp_path: Path, *, weights: int = 2_500_000) -> MemoryNode:
    node = MemoryNode()
    node.write(10)
    node.publish(tmp_path / "model", "tests/model@v1", weights=weights, seed=1)
    return node


def contents(folder: Path) -> Mapping[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rewritten(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    path = folder / name
    path.write_bytes(change(path.read_bytes()))
