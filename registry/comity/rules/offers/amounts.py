"""Usage of grants, balances of members, granted nodes over time, kinds of chain faults, and late acceptances.

    usage      the provider's node: the amount of each allocation that was used; the grantee's own `usage` agrees to it
    defaulted  the provider's answer to a grantee who says that a grant was not honoured

Neither statement is a record of the chain: they do not change what is free. Hours of different accelerators are not
comparable, so a balance is kept for each unit. Intervals are half open: an interval that ends at t does not overlap one
that begins at t. Source: protocol, section 9.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from comity.rules.cosigned_times import verified_cosigners
from comity.rules.offers.offer import Window
from comity.rules.offers.records import Acceptance, Amounts, Grant, OfChain, OfferText, read_party_statement
from comity.trust.content import SubjectDigest
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Untrusted
from comity.trust.frozen import frozen
from comity.trust.statement import Entry
from comity.trust.statement_kinds import DEFAULTED, USAGE
from comity.trust.tlog.note import VerifierKey
from comity.trust.tlog.proof import TlogProof


@frozen
class Usage(OfChain):
    """What was used of a grant, says the provider's node: the amount of each allocation within `window`, in order.

    Several statements about one grant add up. `amounts` are in units of the offer's measure.
    """

    predicate: ClassVar = USAGE
    author: ClassVar = "node"
    chain: SubjectDigest
    grant: Digest
    window: Window
    amounts: Amounts
    text: OfferText = ""


@frozen
class DefaultAnswer(OfChain):
    """The answer of the provider's node to a grantee's `defaulted` with line digest `default`."""

    predicate: ClassVar = DEFAULTED
    author: ClassVar = "node"
    chain: SubjectDigest
    grant: Digest
    default: Digest
    text: OfferText


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """Unit of a balance: hours of a measure, of one accelerator (empty for none)."""

    measure: str
    accelerator: str


@frozen
class UsageRecord:
    """A usage line of a known grant: lender and borrower (members), amounts, and the line digests of the grant, of the
    usage and of the grantee's agreement (None if there is none)."""

    lender: Digest
    borrower: Digest
    amounts: tuple[tuple[Unit, int], ...]
    grant: Digest
    usage: Digest
    agreement: Digest | None = None


@frozen
class Balance:
    """What two members lent each other, in one unit. `first` < `second` by id.

    Attributes:
        lent, borrowed: by `first` to and from `second`, agreed by the borrower.
        claimed: lent by either member according to the lender only; not part of `net` until the borrower agrees.
        lines: the usage lines that were counted.
    """

    first: Digest
    second: Digest
    unit: Unit
    lent: int
    borrowed: int
    claimed: int
    lines: tuple[UsageRecord, ...]

    @property
    def net(self) -> int:
        """Amount that `first` lent minus the amount that it borrowed; negative if `first` owes."""
        return self.lent - self.borrowed


def balances(used: Iterable[UsageRecord]) -> tuple[Balance, ...]:
    """A balance for each pair of members and unit, sorted. Each usage line counts once; a member's own use does not."""
    by_usage: dict[Digest, UsageRecord] = {}
    for line in used:
        if line.lender != line.borrower and (line.usage not in by_usage or by_usage[line.usage].agreement is None):
            by_usage[line.usage] = line
    groups: dict[tuple[Digest, Digest, Unit], list[UsageRecord]] = {}
    for line in by_usage.values():
        first, second = sorted((line.lender, line.borrower))
        for unit in dict.fromkeys(unit for unit, _ in line.amounts):
            groups.setdefault((first, second, unit), []).append(line)
    return tuple(_balance(*key, lines) for key, lines in sorted(groups.items()))


def _balance(first: Digest, second: Digest, unit: Unit, lines: Iterable[UsageRecord]) -> Balance:
    totals = {"lent": 0, "borrowed": 0, "claimed": 0}
    ordered = sorted(lines, key=lambda line: line.usage)
    for line in ordered:
        amount = sum(amount for each, amount in line.amounts if each == unit)
        side = "claimed" if line.agreement is None else "lent" if line.lender == first else "borrowed"
        totals[side] += amount
    return Balance(first, second, unit, totals["lent"], totals["borrowed"], totals["claimed"], tuple(ordered))


