"""A federation of fake nodes behind the real wire: servers on 127.0.0.1 in a thread of their own, real keys and logs.

A test can make a node silent, or make it give false or incomplete answers. How a real node behaves is tested with real
nodes.
"""

from __future__ import annotations

import asyncio
import functools
import io
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from comity.content.blobs import piece_lengths
from comity.content.ingest import ingest
from comity.hashing import FileHash
from comity.rules.pieces import CHAINED_LAYOUT, TENSOR_LAYOUT, PieceIndex, chained_records, encode_records
from comity.rules.signing import sign_content
from comity.rules.tree_proofs import MemoryTree, consistency_proof, inclusion_proof
from comity.trust.artifact import Manifest, PieceRecord
from comity.trust.copies import HeldArtifact
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Conflict, NotFound, Refused, Untrusted
from comity.trust.names import Name, Reference
from comity.trust.statement import Entry, SideObject, parse_entry
from comity.trust.statement_kinds import ARTIFACT_KIND
from comity.trust.statements import Licence, Published
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import log_verifier_key
from comity.wire.access import Caller, OpenAccess, OperatorAccess
from comity.wire.addresses import GatewayUrl
from comity.wire.artifact import SearchPage
from comity.wire.blob import BlobLocation, BlobStat, small_of
from comity.wire.charter import CharterService
from comity.wire.concerns import ConcernPart
from comity.wire.descent import DescentPage
from comity.wire.files import FileIndexPart, FilePrefixes, FoundFiles, file_pair, file_reference, prefix_of
from comity.wire.found import FoundAnswer, Lookup
from comity.wire.log import LocatedProof, LogHead, ShownMisbehaviour
from comity.wire.messages import LocatedEntry
from comity.wire.node import Charter, NodeFacts, ReplicaCounts
from comity.wire.node_status import NodeStatus, StoreStatus
from comity.wire.operator import SignInLink
from comity.wire.publish import InlineObject, MissingObject, SubmitReceipt, Submitted, UploadHeader
from comity.wire.server import make_server
from comity.wire.services import Services
from comity.wire.throttle import Throttle
from comity.wire.tls import TlsIdentity
from support.file_indexes import index_parts, record_of
from support.wired import GENEROUS
from support.world import Identity, Log, Node, found, identity, node, seat

CHUNK = 256 * 1024
_entry = functools.lru_cache(10_000)(parse_entry)
"""Parsed lines: each answer reads all lines of all logs."""
_OTHER_BITS = bytes(reversed(range(256)))
"""The byte that a lying node sends instead of each byte."""


