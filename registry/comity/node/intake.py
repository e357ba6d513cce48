"""The intake: each line of each log is looked at once, in order, in bounded steps; what is proven goes into the tables.

A line is parsed, held against what its log has said already, and proven by the keys that are known (`proof`). One that
no known key fits is parked in the ledger, and looked at again when more of its author's keys are proven. What comes of
a step stands with the position up to which it goes, in one transaction. Logs take turns, a step each: a long or hostile
one keeps no other waiting, and pays with its own turns for the parked lines that its lines wake.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from comity.ledger.facts import Fact, fact
from comity.ledger.intake import Judged, Revisit
from comity.ledger.ledger import Ledger
from comity.node.core import Core
from comity.node.proof import PROVEN, REFUSED, WAITING, Keys, Seats, judge
from comity.node.tasks import Rhythm, Supervisor
from comity.trust.digest import Digest
from comity.trust.errors import ComityError, Malformed
from comity.trust.rotation import KeyState
from comity.trust.statement import Entry, parse_entry

INTAKE: Final = "intake"
"""The name of the loop."""
DEADLINE: Final = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Step:
    """What a step on one log brought: how many statements are new, and whether there is more to do for it."""

    new: int
    behind: bool


@dataclass(slots=True)
class _Sorted:
    """Lines of one log, sorted as they are judged."""

    log: str
    known: dict[Digest, int]
    proven: list[Fact] = field(default_factory=list)
    waiting: list[tuple[int, Digest]] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    def judged(self, seen: dict[Digest, int]) -> Judged:
        return Judged(self.log, tuple(self.proven), tuple(self.waiting), seen, tuple(self.refused))


class Prover:
    """The steps of the intake. Blocking; one at a time."""

    def __init__(self, ledger: Ledger, seats: Seats) -> None:
        self._ledger = ledger
        self._keys = Keys(ledger, seats)

    def step(self, log: str) -> Step:
        """One bounded step on a log: parked lines first that its own lines have woken, else its next stretch."""
        revisit = self._ledger.intake.next_revisit(log)
        if revisit is not None:
            return Step(self._look_again(revisit), True)
        stretch = self._ledger.intake.stretch(log)
        if not stretch.lines:
            return Step(0, False)
        entries = [(index, _entry(line)) for index, line in enumerate(stretch.lines, stretch.start)]
        read = [(index, entry) for index, entry in entries if entry is not None]
        seen = self._begin([entry for _, entry in read])
        judged = self._judge(stretch.log, read).judged(seen)
        new = self._ledger.intake.commit(stretch, judged)
        return Step(new, stretch.behind or bool(new))

    def finish(self, log: str) -> int:
        """Take steps until nothing is left to be done for a log; how many statements were new."""
        new = 0
        while (step := self.step(log)).behind:
            new += step.new
        return new + step.new

    def finish_all(self) -> int:
        """The same for every log."""
        new = 0
        while behind := self._ledger.intake.behind():
            new += sum(self.step(log).new for log in behind)
        return new

    def _look_again(self, revisit: Revisit) -> int:
        by_log: dict[str, list[tuple[int, Entry]]] = {}
        for item in revisit.lines:
            by_log.setdefault(item.log, []).append((item.index, parse_entry(item.line)))
        seen = self._begin([entry for entries in by_log.values() for _, entry in entries])
        judged = [self._judge(log, entries).judged(seen) for log, entries in by_log.items()]
        return self._ledger.intake.commit_revisit(revisit, judged)

    def _begin(self, entries: Sequence[Entry]) -> dict[Digest, int]:
        authors = list(dict.fromkeys(entry.statement.by.id for entry in entries if entry.statement.by))
        seen = self._ledger.intake.keys_known(authors)
        self._keys.begin(seen)
        return seen

    def _judge(self, log: str, entries: Sequence[tuple[int, Entry]]) -> _Sorted:
        """Sort lines of one log. A copy of what this log has said before, or a line that was proven in another log, is
        not proven again."""
        statements = [entry.statement_digest for _, entry in entries]
        elsewhere = self._ledger.intake.proven_lines(statements)
        sorted_ = _Sorted(log, self._ledger.intake.known(log, statements))
        for index, entry in entries:
            if sorted_.known.get(entry.statement_digest, index) < index:
                sorted_.refused.append(index)
                continue
            found = PROVEN if entry.digest in elsewhere else judge(entry, self._keys)
            self._sort(sorted_, index, entry, found)
        return sorted_

    def _sort(self, sorted_: _Sorted, index: int, entry: Entry, found: str) -> None:
        author = entry.statement.by
        said = fact(index, entry) if found == PROVEN else None
        if said is not None:
            sorted_.proven.append(said)
            sorted_.known[said.statement] = index
            self._keys.learn(entry)
        elif found == WAITING and author is not None:
            sorted_.waiting.append((index, author.id))
        elif found == REFUSED:
            sorted_.refused.append(index)


class Intake:
    """Runs the intake of a node. Touched by the event loop only.

    Args:
        proven: called after a turn that proved anything new.
    """

    def __init__(self, core: Core, proven: Callable[[], Awaitable[None]]) -> None:
        self._core = core
        self._proven = proven
        self._prover = Prover(core.ledger, self._seats)
        self._one = asyncio.Lock()
        self._supervisor: Supervisor | None = None

    async def begin(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        await self.seated()
        rhythm = Rhythm(max(0.05, self._core.config.replication.interval_seconds), DEADLINE)
        supervisor.loop(INTAKE, self._turns, rhythm)

    def look(self) -> None:
        """A log has grown."""
        if self._supervisor is not None:
            self._supervisor.ring(INTAKE)

    async def seated(self) -> None:
        """Charters may list keys that were not known: look at what waits for their members again."""
        known = self._core.membership.known
        await self._core.pools.ledger(self._core.ledger.intake.revisit, self._core.log, known)
        self.look()

    async def finish(self, log: str) -> None:
        """Return once everything that stands in a log went through the intake."""
        while await self._step(log):
            pass

    async def _turns(self) -> None:
        """Give every log that is behind a step, in turn, until none is. One that fails keeps no other waiting."""
        failures: dict[str, ComityError] = {}
        while behind := await self._core.pools.ledger(self._core.ledger.intake.behind):
            if failures.keys() >= set(behind):
                raise failures[behind[0]]
            for log in behind:
                try:
                    if log not in failures:
                        await self._step(log)
                except ComityError as error:
                    failures[log] = error

    async def _step(self, log: str) -> bool:
        """Whether there is more to do."""
        async with self._one:
            step = await self._core.pools.hashing(self._prover.step, log)
        if step.new:
            await self._proven()
        return step.behind

    def _seats(self, identity: Digest) -> Iterable[KeyState]:
        return [chain.start for chain in self._core.membership.chains(identity)]


def _entry(line: bytes) -> Entry | None:
    try:
        return parse_entry(line)
    except Malformed:
        return None
