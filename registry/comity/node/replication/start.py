"""What a starting node hears before it signs. A ledger that was restored from a backup does not know that it is old;
the peers do. So each peer is asked once, and nothing is signed before one has answered, or none does for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog

from comity.node.membership import PeerKey

_log: Final = structlog.get_logger("comity.node")


class Start:
    """The wait for first answers. Touched by the event loop only.

    Args:
        peers: the peers there are.
        patience: seconds after which a node that hears nothing goes on alone; None for one that must not.
    """

    def __init__(self, peers: Iterable[PeerKey], patience: float | None) -> None:
        self._waiting = set(peers)
        self._answered = not self._waiting
        self._patience = patience
        self._settled = asyncio.Event()
        self.alone = False
        self._look()

    @property
    def settled(self) -> bool:
        return self._settled.is_set()

    def attempted(self, peer: PeerKey, *, answered: bool) -> None:
        """A peer was asked, and has told all that it holds, or could not be asked."""
        self._waiting.discard(peer)
        self._answered = self._answered or answered
        self._look()

    async def wait(self) -> None:
        """Return once it is safe to sign, or has to be."""
        try:
            async with asyncio.timeout(self._patience):
                await self._settled.wait()
        except TimeoutError:
            self.alone = True
            _log.warning("no peer answered; signing without having heard what was signed before")
            self._settled.set()

    def _look(self) -> None:
        if self._answered and not self._waiting:
            self._settled.set()
