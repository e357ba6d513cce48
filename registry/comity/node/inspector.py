"""Inspects the files that this node holds, in the background, one after the other.

Answers are kept (`content.inspections`), so that the gateway and the console have them at hand. After each file the
inspector rests nine times as long as the inspection computed: it takes at most a tenth of a core. A newer version of
the scanner inspects everything again; what it says differently is logged, and is a condition for webhooks.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Final

import structlog

from comity.content.blobs import BlobStore
from comity.content.inspections import ChangedAnswer, KeptInspections
from comity.ledger.proven import ProvenLine
from comity.node.members import Membership
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Pools
from comity.node.uploads import read_manifest
from comity.trust.artifact import FileEntry
from comity.trust.copies import read_holds
from comity.trust.errors import ComityError, NotFound
from comity.trust.evidence import FoundFile
from comity.trust.policy import SafetyRule
from comity.trust.rows.content import refused_content
from comity.trust.statement import SideObject, parse_entry
from comity.trust.statement_kinds import HOLD_PREDICATES

TIMING: Final = LoopTiming(interval=5.0, deadline=3_600.0)
PAGE: Final = 16
"""Holds that are read in one step."""
REST: Final = 9.0
"""Seconds of rest for each second of computing."""

_log: Final = structlog.get_logger("comity.node")


class Inspector:
    """Follows this node's own holds. Not thread-safe: call from the event loop."""

    def __init__(
        self, ledger: AsyncLedger, store: BlobStore, pools: Pools, membership: Membership, kept: KeptInspections
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._membership = membership
        self._kept = kept
        self._position = 0
        self.worse: Sequence[tuple[ChangedAnswer, str]] | None = None
        """Files in which this version of the scanner finds what the default policy refuses, and the one before did
        not; and what it finds. None until that was read: an earlier process may have found some."""

    def begin(self, supervisor: Supervisor) -> None:
        supervisor.loop("inspections", self.read, TIMING)

    async def read(self) -> None:
        """Inspect the files of all new holds."""
        more, worse = True, await self._worse() if self.worse is None else self.worse
        while more:
            self.worse, known = worse, frozenset(worse)
            more = await self._step()
            worse = await self._worse()
            for answer, reason in worse:
                if (answer, reason) not in known:
                    _log.warning("a newer scanner changed an answer", file=answer.file, name=answer.name, finds=reason)
        self.worse = worse

    async def _worse(self) -> list[tuple[ChangedAnswer, str]]:
        return worse_answers(await self._pools.files(self._kept.changed))

    async def _step(self) -> bool:
        """Inspect the files of the next page of holds. Returns whether more may follow."""
        proven = self._ledger.tables.proven
        last = await self._ledger.read(proven.last_number)
        if self._position > last:  # the ledger is another one
            self._position = 0
        log = self._membership.own_node.log
        lines = await self._ledger.run(proven.since, self._position, HOLD_PREDICATES, PAGE, log)
        async for entry in self._files(lines):
            spent = await self._pools.whole_files(self._inspect, entry)
            await asyncio.sleep(REST * spent)
        if lines:
            self._position = lines[-1].number
        return len(lines) == PAGE

    async def _files(self, lines: Sequence[ProvenLine]) -> AsyncIterator[FileEntry]:
        statements = [parse_entry(line.line).statement for line in lines]
        own = [statement for statement in statements if statement.by == self._membership.own_node.record.node]
        for item in [item.manifest for statement in own for item in read_holds(statement)]:
            for entry in await self._pools.files(self._entries, item):
                yield entry

    def _entries(self, item: SideObject) -> tuple[FileEntry, ...]:
        """The files of an artifact that are here and have no answer yet; none if its manifest cannot be read."""
        try:
            files = read_manifest(self._store, item).files
        except ComityError:
            return ()
        here = (entry for entry in files if not entry.size or self._store.has(entry.sha256))
        return tuple(entry for entry in here if self._kept.kept(entry.sha256, entry.path) is None)

    def _inspect(self, entry: FileEntry) -> float:
        """Inspect one file. Returns the seconds of computing. Blocking."""
        begun = time.thread_time()
        with contextlib.suppress(NotFound):  # removed in between
            self._kept.inspect(self._store, entry)
        return time.thread_time() - begun


def worse_answers(changed: Sequence[ChangedAnswer]) -> list[tuple[ChangedAnswer, str]]:
    """Files in which a newer scanner finds what the default policy refuses, and the one before did not; and what it
    finds."""
    found = []
    for answer in changed:
        was, now = (FoundFile(answer.name, 0, answer.file, inspection=each) for each in (answer.was, answer.now))
        reason = next(refused_content(SafetyRule(), now), "")
        if reason and next(refused_content(SafetyRule(), was), "") != reason:
            found.append((answer, reason))
    return found
