"""What this node's own log says of offers, as it stands in the transaction that appends to it.

Each record is made here, one a transaction: the book is brought up to the log's last entry, asked whether the record
may follow, and the record appended, before anybody else may write. The book only ever learns of what is committed, so
that a commit that fails, or a node that dies, leaves it right.


Statements of the other side that this node is to answer: found in whichever log they stand, proven, and carried into
its own, so that whoever has that log has the question beside the answer.

How a record comes into this node's log: made of the log as it stands, with the statement that it answers, once.

What an operator does with the node's own offers. One record a call, checked and appended in one transaction.

Everything may be done twice: the same request is granted once, the same redemption recorded once, and whoever asks
again is answered with what stands.


What happens to grants by itself: an acceptance is recorded, what is given back returns, and who does not accept in
time lapses. The clock is the node's; each step is one transaction, so that one who dies between two loses neither.

Who may have a statement about an offer logged here and is no operator: whoever this node's own offer invites.

An offer opens its own door: those whom it admits may ask for it, and a grantee may speak about its grant, whatever the
operator says about publishing. The inception of who asks may come along. That a statement is its author's is proven
afterwards, as for all lines, and only what stands in this log counts against anybody: what is said once, however many
copies of it come. What a grantee has to say about a grant has room of its own, which no request uses up. And nobody at
all, operators included, has a record of this node's own chains logged but the one who keeps its books.

    grows with                                        bound            charged to      at the bound
    unanswered requests of one identity for an offer  MAX_ASKED        that identity   OFFER-QUOTA
    those of all without a seat                       MAX_WAITING      all of them     OFFER-QUOTA until one is answered
    requests of those without a seat                  ASKING           who calls       RATE
    a grantee's statements of one kind about a grant  MAX_ABOUT        that identity   OFFER-QUOTA
    inception and rotations of who asks               MAX_INTRODUCED   that identity   OFFER-QUOTA


The parts that deal with offers, put together, and the one loop that keeps them up to date.

Compute offers at a node: those of others, read and checked as their logs are mirrored; and those of its own, granted
by the one writer of its log.

register   what all logs held here say of offers, with the faults of their chains
ours       what the node's own log says, inside the transaction that appends to it
allocator  what an operator does: post, approve, reject, redeem, release, answer
clock      what happens by itself: acceptances and returns are recorded, grants lapse
lines      statements of the other side: found in any log, proven, carried into this one
counter    who may have a request or an acceptance logged here and is no operator
search     which offers and grants match
accuser    chains at fault, said aloud
"""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Final, TypeAlias, TypeVar

import structlog

from comity.ledger.log_store import MAX_STRETCH, EntryQuery, OwnLogTransaction
from comity.node.authors import AuthorVerifier
from comity.node.charter.inbox import inception
from comity.node.context import NodeContext
from comity.node.offers.index import FaultPublisher, FaultyChain, OfferIndex
from comity.node.own_log import OwnLog
from comity.node.supervisor import Rhythm, Supervisor
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, OutOfSpace, Refused, Unavailable
from comity.trust.offers.amounts import DefaultAnswer, Usage, answer_statement, usage_statement
from comity.trust.offers.chain import (
    ACCEPTED,
    GRANTED,
    LAPSED,
    PREDICATES,
    RELEASED,
    ChainState,
    GrantState,
    OfferChain,
    OfferLogReader,
)
from comity.trust.offers.offer import Offer
from comity.trust.offers.records import (
    Acceptance,
    Accepted,
    ChainLink,
    CutOff,
    Default,
    GivingBack,
    Grant,
    GrantRequest,
    Lapsed,
    Offered,
    Record,
    Redeemed,
    Redemption,
    Rejected,
    Released,
    Said,
    Withdrawn,
    is_said,
    read_said,
    record_statement,
)
from comity.trust.statement import Author, Entry, Statement, parse_entry, sign_statement
from comity.wire.access import CALLER, Caller
from comity.wire.limits import Allowance, Throttle
from comity.wire.messages import LocatedEntry
from comity.wire.offer import Act, AnswerDefault, Approve, Post, Redeem, Reject, Release, UsageReport, Withdraw

