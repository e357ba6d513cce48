"""What limits copies: the quotas of mirror rules, the free space of the disk, and the bytes a second of the hour.

A copy is charged to the quotas of its mirror rule before it begins (`RuleQuotas`):

(1) an artifact that does not fit into its quotas leaves the queue of copies and waits in the ledger
(2) a copy that failed is charged only what of it is on the disk: who publishes what nobody serves uses no quota
(3) when there is room again, artifacts that wait are queued, the smallest first
(4) after a change of the rules no copy begins before all publications are read: what is held counts first

What this node publishes itself is charged to nobody, nor is what it fetched because a reader asked for it.

Copies pause while the disk is nearly full, and in the hours that the operator names (`CopyPauses`). The node looks
every few seconds. Between the two marks of free space nothing changes, so copies do not stop and go on all the time. A
pause ends running copies too: their verified pieces stay, and they are queued again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, ParamSpec

import structlog

from comity.content.blobs import BlobStore
from comity.ledger.copy_tables import MirrorCharge
from comity.node.settings import Replication, within_hours
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.node.uploads import Want, missing_files, read_manifest
from comity.transfer.scheduler import TransferLimits
from comity.transfer.sources import BlobSource, SourceKey
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, OutOfSpace
from comity.trust.mirror_rules import MirrorQuotas
from comity.trust.statement import SideObject
from comity.wire.node_status import LackingArtifact, Quota

QUOTA: Final = "MIRROR-QUOTA"
PAGE: Final = 64
BLOCK: Final = 512
"""Bytes of a unit of `st_blocks`."""

P = ParamSpec("P")

_log: Final = structlog.get_logger("comity.node.artifacts")


class RuleQuotas:
    """Not thread-safe: call from the event loop.

    Attributes:
        counted: whether everything held is charged: copies may begin.
    """

    def __init__(self, quotas: MirrorQuotas, ledger: AsyncLedger, store: BlobStore, pools: Pools) -> None:
        self._quotas = quotas
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._lock = asyncio.Lock()
        self._waiting: dict[str, int] = {}
        self._room = False
        self.counted = not quotas

    def __bool__(self) -> bool:
        """Whether there is any quota."""
        return bool(self._quotas)

    async def load(self) -> None:
        """Load what is charged. Charges of withdrawn holds end: the process may have ended between the two."""
        if self._quotas:
            await self._ledger.run(self._ledger.tables.mirror_charges.release_withdrawn)
            await self._load()
            self._room = True

    async def _load(self) -> None:
        table = self._ledger.tables.mirror_charges
        self._quotas.load(await self._ledger.run(table.used))
        self._waiting = await self._ledger.run(table.waiting_counts)

    def recount(self) -> None:
        """All publications are read again: what waits is decided again."""
        self.counted = not self._quotas
        self._waiting = {}

    async def count_done(self) -> None:
        """All publications are read. Charges of what is neither held nor wanted end."""
        if not self.counted:
            async with self._lock:
                await self._ledger.run(self._ledger.tables.mirror_charges.release_unwanted)
                await self._load()
            self.counted = self._room = True

    async def withdrawn(self, artifacts: Sequence[Digest]) -> None:
        """This node withdrew its holds of these artifacts: their charges end."""
        if self._quotas and artifacts:
            await self._alone(self._release, artifacts)
            self._room = True

    async def charge_held(self, artifact: Digest, rule: str, name: str, manifest: SideObject) -> None:
        """Charge a copy that is held, whatever the quota. One whose manifest cannot be read is not charged."""
        if (before := await self._before(artifact)) is not None and (before.rule, before.charged) == (
            rule,
            before.size,
        ):
            return
        try:
            found = await self._pools.files(read_manifest, self._store, manifest)
        except ComityError as error:
            _log.warning("a held artifact is not charged to its mirror rule", name=name, why=str(error))
            return
        await self._alone(self._put, MirrorCharge(artifact, rule, name, size_of(found), size_of(found)))

    @asynccontextmanager
    async def charged(self, artifact: Digest, rule: str | None, name: str, manifest: Manifest) -> AsyncIterator[None]:
        """Inside the block an artifact is charged to its rule, and after it if the block succeeds. None: to nobody.

        Raises OutOfSpace (MIRROR-QUOTA) if it does not fit; it waits then.
        """
        if rule is None or not self._quotas:
            yield
            return
        await self._alone(self._charge, artifact, rule, name, size_of(manifest))
        try:
            yield
        except ComityError:
            stored = await self._pools.files(self._stored, manifest)
            await self._alone(self._put, MirrorCharge(artifact, rule, name, size_of(manifest), stored))
            self._room = True
            raise

    async def take_fitting(self) -> list[Digest]:
        """Artifacts that waited for room and fit now, at most `PAGE` a rule: they wait no longer."""
        if not (self._room and self.counted and self.waiting):
            return []
        self._room = False
        table, taken = self._ledger.tables.mirror_charges, list[Digest]()
        async with self._lock:
            for rule in list(self._waiting):
                room = self._quotas.room(rule)
                most = 2**62 if room is None else room
                for charge in await self._ledger.run(table.fitting, rule, most, PAGE):
                    if charge.size > most:
                        break
                    most -= charge.size
                    taken.append(charge.artifact)
            if taken:
                await self._ledger.run(table.end_waiting, taken)
                self._waiting = await self._ledger.run(table.waiting_counts)
        return taken

    @property
    def waiting(self) -> int:
        """Artifacts that wait for room."""
        return sum(self._waiting.values())

    async def examples(self, most: int) -> list[LackingArtifact]:
        """Artifacts that wait for room, with the reason."""
        if not self.waiting or most <= 0:
            return []
        found = await self._ledger.run(self._ledger.tables.mirror_charges.waiting, most)
        return [
            LackingArtifact(item.artifact, item.name, "waits", self._refusal(item.rule, item.size), QUOTA, 0)
            for item in found
        ]

    def status(self) -> Iterator[Quota]:
        for use in self._quotas.uses():
            yield Quota(str(use), use.used, use.limit, items=False)

    def warnings(self) -> Iterator[str]:
        for use in self._quotas.uses():
            if use.nearly_full:
                waiting = self._waiting.get(use.rule, 0) if use.rule else self.waiting
                yield f"{use} uses {use.used} of {use.limit} bytes; artifacts that wait for room: {waiting}"

    async def _alone(self, change: Callable[P, Awaitable[None]], *args: P.args, **kwargs: P.kwargs) -> None:
        """Make a change under the lock, to its end also if its caller is cancelled: memory must match the ledger."""

        async def locked() -> None:
            async with self._lock:
                await change(*args, **kwargs)

        await asyncio.shield(locked())

    async def _release(self, artifacts: Sequence[Digest]) -> None:
        for charge in await self._ledger.run(self._ledger.tables.mirror_charges.release, artifacts):
            self._quotas.charge(charge.rule, -charge.charged)
            self._waiting[charge.rule] = self._waiting.get(charge.rule, 0) - charge.waits

    async def _charge(self, artifact: Digest, rule: str, name: str, size: int) -> None:
        before = await self._before(artifact)
        stored = before.charged if before is not None else 0
        if before is not None:
            self._quotas.charge(before.rule, -stored)
        refusal = self._refusal(rule, size) if self._quotas.exceeded(rule, size) else ""
        if before is not None:
            self._quotas.charge(before.rule, stored)
        charged = stored if refusal else size
        await self._put(MirrorCharge(artifact, rule, name, size, charged, waits=bool(refusal)))
        if refusal:
            raise OutOfSpace(f"{name} is not copied yet", why=refusal, code="MIRROR-QUOTA")

    def _refusal(self, rule: str, size: int) -> str:
        if (use := self._quotas.exceeded(rule, size)) is None:
            return "it fits into its quotas, and waits for its turn"
        return f"{use} has {max(0, use.limit - use.used)} of {use.limit} bytes left, and this artifact has {size}"

    async def _put(self, charge: MirrorCharge) -> None:
        before = await self._before(charge.artifact)
        await self._ledger.run(self._ledger.tables.mirror_charges.put, charge)
        if before is not None:
            self._quotas.charge(before.rule, -before.charged)
            self._waiting[before.rule] = self._waiting.get(before.rule, 0) - before.waits
        self._quotas.charge(charge.rule, charge.charged)
        self._waiting[charge.rule] = self._waiting.get(charge.rule, 0) + charge.waits

    async def _before(self, artifact: Digest) -> MirrorCharge | None:
        return (await self._ledger.run(self._ledger.tables.mirror_charges.find, [artifact])).get(artifact)

    def _stored(self, manifest: Manifest) -> int:
        """Bytes of an artifact's files on the disk. Blocking."""
        missing = missing_files(self._store, manifest)
        partial = sum(_allocated(self._store.partial_path(want.digest)) for want in missing)
        return min(size_of(manifest), size_of(manifest) - sum(want.size for want in missing) + partial)


