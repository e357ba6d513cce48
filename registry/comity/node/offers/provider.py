"""Compute offers at a node: actions on its own offers, and grants.

`OwnChains` is the state of the node's own chains inside the transaction that appends to its log. `RecordWriter` writes
one record a transaction: it reads the log to its last entry, checks the record, and appends it. The state only includes
committed entries, so it stays correct after a failed commit or a crash. A statement that a record answers is searched
in all logs, checked, and copied into the own log before the record. `OfferProvider` performs the operator's actions.
Every action is safe to repeat: a repeated call returns the existing entry. `GrantReconciler` records acceptances,
releases and lapses by itself, by the node's clock, one transaction a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Final, TypeAlias, TypeVar

import structlog

from comity.ledger.ledger import Ledger
from comity.ledger.log_store import MAX_LINES, OwnLogTransaction
from comity.node.authors import AuthorVerifier
from comity.node.charter.inbox import find_inception
from comity.node.home import OpenedHome
from comity.node.keys import NodeSigner
from comity.node.members import Membership
from comity.node.offers.admission import OfferAdmission
from comity.node.offers.index import FaultPublisher, FaultyChain, OfferIndex
from comity.node.own_log import Compose, OwnLog
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Clock
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
    PartyStatement,
    Record,
    Redeemed,
    Redemption,
    Rejected,
    Released,
    Withdrawn,
    is_party_statement,
    read_party_statement,
    record_statement,
)
from comity.trust.statement import Author, Entry, Statement, parse_entry, sign_statement
from comity.wire.messages import LocatedEntry
from comity.wire.offer import AnswerDefault, Approve, OfferAction, Post, Redeem, Reject, Release, UsageReport, Withdraw


class OwnChains:
    """The chains of this node's own offers. Thread-safe."""

    def __init__(self, ledger: AsyncLedger, membership: Membership, signer: NodeSigner) -> None:
        self._ledger = ledger
        self._membership = membership
        self._signer = signer
        self._node: Final[Author] = signer.record.node
        self._position = 0
        self._lock = Lock()
        self.log = OfferLogReader(membership.seat.log)

    def refresh(self, transaction: OwnLogTransaction) -> OwnChains:
        """Read the entries that were appended since the last call. Entries of this log were verified when they were
        logged, and only this node writes records of its chains."""
        with self._lock:
            while self._position < transaction.size:
                end = min(transaction.size, self._position + MAX_LINES)
                for index, line in transaction.entries_with(PREDICATES, self._position, end):
                    self._add(index, parse_entry(line))
                self._position = end
        return self

    def catch_up(self) -> None:
        """Read the log outside of a transaction, so that a long log does not block other writers at a start."""
        ledger, log = self._ledger.tables, self._membership.seat.log
        self.refresh(OwnLogTransaction(ledger.logs.get(log).size, partial(ledger.index.entries_with, log)))

    def chain(self, offer: Digest) -> OfferChain:
        """The chain of an own offer, of any version. Raises NotFound (NO-OFFER)."""
        chain = self.log.chain_of(offer)
        if chain is None:
            raise no_offer(offer)
        return chain

    def sign_record(self, record: Record) -> bytes:
        """The line of a record, signed with this node's online key."""
        return self.sign(record_statement(record, self._node))

    def sign(self, statement: Statement) -> bytes:
        """The line of a statement, signed with this node's online key."""
        return sign_statement(statement, self._signer.online).line

    @property
    def node(self) -> Author:
        return self._node

    def missing(self, lines: Iterable[bytes]) -> list[bytes]:
        """Those of these lines (statements of identities) that are not in this log."""
        return [line for line in lines if parse_entry(line).digest not in self.log.statements]

    def _add(self, index: int, entry: Entry) -> None:
        by = entry.statement.by
        self.log.read(index, entry, by is not None and (by.kind == "identity" or self._is_this_node(by)))

    def _is_this_node(self, by: Author) -> bool:
        record = self._membership.node(by)
        return record is not None and str(record.log) == self._membership.seat.log


def no_offer(offer: Digest) -> NotFound:
    return NotFound(
        "no such offer",
        why=f"no log at this node contains the offer {offer}",
        hint="comity offer ls",
        code="NO-OFFER",
    )