Make: TypeAlias = "Callable[[OwnChains], Sequence[bytes]]"


class OwnChains:
    """The chains of this node's own offers. Thread-safe: one reads at a time."""

    def __init__(self, core: NodeContext) -> None:
        self._core = core
        self._node: Final[Author] = core.seat.record.node
        self._read = 0
        self._turn = Lock()
        self.log = OfferLogReader(core.log)

    def at(self, standing: OwnLogTransaction) -> OwnChains:
        """Read what was appended since. What stands in this log was proven when it was logged, and records of this
        node are made nowhere else."""
        with self._turn:
            while self._read < standing.size:
                end = min(standing.size, self._read + MAX_STRETCH)
                for index, line in standing.said(PREDICATES, self._read, end):
                    self._take(index, parse_entry(line))
                self._read = end
        return self

    def catch_up(self) -> None:
        """Read what stands, outside of any transaction: at a start a long log would keep others from appending."""
        ledger, log = self._core.ledger, self._core.log
        self.at(OwnLogTransaction(ledger.logs.get(log).size, partial(ledger.index.said, log)))

    def chain(self, offer: Digest) -> OfferChain:
        """The chain of an own offer, of any version. Raises NotFound (NO-OFFER)."""
        chain = self.log.chain_of(offer)
        if chain is None:
            raise no_offer(offer)
        return chain

    def sign(self, record: Record) -> bytes:
        """The line of a record, by this node's online key."""
        return self.seal(record_statement(record, self._node))

    def seal(self, statement: Statement) -> bytes:
        return sign_statement(statement, self._core.keys.online).line

    @property
    def node(self) -> Author:
        return self._node

    def missing(self, lines: Iterable[bytes]) -> list[bytes]:
        """Those of these lines, statements of identities, that do not stand in this log."""
        return [line for line in lines if parse_entry(line).digest not in self.log.said]

    def _take(self, index: int, entry: Entry) -> None:
        by = entry.statement.by
        self.log.read(index, entry, by is not None and (by.kind == "identity" or self._is_this_node(by)))

    def _is_this_node(self, by: Author) -> bool:
        record = self._core.membership.node(by)
        return record is not None and str(record.log) == self._core.log


def no_offer(offer: Digest) -> NotFound:
    return NotFound(
        "no such offer",
        why=f"no log held here makes the offer {offer}",
        hint="comity offer ls",
        code="NO-OFFER",
    )


@dataclass(frozen=True, slots=True)
class AuthorStatement:
    """A proven statement of an identity about an offer; `before` are lines that prove who it is, where this node's own
    log lacks them."""

    entry: Entry
    said: Said
    before: tuple[bytes, ...]


def hear(core: NodeContext, line: Digest) -> AuthorStatement:
    """The statement with this line digest, in the envelope in which this node's own log has it, if it has. Blocking.

    Raises NotFound (NO-STATEMENT, UNKNOWN-IDENTITY), Malformed, and Untrusted where it is not its author's.
    """
    entry = _as_logged_here(core, _find(core, line))
    if not is_said(entry.statement):
        raise _missing(f"{line} is no statement of an identity about an offer")
    said = read_said(entry.statement)
    AuthorVerifier(core).prove(entry)
    return AuthorStatement(entry, said, _introduction(core, said.by))


def _find(core: NodeContext, line: Digest) -> Entry:
    for place in core.ledger.index.places(line):
        return parse_entry(core.ledger.history.entry(place.vkey, place.index))
    raise _missing(f"no log held here has the line {line}")


def _as_logged_here(core: NodeContext, entry: Entry) -> Entry:
    """The entry of the own log that says the same. Its author can sign one statement in many envelopes, and a record
    that answered another one than the log has would be about a line that no reader of the log finds."""
    index = core.ledger.index.first(core.log, entry.statement_digest)
    return entry if index is None else parse_entry(core.ledger.history.entry(core.log, index))


def _introduction(core: NodeContext, identity: Digest) -> tuple[bytes, ...]:
    """The inception of who has no seat: members are known by the charter."""
    if core.membership.chains(identity):
        return ()
    found = inception(core.ledger, identity)
    if found is None or core.ledger.index.first(core.log, found[1].statement_digest) is not None:
        return ()
    return (found[1].line,)


