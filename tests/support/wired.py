"""A node in memory behind the real wire: real servers on 127.0.0.1, real channels, and service implementations whose
answers a test chooses.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from comity.rules.descent import NOWHERE, DescentCount
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Conflict, NotFound
from comity.trust.keys import PrivateKey
from comity.wire.access import Access, Caller, MutualAccess, OpenAccess
from comity.wire.addresses import Address
from comity.wire.artifact import SearchPage
from comity.wire.blob import BlobLocation, BlobStat, small_of
from comity.wire.charter import AskReceipt, JoinRequest
from comity.wire.client import NodeClient
from comity.wire.concerns import ConcernPart
from comity.wire.descent import DescentPage
from comity.wire.files import FileIndexPart, FilePrefixes, FoundFiles
from comity.wire.found import FoundAnswer, Lookup
from comity.wire.log import LocatedProof, LogHead, ShownMisbehaviour
from comity.wire.messages import LocatedEntry
from comity.wire.node import Charter, NodeFacts
from comity.wire.node_status import LogStatus, NodeStatus, PeerStatus, Quota, ScrubStatus, StoreStatus, UsageStatus
from comity.wire.operator import SignInLink
from comity.wire.publish import InlineObject, MissingObject, SubmitReceipt, Submitted, UploadHeader
from comity.wire.server import make_server
from comity.wire.services import Services
from comity.wire.throttle import Allowance, Throttle
from comity.wire.tls import CertificatePin, TlsIdentity, make_certificate

ORIGIN = "example.org/log"
GENEROUS = Allowance(calls_per_second=1e6, burst=1_000_000)


def identity() -> TlsIdentity:
    key = PrivateKey.generate("ecdsa-p256")
    return TlsIdentity(make_certificate(key), key)


def pin(of: TlsIdentity) -> CertificatePin:
    return CertificatePin.of(of.certificate)


class MemoryNode:
    """All seven services over lists and dictionaries."""

    def __init__(self) -> None:
        self.facts = NodeFacts("comity/test", ORIGIN, b'{"node":1}', (b'{"inception":1}',), None, ("publish",))
        self.epoch = Charter(3, b"{}" * 700_000, tuple(b"reading %d" % n for n in range(5_000)))
        self.lines = [b"line %d" % n for n in range(300)]
        self.blobs: dict[Digest, bytes] = {}
        self.partial: dict[Digest, bytearray] = {}
        self.publishers: list[Caller] = []
        self.adopted: list[Path] = []
        self.waiting: list[JoinRequest] = []
        self.state = NodeStatus(
            software="comity/test",
            origin=ORIGIN,
            started=1_700_000_000,
            peers=(PeerStatus("node-sg", "SG", "192.0.2.1:7443", False, 0, 12, "no answer"),),
            logs=(
                LogStatus(ORIGIN, 300, True, 1_700_000_100, ("b.example", "c.example")),
                LogStatus("b.example/log", 7, False, 0, (), frozen=True),
                LogStatus("c.example/log", 9, False, 0, (), full=True),
            ),
            store=StoreStatus(4, 5_000, None, 0, ScrubStatus(16, "22-6", 1_700_000_000, 340, None)),
            holds=3,
            misbehaviour=0,
            quotas=(Quota("uploads", 1, 100),),
            warnings=("one peer is down",),
            usage=UsageStatus(86_400, 1_234, 10**12, 5, 60),
        )

    def keep(self, data: bytes) -> Digest:
        self.blobs[sha256(data)] = data
        return sha256(data)

    async def node(self) -> NodeFacts:
        return self.facts

    async def charter(self, epoch: int | None = None) -> Charter:
        if epoch not in (None, self.epoch.epoch):
            raise NotFound("no such epoch here")
        return self.epoch

    async def epochs(self, start: int = 0) -> AsyncGenerator[Charter, None]:
        if start > self.epoch.epoch:
            raise NotFound("no such epoch here")
        for number in range(start, self.epoch.epoch):
            yield Charter(number, b"{}", (b"consent",))
        yield self.epoch

    async def next_epoch_entries(self, prev: Digest | None = None) -> AsyncGenerator[LocatedEntry, None]:
        yield LocatedEntry(ORIGIN, 0, f"about {prev}".encode())

    async def ask(self, caller: Caller, lines: Sequence[bytes]) -> AskReceipt:
        self.waiting.append(JoinRequest(sha256(lines[0]), 7, tuple(lines)))
        return AskReceipt(sha256(lines[0]), 7, len(self.waiting))

    async def asks(self) -> AsyncGenerator[JoinRequest, None]:
        for ask in self.waiting:
            yield ask

    async def logs(self) -> AsyncGenerator[LogHead, None]:
        yield LogHead(ORIGIN, f"{ORIGIN}+00000000+AAAA", b"a note\n")

    async def checkpoint(self, origin: str, index: int | None = None, up_to: int | None = None) -> bytes:
        return f"{origin} {index if up_to is None else f'up to {up_to}'}".encode()

    async def entries(self, origin: str, start: int, end: int) -> Sequence[bytes]:
        if origin != ORIGIN or start > len(self.lines):
            raise NotFound("no such log here", why=origin, code="UNKNOWN-LOG")
        return self.lines[start : min(end, start + 100)]

    async def inclusion(self, origin: str, index: int, size: int) -> tuple[bytes, ...]:
        return bytes([index]) * 32, bytes([size]) * 32

    async def consistency(self, origin: str, old_size: int, new_size: int) -> tuple[bytes, ...]:
        return (bytes([old_size]) * 32,)

    async def proofs(self, line_digest: Digest, origin: str | None = None) -> AsyncGenerator[LocatedProof, None]:
        yield LocatedProof(origin or ORIGIN, line_digest.encode())

    async def misbehaviour(self) -> AsyncGenerator[ShownMisbehaviour, None]:
        yield ShownMisbehaviour("split-view", "evil.example/log", (b"one note", b"another"))

    async def resolve(
        self, name: str, version: str | None = None, publisher: Digest | None = None, named: Collection[Digest] = ()
    ) -> AsyncGenerator[LocatedEntry, None]:
        yield LocatedEntry(ORIGIN, 7, f"{name}@{version} {publisher or ''}".rstrip().encode())

    async def claims(self, subject: Digest, named: Collection[Digest] = ()) -> AsyncGenerator[LocatedEntry, None]:
        for index, line in enumerate(self.lines):
            yield LocatedEntry(ORIGIN, index, line)

    async def find(
        self, name: str, version: str | None = None, publisher: Digest | None = None, named: Collection[Digest] = ()
    ) -> AsyncGenerator[FoundAnswer, None]:
        yield FoundAnswer(Lookup.of_name(name, named=named), self.resolve(name, named=named))

    async def search(self, query: str, cursor: str = "", limit: int = 0, kind: str = "") -> SearchPage:
        return SearchPage((LocatedEntry(ORIGIN, limit, query.encode()),), cursor + "next")

    async def files(self, prefixes: FilePrefixes) -> AsyncGenerator[FoundFiles, None]:
        yield FoundFiles(len(self.blobs), 0, cut=prefixes.prefixes)

    async def file_index(self, after: int, head: bytes) -> AsyncGenerator[FileIndexPart, None]:
        yield FileIndexPart(head, b"state")

    async def concerns(self, publisher: Digest) -> AsyncGenerator[ConcernPart, None]:
        yield ConcernPart(1, more=True)

    async def descent(self, after: int, holder: Digest | None = None, publisher: Digest | None = None) -> DescentPage:
        return DescentPage(1, (DescentCount((NOWHERE,), False, 2, 3, 0, 0, 0),), 0, 13)

    async def stat(self, digests: Sequence[Digest]) -> tuple[BlobStat, ...]:
        return tuple(BlobStat(digest, digest in self.blobs, len(self.blobs.get(digest, b""))) for digest in digests)

    def small(self, digests: Sequence[Digest]) -> AsyncGenerator[Sequence[tuple[Digest, bytes]], None]:
        return small_of(self, digests)

    async def records(self, digest: Digest, layout: str) -> bytes:
        return self._held(digest)

    async def locations(self, digest: Digest) -> tuple[BlobLocation, ...]:
        return (BlobLocation("https-range", f"https://example.org/{digest}?secret"),)

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        data = self._held(digest)[offset : offset + length]
        for start in range(0, len(data), 1 << 20):
            yield data[start : start + (1 << 20)]

    def _held(self, digest: Digest) -> bytes:
        if digest not in self.blobs:
            raise NotFound("not held here", why=digest)
        return self.blobs[digest]

    async def submit(self, caller: Caller, lines: Sequence[bytes], objects: Sequence[InlineObject] = ()) -> Submitted:
        """A line names an object by being its digest."""
        self.publishers.append(caller)
        for inline in objects:
            self.blobs[inline.digest] = inline.data
        submission = Digest(hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest())
        named = [Digest(line.decode()) for line in lines]
        missing = tuple(
            MissingObject(digest, 1 << 40, len(self.partial.get(digest, b"")))
            for digest in named
            if digest not in self.blobs
        )
        if missing:
            return Submitted(submission, missing)
        start = len(self.lines)
        self.lines += lines
        return Submitted(
            submission, (), tuple(SubmitReceipt(ORIGIN, start + n, sha256(line)) for n, line in enumerate(lines))
        )

    async def upload(self, caller: Caller, header: UploadHeader, chunks: AsyncIterator[bytes]) -> int:
        partial = self.partial.setdefault(header.digest, bytearray())
        if header.offset != len(partial):
            raise Conflict("another offset", why=f"{len(partial)} bytes are here", code="OFFSET")
        async for chunk in chunks:
            partial += chunk
        if len(partial) == header.size:
            self.keep(bytes(partial))
        return len(partial)

    async def upload_objects(
        self, caller: Caller, submission: Digest, batches: AsyncIterator[Sequence[InlineObject]]
    ) -> int:
        held = 0
        async for batch in batches:
            for each in batch:
                self.keep(each.data)
            held += len(batch)
        return held

    async def adopt(self, path: Path, digest: Digest, size: int) -> bool:
        self.adopted.append(path)
        return digest in self.blobs

    async def decide_ask(self, member: Digest, *, keep: bool) -> None:
        raise NotFound("no request to join", why="nobody asks here")

    async def sign_in_link(self) -> SignInLink:
        return SignInLink("http://127.0.0.1:7480/-/sign-in?key=x", 300)

    async def status(self) -> NodeStatus:
        return self.state

    def services(self) -> Services:
        return Services(self, self, self, self, self, self, self)


@asynccontextmanager
async def listening(
    door: Access, services: Services, *, allowance: Allowance = GENEROUS, at: str = "127.0.0.1:0"
) -> AsyncIterator[Address]:
    """A server with `door` as its access rule while the block lasts, and its address."""
    server = make_server(door, services, Throttle(allowance))
    port = server.add_secure_port(at, door.credentials())
    await server.start()
    try:
        yield Address("127.0.0.1", port)
    finally:
        await server.stop(0)


@asynccontextmanager
async def met(node: MemoryNode) -> AsyncIterator[NodeClient]:
    """A client at the node's mutual port, which is an operator there."""
    server, client = identity(), identity()
    door = MutualAccess(server, tuple, lambda: [pin(client)])
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(listening(door, node.services()))
        yield await stack.enter_async_context(NodeClient.connect(address, pin(server), client, timeout=5))


@asynccontextmanager
async def visited(services: Services, *, allowance: Allowance = GENEROUS) -> AsyncIterator[NodeClient]:
    """A client at the open port of a server with these services."""
    server = identity()
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(listening(OpenAccess(server), services, allowance=allowance))
        yield await stack.enter_async_context(NodeClient.connect(address, pin(server), timeout=5))
