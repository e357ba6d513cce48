"""What the logs held here say about the next epoch, gathered as they grow.

Of each log the proven statements are read in the order in which this node proved them, a window at a time and in turn
with the other logs, so that a long one keeps nobody waiting. A line counts by its signature wherever it stands; whose
it is says the seat that some epoch gives its author.
What is looked at of one author in one log is bounded before a signature is judged (`hearing`; `MAX_ROTATIONS` and
`MAX_NEWCOMING` here), by the order of that log alone: nodes that hold the same logs look at the same lines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from comity.content.store import BlobStore
from comity.ledger.proven import Line
from comity.node.core import Core
from comity.node.governance.hearing import MAX_ENVELOPES, SPOKEN, Hearing, about
from comity.trust.charter.lies import MISBEHAVIOUR
from comity.trust.charter.proposing import ADOPTED, CONSENTED, DRAFT
from comity.trust.charter.readings import INTENT, RATIFIED
from comity.trust.digest import Digest
from comity.trust.dsse import MAX_LINE, Envelope
from comity.trust.errors import ComityError
from comity.trust.identity import KeySet
from comity.trust.statement import Author, Entry, parse_entry

WINDOW: Final = 256
"""Statements of one log that are read in one turn."""
NEWCOMING: Final = ("inception", "rotated", CONSENTED)
"""What matters of those without a seat whom a draft would admit; it is looked up when a draft is weighed."""
READ: Final = (*SPOKEN, "inception", "rotated", MISBEHAVIOUR, ADOPTED)
MAX_ROTATIONS: Final = 16
"""Different rotations of one member that are looked at in one log; later ones are passed over."""
MAX_NEWCOMING: Final = 16
"""Statements of one newcomer in one log for which drafts are weighed anew."""

Signed = Callable[[KeySet, Envelope], bool]


@dataclass(slots=True)
class Turn:
    """What one turn over the logs brought. `behind`: some log has more to read."""

    heard: set[Digest] = field(default_factory=set)
    """Bodies about whose successor something new was said."""
    rotated: list[Entry] = field(default_factory=list)
    adopted: dict[str, Entry] = field(default_factory=dict)
    """By log, the last that its own node says there."""
    newcoming: set[Digest] = field(default_factory=set)
    """Those whom a draft would admit and who have said something."""
    behind: bool = False


@dataclass(frozen=True, slots=True)
class _Writer:
    """A log, the nodes that write it, and their member; None where no record tells."""

    log: str
    nodes: frozenset[Author]
    member: Digest | None


class Proceedings:
    """Hearings by the body that they are about. Touched by the event loop only."""

    def __init__(self, core: Core, signed: Signed) -> None:
        self._core = core
        self._signed = signed
        self._read: dict[str, int] = {}
        """By log, the number of the last proven statement that was read."""
        self._beginning = 0
        """How often the logs were begun anew: a page that was asked for before that is not the next one."""
        self._hearings: dict[Digest, Hearing] = {}
        self._decided: dict[Digest, Digest] = {}
        self._seen: dict[tuple[str, Digest], dict[Digest, int]] = {}
        """By log and author, the rotations and newcomers' statements that were looked at, and how many envelopes."""
        self._again = False
        self.hopefuls: frozenset[Digest] = frozenset()
        """Those without a seat whom some draft would admit."""

    def open(self, body: Digest, successor: Digest | None = None) -> None:
        """Hear what is said about the successor of `body`, from the beginning of every log: it may stand anywhere.

        Where the successor is decided, what was put forward and read in its place still matters: readings may convict a
        liar, and a draft that lost may be put upon the one that won.
        """
        self._begin()
        if successor is not None:
            self._decided[body] = successor
            for digest, entry in list(self.about(body).entries.items()):
                if not self._matters(body, entry):
                    del self._hearings[body].entries[digest]
        self._hearings.setdefault(body, Hearing())

    def rehear(self) -> None:
        """Read all logs again when they were read to their end: somebody speaks by other keys now, and lines that were
        passed over may count. However many keys somebody takes, that is once a reading."""
        self._again = True

    def about(self, body: Digest) -> Hearing:
        return self._hearings.setdefault(body, Hearing())

    async def read(self) -> Turn:
        """One turn: at most a window of each log in which something was proven since."""
        turn, beginning, members = Turn(), self._beginning, self._core.membership
        proven = self._core.ledger.proven
        last = await self._core.pools.ledger(proven.last)
        for state in await self._core.pools.ledger(self._core.ledger.logs.all):
            log = state.vkey
            if (read := self._read.get(log, 0)) >= last:
                continue
            page = await self._core.pools.ledger(proven.since, read, READ, WINDOW, log)
            if beginning != self._beginning:
                turn.behind = True
                break
            whole = len(page) < WINDOW
            self._read[log] = max(last, page[-1].number if page else 0) if whole else page[-1].number
            turn.behind = turn.behind or not whole
            said = await self._core.pools.files(_said, self._core.store, page)
            writer = _Writer(log, members.writers(log), members.owner(log))
            wanted = [entry for entry in said if self._sort(turn, writer, entry)]
            for entry in await self._core.pools.hashing(self._proven, wanted, self._keys()):
                if (body := self.put(entry)) is not None:
                    turn.heard.add(body)
        if not turn.behind and (self._again or self._is_stale()):
            self._begin()
            turn.behind = True
        return turn

    def put(self, entry: Entry) -> Digest | None:
        """Keep an entry that its author signed; the body that it is about, where it is new."""
        body = about(entry.statement)
        return body if body in self._hearings and self._hearings[body].put(entry) else None

    def full(self, body: Digest) -> tuple[str, ...]:
        """Logs in which somebody says more than is kept."""
        return tuple(dict.fromkeys(log for log, _ in self.about(body).full()))

    def used(self, body: Digest, log: str, author: Digest) -> int:
        """How many statements of an author about the successor of `body` count in a log, as far as it was read."""
        share = self.about(body).shares.get((log, author))
        return len(share.counted) if share else 0

    def _begin(self) -> None:
        """Read all logs anew."""
        self._beginning += 1
        self._again = False
        self._read.clear()
        self._seen.clear()
        for hearing in self._hearings.values():
            hearing.read_again()

    def _is_stale(self) -> bool:
        return any(hearing.stale for body, hearing in self._hearings.items() if body not in self._decided)

    def _matters(self, body: Digest, entry: Entry) -> bool:
        decided = self._decided.get(body)
        return decided is None or (
            entry.statement.predicate in (DRAFT, INTENT, RATIFIED) and entry.statement.subject != decided
        )

    def _sort(self, turn: Turn, writer: _Writer, entry: Entry) -> bool:
        """Note what needs no proof here; whether the entry is to be proven, to be heard.

        Rotations prove themselves, and whoever reads what a node has adopted looks at its key.
        """
        by, predicate = entry.statement.by, entry.statement.predicate
        if by is None:
            return False
        if predicate == ADOPTED:
            if by in writer.nodes:
                turn.adopted[writer.log] = entry
        elif by.id in self.hopefuls:
            if predicate in NEWCOMING and self._is_among_the_first(writer.log, entry, MAX_NEWCOMING):
                turn.newcoming.add(by.id)
        elif self._core.membership.chains(by.id):
            if predicate != "rotated":
                return self._is_heard(writer, entry, by.id)
            if self._is_among_the_first(writer.log, entry, MAX_ROTATIONS):
                turn.rotated.append(entry)
        return False

    def _is_heard(self, writer: _Writer, entry: Entry, author: Digest) -> bool:
        body = about(entry.statement)
        if body is None or body not in self._hearings or not self._matters(body, entry):
            return False
        return self._hearings[body].wants(writer.log, entry, home=writer.member == author)

    def _is_among_the_first(self, log: str, entry: Entry, most: int) -> bool:
        """Whether an entry is one of the first few of its author in a log, and one of the first envelopes of it."""
        assert entry.statement.by is not None
        seen, statement = self._seen.setdefault((log, entry.statement.by.id), {}), entry.statement_digest
        if statement not in seen and len(seen) >= most:
            return False
        seen[statement] = seen.get(statement, 0) + 1
        return seen[statement] <= MAX_ENVELOPES

    def _keys(self) -> Mapping[Digest, Sequence[KeySet]]:
        members = self._core.membership
        return {identity: members.reached(identity) for identity in members.known}

    def _proven(self, wanted: Iterable[Entry], keys: Mapping[Digest, Sequence[KeySet]]) -> list[Entry]:
        """Blocking. The entries that are signed by who has, or had, a seat."""
        return [
            entry
            for entry in wanted
            if entry.statement.by
            and any(self._signed(mine, entry.envelope) for mine in keys.get(entry.statement.by.id, ()))
        ]


def _said(store: BlobStore, page: Iterable[Line]) -> list[Entry]:
    """Blocking. The entries of a page; in place of an accusation the two lines that it shows."""
    said: list[Entry] = []
    for item in page:
        entry = parse_entry(item.line)
        said += _shown(store, entry) if entry.statement.predicate == MISBEHAVIOUR else (entry,)
    return said


def _shown(store: BlobStore, accusation: Entry) -> list[Entry]:
    """Blocking. The lines that an accusation shows, unproven: whoever accuses, they convict by themselves or not."""
    shown = []
    for item in accusation.statement.objects[:2]:
        with contextlib.suppress(ComityError):  # too large, no statement, or put aside meanwhile
            if item.size <= MAX_LINE:
                shown.append(parse_entry(b"".join(store.iterate(item.digest, 0, item.size))))
    return shown