def _missing(why: str) -> NotFound:
    return NotFound(
        "no such statement",
        why=why,
        hint="submit its line here first, or wait until the log that has it is mirrored",
        code="NO-STATEMENT",
    )


Made: TypeAlias = "Sequence[bytes] | int"
"""Lines to append; or the index of the entry that stands for them already."""
MakeRecord: TypeAlias = "Callable[[ChainLink, GrantState], Record]"

_log: Final = structlog.get_logger("comity.node.offers")


class RecordWriter:
    """Writes records of this node's own chains, one a transaction."""

    def __init__(self, core: NodeContext, own_log: OwnLog) -> None:
        self._core = core
        self._own_log = own_log
        self._ours = OwnChains(core)

    async def write(self, make: Callable[[OwnChains], Made]) -> tuple[LocatedEntry, ...]:
        """What now stands. What `make` raises is raised here, and nothing was written then."""
        standing_already: list[int] = []

        def lines(standing: OwnLogTransaction) -> Sequence[bytes]:
            made = make(self._ours.at(standing))
            if isinstance(made, int):
                standing_already.append(made)
                return []
            return made

        await self._core.pools.ledger(self._ours.catch_up)
        written = await self._own_log.compose(lines)
        for index in standing_already:
            written.append(
                (index, await self._core.pools.ledger(self._core.ledger.history.entry, self._core.log, index))
            )
        if not standing_already:
            for index, line in written:
                _log.info("logged", index=index, line=sha256(line))
        return tuple(LocatedEntry(self._core.origin, index, line) for index, line in written)

    async def answer(
        self, heard: AuthorStatement, grant: Digest, make: MakeRecord, *others: AuthorStatement
    ) -> tuple[LocatedEntry, ...]:
        """Record what answers the grantee's statement about a grant, once."""

        def lines(ours: OwnChains) -> Made:
            chain, held = held_by(ours, grant)
            if (record := chain.book.answers.get(heard.entry.digest)) is not None:
                return index_of(chain, record)
            if heard.said.by != held.grant.grantee:
                why = "it is not signed by the identity to which the grant was given"
                raise Refused("not the grantee", why=why, code="OFFER-ELIGIBILITY")
            record_line = ours.sign(self.linked(chain.book, make(to(chain), held)))
            return [*carried(ours, heard, *others), record_line]

        return await self.write(lines)

    async def record(self, grant: Digest, state: str, make: MakeRecord) -> tuple[LocatedEntry, ...]:
        """Record what happens to a grant without a word of its grantee, and leaves it in `state`, once."""

        def lines(ours: OwnChains) -> Made:
            chain, held = held_by(ours, grant)
            if held.state == state:
                return index_of(chain, held.newest)
            return [ours.sign(self.linked(chain.book, make(to(chain), held)))]

        return await self.write(lines)

    async def hear(self, line: Digest) -> AuthorStatement:
        """As `lines.hear`."""
        return await self._core.pools.ledger(hear, self._core, line)

    def linked(self, book: ChainState, record: Record) -> Record:
        """The record as the next of its chain. Raises Refused."""
        return book.next(record, int(self._core.clock()))

    def now(self, book: ChainState) -> int:
        """The time that the next record of a chain will bear."""
        return max(int(self._core.clock()), book.at)


def carried(ours: OwnChains, *heard: AuthorStatement) -> list[bytes]:
    """Statements that this log lacks, after what proves whose they are."""
    before = [line for item in heard for line in item.before]
    return list(dict.fromkeys((*before, *ours.missing(item.entry.line for item in heard))))


def held_by(ours: OwnChains, grant: Digest) -> tuple[OfferChain, GrantState]:
    """A grant of this node. Raises Refused (OFFER-STATE)."""
    chain = ours.log.chain_granting(grant)
    if chain is None:
        raise Refused("no such grant", why=f"this node's log grants no {grant}", code="OFFER-STATE")
    return chain, chain.book.grants[grant]


def index_of(chain: OfferChain, record: Digest) -> int:
    """Where a record stands in the log."""
    return chain.indexes[chain.book.number(record)]


