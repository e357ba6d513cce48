"""The limits of this node, each with its use: for the status, the warnings of operators, and the metrics.

No limit drops anything silently: what does not fit is refused with an error, waits where it came from, or is counted
here. From 80 % on the status warns, and names the next step.

    limit                          at the limit
    entries, bytes of a log        the log is not mirrored and not cosigned (QUOTA)
    entries of the own log         only operators may add to it (LOG-QUOTA)
    bytes, entries of outsiders    refused (LOG-SHARE)
    uploads, submissions           refused, or the longest idle one is dropped (UPLOAD-QUOTA)
    wanted copies of a member      wait in its log, and are read again
    members                        a larger charter is refused; a checkpoint has no more cosigners than members
    nodes of a member              further ones are not peers; logged
    requests to join               the oldest of the largest block is replaced
    lines about offers of a log    its offers are not known, and the status says so
    missing side objects of a log  further ones are looked for when these have come
    audit results of a member      further ones are not counted; logged
    open files                     each listener has a share of them, and refuses further connections
    disk of the files              uploads stop at storage.reserve_bytes, copies at replication.stop_free_bytes
    disk of the ledger             the same, where it is the disk of the files; another one is warned about only
"""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import structlog

from comity.ledger.ledger import Ledger
from comity.ledger.quotas import ALL, MAX_ASKS
from comity.node.admission import outside_limit
from comity.node.config import NodeConfig
from comity.node.copies.index import MAX_RESULTS, CopiesIndex
from comity.node.members import MAX_NODES, Membership
from comity.node.metrics import Metrics
from comity.node.offers.index import OfferIndex
from comity.node.replication.replicas import Replicas
from comity.node.replication.side_objects import MAX_MISSING, SideObjectRepair
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger
from comity.node.uploads import MAX_PENDING, PendingSubmissions
from comity.trust.charter.document import MAX_MEMBERS
from comity.trust.frozen import frozen
from comity.wire.node_status import WARN_SHARE, Quota

_log: Final = structlog.get_logger("comity.node")

MAX_WARNINGS: Final = 16
"""Warnings about limits in one status; the fullest first. The others are counted."""


@frozen
class Limit:
    """A limit with its use.

    Attributes:
        kind: the same for all limits of one sort; a label of a metric.
        name: whose limit it is, for operators.
        items: whether items are counted; else bytes.
        next: what an operator can do.
    """

    kind: str
    name: str
    used: int
    most: int
    next: str
    items: bool = True

    @property
    def quota(self) -> Quota:
        return Quota(self.name, self.used, self.most, self.items)

    @property
    def share(self) -> float:
        return self.quota.share


def warnings(limits: Iterable[Limit]) -> Iterator[str]:
    """A line for each limit that is nearly or completely used, the fullest first."""
    near = sorted((limit for limit in limits if limit.quota.is_near), key=lambda limit: -limit.share)
    for limit in near[:MAX_WARNINGS]:
        what = "items" if limit.items else "bytes"
        state = "is reached" if limit.used >= limit.most else f"is used to {int(100 * limit.share)} %"
        yield f"the limit of {limit.name} {state}: {limit.used} of {limit.most} {what}; {limit.next}"
    if len(near) > MAX_WARNINGS:
        yield f"{len(near) - MAX_WARNINGS} more limits are used to {int(100 * WARN_SHARE)} % or more; see the quotas"


TIMING: Final = LoopTiming(interval=60.0, deadline=300.0)


def measure(metrics: Metrics, limits: Iterable[Limit]) -> None:
    """Set the metric: of each kind, the share of the limit that is used most."""
    shares = dict[str, float]()
    for limit in limits:
        shares[limit.kind] = max(shares.get(limit.kind, 0.0), limit.share)
    for kind, share in shares.items():
        metrics.limit_share.labels(kind).set(share)


