"""Takes what a bundle has, as from a peer.

Another process of this machine reads the disks and serves them on a Unix socket; here the bundle is one more source of
charters, logs and files for as long as the call lasts. Everything goes through the parts that copy from peers:

(1) epochs are adopted by their certificates
(2) the logs of members are mirrored, up to heads that they signed, and cosigned; a log whose node record is in another
    log of the bundle follows when that one is proven
(3) proofs of misbehaviour are verified, and freeze a log
(4) artifacts that the settings name are copied, and `hold` is logged

So a bundle can do what a peer can do, and no more. Each step is durable: a second call continues.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from comity.node.charter.follower import CharterFollower
from comity.node.context import NodeContext
from comity.node.intake import Intake
from comity.node.members import PeerKey
from comity.node.replication.artifacts import Copy
from comity.node.replication.copy_charges import WAITS
from comity.node.replication.link import CopySource, PeerState
from comity.node.replication.mirror import LogMirror, PeerHead
from comity.node.replication.news import PendingNews
from comity.node.replication.replicas import Replicas
from comity.rules.misbehaviour import ROOTS
from comity.transfer.range_source import RangeSource
from comity.transfer.sources import SourceKey
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Conflict, Equivocation, Malformed, NotFound, Unavailable, Untrusted
from comity.wire.bundle import LoadedArtifact, LoadedCharter, LoadedLog, LoadEnded, LoadEvent, LoadWaiting
from comity.wire.client import NodeClient
from comity.wire.limits import STAT_DIGESTS
from comity.wire.log import LogHead

ANSWER_TIMEOUT: Final = 60.0
"""Seconds for an answer: a disk may have to start, or be restored from others."""
CALL_SECONDS: Final = 3_000.0
"""Seconds after which a call ends; it is made again."""
POLL_SECONDS: Final = 0.5
WAITING_POLLS: Final = 8
"""Polls between two events while nothing changes."""
IDLE_POLLS: Final = 60
"""Polls without progress in a log, which another source catches up, or fails to, after which it is left."""
_log: Final = structlog.get_logger("comity.node")


class BundleSource:
    """A bundle as a source of logs and files. Implements `CopySource`.

    Each has a key of its own among the peers': it waits for no pause of another, and no member's turn is charged.
    """

    key = SourceKey("node", "bundle")
    host = key
    name = "the bundle"
    address = "bundle"

    def __init__(self, client: NodeClient, number: int) -> None:
        self.client = client
        self.peer_key = PeerKey(sha256(b"bundle %d" % number), "bundle")
        self.state = PeerState(reachable=True)
        self.closed = False
        """Whether its call is over: what still reads from it gives it up at once."""

    @asynccontextmanager
    async def more_connections(self, count: int) -> AsyncIterator[list[NodeClient]]:
        yield []

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self.client.read(digest, offset, length)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except Unavailable as error:
            if not self.closed:
                raise
            raise NotFound("the bundle was closed", why=str(error)) from error

    def over_https(self) -> RangeSource | None:
        return None


class BundleLoading:
    """Implements `BundleService`. Not thread-safe: call from the event loop.

    Args:
        sources: the bundles that are being loaded, which the copying of files uses too.
        read_new: reads new node records.
    """

    def __init__(
        self,
        context: NodeContext,
        mirror: LogMirror,
        follower: CharterFollower | None,
        intake: Intake,
        replicas: Replicas,
        sources: list[CopySource],
        read_new: Callable[[], Awaitable[None]],
    ) -> None:
        self._ledger = context.ledger
        self._pools = context.pools
        self._membership = context.membership
        self._mirror = mirror
        self._misbehaviour = mirror.misbehaviour
        self._follower = follower
        self._intake = intake
        self._replicas = replicas
        self._sources = sources
        self._read_new = read_new
        self._opened = 0

    async def load(self, socket: Path) -> AsyncGenerator[LoadEvent, None]:
        if self._sources:
            hint = "wait until it is done"
            raise Conflict("another bundle is being loaded", why="one at a time", hint=hint, code="LOADING")
        clock = asyncio.get_running_loop().time
        ends, finished = clock() + CALL_SECONDS, False
        async with NodeClient.operator(socket, timeout=ANSWER_TIMEOUT) as client:
            self._opened += 1
            source = BundleSource(client, self._opened)
            self._sources.append(source)
            _log.info("bundle opened")
            try:
                async with aclosing(self._steps(source)) as events:
                    async for event in events:
                        yield event
                        if clock() >= ends:
                            break
                    else:
                        finished = True
            finally:
                source.closed = True
                self._sources.remove(source)
                _log.info("bundle closed", finished=finished)
        yield LoadEnded(finished, self._replicas.not_listed)

    async def _steps(self, source: BundleSource) -> AsyncGenerator[LoadEvent, None]:
        with self._replicas.completed() as completed:
            if self._follower is not None:
                yield await self._take_epochs(self._follower, source.client)  # (1)
            async with aclosing(self._take_logs(source)) as events:
                async for event in events:
                    yield event
            try:
                await self._misbehaviour.fetch(source.client)  # (3)
            except (Malformed, Untrusted) as error:  # the bundle's files may be good
                _log.warning("misbehaviour proofs not read", why=str(error), code=error.code)
            copies = await self._replicas.incomplete_copies()
        waiting = [*await self._carried(source, list(completed.values())), *await self._offered(source, copies)]
        async with aclosing(self._take_files(source, waiting)) as artifacts:
            async for taken in artifacts:
                yield taken

    async def _take_epochs(self, follower: CharterFollower, client: NodeClient) -> LoadedCharter:
        before = len(follower.epoch_store.digests)
        try:
            known = -1
            while known != (known := len(follower.epoch_store.digests)):
                await follower.fetch_next(client)
        except Unavailable:
            raise
        except ComityError as error:
            return LoadedCharter(before, len(follower.epoch_store.digests), str(error), error.code)
        return LoadedCharter(before, len(follower.epoch_store.digests))

    async def _take_logs(self, source: BundleSource) -> AsyncGenerator[LoadEvent, None]:
        waiting, grew = list(await source.client.logs()), True
        while waiting and grew:  # (2)
            unknown, grew = list[LogHead](), False
            for head in waiting:
                if not self._mirror.is_mirrored(head.vkey):
                    unknown.append(head)
                    continue
                async with aclosing(self._take_log(source, head)) as events:
                    async for event in events:
                        grew = grew or (isinstance(event, LoadedLog) and event.now > event.before)
                        yield event
                await self._intake.finish(head.vkey)
            await self._read_new()
            waiting = unknown
        why = "no charter or node record that is known here names it"
        unknown_log = NotFound("not a log of a member", why=why, code="NOT-A-MEMBER-LOG")
        for head in waiting:
            yield LoadedLog(head.vkey, 0, 0, 0, str(unknown_log), unknown_log.code)

    async def _take_log(self, source: BundleSource, told: LogHead) -> AsyncGenerator[LoadEvent, None]:
        before, carried, why, code = await self._size(told.vkey), 0, "", ""
        try:
            head = self._mirror.parse_head(PendingNews(told.vkey, told.note))
            if head is None:
                raise NotFound("this log has no checkpoint", why="it was empty when the bundle was made")
            carried = head.checkpoint.size
            async with aclosing(self._follow(source, head)) as waiting:
                async for event in waiting:
                    yield event
            if self._misbehaviour.frozen(head.key):
                raise Untrusted("this log has shown two histories", why="it does not advance here", code="LOG-FROZEN")
        except Equivocation as error:
            await self._misbehaviour.keep(ROOTS, head.key, error.proof)  # type: ignore[union-attr]  # it was parsed
            why, code = str(error), error.code
        except (ComityError, TimeoutError) as error:
            if isinstance(error, Unavailable) and not isinstance(error, NotFound):
                raise  # the bundle is gone
            why, code = str(error) or "it timed out", getattr(error, "code", "DEADLINE")
        yield LoadedLog(told.vkey, before, await self._size(told.vkey), carried, why, code)

    async def _follow(self, source: BundleSource, head: PeerHead) -> AsyncGenerator[LoadWaiting, None]:
        """Mirror a log up to a head; another source may do so at the same time. Raises what stops it."""
        if head.log == self._membership.own_node.log:
            if not await self._mirror.agree(head):
                why = f"the bundle has {head.checkpoint.size} entries of it, which this node signed"
                raise Conflict("this node's ledger is older than its own log", why=why, code="OWN-LOG")
            return
        idle, stored = 0, await self._stored(head.log)
        while not await self._mirror.follow(source, head, from_own_node=True, own_node_reachable=False):
            before, stored = stored, await self._stored(head.log)
            idle = 0 if stored != before else idle + 1
            if idle > IDLE_POLLS:
                raise Conflict("the log does not advance", why="another peer's turn with it lasts", code="LOG-TURN")
            yield LoadWaiting()
            await asyncio.sleep(POLL_SECONDS if idle else 0)

    async def _stored(self, log: str) -> tuple[int, int]:
        """Entries that are visible, and those that are stored."""
        try:
            state = await self._ledger.run(self._ledger.tables.logs.get, log)
        except NotFound:
            return 0, 0
        return state.size, state.staged

    async def _size(self, log: str) -> int:
        return (await self._stored(log))[0]

    async def _carried(self, source: BundleSource, completed: Sequence[Copy]) -> list[Copy]:
        """Those of the copies that were completed while logs were taken that the bundle has too."""
        carried = list[Copy]()
        for start in range(0, len(completed), STAT_DIGESTS):
            some = completed[start : start + STAT_DIGESTS]
            stats = await source.client.stat([copy.manifest.digest for copy in some])
            carried += [copy for copy, stat in zip(some, stats, strict=True) if stat.have]
        return carried

    async def _offered(self, source: BundleSource, copies: Sequence[Copy]) -> list[Copy]:
        """Those of these incomplete copies of which the bundle has a missing file."""
        return [copy for copy in copies if await self._offers(source, copy)]

    async def _take_files(self, source: BundleSource, copies: Sequence[Copy]) -> AsyncGenerator[LoadEvent, None]:
        """Wait until each copy is complete and its hold is logged, waits for room, or has failed twice: the first
        attempt may have begun before the bundle was opened."""
        waiting = {copy.artifact: copy for copy in copies}
        failures = {copy.artifact: copy.failures for copy in copies}
        self._replicas.retry(waiting)  # (4)
        again, polls = set[Digest](), 0
        while waiting:
            incomplete = {copy.artifact: copy for copy in await self._replicas.incomplete_copies()}
            for artifact in waiting.keys() & incomplete.keys():
                if incomplete[artifact] is not waiting[artifact]:  # it left the queue, and was queued again
                    waiting[artifact], failures[artifact] = incomplete[artifact], 0
            ended = [copy for copy in waiting.values() if copy.artifact not in incomplete]
            if all_ended := len(ended) == len(waiting):
                await self._replicas.claim_waiting()
            for event in await self._ended(ended):
                yield event
                del waiting[event.artifact]
                polls = 0
            for artifact in list(waiting) if all_ended else ():
                if await self._replicas.has_withdrawn(artifact):  # the operator has withdrawn it meanwhile
                    del waiting[artifact]
            for copy in list(waiting.values()):
                if copy.failures > failures[copy.artifact] + 1 and copy.failure is not None:
                    yield LoadedArtifact(copy.artifact, copy.name, str(copy.failure), copy.failure.code)
                    del waiting[copy.artifact]
                    polls = 0
            if not waiting:
                break
            polls += 1
            once = {each for each, copy in waiting.items() if copy.failures > failures[each]} - again
            self._replicas.retry(once)
            again |= once
            if polls % WAITING_POLLS == 0:
                yield LoadWaiting()
                await source.client.stat(list(waiting)[:1])  # raises Unavailable when the bundle is gone
            await asyncio.sleep(POLL_SECONDS)
        await self._replicas.claim_waiting()

    async def _ended(self, copies: Sequence[Copy]) -> list[LoadedArtifact]:
        """What became of copies that are no longer in the queue. A copy whose claim waits for others, or that has lost
        a file before it was claimed, has not ended."""
        absent = await self._replicas.absent([copy.artifact for copy in copies])
        ended = list[LoadedArtifact]()
        for copy in copies:
            if copy.artifact not in absent:
                ended.append(LoadedArtifact(copy.artifact, copy.name))
            elif copy.failure is not None and copy.failure.code in WAITS:
                ended.append(LoadedArtifact(copy.artifact, copy.name, str(copy.failure), copy.failure.code))
        return ended

    async def _offers(self, source: BundleSource, copy: Copy) -> bool:
        missing = [want.digest for want in await self._pools.files(self._replicas.missing_files, copy)]
        for start in range(0, len(missing), STAT_DIGESTS):
            if any(stat.have for stat in await source.client.stat(missing[start : start + STAT_DIGESTS])):
                return True
        return not missing