@dataclass(frozen=True, slots=True)
class ProvenStatement:
    """A verified statement of an identity about an offer. `introduction`: lines that prove the keys of the identity and
    are missing in this node's own log."""

    entry: Entry
    content: PartyStatement
    introduction: tuple[bytes, ...]


def load_statement(ledger: Ledger, membership: Membership, line: Digest) -> ProvenStatement:
    """The statement with this line digest, from any log, in the envelope of the node's own log if it has one. Blocking.

    Raises NotFound (NO-STATEMENT, UNKNOWN-IDENTITY), Malformed, and Untrusted if its author did not sign it.
    """
    entry = _own_envelope(ledger, membership.seat.log, _find(ledger, line))
    if not is_party_statement(entry.statement):
        raise _no_statement(f"{line} is not a statement of an identity about an offer")
    content = read_party_statement(entry.statement)
    AuthorVerifier(ledger, membership).verify(entry)
    return ProvenStatement(entry, content, _introduction(ledger, membership, content.by))


def _find(ledger: Ledger, line: Digest) -> Entry:
    for place in ledger.index.positions(line):
        return parse_entry(ledger.history.entry(place.vkey, place.index))
    raise _no_statement(f"no log at this node contains the line {line}")


def _own_envelope(ledger: Ledger, own_log: str, entry: Entry) -> Entry:
    """The entry of the own log with the same statement. An author can sign one statement in several envelopes. A record
    must name the line that the log contains, because readers of the log find no other."""
    index = ledger.index.first_index(own_log, entry.statement_digest)
    return entry if index is None else parse_entry(ledger.history.entry(own_log, index))


def _introduction(ledger: Ledger, membership: Membership, identity: Digest) -> tuple[bytes, ...]:
    """The inception of an identity without a seat; the charter proves the keys of members."""
    if membership.chains(identity):
        return ()
    found = find_inception(ledger, identity)
    if found is None or ledger.index.first_index(membership.seat.log, found[1].statement_digest) is not None:
        return ()
    return (found[1].line,)


def _no_statement(why: str) -> NotFound:
    return NotFound(
        "no such statement",
        why=why,
        hint="submit its line to this node, or wait until the log that contains it is mirrored",
        code="NO-STATEMENT",
    )


Made: TypeAlias = "Sequence[bytes] | int"
"""Lines to append, or the index of the existing entry if the record was already written."""
MakeRecord: TypeAlias = "Callable[[ChainLink, GrantState], Record]"

_log: Final = structlog.get_logger("comity.node.offers")


