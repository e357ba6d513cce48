"""The offers and grants of this node: the operator's actions, what the node records by itself, and the loop of both.

Every action of the operator is safe to repeat: a repeated call returns the existing entry. `GrantReconciler` records
acceptances, releases and lapses by itself, by the node's clock, one transaction a step.

One action logs hardware evidence of the machines that this node offers. The evidence is for a challenge that names a
checkpoint of this node's log. The node checks its form and its challenge, not its vendor's signatures: a reader
of the offer appraises the evidence by roots of the reader's choice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

import structlog

from comity.content.blobs import BlobStore
from comity.node.home import OpenedHome
from comity.node.keys import NodeSigner
from comity.node.members import Membership
from comity.node.offers.admission import OfferAdmission
from comity.node.offers.index import FaultPublisher, FaultyChain, OfferIndex
from comity.node.offers.own_chains import (
    Made,
    OwnChains,
    ProvenStatement,
    RecordWriter,
    find_grant,
    index_of,
    missing_lines,
    no_offer,
    unlinked,
)
from comity.node.own_log import OwnLog
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.rules.hardware_evidence import Attested, Challenge, HardwareEvidence
from comity.rules.offers.amounts import DefaultAnswer, Usage
from comity.rules.offers.chain import ACCEPTED, GRANTED, LAPSED, RELEASED, ChainState, GrantState
from comity.rules.offers.log_reader import OfferChain
from comity.rules.offers.offer import Offer
from comity.rules.offers.records import (
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
    Pact,
    PartyStatement,
    Record,
    Redeemed,
    Redemption,
    Rejected,
    Released,
    Withdrawn,
)
from comity.rules.signing import sign_content, statement_of
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Conflict, Malformed, OutOfSpace, Refused, Unavailable
from comity.trust.statement import SideObject
from comity.wire.messages import LocatedEntry
from comity.wire.offer import (
    AnswerDefault,
    Approve,
    Attest,
    OfferAction,
    Post,
    Redeem,
    Reject,
    Release,
    UsageReport,
    Withdraw,
)

MAX_CANDIDATES: Final = 8
"""Maximum statements to verify when some may be forged. Statements that are already verified come first."""

_S = TypeVar("_S")


class HardwareAttester:
    """Writes `attested` statements about this node's own offers."""

    def __init__(
        self,
        ledger: AsyncLedger,
        pools: Pools,
        store: BlobStore,
        signer: NodeSigner,
        index: OfferIndex,
        append: Callable[[bytes], Awaitable[int]],
    ) -> None:
        self._ledger = ledger
        self._pools = pools
        self._store = store
        self._signer = signer
        self._index = index
        self._append = append

    async def attest(self, action: Attest) -> tuple[LocatedEntry, ...]:
        """Store the evidence and log the statement, once.

        Raises Malformed, NotFound (NO-OFFER), Refused (ATTEST-CHALLENGE) if the log has another root at that size.
        """
        HardwareEvidence.parse(action.evidence)
        await self._index.read_own()
        if self._index.own.chain_of(action.offer) is None:
            raise no_offer(action.offer)
        record = self._signer.record
        await self._require_checkpoint(action)
        evidence = SideObject.of(action.evidence)
        await self._pools.files(self._store.put, evidence.digest, action.evidence)
        challenge = Challenge(action.offer, record.origin, action.size, action.root, record.node.id)
        entry = sign_content(Attested(record.node, challenge, evidence), self._signer.online)
        index = await self._append(entry.line)
        line = await self._ledger.run(self._ledger.tables.history.entry, str(record.log), index)
        return (LocatedEntry(record.origin, index, line),)

    async def _require_checkpoint(self, action: Attest) -> None:
        tables, log = self._ledger.tables, str(self._signer.record.log)
        size = (await self._ledger.run(tables.logs.get, log)).size
        if not 1 <= action.size <= size or bytes.fromhex(action.root) != await self._ledger.run(
            tables.history.root, log, action.size
        ):
            raise Refused(
                "the challenge is not of this log",
                why=f"the log of this node has another root at {action.size} entries",
                hint="comity offer challenge OFFER, and take the evidence again",
                code="ATTEST-CHALLENGE",
            )


class OfferProvider:
    """Performs actions on this node's offers and grants. The only writer of its chains."""

    def __init__(
        self, membership: Membership, writer: RecordWriter, index: OfferIndex, attester: HardwareAttester
    ) -> None:
        self._membership = membership
        self._writer = writer
        self._index = index
        self._attester = attester

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
        if isinstance(action, Attest):
            return await self._attester.attest(action)
        return await self.report(action)

    async def post(self, offer: Offer) -> tuple[LocatedEntry, ...]:
        """Log an offer. Raises Refused (OFFER-ELSEWHERE) if it names another provider or log."""
        own_node = self._membership.own_node
        if (offer.provider, offer.log) != (own_node.inception.id, own_node.log):
            raise Refused(
                "the offer is not for this node",
                why="the offer names another provider or another log",
                hint=f"its provider is {own_node.inception.id}, its log {own_node.log}",
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
            kind = Pact if request.pact else Grant
            grant = kind(unlinked(chain), statement.entry.digest, request.by, wanted, until)
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
            return [*missing_lines(own, statement), own.sign(statement_of(answer, own.node))]

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
            return [own.sign(statement_of(usage, own.node))]

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


_log: Final = structlog.get_logger("comity.node.offers")

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
        ledger, membership, signer = home.ledger, home.membership, own_log.signer
        self._supervisor = supervisor
        self._interval = home.config.replication.interval_seconds
        self.index = OfferIndex(ledger, home.pools, membership, home.config.limits.offer_lines_per_origin)
        writer = RecordWriter(ledger, membership, signer, home.clock, own_log.compose)
        attester = HardwareAttester(ledger, home.pools, home.store, signer, self.index, own_log.append)
        self.provider = OfferProvider(membership, writer, self.index, attester)
        self.admission = OfferAdmission(ledger, membership, self.index)
        self._reconciler = GrantReconciler(home.clock, self.provider, self.index)
        self._fault_publisher = FaultPublisher(ledger, home.metrics, home.membership, own_log)
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