OVERBOOKED: Final = "overbooked"
"""More was granted than there is."""
FORKED: Final = "forked"
"""Two different records have one number."""
BROKEN: Final = "broken"
"""The rules do not allow a record, or it states a wrong remaining amount."""
UNANSWERED: Final = "unanswered"
"""A record answers a statement that is not before it in the log, or that differs."""
FAULTS: Final = (OVERBOOKED, FORKED, BROKEN, UNANSWERED)

_AT_FAULT: Final = "the chain of an offer has a fault"
_KINDS: Final = {
    "OFFER-OVERBOOKED": OVERBOOKED,
    "OFFER-FORKED": FORKED,
    "OFFER-BROKEN": BROKEN,
    "OFFER-UNANSWERED": UNANSWERED,
}


def overbooked(why: str) -> Untrusted:
    return Untrusted(_AT_FAULT, why=why, code="OFFER-OVERBOOKED")


def forked(why: str) -> Untrusted:
    return Untrusted(_AT_FAULT, why=why, code="OFFER-FORKED")


def broken(why: str) -> Untrusted:
    return Untrusted(_AT_FAULT, why=why, code="OFFER-BROKEN")


def unanswered(why: str) -> Untrusted:
    return Untrusted(_AT_FAULT, why=why, code="OFFER-UNANSWERED")


def fault_kind(error: ComityError) -> str:
    """Kind of fault of an error by its code; empty for any other error."""
    return _KINDS.get(error.code, "")


_BEGINNING: Final = -1
"""Earlier than every POSIX time that is used."""


class Profile:
    """Number of granted nodes at each instant, as a step function; initially 0. Its size is bounded by the number of
    granules of the window."""

    def __init__(self) -> None:
        self._times = [_BEGINNING]
        self._levels = [0]

    def add(self, start: int, end: int, nodes: int) -> None:
        """Add `nodes` (may be negative) from `start` up to `end`."""
        if start >= end:
            return
        first, last = self._cut(start), self._cut(end)
        for step in range(first, last):
            self._levels[step] += nodes
        self._join(last)
        self._join(first)

    def peak(self, start: int, end: int) -> int:
        """Highest level from `start` up to `end`; 0 for an empty interval."""
        if start >= end:
            return 0
        first = bisect_right(self._times, start) - 1
        return max(self._levels[first : bisect_left(self._times, end)])

    def steps(self) -> tuple[tuple[int, int], ...]:
        """Pairs (time, new level) where the level changes, in order of time."""
        return tuple(zip(self._times[1:], self._levels[1:], strict=True))

    def _cut(self, time: int) -> int:
        """Make `time` a boundary; returns the index of its step."""
        at = bisect_left(self._times, time)
        if at == len(self._times) or self._times[at] != time:
            self._times.insert(at, time)
            self._levels.insert(at, self._levels[at - 1])
        return at

    def _join(self, at: int) -> None:
        """Remove a boundary at which the level does not change."""
        if self._levels[at] == self._levels[at - 1]:
            del self._times[at], self._levels[at]


def accepted_in_time(
    granted: Entry,
    grant: Grant,
    acceptance: Entry,
    proof: TlogProof,
    log: VerifierKey,
    cosigners: Mapping[Digest, Collection[VerifierKey]],
) -> frozenset[Digest]:
    """The members whose cosignatures prove that `acceptance` was in a log before the grant's deadline.

    A provider may record that a grant lapsed although it was accepted. A member that cosigned a log with the acceptance
    saw it by that time. The charter says how many members suffice (`cosigner_quorum`). Source: protocol, section 9.

    Args:
        granted: the line that `grant` was read from.
        proof: inclusion proof of the acceptance in any log.
        log: the key of that log.
        cosigners: cosigner keys by member; the caller leaves out the parties to the grant.

    Raises Malformed, and Untrusted if the acceptance is for another grant or the proof does not hold. The signatures of
    the two lines are not checked.
    """
    accepted = read_party_statement(acceptance.statement)
    if not isinstance(accepted, Acceptance) or (accepted.by, accepted.grant) != (grant.grantee, granted.digest):
        raise Untrusted("not an acceptance of this grant", why="its author or its grant differs", code="OFFER-STATE")
    checkpoint = proof.verify(acceptance.line, log)
    times = verified_cosigners(proof.checkpoint, (key for keys in cosigners.values() for key in keys), checkpoint)
    return frozenset(
        member for member, keys in cosigners.items() if any(0 < times.get(key, 0) <= grant.accept_by for key in keys)
    )
