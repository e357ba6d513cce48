"""Whole nodes on one event loop, to be run on virtual time behind a network in memory (`support.memory_network`)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Sequence

from comity.node.app import RunningNode
from comity.trust.encoding import Digest
from comity.wire.node_status import MemberCopies
from support.federation import NodeHome, serving

PATIENCE = 600.0
"""Virtual seconds after which an outcome is taken as missing."""


async def when(holds: Callable[[], object], what: str, patience: float = PATIENCE) -> float:
    """Look every tenth of a virtual second whether something holds. Returns the time at which it does."""
    clock = asyncio.get_running_loop().time
    ends = clock() + patience
    while True:
        answer = holds()
        if await answer if asyncio.iscoroutine(answer) else answer:
            return clock()
        assert clock() < ends, f"waited {patience:.0f} s for {what}"
        await asyncio.sleep(0.1)


class VirtualFederation:
    """The running nodes, by name."""

    def __init__(self) -> None:
        self._nodes: dict[str, RunningNode] = {}

    @contextlib.asynccontextmanager
    async def running(self, *homes: NodeHome) -> AsyncIterator[None]:
        clock = asyncio.get_running_loop().time
        async with contextlib.AsyncExitStack() as stack:
            for home in homes:
                companion = functools.partial(self._companion, home.name)
                await stack.enter_async_context(serving(home, clock=lambda: 1.8e9 + clock(), companion=companion))
            yield

    @contextlib.asynccontextmanager
    async def _companion(self, name: str, node: RunningNode) -> AsyncIterator[str]:
        self._nodes[name] = node
        yield ""

    def size(self, at: NodeHome, of: NodeHome) -> int:
        """How much of a log a node has."""
        logs = self._nodes[at.name].home.ledger.tables.logs.all()
        return next((log.size for log in logs if log.origin == of.origin), 0)

    def lines(self, at: NodeHome, of: NodeHome) -> list[bytes]:
        history = self._nodes[at.name].home.ledger.tables.history
        return list(history.entries(str(of.record.log), 0, self.size(at, of)))

    def follows(self, at: NodeHome, of: NodeHome) -> bool:
        return self.size(at, of) >= max(2, self.size(of, of))

    def copies_for(self, at: NodeHome, member: NodeHome) -> MemberCopies:
        """What the copies of a member's artifacts use at a node."""
        spaces = self._nodes[at.name].replication.charges.spaces()
        return next(each for each in spaces if each.member == member.card.inception.id)

    def stored(self, at: NodeHome, *digests: Digest) -> bool:
        store = self._nodes[at.name].home.store
        return all(map(store.has, digests))

    def blobs_lost(self, at: NodeHome) -> None:
        self._nodes[at.name].replication.blob_lost()

    def first_peer(self, at: NodeHome, among: Sequence[NodeHome]) -> NodeHome:
        """The node that comes first in a node's list of peers."""
        first = next(iter(self._nodes[at.name].replication.peers.links.values()))
        return next(home for home in among if home.name == first.peer.record.name)

    def epoch(self, at: NodeHome) -> int:
        epochs = self._nodes[at.name].home.epochs
        assert epochs is not None
        return epochs.newest.epoch
