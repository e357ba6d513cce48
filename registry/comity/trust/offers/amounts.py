"""What was used, said by the provider's node and agreed to by the grantee; and what two members owe one another.

    usage      the node: so much of each allocation was used; the grantee's own `usage` (`parties`) agrees
    defaulted  the node's answer to a grantee who says that a grant was not honoured

Neither belongs to the chain: they change nothing of what is free. Hours of different accelerators are not comparable,
and nothing here turns one into the other: a balance is kept for each unit. Source: protocol, section 9.


Faults of chains: three that the records alone show, and one that takes what stands between them.

How many nodes are taken at each instant: a step function over time, in integers.

Times are POSIX seconds and intervals half open: what ends at t leaves room for what begins at t.


Whether a grant was accepted in time, for those who were not there: by the times of cosigners, not of either party.

A provider may record that a grant lapsed although it was accepted. The acceptance stands in some log, and each member
who cosigned that log with the acceptance inside, by a certain time, saw it by then. How many of them suffice says the
charter (`cosigner_quorum`). Source: protocol, section 9.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from comity.trust.encoding import Digest, Json
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.offers.offer import Window, read_amounts
from comity.trust.offers.records import Acceptance, Grant, read_said, read_text
from comity.trust.statement import Author, Entry, Statement, Subject
from comity.trust.tlog.note import VerifierKey, verified_cosigners
from comity.trust.tlog.proof import TlogProof

USAGE: Final = "usage"
DEFAULTED: Final = "defaulted"


@dataclass(frozen=True, slots=True)
class Usage:
    """`usage`, by the provider's node: within `window` so much of each allocation of `grant` was used, in their order.

    Several of one grant add up. `amounts` count units of the offer's measure.
    """

    chain: Digest
    grant: Digest
    window: Window
    amounts: tuple[int, ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class DefaultAnswer:
    """`defaulted`, by the provider's node: what it has to say to the grantee's `defaulted` of line digest `default`."""

    chain: Digest
    grant: Digest
    default: Digest
    text: str


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """What a balance counts: hours of a measure, of one accelerator (empty for none)."""

    measure: str
    accelerator: str


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """A usage line of a known grant, with who lent and who borrowed (members), and the evidence: the line digests of
    the grant, of the usage, and of the grantee's agreement (None where there is none)."""

    lender: Digest
    borrower: Digest
    amounts: tuple[tuple[Unit, int], ...]
    grant: Digest
    usage: Digest
    agreement: Digest | None = None


@dataclass(frozen=True, slots=True)
class Balance:
    """What two members have lent one another of a unit: `first` < `second` by id.

    Attributes:
        lent, borrowed: by `first` to and from `second`, where the borrower has agreed.
        claimed: lent by either according to the lender alone: in nobody's net until it is agreed to.
        lines: the evidence of each.
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
        """How much more `first` has lent than borrowed; negative where it owes."""
        return self.lent - self.borrowed


def balances(used: Iterable[UsageRecord]) -> tuple[Balance, ...]:
    """A balance for each pair of members and unit, sorted. A usage line counts once, however often it is told; who
    lends to themselves owes nobody."""
    told: dict[Digest, UsageRecord] = {}
    for line in used:
        if line.lender != line.borrower and (line.usage not in told or told[line.usage].agreement is None):
            told[line.usage] = line
    kept: dict[tuple[Digest, Digest, Unit], list[UsageRecord]] = {}
    for line in told.values():
        first, second = sorted((line.lender, line.borrower))
        for unit in dict.fromkeys(unit for unit, _ in line.amounts):
            kept.setdefault((first, second, unit), []).append(line)
    return tuple(_balance(*key, lines) for key, lines in sorted(kept.items()))


def usage_statement(usage: Usage, node: Author) -> Statement:
    """What the provider's node signs. Raises Malformed for one that nobody could read back."""
    body: dict[str, Json] = {
        "grant": usage.grant,
        "window": usage.window.to_json(),
        "amounts": list(usage.amounts),
        "text": usage.text,
    }
    statement = Statement(USAGE, (Subject("offer", usage.chain),), node, body)
    if read_usage(statement) != usage:
        raise Malformed("usage is malformed", why="it cannot be read back as it was written")
    return statement


def read_usage(statement: Statement) -> Usage:
    """Raises Malformed."""
    chain = _chain(statement, USAGE)
    fields = statement.fields()
    grant, window = fields.digest("grant"), Window.read(fields.object("window"))
    usage = Usage(chain, grant, window, read_amounts(fields), read_text(fields))
    fields.done()
    return usage


def answer_statement(answer: DefaultAnswer, node: Author) -> Statement:
    """What the provider's node signs. Raises Malformed for one that nobody could read back."""
    body: dict[str, Json] = {"grant": answer.grant, "default": answer.default, "text": answer.text}
    statement = Statement(DEFAULTED, (Subject("offer", answer.chain),), node, body)
    if read_answer(statement) != answer:
        raise Malformed("answer is malformed", why="it cannot be read back as it was written")
    return statement


