"""What nearly every part of a node needs. It has no parts of the node itself: who needs one names it."""

from __future__ import annotations

from comity.content.blobs import BlobStore
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.trust.frozen import frozen


@frozen
class NodeContext:
    """The ledger and the blobs, threads for blocking calls, the members as this node knows them, its metrics, and the
    clock (seconds since 1970)."""

    ledger: AsyncLedger
    store: BlobStore
    pools: Pools
    membership: Membership
    metrics: Metrics
    clock: Clock
