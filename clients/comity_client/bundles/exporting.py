"""Writes what a node has to a bundle: charters, logs, side objects, piece records, and files of artifacts.

A node is read by the calls that everybody may make. What has a hash, or is in a log, is verified while it is written:
each log's entries lead to the root of its checkpoint, and each object and file has its SHA-256. Signatures are verified
when the bundle is loaded.

A bundle continues earlier ones: of each log it has the entries after theirs, and no object or file that they carry.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from comity.rules.pieces import PieceIndex, PieceLayout
from comity.rules.tree_proofs import Frontier
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.charter.document import Body
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Conflict, Malformed, NotFound, OutOfSpace, Untrusted
from comity.trust.frozen import frozen
from comity.trust.statement import Statement, parse_entry
from comity.trust.statement_kinds import OBSERVED, PUBLISHED
from comity.trust.statements import Published
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import Checkpoint, SignedNote
from comity.trust.upstream import Observed
from comity.wire import limits
from comity.wire.asking import patiently
from comity.wire.client import NodeClient
from comity.wire.log import LogHead

from comity_client.bundles.contents import (
    MAX_ITEMS,
    BundleIndex,
    CarriedFile,
    CarriedLog,
    PackMember,
    encode_misbehaviour_proof,
)
from comity_client.bundles.erasure import ErasureCode
from comity_client.bundles.folder import disk_roots, read_listing
from comity_client.bundles.loading import split_lines
from comity_client.bundles.writing import BundleWriter, DiskPlan
from comity_client.events import Note, OnEvent, Progress, Started, in_thread

LINES_BYTES: Final = 4 * 1024 * 1024
PACK_BYTES: Final = 64 * 1024 * 1024
PACKED: Final = 1024 * 1024
"""Files of artifacts up to this size are members of packs."""
AT_ONCE: Final = 8
"""Small objects that are fetched at the same time."""
TIMEOUT: Final = 60.0

T = TypeVar("T")
U = TypeVar("U")


@frozen
class EarlierBundle:
    """What an earlier bundle has carried. Only its index and its list of contents are needed."""

    index: BundleIndex
    digests: frozenset[bytes]

    @classmethod
    def read(cls, folder: Path) -> EarlierBundle:
        """Raises NotFound, Malformed, Untrusted (BUNDLE)."""
        index, layout = read_listing(disk_roots(folder))
        digests = {bytes.fromhex(file.sha256) for file in layout.files if file.path.startswith("blobs/")}
        for file in layout.files:
            digests.update(bytes.fromhex(member.sha256) for member in file.members if member.blob is None)
        return cls(index, frozenset(digests))


@frozen
class ExportOrder:
    """What to export. Logs and charters always are.

    Attributes:
        artifacts: which artifacts; if empty, those that the exported entries publish.
        everything: every artifact of the node, also of entries that earlier bundles have.
    """

    artifacts: tuple[Digest, ...] = ()
    everything: bool = False
    earlier: tuple[EarlierBundle, ...] = ()
    disks: DiskPlan = field(default_factory=DiskPlan)

    def encode(self) -> bytes:
        """The plan of an export: it continues only what was begun with the same one."""
        code = self.disks.code
        value = {
            "artifacts": sorted(self.artifacts),
            "everything": self.everything,
            "earlier": [bundle.index.digest for bundle in self.earlier],
            "disk_bytes": self.disks.disk_bytes,
            "parity": [code.data, code.total] if code else None,
        }
        return json.dumps(value).encode() + b"\n"


@frozen
class ExportedBundle:
    """What was written.

    Attributes:
        entries: new entries of all logs together.
        written: bytes written by this process, with index, list and parity.
        incomplete: artifacts that were left out, because the node lacks a file or piece records of them, or because
            their documents are malformed or contradict each other.
        uncosigned: logs with new entries that too few have cosigned yet.
    """

    index: BundleIndex
    files: int
    entries: int
    written: int
    incomplete: tuple[str, ...]
    uncosigned: tuple[UncosignedLog, ...] = ()


@frozen
class UncosignedLog:
    """A log whose carried checkpoint has fewer cosigners, by their names, than the newest charter asks for.

    Where the bundle is loaded only the nodes there can add one, so a policy that asks for more refuses new entries.
    """

    origin: str
    cosigners: int
    asked: int


@frozen
class _Publication:
    """What is needed of a publication or observation: its name, and its piece index."""

    name: str
    pieces: Digest


@dataclass(slots=True)
class _Collected:
    """What the exported artifacts and entries need."""

    objects: dict[Digest, None] = field(default_factory=dict)
    publications: dict[Digest, list[_Publication]] = field(default_factory=dict)
    """By artifact, those with different piece indexes: any member may publish it again with a false one."""
    files: dict[Digest, int] = field(default_factory=dict)
    records: dict[tuple[Digest, str], set[tuple[Digest, Digest]]] = field(default_factory=dict)
    """By file and layout, who needs the piece records: an artifact by one of its indexes."""
    usable: dict[Digest, set[Digest]] = field(default_factory=dict)
    """By artifact, the indexes by which it can be copied from the bundle."""
    complete: dict[Digest, str] = field(default_factory=dict)
    """Names, by artifact."""
    incomplete: list[str] = field(default_factory=list)
    seen: set[tuple[Digest, Digest]] = field(default_factory=set)
    """Artifacts with an index, of `publications`."""

    def add(self, statement: Statement) -> None:
        self.objects |= dict.fromkeys(item.digest for item in statement.objects)
        self.add_publication(statement)

    def add_publication(self, statement: Statement) -> None:
        found = read_publication(statement)
        if found is not None and (found.artifact, found.pieces.digest) not in self.seen:
            self.seen.add((found.artifact, found.pieces.digest))
            self.publications.setdefault(found.artifact, []).append(_needed(found))

    def add_files(
        self,
        artifact: Digest,
        publication: _Publication,
        files: Iterable[FileEntry],
        layouts: Mapping[str, PieceLayout],
    ) -> None:
        """Add the objects, files and piece records of an artifact, by one of its indexes."""
        self.complete.setdefault(artifact, publication.name)
        self.usable.setdefault(artifact, set()).add(publication.pieces)
        self.objects |= dict.fromkeys((artifact, publication.pieces))
        for entry in files:
            self.files[entry.sha256] = entry.size
            needed_by = self.records.setdefault((entry.sha256, layouts[entry.path].layout), set())
            needed_by.add((artifact, publication.pieces))

    def lack_records(self, file: Digest, layout: str) -> None:
        """The node has no such piece records."""
        for artifact, index in self.records[file, layout]:
            self.usable[artifact].discard(index)
            if not self.usable[artifact] and artifact in self.complete:
                self.incomplete.append(self.complete.pop(artifact))


def read_publication(statement: Statement) -> Published | Observed | None:
    """The publication or observation in a statement, unverified; None for other statements."""
    try:
        if statement.predicate == OBSERVED:
            return Observed.parse(statement)
        return Published.parse(statement) if statement.predicate == PUBLISHED else None
    except Malformed:
        return None


def _needed(found: Published | Observed) -> _Publication:
    return _Publication(str(found.name), found.pieces.digest)


class BundleExport:
    """One export from a node."""

    def __init__(self, client: NodeClient, order: ExportOrder, folder: Path, on_event: OnEvent) -> None:
        self._client = client.with_timeout(TIMEOUT)
        self._order = order
        self._writer = BundleWriter(folder, order.disks)
        self._on_event = on_event
        self._had = frozenset[bytes]().union(*(bundle.digests for bundle in order.earlier))
        self._collected = _Collected()
        self._cosigners: dict[str, int] = {}
        """By a log's verifier key, how many names have cosigned the checkpoint that is carried."""

    async def run(self) -> ExportedBundle:
        """Raises Conflict (BUNDLE-EXISTS, EXPORT-RUNS, OTHER-EXPORT), OutOfSpace, NotFound, Untrusted, and the errors
        of the calls. Repeat it to continue."""
        with self._writer.alone():
            return await self._run()

    async def _run(self) -> ExportedBundle:
        writer, plan = self._writer, self._order.encode()
        if await asyncio.to_thread(writer.begin, plan) != plan:
            hint = "repeat the export that was begun there, or name another folder"
            raise Conflict("another export was begun in this folder", hint=hint, code="OTHER-EXPORT")
        federation, first_epoch, epochs, asked = await self._charters()
        logs = await self._logs()
        await self._misbehaviour()
        await self._choose(logs)
        await self._pack()
        large = [(digest, size) for digest, size in self._collected.files.items() if size > PACKED]
        layout = await asyncio.to_thread(writer.lay_out, large)
        work = sum(size for _, size in large) + layout.parity_bytes
        self._on_event(Started(len(layout.files), layout.size, 0, work))
        for number in range(len(layout.files) - len(large), len(layout.files)):
            with closing(writer.open_large(layout, number)) as file:
                await in_thread(partial(_reported, file.resume, layout.files[number].path), self._on_event)
                if not file.complete:
                    await self._fetch(layout.files[number], file.size, file.write)
                await asyncio.to_thread(file.finish)
        facts = await patiently(self._client.node)
        index = BundleIndex(
            federation=federation,
            node=facts.origin,
            earlier=tuple(bundle.index.digest for bundle in self._order.earlier),
            contents=sha256(b""),
            size=0,
            disk_bytes=1,
            code=ErasureCode(1, 1),
            logs=tuple(logs),
            first_epoch=first_epoch,
            epochs=epochs,
            artifacts=len(self._collected.complete),
        )
        finish = partial(writer.finish, layout, index)
        index = await in_thread(partial(_reported, finish, "parity"), self._on_event)
        entries = sum(log.end.size - log.start.size for log in logs)
        incomplete = tuple(self._collected.incomplete)
        uncosigned = tuple(self._uncosigned(logs, asked))
        return ExportedBundle(index, len(layout.files), entries, writer.written, incomplete, uncosigned)

    def _uncosigned(self, logs: Iterable[CarriedLog], asked: int) -> Iterator[UncosignedLog]:
        for log in logs:
            if log.end.size > log.start.size and self._cosigners[log.log] < asked:
                yield UncosignedLog(log.origin, self._cosigners[log.log], asked)

    async def _charters(self) -> tuple[str, int, int, int]:
        """Write the epochs after those of earlier bundles. Returns the federation, the first epoch, their number, and
        how many cosigners the newest charter asks for."""
        try:
            federation = sha256((await patiently(partial(self._client.charter, 0))).body)
        except NotFound:
            return "", 0, 0, 0
        for bundle in self._order.earlier:
            if bundle.index.federation != federation:
                why = f"{bundle.index.federation[:16] or 'none'} there, {federation[:16]} at this node"
                raise Untrusted("an earlier bundle is of another federation", why=why, code="WRONG-FEDERATION")
        first = at = max((each.index.first_epoch + each.index.epochs for each in self._order.earlier), default=0)
        try:
            while True:
                for charter in await patiently(partial(self._client.epochs, at)):
                    await self._add(f"charter/{charter.epoch:06d}.body", charter.body)
                    await self._add(f"charter/{charter.epoch:06d}.certificate", _joined(charter.certificate))
                    at = charter.epoch + 1
        except NotFound:
            newest = Body.parse((await patiently(partial(self._client.charter, at - 1))).body)
            return federation, first, at - first, newest.policy.cosigner_quorum

    async def _logs(self) -> list[CarriedLog]:
        starts: dict[str, Frontier] = {}
        for log in (log for bundle in self._order.earlier for log in bundle.index.logs):
            if log.end.size >= starts.get(log.log, Frontier.empty()).size:
                starts[log.log] = log.end
        logs: list[CarriedLog] = []
        for head in sorted(await patiently(self._client.logs), key=lambda head: head.vkey):
            start = starts.get(head.vkey, Frontier.empty())
            if head.note and Checkpoint.parse(SignedNote.parse(head.note).text).size >= start.size:
                logs.append(await self._log(len(logs), head, start))
        return logs

    async def _log(self, number: int, head: LogHead, start: Frontier) -> CarriedLog:
        """Write a log from `start` to its head, or to the head with which this export was begun."""
        path = f"logs/{number:05d}/checkpoint"
        begun = self._writer.find(path)
        note = await asyncio.to_thread(self._writer.read, path) if begun else head.note
        signed = SignedNote.parse(note)
        checkpoint = Checkpoint.parse(signed.text)
        self._cosigners[head.vkey] = len({each.name for each in signed.signatures} - {head.origin})
        if checkpoint.origin != head.origin:
            hint = "remove the folder, and export again"
            raise Conflict("the node has other logs than before", why=head.origin, hint=hint, code="OTHER-EXPORT")
        await self._add(path, note)
        edge = start
        while edge.size < checkpoint.size:
            lines = await self._lines(number, head.vkey, edge.size, checkpoint.size)
            edge = edge.extend(map(leaf_hash, lines))
            for line in lines:
                if (statement := _statement(line)) is not None:
                    self._collected.add(statement)
        if edge.root() != checkpoint.root:
            why = f"its {checkpoint.size} entries, with those of earlier bundles, do not lead to its checkpoint"
            raise Untrusted(f"{head.origin} is not the log that it was", why=why, hint="comity status", code="ROOT")
        return CarriedLog(head.vkey, start, edge)

    async def _lines(self, number: int, log: str, start: int, end: int) -> list[bytes]:
        path = f"logs/{number:05d}/{start:012d}.lines"
        if self._writer.find(path):
            return split_lines(await asyncio.to_thread(self._writer.read, path))
        lines = await patiently(partial(self._entries, log, start, end))
        await self._add(path, _joined(lines))
        return lines

    async def _entries(self, log: str, start: int, end: int) -> list[bytes]:
        """Some entries of a log from `start` on. Raises Untrusted (WITHHELD) if there are none."""
        lines, size = list[bytes](), 0
        async with aclosing(self._client.entries(log, start, end)) as batches:
            async for batch in batches:
                lines += batch.lines
                size += sum(map(len, batch.lines))
                if size >= LINES_BYTES:
                    break
        if not lines:
            raise Untrusted("the node withholds entries of a log", why=f"no entry {start}", code="WITHHELD")
        return lines

    async def _misbehaviour(self) -> None:
        written = {file.sha256 for file in self._writer.files if file.path.startswith("misbehaviour/")}
        for shown in await patiently(self._client.misbehaviour):
            data = encode_misbehaviour_proof(shown.kind, shown.origin, shown.parts)
            if sha256(data) not in written:  # the node may show more than before, in any order
                await self._add(f"misbehaviour/{len(written):05d}", data)
                written.add(sha256(data))

    async def _choose(self, logs: Sequence[CarriedLog]) -> None:
        """Collect the files of the chosen artifacts."""
        order, collected = self._order, self._collected
        if order.everything:
            for log in logs:
                await self._read_earlier(log)
        for artifact in order.artifacts or tuple(collected.publications):
            publications = await self._claimed(artifact) if order.artifacts else collected.publications[artifact]
            await self._choose_files(artifact, publications)
            if artifact not in collected.complete:
                collected.incomplete.append(publications[0].name)

    async def _read_earlier(self, log: CarriedLog) -> None:
        """Read the publications that earlier bundles have; nothing of it is written."""
        at = 0
        while at < log.start.size:
            lines = await patiently(partial(self._entries, log.log, at, log.start.size))
            at += len(lines)
            for statement in filter(None, map(_statement, lines)):
                self._collected.add_publication(statement)

    async def _claimed(self, artifact: Digest) -> list[_Publication]:
        """The publications of an artifact, also of entries that earlier bundles have. Raises NotFound."""
        with suppress(NotFound):
            for located in await patiently(partial(self._client.claims, artifact)):
                if (statement := _statement(located.line)) is not None:
                    self._collected.add_publication(statement)
        if artifact not in self._collected.publications:
            raise NotFound("this node knows no publication of that artifact", why=artifact, hint="comity search TEXT")
        return self._collected.publications[artifact]

    async def _choose_files(self, artifact: Digest, publications: Iterable[_Publication]) -> None:
        """Collect an artifact by every index that fits it, if the node has its files."""
        manifest = await self._document(Manifest.parse, artifact)
        if manifest is None or not await self._has_files(manifest):
            return
        new = [entry for entry in manifest.files if entry.size and self._is_new(entry.sha256)]
        for publication in publications:
            index = await self._document(PieceIndex.parse, publication.pieces)
            layouts = {} if index is None else dict(index.files)
            if layouts.keys() == manifest.by_path.keys():
                self._collected.add_files(artifact, publication, new, layouts)

    async def _document(self, parse: Callable[[bytes], T], digest: Digest) -> T | None:
        """A side object; None if the node does not have it, or it is no such document: members log what they like."""
        try:
            return parse(await patiently(partial(self._client.object, digest)))
        except (NotFound, Malformed, Untrusted):
            return None

    async def _has_files(self, manifest: Manifest) -> bool:
        """Whether the node has every file, each of the size that the manifest lists."""
        wanted = {entry.sha256: entry.size for entry in manifest.files}
        digests = list(wanted)
        for start in range(0, len(digests), limits.STAT_DIGESTS):
            some = digests[start : start + limits.STAT_DIGESTS]
            for stat in await patiently(partial(self._client.stat, some)):
                if wanted[stat.digest] and (not stat.have or stat.size != wanted[stat.digest]):
                    return False
        return True

    async def _pack(self) -> None:
        """Write side objects, small files and piece records into packs; those that are written already are not fetched
        again."""
        collected = self._collected
        packed = [member for file in self._writer.files for member in file.members]
        small = [digest for digest, size in collected.files.items() if size <= PACKED]
        wanted = dict.fromkeys([*filter(self._is_new, collected.objects), *small])
        if len(wanted) + len(collected.records) > MAX_ITEMS // 2:
            hint = "export fewer artifacts into each, and continue with --since"
            raise OutOfSpace("too many objects for one bundle", why=f"{len(wanted)}", hint=hint, code="BUNDLE-ITEMS")
        pack = _Pack(self._writer)
        there = {member.sha256 for member in packed if not member.blob}
        async for digest, data in self._fetched([each for each in wanted if each not in there], self._client.object):
            await pack.add(PackMember(digest, len(data)), data)
        known = {(member.blob, member.layout) for member in packed if member.blob}
        lacking = [each for each in collected.records if each not in known]
        async for (blob, layout), records in self._fetched(lacking, self._records):
            if records is None:
                collected.lack_records(blob, layout)
                continue
            await pack.add(PackMember(sha256(records), len(records), blob, layout), records)
        await pack.flush()

    async def _fetched(self, wanted: Sequence[T], fetch: Callable[[T], Awaitable[U]]) -> AsyncIterator[tuple[T, U]]:
        """Fetch several at a time, in order."""
        for start in range(0, len(wanted), AT_ONCE):
            some = wanted[start : start + AT_ONCE]
            fetching = (patiently(partial(fetch, item)) for item in some)
            for item, data in zip(some, await asyncio.gather(*fetching), strict=True):
                yield item, data

    async def _records(self, wanted: tuple[Digest, str]) -> bytes | None:
        """The piece records of a file in a layout; None if the node has none."""
        try:
            return await self._client.records(*wanted)
        except NotFound:
            return None

    async def _fetch(self, file: CarriedFile, start: int, write: Callable[[bytes], None]) -> None:
        while start < file.size:
            length = min(limits.READ, file.size - start)
            if await patiently(partial(self._read, file, start, length, write)) < length:
                raise NotFound("a file ends early at the node", why=file.path)
            start += length

    async def _read(self, file: CarriedFile, start: int, length: int, write: Callable[[bytes], None]) -> int:
        """Fetch a range of a file. Returns its bytes, fewer if the file ends in it."""
        count = 0
        async with aclosing(self._client.read(file.sha256, start, length)) as chunks:
            async for chunk in chunks:
                await asyncio.to_thread(write, chunk)
                self._on_event(Progress(file.path, len(chunk)))
                count += len(chunk)
        return count

    async def _add(self, path: str, data: bytes) -> None:
        if self._writer.find(path) is None:
            await asyncio.to_thread(self._writer.add, path, data)

    def _is_new(self, digest: Digest) -> bool:
        return bytes.fromhex(digest) not in self._had


