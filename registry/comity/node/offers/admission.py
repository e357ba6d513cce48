"""Which statements about compute offers are logged here without an operator's permission: requests by those whom an own
offer admits, with their inception, and statements of a grantee about its grant.

Quotas count different statements in this log, not copies. Only this node writes records of its chains; nobody may
submit them, not even an operator.

    grows with                                        bound                      charged to     at the bound
    unanswered requests of one identity for an offer  MAX_REQUESTS_PER_IDENTITY  that identity  OFFER-QUOTA
    those of all identities without a seat            MAX_REQUESTS_WITHOUT_SEAT  all of them    OFFER-QUOTA
    requests of identities without a seat             REQUEST_RATE               the caller     RATE
    a grantee's statements of one kind about a grant  MAX_STATEMENTS_PER_GRANT   that identity  OFFER-QUOTA
    inception and rotations of a requester            MAX_INTRODUCTIONS          that identity  OFFER-QUOTA
"""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from comity.ledger.entry_index import EntryQuery
from comity.node.members import Membership
from comity.node.offers.index import OfferIndex
from comity.node.threads import AsyncLedger
from comity.rules.offers.log_reader import OfferChain
from comity.rules.offers.records import GrantRequest, PartyStatement, is_party_statement, read_party_statement
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, OutOfSpace, Refused
from comity.trust.statement import Entry, parse_entry
from comity.trust.statement_kinds import KEY_PREDICATES, OFFER_PREDICATES
from comity.wire.access import CALLER, Caller
from comity.wire.throttle import Allowance, Throttle

MAX_REQUESTS_PER_IDENTITY: Final = 16
MAX_REQUESTS_WITHOUT_SEAT: Final = 256
MAX_STATEMENTS_PER_GRANT: Final = 64
MAX_INTRODUCTIONS: Final = 8
INTRODUCTIONS: Final = KEY_PREDICATES
REQUEST_RATE: Final = Allowance(calls_per_second=1 / 60, burst=32)
"""Rate of requests by identities without a seat for one caller; anybody can create identities."""