@dataclass
class FakeNode:
    """All six services of one member's node. Its data are its public attributes."""

    node: Node
    logs_held: dict[str, Log] = field(default_factory=dict)
    cosigners: dict[str, tuple[Node, ...]] = field(default_factory=dict)
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    records_held: dict[tuple[Digest, str], bytes] = field(default_factory=dict)
    descent_pages: dict[int, DescentPage] = field(default_factory=lambda: {0: DescentPage(0, (), 0, 13)})
    accepts: bool = True
    silent: bool = False
    junk: tuple[bytes, ...] = ()
    """Lines that it answers before all others to each question about an artifact."""
    junk_claims: tuple[tuple[LocatedEntry, Entry], ...] = ()
    """The same for questions about a name."""
    lies_about: set[Digest] = field(default_factory=set)
    reads: int = 0
    partial: dict[Digest, bytearray] = field(default_factory=dict)
    adopted: list[Path] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    """Objects of each message of `UploadObjects`."""
    decided: list[tuple[Digest, bool]] = field(default_factory=list)
    misbehaving: list[ShownMisbehaviour] = field(default_factory=list)
    governance: CharterService | None = None
    gateway: GatewayUrl | None = None
    replicas: ReplicaCounts | None = None
    asked_together: list[int] = field(default_factory=list)
    """Files of each call for small ones."""
    fail_after: int | None = None
    """Reads after which the node becomes silent, as if it failed in the middle."""
    known_since: int = 0
    """By when it says that it knew each line; 0 as of a node of the version before."""

    @property
    def log(self) -> Log:
        return self.logs_held[self.node.origin]

    async def node_facts(self) -> NodeFacts:
        await self._answering()
        lines = (self.node.entry.line, (self.node.seat.entry.line,))
        return NodeFacts("comity/fake", self.node.origin, *lines, gateway=self.gateway, replicas=self.replicas)

    async def charter(self, epoch: int | None = None) -> Charter:
        raise NotFound("no charter here")

    async def logs(self) -> AsyncGenerator[LogHead, None]:
        await self._answering()
        for log in self.logs_held.values():
            yield LogHead(log.origin, self._vkey(log), self._note(log))

    async def checkpoint(self, origin: str, index: int | None = None, up_to: int | None = None) -> bytes:
        await self._answering()
        return self._note(self._held(origin))

    async def entries(self, origin: str, start: int, end: int) -> Sequence[bytes]:
        return self._held(origin).lines[start : min(end, start + 100)]

    async def inclusion(self, origin: str, index: int, size: int) -> tuple[bytes, ...]:
        return inclusion_proof(index, size, self._held(origin).tree.node)

    async def consistency(self, origin: str, old_size: int, new_size: int) -> tuple[bytes, ...]:
        log = self._held(origin)
        if new_size > log.tree.size:
            raise NotFound("not that large here")
        return consistency_proof(old_size, new_size, log.tree.node)

    async def proofs(self, line_digest: Digest, origin: str | None = None) -> AsyncGenerator[LocatedProof, None]:
        await self._answering()
        given = False
        for log in self.logs_held.values():
            for line in log.lines:
                if sha256(line) == line_digest and origin in (None, log.origin, self._vkey(log)):
                    given = True
                    yield LocatedProof(log.origin, log.proof(line, self.cosigners.get(log.origin, ())).data)
        if not given:
            raise NotFound("no log here holds that line")

    async def misbehaviour(self) -> AsyncGenerator[ShownMisbehaviour, None]:
        for proof in self.misbehaving:
            yield proof

    async def resolve(
        self, name: str, version: str | None = None, publisher: Digest | None = None, named: Collection[Digest] = ()
    ) -> AsyncGenerator[LocatedEntry, None]:
        await self._answering()
        wanted = [*self.junk_claims, *self._named(name, version, publisher)]
        subjects = {entry.statement.subject for _, entry in wanted}
        wanted += [
            (located, entry)
            for located, entry in self._entries()
            if entry.statement.predicate == "advisory" and entry.statement.subject in subjects
        ]
        if not wanted:
            raise NotFound("nobody here claims that name")
        authors = {entry.statement.by for _, entry in wanted}
        for located, _ in wanted:
            yield located
        for located, entry in self._entries():
            if entry.statement.predicate in ("inception", "rotated") and entry.statement.by in authors:
                yield replace(located, attached=True)

    async def find(
        self, name: str, version: str | None = None, publisher: Digest | None = None, named: Collection[Digest] = ()
    ) -> AsyncGenerator[FoundAnswer, None]:
        yield FoundAnswer(Lookup.of_name(name, named=named), self.resolve(name, named=named))
        for _, entry in self._named(name, version, publisher)[:1]:
            author, (stated, _, tag) = entry.statement.by, entry.statement.subjects[0].name.partition("@")
            who = author.id if author else Digest("")
            likely = (
                Lookup.of_name(name, version, who, named),
                Lookup.of_name(stated, None, who, named),
                Lookup.about(entry.statement.subject, (who, *named)),
                Lookup.about(who, (who, *named)),
                Lookup.of_name(stated, tag, None, (who, *named)),
            )
            for asked in dict.fromkeys(likely):  # each question once
                if asked.subject is not None:
                    yield FoundAnswer(asked, self.claims(asked.subject, asked.named))
                else:
                    yield FoundAnswer(asked, self.resolve(asked.name, asked.version, asked.publisher, asked.named))

    async def claims(self, subject: Digest, named: Collection[Digest] = ()) -> AsyncGenerator[LocatedEntry, None]:
        await self._answering()
        for number, line in enumerate(self.junk):
            yield LocatedEntry(self.node.origin, number, line)
        about = [item for item in self._entries() if subject in {s.digest for s in item[1].statement.subjects}]
        if not about:
            raise NotFound("no statement about this artifact")
        records = [item for item in self._entries() if item[1].statement.predicate == "node-record"]
        authors = {entry.statement.by for _, entry in (*about, *records)}
        for located, _ in about:
            yield located
        for located, entry in self._entries():
            of_author = entry.statement.predicate in ("inception", "rotated") and entry.statement.by in authors
            if of_author or entry.statement.predicate == "node-record":
                yield replace(located, attached=True)

    async def search(self, query: str, cursor: str = "", limit: int = 0, kind: str = "") -> SearchPage:
        await self._answering()
        words = query.casefold().split()
        hits = [
            located
            for located, entry in self._entries()
            if entry.statement.predicate == "published"
            and all(word in entry.statement.subjects[0].name.casefold() for word in words)
        ]
        start = int(cursor or 0)
        page = hits[start : start + (limit or 50)]
        more = start + len(page)
        found = {parse_entry(located.line).statement.subject for located in page}
        kinds = [item for item in self._entries() if item[1].statement.predicate == ARTIFACT_KIND]
        said = tuple(located for located, entry in kinds if entry.statement.subject in found)
        return SearchPage(tuple(page), str(more) if more < len(hits) else "", said)

    async def files(self, prefixes: FilePrefixes) -> AsyncGenerator[FoundFiles, None]:
        await self._answering()
        published = [Published.parse(e.statement) for _, e in self._entries() if e.statement.predicate == "published"]
        manifests = [Manifest.parse(self.blobs[each.artifact]) for each in published if each.artifact in self.blobs]
        if prefixes.pieces:
            for part in self._pieces({file.sha256 for each in manifests for file in each.files}, prefixes):
                yield part
            return
        yield FoundFiles(sum(len(each.files) for each in manifests), 0)
        for manifest in manifests:
            references = [file_reference(file.sha256) for file in manifest.files]
            wanted = [each for each in references if prefix_of(each, prefixes.bits) in prefixes.prefixes]
            yield FoundFiles(0, 0, b"".join(file_pair(each, manifest.digest) for each in wanted))

    def _pieces(self, files: set[Digest], prefixes: FilePrefixes) -> Iterator[FoundFiles]:
        """An answer about the pieces of files that this node has hashed."""
        held = {file: data for (file, layout), data in self.records_held.items() if layout == TENSOR_LAYOUT}
        records = ((held[file], file) for file in files & held.keys())
        pieces = [(data[at + 4 : at + 20], file) for data, file in records for at in range(0, len(data), 36)]
        yield FoundFiles(len(pieces), 0)
        wanted = [each for each in pieces if prefix_of(each[0], prefixes.bits) in prefixes.prefixes]
        yield FoundFiles(0, 0, b"".join(file_pair(piece, file) for piece, file in wanted))

    async def concerns(self, publisher: Digest) -> AsyncGenerator[ConcernPart, None]:
        await self._answering()
        yield ConcernPart(0)
        for located, entry in self._entries():
            if entry.statement.by is not None and entry.statement.by.id == publisher:
                yield ConcernPart(0, False, "keys" if entry.statement.predicate == "inception" else "own", (located,))

    async def descent(self, after: int, holder: Digest | None = None, publisher: Digest | None = None) -> DescentPage:
        await self._answering()
        return self.descent_pages[after]

    async def file_index(self, after: int, head: bytes) -> AsyncGenerator[FileIndexPart, None]:
        await self._answering()
        published = [Published.parse(e.statement) for _, e in self._entries() if e.statement.predicate == "published"]
        records = [record_of(self.blobs[each.artifact], str(each.name)) for each in published]
        for part in index_parts(list(dict.fromkeys(records)), self.node, after, head):
            yield part

    async def stat(self, digests: Sequence[Digest]) -> tuple[BlobStat, ...]:
        await self._answering()
        return tuple(BlobStat(digest, digest in self.blobs, len(self.blobs.get(digest, b""))) for digest in digests)

    def small(self, digests: Sequence[Digest]) -> AsyncGenerator[Sequence[tuple[Digest, bytes]], None]:
        self.asked_together.append(len(digests))
        return small_of(self, digests)

    async def records(self, digest: Digest, layout: str) -> bytes:
        await self._answering()
        if (digest, layout) not in self.records_held:
            raise NotFound("no records of it here")
        return self.records_held[digest, layout]

    async def locations(self, digest: Digest) -> tuple[BlobLocation, ...]:
        return ()

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        await self._answering()
        if digest not in self.blobs:
            raise NotFound("not held here")
        self.reads += 1
        data = self.blobs[digest][offset : offset + length]
        for start in range(0, len(data), CHUNK):
            if self.fail_after is not None and self.reads > self.fail_after:
                await asyncio.sleep(3600)
            chunk = data[start : start + CHUNK]
            yield chunk.translate(_OTHER_BITS) if digest in self.lies_about else chunk

    async def submit(self, caller: Caller, lines: Sequence[bytes], objects: Sequence[InlineObject] = ()) -> Submitted:
        if not (self.accepts or caller.operator):
            raise Refused("this node takes no publications here", code="PUBLISHING-CLOSED")
        for inline in objects:
            assert sha256(inline.data) == inline.digest
            self.blobs[inline.digest] = inline.data
        submission = sha256(b"".join(line + b"\n" for line in lines))
        missing = [item for item in self._needed(lines) if item.digest not in self.blobs]
        if missing:
            return Submitted(
                submission,
                tuple(MissingObject(m.digest, m.size, len(self.partial.get(m.digest, b""))) for m in missing),
            )
        return Submitted(
            submission, (), tuple(SubmitReceipt(self.node.origin, self._append(line), sha256(line)) for line in lines)
        )

    async def upload(self, caller: Caller, header: UploadHeader, chunks: AsyncIterator[bytes]) -> int:
        partial = self.partial.setdefault(header.digest, bytearray())
        if header.offset != len(partial):
            raise Conflict("another offset", why=f"{len(partial)} bytes are here", code="OFFSET")
        async for chunk in chunks:
            partial += chunk
        if len(partial) == header.size:
            data = bytes(self.partial.pop(header.digest))
            if sha256(data) != header.digest:
                raise Untrusted("digest does not match", code="DIGEST")
            self.blobs[header.digest] = data
        return len(partial)

    async def upload_objects(
        self, caller: Caller, submission: Digest, batches: AsyncIterator[Sequence[InlineObject]]
    ) -> int:
        held = 0
        async for batch in batches:
            for each in batch:
                if sha256(each.data) != each.digest:
                    raise Untrusted("digest does not match", code="DIGEST")
                self.blobs[each.digest] = each.data
            self.batches.append(len(batch))
            held += len(batch)
        return held

    async def adopt(self, path: Path, digest: Digest, size: int) -> bool:
        held = digest in self.blobs
        self.adopted.append(path)
        self.blobs[digest] = path.read_bytes()
        return held

    async def decide_ask(self, member: Digest, *, keep: bool) -> None:
        self.decided.append((member, keep))

    async def sign_in_link(self) -> SignInLink:
        raise NotFound("no console", why="this node has none")

    async def status(self) -> NodeStatus:
        return NodeStatus("comity/fake", self.node.origin, 0, (), (), StoreStatus(0, 0, None, 0), 0, 0, (), ())

    def services(self) -> Services:
        return Services(_NodeReads(self), self, self, self, self, self, charter=self.governance)

    def take(self, release: Release) -> None:
        """Store a release's bytes, and log a hold in the own log."""
        self.blobs |= release.blobs
        self.records_held |= release.records
        for digest in {digest for digest, _ in release.records}:
            self.chain(digest)
        published = release.published
        hold = sign_content(HeldArtifact(self.node.record.node, published.manifest, published.pieces), self.node.online)
        self._append(hold.line)

    def chain(self, digest: Digest) -> None:
        """Store the chained records of a blob of several pieces."""
        if (made := _chained(digest, self.blobs[digest])) is not None:
            self.records_held[digest, CHAINED_LAYOUT] = made

    def _append(self, line: bytes) -> int:
        entry = parse_entry(line)
        if entry.statement.predicate == "published":
            self._cut(Published.parse(entry.statement))
        return self.log.lines.index(line) if line in self.log.lines else self.log.append(line)

    def _cut(self, published: Published) -> None:
        """Store the piece records of the uploaded blobs."""
        if published.artifact not in self.blobs:
            return
        manifest = Manifest.parse(self.blobs[published.artifact])
        for path, layout in PieceIndex.parse(self.blobs[published.pieces.digest]).files:
            digest = manifest.by_path[path].sha256
            data = io.BytesIO(self.blobs[digest])
            _, lengths = piece_lengths(path, data, len(data.getvalue()))
            data.seek(0)
            pieces = [data.read(length) for length in lengths]
            made = [PieceRecord(len(piece), bytes.fromhex(sha256(piece))) for piece in pieces]
            self.records_held[digest, layout.layout] = encode_records(made)

    def _needed(self, lines: Sequence[bytes]) -> list[SideObject]:
        needed: list[SideObject] = []
        for line in lines:
            statement = parse_entry(line).statement
            needed += statement.objects
            manifest = self.blobs.get(statement.subject) if statement.predicate == "published" else None
            if manifest is not None:
                needed += [SideObject(entry.sha256, entry.size) for entry in Manifest.parse(manifest).files]
        return list(dict.fromkeys(needed))

    async def _answering(self) -> None:
        if self.silent:
            await asyncio.sleep(3600)

    def _held(self, name: str) -> Log:
        """The log of this verifier key, or the first one of this origin."""
        for log in self.logs_held.values():
            if name in (log.origin, self._vkey(log)):
                return log
        raise NotFound("no such log here")

    def _note(self, log: Log) -> bytes:
        checkpoint = log.checkpoint()
        cosigned = [s for by in self.cosigners.get(log.origin, ()) for s in by.cosign(checkpoint)]
        return checkpoint.signed(log.key).with_signatures(*cosigned).encode()

    def _vkey(self, log: Log) -> str:
        return str(log_verifier_key(log.origin, log.key.public))

    def _entries(self) -> Iterator[tuple[LocatedEntry, Entry]]:
        for log in self.logs_held.values():
            for index, line in enumerate(log.lines):
                yield LocatedEntry(log.origin, index, line, known_since=self.known_since), _entry(line)

    def _named(self, name: str, version: str | None, publisher: Digest | None) -> list[tuple[LocatedEntry, Entry]]:
        """Claims of the name in the order in which they were logged anywhere."""
        found = []
        for log in self.logs_held.values():
            for index, (number, line) in enumerate(zip(log.numbers, log.lines, strict=True)):
                entry = _entry(line)
                if entry.statement.predicate not in ("published", "observed"):
                    continue
                said, by = Reference.parse(entry.statement.subjects[0].name), entry.statement.by
                if publisher not in (None, by.id if by else None):
                    continue
                same = f"{said.repository}/".startswith(name) if name.endswith("/") else said.repository == name
                if same and version in (None, said.version):
                    located = LocatedEntry(log.origin, index, line, known_since=self.known_since)
                    found.append((number, located, entry))
        return [(located, entry) for _, located, entry in sorted(found, key=lambda item: item[0])]


