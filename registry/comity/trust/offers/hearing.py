"""What one log says of offers, read from its beginning: chains, the statements that they answer, and their faults.

A node reads its own log so before it grants, and every log that it mirrors as entries arrive; a client reads the lines
that a node or a file gives it. All get the same from the same lines. A record that answers somebody says so by the
digest of their line, and that line stands in the same log before it: whoever has the log has all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from comity.trust.digest import Digest
from comity.trust.errors import Malformed, Untrusted
from comity.trust.offers.accounts import USAGE, Answer, Usage, read_answer, read_usage
from comity.trust.offers.book import Book, Commitment
from comity.trust.offers.faults import kind_of, unanswered
from comity.trust.offers.parties import (
    Acceptance,
    CutOff,
    GivingBack,
    Redemption,
    Request,
    Said,
    is_said,
    read_said,
)
from comity.trust.offers.records import (
    Accepted,
    Grant,
    Offered,
    Record,
    Redeemed,
    Rejected,
    Released,
    is_record,
    read_record,
)
from comity.trust.statement import Entry, Statement

PREDICATES: Final = (
    "offer",
    "offer-withdrawn",
    "request",
    "grant",
    "pact",
    "rejected",
    "accepted",
    "lapsed",
    "released",
    "redeemed",
    "usage",
    "defaulted",
    "cut-off",
)
"""All that is said of offers, by either side."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Where a chain breaks the rules, for good: at log entry `index`. What follows is not counted."""

    kind: str
    index: int
    line: Digest
    why: str


@dataclass(frozen=True, slots=True)
class Stated:
    """A statement of either side that is no record, and where it stands. `proven`: it is known to be its author's; who
    has changed keys says things that cannot be judged before that is known."""

    index: int
    line: Digest
    said: Said | Usage | Answer
    proven: bool = True


@dataclass(slots=True)
class Chain:
    """A chain as a log has it.

    Attributes:
        indexes: log entries of its records, by number.
        offered: those of its offers, by version.
        stated: what was said beside it.
        fault: how it breaks the rules, for good.
        doubtful: a node that is not known to write this log goes on with it. Its provider may have new keys: nothing
            further is counted, and nobody accused, before that is known and the log read again.
    """

    book: Book
    indexes: list[int] = field(default_factory=list)
    offered: list[int] = field(default_factory=list)
    stated: list[Stated] = field(default_factory=list)
    fault: Fault | None = None
    doubtful: bool = False