class RecordWriter:
    """Writes records of this node's own chains, one record a transaction."""

    def __init__(
        self, ledger: AsyncLedger, membership: Membership, signer: NodeSigner, clock: Clock, compose: Compose
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._clock = clock
        self._compose = compose
        self._own = OwnChains(ledger, membership, signer)

    async def write(self, make: Callable[[OwnChains], Made]) -> tuple[LocatedEntry, ...]:
        """Append the lines that `make` returns; returns the entries. If `make` raises, nothing is written."""
        existing: list[int] = []

        def lines(transaction: OwnLogTransaction) -> Sequence[bytes]:
            made = make(self._own.refresh(transaction))
            if isinstance(made, int):
                existing.append(made)
                return []
            return made

        await self._ledger.run(self._own.catch_up)
        written = await self._compose(lines)
        for index in existing:
            written.append(
                (index, await self._ledger.run(self._ledger.tables.history.entry, self._membership.seat.log, index))
            )
        if not existing:
            for index, line in written:
                _log.info("offer record logged", index=index, line=sha256(line))
        return tuple(LocatedEntry(self._membership.seat.record.origin, index, line) for index, line in written)

    async def answer(
        self, statement: ProvenStatement, grant: Digest, make: MakeRecord, *others: ProvenStatement
    ) -> tuple[LocatedEntry, ...]:
        """Write the record that answers the grantee's statement about a grant, once."""

        def lines(own: OwnChains) -> Made:
            chain, grant_state = find_grant(own, grant)
            if (record := chain.state.answers.get(statement.entry.digest)) is not None:
                return index_of(chain, record)
            if statement.content.by != grant_state.grant.grantee:
                why = "the statement is not signed by the grantee"
                raise Refused("not the grantee", why=why, code="OFFER-ELIGIBILITY")
            record_line = own.sign_record(self.linked(chain.state, make(unlinked(chain), grant_state)))
            return [*missing_lines(own, statement, *others), record_line]

        return await self.write(lines)

    async def record(self, grant: Digest, state: str, make: MakeRecord) -> tuple[LocatedEntry, ...]:
        """Write a record that needs no statement of the grantee and leaves the grant in `state`, once."""

        def lines(own: OwnChains) -> Made:
            chain, grant_state = find_grant(own, grant)
            if grant_state.state == state:
                return index_of(chain, grant_state.newest)
            return [own.sign_record(self.linked(chain.state, make(unlinked(chain), grant_state)))]

        return await self.write(lines)

    async def load_statement(self, line: Digest) -> ProvenStatement:
        """As the function `load_statement`, in a thread."""
        return await self._ledger.run(load_statement, self._ledger.tables, self._membership, line)

    def linked(self, state: ChainState, record: Record) -> Record:
        """The record, linked as the next one of its chain. Raises Refused."""
        return state.link(record, int(self._clock()))

    def now(self, state: ChainState) -> int:
        """The time of the next record of a chain, POSIX seconds."""
        return max(int(self._clock()), state.at)


def missing_lines(own: OwnChains, *statements: ProvenStatement) -> list[bytes]:
    """The lines of these statements that are missing in the own log, after the lines that prove their keys."""
    introductions = [line for item in statements for line in item.introduction]
    return list(dict.fromkeys((*introductions, *own.missing(item.entry.line for item in statements))))


def find_grant(own: OwnChains, grant: Digest) -> tuple[OfferChain, GrantState]:
    """A grant of this node. Raises Refused (OFFER-STATE)."""
    chain = own.log.chain_of_grant(grant)
    if chain is None:
        raise Refused(
            "no such grant", why=f"the log of this node does not contain the grant {grant}", code="OFFER-STATE"
        )
    return chain, chain.state.grants[grant]


def index_of(chain: OfferChain, record: Digest) -> int:
    """Index of a record in the log."""
    return chain.indexes[chain.state.number(record)]


def unlinked(chain: OfferChain) -> ChainLink:
    """A placeholder link, to be replaced by `RecordWriter.linked`."""
    return ChainLink(chain.state.chain, 0, None, 0, ())


MAX_CANDIDATES: Final = 8
"""Maximum statements to verify when some may be forged. Statements that are already verified come first."""

_S = TypeVar("_S")


class OfferProvider:
    """Performs actions on this node's offers and grants. The only writer of its chains."""

    def __init__(self, membership: Membership, writer: RecordWriter, index: OfferIndex) -> None:
        self._membership = membership
        self._writer = writer
        self._index = index

    async def perform(self, action: OfferAction) -> tuple[LocatedEntry, ...]:
        """Perform an operator's action; returns the entries, the record last.

        Raises NotFound, Refused, Untrusted, Malformed, Conflict; see the method of each action for the codes.
        """
        if isinstance(action, Post):
            return await self.post(Offer.parse(action.document))
        if isinstance(action, Withdraw):
            return await self.withdraw(action.offer, action.text)
        if isinstance(action, Approve):
            return await self.approve(action)
        if isinstance(action, Reject):
            return await self.reject(action.request, action.text)
        if isinstance(action, Redeem):
            return await self.redeem(action.redemption)
        if isinstance(action, Release):
            return await self.release(action.grant)
        if isinstance(action, AnswerDefault):
            return await self.answer(action)
        return await self.report(action)

    async def post(self, offer: Offer) -> tuple[LocatedEntry, ...]:
        """Log an offer. Raises Refused (OFFER-ELSEWHERE) if it names another provider or log."""
        if (offer.provider, offer.log) != (self._membership.seat.inception.id, self._membership.seat.log):
            raise Refused(
                "the offer is not for this node",
                why="the offer names another provider or another log",
                hint=f"its provider is {self._membership.seat.inception.id}, its log {self._membership.seat.log}",
                code="OFFER-ELSEWHERE",
            )

        def make(own: OwnChains) -> Made:
            known = own.log.chain_of(offer.id)
            if known is not None:
                return known.offered[[each.id for each in known.state.offers].index(offer.id)]
            chain = own.chain(offer.supersedes) if offer.supersedes else OfferChain(ChainState(offer.id))
            return [own.sign_record(self._writer.linked(chain.state, Offered(unlinked(chain), offer)))]

        return await self._writer.write(make)

    async def withdraw(self, offer: Digest, text: str) -> tuple[LocatedEntry, ...]:
        """Withdraw an offer: it grants no more. Raises NotFound (NO-OFFER)."""

        def make(own: OwnChains) -> Made:
            chain = own.chain(offer)
            if chain.state.withdrawal is not None:
                return index_of(chain, chain.state.withdrawal)
            return [own.sign_record(self._writer.linked(chain.state, Withdrawn(unlinked(chain), text)))]

        return await self._writer.write(make)

    async def approve(self, action: Approve) -> tuple[LocatedEntry, ...]:
        """Grant a request. Raises Refused (OFFER-CAPACITY, OFFER-STATE, OFFER-FULL, OFFER-ELIGIBILITY), and Conflict
        (OFFER-ANSWERED) if it was rejected."""
        statement = await self._writer.load_statement(action.request)
        request = _expect(statement, GrantRequest)
        seat = self._membership.member(request.by)

        def make(own: OwnChains) -> Made:
            chain = own.chain(request.offer)
            if (record := _answer(own, chain, statement)) is not None:
                if record not in chain.state.grants:
                    raise Conflict(
                        "the request was rejected", hint="the requester may send a new request", code="OFFER-ANSWERED"
                    )
                return index_of(chain, record)
            offer = _in_force(chain, request)
            if not offer.eligibility.admits(request.by, seat.jurisdiction if seat else None):
                why = f"the offer does not admit {request.by}"
                raise Refused("not eligible", why=why, code="OFFER-ELIGIBILITY")
            wanted = action.allocations or request.allocations
            until = self._writer.now(chain.state) + offer.accept_seconds
            grant = Grant(unlinked(chain), statement.entry.digest, request.by, wanted, until, request.pact)
            return [*missing_lines(own, statement), own.sign_record(self._writer.linked(chain.state, grant))]

        return await self._writer.write(make)

    async def reject(self, line: Digest, text: str) -> tuple[LocatedEntry, ...]:
        """Reject a request. Raises Conflict (OFFER-ANSWERED) if it was granted."""
        statement = await self._writer.load_statement(line)
        request = _expect(statement, GrantRequest)

        def make(own: OwnChains) -> Made:
            chain = own.chain(request.offer)
            if (record := _answer(own, chain, statement)) is not None:
                if record in chain.state.grants:
                    hint = "a grant that is not accepted in time lapses by itself"
                    raise Conflict("the request was granted", hint=hint, code="OFFER-ANSWERED")
                return index_of(chain, record)
            rejected = Rejected(unlinked(chain), statement.entry.digest, text)
            return [*missing_lines(own, statement), own.sign_record(self._writer.linked(chain.state, rejected))]

        return await self._writer.write(make)

    async def accept(self, acceptance: Digest) -> tuple[LocatedEntry, ...]:
        """Record a grantee's `accepted`. Needs no decision of the operator."""
        statement = await self._writer.load_statement(acceptance)
        content = _expect(statement, Acceptance)
        return await self._writer.answer(
            statement,
            content.grant,
            lambda link, grant_state: Accepted(link, grant_state.digest, statement.entry.digest),
        )

    async def redeem(self, redemption: Digest) -> tuple[LocatedEntry, ...]:
        """Record a redemption that the grantee asks for.

        Raises Refused (OFFER-STATE) if the amount is too large, another redemption was recorded since, or a pact has no
        cut-off of its beneficiary.
        """
        statement = await self._writer.load_statement(redemption)
        content = _expect(statement, Redemption)
        cut_off = await self._find_statement(
            content.grant, lambda other: isinstance(other, CutOff) and other.by == content.by and not other.drill
        )

        def make(link: ChainLink, grant_state: GrantState) -> Record:
            if content.after != grant_state.newest:
                raise Refused(
                    "this redemption is out of date",
                    why="it does not name the newest record about the grant",
                    hint=f"the grantee must sign a new one, after {grant_state.newest}",
                    code="OFFER-STATE",
                )
            declared = cut_off.entry.digest if cut_off and grant_state.grant.pact else None
            return Redeemed(link, grant_state.digest, statement.entry.digest, content.amounts, declared)

        return await self._writer.answer(statement, content.grant, make, *((cut_off,) if cut_off else ()))

    async def release(self, grant: Digest) -> tuple[LocatedEntry, ...]:
        """Release the rest of a grant: as the grantee's statement asks if there is one, else after its end."""
        statement = await self._find_statement(grant, lambda content: isinstance(content, GivingBack))
        if statement is None:
            return await self._writer.record(
                grant, RELEASED, lambda link, grant_state: Released(link, grant_state.digest)
            )
        return await self._writer.answer(
            statement, grant, lambda link, grant_state: Released(link, grant_state.digest, statement.entry.digest)
        )

    async def lapse(self, grant: Digest) -> tuple[LocatedEntry, ...]:
        """Record that the grant was not accepted in time."""
        return await self._writer.record(grant, LAPSED, lambda link, grant_state: Lapsed(link, grant_state.digest))

    async def answer(self, action: AnswerDefault) -> tuple[LocatedEntry, ...]:
        """Log the provider's answer to a grantee's `defaulted`."""
        statement = await self._writer.load_statement(action.default)
        content = _expect(statement, Default)

        def make(own: OwnChains) -> Made:
            chain, grant_state = find_grant(own, content.grant)
            answer = DefaultAnswer(chain.state.chain, grant_state.digest, statement.entry.digest, action.text)
            same = next((located.index for located in chain.statements if located.statement == answer), None)
            if same is not None:
                return same
            return [*missing_lines(own, statement), own.sign(answer_statement(answer, own.node))]

        return await self._writer.write(make)

    async def report(self, action: UsageReport) -> tuple[LocatedEntry, ...]:
        """Log what was used. Raises Refused (OFFER-STATE) if it exceeds what was redeemed."""

        def make(own: OwnChains) -> Made:
            chain, grant_state = find_grant(own, action.grant)
            usage = Usage(chain.state.chain, grant_state.digest, action.window, action.amounts, action.text)
            logged = {
                located.statement: located.index for located in chain.statements if isinstance(located.statement, Usage)
            }
            if usage in logged:
                return logged[usage]
            _require_redeemed(grant_state, [*(other for other in logged if other.grant == grant_state.digest), usage])
            return [own.sign(usage_statement(usage, own.node))]

        return await self._writer.write(make)

    async def _find_statement(self, grant: Digest, wanted: Callable[[PartyStatement], bool]) -> ProvenStatement | None:
        """A matching statement about a grant from any log that can be verified now."""
        found = [item.located for item in self._index.grant_statements(grant) if wanted(item.located.statement)]  # type: ignore[arg-type]
        for located in sorted(found, key=lambda located: not located.proven)[:MAX_CANDIDATES]:
            with suppress(ComityError):
                return await self._writer.load_statement(located.line)
        return None


def _expect(statement: ProvenStatement, kind: type[_S]) -> _S:
    if not isinstance(statement.content, kind):
        raise Malformed("wrong kind of statement", why=f"the line is {statement.entry.statement.predicate!r}")
    return statement.content


def _answer(own: OwnChains, chain: OfferChain, statement: ProvenStatement) -> Digest | None:
    """The record that answers a request: this line, or an equal request that was signed again."""
    if (record := chain.state.answers.get(statement.entry.digest)) is not None:
        return record
    same = (
        line
        for line in chain.state.answers
        if (known := own.log.statements.get(line)) and known.statement == statement.content
    )
    return next((chain.state.answers[line] for line in same), None)


def _in_force(chain: OfferChain, request: GrantRequest) -> Offer:
    """The offer in force. Raises Refused (OFFER-STATE) if the request names an older version."""
    offer = chain.state.offer
    if request.offer != offer.id:
        hint = f"the requester may send a new request for {offer.id}"
        raise Refused(
            "the offer was superseded", why="the request names an older version", hint=hint, code="OFFER-STATE"
        )
    return offer


def _require_redeemed(grant_state: GrantState, usages: list[Usage]) -> None:
    if any(len(usage.amounts) != len(grant_state.redeemed) for usage in usages):
        raise Malformed("wrong number of amounts", why=f"the grant has {len(grant_state.redeemed)} allocations")
    totals = [sum(parts) for parts in zip(*(usage.amounts for usage in usages), strict=True)]
    if any(total > redeemed for total, redeemed in zip(totals, grant_state.redeemed, strict=True)):
        why = f"{', '.join(map(str, totals))} of {', '.join(map(str, grant_state.redeemed))}"
        raise Refused("more was used than redeemed", why=why, code="OFFER-STATE")


MAX_RECORDS_PER_STEP: Final = 64
RETRY_SECONDS: Final = 60.0
"""Seconds until a statement that failed to verify is tried again."""
MAX_RETRIES: Final = 10_000
"""Statements that wait for a retry."""


class GrantReconciler:
    """Records what is due for open grants of this node. Not thread-safe: call from the event loop."""

    def __init__(self, clock: Clock, provider: OfferProvider, index: OfferIndex) -> None:
        self._clock = clock
        self._provider = provider
        self._index = index
        self._retry_at: dict[Digest, float] = {}

    async def step(self) -> bool:
        """Record what is due, as far as the index has read. Returns whether there may be more."""
        due = list(self._due())
        for grant, statement in due[:MAX_RECORDS_PER_STEP]:
            try:
                await self._record(grant, statement)
            except (OutOfSpace, Unavailable):
                raise
            except ComityError as error:  # one bad statement must not block other grants
                _log.warning("grant record failed", grant=grant.digest, why=str(error), code=error.code)
                if statement is not None:
                    self._defer(statement)
        return len(due) > MAX_RECORDS_PER_STEP

    async def _record(self, grant: GrantState, statement: Digest | None) -> None:
        if grant.state == ACCEPTED:
            await self._provider.release(grant.digest)
        elif statement is not None:
            await self._provider.accept(statement)
        else:
            await self._provider.lapse(grant.digest)

    def _due(self) -> list[tuple[GrantState, Digest | None]]:
        """Open grants that need a record, each with the grantee's statement if there is one."""
        now = int(self._clock())
        due: list[tuple[GrantState, Digest | None]] = []
        for chain in self._index.own.chains.values():
            for grant_state in (chain.state.grants[digest] for digest in chain.state.open):
                statement = self._find_statement(
                    grant_state, Acceptance if grant_state.state == GRANTED else GivingBack
                )
                if statement is not None or (grant_state.state == GRANTED and now > grant_state.grant.accept_by):
                    due.append((grant_state, statement))
        return due

    def _find_statement(self, grant_state: GrantState, kind: type[PartyStatement]) -> Digest | None:
        """The grantee's statement of this kind about a grant, from any log."""
        now = self._clock()
        found = [
            item.located
            for item in self._index.grant_statements(grant_state.digest)
            if isinstance(item.located.statement, kind)
            and item.located.statement.by == grant_state.grant.grantee
            and self._retry_at.get(item.located.line, 0) <= now
        ]
        return min(found, key=lambda located: not located.proven).line if found else None

    def _defer(self, statement: Digest) -> None:
        """Try the statement again later: its author's new keys may be known then."""
        if len(self._retry_at) >= MAX_RETRIES:
            self._retry_at.clear()
        self._retry_at[statement] = self._clock() + RETRY_SECONDS


OFFERS = "offers"
DEADLINE = 600.0
"""Maximum seconds for one step."""


class OfferController:
    """The components for offers at this node, and the loop that keeps them up to date."""

    def __init__(self, home: OpenedHome, own_log: OwnLog, supervisor: Supervisor) -> None:
        ledger, membership, signer = home.ledger, home.membership, home.keys.signer
        self._supervisor = supervisor
        self._interval = home.config.replication.interval_seconds
        self.index = OfferIndex(ledger, home.pools, membership, home.config.limits.offer_lines_per_origin)
        writer = RecordWriter(ledger, membership, signer, home.clock, own_log.compose)
        self.provider = OfferProvider(membership, writer, self.index)
        self.admission = OfferAdmission(ledger, membership, self.index)
        self._reconciler = GrantReconciler(home.clock, self.provider, self.index)
        self._fault_publisher = FaultPublisher(ledger, home.metrics, signer, own_log)
        self._to_publish: list[FaultyChain] = []

    def begin(self) -> None:
        timing = LoopTiming(max(1.0, self._interval), DEADLINE)
        self._supervisor.loop(OFFERS, self._step, timing)

    def wake(self) -> None:
        """Run a step soon: some log has grown."""
        self._supervisor.wake(OFFERS)

    async def _step(self) -> None:
        behind = await self.index.read()
        self._to_publish += self.index.take_new_faults()
        while self._to_publish:
            await self._fault_publisher.publish(self._to_publish[0])
            del self._to_publish[0]
        if behind or await self._reconciler.step():
            self.wake()