def to(chain: OfferChain) -> ChainLink:
    """A link that the book will make the next one."""
    return ChainLink(chain.book.chain, 0, None, 0, ())


MAX_TRIED: Final = 8
"""Statements that are looked at where some may be forged: those that were proven when they were read come first."""

_S = TypeVar("_S")


class OfferProvider:
    """The one writer of this node's chains."""

    def __init__(self, core: NodeContext, pen: RecordWriter, register: OfferIndex) -> None:
        self._core = core
        self._pen = pen
        self._register = register

    async def do(self, act: Act) -> tuple[LocatedEntry, ...]:
        """The lines that now stand for it, the record last.

        Raises NotFound, Refused, Untrusted, Malformed, Conflict: which codes, each act says.
        """
        if isinstance(act, Post):
            return await self.post(Offer.parse(act.document))
        if isinstance(act, Withdraw):
            return await self.withdraw(act.offer, act.text)
        if isinstance(act, Approve):
            return await self.approve(act)
        if isinstance(act, Reject):
            return await self.reject(act.request, act.text)
        if isinstance(act, Redeem):
            return await self.redeem(act.redemption)
        if isinstance(act, Release):
            return await self.release(act.grant)
        if isinstance(act, AnswerDefault):
            return await self.answer(act)
        return await self.report(act)

    async def post(self, offer: Offer) -> tuple[LocatedEntry, ...]:
        """Raises Refused (OFFER-ELSEWHERE) for an offer that names another provider or log."""
        if (offer.provider, offer.log) != (self._core.seat.inception.id, self._core.log):
            raise Refused(
                "this node does not make that offer",
                why="the offer names another provider, or another log that may grant it",
                hint=f"its provider is {self._core.seat.inception.id}, its log {self._core.log}",
                code="OFFER-ELSEWHERE",
            )

        def make(ours: OwnChains) -> Made:
            known = ours.log.chain_of(offer.id)
            if known is not None:
                return known.offered[[each.id for each in known.book.offers].index(offer.id)]
            chain = ours.chain(offer.supersedes) if offer.supersedes else OfferChain(ChainState(offer.id))
            return [ours.sign(self._pen.linked(chain.book, Offered(to(chain), offer)))]

        return await self._pen.write(make)

    async def withdraw(self, offer: Digest, text: str) -> tuple[LocatedEntry, ...]:
        """Grant no more. Raises NotFound (NO-OFFER)."""

        def make(ours: OwnChains) -> Made:
            chain = ours.chain(offer)
            if chain.book.withdrawal is not None:
                return index_of(chain, chain.book.withdrawal)
            return [ours.sign(self._pen.linked(chain.book, Withdrawn(to(chain), text)))]

        return await self._pen.write(make)

    async def approve(self, act: Approve) -> tuple[LocatedEntry, ...]:
        """Grant a request. Raises Refused (OFFER-CAPACITY, OFFER-STATE, OFFER-FULL, OFFER-ELIGIBILITY), and Conflict
        (OFFER-ANSWERED) where it was rejected."""
        heard = await self._pen.hear(act.request)
        request = _expect(heard, GrantRequest)
        seat = self._core.membership.member(request.by)

        def make(ours: OwnChains) -> Made:
            chain = ours.chain(request.offer)
            if (record := _answer(ours, chain, heard)) is not None:
                if record not in chain.book.grants:
                    raise Conflict("the request was rejected", hint="have it asked anew", code="OFFER-ANSWERED")
                return index_of(chain, record)
            offer = _in_force(chain, request)
            if not offer.eligibility.admits(request.by, seat.jurisdiction if seat else None):
                why = f"{request.by} is not among those to whom it was offered"
                raise Refused("not eligible", why=why, code="OFFER-ELIGIBILITY")
            wanted, until = act.allocations or request.allocations, self._pen.now(chain.book) + offer.accept_seconds
            grant = Grant(to(chain), heard.entry.digest, request.by, wanted, until, request.pact)
            return [*carried(ours, heard), ours.sign(self._pen.linked(chain.book, grant))]

        return await self._pen.write(make)

    async def reject(self, line: Digest, text: str) -> tuple[LocatedEntry, ...]:
        """Say no to a request. Raises Conflict (OFFER-ANSWERED) where it was granted."""
        heard = await self._pen.hear(line)
        request = _expect(heard, GrantRequest)

        def make(ours: OwnChains) -> Made:
            chain = ours.chain(request.offer)
            if (record := _answer(ours, chain, heard)) is not None:
                if record in chain.book.grants:
                    hint = "a grant that nobody accepts lapses by itself"
                    raise Conflict("the request was granted", hint=hint, code="OFFER-ANSWERED")
                return index_of(chain, record)
            rejected = Rejected(to(chain), heard.entry.digest, text)
            return [*carried(ours, heard), ours.sign(self._pen.linked(chain.book, rejected))]

        return await self._pen.write(make)

    async def accept(self, acceptance: Digest) -> tuple[LocatedEntry, ...]:
        """Record a grantee's `accepted`. Nobody decides about it."""
        heard = await self._pen.hear(acceptance)
        said = _expect(heard, Acceptance)
        return await self._pen.answer(
            heard, said.grant, lambda link, held: Accepted(link, held.digest, heard.entry.digest)
        )

    async def redeem(self, redemption: Digest) -> tuple[LocatedEntry, ...]:
        """Record that so much is handed over, as the holder asks. Raises Refused (OFFER-STATE): for more than there is,
        after another redemption, or of a pact whose beneficiary has not declared a cut-off."""
        heard = await self._pen.hear(redemption)
        said = _expect(heard, Redemption)
        cut_off = await self._said(
            said.grant, lambda other: isinstance(other, CutOff) and other.by == said.by and not other.drill
        )

        def make(link: ChainLink, held: GrantState) -> Record:
            if said.after != held.newest:
                raise Refused(
                    "this redemption is not for now",
                    why="it was signed before the newest record about the grant, or for another one",
                    hint=f"have it signed anew, after {held.newest}",
                    code="OFFER-STATE",
                )
            declared = cut_off.entry.digest if cut_off and held.grant.pact else None
            return Redeemed(link, held.digest, heard.entry.digest, said.amounts, declared)

        return await self._pen.answer(heard, said.grant, make, *((cut_off,) if cut_off else ()))

    async def release(self, grant: Digest) -> tuple[LocatedEntry, ...]:
        """Take back what was not redeemed: on the grantee's word where there is one, else after the end."""
        heard = await self._said(grant, lambda said: isinstance(said, GivingBack))
        if heard is None:
            return await self._pen.record(grant, RELEASED, lambda link, held: Released(link, held.digest))
        return await self._pen.answer(heard, grant, lambda link, held: Released(link, held.digest, heard.entry.digest))

    async def lapse(self, grant: Digest) -> tuple[LocatedEntry, ...]:
        """Record that nobody accepted in time."""
        return await self._pen.record(grant, LAPSED, lambda link, held: Lapsed(link, held.digest))

    async def answer(self, act: AnswerDefault) -> tuple[LocatedEntry, ...]:
        """Say what the provider has to say to a grantee's `defaulted`."""
        heard = await self._pen.hear(act.default)
        said = _expect(heard, Default)

        def make(ours: OwnChains) -> Made:
            chain, held = held_by(ours, said.grant)
            answer = DefaultAnswer(chain.book.chain, held.digest, heard.entry.digest, act.text)
            same = next((stated.index for stated in chain.stated if stated.said == answer), None)
            if same is not None:
                return same
            return [*carried(ours, heard), ours.seal(answer_statement(answer, ours.node))]

        return await self._pen.write(make)

    async def report(self, act: UsageReport) -> tuple[LocatedEntry, ...]:
        """Say what was used. Raises Refused (OFFER-STATE) for more than was redeemed."""

        def make(ours: OwnChains) -> Made:
            chain, held = held_by(ours, act.grant)
            usage = Usage(chain.book.chain, held.digest, act.window, act.amounts, act.text)
            said = {stated.said: stated.index for stated in chain.stated if isinstance(stated.said, Usage)}
            if usage in said:
                return said[usage]
            _require_redeemed(held, [*(other for other in said if other.grant == held.digest), usage])
            return [ours.seal(usage_statement(usage, ours.node))]

        return await self._pen.write(make)

    async def _said(self, grant: Digest, wanted: Callable[[Said], bool]) -> AuthorStatement | None:
        """What somebody said of a grant, in whichever log it stands, where it can be proven now."""
        told = [item.stated for item in self._register.about(grant) if wanted(item.stated.said)]  # type: ignore[arg-type]
        for stated in sorted(told, key=lambda stated: not stated.proven)[:MAX_TRIED]:
            with suppress(ComityError):
                return await self._pen.hear(stated.line)
        return None


