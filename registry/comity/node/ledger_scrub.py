"""Rereads the ledger slowly, names what is damaged, and repairs what can be proven.

A pass has three parts, at the rate and in the hours of the scrub of blobs, at most one pass a day:

    pages   each page of an SQLite file against its sum
    logs    each 256 entries of each log against the hashes of its tree
    upper   of each log: the hashes above, its root, and every checkpoint with its signature

Entries that do not fit are written again from the ledger itself or from a peer, under an inclusion proof to a
checkpoint that the log signed. Damage of anything else stays in the status, with the next step, and in the metrics. A
pass that finds every log sound accepts damaged pages of the tables of logs: their contents are proven.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import structlog

from comity.ledger.ledger import Ledger
from comity.ledger.log_repair import DamagedPart
from comity.ledger.page_sums import PAGES_READ, damaged_pages
from comity.node.metrics import Metrics
from comity.node.replication.link import CopySource, fetch_entries
from comity.node.scrub import PASS_SECONDS, STEP_SECONDS, TIMING
from comity.node.settings import Storage, within_hours
from comity.node.supervisor import Supervisor
from comity.node.threads import AsyncLedger, Clock
from comity.trust.errors import ComityError
from comity.trust.tlog.merkle import WIDTH

PAGE_BYTES: Final = 4096 * PAGES_READ
"""Bytes that a check of pages is counted as."""
PART_BYTES: Final = 1024 * 1024
"""Bytes that a check of one part of a log is counted as: it takes as much of a processor as reading these."""
FIRST_PASS_SECONDS: Final = 600.0
"""Seconds after a start before the first pass, so that it does not delay the start, and peers are connected."""
MAX_DAMAGED: Final = 1_000
"""Damaged pages and parts that are kept of one pass."""
REPAIRS_AT_A_TIME: Final = 16
"""Parts that are tried again in one step."""
REPAIR_SECONDS: Final = 60.0
"""Seconds between two such tries."""
LOG_TABLES: Final = ("entries", "tiles")
"""Tables whose contents a pass proves completely."""

_log: Final = structlog.get_logger("comity.node.scrub")


class LedgerScrub:
    """The passes over one ledger. Not thread-safe: call from the event loop.

    Args:
        sources: from where damaged entries are fetched.
    """

    def __init__(
        self,
        settings: Storage,
        ledger: AsyncLedger,
        clock: Clock,
        metrics: Metrics,
        sources: Callable[[], Sequence[CopySource]],
    ) -> None:
        self._rate = settings.scrub_bytes_per_second
        self._hours = settings.scrub_hours
        self._ledger = ledger
        self._clock = clock
        self._metrics = metrics
        self._sources = sources
        self._started = clock()
        self._begun: float | None = None
        self._over = True
        self._tried_at = float("-inf")
        self._page: int | None = None
        self._pages = list[int]()
        self._logs = list[str]()
        self._part = 0
        self._parts = dict[str, dict[int, DamagedPart]]()
        """Parts that were not repaired, by log and number. They are tried again in each step."""
        self._found = list[ComityError]()
        self._damage: tuple[ComityError, ...] = ()

    def begin(self, supervisor: Supervisor) -> None:
        if self._rate:
            supervisor.loop("ledger scrub", self._step, TIMING)

    @property
    def damage(self) -> tuple[ComityError, ...]:
        """What was found and could not be repaired: parts of logs, and what the last complete pass and this one so far
        found besides."""
        parts = (part.error() for parts in self._parts.values() for part in parts.values())
        known = set(map(str, self._damage))
        return (*parts, *self._damage, *(error for error in self._found if str(error) not in known))

    async def _step(self) -> None:
        if not self._within(FIRST_PASS_SECONDS, self._started) and within_hours(self._hours, self._clock()):
            await self.read(int(STEP_SECONDS * self._rate))

    def _within(self, seconds: float, since: float) -> bool:
        """Whether fewer seconds have passed since then. A time that is still to come is of a clock that was ahead."""
        return 0 <= self._clock() - since < seconds

    async def read(self, budget: int) -> None:
        """Check about `budget` bytes, or to the end of a pass. Raises Unavailable if the disk cannot be read."""
        await self._repair_again()
        if self._over:
            if self._begun is not None and self._within(PASS_SECONDS, self._begun):
                return
            await self._begin_pass()
        while budget > 0 and not self._over:
            if self._page is not None:
                budget -= await self._check_pages(self._page)
            elif self._logs:
                budget -= await self._check_log(self._logs[0])
            else:
                await self._end_pass()

    async def _begin_pass(self) -> None:
        self._begun, self._over = self._clock(), False
        self._page = None if self._ledger.tables.pages is None else 1
        self._pages, self._part, self._found = [], 0, []
        self._logs = [str(key) for key in await self._ledger.run(self._ledger.tables.logs.keys)]

    async def _check_pages(self, first: int) -> int:
        sums = self._ledger.tables.pages
        assert sums is not None
        found = await self._ledger.run(sums.check, first)
        self._page = found.next
        if found.damaged:
            self._pages += found.damaged[: MAX_DAMAGED - len(self._pages)]
            self._metrics.verify_failures.labels("ledger page").inc(len(found.damaged))
            _log.error("pages of the ledger are damaged", pages=found.damaged, code="LEDGER-CORRUPT")
        return PAGE_BYTES

    async def _check_log(self, log: str) -> int:
        tables = self._ledger.tables
        state = await self._ledger.run(tables.logs.get, log)
        if self._part * WIDTH >= state.size:
            try:
                await self._ledger.run(tables.repair.check_upper, log)
            except ComityError as error:
                self._keep(error)
            self._logs.pop(0)
            self._part = 0
            return PART_BYTES
        damaged = await self._ledger.run(tables.repair.check, log, self._part)
        self._parts.get(log, {}).pop(self._part, None)
        if damaged is not None:
            self._metrics.verify_failures.labels("log entries").inc()
            _log.error("entries of a log are damaged", origin=damaged.origin, start=damaged.start, end=damaged.end)
            if not await self._repaired(damaged):
                self._keep_part(damaged)
        self._part += 1
        return PART_BYTES

    def _keep_part(self, part: DamagedPart) -> None:
        if sum(map(len, self._parts.values())) < MAX_DAMAGED:
            self._parts.setdefault(part.log, {})[part.start // WIDTH] = part
        self._metrics.ledger_damage.set(len(self.damage))

    async def _repair_again(self) -> None:
        """Try some parts again: a peer may answer now that did not before. When all are repaired, a pass begins that
        looks at the pages once more."""
        waiting = [(parts, number) for parts in self._parts.values() for number in parts]
        if not waiting or not self._sources() or self._within(REPAIR_SECONDS, self._tried_at):
            return
        self._tried_at = self._clock()
        for parts, number in waiting[:REPAIRS_AT_A_TIME]:
            if await self._repaired(parts[number]):
                del parts[number]
        if not any(self._parts.values()):
            self._begun, self._over = None, True
        self._metrics.ledger_damage.set(len(self.damage))

    async def _repaired(self, part: DamagedPart) -> bool:
        lines = await self._ledger.run(self._ledger.tables.repair.readable, part)
        if lines and await self._mended(part, lines, "this ledger"):
            return True
        for source in self._sources():
            try:
                lines = await _entries(source, part)
            except (ComityError, TimeoutError) as error:
                _log.warning("damaged entries not received", origin=part.origin, peer=source.name, why=str(error))
                continue
            if await self._mended(part, lines, source.name):
                return True
        return False

    async def _mended(self, part: DamagedPart, lines: Sequence[bytes], source: str) -> bool:
        try:
            await self._ledger.run(self._ledger.tables.repair.mend, part, lines)
        except ComityError as error:
            _log.warning("damaged entries not repaired", origin=part.origin, source=source, why=str(error))
            return False
        _log.warning("damaged entries written again", origin=part.origin, start=part.start, end=part.end, source=source)
        return True

    async def _end_pass(self) -> None:
        if self._pages:
            pages = tuple(self._pages)
            error = await self._ledger.run(
                _unproven, self._ledger.tables, pages, logs_sound=not (self._found or any(self._parts.values()))
            )
            if error is not None:
                self._keep(error)
        self._damage, self._found, self._over = tuple(self._found), [], True
        self._metrics.ledger_damage.set(len(self.damage))

    def _keep(self, error: ComityError) -> None:
        if len(self._found) < MAX_DAMAGED:
            self._found.append(error)
        self._metrics.ledger_damage.set(len(self.damage))
        _log.error("the ledger is damaged", what=error.what, why=error.why, hint=error.hint, code=error.code)


async def _entries(source: CopySource, part: DamagedPart) -> list[bytes]:
    lines = list[bytes]()
    while len(lines) < part.end - part.start:
        lines += await fetch_entries(source.client, part.log, part.start + len(lines), part.end)
    return lines


def _unproven(ledger: Ledger, pages: tuple[int, ...], *, logs_sound: bool) -> ComityError | None:
    """Accept damaged pages if all are of tables whose contents the pass proved; else the error that names them."""
    assert ledger.pages is not None
    names = ledger.pages.tables.of_pages(pages)
    owners = {ledger.pages.tables.owner(name) for name in names.values()}
    proven = logs_sound and len(names) == len(pages) and owners <= set(LOG_TABLES)
    if not proven or not all(map(ledger.pages.tables.is_well_formed, sorted(owners))):
        return damaged_pages(ledger.pages, pages)
    ledger.pages.accept(pages)
    return None
