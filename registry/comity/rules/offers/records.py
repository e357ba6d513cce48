"""Records of an offer's chain by the provider's node, and statements by grantees and requesters.

Records, each linked to the one before, in the log that the offer names:

    offer            the first offer, which names the chain, or an offer that supersedes the last one
    offer-withdrawn  nothing more is granted; grants stay valid
    grant, pact      answers a request and reserves the nodes; a pact is usable only after its beneficiary's cut-off
    rejected         rejects a request
    accepted         the grantee accepted in time; the grant cannot be revoked afterwards
    lapsed           the grantee did not accept in time
    redeemed         an amount was handed over, as a statement of the grantee asks
    released         the rest is free again: by a statement of the grantee, or after the end

A record has its number `seq`, the line digest `prev` of the record before, its time `at` (provider's clock, not earlier
than the record before), the amounts `remaining` of each slice after it, and the line digest of the statement that it
answers. The node whose log the offer names signs it; it counts only at its index in that log. `chain` holds the rules.

Statements, signed by an identity (a member or a publisher) and named by the digest of their line. The subject is the
offer that is requested, or the chain of the grant:

    request    requests nodes of an offer, or a standing pact
    accepted   accepts a grant; the provider's record `accepted` confirms it
    redeemed   asks to use an amount of a grant now; proves possession of the key
    released   gives back what was not used
    cut-off    declares the author cut off: its pact becomes redeemable without further consent
    defaulted  says that an accepted grant was not honoured; a node's `defaulted` is the provider's answer
    usage      agrees to a usage line of the provider's node

Source: protocol, section 9. The field `at`, and that the first offer is number 0, are additions of this implementation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, TypeAlias

from comity.rules.offers.offer import ALLOCATIONS, AMOUNTS, MAX_TIME, REMAINING, Offer, SliceAllocation
from comity.trust.codec import JsonMerged, JsonNumber, JsonText
from comity.trust.content import ById, Content, SubjectDigest
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.statement import Statement, Subject
from comity.trust.statement_kinds import (
    ACCEPTED,
    CUT_OFF,
    DEFAULTED,
    GRANT,
    LAPSED,
    OFFER,
    OFFER_WITHDRAWN,
    PACT,
    REDEEMED,
    REJECTED,
    RELEASED,
    REQUEST,
    USAGE,
)

MAX_TEXT: Final = 1000
OfferText: TypeAlias = Annotated[str, JsonText(MAX_TEXT, 0, lines=True)]
Time: TypeAlias = Annotated[int, JsonNumber(most=MAX_TIME)]
"""POSIX seconds."""
Allocations: TypeAlias = Annotated[tuple[SliceAllocation, ...], ALLOCATIONS]
Amounts: TypeAlias = Annotated[tuple[int, ...], AMOUNTS]


@frozen
class ChainLink:
    """Position of a record in its chain. `chain` is the id of the first offer of the chain."""

    chain: Annotated[Digest, "The first offer of the chain."]
    seq: int
    prev: Digest | None
    at: Time
    remaining: Annotated[tuple[int, ...], REMAINING]


Link: TypeAlias = Annotated[ChainLink, JsonMerged()]


class _ChainRecord(Content):
    __slots__ = ()
    author: ClassVar = "node"
    link: Link

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject("offer", self.link.chain),)

    def check(self, statement: Statement) -> None:
        if statement.subjects != self.subjects():
            raise self.malformed("its subject is not its offer")


@frozen
class Offered(_ChainRecord):
    """A node lends machines."""

    predicate: ClassVar = OFFER
    subject_count: ClassVar = (1, 2)
    link: Link
    offer: Offer

    def subjects(self) -> tuple[Subject, ...]:
        """The chain, and the offer if it is not the first of the chain."""
        return tuple(Subject("offer", digest) for digest in dict.fromkeys((self.link.chain, self.offer.id)))


@frozen
class Withdrawn(_ChainRecord):
    """A node grants nothing more of an offer. `text` is the reason."""

    predicate: ClassVar = OFFER_WITHDRAWN
    link: Link
    text: OfferText = ""


@frozen
class Grant(_ChainRecord):
    """A node grants allocations to one grantee. `request` is the line digest of the request.

    `allocations` may differ from the request: they bind nobody before the grantee accepts. `accept_by` is the last
    second to accept, POSIX.
    """

    predicate: ClassVar = GRANT
    link: Link
    request: Annotated[Digest, "SHA-256 of the line of the request."]
    grantee: Digest
    allocations: Allocations
    accept_by: Time

    @property
    def pact(self) -> bool:
        return self.predicate == PACT


@frozen
class Pact(Grant):
    """A node grants a standing pact, which is usable only after its beneficiary's cut-off."""

    predicate: ClassVar = PACT


@frozen
class Rejected(_ChainRecord):
    """A node rejects a request. `text` is the reason."""

    predicate: ClassVar = REJECTED
    link: Link
    request: Digest
    text: OfferText = ""


@frozen
class Accepted(_ChainRecord):
    """The grantee accepted in time, says the provider's node. `acceptance` is the line digest of the grantee's own
    `accepted`."""

    predicate: ClassVar = ACCEPTED
    link: Link
    grant: Digest
    acceptance: Digest


@frozen
class Lapsed(_ChainRecord):
    """A grant was not accepted in time."""

    predicate: ClassVar = LAPSED
    link: Link
    grant: Digest


