"""Two loops for each peer: one reads its news, the other processes them in rounds (`PeerRounds`).

Each peer has loops of its own, so that a slow or dishonest peer does not delay the others. A round makes no call if the
peer has told nothing new. Proofs of misbehaviour come first, then the logs, and the charter last. What fails with one
log is recorded, and the other logs continue; what fails with proofs or with the charter does not affect the mirroring
of logs (I3).

`PeerDiscovery` reads node records and addresses from the logs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Final

import structlog

from comity.ledger.ledger import Ledger
from comity.ledger.proven import ProvenLine
from comity.node.charter.follower import CharterFollower
from comity.node.context import NodeContext
from comity.node.members import OUTSIDE_LOG, FoundRecord, Membership, Peer, PeerKey
from comity.node.own_log import newest_addresses
from comity.node.replication.link import PeerLink, StartBarrier
from comity.node.replication.mirror import LogMirror, PeerHead
from comity.node.replication.misbehaviour import MisbehaviourProofs
from comity.node.replication.news import CALL_SECONDS, HEARTBEAT_ROUNDS, NewsReader, PendingNews
from comity.node.replication.own_log_recovery import OwnLogRecovery
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger
from comity.rules.misbehaviour import ROOTS
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Equivocation, Malformed, NotFound, OutOfSpace, Untrusted
from comity.trust.frozen import frozen
from comity.trust.node_records import Addresses, NodeRecord, read_addresses
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import ADDRESSES, NODE_RECORD
from comity.wire.client import NodeClient

PAGE: Final = 32
"""Records read at a time: verifying each costs several signatures."""


class PeerDiscovery:
    """Reads each proven node record once; `forget` reads all again. Not thread-safe: call from the event loop."""

    def __init__(self, ledger: AsyncLedger, membership: Membership) -> None:
        self._ledger = ledger
        self._membership = membership
        self._last_record = self._last_addresses = 0
        """Numbers of the last node record and the last addresses that were read."""
        self._read_to = -1
        """The number of the last proven statement up to which both were read."""
        self._new: list[Peer] = []
        """New peers that were not returned yet: a failure in between must not lose them."""
        self._moved = set[Digest]()
        """Ids of nodes whose newest addresses are not read yet."""
        self._reading = asyncio.Lock()

    async def read(self) -> tuple[Peer, ...]:
        """Read new records and addresses. Returns the new peers."""
        async with self._reading:
            last = await self._ledger.read(self._ledger.tables.proven.last_number)
            if last == self._read_to:
                return ()
            self._read_to = last
            try:
                await self._read_new()
            except BaseException:
                self._read_to = -1
                raise
            new, self._new = tuple(self._new), []
            return new

    async def _read_new(self) -> None:
        members = self._membership
        while page := await self._since(self._last_record, NODE_RECORD):
            self._last_record = page[-1].number
            learned = members.learn(record for item in page if (record := _found_record(item)) is not None)
            self._new += learned
            self._moved.update(peer.record.node.id for peer in learned)
            await asyncio.sleep(0)
        while page := await self._since(self._last_addresses, ADDRESSES):
            self._last_addresses = page[-1].number
            self._moved.update(by.id for item in page if (by := parse_entry(item.line).statement.by))
        for peer in members.peers:
            if peer.record.node.id in self._moved:
                addresses = await self._ledger.run(_newest_addresses, self._ledger.tables, peer.record)
                if addresses is not None:
                    members.relocate(PeerKey.of(peer.record), addresses.mutual, addresses.open)
        self._moved.clear()

    def forget(self) -> None:
        """Read all records again: after an epoch or a rotation more of them may be valid."""
        self._last_record, self._last_addresses, self._read_to = 0, 0, -1

    async def _since(self, number: int, predicate: str) -> list[ProvenLine]:
        return await self._ledger.run(self._ledger.tables.proven.since, number, (predicate,), PAGE)


def _found_record(item: ProvenLine) -> FoundRecord | None:
    entry = parse_entry(item.line)
    try:
        own = str(NodeRecord.parse(entry.statement).log) == item.vkey
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
READ_DEADLINE: Final = CALL_SECONDS + 300.0
START_RETRY_SECONDS: Final = 0.25
"""Seconds between tries while the node waits for first answers."""

_log: Final = structlog.get_logger("comity.node")

ROUND_PAUSE: Final = 0.05
"""Seconds after a round before the next: what a peer tells in quick succession is processed together."""
CHARTER_RETRY_SECONDS: Final = 600.0
"""Seconds for which the charter, or proofs, are not fetched from a peer that sent invalid ones: they are large."""
INVALID_SECONDS: Final = 600.0
"""Seconds for which heads of a log are not looked at that a peer tells which told one that the log did not sign."""


@frozen
class _Outcome:
    """The result for one log that a peer told.

    Attributes:
        settled: whether nothing is left to do.
        error: what failed; empty if nothing did.
        invalid: whether the log did not sign what was told.
    """

    settled: bool
    error: str = ""
    invalid: bool = False


class PeerRounds:
    """Not thread-safe: call from the event loop.

    Args:
        clock: POSIX seconds, for the lag that the metric shows.
        interval: seconds between two tries.
        charter: None without a federation.

    Attributes:
        start: what waits for the first answers of the peers.
        is_mirrored: whether the log of a verifier key is mirrored here.
    """

    def __init__(
        self,
        context: NodeContext,
        interval: float,
        start: StartBarrier,
        mirror: LogMirror,
        misbehaviour: MisbehaviourProofs,
        charter: CharterFollower | None,
    ) -> None:
        self._ledger = context.ledger
        self._membership = context.membership
        self._metrics = context.metrics
        self._clock = context.clock
        self._interval = interval
        self.start = start
        self.is_mirrored = mirror.is_mirrored
        self._mirror = mirror
        self._misbehaviour = misbehaviour
        self._charter = charter
        self._charter_retry_at: dict[PeerKey, float] = {}
        self._lag_shown: dict[PeerKey, str] = {}
        """The name under which the metric shows the lag of each peer."""

    async def run(self, link: PeerLink, links: Collection[PeerLink]) -> None:
        """Process what the peer of `link` has told. `links`: all peers, among them the own nodes of logs."""
        if not link.news.answered or not link.state.reachable:
            return
        await self._fetch_misbehaviour(link)
        due = link.news.due(asyncio.get_running_loop().time(), str(link.peer.record.log))
        link.state.last_error = ""
        for told in due:
            self._record(link, told, await self._process(link, told, links))
        link.state.last_error = link.state.last_error or link.news.error
        if link.news.settled and link.state.lag == 0:
            link.state.level_since = self._clock()
            self._show_lag(link)
        charter_error = await self._sync_charter(link)
        link.state.last_error = link.state.last_error or charter_error
        if due:
            await asyncio.sleep(ROUND_PAUSE)

    def parse_head(self, link: PeerLink, told: PendingNews) -> PeerHead | None:
        """The head that a peer told; None if its log is not mirrored here. Raises Malformed, and Untrusted if the log
        did not sign it, which is logged and counted."""
        try:
            return self._mirror.parse_head(told)
        except ComityError as error:
            self._metrics.verify_failures.labels("head").inc()
            _log.warning("head not signed by its log", peer=link.name, origin=told.origin, why=str(error))
            raise

    async def _fetch_misbehaviour(self, link: PeerLink) -> None:
        """Fetch a peer's proofs if their number has changed, at most once in an interval."""
        told, now = link.news.misbehaviour, asyncio.get_running_loop().time()
        if (told is not None and told == link.news.fetched_misbehaviour) or now < link.news.fetch_at:
            return
        link.news.fetch_at = now + self._interval / 2
        link.news.fetched_misbehaviour = told  # before the call: more logs may be mirrored here meanwhile
        try:
            await self._misbehaviour.fetch(link.client)
        except (Malformed, Untrusted) as error:  # the peer's logs may be good
            link.news.fetched_misbehaviour, link.news.fetch_at = None, now + CHARTER_RETRY_SECONDS
            _log.warning("misbehaviour proofs not fetched", peer=link.name, why=str(error), code=error.code)
        except BaseException:
            link.news.fetched_misbehaviour = None
            raise

    async def _process(self, link: PeerLink, told: PendingNews, links: Collection[PeerLink]) -> _Outcome:
        """Process one log that a peer told. A failure is in the result, not raised."""
        if not told.note:
            try:
                return _Outcome(await self._mirror.collect(told))
            except ComityError as error:
                return _Outcome(settled=False, error=f"{told.origin}: {error}")
        try:
            head = self.parse_head(link, told)
        except ComityError as error:
            return _Outcome(settled=False, error=f"{told.origin}: {error}", invalid=True)
        if head is None:
            return _Outcome(settled=True)
        writers = [other for other in links if other.peer.record.log == head.key]
        outcome = await self._follow(link, head, writers)
        if link in writers:
            await self._update_lag(link, head)
        return outcome

    async def _follow(self, link: PeerLink, head: PeerHead, writers: Collection[PeerLink]) -> _Outcome:
        """Process one head; `writers` are the nodes whose own log it is of."""
        try:
            if head.log == self._membership.own_node.log:
                return _Outcome(await self._mirror.agree(head))
            reachable = any(writer.state.reachable for writer in writers)
            return _Outcome(
                await self._mirror.follow(link, head, from_own_node=link in writers, own_node_reachable=reachable)
            )
        except OutOfSpace as error:
            return _Outcome(settled=False, error=str(error))
        except Equivocation as error:
            await self._misbehaviour.keep(ROOTS, head.key, error.proof)
            return _Outcome(settled=False)
        except (ComityError, TimeoutError) as error:
            why = f"{head.origin}: {error}"
            _log.warning("log not mirrored", peer=link.name, origin=head.origin, why=why)
            return _Outcome(settled=False, error=why)

    def _record(self, link: PeerLink, told: PendingNews, outcome: _Outcome) -> None:
        """What is settled is forgotten, once the node has its first answers; the rest is processed again later."""
        link.state.last_error = outcome.error
        if outcome.settled and self.start.settled:
            link.news.settle(told)
            return
        seconds = INVALID_SECONDS if outcome.invalid else self._interval
        until = asyncio.get_running_loop().time() + seconds
        link.news.postpone(told, until, outcome.error, invalid=outcome.invalid)

    async def _sync_charter(self, link: PeerLink) -> str:
        """Fetch charter data if the peer may have new ones. Returns what failed; empty if nothing did."""
        now, told = asyncio.get_running_loop().time(), link.news.charter
        if self._charter is None or now < self._charter_retry_at.get(link.peer_key, 0.0):
            return ""
        if link.news.misbehaviour is not None and not self._charter.is_behind(link.peer, told):
            return ""
        self._charter_retry_at[link.peer_key] = now + self._interval / 2
        try:
            await self._charter.fetch_epochs(link.peer, link.client)
        except ComityError as error:
            if isinstance(error, Malformed | Untrusted):
                self._charter_retry_at[link.peer_key] = now + CHARTER_RETRY_SECONDS
            _log.warning("charter not fetched", peer=link.name, what=error.what, why=error.why, code=error.code)
            return str(error)
        return ""

    async def _update_lag(self, link: PeerLink, head: PeerHead) -> None:
        logs = await self._ledger.read(self._ledger.tables.logs.all)
        local_size = next((log.size for log in logs if log.vkey == head.log), 0)
        state, now = link.state, self._clock()
        state.lag = max(0, head.checkpoint.size - local_size)
        if state.lag == 0 or state.level_since is None:
            state.level_since = now
        self._show_lag(link)

    def _show_lag(self, link: PeerLink) -> None:
        """Let the metric say how long the copy is behind when it is read, and not when a round was done."""
        if self._lag_shown.get(link.peer_key) == link.name:
            return
        self._lag_shown[link.peer_key] = link.name

        def behind() -> float:
            state = link.state
            return self._clock() - state.level_since if state.lag and state.level_since is not None else 0.0

        self._metrics.peer_lag.labels(link.name).set_function(behind)


