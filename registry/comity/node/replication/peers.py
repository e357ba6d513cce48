"""One loop for each peer: asks for its log heads, mirrors the logs, and fetches misbehaviour proofs and the charter.

Each peer has a loop of its own, so that a slow or dishonest peer does not delay the others. A round is skipped if
neither the peer's heads nor the ledger have changed. `PeerDiscovery` reads node records and addresses from the logs.
"""

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
from comity.node.members import OUTSIDE_LOG, FoundRecord, Membership, Peer, PeerKey
from comity.node.metrics import Metrics
from comity.node.own_log import newest_addresses
from comity.node.replication.link import PeerLink, StartBarrier
from comity.node.replication.mirror import LogMirror, OwnLogRecovery, ShownHead
from comity.node.replication.misbehaviour import MisbehaviourProofs
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Clock
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Equivocation, Malformed, NotFound, OutOfSpace, Untrusted
from comity.trust.statement import Entry, parse_entry
from comity.trust.statements import Addresses, NodeRecord, parse_addresses, parse_node_record, signed_by_node
from comity.trust.tlog.proof import ROOTS
from comity.wire.client import NodeClient
from comity.wire.log import LogHead

MAX_UNCHANGED_SECONDS: Final = 30.0
"""Seconds after which unchanged heads are processed again: some work is due by the clock."""


@dataclass(frozen=True, slots=True)
class PeerRound:
    """The heads that a peer showed in a round, and the ledger's version.

    Attributes:
        shown: digest of the heads, in their order.
        since: POSIX seconds.
    """

    shown: Digest
    version: int
    since: float

    @classmethod
    def of(cls, heads: Iterable[LogHead], version: int, now: float) -> PeerRound:
        parts = [part for head in heads for part in (head.origin.encode(), head.vkey.encode(), head.note)]
        return cls(sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)), version, now)

    def unchanged_since(self, before: PeerRound | None) -> bool:
        """Whether neither heads nor ledger have changed since `before`, a round that left nothing to do."""
        if before is None or not 0 <= self.since - before.since < MAX_UNCHANGED_SECONDS:
            return False
        return (self.shown, self.version) == (before.shown, before.version)


PAGE: Final = 32
"""Records read at a time: verifying each costs several signatures."""


class PeerDiscovery:
    """Reads each proven node record once; `forget` reads all again. Not thread-safe: call from the event loop."""

    def __init__(self, ledger: AsyncLedger, membership: Membership) -> None:
        self._ledger = ledger
        self._membership = membership
        self._last_record = self._last_addresses = 0
        """Numbers of the last node record and the last addresses that were read."""
        self._reading = asyncio.Lock()

    async def read(self) -> tuple[Peer, ...]:
        """Read new records and addresses. Returns the new peers."""
        members, new = self._membership, list[Peer]()
        async with self._reading:
            while page := await self._since(self._last_record, NODE_RECORD):
                self._last_record = page[-1].number
                new += members.learn(record for item in page if (record := _found_record(item)) is not None)
                await asyncio.sleep(0)
            moved = {peer.record.node.id for peer in new}
            while page := await self._since(self._last_addresses, ADDRESSES):
                self._last_addresses = page[-1].number
                moved |= {by.id for item in page if (by := parse_entry(item.line).statement.by)}
            for peer in members.peers:
                if peer.record.node.id in moved:
                    addresses = await self._ledger.run(_newest_addresses, self._ledger.tables, peer.record)
                    if addresses is not None:
                        members.relocate(PeerKey.of(peer.record), addresses.mutual, addresses.open)
        return tuple(new)

    def forget(self) -> None:
        """Read all records again: after an epoch or a rotation more of them may be valid."""
        self._last_record = self._last_addresses = 0

    async def _since(self, number: int, predicate: str) -> list[ProvenLine]:
        return await self._ledger.run(self._ledger.tables.proven.since, number, (predicate,), PAGE)


