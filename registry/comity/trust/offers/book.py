"""What the records of one chain add up to: what was given out, what is free, and whether a record may follow.

The book is kept by whoever writes the chain, before it appends a record, and by everybody who reads it afterwards: the
rules are one, so that a record that its writer refused is one that every reader convicts.

(1) a record has the next number, names the record before, and is not older
(2) what it does is allowed where the chain stands (`rules`)
(3) it says truly what is left after it
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, TypeVar

from comity.trust.digest import Digest, sha256
from comity.trust.dsse import Envelope
from comity.trust.errors import Refused, Untrusted
from comity.trust.offers.faults import OVERBOOKED, broken, forked, kind_of
from comity.trust.offers.records import (
    Accepted,
    Grant,
    Link,
    Offered,
    Record,
    Redeemed,
    Rejected,
    Released,
    Withdrawn,
)
from comity.trust.offers.rules import Change, change_by
from comity.trust.offers.state import ACCEPTED, GRANTED, LAPSED, RELEASED, Commitment, State

__all__ = ["ACCEPTED", "GRANTED", "LAPSED", "MAX_GRANTING", "RELEASED", "Book", "Commitment"]

MAX_GRANTING: Final = 4096
"""Records of a chain beyond which its writer grants no more: the whole chain is the proof against who overbooks."""

_R = TypeVar("_R", bound=Record)


class Book(State):
    """The book of one chain. Not thread-safe; of every method that raises, nothing stays."""

    def __init__(self, chain: Digest) -> None:
        super().__init__(chain)
        self.last: Digest | None = None
        self.at = 0
        self._seen: list[tuple[Digest, Digest]] = []
        """Digest of the line and of the payload of each record, by its number."""
        self._numbers: dict[Digest, int] = {}

    @property
    def seq(self) -> int:
        """The number of the newest record; -1 before the first."""
        return len(self._seen) - 1

    def number(self, record: Digest) -> int:
        """The number of a record that was taken, by its line digest. Raises KeyError."""
        return self._numbers[record]

    def next(self, record: _R, at: int) -> _R:
        """The same record, linked so that it is the next one.

        Args:
            at: now, POSIX seconds; where the newest record is later, that time is taken.

        Raises Refused (OFFER-CAPACITY, OFFER-STATE, OFFER-FULL) where it may not follow.
        """
        self._require_room(record)
        at = max(at, self.at)
        link = Link(self.chain, self.seq + 1, self.last, at, ())
        try:
            change = change_by(self, replace(record, link=link), Digest(""))
        except Untrusted as error:
            raise Refused(
                "the offer's chain does not allow this",
                why=error.why,
                code="OFFER-CAPACITY" if kind_of(error) == OVERBOOKED else "OFFER-STATE",
            ) from error
        return replace(record, link=replace(link, remaining=self._left(record, change)))

    def take(self, record: Record, envelope: Envelope, line: bytes) -> bool:
        """Take the next record in; False for a copy of one that was taken.

        Raises Untrusted (OFFER-FORKED, OFFER-OVERBOOKED, OFFER-BROKEN).
        """
        digest, payload = sha256(line), sha256(envelope.payload)
        link = record.link
        if link.chain != self.chain:
            raise broken("a record of another chain")
        if link.seq <= self.seq:
            if self._seen[link.seq][0] == digest or self._seen[link.seq][1] == payload:
                return False
            raise forked(f"there are two records number {link.seq}")
        if (link.seq, link.prev) != (self.seq + 1, self.last):  # (1)
            raise broken(f"number {link.seq} does not follow the record before it, number {self.seq}")
        if link.at < self.at:
            raise broken(f"number {link.seq} is older than the record before it")
        change = change_by(self, record, digest)  # (2)
        if link.remaining != self._left(record, change):  # (3)
            raise broken(f"number {link.seq} says wrongly what is left")
        self._keep(record, change, digest)
        self._numbers[digest] = link.seq
        self._seen.append((digest, payload))
        self.last, self.at = digest, link.at
        return True

    def _require_room(self, record: Record) -> None:
        if self.seq + 1 >= MAX_GRANTING and isinstance(record, Grant | Offered | Rejected):
            raise Refused(
                "this offer's chain is full",
                why=f"it has {self.seq + 1} records",
                hint="withdraw the offer and post what is left as a new one",
                code="OFFER-FULL",
            )

    def _left(self, record: Record, change: Change) -> tuple[int, ...]:
        offer = record.offer if isinstance(record, Offered) else self.offer
        return tuple(part.amount - self.given(part.name) - change.amounts.get(part.name, 0) for part in offer.slices)

    def _keep(self, record: Record, change: Change, digest: Digest) -> None:
        if isinstance(record, Offered):
            self.offers.append(record.offer)
        elif isinstance(record, Withdrawn):
            self.withdrawal = digest
        elif (answered := _answered(record)) is not None:
            self.answers[answered] = digest
        if (held := change.commitment) is not None:
            self.grants[held.digest] = held
            self.open[held.digest] = None
            if held.state not in (GRANTED, ACCEPTED):
                del self.open[held.digest]
        for name, start, end, nodes in change.nodes:
            self.profile(name).add(start, end, nodes)
        for name, amount in change.amounts.items():
            self.give(name, amount)


def _answered(record: Record) -> Digest | None:
    """The line digest of the other party's statement that a record answers; None where there is none."""
    if isinstance(record, Grant | Rejected):
        return record.request
    if isinstance(record, Accepted):
        return record.acceptance
    if isinstance(record, Redeemed):
        return record.redemption
    return record.giving_back if isinstance(record, Released) else None
