"""What is said about the successor of one body: proven statements, within a share for each author in each log.

A statement is its payload: another envelope of one that was counted costs nothing. Each author has a share of its own
in each log, so that nobody else can use it up, and what is kept of a share is the first of it, in the order of that
log: every node that holds the log keeps the same. In the logs of its own nodes a member has the large share, which an
honest member never fills: it says two statements a round. Elsewhere, where anybody may hand in what it once signed, it
has a small one.

Beyond its share a reading is kept if another member names its round and body in a reading that is kept: what an honest
member's readings rest on stays at hand everywhere, however much the author of it has said besides. So what one member
says takes no place from another, and the order in which logs are read decides nothing.

    grows with                                bound              charged to       at the bound
    statements of a member in its own logs    AT_HOME a log      the author       passed over; the status names the log
    in another log                            ELSEWHERE a log    the author       passed over; the status names the log
    readings beyond that, that others name    MAX_BEYOND a log   who names them   passed over
    envelopes of one statement in one log     MAX_ENVELOPES      the log          passed over, as copies
    rounds of bodies that were passed over    MAX_PASSED         all              logs are read again at each new need
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from comity.trust.charter import MAX_BYTES
from comity.trust.charter.council import MAX_BODIES
from comity.trust.charter.proposing import CONSENTED, DRAFT, LEFT
from comity.trust.charter.readings import INTENT, RATIFIED, Intent, Ratify, Reading, read_reading, void
from comity.trust.digest import Digest, bare_digest
from comity.trust.errors import ComityError, Malformed
from comity.trust.statement import Entry, Statement

SPOKEN: Final = (DRAFT, INTENT, RATIFIED, CONSENTED, LEFT)
"""What members say about the next epoch."""
MAX_ENVELOPES: Final = 4
MAX_BEYOND: Final = 1024
MAX_PASSED: Final = 4096

RoundBody: TypeAlias = "tuple[int, Digest]"
_Spot: TypeAlias = "tuple[str, Digest, int, Digest, int | None]"
"""For which votes a reading can count: kind, member, round, body, unlock."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Of one author in one log: statements, bytes of their lines, and bytes of charter bodies that it puts forward."""

    statements: int
    size: int
    drafted: int


AT_HOME: Final = Bound(256, 2 * 1024 * 1024, 2 * MAX_BYTES)
ELSEWHERE: Final = Bound(32, 256 * 1024, MAX_BYTES)


@dataclass(slots=True)
class Share:
    """What one author has used of its share in one log. `counted`: how many envelopes of each statement were judged."""

    bound: Bound
    size: int = 0
    drafted: int = 0
    counted: dict[Digest, int] = field(default_factory=dict)
    beyond: int = 0
    """Envelopes that were judged beyond it."""
    full: bool = False

    def takes(self, entry: Entry) -> bool:
        """Whether the statement has a place here; then it is counted, once however often it comes."""
        statement = entry.statement_digest
        if statement in self.counted:
            return True
        drafted = sum(item.size for item in entry.statement.objects) if entry.statement.predicate == DRAFT else 0
        size, drafted = self.size + len(entry.line), self.drafted + drafted
        self.full = self.full or len(self.counted) >= self.bound.statements or size > self.bound.size
        if self.full or drafted > self.bound.drafted:
            return False
        self.size, self.drafted, self.counted[statement] = size, drafted, 0
        return True

    def judges(self, entry: Entry) -> bool:
        """Whether one more envelope of a counted statement is worth a look."""
        tried = self.counted[entry.statement_digest]
        self.counted[entry.statement_digest] = tried + 1
        return tried < MAX_ENVELOPES


