"""Processes what a peer has told: proofs of misbehaviour first, then its logs, and the charter last.

`Peers` runs one round after another for each peer. What fails with one log is recorded, and the other logs continue;
what fails with proofs or with the charter does not affect the mirroring of logs (I3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import structlog

from comity.node.charter.follower import CharterFollower
from comity.node.members import Membership, PeerKey
from comity.node.metrics import Metrics
from comity.node.replication.link import PeerLink, StartBarrier
from comity.node.replication.mirror import LogMirror, ShownHead
from comity.node.replication.misbehaviour import MisbehaviourProofs
from comity.node.replication.news import ToldLog
from comity.node.threads import AsyncLedger, Clock
from comity.trust.errors import ComityError, Equivocation, Malformed, OutOfSpace, Untrusted
from comity.trust.tlog.proof import ROOTS

ROUND_PAUSE: Final = 0.05
"""Seconds after a round before the next: what a peer tells in quick succession is processed together."""
CHARTER_RETRY_SECONDS: Final = 600.0
"""Seconds for which the charter, or proofs, are not fetched from a peer that sent invalid ones: they are large."""
INVALID_SECONDS: Final = 600.0
"""Seconds for which heads of a log are not looked at that a peer tells which told one that the log did not sign."""

_log: Final = structlog.get_logger("comity.node")


@dataclass(frozen=True, slots=True)
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
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        membership: Membership,
        metrics: Metrics,
        clock: Clock,
        interval: float,
        start: StartBarrier,
        mirror: LogMirror,
        misbehaviour: MisbehaviourProofs,
        charter: CharterFollower | None,
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._metrics = metrics
        self._clock = clock
        self._interval = interval
        self._start = start
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

    def parse_head(self, link: PeerLink, told: ToldLog) -> ShownHead | None:
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

    async def _process(self, link: PeerLink, told: ToldLog, links: Collection[PeerLink]) -> _Outcome:
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

    async def _follow(self, link: PeerLink, head: ShownHead, writers: Collection[PeerLink]) -> _Outcome:
        """Process one head; `writers` are the nodes whose own log it is of."""
        try:
            if head.log == self._membership.seat.log:
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

    def _record(self, link: PeerLink, told: ToldLog, outcome: _Outcome) -> None:
        """What is settled is forgotten, once the node has its first answers; the rest is processed again later."""
        link.state.last_error = outcome.error
        if outcome.settled and self._start.settled:
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

    async def _update_lag(self, link: PeerLink, head: ShownHead) -> None:
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
