"""What all logs held here say of offers, read as they grow: chains, their faults, and what was said in other logs.

Each log is read from its beginning, a stretch at a time and in turn with the others, its signatures judged in a thread.
Nothing is kept but in memory: the logs are the record, and what follows from them is computed again at each start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from comity.node.core import Core
from comity.trust.digest import Digest
from comity.trust.offers import PREDICATES, Chain, OfferLog, Request, Stated
from comity.trust.offers.records import OFFER
from comity.trust.statement import Author, Entry, parse_entry
from comity.trust.statements.claims import signed_by_node
from comity.trust.statements.node_record import NodeRecord

STRETCH: Final = 1024
"""Entries of one log that are looked at in one turn."""


@dataclass(frozen=True, slots=True)
class Told:
    """A statement of an identity, and the log (verifier key) where it was found first."""

    log: str
    stated: Stated


@dataclass(frozen=True, slots=True)
class Convicted:
    """A chain that was found at fault, and its log."""

    log: str
    chain: Chain


class Register:
    """Chains of every log. Touched by the event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._turns: dict[str, asyncio.Lock] = {}
        self._logs: dict[str, OfferLog] = {}
        self._convicted: list[Convicted] = []
        self._read: dict[str, int] = {}
        self._kept: dict[str, int] = {}
        """Lines of each log that were taken in."""
        self.crowded: set[str] = set()
        """Logs that say more of offers than is kept: nothing of theirs is known for sure."""
        self._writers: dict[str, frozenset[Author]] = {}
        """Who was known to write each log when it was read."""
        self._woken: dict[str, int] = {}
        """How many parked lines of each log had come to stand when it was read."""
        self._homes: dict[Digest, str] = {}
        """The log of each offer, of any version."""
        self._requests: dict[Digest, dict[Digest, Told]] = {}
        """By the offer asked for, then by line."""
        self._about: dict[Digest, dict[Digest, Told]] = {}
        """What identities said of a grant, by line."""

    @property
    def own(self) -> OfferLog:
        """The node's own log, as far as it was read."""
        return self._log(self._core.log)

    def chains(self) -> Iterator[tuple[str, Chain]]:
        """Every chain, with its log."""
        return ((name, chain) for name, log in self._logs.items() for chain in log.chains.values())

    def convicted(self) -> Iterator[tuple[str, Chain]]:
        """Chains at fault, with their logs."""
        return ((log, chain) for log, chain in self.chains() if chain.fault is not None)

    def find(self, offer: Digest) -> tuple[str, Chain] | None:
        """The chain that an offer, of any version, belongs to, and its log."""
        home = self._homes.get(offer)
        chain = self._log(home).chain_of(offer) if home else None
        return (home, chain) if home and chain else None

    def requests(self, offers: Iterable[Digest]) -> Iterator[Told]:
        """Requests for these offers, in whichever log they stand, each once."""
        return (told for offer in offers for told in self._requests.get(offer, {}).values())

    def waiting(self) -> int:
        """How many requests for this node's own offers nobody has answered."""
        open_ = (chain.book for chain in self.own.chains.values() if not chain.book.withdrawn)
        return sum(
            told.stated.line not in book.answers
            for book in open_
            for told in self.requests(offer.id for offer in book.offers)
        )

    def about(self, grant: Digest) -> Iterator[Told]:
        """What identities said of a grant, in whichever log, each line once."""
        return iter(self._about.get(grant, {}).values())

    def newly_convicted(self) -> list[Convicted]:
        """Chains that were found at fault since this was asked last."""
        found, self._convicted = self._convicted, []
        return found

    async def read(self) -> bool:
        """One turn: a stretch of each log that has grown. Whether some log has more to read."""
        behind = False
        for log in await self._core.pools.ledger(self._core.ledger.logs.all):
            behind = await self._read_stretch(log.vkey, log.size) or behind
        return behind

    async def read_own(self) -> None:
        """Read the next stretch of the node's own log, where it has grown: what was logged here a moment ago."""
        log = await self._core.pools.ledger(self._core.ledger.logs.get, self._core.log)
        await self._read_stretch(log.vkey, log.size)

    async def _read_stretch(self, log: str, size: int) -> bool:
        """Whether there is more."""
        async with self._turns.setdefault(log, asyncio.Lock()):
            writers, intake = self._core.membership.writers(log), self._core.ledger.intake
            size, woken = min(size, await self._core.pools.ledger(intake.position, log)), intake.woken(log)
            doubtful = any(chain.doubtful for chain in self._log(log).chains.values())
            if woken != self._woken.get(log, woken) or (writers != self._writers.get(log) and doubtful):
                for known in (self._logs, self._read, self._kept):
                    known.pop(log, None)
            self._woken[log] = woken
            start = self._read.get(log, 0)
            if start >= size or not writers or log in self.crowded:
                return False
            self._writers[log] = writers
            end = min(size, start + STRETCH)
            judged = await self._core.pools.hashing(self._judged, log, start, end)
            if not self._has_room(log, len(judged)):
                return False
            for index, entry, genuine in judged:
                self._take(log, index, entry, genuine)
            self._read[log] = end
            return end < size

    def _has_room(self, log: str, lines: int) -> bool:
        """Whether so many more lines of a log are kept here. The own log's are, whatever it says."""
        self._kept[log] = self._kept.get(log, 0) + lines
        if log == self._core.log or self._kept[log] <= self._core.config.limits.offer_lines_per_origin:
            return True
        self.crowded.add(log)
        for chain in self._log(log).chains.values():
            chain.doubtful = True
        return False

    def _take(self, name: str, index: int, entry: Entry, genuine: bool | None) -> None:
        log = self._log(name)
        chain = log.read(index, entry, genuine)
        if (stated := log.said.get(entry.digest)) is not None and stated.index == index:
            self._note(Told(name, stated))
        if chain is None:
            return
        for offer in chain.book.offers:
            self._homes.setdefault(offer.id, name)
        if chain.fault is not None and chain.fault.index == index:
            self._convicted.append(Convicted(name, chain))

    def _note(self, told: Told) -> None:
        said = told.stated.said
        where, key = (self._requests, said.offer) if isinstance(said, Request) else (self._about, said.grant)
        where.setdefault(key, {}).setdefault(told.stated.line, told)

    def _log(self, name: str) -> OfferLog:
        return self._logs.setdefault(name, OfferLog(name))

    def _judged(self, log: str, start: int, end: int) -> list[tuple[int, Entry, bool | None]]:
        """Blocking. The entries of a stretch that are about offers, and whether each is its author's."""
        found = self._core.ledger.index.said(log, PREDICATES, start, end)
        entries = ((index, parse_entry(line)) for index, line in found)
        return [(index, entry, self._genuine(log, entry)) for index, entry in entries]

    def _genuine(self, log: str, entry: Entry) -> bool | None:
        """Whether it counts, of what its author is proven to have said."""
        by = entry.statement.by
        if by is None:
            return False
        if by.kind == "node":
            record = self._core.membership.node(by)
            return None if record is None else _by_writer(log, entry, record)
        return True


def _by_writer(log: str, entry: Entry, record: NodeRecord) -> bool:
    """Whether a node says this in its own log; and of an offer, in its own member's name."""
    if str(record.log) != log or not signed_by_node(entry, record):
        return False
    if entry.statement.predicate != OFFER:
        return True
    offer = entry.statement.body.get("offer")
    return isinstance(offer, Mapping) and offer.get("provider") == record.member