@frozen
class Redeemed(_ChainRecord):
    """An amount of each allocation is handed over, says the provider's node. The amounts, in order, are those that the
    grantee's own `redeemed` (line digest `redemption`) asks for. `cut_off` is the line digest of the beneficiary's
    cut-off; only for a pact."""

    predicate: ClassVar = REDEEMED
    link: Link
    grant: Digest
    redemption: Digest
    amounts: Amounts
    cut_off: Digest | None = None


@frozen
class Released(_ChainRecord):
    """What is left of a grant is free again, says the provider's node. `giving_back` is the line digest of the
    grantee's own `released`; None if the grant is over."""

    predicate: ClassVar = RELEASED
    link: Link
    grant: Digest
    giving_back: Digest | None = None


Record: TypeAlias = Offered | Withdrawn | Grant | Rejected | Accepted | Lapsed | Redeemed | Released
RECORDS: Final[Sequence[type[Record]]] = (
    Offered,
    Withdrawn,
    Grant,
    Pact,
    Rejected,
    Accepted,
    Lapsed,
    Redeemed,
    Released,
)
_RECORDS: Final[Mapping[str, type[Record]]] = {each.predicate: each for each in RECORDS}


def read_record(statement: Statement) -> Record:
    """Parse a record. Neither its signature nor its chain is checked. Raises Malformed."""
    if not is_record(statement):
        raise Malformed("not a record of an offer", why=f"{statement.predicate[:60]!r} is not a record of a node")
    return _RECORDS[statement.predicate].parse(statement)


def is_record(statement: Statement) -> bool:
    """Whether the statement is a record, by its predicate and its author's kind."""
    return statement.predicate in _RECORDS and statement.by is not None and statement.by.kind == "node"


class OfChain(Content):
    """What is said about a chain in a statement that is no record."""

    __slots__ = ()
    chain: SubjectDigest

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject("offer", self.chain),)

    def check(self, statement: Statement) -> None:
        if statement.subjects[0].name != "offer":
            raise self.malformed("its subject is not named 'offer'")


class _PartyStatement(OfChain):
    __slots__ = ()
    author: ClassVar = "identity"


@frozen
class GrantRequest(_PartyStatement):
    """An identity asks for allocations of an offer, the version in force.

    `number` is chosen by the author and makes equal requests distinct. With `pact` it requests a standing pact.
    """

    predicate: ClassVar = REQUEST
    by: ById
    offer: SubjectDigest
    allocations: Allocations
    number: int
    pact: bool = False
    text: OfferText = ""

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject("offer", self.offer),)


@frozen
class Acceptance(_PartyStatement):
    """The grantee accepts a grant: `grant` is the line digest of a `grant` or `pact` in `chain`."""

    predicate: ClassVar = ACCEPTED
    by: ById
    chain: SubjectDigest
    grant: Digest


@frozen
class Redemption(_PartyStatement):
    """The grantee asks for an amount of each allocation of a grant, in order.

    `after` is the challenge: the line digest of the newest record about this grant. A recorded redemption changes it,
    so no redemption can be used twice or signed before the previous one was recorded. `text` is for the provider, such
    as a user name or a public SSH key. It is public and must not hold a secret.
    """

    predicate: ClassVar = REDEEMED
    by: ById
    chain: SubjectDigest
    grant: Digest
    amounts: Amounts
    after: Annotated[Digest, "The newest record about this grant."]
    text: OfferText = ""


@frozen
class GivingBack(_PartyStatement):
    """The grantee will not use what is left of a grant."""

    predicate: ClassVar = RELEASED
    by: ById
    chain: SubjectDigest
    grant: Digest
    text: OfferText = ""


@frozen
class CutOff(_PartyStatement):
    """The beneficiary of a pact declares itself cut off. A `drill` has no effect."""

    predicate: ClassVar = CUT_OFF
    by: ById
    chain: SubjectDigest
    grant: Digest
    drill: bool
    text: OfferText = ""


@frozen
class Default(_PartyStatement):
    """The grantee says that a grant was not honoured, or lapsed although it was accepted in time."""

    predicate: ClassVar = DEFAULTED
    by: ById
    chain: SubjectDigest
    grant: Digest
    text: OfferText


@frozen
class Agreement(_PartyStatement):
    """The grantee agrees to the provider's `usage` with line digest `usage`."""

    predicate: ClassVar = USAGE
    by: ById
    chain: SubjectDigest
    grant: Digest
    usage: Digest


PartyStatement: TypeAlias = GrantRequest | Acceptance | Redemption | GivingBack | CutOff | Default | Agreement
PARTY_STATEMENTS: Final[Sequence[type[PartyStatement]]] = (
    GrantRequest,
    Acceptance,
    Redemption,
    GivingBack,
    CutOff,
    Default,
    Agreement,
)
_PARTY_STATEMENTS: Final[Mapping[str, type[PartyStatement]]] = {each.predicate: each for each in PARTY_STATEMENTS}


def read_party_statement(statement: Statement) -> PartyStatement:
    """Parse a statement of an identity about an offer. Its signature is not checked. Raises Malformed."""
    if not is_party_statement(statement):
        raise Malformed(
            "not about an offer", why=f"{statement.predicate[:60]!r} is not a statement of an identity about an offer"
        )
    return _PARTY_STATEMENTS[statement.predicate].parse(statement)


def is_party_statement(statement: Statement) -> bool:
    """Whether the statement is a party statement, by its predicate and its author's kind."""
    return statement.predicate in _PARTY_STATEMENTS and statement.by is not None and statement.by.kind == "identity"
