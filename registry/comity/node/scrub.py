"""Rereads the whole store and the ledger slowly, so that disk damage is found early, and repaired where it can be.

A pass over the store reads the blobs in order of their digests, at the configured rate and in the configured hours of
the day, at most one pass a day. The position and the start of the last complete pass are in a small file, so that a
restart continues. Damaged blobs are quarantined, and replication fetches them again. The same pass gives the chained
records of blobs that have none yet.

A pass over the ledger has three parts, at the same rate and in the same hours, at most one pass a day:

    pages   each page of an SQLite file against its sum
    logs    each 256 entries of each log against the hashes of its tree
    upper   of each log: the hashes above, its root, and every checkpoint with its signature

Entries that do not fit are written again from the ledger itself or from a peer, under an inclusion proof to a
checkpoint that the log signed. Damage of anything else stays in the status, with the next step, and in the metrics. A
pass that finds every log sound accepts damaged pages of the tables of logs: their contents are proven.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import structlog

from comity.content import durable
from comity.content.blobs import CHUNK, BlobStore, FolderStore
from comity.hashing import FileHash
from comity.ledger.history import DamagedPart
from comity.ledger.ledger import Ledger
from comity.ledger.page_check import PAGES_READ
from comity.ledger.page_sums import damaged_pages, named_pages
from comity.node.metrics import Metrics
from comity.node.replication.link import CopySource, fetch_entries
from comity.node.replication.questions import PeerQuestions
from comity.node.settings import Storage, within_hours
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.rules.tiles import WIDTH
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, NotFound, Unavailable
from comity.trust.frozen import frozen
from comity.wire.node_status import ScrubStatus

STEP_SECONDS: Final = 10.0
"""Seconds between two steps; each step reads as many bytes as the rate allows in this time."""
PASS_SECONDS: Final = 86_400.0
"""Minimum seconds between the starts of two passes."""
TIMING: Final = LoopTiming(interval=STEP_SECONDS, deadline=1800.0)

_log: Final = structlog.get_logger("comity.node.scrub")


@frozen
class ScrubProgress:
    """The position of the scrub. Times are POSIX seconds of the node's clock.

    Attributes:
        begun: when this pass began.
        over: whether this pass is complete and the next one is not due.
        after: the last blob read in this pass; empty for none.
        whole: when the last complete pass began: every older blob was read since. None before the first.
    """

    begun: float
    over: bool = False
    after: str = ""
    whole: float | None = None

    @classmethod
    def load(cls, file: Path, now: float) -> ScrubProgress:
        """The saved progress; a new pass if there is none or it is unusable."""
        try:
            kept = json.loads(file.read_bytes())
            whole = None if kept["whole"] is None else float(kept["whole"])
            after = str(kept["after"])
            int(after or "0", 16)  # a digest
            return cls(float(kept["begun"]), bool(kept["over"]), after, whole)
        except (OSError, ValueError, KeyError, TypeError):
            return cls(now)

    def known_at(self, now: float) -> ScrubProgress:
        """Without times that are still to come: they are of a clock that was ahead, and nobody knows when that was."""
        whole = None if self.whole is None or self.whole > now else self.whole
        return replace(self, begun=min(self.begun, now), whole=whole)

    @property
    def per_mille(self) -> int:
        """How much of this pass is done. Digests are spread evenly, so the last one read says it."""
        return 1000 if self.over else int(self.after[:8] or "0", 16) * 1000 >> 32

    def save(self, file: Path) -> None:
        """Raises OutOfSpace, Unavailable."""
        durable.write_file(file, json.dumps(asdict(self)).encode(), point="scrub")


class Scrub:
    """Rereads `store`, and keeps its position beside the ledger.

    Args:
        on_damaged: called on the event loop after a blob was quarantined.
        on_intact: called in a thread with a right blob of several pieces, its size, and its states for chained records.
    """

    def __init__(
        self,
        settings: Storage,
        store: BlobStore,
        pools: Pools,
        clock: Clock,
        metrics: Metrics,
        on_damaged: Callable[[], None],
        on_intact: Callable[[Digest, int, Sequence[bytes]], None] = lambda digest, size, states: None,
    ) -> None:
        self._rate = settings.scrub_bytes_per_second
        self._hours = settings.scrub_hours
        self._store = store
        self._pools = pools
        self._clock = clock
        self._metrics = metrics
        self._on_damaged = on_damaged
        self._on_intact = on_intact
        self._file = settings.ledger.with_name("scrub.json")
        self._progress = ScrubProgress.load(self._file, clock())
        self._remaining: Iterator[Digest] | None = None
        self._reading: Iterator[int] | None = None
        self._quarantined = 0

    def begin(self, supervisor: Supervisor) -> None:
        if self._rate:
            self._metrics.scrub_age.set_function(self.age)
            supervisor.loop("scrub", self._step, TIMING)

    def status(self) -> ScrubStatus:
        """What was read again, for the operator."""
        progress = self._progress.known_at(self._clock())
        whole = None if progress.whole is None else int(progress.whole)
        return ScrubStatus(self._rate, self._hours, int(progress.begun), progress.per_mille, whole)

    async def _step(self) -> None:
        if within_hours(self._hours, self._clock()):
            before = self._quarantined
            await self._pools.whole_files(self.read, int(STEP_SECONDS * self._rate))
            if self._quarantined > before:
                self._on_damaged()

    def age(self) -> float:
        """Seconds since the last complete pass began; before the first one, since this pass began."""
        now = self._clock()
        progress = self._progress.known_at(now)
        return now - (progress.begun if progress.whole is None else progress.whole)

    def read(self, budget: int) -> None:
        """Read about `budget` bytes, or to the end of a pass. Blocking. Raises Unavailable, OutOfSpace."""
        before = self._progress
        self._progress = before.known_at(self._clock())
        while budget > 0 and (reading := self._reading or self._open_next()):
            self._reading = reading
            for count in reading:
                budget -= count
                if budget <= 0:
                    break
            else:
                self._reading = None
        if self._progress != before:
            self._progress.save(self._file)

    def _open_next(self) -> Iterator[int] | None:
        """Start the next blob; None if there is nothing to read now."""
        progress = self._progress
        if progress.over:
            if self._clock() - progress.begun < PASS_SECONDS:
                return None
            self._progress = progress = ScrubProgress(self._clock(), whole=progress.whole)
        if self._remaining is None:
            self._remaining = (digest for digest, _ in self._store.sizes(progress.after))
        try:
            following = next(self._remaining, None)
        except ComityError:
            self._remaining = None  # the list ended early: begin it again after the last blob that was read
            raise
        if following is not None:
            return self._reread(following)
        self._progress, self._remaining = ScrubProgress(progress.begun, over=True, whole=progress.begun), None
        return None

    def _reread(self, digest: Digest) -> Iterator[int]:
        """Read one blob and yield the number of bytes of each part; verify the hash at the end."""
        try:
            _drop_page_cache(self._store, digest)
            size = self._store.size(digest)
            hasher = FileHash(size)
            for data in self._store.iterate(digest, 0, size, CHUNK):
                hasher.update(data)
                yield len(data)
            found = Digest(hasher.digest().hex())
            if found != digest:
                self._quarantine(digest, f"its bytes hash to {short(found)}")
            elif hasher.states:
                self._keep_states(digest, size, hasher.states)
        except NotFound:
            pass  # removed or quarantined concurrently
        except Unavailable as error:
            self._metrics.verify_failures.labels("unreadable").inc()
            _log.error("blob cannot be read", blob=digest, why=str(error))
        self._progress = replace(self._progress, after=digest)

    def _keep_states(self, digest: Digest, size: int, states: Sequence[bytes]) -> None:
        try:
            self._on_intact(digest, size, states)
        except ComityError as error:  # only readers become slower
            _log.warning("chained records were not stored", blob=digest, why=str(error))

    def _quarantine(self, digest: Digest, why: str) -> None:
        self._store.quarantine(digest, why)
        self._metrics.verify_failures.labels("blob").inc()
        self._quarantined += 1
        _log.error("blob is damaged and was quarantined", blob=digest, why=why)


def _drop_page_cache(store: BlobStore, digest: Digest) -> None:
    """Drop the file from the page cache, so that its bytes are read from the disk."""
    if isinstance(store, FolderStore):
        with contextlib.suppress(OSError):
            descriptor = os.open(store.path(digest), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


PAGE_BYTES: Final = 4096 * PAGES_READ
"""Bytes that a check of pages is counted as."""
PART_BYTES: Final = 1024 * 1024
"""Bytes that a check of one part of a log is counted as: it takes as much of a processor as reading these."""
FIRST_PASS_SECONDS: Final = 600.0
"""Seconds after a start before the first pass, so that it does not delay the start, and peers are connected."""
SUSPECTED_SECONDS: Final = 3600.0
"""Minimum seconds between the starts of two passes, where errors call for the second one."""
MAX_DAMAGED: Final = 1_000
"""Damaged pages and parts that are kept of one pass."""
REPAIRS_AT_A_TIME: Final = 16
"""Parts that are tried again in one step."""
REPAIR_SECONDS: Final = 60.0
"""Seconds between two such tries."""
LOG_TABLES: Final = ("entries", "tiles")
"""Tables whose contents a pass proves completely."""


class LedgerScrub:
    """The passes over one ledger. Not thread-safe: call from the event loop.

    Args:
        peers: from where damaged entries are fetched.
    """

    def __init__(
        self,
        settings: Storage,
        ledger: AsyncLedger,
        clock: Clock,
        metrics: Metrics,
        peers: PeerQuestions,
    ) -> None:
        self._rate = settings.scrub_bytes_per_second
        self._hours = settings.scrub_hours
        self._ledger = ledger
        self._clock = clock
        self._metrics = metrics
        self._peers = peers
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
        self._damage: tuple[ComityError, ...] = known_damage(ledger.tables)
        self._hurries = bool(self._damage or ledger.tables.examined.rewritten)

    def begin(self, supervisor: Supervisor) -> None:
        if self._rate:
            supervisor.loop("ledger scrub", self._step, TIMING)
            supervisor.on_unexpected(self.suspect)

    def suspect(self) -> None:
        """Something failed that damage may have caused: a pass begins with the next step, at most one in an hour."""
        if self._over and (self._begun is None or not self._within(SUSPECTED_SECONDS, self._begun)):
            self._begun, self._hurries = None, True

    @property
    def damage(self) -> tuple[ComityError, ...]:
        """What was found and could not be repaired: parts of logs, and what the last complete pass and this one so far
        found besides."""
        parts = (part.error() for parts in self._parts.values() for part in parts.values())
        known = set(map(str, self._damage))
        return (*parts, *self._damage, *(error for error in self._found if str(error) not in known))

    async def _step(self) -> None:
        waits = not self._hurries and self._within(FIRST_PASS_SECONDS, self._started)
        if not waits and within_hours(self._hours, self._clock()):
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
            self._metrics.verify_failures.labels("ledger page").inc(len(found.damaged))
            pages = await self._ledger.run(named_pages, sums, found.damaged)
            _log.error("pages of the ledger are damaged", pages=pages, code="LEDGER-CORRUPT")
            mended = await self._ledger.run(self._ledger.tables.mend_pages, found.damaged)
            _log.warning("changed bytes in pages of the ledger written again", pages=len(mended))
            left = [page for page in found.damaged if page not in mended]
            self._pages += left[: MAX_DAMAGED - len(self._pages)]
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
        if not waiting or not self._peers.reachable or self._within(REPAIR_SECONDS, self._tried_at):
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

        async def entries(source: CopySource) -> list[bytes]:
            return await _entries(source, part)

        async with aclosing(self._peers.answers(entries, self._peers.reachable)) as answers:
            async for source, answer in answers:
                if isinstance(answer, ComityError):
                    _log.warning("damaged entries not received", origin=part.origin, peer=source.name, why=str(answer))
                elif await self._mended(part, answer, source.name):
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


def known_damage(ledger: Ledger) -> tuple[ComityError, ...]:
    """What the check before the start found and did not repair."""
    pages = ledger.examined.damaged
    return (damaged_pages(ledger.pages, pages),) if ledger.pages is not None and pages else ()


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
