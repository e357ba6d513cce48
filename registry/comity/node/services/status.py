"""How this node is, for its operators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from comity.ledger.logs import LogState
from comity.node.allocation.register import Register
from comity.node.core import Core
from comity.node.governance import report
from comity.node.importing.disputes import disputes
from comity.node.publishing.desk import Desk
from comity.node.replication.assembly import Replication
from comity.node.replication.link import Link
from comity.node.services.facts import SOFTWARE
from comity.trust.errors import NotFound
from comity.trust.tlog.cosignature import MAX_TIMESTAMP
from comity.trust.tlog.note import VerifierKey
from comity.wire.values import GovernanceStatus, LogStatus, NodeStatus, PeerStatus, Quota, Served, StoreStatus

MAX_CONVICTED: Final = 8
"""Offers at fault that are named; the first shows whom not to rely on."""


class Status:
    """Gathers what the parts know."""

    def __init__(self, core: Core, desk: Desk, replication: Replication, offers: Register) -> None:
        self._core = core
        self._offers = offers
        self._desk = desk
        self._replication = replication
        self._started = int(core.clock())

    async def now(self) -> NodeStatus:
        logs = await self._core.pools.ledger(self._logs)
        governance = await self._governance(logs)
        uploads = Quota("uploads", self._desk.pending.bytes, self._core.config.limits.upload_bytes)
        return NodeStatus(
            software=SOFTWARE,
            origin=self._core.origin,
            started=self._started,
            peers=tuple(map(_peer, self._replication.peers.links.values())),
            logs=tuple(logs),
            store=await self._core.pools.files(self._store),
            holds=len(self._replication.replicas.held),
            misbehaviour=len(await self._core.pools.ledger(self._core.ledger.misbehaviour.all)),
            quotas=(uploads, *await self._core.pools.ledger(self._replication.quotas.used)),
            warnings=(*self._warnings(logs, governance), *await self._core.pools.ledger(disputes, self._core)),
            served=tuple(Served(who, blob, count) for (who, blob), count in self._core.served.sums.items()),
            governance=governance,
        )

    async def _governance(self, logs: Iterable[LogStatus]) -> GovernanceStatus | None:
        chamber = self._replication.chamber
        if chamber is None:
            return None
        asks = await self._core.pools.ledger(self._core.ledger.asks.count)
        return report.report(self._core, chamber, {log.origin: log for log in logs}, asks)

    def _warnings(self, logs: Iterable[LogStatus], governance: GovernanceStatus | None) -> Iterator[str]:
        """What an operator should look at, most pressing first."""
        if self._replication.own_log.refusal is not None:
            yield f"this node signs nothing: {self._replication.own_log.refusal}"
        for log in logs:
            if log.frozen:
                yield f"{log.origin} has shown two histories; it is frozen here at size {log.size}"
        for name, chain in islice(self._offers.convicted(), MAX_CONVICTED):
            fault = f"{chain.fault.kind}: {chain.fault.why}" if chain.fault else ""
            origin, title = VerifierKey.parse(name).name, chain.book.offer.title
            yield f"{origin} broke its word about its offer {title!r}: {fault}"
        if governance is not None:
            yield from report.warnings(governance, self._core.clock())
        for log_key, why in self._replication.quotas.full.items():
            yield f"{log_key.name} is at its quota here and does not advance: {why}"
        for name in sorted(self._offers.crowded):
            yield f"{VerifierKey.parse(name).name} says more of compute offers than is kept here; see limits"
        if waiting := self._offers.waiting():
            yield f"requests for this node's offers that wait for an answer: {waiting}; see comity grant ls"
        if missing := len(self._replication.custody.missing):
            yield f"{missing} side objects of logged entries are missing here and looked for"
        if self._core.membership.federation is None:
            yield "this node belongs to no federation yet"
        elif not self._core.membership.seated:
            yield "the newest charter has no seat for this node's member"
        if self._replication.start.alone:
            yield "no peer answered when this node started"
        for link in self._replication.peers.links.values():
            if not link.state.reachable:
                yield f"{link.name} does not answer: {link.state.last_error or 'not asked yet'}"

    def _logs(self) -> list[LogStatus]:
        states = sorted(self._core.ledger.logs.all(), key=lambda state: not state.own)
        return [self._log(state) for state in states]

    def _log(self, state: LogState) -> LogStatus:
        key = VerifierKey.parse(state.vkey)
        time, cosigners = self._cosigned(key)
        return LogStatus(
            origin=state.origin,
            size=state.size,
            own=state.own,
            checkpoint_time=time,
            cosigners=cosigners,
            frozen=self._replication.convictions.frozen(key),
            full=key in self._replication.quotas.full,
        )

    def _cosigned(self, log: VerifierKey) -> tuple[int, tuple[str, ...]]:
        """The time of the newest cosignature of the newest checkpoint, and the names of its cosigners."""
        try:
            note = self._core.ledger.cosignatures.cosigned(str(log))
        except NotFound:
            return 0, ()
        lines = [line for line in note.signatures if line.name != log.name]
        made = {line.name: int.from_bytes(line.signature[:8], "big") for line in lines}
        times = [time for time in made.values() if time <= MAX_TIMESTAMP]
        return max(times, default=0), tuple(sorted(made))

    def _store(self) -> StoreStatus:
        sizes = [size for _, size in self._core.store.sizes()]
        return StoreStatus(len(sizes), sum(sizes), self._core.store.free_bytes(), self._core.store.quarantined())


def _peer(link: Link) -> PeerStatus:
    peer, state = link.peer, link.state
    return PeerStatus(
        name=link.name,
        jurisdiction=peer.member.jurisdiction,
        address=link.address,
        reachable=state.reachable,
        last_seen=state.last_seen,
        lag=state.lag,
        last_error=state.last_error,
    )