class OfferAdmission:
    """Decides which entries about this node's offers may be logged. Not thread-safe: call from the event loop."""

    def __init__(
        self,
        ledger: AsyncLedger,
        membership: Membership,
        index: OfferIndex,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._index = index
        self._asking = Throttle(REQUEST_RATE, clock)

    def reject_own_records(self, entries: Iterable[Entry]) -> None:
        """Raises Refused (OFFER-CHAIN) for submitted records of this node's own chains."""
        for entry in entries:
            by = entry.statement.by
            if by is None or by.kind != "node" or entry.statement.predicate not in OFFER_PREDICATES:
                continue
            record = self._membership.node(by)
            if record is not None and str(record.log) == self._membership.own_node.log:
                raise Refused(
                    "records of this node's offers cannot be submitted",
                    why="the node itself writes each record, after a check against all its grants",
                    code="OFFER-CHAIN",
                )

    async def granted(self, entries: Iterable[Entry]) -> frozenset[Digest]:
        """Digests of the entries that need no other permission. Raises OutOfSpace (OFFER-QUOTA), Refused (RATE)."""
        entries = [entry for entry in entries if entry.statement.by is not None]
        if any(is_party_statement(entry.statement) for entry in entries):
            await self._index.read_own()
        permitted: dict[Digest, set[Digest]] = {}
        pending: dict[PartyStatement, None] = {}
        for entry in entries:
            statement = _read(entry)
            if statement is not None and self._admits(statement):
                if statement not in pending and not self._is_logged(statement):
                    self._require_quota(statement, pending)
                    pending[statement] = None
                permitted.setdefault(statement.by, set()).add(entry.digest)
        more: Counts[tuple[Digest, str]] = Counts()
        for entry in entries:
            by = entry.statement.by
            if by is not None and by.id in permitted and entry.statement.predicate in INTRODUCTIONS:
                await self._require_introduction_quota(entry, more)
                permitted[by.id].add(entry.digest)
        return frozenset(digest for digests in permitted.values() for digest in digests)

    def _admits(self, statement: PartyStatement) -> bool:
        if isinstance(statement, GrantRequest):
            chain = self._index.own.chain_of(statement.offer)
            if chain is None or chain.state.withdrawn:
                return False
            seat = self._membership.member(statement.by)
            return chain.state.offer.eligibility.admits(statement.by, seat.jurisdiction if seat else None)
        chain = self._index.own.chain_of_grant(statement.grant)
        return chain is not None and chain.state.grants[statement.grant].grant.grantee == statement.by

    def _is_logged(self, statement: PartyStatement) -> bool:
        """Whether an equal statement is in this log already, in any envelope."""
        return any(other == statement for other in self._logged_alike(statement))

    def _logged_alike(self, statement: PartyStatement) -> Iterator[PartyStatement]:
        """Statements in this log of the same kind about the same offer or grant."""
        if isinstance(statement, GrantRequest):
            found = self._index.own_requests((statement.offer,))
        else:
            found = self._index.own_grant_statements(statement.grant)
        for item in found:
            other = item.located.statement
            if (
                item.located.line in self._index.own.statements
                and isinstance(other, PartyStatement)
                and type(other) is type(statement)
            ):
                yield other

    def _require_quota(self, statement: PartyStatement, pending: Iterable[PartyStatement]) -> None:
        if isinstance(statement, GrantRequest):
            chain = self._index.own.chain_of(statement.offer)
            assert chain is not None  # checked by _admits
            self._require_request_quota(statement, {*self._unanswered(chain), *_requests(pending, chain)})
            return
        similar = {
            other
            for other in (*self._logged_alike(statement), *pending)
            if type(other) is type(statement) and other.by == statement.by
        }
        if (
            sum(not isinstance(other, GrantRequest) and other.grant == statement.grant for other in similar)
            >= MAX_STATEMENTS_PER_GRANT
        ):
            raise _over_quota(
                f"{MAX_STATEMENTS_PER_GRANT} such statements of the grantee about this grant are already logged"
            )

    def _require_request_quota(self, request: GrantRequest, waiting: set[GrantRequest]) -> None:
        if sum(other.by == request.by for other in waiting) >= MAX_REQUESTS_PER_IDENTITY:
            raise _over_quota(f"{MAX_REQUESTS_PER_IDENTITY} requests of this identity for this offer are unanswered")
        if self._membership.member(request.by) is not None:
            return
        if sum(self._membership.member(other.by) is None for other in waiting) >= MAX_REQUESTS_WITHOUT_SEAT:
            raise _over_quota(f"{MAX_REQUESTS_WITHOUT_SEAT} requests for this offer are unanswered")
        with self._asking.call(CALLER.get(Caller("elsewhere")).name):
            pass

    def _unanswered(self, chain: OfferChain) -> Iterator[GrantRequest]:
        """Requests in this log for an offer, of any version, without an answer."""
        for found in self._index.own_requests(offer.id for offer in chain.state.offers):
            line, statement = found.located.line, found.located.statement
            if (
                isinstance(statement, GrantRequest)
                and line in self._index.own.statements
                and line not in chain.state.answers
            ):
                yield statement

    async def _require_introduction_quota(self, entry: Entry, more: Counts[tuple[Digest, str]]) -> None:
        by = entry.statement.by
        assert by is not None
        if self._membership.member(by.id) is not None:
            return
        key = by.id, entry.statement.predicate
        logged = await self._ledger.run(self._introduced, *key)
        if entry.statement_digest not in logged:
            if len(logged) + more[key] >= MAX_INTRODUCTIONS:
                raise _over_quota(
                    f"{len(logged)} {entry.statement.predicate} lines of this identity are already logged"
                )
            more[key] += 1

    def _introduced(self, identity: Digest, predicate: str) -> set[Digest]:
        """Digests of the inceptions or rotations of an identity in this log. Blocking."""
        query = EntryQuery(predicate=predicate, by=identity, origin=self._membership.own_node.log)
        found = self._ledger.tables.index.find(query, limit=MAX_INTRODUCTIONS)
        return {parse_entry(item.line).statement_digest for item in found}


def _requests(statements: Iterable[PartyStatement], chain: OfferChain) -> Iterator[GrantRequest]:
    offers = {offer.id for offer in chain.state.offers}
    return (other for other in statements if isinstance(other, GrantRequest) and other.offer in offers)


def _read(entry: Entry) -> PartyStatement | None:
    if not is_party_statement(entry.statement):
        return None
    try:
        return read_party_statement(entry.statement)
    except Malformed:
        return None


def _over_quota(why: str) -> OutOfSpace:
    hint = "ask the operator of this node, or log the statement at another node: it is valid in any log"
    return OutOfSpace("quota for statements about offers is used up", why=why, hint=hint, code="OFFER-QUOTA")