@dataclass(slots=True)
class Hearing:
    """What was said about one body's successor, by statement digest. Who asks has proven what is put in."""

    entries: dict[Digest, Entry] = field(default_factory=dict)
    shares: dict[tuple[str, Digest], Share] = field(default_factory=dict)
    """By log and author."""
    _naming: dict[RoundBody, set[Digest]] = field(default_factory=dict)
    """Who names a round of a body: two are enough to know."""
    _spots: set[_Spot] = field(default_factory=set)
    _passed: set[RoundBody] = field(default_factory=set)
    """Rounds and bodies of readings that were passed over, of whatever author."""
    stale: bool = False
    """Whether something that was passed over is needed by now: the logs are to be read again."""

    def full(self) -> tuple[tuple[str, Digest], ...]:
        """Logs and authors of which more was said than is kept."""
        return tuple(key for key, share in self.shares.items() if share.full)

    def wants(self, log: str, entry: Entry, *, home: bool = False) -> bool:
        """Whether it is worth to prove an entry that stands in a log; it is charged to its author's share there.

        `home`: the log is one of the author's own.
        """
        by = entry.statement.by
        if by is None:
            return False
        share = self.shares.setdefault((log, by.id), Share(AT_HOME if home else ELSEWHERE))
        fits = share.takes(entry)
        if entry.statement_digest in self.entries:
            return False
        return share.judges(entry) if fits else self._is_needed(share, entry)

    def put(self, entry: Entry) -> bool:
        """Keep a proven entry; whether it was new."""
        if entry.statement_digest in self.entries:
            return False
        self.entries[entry.statement_digest] = entry
        reading = _reading(entry)
        if reading is not None:
            self._spots.add(_spot(reading))
            for named in _named(reading):
                self._name(named, reading.member)
        return True

    def drop(self, statement: Digest) -> None:
        """An entry matters no longer."""
        self.entries.pop(statement, None)

    def read_again(self) -> None:
        """Logs are read from their beginning: what was used of shares is counted anew."""
        self.shares.clear()
        self._passed.clear()
        self.stale = False

    def named(self) -> Iterator[Digest]:
        """Bodies that were put forward or read for: of each author the few that a council may look at."""
        by_author: dict[Digest, list[tuple[int, int, Digest]]] = {}
        for entry in self.entries.values():
            if entry.statement.predicate == LEFT or entry.statement.by is None:
                continue
            reading = _reading(entry)
            rank = (2, 0) if reading is None else (0 if isinstance(reading, Ratify) else 1, -reading.round)
            by_author.setdefault(entry.statement.by.id, []).append((*rank, entry.statement.subject))
        for bodies in by_author.values():
            yield from list(dict.fromkeys(body for *_, body in sorted(bodies)))[: 2 * MAX_BODIES]

    def _is_needed(self, share: Share, entry: Entry) -> bool:
        """Whether an entry beyond the share is a reading on which what another member says may rest."""
        reading = _reading(entry)
        if reading is None or (isinstance(reading, Intent) and void(reading) is not None):
            return False
        spot, named = _spot(reading), _named(reading)
        if spot in self._spots:
            return False
        if not all(self._named_by_another(pair, reading.member) for pair in named):
            for pair in named if len(self._passed) < MAX_PASSED else ():
                self._passed.add(pair)
            return False
        share.beyond += 1
        return share.beyond <= MAX_BEYOND

    def _named_by_another(self, pair: RoundBody, member: Digest) -> bool:
        return bool(self._naming.get(pair, set()) - {member})

    def _name(self, pair: RoundBody, member: Digest) -> None:
        names = self._naming.setdefault(pair, set())
        if member not in names and len(names) < 2:
            names.add(member)
            self.stale = self.stale or pair in self._passed or len(self._passed) >= MAX_PASSED


def about(statement: Statement) -> Digest | None:
    """The body whose successor a statement is about; None where it does not say so."""
    name = "body" if statement.predicate == LEFT else "prev"
    try:
        return bare_digest(statement.body.get(name))
    except Malformed:
        return None


def _reading(entry: Entry) -> Reading | None:
    if entry.statement.predicate not in (INTENT, RATIFIED):
        return None
    try:
        return read_reading(entry)
    except ComityError:
        return None


def _spot(reading: Reading) -> _Spot:
    unlock = reading.unlock if isinstance(reading, Intent) else None
    return (type(reading).__name__, reading.member, reading.round, reading.body, unlock)


def _named(reading: Reading) -> list[RoundBody]:
    """The rounds of its body that a reading is of, or rests on."""
    unlock = reading.unlock if isinstance(reading, Intent) else None
    rounds = (reading.round,) if unlock is None else (reading.round, unlock)
    return [(at, reading.body) for at in rounds]
