"""The log that this node writes: when it may be signed, and what the node says in it about itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from comity.ledger.sequencer import Sequencer
from comity.node.core import Core
from comity.node.holding import Holding
from comity.node.services.facts import newest_addresses
from comity.trust.claims import parse_addresses, sign_addresses
from comity.trust.digest import Digest, sha256
from comity.trust.statement import parse_entry

_log: Final = structlog.get_logger("comity.node")


class OwnLog:
    """The writer of the node's own log. `run` does the work; `append` waits until it may begin."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._sequencer = Sequencer(core.ledger, core.origin, core.keys.sign_checkpoint)
        self._open = asyncio.Event()
        self._lines = Holding()

    async def append(self, line: bytes) -> int:
        """Log one line; its index, once it is on the disk. Raises as `append_all` does."""
        (index,) = await self.append_all((line,))
        return index

    async def append_all(self, lines: Sequence[bytes]) -> list[int]:
        """Log distinct lines together, all or none; their indexes. A line that stands already is not logged twice.

        Raises what `Sequencer.append_all` raises.
        """
        await self._open.wait()
        return await self._append_all(lines)

    async def run(self) -> None:
        """Sign and log until cancelled. Raises what ended the sequencer."""
        sequencing = asyncio.create_task(self._sequencer.run(), name="sequencer")
        try:
            introducing = asyncio.create_task(self._introduce(), name="introduce")
            await asyncio.wait((sequencing, introducing), return_when=asyncio.FIRST_COMPLETED)
            if introducing.done():
                introducing.result()
                self._open.set()
            await sequencing
        finally:
            sequencing.cancel()
            introducing.cancel()
            await asyncio.gather(sequencing, introducing, return_exceptions=True)

    async def _introduce(self) -> None:
        """Log who this node is: inception, node record, and its addresses where they changed."""
        seat, advertise = self._core.seat, self._core.config.advertise
        await self._append_all((seat.inception_line, seat.record_line))
        newest = await self._core.pools.ledger(newest_addresses, self._core)
        wanted = (advertise.mutual, advertise.open)
        if any(wanted) and (newest is None or _said(newest) != wanted):
            entry = sign_addresses(seat.record, advertise.mutual, advertise.open, self._core.keys.online)
            await self._append_all((entry.line,))

    async def _append_all(self, lines: Sequence[bytes]) -> list[int]:
        names = [sha256(line) for line in lines]
        async with self._lines.holding(names):
            known = await self._core.pools.ledger(self._standing, names)
            fresh = [line for name, line in zip(names, lines, strict=True) if name not in known]
            if fresh:
                first = await self._sequencer.append_all(fresh)
                known |= {sha256(line): index for index, line in enumerate(fresh, first)}
            return [known[name] for name in names]

    def _standing(self, names: Sequence[Digest]) -> dict[Digest, int]:
        """The first index in this log of each line that stands in it."""
        standing: dict[Digest, int] = {}
        for name in names:
            for origin, index in self._core.ledger.index.places(name):
                if origin == self._core.origin:
                    standing.setdefault(name, index)
        return standing


def _said(line: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    addresses = parse_addresses(parse_entry(line).statement)
    return addresses.mutual, addresses.open
