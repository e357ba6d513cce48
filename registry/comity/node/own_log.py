"""The log that this node writes, and shared helpers to read the ledger.

`OwnLog` opens once the node knows that its ledger holds everything that it signed; then it logs the node's own identity
lines and appends statements. `iterate_entries` reads the ledger's index page by page. `NameLocks` are exclusive locks
by name; `LedgerCache` keeps a result until the ledger is written to.
"""

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


def iterate_entries(
    ledger: Ledger, query: EntryQuery, *, limit: int | None = None, after: IndexedEntry | None = None
) -> Iterator[IndexedEntry]:
    """The matching entries in order, at most `limit`, after the entry `after`. Blocking."""
    while limit is None or limit > 0:
        size = PAGE if limit is None else min(PAGE, limit)
        page = ledger.index.find(query, limit=size, after=(after.vkey, after.index) if after else None)
        yield from page
        if len(page) < size:
            return
        after = page[-1]
        limit = None if limit is None else limit - size


def newest_addresses(ledger: Ledger, record: NodeRecord) -> bytes | None:
    """The newest `addresses` line of the node of `record` in its own log, or None. Blocking."""
    return ledger.proven.last_by(record.node.id, ADDRESSES, str(record.log))


OPEN_TIMEOUT: Final = 10.0
"""Seconds that an append waits for the log to open."""

Recover = Callable[[], Awaitable[None]]
"""Returns when the ledger holds the newest log that this node ever signed. Raises Untrusted if it does not."""

_log: Final = structlog.get_logger("comity.node")


class OwnLog:
    """Writes the node's own log. `run` does the work; `append` waits until the log is open."""

    def __init__(self, core: NodeContext, recover: Recover) -> None:
        self._core = core
        self._recover = recover
        self.refusal: ComityError | None = None
        """Why the log is closed; None while it may be written."""
        self._sequencer = Sequencer(core.ledger, core.seat.record.log, core.keys.sign_checkpoint)
        self._open = asyncio.Event()

    async def append(self, line: bytes) -> int:
        """Log one line. Returns its index after it is on disk. Raises as `append_all` does."""
        (index,) = await self.append_all((line,))
        return index

    async def append_all(self, lines: Sequence[bytes]) -> list[int]:
        """Log statements together, all or none. Returns their indexes. A statement that is already in the log, with any
        signatures, is not logged again.

        Raises what `Sequencer.append_all` raises, Unavailable (LOG-STARTING), and Refused if the log is closed.
        """
        await self._require_open()
        return await self._sequencer.append_all(lines)

    async def compose(self, make: Make) -> list[tuple[int, bytes]]:
        """Log the lines that `make` returns for the current log. Returns index and line of each. Raises what
        `Sequencer.compose` raises."""
        await self._require_open()
        first, lines = await self._sequencer.compose(make)
        return list(enumerate(lines, first))

    async def run(self) -> None:
        """Sign and append until cancelled. Raises what ended the sequencer.

        If the log is not the one that was signed, nothing is written: the node keeps serving reads and refuses to sign.
        """
        try:
            await self._recover()
        except Untrusted as error:
            self.refusal = error
            self._open.set()
            _log.error("own log is closed: the node signs nothing", what=error.what, why=error.why, code=error.code)
            await asyncio.Event().wait()
        sequencing = asyncio.create_task(self._sequencer.run(), name="sequencer")
        try:
            own_records = asyncio.create_task(self._log_own_records(), name="introduce")
            await asyncio.wait((sequencing, own_records), return_when=asyncio.FIRST_COMPLETED)
            if own_records.done():
                own_records.result()
                self._open.set()
            await sequencing
        finally:
            sequencing.cancel()
            own_records.cancel()
            await asyncio.gather(sequencing, own_records, return_exceptions=True)

    async def _require_open(self) -> None:
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                await self._open.wait()
        except TimeoutError as error:
            why = "the node first asks its peers for the newest checkpoint that it signed"
            hint = "try again in a moment"
            raise Unavailable("this node's log is not open yet", why=why, hint=hint, code="LOG-STARTING") from error
        if self.refusal is not None:
            raise Refused("this node's log is closed", why=str(self.refusal), code=self.refusal.code)

    async def _log_own_records(self) -> None:
        """Log the inception, rotations and node record of this node, and its addresses if they changed."""
        seat, advertise = self._core.seat, self._core.config.advertise
        await self._sequencer.append_all((seat.inception_line, *seat.rotation_lines, seat.record_line))
        newest = await self._core.pools.ledger(newest_addresses, self._core.ledger, seat.record)
        wanted = (advertise.mutual, advertise.open)
        if any(wanted) and (newest is None or _listed_addresses(newest) != wanted):
            entry = sign_addresses(seat.record, advertise.mutual, advertise.open, self._core.keys.online)
            await self._sequencer.append_all((entry.line,))


def _listed_addresses(line: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    addresses = parse_addresses(parse_entry(line).statement)
    return addresses.mutual, addresses.open


class NameLocks:
    """Exclusive locks by name, on one event loop. All names of a call are locked together, so calls cannot deadlock."""

    def __init__(self) -> None:
        self._locked: set[Hashable] = set()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def acquire(self, names: Iterable[Hashable]) -> AsyncIterator[None]:
        wanted = set(names)
        async with self._changed:
            await self._changed.wait_for(lambda: not wanted & self._locked)
            self._locked |= wanted
        try:
            yield
        finally:
            self._locked -= wanted
            async with self._changed:
                self._changed.notify_all()


T = TypeVar("T")


class LedgerCache(Generic[T]):
    """Caches the result of `read`, which blocks, until the ledger is written to. Not thread-safe: call from the event
    loop."""

    def __init__(self, core: NodeContext, read: Callable[[], T]) -> None:
        self._core = core
        self._read = read
        self._cached: tuple[int, T] | None = None

    async def get(self) -> T:
        """The result for the current version of the ledger. Raises what `read` raises."""
        version = self._core.ledger.version  # read first: a later write makes the cached result stale
        if self._cached is None or self._cached[0] != version:
            answer = await self._core.pools.ledger(self._read)
            self._cached = version, answer
            return answer
        return self._cached[1]