def read_addresses(entry: Entry, record: NodeRecord) -> Addresses | None:
    """The addresses in a node's statement; None if it is invalid."""
    try:
        return parse_addresses(entry.statement) if signed_by_node(entry, record) else None
    except ComityError:
        return None


def _found_record(item: ProvenLine) -> FoundRecord | None:
    entry = parse_entry(item.line)
    try:
        own = str(parse_node_record(entry).log) == item.vkey
    except ComityError:
        return None
    return FoundRecord(entry, item.index if own else OUTSIDE_LOG)


def _newest_addresses(ledger: Ledger, record: NodeRecord) -> Addresses | None:
    """The node's last addresses in its own log or, while that is missing, in another log: addresses are hints."""
    with contextlib.suppress(NotFound):  # the log is not mirrored yet
        if (line := newest_addresses(ledger, record)) is not None:
            return read_addresses(parse_entry(line), record)
    copies = ledger.proven.by(record.node.id, ADDRESSES, PAGE).found
    parsed = (read_addresses(parse_entry(copy.line), record) for copy in copies)
    return next((addresses for addresses in parsed if addresses is not None), None)


ROUND_DEADLINE: Final = 1800.0
CHARTER_RETRY_SECONDS: Final = 600.0
"""Seconds for which the charter is not fetched from a peer that sent an invalid one: a certificate is large."""
START_RETRY_SECONDS: Final = 0.25
"""Seconds between tries while the node waits for first answers."""

_log: Final = structlog.get_logger("comity.node")