class Peers:
    """One link and two loops for each peer. Not thread-safe: call from the event loop."""

    def __init__(
        self,
        context: NodeContext,
        interval: float,
        connect: Callable[[PeerKey], PeerLink],
        supervisor: Supervisor,
        recovery: OwnLogRecovery,
        rounds: PeerRounds,
        own_keys: Sequence[bytes],
    ) -> None:
        self._membership = context.membership
        self._metrics = context.metrics
        self._interval = interval
        self._connect = connect
        self._supervisor = supervisor
        self._start = rounds.start
        self._recovery = recovery
        self._rounds = rounds
        self._reader: NewsReader[PeerLink] = NewsReader(
            HEARTBEAT_ROUNDS * interval, own_keys, rounds.is_mirrored, self._taken
        )
        self._discovery = PeerDiscovery(context.ledger, context.membership)
        self.links: dict[PeerKey, PeerLink] = {}

    async def begin(self) -> None:
        """Start the loops for every known peer; more start as logs name new nodes."""
        await self.reread_all()

    def log_grew(self, log: str) -> None:
        """A stored log has grown: process what peers told of it."""
        for link in self.links.values():
            if link.news.log_grew(log):
                self._supervisor.wake(_round_name(link.peer_key))

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
        reading = LoopTiming(interval, READ_DEADLINE, max_delay=4 * interval)
        new = [peer.key for peer in peers if peer.key not in self.links]
        if new:
            self._ask_again()
        for key in new:
            link = self.links[key] = self._connect(key)
            _log.info("node known", node=link.name, member=link.peer.member.name)
            self._supervisor.loop(_round_name(key), partial(self._round, link), timing)
            self._supervisor.loop(_news_name(key), partial(self._read_with_retry, link), reading)

    def _ask_again(self) -> None:
        """More logs are mirrored from now on: ask the known peers for everything."""
        for key, link in self.links.items():
            link.news.begin_again()
            self._supervisor.wake(_news_name(key))

    async def _read_with_retry(self, link: PeerLink) -> None:
        """Read news of one peer. After a failure its other addresses are tried at once, and all of them again while the
        node waits for first answers."""
        while True:
            await link.begin()
            try:
                await self._reader.step(link)
                return
            except ComityError as error:
                if link.failed(error):
                    continue
                self._metrics.peer_up.labels(link.name).set(0)
                self._start.attempted(link.peer_key, answered=False)
                if self._start.settled:
                    raise
            await asyncio.sleep(START_RETRY_SECONDS)

    def _taken(self, link: PeerLink, client: NodeClient) -> None:
        """A peer has answered a call of `client`: its news are in `link.news`."""
        link.seen(client)
        self._metrics.peer_up.labels(link.name).set(1)
        self._add_own_head(link)
        if link.news.answered:
            self._start.attempted(link.peer_key, answered=True)
        self._supervisor.wake(_round_name(link.peer_key))

    def _add_own_head(self, link: PeerLink) -> None:
        """The peer may have entries of this node's own log that the ledger here lacks."""
        own = link.news.get(self._membership.own_node.log)
        if own is None or own.invalid:
            return
        try:
            head = self._rounds.parse_head(link, own)
        except ComityError as error:
            link.state.last_error = f"{own.origin}: {error}"
            return
        if head is not None:
            self._recovery.add_head(link, head)

    async def _round(self, link: PeerLink) -> None:
        await self._rounds.run(link, self.links.values())


def _round_name(key: PeerKey) -> str:
    return f"logs of {key}"


def _news_name(key: PeerKey) -> str:
    return f"peer {key}"