@frozen
class CountedParts:
    """The parts of the node that count in memory. Not thread-safe: call from the event loop."""

    membership: Membership
    pending: PendingSubmissions
    replicas: Replicas
    repair: SideObjectRepair
    offers: OfferIndex
    copies: CopiesIndex

    def limits(self) -> Iterator[Limit]:
        yield from self._members()
        pending, setting = self.pending, "limits.upload_bytes"
        fix = f"wait until uploads end, or raise {setting}"
        yield Limit("uploads", "uploads", pending.bytes, pending.max_bytes, fix, items=False)
        yield Limit("submissions", "pending submissions", len(pending), MAX_PENDING, "wait until uploads end")
        use, fix = self.replicas.queue_use, "nothing is lost: the others wait in the logs; narrow replication.mirror"
        yield Limit("wanted copies", "wanted copies of one member", use.used, use.most, fix)
        fix = "make a peer reachable that has the objects; see the warnings of comity status"
        missing = self.repair.most_missing
        yield Limit("side objects", "missing side objects of one log", missing, MAX_MISSING, fix)
        fix = "raise limits.offer_lines_per_origin, or ask the member why its log grows"
        yield Limit("offer lines", "lines about offers of one log", *self.offers.line_use, fix)
        fix = "further results of this member are not counted; ask it why it reports so many"
        yield Limit("audit results", "audit results of one auditor", self.copies.most_results, MAX_RESULTS, fix)

    def _members(self) -> Iterator[Limit]:
        body = self.membership.body
        if body is None:
            return
        fix = "a charter has no more: found a second federation"
        yield Limit("members", "members of the charter", len(body.members), MAX_MEMBERS, fix)
        nodes = Counter(peer.member.name for peer in self.membership.peers)
        ((name, count),) = nodes.most_common(1) or [("one member", 0)]
        fix = "further nodes are no peers; ask the member to use fewer"
        yield Limit("nodes", f"nodes of {name}", count, MAX_NODES, fix)


class StoredUse:
    """The limits of the ledger, its disk and this process. Blocking; thread-safe."""

    def __init__(self, config: NodeConfig, ledger: Ledger) -> None:
        self._config = config
        self._ledger = ledger

    def limits(self) -> Iterator[Limit]:
        yield from self._logs()
        yield from self._outsiders()
        yield from self._machine()

    def _logs(self) -> Iterator[Limit]:
        limits = self._config.limits
        for log in self._ledger.logs.all():
            fix = "raise limits.entries_per_origin" + (" at every node that mirrors this log" if log.own else "")
            yield Limit("log entries", f"entries of {log.origin}", log.staged, limits.entries_per_origin, fix)
            if not log.own:
                fix = "raise limits.bytes_per_origin, or ask the member why its log grows"
                most = limits.bytes_per_origin
                yield Limit("log bytes", f"bytes of {log.origin}", log.weight, most, fix, items=False)

    def _outsiders(self) -> Iterator[Limit]:
        used, most = self._ledger.outside_usage.used(ALL), outside_limit(self._config.limits)
        fix = "raise limits.entries_per_origin and limits.bytes_per_origin, or accept fewer publishers"
        yield Limit("outside entries", "entries of outsiders", used.entries, most.entries, fix)
        yield Limit("outside bytes", "bytes of outsiders", used.bytes, most.bytes, fix, items=False)
        fix = "comity member ls, and dismiss the requests that nobody admits"
        yield Limit("join requests", "requests to join", self._ledger.join_requests.count(), MAX_ASKS, fix)

    def _machine(self) -> Iterator[Limit]:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        fix = "set LimitNOFILE=65536 in the unit, or ulimit -Hn 65536"
        yield Limit("open files", "open files", sum(1 for _ in Path("/proc/self/fd").iterdir()), most, fix)
        storage = self._config.storage
        yield self._disk("ledger disk", "disk of the ledger", storage.ledger.parent, "storage.ledger")
        if storage.blobs.is_dir() and storage.blobs.stat().st_dev != storage.ledger.parent.stat().st_dev:
            yield self._disk("blob disk", "disk of the files", storage.blobs, "storage.blobs")

    def _disk(self, kind: str, name: str, folder: Path, setting: str) -> Limit:
        space = os.statvfs(folder)
        used, free = (count * space.f_frsize for count in (space.f_blocks - space.f_bfree, space.f_bavail))
        most = max(1, used + free - self._config.storage.reserve_bytes)
        fix = f"free some space where {setting} is, or move it to a larger disk"
        return Limit(kind, name, used, most, fix, items=False)


class Capacity:
    """All limits of a node. Not thread-safe: call from the event loop."""

    def __init__(self, counted: CountedParts, stored: StoredUse, ledger: AsyncLedger, metrics: Metrics) -> None:
        self._counted = counted
        self._stored = stored
        self._ledger = ledger
        self._metrics = metrics

    def begin(self, supervisor: Supervisor) -> None:
        supervisor.loop("limits", self._step, TIMING)

    async def now(self) -> tuple[Limit, ...]:
        return (*self._counted.limits(), *await self._ledger.run(lambda: tuple(self._stored.limits())))

    async def _step(self) -> None:
        limits = await self.now()
        measure(self._metrics, limits)
        for line in warnings(limits):
            _log.warning("a limit is nearly reached", limit=line)
