"""Other ways to a blob than gRPC: what `ListLocations` answers. Whoever opens such a way offers it here.

What comes out is secret for as long as it lives, and is logged nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

from comity.trust.digest import Digest
from comity.wire.values import Location

LIFETIME: Final = 600
"""Seconds for which a location opens: a pull asks again where it takes longer."""

Way: TypeAlias = Callable[[Digest, str], Location]
"""Makes a location of a blob that is here, for a peer, whose name it is given; empty for strangers. Called from many
threads."""


class Places:
    """The ways that are open now. Thread-safe."""

    def __init__(self, *ways: Way) -> None:
        self._ways = ways

    @contextmanager
    def offered(self, way: Way) -> Iterator[None]:
        """Have `way` among the answers while the block lasts."""
        self._ways = (*self._ways, way)
        try:
            yield
        finally:
            self._ways = tuple(other for other in self._ways if other is not way)

    def of(self, digest: Digest, peer: str) -> tuple[Location, ...]:
        return tuple(way(digest, peer) for way in self._ways)
