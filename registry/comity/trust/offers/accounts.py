"""What was used, said by the provider's node and agreed to by the grantee; and what two members owe one another.

    usage      the node: so much of each allocation was used; the grantee's own `usage` (`parties`) agrees
    defaulted  the node's answer to a grantee who says that a grant was not honoured

Neither belongs to the chain: they change nothing of what is free. Hours of different accelerators are not comparable,
and nothing here turns one into the other: a balance is kept for each unit. Source: protocol, section 9.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest
from comity.trust.encoding import Json
from comity.trust.errors import Malformed
from comity.trust.offers.capacity import Window, read_amounts
from comity.trust.offers.records import read_text
from comity.trust.statement import Author, Statement, Subject

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
class Answer:
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
class Used:
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
    lines: tuple[Used, ...]

    @property
    def net(self) -> int:
        """How much more `first` has lent than borrowed; negative where it owes."""
        return self.lent - self.borrowed


def balances(used: Iterable[Used]) -> tuple[Balance, ...]:
    """A balance for each pair of members and unit, sorted. A usage line counts once, however often it is told; who
    lends to themselves owes nobody."""
    told: dict[Digest, Used] = {}
    for line in used:
        if line.lender != line.borrower and (line.usage not in told or told[line.usage].agreement is None):
            told[line.usage] = line
    kept: dict[tuple[Digest, Digest, Unit], list[Used]] = {}
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


def answer_statement(answer: Answer, node: Author) -> Statement:
    """What the provider's node signs. Raises Malformed for one that nobody could read back."""
    body: dict[str, Json] = {"grant": answer.grant, "default": answer.default, "text": answer.text}
    statement = Statement(DEFAULTED, (Subject("offer", answer.chain),), node, body)
    if read_answer(statement) != answer:
        raise Malformed("answer is malformed", why="it cannot be read back as it was written")
    return statement


def read_answer(statement: Statement) -> Answer:
    """Raises Malformed."""
    chain = _chain(statement, DEFAULTED)
    fields = statement.fields()
    answer = Answer(chain, fields.digest("grant"), fields.digest("default"), read_text(fields))
    fields.done()
    return answer


def _chain(statement: Statement, predicate: str) -> Digest:
    """The sole subject of what a node says beside a chain."""
    if statement.predicate != predicate or statement.by is None or statement.by.kind != "node" or statement.objects:
        raise Malformed(f"{predicate} is malformed", why=f"not a {predicate} statement of a node")
    if statement.subjects != (Subject("offer", statement.sole_subject()),):
        raise Malformed(f"{predicate} is malformed", why="its subject is not called 'offer'")
    return statement.subject


def _balance(first: Digest, second: Digest, unit: Unit, lines: Iterable[Used]) -> Balance:
    totals = {"lent": 0, "borrowed": 0, "claimed": 0}
    kept = sorted(lines, key=lambda line: line.usage)
    for line in kept:
        amount = sum(amount for each, amount in line.amounts if each == unit)
        side = "claimed" if line.agreement is None else "lent" if line.lender == first else "borrowed"
        totals[side] += amount
    return Balance(first, second, unit, totals["lent"], totals["borrowed"], totals["claimed"], tuple(kept))
