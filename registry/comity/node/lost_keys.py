"""Lost keys of the publishers whose artifacts this node holds, for the people who rely on the node.

A publisher reports a lost key in an advisory about itself (`comity.trust.key_validity`). What it means for one artifact
is judged in a verdict; here is only who reported it, and how many artifacts of that publisher are held here.
"""

from __future__ import annotations

import asyncio
from typing import Final

from comity.ledger.proven import MAX_ANSWER
from comity.node.threads import AsyncLedger
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import PUBLISHED
from comity.trust.statements import Advisory, Compromise

STEP: Final = 256
INTERVAL: Final = 30.0
"""Seconds after which the artifacts that are held are counted again."""
MAX_REPORTS: Final = 10_000
"""Reports that are remembered, the earliest: those of strangers are among them."""


@frozen
class LostKey:
    """A report, in the words of the publisher. `held`: artifacts of that publisher that are held here, of at most
    `MAX_ANSWER` statements that were looked at."""

    publisher: Digest
    label: str
    compromise: Compromise
    text: str
    held: int


@frozen
class FoundLostKeys:
    """`more`: there are more reports than are remembered, and their publishers were not looked up."""

    found: tuple[LostKey, ...] = ()
    more: bool = False


class LostKeys:
    """Follows the reports. Not thread-safe: call from the event loop."""

    def __init__(self, ledger: AsyncLedger) -> None:
        self._ledger = ledger
        self._position = 0
        self._reports: dict[tuple[Digest, Compromise], str] = {}
        self._more = False
        self._found = FoundLostKeys()
        self._due = float("-inf")
        self._lock = asyncio.Lock()

    async def now(self) -> FoundLostKeys:
        async with self._lock:
            grown = await self._follow()
            clock = asyncio.get_running_loop().time()
            if grown or clock >= self._due:
                self._due = clock + INTERVAL
                found = await self._ledger.run(self._held)
                self._found = FoundLostKeys(found, self._more)
            return self._found

    async def _follow(self) -> bool:
        """Read new reports. Returns whether there are any."""
        grown = False
        while lines := await self._ledger.run(self._ledger.tables.key_notices.since, self._position, STEP):
            for line in lines:
                self._position = line.number
                grown |= self._note(line.line)
        return grown

    def _note(self, line: bytes) -> bool:
        try:
            said = Advisory.parse(parse_entry(line).statement)
        except Malformed:
            return False
        if said.compromise is None:
            return False
        if len(self._reports) >= MAX_REPORTS:
            self._more = True
            return False
        return self._reports.setdefault((said.by.id, said.compromise), said.text) is said.text

    def _held(self) -> tuple[LostKey, ...]:
        """Blocking."""
        counts = {publisher: self._count(publisher) for publisher, _ in self._reports}
        held = {publisher for publisher, count in counts.items() if count}
        known = self._ledger.tables.proven.identities(held)
        return tuple(
            LostKey(publisher, known[publisher].display if publisher in known else "", lost, text, counts[publisher])
            for (publisher, lost), text in self._reports.items()
            if publisher in held
        )

    def _count(self, publisher: Digest) -> int:
        lines = self._ledger.tables.proven.by(publisher, PUBLISHED, MAX_ANSWER).found
        artifacts = {parse_entry(line.line).statement.subject for line in lines}
        copies = self._ledger.tables.replicas.copies(artifacts)
        return sum(copy.stands for copy in copies.values())