def size_of(manifest: Manifest) -> int:
    """The sizes of an artifact's files, each file once."""
    return sum({entry.sha256: entry.size for entry in manifest.files}.values())


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * BLOCK
    except OSError:
        return 0


PACED_LIMITS: Final = TransferLimits(patience=3_600.0, streams=2, buffers=4, read_timeout=300.0)
"""A source that is read slowly on purpose must not look as if it had failed."""

MAKE_ROOM: Final = (
    "free some space on the node's disk, or lower replication.stop_free_bytes; the node goes on by itself"
)


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Bytes of free space: below `stop` copies stop, from `resume` on they go on."""

    stop: int
    resume: int

    def stopped(self, before: bool, free: int | None) -> bool:
        """Whether copies are stopped, if they were `before`. Unknown free space stops nothing."""
        return free is not None and free < (self.resume if before else self.stop)


def rate_at(bandwidth: Sequence[str], now: float) -> int | None:
    """The bytes a second at a POSIX time, by `replication.bandwidth`; None without a limit."""
    items = (item.split(" ") for item in bandwidth)
    return next((int(rate) for hours, rate in items if within_hours(hours, now)), None)


class Pace:
    """Shares a number of bytes a second among all readers. Not thread-safe: call from the event loop."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._next = 0.0

    def reserve(self, count: int, now: float) -> float:
        """Reserve bytes. Returns the seconds to wait before more may be read."""
        self._next = max(self._next, now) + count / self.rate
        return self._next - now


