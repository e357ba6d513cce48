"""What a node serves of its blobs: the bytes sent to each caller, and other locations that callers may fetch from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

import structlog

from comity.node.metrics import Metrics
from comity.trust.encoding import Digest
from comity.wire.blob import BlobLocation

MAX_PAIRS: Final = 10_000
"""Sums kept, one for each caller and blob; the least recently used one is dropped."""


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """The result of one Read call."""

    peer: str
    blob: Digest
    offset: int
    asked: int
    sent: int


class ServedBytes:
    """Bytes served since the node started: logged for each call, and summed for the status. Not thread-safe: call from
    the event loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._sums: OrderedDict[tuple[str, Digest], int] = OrderedDict()
        self._log = structlog.get_logger("comity.node.served")

    def add(self, record: ReadRecord, *, port: str) -> None:
        self.count(record.peer, record.blob, record.sent)
        # Other callers are unbounded in number: only peers get a label of their own.
        self._metrics.served_bytes.labels(record.peer if port == "mutual" else port).inc(record.sent)
        self._log.info(
            "served",
            peer=record.peer,
            port=port,
            blob=record.blob,
            offset=record.offset,
            asked=record.asked,
            sent=record.sent,
        )

    def count(self, peer: str, blob: Digest, sent: int) -> None:
        """Add to the sums only; the caller logs and counts by itself."""
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


LOCATION_SECONDS: Final = 600
"""Seconds for which a location is valid; a longer pull asks again."""

LocationProvider: TypeAlias = Callable[[Digest, str], BlobLocation]
"""Returns a location of a blob in the store, for a peer's name; the name is empty for other callers. Must be thread-
safe."""


class LocationProviders:
    """The providers of the locations that `ListLocations` returns. A location is secret while it is valid, and never
    logged. Thread-safe."""

    def __init__(self, *providers: LocationProvider) -> None:
        self._providers = providers

    @contextmanager
    def registered(self, provider: LocationProvider) -> Iterator[None]:
        """Register `provider` while the block runs."""
        self._providers = (*self._providers, provider)
        try:
            yield
        finally:
            self._providers = tuple(other for other in self._providers if other is not provider)

    def of(self, digest: Digest, peer: str) -> tuple[BlobLocation, ...]:
        return tuple(provider(digest, peer) for provider in self._providers)
