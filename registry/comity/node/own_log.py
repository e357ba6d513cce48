"""Reading the ledger's index to its end, a page at a time. Blocking.

The log that this node writes: when it may be signed, and what the node says in it about itself.

Names that are being worked on: whoever wants one of them waits for its turn.

Answers that stand until something is written: peers ask for the same ones every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar

import structlog

from comity.ledger.intake import ADDRESSES
from comity.ledger.ledger import Ledger
from comity.ledger.log_store import EntryQuery, IndexedEntry
from comity.ledger.sequencer import Make, Sequencer
from comity.node.context import NodeContext
from comity.trust.errors import ComityError, Refused, Unavailable, Untrusted
from comity.trust.statement import parse_entry
from comity.trust.statements import NodeRecord, parse_addresses, sign_addresses

PAGE: Final = 200


def every(
    ledger: Ledger, query: EntryQuery, *, most: int | None = None, after: IndexedEntry | None = None
) -> Iterator[IndexedEntry]:
    """The entries that match, in order, at most `most`; `after` is the last one had."""
    while most is None or most > 0:
        size = PAGE if most is None else min(PAGE, most)
        page = ledger.index.find(query, limit=size, after=(after.vkey, after.index) if after else None)
        yield from page
        if len(page) < size:
            return
        after = page[-1]
        most = None if most is None else most - size


def newest_addresses(ledger: Ledger, record: NodeRecord) -> bytes | None:
    """The newest `addresses` line that the node of `record` has in its own log, if there is one. Blocking."""
    return ledger.proven.last_by(record.node.id, ADDRESSES, str(record.log))


PATIENCE: Final = 10.0
"""Seconds that somebody who wants to log waits for the log to open."""

Recover = Callable[[], Awaitable[None]]
"""Returns once this log is known to be the newest that was ever signed. Raises Untrusted where it is not."""

_log: Final = structlog.get_logger("comity.node")


class OwnLog:
    """The writer of the node's own log. `run` does the work; `append` waits until it may begin."""

    def __init__(self, core: NodeContext, recover: Recover) -> None:
        self._core = core
        self._recover = recover
        self.refusal: ComityError | None = None
        """Why nothing is logged any more."""
        self._sequencer = Sequencer(core.ledger, core.seat.record.log, core.keys.sign_checkpoint)
        self._open = asyncio.Event()

    async def append(self, line: bytes) -> int:
        """Log one line; its index, once it is on the disk. Raises as `append_all` does."""
        (index,) = await self.append_all((line,))
        return index

    async def append_all(self, lines: Sequence[bytes]) -> list[int]:
        """Log statements together, all or none; their indexes. One that stands already, under whatever signatures, is
        not logged twice.

        Raises what `Sequencer.append_all` raises.
        """
        await self._require_open()
        return await self._sequencer.append_all(lines)

    async def compose(self, make: Make) -> list[tuple[int, bytes]]:
        """Log what `make` makes of this log as it stands: index and line of each. Raises what `Sequencer.compose`
        raises."""
        await self._require_open()
        first, lines = await self._sequencer.compose(make)
        return list(enumerate(lines, first))

    async def run(self) -> None:
        """Sign and log until cancelled. Raises what ended the sequencer.

        A log that is not the one that was signed is left alone: the node goes on reading out, and refuses to sign.
        """
        try:
            await self._recover()
        except Untrusted as error:
            self.refusal = error
            self._open.set()
            _log.error("nothing is signed", what=error.what, why=error.why, code=error.code)
            await asyncio.Event().wait()
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

    async def _require_open(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._open.wait()
        except TimeoutError as error:
            why = "the node asks its peers what it signed before it signs again"
            hint = "try again in a moment"
            raise Unavailable("this node's log is not open yet", why=why, hint=hint, code="LOG-STARTING") from error
        if self.refusal is not None:
            raise Refused("this node logs nothing", why=str(self.refusal), code=self.refusal.code)

    async def _introduce(self) -> None:
        """Log who this node is: inception, rotations, node record, and its addresses where they changed."""
        seat, advertise = self._core.seat, self._core.config.advertise
        await self._sequencer.append_all((seat.inception_line, *seat.rotation_lines, seat.record_line))
        newest = await self._core.pools.ledger(newest_addresses, self._core.ledger, seat.record)
        wanted = (advertise.mutual, advertise.open)
        if any(wanted) and (newest is None or _said(newest) != wanted):
            entry = sign_addresses(seat.record, advertise.mutual, advertise.open, self._core.keys.online)
            await self._sequencer.append_all((entry.line,))


def _said(line: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    addresses = parse_addresses(parse_entry(line).statement)
    return addresses.mutual, addresses.open


class NameLocks:
    """Exclusive rights to names, on one event loop. A set of names is had whole or waited for, so nobody deadlocks."""

    def __init__(self) -> None:
        self._held: set[Hashable] = set()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def holding(self, names: Iterable[Hashable]) -> AsyncIterator[None]:
        wanted = set(names)
        async with self._changed:
            await self._changed.wait_for(lambda: not wanted & self._held)
            self._held |= wanted
        try:
            yield
        finally:
            self._held -= wanted
            async with self._changed:
                self._changed.notify_all()


T = TypeVar("T")


class LedgerCache(Generic[T]):
    """What `read`, which blocks, makes of the ledger. One event loop uses it."""

    def __init__(self, core: NodeContext, read: Callable[[], T]) -> None:
        self._core = core
        self._read = read
        self._answer: tuple[int, T] | None = None

    async def get(self) -> T:
        """As the ledger stands now, or stood when it was asked. Raises what `read` raises."""
        version = self._core.ledger.version  # before reading: what is written meanwhile makes the answer old
        if self._answer is None or self._answer[0] != version:
            answer = await self._core.pools.ledger(self._read)
            self._answer = version, answer
            return answer
        return self._answer[1]