class OfferLog:
    """What one log, named by its verifier key, says of offers. `read` its entries in order. Not thread-safe."""

    def __init__(self, log: str) -> None:
        self._log = log
        self._names: dict[Digest, Digest] = {}
        """The chain that an offer, of any version, belongs to."""
        self._granting: dict[Digest, Chain] = {}
        """The chain that each grant belongs to."""
        self.chains: dict[Digest, Chain] = {}
        """By the id of their first offer."""
        self.said: dict[Digest, Stated] = {}
        """Statements of identities, about offers of any log, by line digest."""

    def read(self, index: int, entry: Entry, genuine: bool | None) -> Chain | None:
        """Take entry `index` in; the chain of this log that it has changed. What is no offer's business, or malformed,
        or forged, is passed over.

        Args:
            genuine: whether the entry is signed by the node that writes this log, where a node speaks, or by the
                identity that it names; None where that cannot be known here, since keys change.
        """
        if genuine is False or entry.statement.predicate not in PREDICATES:
            return None
        try:
            said = read_any(entry.statement)
        except Malformed:
            return None
        if isinstance(said, Said):
            return self._party(index, entry, said, genuine is True)
        if isinstance(said, Usage | Answer):
            return self._beside(index, entry, said) if genuine else None
        return self._record(index, entry, said) if genuine else self._doubt(said)

    def chain_of(self, offer: Digest) -> Chain | None:
        """The chain that an offer of this log, of any version, belongs to."""
        return self.chains.get(self._names.get(offer, offer))

    def chain_granting(self, grant: Digest) -> Chain | None:
        """The chain of this log that a grant (line digest) belongs to."""
        return self._granting.get(grant)

    def _record(self, index: int, entry: Entry, record: Record) -> Chain | None:
        chain = self.chains.get(record.link.chain)
        if chain is None:
            if not isinstance(record, Offered) or record.offer.log != self._log or record.offer.id != record.link.chain:
                return None
            chain = Chain(Book(record.link.chain))
        if chain.fault is not None or chain.doubtful:
            return None
        try:
            if record.link.seq > chain.book.seq:
                self._require_answered(chain.book, record)
            if chain.book.take(record, entry.envelope, entry.line):
                chain.indexes.append(index)
        except Untrusted as error:
            if not chain.indexes:
                return None  # it did not begin: nobody was promised anything
            chain.fault = Fault(kind_of(error), index, entry.digest, error.why)
        self.chains[record.link.chain] = chain
        if isinstance(record, Grant) and entry.digest in chain.book.grants:
            self._granting[entry.digest] = chain
        if isinstance(record, Offered) and chain.fault is None and record.offer.id not in self._names:
            self._names[record.offer.id] = record.link.chain
            chain.offered.append(index)
        return chain

    def _doubt(self, record: Record) -> Chain | None:
        """The chain that somebody unknown goes on with."""
        chain = self.chains.get(record.link.chain)
        if chain is None or chain.fault is not None or record.link.seq <= chain.book.seq:
            return None
        chain.doubtful = True
        return chain

    def _party(self, index: int, entry: Entry, said: Said, proven: bool) -> Chain | None:
        if entry.digest in self.said:
            return None
        stated = Stated(index, entry.digest, said, proven)
        self.said[entry.digest] = stated
        chain = self.chain_of(said.offer if isinstance(said, Request) else said.chain)
        if chain is not None:
            chain.stated.append(stated)
        return chain

    def _beside(self, index: int, entry: Entry, said: Usage | Answer) -> Chain | None:
        chain = self.chain_of(said.chain)
        held = chain.book.grants.get(said.grant) if chain else None
        if chain is None or held is None:
            return None
        if isinstance(said, Usage) and len(said.amounts) != len(held.grant.allocations):
            return None
        chain.stated.append(Stated(index, entry.digest, said))
        return chain

    def _require_answered(self, book: Book, record: Record) -> None:
        """Raises Untrusted where the record answers what nobody said. An answer about no grant is the book's matter."""
        if isinstance(record, Grant | Rejected):
            said = self._heard(record.request)
            meant = isinstance(said, Request) and said.offer in {offer.id for offer in book.offers}
            if meant and isinstance(record, Grant) and isinstance(said, Request):
                meant = (said.by, said.pact, said.offer) == (record.grantee, record.pact, book.offer.id)
            _require(meant, "the request that it answers")
        elif isinstance(record, Accepted | Redeemed | Released) and (held := book.grants.get(record.grant)):
            self._require_grantee(held, record)

    def _require_grantee(self, held: Commitment, record: Accepted | Redeemed | Released) -> None:
        mine = (held.grant.grantee, held.grant.link.chain, held.digest)
        if isinstance(record, Accepted):
            said = self._heard(record.acceptance)
            _require(isinstance(said, Acceptance) and (said.by, said.chain, said.grant) == mine, "the acceptance")
        elif isinstance(record, Released):
            if record.giving_back is not None:
                said = self._heard(record.giving_back)
                meant = isinstance(said, GivingBack) and (said.by, said.chain, said.grant) == mine
                _require(meant, "the grantee's word that it gives back")
        else:
            said = self._heard(record.redemption)
            meant = isinstance(said, Redemption) and (said.by, said.chain, said.grant) == mine
            if meant and isinstance(said, Redemption):
                meant = (said.amounts, said.after) == (record.amounts, held.newest)
            _require(meant, "the holder's word that it redeems so much, after the record before")
            self._require_cut_off(record, mine)

    def _require_cut_off(self, record: Redeemed, mine: tuple[Digest, Digest, Digest]) -> None:
        if record.cut_off is not None:
            said = self._heard(record.cut_off)
            meant = isinstance(said, CutOff) and (said.by, said.chain, said.grant) == mine and not said.drill
            _require(meant, "the beneficiary's own cut-off")

    def _heard(self, line: Digest) -> Said | Usage | Answer | None:
        stated = self.said.get(line)
        return None if stated is None else stated.said


def read_any(statement: Statement) -> Record | Said | Usage | Answer:
    """What a statement of either side says of an offer; nothing is proven. Raises Malformed."""
    if is_said(statement):
        return read_said(statement)
    if is_record(statement):
        return read_record(statement)
    return read_usage(statement) if statement.predicate == USAGE else read_answer(statement)


def _require(meant: bool, what: str) -> None:
    if not meant:
        raise unanswered(f"{what} does not stand before it in this log")
