"""A node with a founder's keys and ports whose answers the test chooses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field

from comity.node.keys import NodeKeys
from comity.rules.tree_proofs import MemoryTree, consistency_proof, inclusion_proof
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import Checkpoint
from comity.wire.access import MutualAccess
from comity.wire.blob import BlobLocation, BlobStat, small_of
from comity.wire.log import LocatedProof, LogHead, ShownMisbehaviour
from comity.wire.news import NewsService
from comity.wire.server import make_server
from comity.wire.services import Services
from comity.wire.throttle import Allowance, Throttle
from comity.wire.tls import CertificatePin
from support.federation import Founded, NodeHome


@dataclass
class Shown:
    """A log as the impostor shows it; it is signed with the founder's own key."""

    keys: NodeKeys
    lines: list[bytes] = field(default_factory=list)
    extra: list[LogHead] = field(default_factory=list)
    objects: dict[Digest, bytes] = field(default_factory=dict)
    claimed: dict[Digest, int] = field(default_factory=dict)
    """Blobs that it claims to have, by size."""
    pause: float = 0.0
    """Seconds before each answer."""

    @property
    def tree(self) -> MemoryTree:
        return MemoryTree(leaf_hash(line) for line in self.lines)

    def head(self) -> LogHead:
        record = self.keys.record
        checkpoint = Checkpoint(record.origin, len(self.lines), self.tree.root())
        return LogHead(record.origin, str(record.log), checkpoint.signed(self.keys.log).encode())

    async def logs(self) -> AsyncGenerator[LogHead, None]:
        await asyncio.sleep(self.pause)
        for head in (self.head(), *self.extra):
            yield head

    async def checkpoint(self, origin: str, index: int | None = None, up_to: int | None = None) -> bytes:
        return self.head().note

    async def entries(self, origin: str, start: int, end: int) -> Sequence[bytes]:
        await asyncio.sleep(self.pause)
        return self.lines[start:end]

    async def inclusion(self, origin: str, index: int, size: int) -> tuple[bytes, ...]:
        return inclusion_proof(index, size, self.tree.node)

    async def consistency(self, origin: str, old_size: int, new_size: int) -> tuple[bytes, ...]:
        return consistency_proof(old_size, new_size, self.tree.node)

    async def proofs(self, line_digest: Digest, origin: str | None = None) -> AsyncGenerator[LocatedProof, None]:
        none: tuple[LocatedProof, ...] = ()
        for proof in none:
            yield proof

    async def misbehaviour(self) -> AsyncGenerator[ShownMisbehaviour, None]:
        none: tuple[ShownMisbehaviour, ...] = ()
        for proof in none:
            yield proof

    async def stat(self, digests: Sequence[Digest]) -> tuple[BlobStat, ...]:
        held = {digest: len(data) for digest, data in self.objects.items()} | self.claimed
        return tuple(BlobStat(digest, digest in held, held.get(digest, 0)) for digest in digests)

    def small(self, digests: Sequence[Digest]) -> AsyncGenerator[Sequence[tuple[Digest, bytes]], None]:
        return small_of(self, digests)

    async def records(self, digest: Digest, layout: str) -> bytes:
        raise NotFound("no records")

    async def locations(self, digest: Digest) -> tuple[BlobLocation, ...]:
        return ()

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        await asyncio.sleep(self.pause)
        yield self.objects[digest][offset : offset + length] if digest in self.objects else bytes(min(length, 1 << 20))


@contextlib.asynccontextmanager
async def impostor(founded: Founded, home: NodeHome, news: NewsService | None = None) -> AsyncIterator[Shown]:
    """Serve the given `Shown` and `news` at the mutual port of `home`, one of `founded`. Without news it is a node of
    an older version.
    """
    keys = NodeKeys.load(home.config().keys, home.record)
    shown = Shown(keys, [home.card.inception_line, home.card.record_line])
    pins = [CertificatePin.of(other.record.tls) for other in founded.homes if other is not home]
    door = MutualAccess(keys.tls, lambda: pins)
    server = make_server(door, Services(log=shown, blob=shown, news=news), Throttle(Allowance(1000, 1000, 100)))
    server.add_secure_port(home.card.mutual[0], door.credentials())
    await server.start()
    try:
        yield shown
    finally:
        await server.stop(0)
