"""The status of this node: what all its parts say, and warnings for its operator."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from comity.ledger.log_store import LogState
from comity.node.capacity import Capacity, warnings
from comity.node.charter.follower import governance_report, governance_warnings
from comity.node.copies.counter import CopyCounter
from comity.node.home_files import SOFTWARE
from comity.node.housekeeping import StoreListing
from comity.node.importing.followed import FollowedRepositories
from comity.node.importing.importer import disputes
from comity.node.importing.queue import ImportQueue
from comity.node.members import Membership
from comity.node.metrics import Metrics, ServedBytes, counted
from comity.node.offers.index import MAX_COUNTED, OfferIndex
from comity.node.policy_file import PolicyFile
from comity.node.reading import ReadingProgress
from comity.node.replication.link import PeerLink
from comity.node.replication.setup import ReplicationTasks
from comity.node.scrub import LedgerScrub, Scrub
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.rules.cosigned_times import corroborated_time
from comity.trust.charter.document import Body
from comity.trust.errors import NotFound
from comity.trust.tlog.note import VerifierKey
from comity.wire.node_status import GovernanceStatus, LogStatus, NodeStatus, PeerStatus, ServedStatus, UsageStatus

MAX_CONVICTED: Final = 8
"""Offers at fault listed in the status."""

MAX_DAMAGE_SHOWN: Final = 8
"""Findings of damage in the ledger listed in the status."""


class LogStates:
    """The state of each log of this node. Blocking. Without `replication`, in a process that only reads, no log is
    known to be at a limit."""

    def __init__(
        self, ledger: AsyncLedger, membership: Membership, replication: ReplicationTasks | None, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._replication = replication
        self._clock = clock

    def by_key(self) -> dict[str, LogStatus]:
        """By the verifier key of the log; this node's own log is the first."""
        states = sorted(self._ledger.tables.logs.all(), key=lambda state: not state.own)
        frozen = self._is_frozen()
        return {state.vkey: self._log(state, frozen) for state in states}

    def _is_frozen(self) -> Callable[[VerifierKey], bool]:
        """Whether a log has shown two histories."""
        if self._replication is not None:
            return self._replication.misbehaviour.frozen
        proven = {proof.vkey for proof in self._ledger.tables.misbehaviour.all()}
        return lambda key: str(key) in proven

    def _log(self, state: LogState, frozen: Callable[[VerifierKey], bool]) -> LogStatus:
        key = VerifierKey.parse(state.vkey)
        time, cosigners = self._cosigned(key)
        return LogStatus(
            origin=state.origin,
            size=state.size,
            own=state.own,
            checkpoint_time=time,
            cosigners=cosigners,
            frozen=frozen(key),
            full=self._replication is not None and key in self._replication.quotas.full,
        )

    def _cosigned(self, log: VerifierKey) -> tuple[int, tuple[str, ...]]:
        """The `corroborated_time` of the newest checkpoint, 0 for none, and the names of its cosigners."""
        try:
            note = self._ledger.tables.cosignatures.cosigned(str(log))
        except NotFound:
            return 0, ()
        names = {line.name for line in note.signatures if line.name != log.name}
        times = self._membership.cosigned_times(note)
        return corroborated_time(times.values(), self._clock()) or 0, tuple(sorted(names))


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """Collects the status of all parts. `started`: POSIX seconds. Not thread-safe: call from the event loop."""

    ledger: AsyncLedger
    pools: Pools
    clock: Clock
    started: int
    membership: Membership
    replication: ReplicationTasks
    listing: StoreListing
    served: ServedBytes
    metrics: Metrics
    offers: OfferIndex
    copies: CopyCounter
    scrub: Scrub
    ledger_scrub: LedgerScrub
    capacity: Capacity
    followed: FollowedRepositories
    queue: ImportQueue
    policy: PolicyFile
    reading: ReadingProgress

    async def now(self) -> NodeStatus:
        log_states = LogStates(self.ledger, self.membership, self.replication, self.clock)
        logs = await self.ledger.run(log_states.by_key)
        governance = await self._governance(logs)
        limits = await self.capacity.now()
        store = await self.pools.files(self.listing.status, self.scrub.status())
        misbehaviour = await self.ledger.run(self.ledger.tables.misbehaviour.count)
        disputed = await self.ledger.run(disputes, self.ledger.tables, self.membership)
        replication = await self.copies.status()
        return NodeStatus(
            software=SOFTWARE,
            origin=self.membership.own_node.record.origin,
            started=self.started,
            peers=tuple(peer_status(link, self.membership.body) for link in self.replication.peers.links.values()),
            logs=tuple(logs.values()),
            store=store,
            holds=self.replication.replicas.standing,
            misbehaviour=misbehaviour,
            quotas=(*(limit.quota for limit in limits), *self.replication.charges.status()),
            warnings=(
                *self._warnings(logs, governance),
                *warnings(limits),
                *disputed,
            ),
            served=tuple(ServedStatus(who, blob, count) for (who, blob), count in self.served.sums.items()),
            governance=governance,
            replication=replication,
            usage=self._usage(),
        )

    def _usage(self) -> UsageStatus:
        return UsageStatus(
            seconds=max(0, int(self.clock()) - self.started),
            cpu_milliseconds=int(time.process_time() * 1000),
            sent_bytes=counted(self.metrics.served_bytes),
            received_bytes=counted(self.metrics.pull_bytes),
            copying_seconds=int(self.replication.replicas.copying_seconds),
        )

    async def _governance(self, logs: Mapping[str, LogStatus]) -> GovernanceStatus | None:
        follower = self.replication.charter_follower
        if follower is None:
            return None
        asks = await self.ledger.run(self.ledger.tables.join_requests.count)
        return governance_report(self.membership, follower, logs, asks)

    def _warnings(self, logs: Mapping[str, LogStatus], governance: GovernanceStatus | None) -> Iterator[str]:
        """Warnings for the operator, most urgent first."""
        if self.replication.own_log.refusal is not None:
            yield f"this node signs nothing: {self.replication.own_log.refusal}"
        for error in self.ledger_scrub.damage[:MAX_DAMAGE_SHOWN]:
            yield f"{error.code}: {error.what}: {error.why}; {error.hint}"
        for vkey, log in logs.items():
            if log.frozen:
                title = self.membership.log_title(vkey)
                yield f"{title} has shown two histories; it is frozen on this node at size {log.size}"
        for name, chain in self.offers.faulty()[:MAX_CONVICTED]:
            fault = f"{chain.fault.kind}: {chain.fault.why}" if chain.fault else ""
            yield f"{self.membership.log_title(name)} is at fault in its offer {chain.state.offer.title!r}: {fault}"
        if governance is not None:
            yield from governance_warnings(governance, self.clock())
        for log_key, why in self.replication.quotas.full.items():
            yield f"{self.membership.log_title(str(log_key))} is above its quota and does not advance: {why}"
        yield from (f"this node {reading}" for reading in self.reading.behind)
        if why := self.policy.problem:
            yield f"the policy of the gateway cannot be read, the one before it still counts: {why}"
        if why := self.replication.pauses.why:
            yield f"no copy begins: {why}"
        yield from self.replication.charges.warnings()
        yield from islice(self.followed.warnings(), MAX_CONVICTED)
        yield from islice(self.queue.warnings(), MAX_CONVICTED)
        for name in sorted(self.offers.over_quota):
            title = self.membership.log_title(name)
            yield f"{title} has more lines about compute offers than this node keeps; see limits"
        waiting = self.offers.unanswered()
        if waiting.own or waiting.elsewhere:
            more = f"{waiting.elsewhere} or more" if waiting.elsewhere == MAX_COUNTED else waiting.elsewhere
            text = f"{waiting.own} in its own log, {more} in others' logs"
            yield f"unanswered requests for this node's offers: {text}; see comity grant ls"
        if missing := len(self.replication.side_object_repair.missing):
            yield f"{missing} side objects of logged entries are missing; the node asks its peers for them"
        if self.membership.federation is None:
            yield "this node belongs to no federation yet"
        elif not self.membership.seated:
            yield "the newest charter does not list this node's member"
        if self.replication.start.no_peer_answered:
            yield "no peer answered when this node started"
        for link in self.replication.peers.links.values():
            if not link.state.reachable:
                yield f"{link.name} does not answer: {link.state.last_error or 'not asked yet'}"


def peer_status(link: PeerLink, body: Body | None) -> PeerStatus:
    """The state of the peer of a link, as a member of the charter `body`."""
    peer, state = link.peer, link.state
    return PeerStatus(
        name=link.name,
        jurisdiction=peer.member.jurisdiction,
        address=link.address,
        reachable=state.reachable,
        last_seen=state.last_seen,
        lag=state.lag,
        last_error=state.last_error,
        former=body is not None and body.member(peer.member.id) is None,
    )
