"""Withdraws this node's own copy of an artifact: with care for the others, or at once by the operator's decision.

    (1) begin: from now on this node grants no lease on the artifact and answers no audit about it
    (2) its files move to the folder `withheld` of the store, where nothing serves them: nobody can pass the challenge
        with bytes from here. Files that another artifact here uses, and side objects of logs, stay (`SoleFiles`)
    (3) the other holders are audited now, each under a lease (`OtherHolders`); with `force` nobody is asked
    (4) enough members in enough jurisdictions: `hold-withdrawn` is logged, within the first half of the lease
        (`LoggedHolds`); else the files move back
    (5) the files are deleted, or kept, if the operator says so (`WithdrawnFiles`)

A crash before (4) is repaired at the next start: the hold stands, so the files move back. A crash after it leaves files
that nothing serves, and the next start deletes them. What a full disk or a silent service prevents is tried again every
minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, TypeAlias

import structlog

from comity.content.blobs import BlobStore
from comity.node.copies.auditor import AuditedCopy, Auditor
from comity.node.copies.held_files import HeldFiles, HeldFilesReader
from comity.node.copies.index import CopiesIndex, CopyRow
from comity.node.copies.leases import Leases, RemovalCount
from comity.node.copies.own_copies import OwnClaims, StandingHold, WithheldFiles
from comity.node.members import Membership, Peer
from comity.node.own_log import OwnLog
from comity.node.replication.replicas import Replicas
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.node.uploads import read_manifest
from comity.rules.copy_counts import PASSED, CopyPolicy
from comity.rules.signing import sign_content
from comity.trust.copies import HoldWithdrawn
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

OtherCopy: TypeAlias = tuple[CopyRow, Peer]
"""A claimed copy, and the node that claims it."""

_log: Final = structlog.get_logger("comity.node.audits")


class LoggedHolds:
    """The claims of copies in this node's own log, which alone says whether a copy is withdrawn. Not thread-safe: call
    from the event loop."""

    def __init__(
        self,
        ledger: AsyncLedger,
        pools: Pools,
        claims: OwnClaims,
        own_log: OwnLog,
        replicas: Replicas,
    ) -> None:
        self._ledger = ledger
        self._pools = pools
        self._claims = claims
        self._signer = own_log.signer
        self._own_log = own_log
        self._replicas = replicas

    async def find(self, artifact: Digest) -> StandingHold | None:
        """The claim of a copy that was not withdrawn."""
        return await self._ledger.run(self._claims.hold, artifact)

    async def keeps_bytes(self, artifact: Digest) -> bool:
        """Whether the last withdrawal of an artifact says that its bytes are kept."""
        return await self._ledger.run(self._claims.keeps, artifact)

    async def claim_waiting(self, order: HoldOrder) -> None:
        """Log the claims of complete copies that wait: a copy that nothing claims would lose the files it shares. An
        order with `force` does not wait for that."""
        try:
            await self._replicas.claim_waiting()
        except ComityError as error:
            if not order.force:
                raise
            _log.warning("copies were not claimed before a withdrawal", artifact=order.artifact, why=str(error))

    async def withdraw(self, order: HoldOrder, hold: StandingHold) -> tuple[Entry, int]:
        """Log that this node does not hold the artifact any more. Returns the entry and its index."""
        record, online = self._signer.record, self._signer.online
        statement = HoldWithdrawn(
            record.node, order.artifact, hold.index, order.reason, order.basis, order.keep, order.force
        )
        entry = await self._pools.files(sign_content, statement, online)
        index = await self._own_log.append(entry.line)
        await self._replicas.own_claims_logged()
        return entry, index


class OtherHolders:
    """The copies that nodes of other members claim, and prove when they are asked. Not thread-safe: call from the event
    loop.

    Args:
        monotonic: seconds, for leases.
    """

    def __init__(
        self, ledger: AsyncLedger, membership: Membership, index: CopiesIndex, auditor: Auditor, monotonic: Clock
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._index = index
        self._auditor = auditor
        self._monotonic = monotonic

    async def read_new(self) -> None:
        """Read the claims that were proven since the last call."""
        await self._auditor.read_new()

    async def copies(self, artifact: Digest) -> list[OtherCopy]:
        """The copies that nodes of other members of the charter claim."""
        found = []
        for row in await self._ledger.run(self._index.copies, artifact):
            peer = self._auditor.peer(row.log)
            if peer is not None and not row.withdrawn and self._membership.member(peer.member.id) is not None:
                found.append((row, peer))
        return found

    def count(self, *, force: bool) -> RemovalCount:
        """A count that begins now; with `force` nobody needs to prove a copy."""
        body = self._membership.body
        policy = CopyPolicy(0, 0) if force else CopyPolicy.of(body.policy if body else None)
        return RemovalCount(policy, self._own_member, self._monotonic(), LEASE)

    async def prove(self, others: Iterable[OtherCopy], count: RemovalCount) -> list[AuditedCopy]:
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
        asked = {asyncio.create_task(ask(row, peer)): peer for row, peer in sorted(others, key=self._days_since_pass)}
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

    @property
    def _own_member(self) -> Digest:
        return self._membership.own_node.record.member

    def _days_since_pass(self, other: OtherCopy) -> int:
        """By this the copies are sorted that pass: those first that passed an audit of this node last."""
        own, (row, _) = self._own_member, other
        return -max((item.day for item in row.results if item.auditor == own and item.outcome == PASSED), default=0)


class SoleFiles:
    """The files that only one artifact here uses: what its withdrawal frees. Not thread-safe: call from the event
    loop."""

    def __init__(
        self, ledger: AsyncLedger, store: BlobStore, pools: Pools, held: HeldFiles, reader: HeldFilesReader
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._held = held
        self._reader = reader

    async def read_new(self) -> None:
        """Read the manifests of new holds."""
        await self._reader.read()

    async def of(self, order: HoldOrder, hold: StandingHold) -> list[Digest]:
        """Files of an artifact that no other held artifact and no log names. Raises Conflict (MANIFEST-UNREAD)."""
        await self._reader.read()
        if not order.force:
            await self._require_manifests(order.artifact)
        named = await self._pools.files(self._files_of, hold.manifest)
        shared = await self._ledger.run(self._held.shared, order.artifact, named)
        shared |= await self._ledger.run(self._ledger.tables.side_object_positions.named, sorted(named))
        return sorted(named - shared)

    async def bytes_of(self, files: Collection[Digest]) -> int:
        return await self._pools.files(lambda: sum(map(self._store.size, filter(self._store.has, files))))

    async def forget(self, artifact: Digest, hold: StandingHold) -> None:
        """The hold was withdrawn."""
        files = await self._pools.files(self._files_of, hold.manifest)
        await self._ledger.run(self._held.forget, artifact, files)

    async def _require_manifests(self, artifact: Digest) -> None:
        await self._reader.read_again()
        unread = [found for found, _ in await self._ledger.run(self._held.unread, None, 2) if found != artifact]
        if unread:
            why = (
                f"the manifest of {short(unread[0])}, which this node holds, cannot be read: it may name the same files"
            )
            hint = "wait until the node has fetched it again, or add --force"
            raise Conflict("this copy cannot be withdrawn yet", why=why, hint=hint, code="MANIFEST-UNREAD")

    def _files_of(self, manifest: SideObject) -> set[Digest]:
        """Blocking."""
        return {entry.sha256 for entry in read_manifest(self._store, manifest).files if entry.size}


class WithdrawnFiles:
    """The files that withdrawals have taken out of the store, until they are back or deleted.

    Not thread-safe: call from the event loop.

    Args:
        wake: called after a withdrawal was taken back.
    """

    def __init__(
        self,
        pools: Pools,
        holds: LoggedHolds,
        withheld: WithheldFiles,
        replicas: Replicas,
        wake: Callable[[], None],
    ) -> None:
        self._pools = pools
        self._holds = holds
        self._withheld = withheld
        self._replicas = replicas
        self._wake = wake
        self._unfinished: set[Digest] = set()
        """Withdrawals whose files are neither back nor deleted."""
        self._listed = False
        """Whether those of earlier processes are among them."""

    @property
    def unfinished(self) -> Sequence[Digest]:
        """The artifacts whose files are neither back nor deleted."""
        return sorted(self._unfinished)

    async def read_earlier(self) -> None:
        """Find what earlier processes left, once."""
        if not self._listed:
            self._unfinished.update(await self._pools.files(self._withheld.artifacts))
            self._listed = True

    def begin(self, artifact: Digest) -> None:
        """A withdrawal begins."""
        self._replicas.begin_withdrawal(artifact)
        self._unfinished.add(artifact)

    async def take(self, artifact: Digest, files: Iterable[Digest]) -> int:
        """Take files out of the store. Returns their bytes."""
        return await self._pools.files(self._withheld.take, artifact, files)

    async def end(self, artifact: Digest) -> ComityError | None:
        """The withdrawal is over: what was logged says whether the files go back or are deleted."""
        self._withheld.end(artifact)
        return await self.finish(artifact)

    async def finish(self, artifact: Digest) -> ComityError | None:
        """Put the files back if the hold stands, else delete them, unless the operator keeps them. Returns the failure,
        such as of a full disk; then a later step does it."""
        self._unfinished.add(artifact)
        try:
            if await self._holds.find(artifact) is not None:
                await self._give_back(artifact)
                self._replicas.end_withdrawal(artifact)
            elif not await self._holds.keeps_bytes(artifact):
                await self._pools.files(self._withheld.erase, artifact)
        except ComityError as error:
            _log.error("the files of a withdrawal wait", artifact=artifact, why=str(error))
            return error
        self._unfinished.discard(artifact)
        return None

    async def take_back(self, artifact: Digest) -> None:
        """The operator takes back a withdrawal that has ended. Raises NotFound (NOT-HELD) if there is none."""
        if not await self._replicas.has_withdrawn(artifact):
            raise NotFound("nothing to take back", why="this node withdrew no such copy", code="NOT-HELD")
        await self._give_back(artifact)
        await self._replicas.want_again(artifact)
        self._wake()

    async def _give_back(self, artifact: Digest) -> None:
        """Move all files of an artifact back into the store."""
        await self._pools.files(self._withheld.give_back, artifact)


class Withdrawals:
    """One withdrawal at a time. Not thread-safe: call from the event loop.

    Args:
        monotonic: seconds, for leases.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        monotonic: Clock,
        leases: Leases,
        holds: LoggedHolds,
        others: OtherHolders,
        sole: SoleFiles,
        files: WithdrawnFiles,
    ) -> None:
        self._ledger = ledger
        self._monotonic = monotonic
        self._leases = leases
        self._holds = holds
        self._others = others
        self._sole = sole
        self._files = files
        self._lock = asyncio.Lock()

    async def recover(self) -> None:
        """Put back the files of withdrawals that ended before they were logged, and delete those of others, unless the
        operator keeps them. Nobody counts on a withdrawn copy, so it may be deleted at any time. What fails now is
        tried again in each step."""
        try:
            await self._files.read_earlier()
        except ComityError as error:
            _log.error("withheld files were not listed", why=str(error))
        await self._finish_all()

    async def step(self) -> None:
        """Read the manifests of new holds, and try again what a full disk or a silent service did not let happen."""
        await self._files.read_earlier()
        await self._sole.read_new()
        if (failure := await self._finish_all()) is not None:
            raise failure

    async def _finish_all(self) -> ComityError | None:
        """One that cannot be finished does not stop the others. Returns the last failure."""
        failure: ComityError | None = None
        for artifact in self._files.unfinished:
            async with self._lock:
                failure = await self._files.finish(artifact) or failure
        return failure

    async def decide(self, order: HoldOrder) -> HoldDecision:
        """Raises NotFound (NOT-HELD), PolicyNotMet (COPIES-SHORT, LAST-COPY), Conflict (PINNED, LEASED, LEASE-OVER,
        WITHDRAWING, MANIFEST-UNREAD)."""
        async with self._lock:
            await self._others.read_new()
            if order.again:
                await self._files.take_back(order.artifact)
                return HoldDecision(b"", 0, (), (), 0)
            hold = await self._holds.find(order.artifact)
            if hold is None:
                why = f"this node claims no copy of {short(order.artifact)}"
                raise NotFound("no such copy here", why=why, code="NOT-HELD")
            await self._require_no_pin(order)
            others = await self._others.copies(order.artifact)
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

    async def _require_typed(self, order: HoldOrder, others: list[OtherCopy]) -> None:
        """Raises PolicyNotMet (LAST-COPY) if nobody else claims a copy and the artifact's name was not typed."""
        if others or order.trial or order.keep:
            return
        page = await self._ledger.run(self._ledger.tables.proven.publications_of, order.artifact)
        if order.typed not in {order.artifact, *(publication.name for publication in page.found)}:
            why = "nobody else claims a copy: when this one is gone, the artifact is lost"
            hint = "give its name or digest with --last-copy, together with --force"
            raise PolicyNotMet("this is the last known copy", why=why, hint=hint, code="LAST-COPY")

    async def _trial(self, order: HoldOrder, hold: StandingHold, others: list[OtherCopy]) -> HoldDecision:
        """What would be asked and freed; nobody is asked."""
        size = await self._sole.bytes_of(await self._sole.of(order, hold))
        return HoldDecision(b"", 0, (), tuple(sorted(peer.name for _, peer in others)), size)

    async def _withdraw(self, order: HoldOrder, hold: StandingHold, others: list[OtherCopy]) -> HoldDecision:
        artifact = order.artifact
        count = self._others.count(force=order.force)
        self._leases.begin(artifact, count.began, force=order.force)
        self._files.begin(artifact)
        results: list[AuditedCopy] = []
        try:
            await self._holds.claim_waiting(order)
            taken = await self._files.take(artifact, await self._sole.of(order, hold))
            if not order.force:
                results = await self._others.prove(others, count)
            count.check(self._monotonic())
            entry, index = await self._holds.withdraw(order, hold)
            await self._sole.forget(artifact, hold)
        finally:
            failure = await asyncio.shield(self._end(artifact))  # also where the operator has gone
        _log.warning("hold withdrawn", artifact=artifact, reason=order.reason, forced=order.force, index=index)
        proven, unproven = _names(results)
        return HoldDecision(entry.line, index, proven, unproven, 0 if failure is not None else taken)

    async def _end(self, artifact: Digest) -> ComityError | None:
        """The withdrawal is over, or was given up. Returns why its files wait. Until they are back nothing vouches for
        the copy."""
        try:
            return await self._files.end(artifact)
        finally:
            self._leases.end(artifact)


def _names(results: list[AuditedCopy]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The nodes that proved a copy, and those that did not, with the reason."""
    proven = sorted(item.peer.name for item in results if item.outcome == PASSED)
    unproven = sorted(f"{item.peer.name}: {item.why or item.outcome}" for item in results if item.outcome != PASSED)
    return tuple(proven), tuple(unproven)
