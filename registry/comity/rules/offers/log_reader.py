"""What one log says of offers: its chains, and the statements of identities about offers of any log.

A record that answers a statement names the digest of its line, which must be earlier in the same log. A record that
breaks a rule of its chain (`chain`) is a permanent fault of the chain, and later records do not count. Source:
protocol, section 9.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from comity.rules.offers.amounts import DefaultAnswer, Usage, fault_kind, unanswered
from comity.rules.offers.chain import ChainState, GrantState
from comity.rules.offers.records import (
    Acceptance,
    Accepted,
    CutOff,
    GivingBack,
    Grant,
    GrantRequest,
    Offered,
    PartyStatement,
    Record,
    Redeemed,
    Redemption,
    Rejected,
    Released,
    is_party_statement,
    is_record,
    read_party_statement,
    read_record,
)
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.statement import Entry, Statement
from comity.trust.statement_kinds import OFFER_PREDICATES, USAGE


@frozen
class ChainFault:
    """A permanent fault of a chain at log entry `index`. Later records do not count."""

    kind: str
    index: int
    line: Digest
    why: str


@frozen
class LocatedStatement:
    """A statement about an offer that is not a record, with its index in the log. `proven`: known to be signed by its
    author; unknown while a key rotation of the author is not yet known."""

    index: int
    line: Digest
    statement: PartyStatement | Usage | DefaultAnswer
    proven: bool = True


@dataclass(slots=True)
class OfferChain:
    """A chain as one log holds it.

    Attributes:
        indexes: log indexes of its records, by number.
        offered: log indexes of its offers, by version.
        statements: statements about it that are not records; `by_grant` has those of them that name a grant.
        fault: its permanent fault.
        doubtful: a node that is not known to write this log signed a further record. The provider may have new keys:
            nothing more counts and no fault is reported until the keys are known and the log is read again.
    """

    state: ChainState
    indexes: list[int] = field(default_factory=list)
    offered: list[int] = field(default_factory=list)
    statements: list[LocatedStatement] = field(default_factory=list)
    by_grant: dict[Digest, list[LocatedStatement]] = field(default_factory=dict)
    fault: ChainFault | None = None
    doubtful: bool = False

    def add_statement(self, located: LocatedStatement) -> None:
        """Add a statement about it that is no record."""
        self.statements.append(located)
        if not isinstance(located.statement, GrantRequest):
            self.by_grant.setdefault(located.statement.grant, []).append(located)


class OfferLogReader:
    """Chains and statements about offers in one log, named by its verifier key. Call `read` for each entry, in order.

    Not thread-safe.
    """

    def __init__(self, log: str) -> None:
        self._log = log
        self._names: dict[Digest, Digest] = {}
        """Chain id by the id of each version of the offer."""
        self._granting: dict[Digest, OfferChain] = {}
        """Chain by grant."""
        self.chains: dict[Digest, OfferChain] = {}
        """By the id of the first offer."""
        self.statements: dict[Digest, LocatedStatement] = {}
        """Statements of identities about offers of any log, by line digest."""
        self._proven = set[Digest]()
        """Digests of proven ones, which every envelope of a statement has: its first proven line counts."""

    def read(self, index: int, entry: Entry, genuine: bool | None) -> OfferChain | None:
        """Add entry `index`; returns the chain of this log that changed. Skips entries that are not about offers,
        malformed or forged.

        Args:
            genuine: whether the entry is signed by the node that writes this log (node statements) or by the identity
                that it names; None if that is unknown, since keys change.
        """
        if genuine is False or entry.statement.predicate not in OFFER_PREDICATES:
            return None
        try:
            statement = read_offer_statement(entry.statement)
        except Malformed:
            return None
        if isinstance(statement, PartyStatement):
            return self._add_party_statement(index, entry, statement, genuine is True)
        if isinstance(statement, Usage | DefaultAnswer):
            return self._add_node_statement(index, entry, statement) if genuine else None
        return self._add_record(index, entry, statement) if genuine else self._mark_doubtful(statement)

    def chain_of(self, offer: Digest) -> OfferChain | None:
        """The chain of an offer (any version) of this log."""
        return self.chains.get(self._names.get(offer, offer))

    def chain_of_grant(self, grant: Digest) -> OfferChain | None:
        """The chain of a grant (line digest) of this log."""
        return self._granting.get(grant)

    def _add_record(self, index: int, entry: Entry, record: Record) -> OfferChain | None:
        chain = self.chains.get(record.link.chain)
        if chain is None:
            if not isinstance(record, Offered) or record.offer.log != self._log or record.offer.id != record.link.chain:
                return None
            chain = OfferChain(ChainState(record.link.chain))
        if chain.fault is not None or chain.doubtful:
            return None
        try:
            if record.link.seq > chain.state.seq:
                self._require_answered_statement(chain.state, record)
            if chain.state.append(record, entry.envelope, entry.line):
                chain.indexes.append(index)
        except Untrusted as error:
            if not chain.indexes:
                return None  # the chain did not begin, so nothing was promised
            chain.fault = ChainFault(fault_kind(error), index, entry.digest, error.why)
        self.chains[record.link.chain] = chain
        if isinstance(record, Grant) and entry.digest in chain.state.grants:
            self._granting[entry.digest] = chain
        if isinstance(record, Offered) and chain.fault is None and record.offer.id not in self._names:
            self._names[record.offer.id] = record.link.chain
            chain.offered.append(index)
        return chain

    def _mark_doubtful(self, record: Record) -> OfferChain | None:
        """Mark the chain that a record by an unknown signer continues."""
        chain = self.chains.get(record.link.chain)
        if chain is None or chain.fault is not None or record.link.seq <= chain.state.seq:
            return None
        chain.doubtful = True
        return chain

    def _add_party_statement(
        self, index: int, entry: Entry, statement: PartyStatement, proven: bool
    ) -> OfferChain | None:
        if entry.digest in self.statements or entry.statement_digest in self._proven:
            return None
        if proven:
            self._proven.add(entry.statement_digest)
        located = LocatedStatement(index, entry.digest, statement, proven)
        self.statements[entry.digest] = located
        chain = self.chain_of(statement.offer if isinstance(statement, GrantRequest) else statement.chain)
        if chain is not None:
            chain.add_statement(located)
        return chain

    def _add_node_statement(self, index: int, entry: Entry, statement: Usage | DefaultAnswer) -> OfferChain | None:
        chain = self.chain_of(statement.chain)
        grant_state = chain.state.grants.get(statement.grant) if chain else None
        if chain is None or grant_state is None:
            return None
        if isinstance(statement, Usage) and len(statement.amounts) != len(grant_state.grant.allocations):
            return None
        chain.add_statement(LocatedStatement(index, entry.digest, statement))
        return chain

    def _require_answered_statement(self, state: ChainState, record: Record) -> None:
        """Raises Untrusted if the statement that the record answers is missing before it, or differs.

        A record about an unknown grant is left to `check_record`.
        """
        if isinstance(record, Grant | Rejected):
            request = self._find(record.request)
            matches = isinstance(request, GrantRequest) and request.offer in {offer.id for offer in state.offers}
            if matches and isinstance(record, Grant) and isinstance(request, GrantRequest):
                matches = (request.by, request.pact, request.offer) == (record.grantee, record.pact, state.offer.id)
            _require(matches, "the request that the record answers")
        elif isinstance(record, Accepted | Redeemed | Released) and (grant_state := state.grants.get(record.grant)):
            self._require_grantee_statement(grant_state, record)

    def _require_grantee_statement(self, grant_state: GrantState, record: Accepted | Redeemed | Released) -> None:
        expected = (grant_state.grant.grantee, grant_state.grant.link.chain, grant_state.digest)
        if isinstance(record, Accepted):
            found = self._find(record.acceptance)
            matches = isinstance(found, Acceptance) and (found.by, found.chain, found.grant) == expected
            _require(matches, "the grantee's acceptance")
        elif isinstance(record, Released):
            if record.giving_back is not None:
                found = self._find(record.giving_back)
                matches = isinstance(found, GivingBack) and (found.by, found.chain, found.grant) == expected
                _require(matches, "the grantee's release")
        else:
            found = self._find(record.redemption)
            matches = isinstance(found, Redemption) and (found.by, found.chain, found.grant) == expected
            if matches and isinstance(found, Redemption):
                matches = (found.amounts, found.after) == (record.amounts, grant_state.newest)
            _require(matches, "the grantee's redemption of these amounts, after the newest record,")
            self._require_cut_off(record, expected)

    def _require_cut_off(self, record: Redeemed, expected: tuple[Digest, Digest, Digest]) -> None:
        if record.cut_off is not None:
            found = self._find(record.cut_off)
            matches = isinstance(found, CutOff) and (found.by, found.chain, found.grant) == expected and not found.drill
            _require(matches, "the beneficiary's cut-off")

    def _find(self, line: Digest) -> PartyStatement | Usage | DefaultAnswer | None:
        located = self.statements.get(line)
        return None if located is None else located.statement


def read_offer_statement(statement: Statement) -> Record | PartyStatement | Usage | DefaultAnswer:
    """Parse any statement about an offer. No signature is checked. Raises Malformed."""
    if is_party_statement(statement):
        return read_party_statement(statement)
    if is_record(statement):
        return read_record(statement)
    return (Usage if statement.predicate == USAGE else DefaultAnswer).parse(statement)


def _require(matches: bool, what: str) -> None:
    if not matches:
        raise unanswered(f"{what} is not before the record in this log")
