"""Withdraws this node's own copy of an artifact: with care for the others, or at once by the operator's decision.

    (1) begin: from now on this node grants no lease on the artifact and answers no audit about it
    (2) its files move to the folder `withheld` of the store, where nothing serves them: nobody can pass the challenge
    with bytes from here. Files that another artifact here uses, and side objects of logs, stay (3) the other holders
    are audited now, each under a lease; with `force` nobody is asked (4) enough members in enough jurisdictions:
    `hold-withdrawn` is logged, within the first half of the lease; else the files move back (5) the files are deleted,
    or kept, if the operator says so

A crash before (4) is repaired at the next start: the hold stands, so the files move back. A crash after it leaves files
that nothing serves, and the next start deletes them. What a full disk or a silent service prevents is tried again every
minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from comity.content.blobs import BlobStore
from comity.node.copies.auditor import AuditedCopy, Auditor
from comity.node.copies.held_files import HeldFiles, HeldFilesReader
from comity.node.copies.index import CopiesIndex, CopyRow
from comity.node.copies.leases import Leases, RemovalCount
from comity.node.copies.own_copies import OwnClaims, StandingHold, WithheldFiles
from comity.node.keys import NodeSigner
from comity.node.members import Membership, Peer
from comity.node.own_log import OwnLog
from comity.node.replication.replicas import Replicas
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.node.uploads import read_manifest
from comity.trust.copies import (
    PASSED,
    CopyPolicy,
    HoldWithdrawn,
    sign_hold_withdrawn,
)
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, Conflict, NotFound, PolicyNotMet
from comity.trust.places import declared_reach
from comity.trust.statement import Entry, SideObject
from comity.wire.audit import HoldDecision, HoldOrder

LEASE: Final = 300
"""Seconds of a lease that this node asks for."""
AT_ONCE: Final = 8
"""Holders that are asked at a time."""
SPARE_SECONDS: Final = 15.0
"""Seconds for which the other holders are waited for after enough have proven their copies, and those that are left for
the withdrawal itself when too few have."""

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
        claims: OwnClaims,
        auditor: Auditor,
        withheld: WithheldFiles,
        held: HeldFiles,
        files: HeldFilesReader,
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
        self._claims = claims
        self._auditor = auditor
        self._withheld = withheld
        self._held = held
        self._files = files
        self._replicas = replicas
        self._wake = wake
        self._lock = asyncio.Lock()
        self._unfinished: set[Digest] = set()
        """Withdrawals whose files are neither back nor deleted."""
        self._listed = False
        """Whether those of earlier processes are among them."""

    async def recover(self) -> None:
        """Put back the files of withdrawals that ended before they were logged, and delete those of others, unless the
        operator keeps them. Nobody counts on a withdrawn copy, so it may be deleted at any time. What fails now is
        tried again in each step."""
        try:
            await self._list()
        except ComityError as error:
            _log.error("withheld files were not listed", why=str(error))
        await self._finish_all()

    async def step(self) -> None:
        """Read the manifests of new holds, and try again what a full disk or a silent service did not let happen."""
        if not self._listed:
            await self._list()
        await self._files.read()
        if (failure := await self._finish_all()) is not None:
            raise failure

    async def _list(self) -> None:
        self._unfinished.update(await self._pools.files(self._withheld.artifacts))
        self._listed = True

    async def _finish_all(self) -> ComityError | None:
        """One that cannot be finished does not stop the others. Returns the last failure."""
        failure: ComityError | None = None
        for artifact in sorted(self._unfinished):
            async with self._lock:
                failure = await self._try_to_finish(artifact) or failure
        return failure

    async def _finish(self, artifact: Digest) -> None:
        """Whether the files of a withdrawal go back or are deleted depends on what is logged."""
        self._unfinished.add(artifact)
        if await self._ledger.run(self._claims.hold, artifact) is not None:
            await self._pools.files(self._withheld.give_back, artifact)
            self._replicas.end_withdrawal(artifact)
        elif not await self._ledger.run(self._claims.keeps, artifact):
            await self._pools.files(self._withheld.erase, artifact)
        self._unfinished.discard(artifact)

    async def decide(self, order: HoldOrder) -> HoldDecision:
        """Raises NotFound (NOT-HELD), PolicyNotMet (COPIES-SHORT, LAST-COPY), Conflict (PINNED, LEASED, LEASE-OVER,
        WITHDRAWING, MANIFEST-UNREAD)."""
        async with self._lock:
            await self._auditor.read_new()
            if order.again:
                return await self._take_back(order)
            hold = await self._ledger.run(self._claims.hold, order.artifact)
            if hold is None:
                why = f"this node claims no copy of {short(order.artifact)}"
                raise NotFound("no such copy here", why=why, code="NOT-HELD")
            await self._require_no_pin(order)
            others = self._others(await self._ledger.run(self._index.copies, order.artifact))
            await self._require_typed(order, others)
            if order.trial:
                return await self._trial(order, hold, others)
            return await self._withdraw(order, hold, others)

    async def _require_no_pin(self, order: HoldOrder) -> None:
        """What is removed to have room must not be what the operator wants kept. A legal order counts for more."""
        for_room = order.reason in ("space", "retention")
        if for_room and await self._ledger.run(self._ledger.tables.pins.has, order.artifact):
            why = f"this node is to keep a copy of {short(order.artifact)}"
            hint = f"end the pin first: comity pin rm {order.artifact}"
            raise Conflict("a pinned artifact is not removed", why=why, hint=hint, code="PINNED")

    async def _withdraw(self, order: HoldOrder, hold: StandingHold, others: list[tuple[CopyRow, Peer]]) -> HoldDecision:
        artifact = order.artifact
        count = RemovalCount(self._policy(), self._signer.record.member, self._monotonic(), LEASE)
        if order.force:
            count.policy = CopyPolicy(0, 0)
        self._leases.begin(artifact, count.began, force=order.force)
        self._replicas.begin_withdrawal(artifact)
        self._unfinished.add(artifact)
        results: list[AuditedCopy] = []
        try:
            await self._claim_others(order)
            alone = await self._only_here(order, hold)
            taken = await self._pools.files(self._withheld.take, artifact, alone)
            if not order.force:
                results = await self._prove(others, count)
            count.check(self._monotonic())
            entry, index = await self._log_withdrawal(order, hold)
        finally:
            self._withheld.end(artifact)
            failure = await asyncio.shield(self._try_to_finish(artifact))
            self._leases.end(artifact)
        _log.warning("hold withdrawn", artifact=artifact, reason=order.reason, forced=order.force, index=index)
        proven, unproven = _names(results)
        return HoldDecision(entry.line, index, proven, unproven, 0 if failure is not None else taken)

    async def _claim_others(self, order: HoldOrder) -> None:
        """Log the claims of complete copies that wait: a copy that nothing claims would lose the files it shares. An
        order does not wait for that."""
        try:
            await self._replicas.claim_waiting()
        except ComityError as error:
            if not order.force:
                raise
            _log.warning("copies were not claimed before a withdrawal", artifact=order.artifact, why=str(error))

    async def _log_withdrawal(self, order: HoldOrder, hold: StandingHold) -> tuple[Entry, int]:
        record, online = self._signer.record, self._signer.online
        statement = HoldWithdrawn(
            record.node, order.artifact, hold.index, order.reason, order.basis, order.keep, order.force
        )
        entry = await self._pools.files(sign_hold_withdrawn, record, statement, online)
        index = await self._own_log.append(entry.line)
        await self._replicas.own_claims_logged()
        await self._forget_files(order.artifact, hold)
        return entry, index

    async def _try_to_finish(self, artifact: Digest) -> ComityError | None:
        """What fails now, such as on a full disk, is done by a later step. Returns the failure."""
        try:
            await self._finish(artifact)
        except ComityError as error:
            _log.error("the files of a withdrawal wait", artifact=artifact, why=str(error))
            return error
        return None

    async def _prove(self, others: list[tuple[CopyRow, Peer]], count: RemovalCount) -> list[AuditedCopy]:
        """Audit the other copies under a lease, those first that passed the last audits of this node. Those that have
        not answered in time for the withdrawal, or soon after enough others have, are not waited for."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def ask(row: CopyRow, peer: Peer) -> AuditedCopy:
            async with turns:
                audited = await self._auditor.audit(row, peer, lease=count.lease)
            if audited is not None and audited.outcome == PASSED and self._membership.member(peer.member.id):
                jurisdiction = peer.member.jurisdiction
                count.add(peer.member.id, jurisdiction, declared_reach(jurisdiction, peer.record.place))
            return audited or AuditedCopy(peer, "missed", why="it cannot be audited from here")

        clock = asyncio.get_running_loop().time
        ends = clock() + count.lease / 2 - SPARE_SECONDS - (self._monotonic() - count.began)
        asked = {asyncio.create_task(ask(row, peer)): peer for row, peer in sorted(others, key=self._untested_days)}
        waiting = set(asked)
        try:
            while waiting and (seconds := ends - clock()) > 0:
                _, waiting = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                if count.enough:
                    ends = min(ends, clock() + SPARE_SECONDS)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        late = [AuditedCopy(asked[task], "missed", why="it did not answer in time") for task in waiting]
        return [*(task.result() for task in asked if task not in waiting), *late]

    def _untested_days(self, other: tuple[CopyRow, Peer]) -> int:
        """By this the copies are sorted that pass: those first that passed an audit of this node last."""
        own, (row, _) = self._signer.record.member, other
        return -max((item.day for item in row.results if item.auditor == own and item.outcome == PASSED), default=0)

    async def _trial(self, order: HoldOrder, hold: StandingHold, others: list[tuple[CopyRow, Peer]]) -> HoldDecision:
        """What would be asked and freed; nobody is asked."""
        alone = await self._only_here(order, hold)
        sizes = await self._pools.files(lambda: sum(map(self._store.size, filter(self._store.has, alone))))
        return HoldDecision(b"", 0, (), tuple(sorted(peer.name for _, peer in others)), sizes)

    async def _take_back(self, order: HoldOrder) -> HoldDecision:
        if not await self._replicas.has_withdrawn(order.artifact):
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

    async def _only_here(self, order: HoldOrder, hold: StandingHold) -> list[Digest]:
        """Files of an artifact that no other held artifact and no log names. Raises Conflict (MANIFEST-UNREAD)."""
        await self._files.read()
        if not order.force:
            await self._require_manifests(order.artifact)
        named = await self._pools.files(self._files_of, hold.manifest)
        shared = await self._ledger.run(self._held.shared, order.artifact, named)
        shared |= await self._ledger.run(self._ledger.tables.side_object_positions.named, sorted(named))
        return sorted(named - shared)

    async def _require_manifests(self, artifact: Digest) -> None:
        await self._files.read_again()
        unread = [found for found, _ in await self._ledger.run(self._held.unread, None, 2) if found != artifact]
        if unread:
            why = (
                f"the manifest of {short(unread[0])}, which this node holds, cannot be read: it may name the same files"
            )
            hint = "wait until the node has fetched it again, or add --force"
            raise Conflict("this copy cannot be withdrawn yet", why=why, hint=hint, code="MANIFEST-UNREAD")

    async def _forget_files(self, artifact: Digest, hold: StandingHold) -> None:
        files = await self._pools.files(self._files_of, hold.manifest)
        await self._ledger.run(self._held.forget, artifact, files)

    def _files_of(self, manifest: SideObject) -> set[Digest]:
        """Blocking."""
        return {entry.sha256 for entry in read_manifest(self._store, manifest).files if entry.size}


def _names(results: list[AuditedCopy]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The nodes that proved a copy, and those that did not, with the reason."""
    proven = sorted(item.peer.name for item in results if item.outcome == PASSED)
    unproven = sorted(f"{item.peer.name}: {item.why or item.outcome}" for item in results if item.outcome != PASSED)
    return tuple(proven), tuple(unproven)