def _expect(heard: AuthorStatement, kind: type[_S]) -> _S:
    if not isinstance(heard.said, kind):
        raise Malformed("not that kind of statement", why=f"the line is a {heard.entry.statement.predicate}")
    return heard.said


def _answer(ours: OwnChains, chain: OfferChain, heard: AuthorStatement) -> Digest | None:
    """The record that answers a request: this line, or the same request signed again."""
    if (record := chain.book.answers.get(heard.entry.digest)) is not None:
        return record
    same = (line for line in chain.book.answers if (known := ours.log.said.get(line)) and known.said == heard.said)
    return next((chain.book.answers[line] for line in same), None)


def _in_force(chain: OfferChain, request: GrantRequest) -> Offer:
    """Raises Refused (OFFER-STATE) for a request that asks for an older version."""
    offer = chain.book.offer
    if request.offer != offer.id:
        hint = f"have the offer in force asked for: {offer.id}"
        raise Refused("the offer was superseded", why="the request asks for what was", hint=hint, code="OFFER-STATE")
    return offer


def _require_redeemed(held: GrantState, usages: list[Usage]) -> None:
    if any(len(usage.amounts) != len(held.redeemed) for usage in usages):
        raise Malformed("not this grant's usage", why=f"it has {len(held.redeemed)} allocations")
    totals = [sum(parts) for parts in zip(*(usage.amounts for usage in usages), strict=True)]
    if any(total > redeemed for total, redeemed in zip(totals, held.redeemed, strict=True)):
        why = f"{', '.join(map(str, totals))} of {', '.join(map(str, held.redeemed))}"
        raise Refused("more was used than redeemed", why=why, code="OFFER-STATE")