class PacedSource:
    """A source that is read at a pace, beside others with the same one."""

    def __init__(self, source: BlobSource, pace: Pace) -> None:
        self._source = source
        self._pace = pace

    @property
    def key(self) -> SourceKey:
        return self._source.key

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def host(self) -> SourceKey:
        return self._source.host

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """As `BlobSource.read`."""
        async with aclosing(self._source.read(digest, offset, length)) as parts:
            async for part in parts:
                await asyncio.sleep(self._pace.reserve(len(part), asyncio.get_running_loop().time()))
                yield part


class CopyPauses:
    """Not thread-safe: call from the event loop.

    Attributes:
        why: why no copy may begin now; empty if copies may begin.
        pace: the pace of copies; None without a limit.
    """

    def __init__(self, settings: Replication, store: BlobStore, pools: Pools, clock: Clock) -> None:
        self._marks = Watermarks(settings.stop_free_bytes, settings.resume_free_bytes)
        self._bandwidth = settings.bandwidth
        self._store = store
        self._pools = pools
        self._clock = clock
        self._full = False
        self._rate: int | None = None
        self._turns: set[asyncio.Timeout] = set()
        self._promised = 0
        self.why = ""
        self.pace: Pace | None = None

    async def look(self) -> bool:
        """Look at the clock and the disk. Returns whether copies may go on that were paused."""
        free = await self._pools.files(self._store.free_bytes)
        rate, before = rate_at(self._bandwidth, self._clock()), self.why
        self._full = self._marks.stopped(self._full, free)
        self.why = self._reason(free, rate)
        if rate != self._rate:
            self._rate, self.pace = rate, Pace(rate) if rate else None
            self._end_turns()
        if self.why and not before:
            _log.warning("copies are paused", why=self.why)
            self._end_turns()
        elif before and not self.why:
            _log.info("copies go on")
        return bool(before) and not self.why

    @contextmanager
    def running(self, turn: asyncio.Timeout) -> Iterator[None]:
        """Inside the block, a pause or another pace ends the turn."""
        self._turns.add(turn)
        try:
            yield
        finally:
            self._turns.discard(turn)

    @asynccontextmanager
    async def space_for(self, wants: Sequence[Want]) -> AsyncIterator[None]:
        """Inside the block, space for files is promised to a copy.

        Raises OutOfSpace if the disk would have less free than the lower mark.
        """
        size, free = sum(want.size for want in wants), await self._pools.files(self._store.free_bytes)
        if size and free is not None and free - self._promised - size < self._marks.stop:
            why = f"{size} bytes are missing, {free} are free, {self._promised} promised to other copies, and "
            raise OutOfSpace("no space for a copy", why=f"{why}{self._marks.stop} stay free", hint=MAKE_ROOM)
        self._promised += size
        try:
            yield
        finally:
            self._promised -= size

    def _reason(self, free: int | None, rate: int | None) -> str:
        if self._full:
            return f"{free} bytes of the disk are free; copies go on from {self._marks.resume}"
        return "replication.bandwidth allows no copies in this hour" if rate == 0 else ""

    def _end_turns(self) -> None:
        now = asyncio.get_running_loop().time()
        for turn in self._turns:
            if not turn.expired():
                turn.reschedule(now)
