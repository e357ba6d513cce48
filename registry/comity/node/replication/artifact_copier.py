"""One artifact copied from other nodes, and claimed when it is complete.

(1) manifest and piece indexes are stored already: they are side objects of mirrored entries
(2) each file comes from any peers that have it, and is accepted if its SHA-256 is the manifest's
(3) when every file is stored, that is logged: alone, or with other copies (`own_holds`)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from comity.content.blobs import BlobStore
from comity.node.replication.artifacts import Copy
from comity.node.replication.copy_pauses import CopyPauses
from comity.node.replication.files import FileFetcher
from comity.node.replication.held_copies import HeldCopies
from comity.node.replication.own_holds import CompletedCopy, OwnHolds
from comity.node.replication.rule_quotas import RuleQuotas
from comity.node.threads import AsyncLedger, Pools
from comity.node.uploads import Want, missing_files, read_artifact
from comity.trust.artifact import Manifest, PieceIndex
from comity.trust.copies import HOLD_PREDICATES, hold_of
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, Unavailable, Untrusted
from comity.trust.statement import SideObject, parse_entry

MAX_HOLDS: Final = 256
"""Holds of one artifact whose piece indexes are tried."""


class ArtifactCopier:
    """Copies artifacts. Not thread-safe: call from the event loop.

    Args:
        published_here: whether the own log publishes an artifact; such a copy is not charged to a rule.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        store: BlobStore,
        pools: Pools,
        files: FileFetcher,
        held: HeldCopies,
        own_holds: OwnHolds,
        quotas: RuleQuotas,
        pauses: CopyPauses,
        published_here: Callable[[Digest], Awaitable[bool]],
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._files = files
        self._held = held
        self._own_holds = own_holds
        self._quotas = quotas
        self._pauses = pauses
        self._published_here = published_here

    async def complete(self, wanted: Copy) -> None:
        """Copy an artifact. Repeats it if an object was lost meanwhile: the round that a loss begins leaves out the
        artifacts in the queue."""
        losses = -1
        while losses != self._held.losses:
            losses = self._held.losses
            await self._copy(wanted)
            await self._held.set_damaged(wanted.artifact, damaged=False)

    async def _copy(self, wanted: Copy) -> None:
        indexes = (*wanted.indexes, *await self._ledger.run(self._indexes_in_holds, wanted.artifact))
        failure: ComityError = Unavailable("no piece index", why=short(wanted.artifact))
        for pieces in dict.fromkeys(indexes):
            try:
                await self._copy_by(wanted, pieces)
            except Untrusted as error:
                failure = error
                continue
            await self._own_holds.add(CompletedCopy(wanted.artifact, wanted.name, wanted.manifest, pieces))  # (3)
            return
        raise failure

    async def _copy_by(self, wanted: Copy, pieces: SideObject) -> None:
        """Fetch what is missing, by one piece index. Raises Untrusted if the index does not match the files."""
        await self._files.require_objects((wanted.manifest, pieces))
        manifest, index = await self._pools.files(read_artifact, self._store, wanted.manifest, pieces)  # (1)
        missing = await self._pools.files(missing_files, self._store, manifest)
        layouts = dict(index.files)
        rule = None if self._quotas and await self._published_here(wanted.artifact) else wanted.rule
        files, pace = [(want, layouts[want.path]) for want in missing], self._pauses.pace
        async with self._quotas.charged(wanted.artifact, rule, wanted.name, manifest):
            async with self._pauses.space_for(missing):
                await self._files.fetch(files, name=wanted.name, pace=pace)  # (2)
            await self._remember_pieces(manifest, index)

    async def _remember_pieces(self, manifest: Manifest, index: PieceIndex) -> None:
        """Store the piece records of every file in this layout, also of files stored before."""
        for entry, (_, layout) in zip(manifest.files, index.files, strict=True):
            await self._files.require_records(Want(entry.sha256, entry.size, entry.path), layout)

    def _indexes_in_holds(self, artifact: Digest) -> list[SideObject]:
        """Piece indexes in the holds of other nodes, alternating between logs."""
        found = self._ledger.tables.proven.about(artifact, HOLD_PREDICATES, MAX_HOLDS).found
        holds = (hold_of(parse_entry(line.line).statement, artifact) for line in found)
        return [hold.pieces for hold in holds if hold is not None]
