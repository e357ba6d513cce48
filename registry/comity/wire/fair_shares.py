"""A fixed number of places (connections, streams), shared fairly by address block.

Anybody may use all places as long as nobody else asks for one. When all are taken, the block that has the most gives
one up: the place whose holder made no progress for the longest time. A stranger with thousands of connections
therefore takes places from itself only, and one honest connection from elsewhere always finds a place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

REST: Final = 5.0
"""Seconds without progress after which a holder gives way to a newcomer of its own block."""


class FairShares(Generic[K]):
    """Holders of `places` places, by address block. Not thread-safe: call under one lock or from one event loop.

    Args:
        places: how many holders there may be; at least 1.
        clock: monotonic seconds.

    At most one entry of about 300 bytes a holder is kept, and nothing of those who were refused.
    """

    def __init__(self, places: int, clock: Callable[[], float]) -> None:
        if places < 1:
            raise ValueError(f"{places} places")
        self._places = places
        self._clock = clock
        self._blocks: dict[str, OrderedDict[K, float]] = {}
        self._held: dict[K, str] = {}

    def __len__(self) -> int:
        return len(self._held)

    def held_by(self, block: str) -> int:
        """How many places the block has."""
        return len(self._blocks.get(block, ()))

    def take(self, item: K, block: str) -> K | None:
        """Give `item` a place.

        Returns None where one was free. Otherwise returns the holder that has to go, whose place is given away already
        and whose connection the caller closes; it is `item` itself where it has to be refused.
        """
        self._put(item, block)
        if len(self._held) <= self._places:
            return None
        gives = self._largest(block)
        oldest, since = next(iter(self._blocks[gives].items()))
        if gives == block and (oldest == item or self._clock() - since < REST):
            oldest = item
        self.give_back(oldest)
        return oldest

    def progress(self, item: K) -> None:
        """`item` did something useful now. Ignored where it holds no place (any longer)."""
        block = self._held.get(item)
        if block is not None:
            holders = self._blocks[block]
            holders[item] = self._clock()
            holders.move_to_end(item)

    def give_back(self, item: K) -> None:
        """`item` needs its place no longer. Ignored where it holds none."""
        block = self._held.pop(item, None)
        if block is not None:
            del self._blocks[block][item]
            if not self._blocks[block]:
                del self._blocks[block]

    def _put(self, item: K, block: str) -> None:
        self.give_back(item)
        self._held[item] = block
        self._blocks.setdefault(block, OrderedDict())[item] = self._clock()

    def _largest(self, newcomer: str) -> str:
        """The block with the most places; the newcomer's own where it has as many as any other."""
        return max(self._blocks, key=lambda block: (len(self._blocks[block]), block == newcomer))
