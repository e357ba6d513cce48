"""How this node is, for its operators."""

from __future__ import annotations

from comity.node.core import Core
from comity.node.publishing.desk import Desk
from comity.node.services.facts import SOFTWARE
from comity.trust.cosignature import MAX_TIMESTAMP
from comity.trust.errors import NotFound
from comity.wire.values import LogStatus, NodeStatus, Quota, StoreStatus


class Status:
    """Gathers what the parts know."""

    def __init__(self, core: Core, desk: Desk) -> None:
        self._core = core
        self._desk = desk
        self._started = int(core.clock())

    async def now(self) -> NodeStatus:
        logs = await self._core.pools.ledger(self._logs)
        return NodeStatus(
            software=SOFTWARE,
            origin=self._core.origin,
            started=self._started,
            peers=(),
            logs=tuple(logs),
            store=await self._core.pools.files(self._store),
            holds=0,
            misbehaviour=len(await self._core.pools.ledger(self._core.ledger.misbehaviour.all)),
            quotas=(Quota("uploads", self._desk.pending.bytes, self._core.config.limits.upload_bytes),),
            warnings=(),
        )

    def _logs(self) -> list[LogStatus]:
        states = sorted(self._core.ledger.logs.all(), key=lambda state: not state.own)
        return [LogStatus(state.origin, state.size, state.own, *self._cosigned(state.origin)) for state in states]

    def _cosigned(self, origin: str) -> tuple[int, tuple[str, ...]]:
        """The time of the newest cosignature of the newest checkpoint, and the names of its cosigners."""
        try:
            note = self._core.ledger.cosignatures.cosigned(origin)
        except NotFound:
            return 0, ()
        made = {line.name: int.from_bytes(line.signature[:8], "big") for line in note.signatures if line.name != origin}
        times = [time for time in made.values() if time <= MAX_TIMESTAMP]
        return max(times, default=0), tuple(sorted(made))

    def _store(self) -> StoreStatus:
        sizes = [self._core.store.size(digest) for digest in self._core.store.digests()]
        return StoreStatus(len(sizes), sum(sizes), self._core.store.free_bytes(), 0)
