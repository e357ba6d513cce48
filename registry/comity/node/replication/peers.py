"""The rounds: each peer is asked for news by a loop of its own, so that a slow or lying one keeps nobody waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final

import structlog

from comity.node.core import Core
from comity.node.membership import Peer, PeerKey
from comity.node.replication.acquaintance import Acquaintance
from comity.node.replication.convictions import Convictions
from comity.node.replication.link import Link
from comity.node.replication.mirror import Head, Mirror
from comity.node.replication.quiet import Quiet
from comity.node.replication.recovery import Recovery
from comity.node.replication.start import Start
from comity.node.tasks import Rhythm, Supervisor
from comity.trust.errors import ComityError, Equivocation, Malformed, OutOfSpace, Untrusted
from comity.trust.tlog.misbehaviour import ROOTS
from comity.wire.client import NodeClient
from comity.wire.values import LogHead

ROUND_DEADLINE: Final = 1800.0
UNHEARD: Final = 600.0
"""Seconds for which a peer is not asked about the charter that showed what proves nothing: a certificate is large."""
RETRY: Final = 0.25
"""Seconds between tries while the node waits for its first answers."""

_log: Final = structlog.get_logger("comity.node")


class Peers:
    """One link and one loop for each peer."""

    def __init__(
        self,
        core: Core,
        supervisor: Supervisor,
        start: Start,
        mirror: Mirror,
        convictions: Convictions,
        recovery: Recovery,
        hear: Callable[[Peer, NodeClient], Awaitable[None]],
    ) -> None:
        self._core = core
        self._supervisor = supervisor
        self._start = start
        self._mirror = mirror
        self._convictions = convictions
        self._recovery = recovery
        self._hear = hear
        self._unheard: dict[PeerKey, float] = {}
        self._quiet: dict[PeerKey, Quiet] = {}
        self._acquaintance = Acquaintance(core)
        self.links: dict[PeerKey, Link] = {}

    async def begin(self) -> None:
        """Start a loop for every peer known; more follow as logs tell of them."""
        await self.look_again()

    async def look(self) -> None:
        """Something was proven here: it may tell of new nodes, or of new addresses."""
        self._meet(await self._acquaintance.read())

    async def look_again(self) -> None:
        """Who counts has changed: read all records again."""
        self._acquaintance.forget()
        await self._acquaintance.read()
        self._meet(self._core.membership.peers)

    async def close(self) -> None:
        for link in self.links.values():
            await link.close()

    def _meet(self, peers: Iterable[Peer]) -> None:
        interval = self._core.config.replication.interval_seconds
        rhythm = Rhythm(interval, ROUND_DEADLINE, longest_rest=4 * interval)
        for key in [peer.key for peer in peers if peer.key not in self.links]:
            link = self.links[key] = Link(self._core, key)
            _log.info("node known", node=link.name, member=link.peer.member.name)
            self._supervisor.loop(f"peer {key}", partial(self._visit, link), rhythm)

    async def _visit(self, link: Link) -> None:
        """A round with one peer; tried again at once while the node waits to hear from anybody."""
        while True:
            try:
                await self._round(link)
                return
            except ComityError:
                if self._start.settled:
                    raise
            await asyncio.sleep(RETRY)

    async def _round(self, link: Link) -> None:
        link.begin()
        try:
            shown = await link.client.logs()
        except ComityError as error:
            link.failed(error)
            self._core.metrics.peer_up.labels(link.name).set(0)
            self._start.attempted(link.peer_key, answered=False)
            raise
        link.seen()
        self._core.metrics.peer_up.labels(link.name).set(1)
        quiet = Quiet.of(shown, self._core.ledger.version, self._core.clock())
        nothing_new = quiet.goes_on_from(self._quiet.get(link.peer_key))
        heads = [] if nothing_new else self._offered(link, shown)
        self._start.attempted(link.peer_key, answered=True)
        await self._convictions.hear(link.client)
        if nothing_new:
            link.state.level = self._core.clock()
        elif await self._take_all(link, heads) and quiet.version == self._core.ledger.version:
            self._quiet[link.peer_key] = quiet
        await self._govern(link)

    def _offered(self, link: Link, shown: Iterable[LogHead]) -> list[Head]:
        """The heads that count, the peer's own first; those of this node's own log may be newer than its ledger."""
        heads = [head for item in shown if (head := self._read(link, item)) is not None]
        for head in heads:
            if head.log == self._core.log:
                self._recovery.offer(link, head)
        return sorted(heads, key=lambda head: head.key != link.peer.record.log)

    async def _take_all(self, link: Link, heads: Iterable[Head]) -> bool:
        """Whether nothing is left to be done about any of them."""
        settled = self._start.settled
        for head in heads:
            settled = await self._take(link, head) and settled
        return settled and not link.state.last_error

    async def _govern(self, link: Link) -> None:
        """What concerns the charter, last: whatever goes wrong with it, logs were followed (I3)."""
        now = asyncio.get_running_loop().time()
        if now < self._unheard.get(link.peer_key, 0.0):
            return
        try:
            await self._hear(link.peer, link.client)
        except ComityError as error:
            if isinstance(error, Malformed | Untrusted):
                self._unheard[link.peer_key] = now + UNHEARD
            link.state.last_error = link.state.last_error or str(error)
            _log.warning("no word about the charter", peer=link.name, what=error.what, why=error.why, code=error.code)

    async def _take(self, link: Link, head: Head) -> bool:
        """One log of a round; whether it has nothing more to give. What goes wrong with it is noted, and the other logs
        go on."""
        writers = [other for other in self.links.values() if other.peer.record.log == head.key]
        settled = False
        try:
            if head.log == self._core.log:
                settled = await self._mirror.agree(head)
            else:
                settled = await self._mirror.follow(
                    link,
                    head,
                    from_its_node=link in writers,
                    its_node_answers=any(writer.state.reachable for writer in writers),
                )
        except OutOfSpace as error:
            link.state.last_error = str(error)
        except Equivocation as error:
            await self._convictions.keep(ROOTS, head.key, error.proof)
        except (ComityError, TimeoutError) as error:
            link.state.last_error = f"{head.origin}: {error}"
            _log.warning("a log was not followed", peer=link.name, origin=head.origin, why=link.state.last_error)
        if link in writers:
            await self._measure(link, head)
        return settled

    async def _measure(self, link: Link, head: Head) -> None:
        logs = await self._core.pools.ledger(self._core.ledger.logs.all)
        held = next((log.size for log in logs if log.vkey == head.log), 0)
        state, now = link.state, self._core.clock()
        state.lag = max(0, head.checkpoint.size - held)
        if state.lag == 0 or state.level is None:
            state.level = now
        self._core.metrics.peer_lag.labels(link.name).set(now - state.level)

    def _read(self, link: Link, shown: LogHead) -> Head | None:
        try:
            return self._mirror.read(shown)
        except ComityError as error:
            link.state.last_error = f"{shown.origin}: {error}"
            self._core.metrics.verify_failures.labels("head").inc()
            _log.warning("a head that its log did not sign", peer=link.name, origin=shown.origin, why=str(error))
            return None
