"""Who was given which bytes: a line in the node's log for each answer, and sums in memory for the status."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from comity.node.metrics import Metrics
from comity.trust.digest import Digest

MAX_PAIRS: Final = 10_000
"""Sums kept, one a caller and blob; the one longest unused gives way."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """The answer to one Read."""

    peer: str
    blob: Digest
    offset: int
    asked: int
    sent: int


class Served:
    """What was served since the node started. Touched by the event loop only."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._sums: OrderedDict[tuple[str, Digest], int] = OrderedDict()
        self._log = structlog.get_logger("comity.node.served")

    def add(self, delivery: Delivery, *, door: str) -> None:
        self.count(delivery.peer, delivery.blob, delivery.sent)
        # Strangers are many: only peers get a label of their own.
        self._metrics.served_bytes.labels(delivery.peer if door == "mutual" else door).inc(delivery.sent)
        self._log.info(
            "served",
            peer=delivery.peer,
            door=door,
            blob=delivery.blob,
            offset=delivery.offset,
            asked=delivery.asked,
            sent=delivery.sent,
        )

    def count(self, peer: str, blob: Digest, sent: int) -> None:
        """Add to the sums alone: for who logs and measures by itself."""
        self._sums[peer, blob] = self._sums.pop((peer, blob), 0) + sent
        if len(self._sums) > MAX_PAIRS:
            self._sums.popitem(last=False)

    @property
    def sums(self) -> Mapping[tuple[str, Digest], int]:
        """Bytes by (caller, blob)."""
        return self._sums

    def by_peer(self) -> dict[str, int]:
        totals: dict[str, int] = {}
        for (peer, _), sent in self._sums.items():
            totals[peer] = totals.get(peer, 0) + sent
        return totals