A_TURN: Final = 64
"""Records that are made in one turn."""
PUT_OFF: Final = 60.0
"""Seconds after which a statement that did not hold is looked at again."""
MAX_PUT_OFF: Final = 10_000


class OfferClock:
    """Looks at every open grant of this node. Touched by the event loop only."""

    def __init__(self, core: NodeContext, allocator: OfferProvider, register: OfferIndex) -> None:
        self._core = core
        self._allocator = allocator
        self._register = register
        self._later: dict[Digest, float] = {}

    async def turn(self) -> bool:
        """Record what is due, as far as the register has read; whether there may be more."""
        due = list(self._due())
        for grant, statement in due[:A_TURN]:
            try:
                await self._record(grant, statement)
            except (OutOfSpace, Unavailable):
                raise
            except ComityError as error:  # one statement that does not hold keeps no other grant waiting
                _log.warning("not recorded", grant=grant.digest, why=str(error), code=error.code)
                if statement is not None:
                    self._put_off(statement)
        return len(due) > A_TURN

    async def _record(self, grant: GrantState, statement: Digest | None) -> None:
        if grant.state == ACCEPTED:
            await self._allocator.release(grant.digest)
        elif statement is not None:
            await self._allocator.accept(statement)
        else:
            await self._allocator.lapse(grant.digest)

    def _due(self) -> list[tuple[GrantState, Digest | None]]:
        """Open grants about which something is to be recorded, and the grantee's statement where there is one."""
        now = int(self._core.clock())
        due: list[tuple[GrantState, Digest | None]] = []
        for chain in self._register.own.chains.values():
            for held in (chain.book.grants[digest] for digest in chain.book.open):
                statement = self._said(held, Acceptance if held.state == GRANTED else GivingBack)
                if statement is not None or (held.state == GRANTED and now > held.grant.accept_by):
                    due.append((held, statement))
        return due

    def _said(self, held: GrantState, kind: type[Said]) -> Digest | None:
        """The grantee's own statement of this kind about a grant, in whichever log it stands."""
        now = self._core.clock()
        said = [
            told.stated
            for told in self._register.about(held.digest)
            if isinstance(told.stated.said, kind)
            and told.stated.said.by == held.grant.grantee
            and self._later.get(told.stated.line, 0) <= now
        ]
        return min(said, key=lambda stated: not stated.proven).line if said else None

    def _put_off(self, statement: Digest) -> None:
        """What does not hold now may later, when its author's new keys are known here."""
        if len(self._later) >= MAX_PUT_OFF:
            self._later.clear()
        self._later[statement] = self._core.clock() + PUT_OFF