class _Pack:
    """Collects members of a pack, and writes it when it is large."""

    def __init__(self, writer: BundleWriter) -> None:
        self._writer = writer
        self._members: list[PackMember] = []
        self._data = bytearray()

    async def add(self, member: PackMember, data: bytes) -> None:
        if self._data and len(self._data) + len(data) > PACK_BYTES:
            await self.flush()
        self._members.append(member)
        self._data += data

    async def flush(self) -> None:
        if not self._members:
            return
        number = sum(file.path.startswith("packs/") for file in self._writer.files)
        path, members = f"packs/{number:06d}", tuple(self._members)
        await asyncio.to_thread(self._writer.add, path, bytes(self._data), members)
        self._members, self._data = [], bytearray()


def _reported(work: Callable[[Callable[[int], None]], T], path: str, on_event: OnEvent) -> T:
    """Run `work`, and report the bytes that it has done as progress."""
    return work(lambda count: on_event(Progress(path, count)))


def _joined(lines: Iterable[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _statement(line: bytes) -> Statement | None:
    try:
        return parse_entry(line).statement
    except Malformed:
        return None


async def export_bundle(client: NodeClient, order: ExportOrder, folder: Path, on_event: OnEvent) -> ExportedBundle:
    """Export from the node of `client` into `folder`. Raises as `BundleExport.run` does."""
    exported = await BundleExport(client, order, folder, on_event).run()
    if exported.incomplete:
        names = ", ".join(exported.incomplete[:3])
        on_event(Note(f"{len(exported.incomplete)} artifacts are incomplete at the node and left out, such as {names}"))
    return exported
