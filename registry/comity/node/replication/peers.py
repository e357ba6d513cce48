"""Rounds in which there is nothing to do: most of them, and then they should cost next to nothing.

What logs say about nodes: new ones, by records that a charter proves, and where known ones listen.

The rounds: each peer is asked for news by a loop of its own, so that a slow or lying one keeps nobody waiting."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from comity.ledger.intake import ADDRESSES, NODE_RECORD
from comity.ledger.ledger import Ledger
from comity.ledger.proven import ProvenLine
from comity.node.context import NodeContext
from comity.node.members import ELSEWHERE, FoundRecord, Peer, PeerKey
from comity.node.own_log import newest_addresses
from comity.node.replication.link import PeerLink, StartBarrier
from comity.node.replication.mirror import LogMirror, OwnLogRecovery, ShownHead
from comity.node.replication.misbehaviour import MisbehaviourProofs
from comity.node.supervisor import Rhythm, Supervisor
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Equivocation, Malformed, NotFound, OutOfSpace, Untrusted
from comity.trust.statement import Entry, parse_entry
from comity.trust.statements import Addresses, NodeRecord, parse_addresses, parse_node_record, signed_by_node
from comity.trust.tlog.proof import ROOTS
from comity.wire.client import NodeClient
from comity.wire.messages import LogHead

LONGEST: Final = 30.0
"""Seconds after which the same heads are looked at again all the same: some of what is due is due by the clock."""


@dataclass(frozen=True, slots=True)
class ChangeDetector:
    """What a peer showed, and how often this ledger had been written to.

    Attributes:
        shown: digest of the heads, in their order.
        since: POSIX seconds.
    """

    shown: Digest
    version: int
    since: float

    @classmethod
    def of(cls, heads: Iterable[LogHead], version: int, now: float) -> ChangeDetector:
        parts = [part for head in heads for part in (head.origin.encode(), head.vkey.encode(), head.note)]
        return cls(sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)), version, now)

    def goes_on_from(self, before: ChangeDetector | None) -> bool:
        """Whether nothing has changed, there or here, since `before`, when nothing was left to be done."""
        if before is None or not 0 <= self.since - before.since < LONGEST:
            return False
        return (self.shown, self.version) == (before.shown, before.version)


PAGE: Final = 32
"""Records that are proven before others get their turn: each costs several signatures."""


class PeerDiscovery:
    """Reads each proven node record once; `forget` has all of them read again. Touched by the event loop only."""

    def __init__(self, core: NodeContext) -> None:
        self._core = core
        self._read = self._heard = 0
        """The numbers of the last node record and the last addresses that were read."""
        self._reading = asyncio.Lock()

    async def read(self) -> tuple[Peer, ...]:
        """What is proven since the last look; the peers that were new."""
        members, new = self._core.membership, list[Peer]()
        async with self._reading:
            while page := await self._since(self._read, NODE_RECORD):
                self._read = page[-1].number
                new += members.learn(told for item in page if (told := _told(item)) is not None)
                await asyncio.sleep(0)
            speakers = {peer.record.node.id for peer in new}
            while page := await self._since(self._heard, ADDRESSES):
                self._heard = page[-1].number
                speakers |= {by.id for item in page if (by := parse_entry(item.line).statement.by)}
            for peer in members.peers:
                if peer.record.node.id in speakers:
                    said = await self._core.pools.ledger(_addresses, self._core.ledger, peer.record)
                    if said is not None:
                        members.relocate(PeerKey.of(peer.record), said.mutual, said.open)
        return tuple(new)

    def forget(self) -> None:
        """Records that proved nothing may do so now: an epoch was taken up, or keys were rotated."""
        self._read = self._heard = 0

    async def _since(self, number: int, predicate: str) -> list[ProvenLine]:
        return await self._core.pools.ledger(self._core.ledger.proven.since, number, (predicate,), PAGE)


def read_addresses(entry: Entry, record: NodeRecord) -> Addresses | None:
    """Where a node says that it listens, if it says so here."""
    try:
        return parse_addresses(entry.statement) if signed_by_node(entry, record) else None
    except ComityError:
        return None


def _told(item: ProvenLine) -> FoundRecord | None:
    entry = parse_entry(item.line)
    try:
        own = str(parse_node_record(entry).log) == item.vkey
    except ComityError:
        return None
    return FoundRecord(entry, item.index if own else ELSEWHERE)


def _addresses(ledger: Ledger, record: NodeRecord) -> Addresses | None:
    """What a node says last in its own log; before that is here, what a copy elsewhere says: addresses are hints."""
    with contextlib.suppress(NotFound):  # its log is not here yet
        if (line := newest_addresses(ledger, record)) is not None:
            return read_addresses(parse_entry(line), record)
    copies = ledger.proven.by(record.node.id, ADDRESSES, PAGE).found
    said = (read_addresses(parse_entry(copy.line), record) for copy in copies)
    return next((addresses for addresses in said if addresses is not None), None)


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
        core: NodeContext,
        supervisor: Supervisor,
        start: StartBarrier,
        mirror: LogMirror,
        convictions: MisbehaviourProofs,
        recovery: OwnLogRecovery,
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
        self._quiet: dict[PeerKey, ChangeDetector] = {}
        self._acquaintance = PeerDiscovery(core)
        self.links: dict[PeerKey, PeerLink] = {}

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
            link = self.links[key] = PeerLink(self._core, key)
            _log.info("node known", node=link.name, member=link.peer.member.name)
            self._supervisor.loop(f"peer {key}", partial(self._visit, link), rhythm)

    async def _visit(self, link: PeerLink) -> None:
        """A round with one peer; tried again at once while the node waits to hear from anybody."""
        while True:
            try:
                await self._round(link)
                return
            except ComityError:
                if self._start.settled:
                    raise
            await asyncio.sleep(RETRY)

    async def _round(self, link: PeerLink) -> None:
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
        quiet = ChangeDetector.of(shown, self._core.ledger.version, self._core.clock())
        nothing_new = quiet.goes_on_from(self._quiet.get(link.peer_key))
        heads = [] if nothing_new else self._offered(link, shown)
        self._start.attempted(link.peer_key, answered=True)
        await self._convictions.hear(link.client)
        if nothing_new:
            link.state.level = self._core.clock()
        elif await self._take_all(link, heads) and quiet.version == self._core.ledger.version:
            self._quiet[link.peer_key] = quiet
        await self._govern(link)

    def _offered(self, link: PeerLink, shown: Iterable[LogHead]) -> list[ShownHead]:
        """The heads that count, the peer's own first; those of this node's own log may be newer than its ledger."""
        heads = [head for item in shown if (head := self._read(link, item)) is not None]
        for head in heads:
            if head.log == self._core.log:
                self._recovery.offer(link, head)
        return sorted(heads, key=lambda head: head.key != link.peer.record.log)

    async def _take_all(self, link: PeerLink, heads: Iterable[ShownHead]) -> bool:
        """Whether nothing is left to be done about any of them."""
        settled = self._start.settled
        for head in heads:
            settled = await self._take(link, head) and settled
        return settled and not link.state.last_error

    async def _govern(self, link: PeerLink) -> None:
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

    async def _take(self, link: PeerLink, head: ShownHead) -> bool:
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

    async def _measure(self, link: PeerLink, head: ShownHead) -> None:
        logs = await self._core.pools.ledger(self._core.ledger.logs.all)
        held = next((log.size for log in logs if log.vkey == head.log), 0)
        state, now = link.state, self._core.clock()
        state.lag = max(0, head.checkpoint.size - held)
        if state.lag == 0 or state.level is None:
            state.level = now
        self._core.metrics.peer_lag.labels(link.name).set(now - state.level)

    def _read(self, link: PeerLink, shown: LogHead) -> ShownHead | None:
        try:
            return self._mirror.read(shown)
        except ComityError as error:
            link.state.last_error = f"{shown.origin}: {error}"
            self._core.metrics.verify_failures.labels("head").inc()
            _log.warning("a head that its log did not sign", peer=link.name, origin=shown.origin, why=str(error))
            return None