MAX_ASKED: Final = 16
MAX_WAITING: Final = 256
MAX_ABOUT: Final = 64
MAX_INTRODUCED: Final = 8
INTRODUCTIONS: Final = ("inception", "rotated")
ASKING: Final = Allowance(calls_per_second=1 / 60, burst=32)
"""How many requests of identities without a seat one caller hands in: anybody can make identities."""


class OfferAdmission:
    """Says which entries are words about this node's offers that may be logged. Touched by the event loop only."""

    def __init__(self, core: NodeContext, register: OfferIndex, clock: Callable[[], float] = time.monotonic) -> None:
        self._core = core
        self._register = register
        self._asking = Throttle(ASKING, clock)

    def refuse_records(self, entries: Iterable[Entry]) -> None:
        """Raises Refused (OFFER-CHAIN) for what this node says of its own offers, and did not make itself just now."""
        for entry in entries:
            by = entry.statement.by
            if by is None or by.kind != "node" or entry.statement.predicate not in PREDICATES:
                continue
            record = self._core.membership.node(by)
            if record is not None and str(record.log) == self._core.log:
                raise Refused(
                    "this node's offers are not written by hand",
                    why="a record counts only where the node checked it against everything granted before",
                    code="OFFER-CHAIN",
                )

    async def granted(self, entries: Iterable[Entry]) -> frozenset[Digest]:
        """Digests of the entries that need no other permission. Raises OutOfSpace (OFFER-QUOTA), Refused (RATE)."""
        entries = [entry for entry in entries if entry.statement.by is not None]
        if any(is_said(entry.statement) for entry in entries):
            await self._register.read_own()
        invited: dict[Digest, set[Digest]] = {}
        coming: dict[Said, None] = {}
        for entry in entries:
            said = _read(entry)
            if said is not None and self._invites(said):
                if said not in coming and not self._stands(said):
                    self._require_room(said, coming)
                    coming[said] = None
                invited.setdefault(said.by, set()).add(entry.digest)
        more: Counts[tuple[Digest, str]] = Counts()
        for entry in entries:
            by = entry.statement.by
            if by is not None and by.id in invited and entry.statement.predicate in INTRODUCTIONS:
                await self._require_few(entry, more)
                invited[by.id].add(entry.digest)
        return frozenset(digest for digests in invited.values() for digest in digests)

    def _invites(self, said: Said) -> bool:
        if isinstance(said, GrantRequest):
            chain = self._register.own.chain_of(said.offer)
            if chain is None or chain.book.withdrawn:
                return False
            seat = self._core.membership.member(said.by)
            return chain.book.offer.eligibility.admits(said.by, seat.jurisdiction if seat else None)
        chain = self._register.own.chain_granting(said.grant)
        return chain is not None and chain.book.grants[said.grant].grant.grantee == said.by

    def _stands(self, said: Said) -> bool:
        """Whether it stands in this log already, in whatever envelope."""
        return any(other == said for other in self._alike(said))

    def _alike(self, said: Said) -> Iterator[Said]:
        """What this log says of the same offer, or of the same kind about the same grant."""
        if isinstance(said, GrantRequest):
            found = self._register.requests((said.offer,))
        else:
            found = self._register.about(said.grant)
        for told in found:
            other = told.stated.said
            if told.stated.line in self._register.own.said and isinstance(other, Said) and type(other) is type(said):
                yield other

    def _require_room(self, said: Said, coming: Iterable[Said]) -> None:
        if isinstance(said, GrantRequest):
            chain = self._register.own.chain_of(said.offer)
            assert chain is not None  # it invites
            self._require_room_to_ask(said, {*self._waiting(chain), *_requests(coming, chain)})
            return
        told = {other for other in (*self._alike(said), *coming) if type(other) is type(said) and other.by == said.by}
        if sum(not isinstance(other, GrantRequest) and other.grant == said.grant for other in told) >= MAX_ABOUT:
            raise _full(f"{MAX_ABOUT} such statements of the grantee about this grant are logged here")

    def _require_room_to_ask(self, request: GrantRequest, waiting: set[GrantRequest]) -> None:
        if sum(other.by == request.by for other in waiting) >= MAX_ASKED:
            raise _full(f"{MAX_ASKED} requests of this identity wait for this offer")
        if self._core.membership.member(request.by) is not None:
            return
        if sum(self._core.membership.member(other.by) is None for other in waiting) >= MAX_WAITING:
            raise _full(f"{MAX_WAITING} requests wait for this offer")
        with self._asking.call(CALLER.get(Caller("elsewhere")).name):
            pass

    def _waiting(self, chain: OfferChain) -> Iterator[GrantRequest]:
        """Requests in this log for an offer, of any version, that nobody has answered."""
        for told in self._register.requests(offer.id for offer in chain.book.offers):
            line, said = told.stated.line, told.stated.said
            if isinstance(said, GrantRequest) and line in self._register.own.said and line not in chain.book.answers:
                yield said

    async def _require_few(self, entry: Entry, more: Counts[tuple[Digest, str]]) -> None:
        by = entry.statement.by
        assert by is not None
        if self._core.membership.member(by.id) is not None:
            return
        key = by.id, entry.statement.predicate
        stands = await self._core.pools.ledger(self._introduced, *key)
        if entry.statement_digest not in stands:
            if len(stands) + more[key] >= MAX_INTRODUCED:
                raise _full(f"{len(stands)} {entry.statement.predicate} lines of this identity are logged here")
            more[key] += 1

    def _introduced(self, identity: Digest, predicate: str) -> set[Digest]:
        """Blocking. The statements that say who an identity is and stand in this log."""
        mine = EntryQuery(predicate=predicate, by=identity, origin=self._core.log)
        found = self._core.ledger.index.find(mine, limit=MAX_INTRODUCED)
        return {parse_entry(item.line).statement_digest for item in found}


