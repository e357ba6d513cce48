"""What the logs held here say about the next epoch, gathered as they grow.

A log is read from its beginning, a window at a time and in turn with the others, so that a long one keeps nobody
waiting. A line counts by its signature wherever it stands; whose it is says the seat that some epoch gives its author.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from comity.content.store import BlobStore
from comity.ledger.index import Located, Query
from comity.ledger.ledger import Ledger
from comity.node.core import Core
from comity.node.governance.hearing import SPOKEN, Hearing, about
from comity.trust.charter.lies import MISBEHAVIOUR
from comity.trust.charter.proposing import ADOPTED, CONSENTED, DRAFT
from comity.trust.charter.readings import INTENT, RATIFIED
from comity.trust.digest import Digest
from comity.trust.dsse import MAX_LINE, Envelope
from comity.trust.errors import ComityError
from comity.trust.identity import KeySet
from comity.trust.statement import Entry, parse_entry

WINDOW: Final = 256
"""Entries of one log that are read in one turn."""
NEWCOMING: Final = ("rotated", CONSENTED)
"""What matters of those without a seat whom a draft would admit; it is looked up when a draft is weighed."""
READ: Final = (*SPOKEN, "rotated", MISBEHAVIOUR, ADOPTED)

Signed = Callable[[KeySet, Envelope], bool]


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn over the logs brought. `behind`: some log has more to read."""

    heard: frozenset[Digest]
    """Bodies about whose successor something new was said."""
    rotated: tuple[Entry, ...]
    adopted: tuple[tuple[str, Entry], ...]
    """With the log that says so."""
    newcoming: bool
    """Somebody whom a draft would admit has said something."""
    behind: bool


class Proceedings:
    """Hearings by the body that they are about. Touched by the event loop only."""

    def __init__(self, core: Core, signed: Signed) -> None:
        self._core = core
        self._signed = signed
        self._read: dict[str, int] = {}
        self._beginning = 0
        """How often the logs were begun anew: a page that was asked for before that is not the next one."""
        self._hearings: dict[Digest, Hearing] = {}
        self._decided: dict[Digest, Digest] = {}
        self.hopefuls: frozenset[Digest] = frozenset()
        """Those without a seat whom some draft would admit."""

    def open(self, body: Digest, successor: Digest | None = None) -> None:
        """Hear what is said about the successor of `body`, from the beginning of every log: it may stand anywhere.

        Where the successor is decided, what was put forward and read in its place still matters: readings may convict a
        liar, and a draft that lost may be put upon the one that won.
        """
        self._beginning += 1
        self._read.clear()
        for hearing in self._hearings.values():
            hearing.read_again()
        if successor is not None:
            self._decided[body] = successor
            for digest, entry in list(self.about(body).entries.items()):
                if not self._matters(body, entry):
                    del self._hearings[body].entries[digest]
        self._hearings.setdefault(body, Hearing())

    def about(self, body: Digest) -> Hearing:
        return self._hearings.setdefault(body, Hearing())

    async def read(self) -> Turn:
        """One turn: at most a window of each log that has grown."""
        heard: set[Digest] = set()
        rotated: list[Entry] = []
        adopted: list[tuple[str, Entry]] = []
        newcoming = behind = False
        beginning = self._beginning
        for log in await self._core.pools.ledger(self._core.ledger.logs.all):
            if self._read.get(log.vkey, -1) >= log.size - 1:
                continue
            page = await self._core.pools.ledger(_window, self._core.ledger, log.vkey, self._read.get(log.vkey))
            if beginning != self._beginning:
                behind = True
                break
            self._read[log.vkey] = page[-1].index if len(page) == WINDOW else log.size - 1
            behind = behind or len(page) == WINDOW
            said = await self._core.pools.files(_said, self._core.store, page)
            for entry in await self._core.pools.hashing(self._proven, log.vkey, said, self._keys()):
                if entry.statement.by and entry.statement.by.id in self.hopefuls:
                    newcoming = True
                elif entry.statement.predicate == "rotated":
                    rotated.append(entry)
                elif entry.statement.predicate == ADOPTED:
                    adopted.append((log.vkey, entry))
                elif (body := self.put(log.vkey, entry)) is not None:
                    heard.add(body)
        return Turn(frozenset(heard), tuple(rotated), tuple(adopted), newcoming, behind)

    def put(self, log: str, entry: Entry) -> Digest | None:
        """Keep a line that its author signed; the body that it is about, where it is new and within the log's share."""
        body = about(entry.statement)
        return body if body in self._hearings and self._hearings[body].put(log, entry) else None

    def full(self, body: Digest) -> tuple[str, ...]:
        """Logs that say more than is kept."""
        return tuple(log for log, share in self.about(body).shares.items() if share.full)

    def _matters(self, body: Digest, entry: Entry) -> bool:
        decided = self._decided.get(body)
        return decided is None or (
            entry.statement.predicate in (DRAFT, INTENT, RATIFIED) and entry.statement.subject != decided
        )

    def _keys(self) -> Mapping[Digest, Sequence[KeySet]]:
        members = self._core.membership
        return {identity: members.reached(identity) for identity in members.known}

    def _proven(self, log: str, said: Iterable[Entry], keys: Mapping[Digest, Sequence[KeySet]]) -> list[Entry]:
        """Blocking. The entries that may count: signed by who has, or had, a seat. Rotations prove themselves,
        and whoever reads what a node has adopted looks at its key."""
        return [entry for entry in said if self._counts(log, entry, keys)]

    def _counts(self, log: str, entry: Entry, keys: Mapping[Digest, Sequence[KeySet]]) -> bool:
        by = entry.statement.by
        if by is None or entry.statement.predicate in ("rotated", ADOPTED):
            return by is not None
        if by.id in self.hopefuls:
            return entry.statement.predicate in NEWCOMING
        body = about(entry.statement)
        hearing = self._hearings.get(body) if body else None
        if hearing is None or body is None or hearing.full(log) or not self._matters(body, entry):
            return False
        known = entry.digest in hearing.entries
        return known or any(self._signed(mine, entry.envelope) for mine in keys.get(by.id, ()))


def _window(ledger: Ledger, log: str, after: int | None) -> list[Located]:
    """Blocking. The next entries that matter, in the order of their log; the index has them kind by kind."""
    last = None if after is None else (log, after)
    found = [ledger.index.find(Query(predicate=kind, origin=log), limit=WINDOW, after=last) for kind in READ]
    return sorted(chain.from_iterable(found), key=lambda item: item.index)[:WINDOW]


def _said(store: BlobStore, page: Iterable[Located]) -> list[Entry]:
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