class Peers:
    """One link and one loop for each peer."""

    def __init__(
        self,
        ledger: AsyncLedger,
        membership: Membership,
        metrics: Metrics,
        clock: Clock,
        interval: float,
        connect: Callable[[PeerKey], PeerLink],
        supervisor: Supervisor,
        start: StartBarrier,
        mirror: LogMirror,
        misbehaviour: MisbehaviourProofs,
        recovery: OwnLogRecovery,
        sync_charter: Callable[[Peer, NodeClient], Awaitable[None]],
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._metrics = metrics
        self._clock = clock
        self._interval = interval
        self._connect = connect
        self._supervisor = supervisor
        self._start = start
        self._mirror = mirror
        self._misbehaviour = misbehaviour
        self._recovery = recovery
        self._sync = sync_charter
        self._charter_retry_at: dict[PeerKey, float] = {}
        self._finished_rounds: dict[PeerKey, PeerRound] = {}
        self._discovery = PeerDiscovery(ledger, membership)
        self.links: dict[PeerKey, PeerLink] = {}

    async def begin(self) -> None:
        """Start a loop for every known peer; more start as logs name new nodes."""
        await self.reread_all()

    async def read_new(self) -> None:
        """New statements were proven: they may name new nodes or addresses."""
        self._start_loops(await self._discovery.read())

    async def reread_all(self) -> None:
        """The membership has changed: read all records again."""
        self._discovery.forget()
        await self._discovery.read()
        self._start_loops(self._membership.peers)

    async def close(self) -> None:
        for link in self.links.values():
            await link.close()

    def _start_loops(self, peers: Iterable[Peer]) -> None:
        interval = self._interval
        timing = LoopTiming(interval, ROUND_DEADLINE, max_delay=4 * interval)
        for key in [peer.key for peer in peers if peer.key not in self.links]:
            link = self.links[key] = self._connect(key)
            _log.info("node known", node=link.name, member=link.peer.member.name)
            self._supervisor.loop(f"peer {key}", partial(self._round_with_retry, link), timing)

    async def _round_with_retry(self, link: PeerLink) -> None:
        """A round with one peer; retried at once while the node waits for first answers."""
        while True:
            try:
                await self._round(link)
                return
            except ComityError:
                if self._start.settled:
                    raise
            await asyncio.sleep(START_RETRY_SECONDS)

    async def _round(self, link: PeerLink) -> None:
        link.begin()
        try:
            shown = await link.client.logs()
        except ComityError as error:
            link.failed(error)
            self._metrics.peer_up.labels(link.name).set(0)
            self._start.attempted(link.peer_key, answered=False)
            raise
        link.seen()
        self._metrics.peer_up.labels(link.name).set(1)
        round_state = PeerRound.of(shown, self._ledger.version, self._clock())
        nothing_new = round_state.unchanged_since(self._finished_rounds.get(link.peer_key))
        heads = [] if nothing_new else self._valid_heads(link, shown)
        self._start.attempted(link.peer_key, answered=True)
        await self._misbehaviour.fetch(link.client)
        if nothing_new:
            link.state.level_since = self._clock()
        elif await self._follow_all(link, heads) and round_state.version == self._ledger.version:
            self._finished_rounds[link.peer_key] = round_state
        await self._sync_charter(link)

    def _valid_heads(self, link: PeerLink, shown: Iterable[LogHead]) -> list[ShownHead]:
        """The valid heads, the peer's own log first. Heads of this node's own log are passed to the recovery."""
        heads = [head for item in shown if (head := self._parse_head(link, item)) is not None]
        for head in heads:
            if head.log == self._membership.seat.log:
                self._recovery.add_head(link, head)
        return sorted(heads, key=lambda head: head.key != link.peer.record.log)

    async def _follow_all(self, link: PeerLink, heads: Iterable[ShownHead]) -> bool:
        """Returns whether nothing is left to do for any head."""
        settled = self._start.settled
        for head in heads:
            settled = await self._follow(link, head) and settled
        return settled and not link.state.last_error

    async def _sync_charter(self, link: PeerLink) -> None:
        """Fetch charter data last, so that a failure does not affect the mirroring of logs (I3)."""
        now = asyncio.get_running_loop().time()
        if now < self._charter_retry_at.get(link.peer_key, 0.0):
            return
        try:
            await self._sync(link.peer, link.client)
        except ComityError as error:
            if isinstance(error, Malformed | Untrusted):
                self._charter_retry_at[link.peer_key] = now + CHARTER_RETRY_SECONDS
            link.state.last_error = link.state.last_error or str(error)
            _log.warning("charter not fetched", peer=link.name, what=error.what, why=error.why, code=error.code)

    async def _follow(self, link: PeerLink, head: ShownHead) -> bool:
        """Process one head. Returns whether nothing is left to fetch. A failure is recorded, and the other logs
        continue."""
        writers = [other for other in self.links.values() if other.peer.record.log == head.key]
        settled = False
        try:
            if head.log == self._membership.seat.log:
                settled = await self._mirror.agree(head)
            else:
                settled = await self._mirror.follow(
                    link,
                    head,
                    from_own_node=link in writers,
                    own_node_reachable=any(writer.state.reachable for writer in writers),
                )
        except OutOfSpace as error:
            link.state.last_error = str(error)
        except Equivocation as error:
            await self._misbehaviour.keep(ROOTS, head.key, error.proof)
        except (ComityError, TimeoutError) as error:
            link.state.last_error = f"{head.origin}: {error}"
            _log.warning("log not mirrored", peer=link.name, origin=head.origin, why=link.state.last_error)
        if link in writers:
            await self._update_lag(link, head)
        return settled

    async def _update_lag(self, link: PeerLink, head: ShownHead) -> None:
        logs = await self._ledger.run(self._ledger.tables.logs.all)
        local_size = next((log.size for log in logs if log.vkey == head.log), 0)
        state, now = link.state, self._clock()
        state.lag = max(0, head.checkpoint.size - local_size)
        if state.lag == 0 or state.level_since is None:
            state.level_since = now
        self._metrics.peer_lag.labels(link.name).set(now - state.level_since)

    def _parse_head(self, link: PeerLink, shown: LogHead) -> ShownHead | None:
        try:
            return self._mirror.parse_head(shown)
        except ComityError as error:
            link.state.last_error = f"{shown.origin}: {error}"
            self._metrics.verify_failures.labels("head").inc()
            _log.warning("head not signed by its log", peer=link.name, origin=shown.origin, why=str(error))
            return None