def _requests(said: Iterable[Said], chain: OfferChain) -> Iterator[GrantRequest]:
    offers = {offer.id for offer in chain.book.offers}
    return (other for other in said if isinstance(other, GrantRequest) and other.offer in offers)


def _read(entry: Entry) -> Said | None:
    if not is_said(entry.statement):
        return None
    try:
        return read_said(entry.statement)
    except Malformed:
        return None


def _full(why: str) -> OutOfSpace:
    hint = "ask the operator of this node, or have the statement logged elsewhere: it counts in any log"
    return OutOfSpace("enough was asked here", why=why, hint=hint, code="OFFER-QUOTA")


OFFERS = "offers"
DEADLINE = 600.0
"""Seconds for one step."""


class OfferService:
    """Everything about offers at this node."""

    def __init__(self, core: NodeContext, own_log: OwnLog, supervisor: Supervisor) -> None:
        self._core = core
        self._supervisor = supervisor
        self.register = OfferIndex(core)
        self.allocator = OfferProvider(core, RecordWriter(core, own_log), self.register)
        self.counter = OfferAdmission(core, self.register)
        self._clock = OfferClock(core, self.allocator, self.register)
        self._accuser = FaultPublisher(core, own_log)
        self._to_accuse: list[FaultyChain] = []

    def begin(self) -> None:
        rhythm = Rhythm(max(1.0, self._core.config.replication.interval_seconds), DEADLINE)
        self._supervisor.loop(OFFERS, self._step, rhythm)

    def look(self) -> None:
        """Some log has grown."""
        self._supervisor.ring(OFFERS)

    async def _step(self) -> None:
        behind = await self.register.read()
        self._to_accuse += self.register.newly_convicted()
        while self._to_accuse:
            await self._accuser.accuse(self._to_accuse[0])
            del self._to_accuse[0]
        if behind or await self._clock.turn():
            self.look()
