"""Withdraws this node's own copy of an artifact: with care for the others, or at once by the operator's decision.

    (1) begin: from now on this node grants no lease on the artifact and answers no audit about it
    (2) its files move to the folder `withheld` of the store, where nothing serves them: nobody can pass the challenge
    with bytes from here. Files that another artifact here uses, and side objects of logs, stay (3) the other holders
    are audited now, each under a lease; with `force` nobody is asked (4) enough members in enough jurisdictions:
    `hold-withdrawn` is logged; else the files move back (5) the files are deleted, within the first half of the lease;
    or kept, if the operator says so

A crash before (4) is repaired at the next start: the hold stands, so the files move back. A crash after it leaves files
that nothing serves, and the next start deletes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from comity.content.blobs import BlobStore
from comity.ledger.log_store import EntryQuery
from comity.node.copies.auditor import AuditedCopy, Auditor
from comity.node.copies.index import CopiesIndex, CopyRow
from comity.node.copies.leases import Leases, RemovalCount
from comity.node.copies.responder import StandingHold, own_hold
from comity.node.copies.withheld import WithheldFiles
from comity.node.keys import NodeSigner
from comity.node.members import Membership, Peer
from comity.node.own_log import OwnLog, iterate_entries
from comity.node.replication.replicas import Replicas
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.node.uploads import read_artifact
from comity.trust.artifact import MAX_MANIFEST, Manifest
from comity.trust.copies import (
    HOLD_WITHDRAWN,
    PASSED,
    CopyPolicy,
    HoldWithdrawn,
    parse_hold_withdrawn,
    sign_hold_withdrawn,
)
from comity.trust.encoding import Digest, short
from comity.trust.errors import Conflict, NotFound, PolicyNotMet
from comity.trust.places import declared_reach
from comity.trust.statement import parse_entry
from comity.wire.audit import HoldDecision, HoldOrder

LEASE: Final = 300
"""Seconds of a lease that this node asks for."""
AT_ONCE: Final = 8
"""Holders that are asked at a time."""

_log: Final = structlog.get_logger("comity.node.audits")


class Withdrawals:
    """Not thread-safe: call from the event loop.

    Args:
        monotonic: seconds, for leases.
        wake: called after a withdrawal was taken back.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        store: BlobStore,
        pools: Pools,
        membership: Membership,
        signer: NodeSigner,
        own_log: OwnLog,
        monotonic: Clock,
        leases: Leases,
        index: CopiesIndex,
        auditor: Auditor,
        withheld: WithheldFiles,
        replicas: Replicas,
        wake: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._membership = membership
        self._signer = signer
        self._own_log = own_log
        self._monotonic = monotonic
        self._leases = leases
        self._index = index
        self._auditor = auditor
        self._withheld = withheld
        self._replicas = replicas
        self._wake = wake
        self._lock = asyncio.Lock()

    async def recover(self) -> None:
        """Put back the files of withdrawals that ended before they were logged, and delete those of others, unless the
        operator keeps them. Nobody counts on a withdrawn copy, so it may be deleted at any time."""
        for artifact in await self._pools.files(self._withheld.artifacts):
            if await self._ledger.run(self._hold, artifact) is not None:
                await self._pools.files(self._withheld.give_back, artifact)
            elif not await self._ledger.run(self._keeps, artifact):
                await self._pools.files(self._withheld.erase, artifact)

    async def decide(self, order: HoldOrder) -> HoldDecision:
        """Raises NotFound (NOT-HELD), PolicyNotMet (COPIES-SHORT, LAST-COPY), Conflict (LEASED, LEASE-OVER,
        WITHDRAWING), Refused (NO-WITHHOLDING)."""
        self._withheld.require_folder()
        async with self._lock:
            await self._auditor.read_new()
            if order.again:
                return await self._take_back(order)
            hold = await self._ledger.run(self._hold, order.artifact)
            if hold is None:
                why = f"this node claims no copy of {short(order.artifact)}"
                raise NotFound("no such copy here", why=why, code="NOT-HELD")
            others = self._others(await self._ledger.run(self._index.copies, order.artifact))
            await self._require_typed(order, others)
            if order.trial:
                return await self._trial(order, hold, others)
            return await self._withdraw(order, hold, others)

    async def _withdraw(self, order: HoldOrder, hold: StandingHold, others: list[tuple[CopyRow, Peer]]) -> HoldDecision:
        artifact = order.artifact
        count = RemovalCount(self._policy(), self._signer.record.member, self._monotonic(), LEASE)
        if order.force:
            count.policy = CopyPolicy(0, 0)
        self._leases.begin(artifact, count.began, force=order.force)
        self._replicas.withdrawn.add(artifact)
        logged = False
        try:
            alone = await self._pools.hashing(self._only_here, artifact, hold)
            taken = await self._pools.files(lambda: sum(self._withheld.take(artifact, digest) for digest in alone))
            results = [] if order.force else await self._prove(others, count)
            count.check(self._monotonic())
            record, online = self._signer.record, self._signer.online
            statement = HoldWithdrawn(
                record.node, artifact, hold.index, order.reason, order.basis, order.keep, order.force
            )
            entry = await self._pools.files(sign_hold_withdrawn, record, statement, online)
            index = await self._own_log.append(entry.line)
            logged = True
            await self._replicas.own_claims_logged()
            if not order.keep:
                count.check(self._monotonic())
                await self._pools.files(self._withheld.erase, artifact)
        finally:
            if not logged:
                await asyncio.shield(self._pools.files(self._withheld.give_back, artifact))
                self._replicas.withdrawn.discard(artifact)
            self._leases.end(artifact)
        _log.warning("hold withdrawn", artifact=artifact, reason=order.reason, forced=order.force, index=index)
        proven, unproven = _names(results)
        return HoldDecision(entry.line, index, proven, unproven, taken)

    async def _prove(self, others: list[tuple[CopyRow, Peer]], count: RemovalCount) -> list[AuditedCopy]:
        """Audit the other copies under a lease."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def ask(row: CopyRow, peer: Peer) -> AuditedCopy:
            async with turns:
                audited = await self._auditor.audit(row, peer, lease=count.lease)
            if audited is not None and audited.outcome == PASSED and self._membership.member(peer.member.id):
                jurisdiction = peer.member.jurisdiction
                count.add(peer.member.id, jurisdiction, declared_reach(jurisdiction, peer.record.place))
            return audited or AuditedCopy(peer, "missed", why="it cannot be audited from here")

        return list(await asyncio.gather(*(ask(row, peer) for row, peer in others)))

    async def _trial(self, order: HoldOrder, hold: StandingHold, others: list[tuple[CopyRow, Peer]]) -> HoldDecision:
        """What would be asked and freed; nobody is asked."""
        alone = await self._pools.hashing(self._only_here, order.artifact, hold)
        sizes = await self._pools.files(lambda: sum(map(self._store.size, filter(self._store.has, alone))))
        return HoldDecision(b"", 0, (), tuple(sorted(peer.name for _, peer in others)), sizes)

    async def _take_back(self, order: HoldOrder) -> HoldDecision:
        if order.artifact not in self._replicas.withdrawn:
            raise NotFound("nothing to take back", why="this node withdrew no such copy", code="NOT-HELD")
        await self._pools.files(self._withheld.give_back, order.artifact)
        await self._replicas.want_again(order.artifact)
        self._wake()
        return HoldDecision(b"", 0, (), (), 0)

    async def _require_typed(self, order: HoldOrder, others: list[tuple[CopyRow, Peer]]) -> None:
        """Raises PolicyNotMet (LAST-COPY) if nobody else claims a copy and the artifact's name was not typed."""
        if others or order.trial or order.keep:
            return
        page = await self._ledger.run(self._ledger.tables.proven.publications_of, order.artifact)
        if order.typed not in {order.artifact, *(publication.name for publication in page.found)}:
            why = "nobody else claims a copy: when this one is gone, the artifact is lost"
            hint = "give its name or digest with --last-copy, together with --force"
            raise PolicyNotMet("this is the last known copy", why=why, hint=hint, code="LAST-COPY")

    def _policy(self) -> CopyPolicy:
        body = self._membership.body
        return CopyPolicy.of(body.policy if body else None)

    def _others(self, rows: list[CopyRow]) -> list[tuple[CopyRow, Peer]]:
        """The copies that nodes of other members of the charter claim."""
        found = []
        for row in rows:
            peer = self._auditor.peer(row.log)
            if peer is not None and not row.withdrawn and self._membership.member(peer.member.id) is not None:
                found.append((row, peer))
        return found

    def _hold(self, artifact: Digest) -> StandingHold | None:
        return own_hold(self._ledger, self._signer.record.node.id, self._membership.seat.log, artifact)

    def _keeps(self, artifact: Digest) -> bool:
        """Whether the last withdrawal of an artifact says that its bytes are kept. Blocking."""
        log = self._membership.seat.log
        query = EntryQuery(artifact, HOLD_WITHDRAWN, self._signer.record.node.id, log)
        withdrawals = list(iterate_entries(self._ledger.tables, query))
        return bool(withdrawals) and parse_hold_withdrawn(parse_entry(withdrawals[-1].line).statement).kept

    def _only_here(self, artifact: Digest, hold: StandingHold) -> list[Digest]:
        """Files of an artifact that no other held artifact and no log names. Blocking: reads the manifests of all
        holds, until every file is known to be shared."""
        manifest, _ = read_artifact(self._store, hold.manifest, hold.pieces)
        alone = {entry.sha256 for entry in manifest.files if entry.size}
        alone -= self._ledger.tables.side_object_positions.named(sorted(alone))
        query = EntryQuery(predicate="hold", by=self._signer.record.node.id, origin=self._membership.seat.log)
        for found in iterate_entries(self._ledger.tables, query) if alone else ():
            other = parse_entry(found.line).statement.subject
            if other != artifact and alone and self._stands(other):
                alone -= {entry.sha256 for entry in self._manifest(other).files}
        return sorted(alone)

    def _stands(self, artifact: Digest) -> bool:
        copy = self._ledger.tables.replicas.copies([artifact]).get(artifact)
        return copy is not None and copy.stands

    def _manifest(self, artifact: Digest) -> Manifest:
        size = self._store.size(artifact)
        if size > MAX_MANIFEST:
            raise Conflict("a manifest is too large", why=short(artifact))
        return Manifest.parse(b"".join(self._store.iterate(artifact, 0, size)))


def _names(results: list[AuditedCopy]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The nodes that proved a copy, and those that did not, with the reason."""
    proven = sorted(item.peer.name for item in results if item.outcome == PASSED)
    unproven = sorted(f"{item.peer.name}: {item.why or item.outcome}" for item in results if item.outcome != PASSED)
    return tuple(proven), tuple(unproven)
