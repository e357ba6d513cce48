"""Lost keys of the publishers whose artifacts this node holds, for the people who rely on the node.

A publisher reports a lost key in an advisory about itself (`comity.trust.key_validity`). What it means for one artifact
is judged in a verdict; here is only who reported it, and how many artifacts of that publisher are held here.

Anybody can report any number of keys. So each publisher has places of its own, and each look does a bounded part
of what is new, however much that is: who waits for it waits for that part alone.

    grows with                     bound            at the bound
    reports of one publisher       OF_ONE           its later ones are not remembered
    publishers who report          MAX_PUBLISHERS   the newest of others give way to members, and are not remembered
    reports that are told          TOLD             as `comity.rules.precedence` says
    new statements                 STEPS * STEP     the rest is read at the next look
    publishers who are counted     COUNTED          the others at the next looks
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from comity.ledger.proven import MAX_ANSWER
from comity.node.threads import AsyncLedger
from comity.rules.precedence import Bounds, Precedence, Said, select
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.statement import parse_entry
from comity.trust.statements import Advisory, Compromise

STEP: Final = 256
STEPS: Final = 16
INTERVAL: Final = 30.0
"""Seconds after which artifacts that are held are counted again."""
OF_ONE: Final = 4
MAX_PUBLISHERS: Final = 4_096
COUNTED: Final = 64
TOLD: Final = Bounds(member=OF_ONE, others=128, total=256)


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
    """The reports of publishers of whom something is held: those of members first, and of each group the first of every
    publisher, then the second. `more`: there are others, of these publishers or of some that are not remembered.
    `complete`: every report was read, and the artifacts of every publisher were counted."""

    found: tuple[LostKey, ...] = ()
    more: bool = False
    complete: bool = True


@dataclass(slots=True)
class _Reporter:
    """A publisher: the numbers of its statements by the key that is lost, and artifacts that are held. `counted`: at
    which look, 0 for never; `cut`: it reported more."""

    reports: dict[Compromise, int] = field(default_factory=dict)
    held: int = 0
    counted: int = 0
    cut: bool = False


class LostKeys:
    """Follows the reports. Not thread-safe: call from the event loop.

    Args:
        precedence: returns who are members now.
    """

    def __init__(self, ledger: AsyncLedger, precedence: Callable[[], Precedence]) -> None:
        self._ledger = ledger
        self._precedence = precedence
        self._position = 0
        self._reporters: dict[Digest, _Reporter] = {}
        self._dropped = False
        """Some publishers are not remembered."""
        self._read_all = False
        self._looks = 0
        self._found = FoundLostKeys(complete=False)
        self._due = float("-inf")
        self._lock = asyncio.Lock()

    async def now(self) -> FoundLostKeys:
        async with self._lock:
            return await self._ledger.run(self._look, asyncio.get_running_loop().time())

    def _look(self, clock: float) -> FoundLostKeys:
        """Blocking: parsing is too much for the event loop."""
        if self._follow() or clock >= self._due or not self._found.complete:
            self._due = clock + INTERVAL
            self._count()
            self._found = self._tell()
        return self._found

    def _follow(self) -> bool:
        """Read some new reports. Returns whether there are any."""
        grown = self._read_all = False
        for _ in range(STEPS):
            lines = self._ledger.tables.key_notices.since(self._position, STEP)
            for line in lines:
                self._position = line.number
                grown |= self._note(line.number, line.line)
            if len(lines) < STEP:
                self._read_all = True
                break
        return grown

    def _note(self, number: int, line: bytes) -> bool:
        try:
            said = Advisory.parse(parse_entry(line).statement)
        except Malformed:
            return False
        if said.compromise is None:
            return False
        by = said.by.id
        if by not in self._reporters and not self._make_room(by):
            self._dropped = True
            return False
        reporter = self._reporters.setdefault(by, _Reporter())
        if said.compromise in reporter.reports:
            return False
        if len(reporter.reports) >= OF_ONE:
            reporter.cut = True
            return False
        reporter.reports[said.compromise] = number
        return True

    def _make_room(self, publisher: Digest) -> bool:
        """Whether another publisher can be remembered: for a member, the newest that is none is forgotten."""
        if len(self._reporters) < MAX_PUBLISHERS:
            return True
        members = self._precedence().members
        if publisher not in members:
            return False
        other = next((each for each in reversed(self._reporters) if each not in members), None)
        if other is None:
            return False
        del self._reporters[other]
        self._dropped = True
        return True

    def _count(self) -> None:
        """Count the artifacts of those who were never counted, members first, and of those who were long ago."""
        members = self._precedence().members
        self._looks += 1
        ordered = sorted(self._reporters, key=lambda each: (self._reporters[each].counted, each not in members))
        held = self._ledger.tables.key_notices.held_of(ordered[:COUNTED], MAX_ANSWER)
        for publisher, count in held.items():
            self._reporters[publisher].held = count
            self._reporters[publisher].counted = self._looks

    def _tell(self) -> FoundLostKeys:
        tables = self._ledger.tables
        holding = {by: reporter for by, reporter in self._reporters.items() if reporter.held}
        said = [
            Said(by, number, "", (by, lost, number))
            for by, reporter in holding.items()
            for lost, number in reporter.reports.items()
        ]
        chosen = select(said, self._precedence(), TOLD)
        labels = tables.proven.identities({by for by, *_ in chosen.found})
        texts = dict(self._texts([number for *_, number in chosen.found]))
        found = tuple(
            LostKey(by, labels[by].display if by in labels else "", lost, texts[number], holding[by].held)
            for by, lost, number in chosen.found
        )
        more = self._dropped or chosen.limited or any(reporter.cut for reporter in holding.values())
        complete = self._read_all and all(reporter.counted for reporter in self._reporters.values())
        return FoundLostKeys(found, more, complete)

    def _texts(self, numbers: Collection[int]) -> Iterator[tuple[int, str]]:
        for line in self._ledger.tables.proven.numbered(numbers) if numbers else ():
            yield line.number, Advisory.parse(parse_entry(line.line).statement).text