@functools.lru_cache(8)
def _chained(digest: Digest, data: bytes) -> bytes | None:
    """The chained records of a blob, which is hashed once for all nodes that hold it; None if no node does."""
    hashed = FileHash(len(data))
    hashed.update(bytearray(data))
    return encode_records(chained_records(len(data), hashed.states, digest)) if hashed.states else None


@dataclass
class _NodeReads:
    """The wire calls a method `node`, and `FakeNode.node` is the node's record: this class has the method."""

    fake: FakeNode

    async def node(self) -> NodeFacts:
        return await self.fake.node_facts()

    async def charter(self, epoch: int | None = None) -> Charter:
        return await self.fake.charter(epoch)


@dataclass(frozen=True)
class Release:
    """An artifact with its publisher's documents."""

    published: Published
    entry: Entry
    blobs: Mapping[Digest, bytes]
    records: Mapping[tuple[Digest, str], bytes]
    files: Mapping[str, bytes]


def release(
    folder: Path, files: Mapping[str, bytes], *, by: Identity, name: str = "swiss-ai/tiny@v1", spdx: str = "Apache-2.0"
) -> Release:
    """Write `files` below `folder`, cut and sign them as a publisher's client does."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    made = ingest(folder, workers=1, on_progress=lambda count: None)
    licence = b"Apache License, Version 2.0 (abridged)\n"
    manifest, index = made.manifest.encode(), made.index.encode()
    published = Published(
        by=by.id,
        name=Name.parse(name),
        artifact=made.manifest.digest,
        manifest=SideObject.of(manifest),
        pieces=SideObject.of(index),
        licence=Licence(spdx, SideObject.of(licence)),
    )
    layouts = dict(made.index.files)
    blobs = {sha256(data): data for data in (*files.values(), manifest, index, licence)}
    records = {
        (sha256(files[path]), layouts[path].layout): encode_records(found) for path, found in made.records.items()
    }
    return Release(published, sign_content(published, by.signer), blobs, records, files)


def misdescribed(made: Release, by: Identity) -> Release:
    """The release with a piece index in its `published` statement that matches no file."""
    index = PieceIndex.parse(made.blobs[made.published.pieces.digest])
    wrong = PieceIndex(
        tuple((path, replace(layout, root=sha256(path.encode()))) for path, layout in index.files)
    ).encode()
    published = replace(made.published, pieces=SideObject.of(wrong))
    return replace(
        made,
        published=published,
        entry=sign_content(published, by.signer),
        blobs={**made.blobs, sha256(wrong): wrong},
    )


class FakeFederation:
    """Members in as many jurisdictions, one node each; every node mirrors and cosigns every log."""

    def __init__(self, members: Sequence[str] = ("CH", "SG", "ES", "KR")) -> None:
        self.publisher = identity("Swiss AI", "CH")
        owners = [node(seat(code)) for code in members]
        logs = {owner.origin: Log(owner.origin, owner.log) for owner in owners}
        for owner in owners:
            logs[owner.origin].append(owner.seat.entry.line)
            logs[owner.origin].append(owner.entry.line)
        self.nodes = [
            FakeNode(
                owner,
                {owner.origin: logs[owner.origin], **logs},
                {origin: tuple(other for other in owners if other.origin != origin) for origin in logs},
            )
            for owner in owners
        ]
        self.sockets: dict[str, Path] = {}
        self._addresses: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._stops: dict[str, AsyncExitStack] = {}

    def publish(self, made: Release, *, holders: Sequence[FakeNode] | None = None, log: FakeNode | None = None) -> None:
        """Log a release with its publisher's inception, and have nodes hold it."""
        writer = log or self.nodes[0]
        for line in (self._inception(made), made.entry.line):
            writer._append(line)
        for holder in self.nodes if holders is None else holders:
            holder.take(made)
        for other in self.nodes:  # side objects travel with the log
            for item in made.published.objects():
                other.blobs.setdefault(item.digest, made.blobs[item.digest])

    def file(self, namespaces: Mapping[str, Digest] | None = None) -> bytes:
        """The federation file, with the addresses at which the nodes listen."""
        names = {"swiss-ai": self.publisher.id} if namespaces is None else namespaces
        made = found([fake.node for fake in self.nodes], names)
        listed = tuple(replace(entry, mutual=(), open=(self._addresses[entry.record.name],)) for entry in made.nodes)
        return replace(made, nodes=listed).encode()

    @contextmanager
    def running(self, sockets: Path | None = None) -> Iterator[FakeFederation]:
        """Serve while the block lasts. `sockets` is a folder for operator sockets, if they are wanted."""
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        try:
            for fake in self.nodes:
                self._call(self._start(fake, sockets))
            yield self
        finally:
            for name in list(self._stops):
                self.kill(name)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def kill(self, name: str) -> None:
        """End a node's servers abruptly."""
        if name in self._stops:
            self._call(self._stops.pop(name).aclose())

    def _call(self, step: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result(30)

    async def _start(self, fake: FakeNode, sockets: Path | None) -> None:
        stack = AsyncExitStack()
        name, tls = fake.node.record.name, TlsIdentity(fake.node.record.tls, fake.node.tls)
        server = make_server(OpenAccess(tls), fake.services(), Throttle(GENEROUS))
        port = server.add_secure_port("127.0.0.1:0", OpenAccess(tls).credentials())
        await server.start()
        stack.push_async_callback(server.stop, 0)
        self._addresses[name] = f"127.0.0.1:{port}"
        if sockets is not None:
            self.sockets[name] = sockets / f"{name}.sock"
            private = make_server(OperatorAccess(), fake.services(), Throttle(GENEROUS))
            private.add_secure_port(f"unix:{self.sockets[name]}", OperatorAccess().credentials())
            await private.start()
            stack.push_async_callback(private.stop, 0)
        self._stops[name] = stack

    def _inception(self, made: Release) -> bytes:
        return self.publisher.entry.line if made.published.by == self.publisher.id else b""


def fork(log: Log, size: int) -> Log:
    """Another history of a log, by its own key: the same first `size` entries, then others."""
    tree = MemoryTree()
    lines = log.lines[:size]
    for line in lines:
        tree.append(leaf_hash(line))
    return Log(log.origin, log.key, list(lines), log.numbers[:size], tree)