def read_answer(statement: Statement) -> DefaultAnswer:
    """Raises Malformed."""
    chain = _chain(statement, DEFAULTED)
    fields = statement.fields()
    answer = DefaultAnswer(chain, fields.digest("grant"), fields.digest("default"), read_text(fields))
    fields.done()
    return answer


def _chain(statement: Statement, predicate: str) -> Digest:
    """The sole subject of what a node says beside a chain."""
    if statement.predicate != predicate or statement.by is None or statement.by.kind != "node" or statement.objects:
        raise Malformed(f"{predicate} is malformed", why=f"not a {predicate} statement of a node")
    if statement.subjects != (Subject("offer", statement.sole_subject()),):
        raise Malformed(f"{predicate} is malformed", why="its subject is not called 'offer'")
    return statement.subject


def _balance(first: Digest, second: Digest, unit: Unit, lines: Iterable[UsageRecord]) -> Balance:
    totals = {"lent": 0, "borrowed": 0, "claimed": 0}
    kept = sorted(lines, key=lambda line: line.usage)
    for line in kept:
        amount = sum(amount for each, amount in line.amounts if each == unit)
        side = "claimed" if line.agreement is None else "lent" if line.lender == first else "borrowed"
        totals[side] += amount
    return Balance(first, second, unit, totals["lent"], totals["borrowed"], totals["claimed"], tuple(kept))


OVERBOOKED: Final = "overbooked"
"""More was given out than there is."""
FORKED: Final = "forked"
"""Two records have one number."""
BROKEN: Final = "broken"
"""A record that may not stand where it stands, or says wrongly what is left."""
UNANSWERED: Final = "unanswered"
"""A record answers a statement that does not stand before it in the log, or that says something else."""
FAULTS: Final = (OVERBOOKED, FORKED, BROKEN, UNANSWERED)

_AT_FAULT: Final = "the chain of an offer is at fault"
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


def kind_of(error: ComityError) -> str:
    """Which kind of fault an error stands for; empty for any other error."""
    return _KINDS.get(error.code, "")


_BEGINNING: Final = -1
"""Before every time that there is."""


class Profile:
    """A level for each instant, 0 until something is added. One step a boundary: a window with few granules stays small
    however much is added."""

    def __init__(self) -> None:
        self._times = [_BEGINNING]
        self._levels = [0]

    def add(self, start: int, end: int, nodes: int) -> None:
        """Raise the level by `nodes` (negative to lower it) from `start` up to `end`."""
        if start >= end or nodes == 0:
            return
        first, last = self._cut(start), self._cut(end)
        for step in range(first, last):
            self._levels[step] += nodes
        self._join(last)
        self._join(first)

    def peak(self, start: int, end: int) -> int:
        """The highest level from `start` up to `end`; 0 where nothing lies between."""
        if start >= end:
            return 0
        first = bisect_right(self._times, start) - 1
        return max(self._levels[first : bisect_left(self._times, end)])

    def steps(self) -> tuple[tuple[int, int], ...]:
        """Where the level changes, and to what, in order of time."""
        return tuple(zip(self._times[1:], self._levels[1:], strict=True))

    def _cut(self, time: int) -> int:
        """Make `time` a boundary; where its step stands."""
        at = bisect_left(self._times, time)
        if at == len(self._times) or self._times[at] != time:
            self._times.insert(at, time)
            self._levels.insert(at, self._levels[at - 1])
        return at

    def _join(self, at: int) -> None:
        """Forget a boundary at which nothing changes."""
        if at > 0 and self._levels[at] == self._levels[at - 1]:
            del self._times[at], self._levels[at]


def accepted_in_time(
    granted: Entry,
    grant: Grant,
    acceptance: Entry,
    proof: TlogProof,
    log: VerifierKey,
    cosigners: Mapping[Digest, Collection[VerifierKey]],
) -> frozenset[Digest]:
    """The members whose cosignatures show that `acceptance` stood in a log within the grant's deadline.

    Args:
        granted: the line that `grant` was read from.
        proof: of the acceptance, in any log.
        log: that log's key.
        cosigners: cosigner keys by member; those who are party to the grant are left out by the caller.

    Raises Malformed, and Untrusted where the acceptance is not of this grant or does not stand there. Not checked: the
    signatures on the two lines.
    """
    said = read_said(acceptance.statement)
    if not isinstance(said, Acceptance) or (said.by, said.grant) != (grant.grantee, granted.digest):
        raise Untrusted("not an acceptance of this grant", why="it is another's, or of another one", code="OFFER-STATE")
    checkpoint = proof.verify(acceptance.line, log)
    times = verified_cosigners(proof.checkpoint, (key for keys in cosigners.values() for key in keys), checkpoint)
    return frozenset(
        member for member, keys in cosigners.items() if any(0 < times.get(key, 0) <= grant.accept_by for key in keys)
    )
