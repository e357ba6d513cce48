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

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from comity.rules.offers.offer import MAX_TIME, Offer, SliceAllocation, read_allocations, read_amounts, read_remaining
from comity.trust.encoding import MAX_INTEGER, Digest, Fields, Json, bare_digest
from comity.trust.errors import Malformed
from comity.trust.statement import Author, Statement, Subject
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

RECORDS: Final = (OFFER, OFFER_WITHDRAWN, GRANT, PACT, REJECTED, ACCEPTED, LAPSED, REDEEMED, RELEASED)
MAX_TEXT: Final = 1000


@dataclass(frozen=True, slots=True)
class ChainLink:
    """Position of a record in its chain. `chain` is the id of the first offer of the chain."""

    chain: Digest
    seq: int
    prev: Digest | None
    at: int
    remaining: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Offered:
    """`offer`."""

    link: ChainLink
    offer: Offer


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """`offer-withdrawn`. `text` is the reason."""

    link: ChainLink
    text: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """`grant`, or `pact` if `pact` is true. `request` is the line digest of the request.

    `allocations` may differ from the request: they bind nobody before the grantee accepts. `accept_by` is the last
    second to accept, POSIX.
    """

    link: ChainLink
    request: Digest
    grantee: Digest
    allocations: tuple[SliceAllocation, ...]
    accept_by: int
    pact: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """`rejected`. `text` is the reason."""

    link: ChainLink
    request: Digest
    text: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """`accepted`, by the provider's node: `acceptance` is the line digest of the grantee's own `accepted`."""

    link: ChainLink
    grant: Digest
    acceptance: Digest


@dataclass(frozen=True, slots=True)
class Lapsed:
    """`lapsed`."""

    link: ChainLink
    grant: Digest


@dataclass(frozen=True, slots=True)
class Redeemed:
    """`redeemed`, by the provider's node: amounts of each allocation, in order, as the grantee's own `redeemed` (line
    digest `redemption`) asks. `cut_off` is the line digest of the beneficiary's cut-off; only for a pact."""

    link: ChainLink
    grant: Digest
    redemption: Digest
    amounts: tuple[int, ...]
    cut_off: Digest | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """`released`, by the provider's node. `giving_back` is the line digest of the grantee's own `released`; None if the
    grant is over."""

    link: ChainLink
    grant: Digest
    giving_back: Digest | None = None


Record: TypeAlias = Offered | Withdrawn | Grant | Rejected | Accepted | Lapsed | Redeemed | Released


def record_statement(record: Record, node: Author) -> Statement:
    """The statement that `node`, whose log the offer names, signs. Raises Malformed if it does not read back."""
    link = record.link
    body: dict[str, Json] = {
        "chain": link.chain,
        "seq": link.seq,
        "prev": link.prev,
        "at": link.at,
        "remaining": list(link.remaining),
        **_record_body(record),
    }
    statement = Statement(predicate_of(record), _subjects(record), node, body)
    if read_record(statement) != record:
        raise Malformed("record is malformed", why="it does not read back as it was written")
    return statement


def predicate_of(record: Record) -> str:
    if isinstance(record, Grant):
        return PACT if record.pact else GRANT
    return _RECORD_PREDICATES[type(record)]


def read_record(statement: Statement) -> Record:
    """Parse a record. Neither its signature nor its chain is checked. Raises Malformed."""
    read = _RECORD_READERS.get(statement.predicate)
    if read is None or statement.by is None or statement.by.kind != "node":
        raise Malformed("not a record of an offer", why=f"{statement.predicate[:60]!r} is not a record of a node")
    fields = statement.fields()
    prev = fields.take("prev")
    link = ChainLink(
        chain=fields.digest("chain"),
        seq=fields.integer("seq", most=MAX_INTEGER),
        prev=None if prev is None else bare_digest(prev),
        at=fields.integer("at", most=MAX_TIME),
        remaining=read_remaining(fields),
    )
    record = read(link, fields)
    fields.done()
    if statement.subjects != _subjects(record) or statement.objects:
        raise Malformed(f"{statement.predicate} is malformed", why="its subject is not its offer")
    return record


def is_record(statement: Statement) -> bool:
    """Whether the statement is a record, by its predicate and its author's kind."""
    return statement.predicate in RECORDS and statement.by is not None and statement.by.kind == "node"


def _subjects(record: Record) -> tuple[Subject, ...]:
    """The chain, and the offer if it is not the first of the chain."""
    named = [record.link.chain]
    if isinstance(record, Offered) and record.offer.id != record.link.chain:
        named.append(record.offer.id)
    return tuple(Subject("offer", digest) for digest in named)


def _record_body(record: Record) -> dict[str, Json]:
    if isinstance(record, Offered):
        return {"offer": record.offer.to_json()}
    if isinstance(record, Withdrawn):
        return {"text": record.text}
    if isinstance(record, Grant):
        return {
            "request": record.request,
            "grantee": record.grantee,
            "allocations": [allocation.to_json() for allocation in record.allocations],
            "accept_by": record.accept_by,
        }
    if isinstance(record, Rejected):
        return {"request": record.request, "text": record.text}
    if isinstance(record, Accepted):
        return {"grant": record.grant, "acceptance": record.acceptance}
    if isinstance(record, Lapsed):
        return {"grant": record.grant}
    if isinstance(record, Redeemed):
        amounts = list(record.amounts)
        return {
            "grant": record.grant,
            "redemption": record.redemption,
            "amounts": amounts,
            "cut_off": record.cut_off,
        }
    return {"grant": record.grant, "giving_back": record.giving_back}


def _read_grant(link: ChainLink, fields: Fields, pact: bool) -> Grant:
    return Grant(
        link,
        fields.digest("request"),
        fields.digest("grantee"),
        read_allocations(fields),
        fields.integer("accept_by", most=MAX_TIME),
        pact,
    )


def _read_redeemed(link: ChainLink, fields: Fields) -> Redeemed:
    return Redeemed(
        link,
        fields.digest("grant"),
        fields.digest("redemption"),
        read_amounts(fields),
        fields.digest_or_none("cut_off"),
    )


def _read_rejected(link: ChainLink, fields: Fields) -> Rejected:
    return Rejected(link, fields.digest("request"), read_text(fields))


def read_text(fields: Fields) -> str:
    """The member `text`: at most 1,000 characters. Raises Malformed."""
    return fields.text("text", least=0, most=MAX_TEXT, lines=True)


_RECORD_READERS: Final[Mapping[str, Callable[[ChainLink, Fields], Record]]] = {
    OFFER: lambda link, fields: Offered(link, Offer.from_json(fields.take("offer"))),
    OFFER_WITHDRAWN: lambda link, fields: Withdrawn(link, read_text(fields)),
    GRANT: lambda link, fields: _read_grant(link, fields, False),
    PACT: lambda link, fields: _read_grant(link, fields, True),
    REJECTED: _read_rejected,
    ACCEPTED: lambda link, fields: Accepted(link, fields.digest("grant"), fields.digest("acceptance")),
    LAPSED: lambda link, fields: Lapsed(link, fields.digest("grant")),
    REDEEMED: _read_redeemed,
    RELEASED: lambda link, fields: Released(link, fields.digest("grant"), fields.digest_or_none("giving_back")),
}
_RECORD_PREDICATES: Final[Mapping[type, str]] = {
    Offered: OFFER,
    Withdrawn: OFFER_WITHDRAWN,
    Rejected: REJECTED,
    Accepted: ACCEPTED,
    Lapsed: LAPSED,
    Redeemed: REDEEMED,
    Released: RELEASED,
}


PARTY: Final = (REQUEST, ACCEPTED, REDEEMED, RELEASED, CUT_OFF, DEFAULTED, USAGE)


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """`request`: `by` requests these allocations of `offer`, the version in force.

    `number` is chosen by the author and makes equal requests distinct. With `pact` it requests a standing pact.
    """

    by: Digest
    offer: Digest
    allocations: tuple[SliceAllocation, ...]
    number: int
    pact: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """`accepted`: `by` accepts `grant`, the line digest of a `grant` or `pact` in `chain`."""

    by: Digest
    chain: Digest
    grant: Digest


@dataclass(frozen=True, slots=True)
class Redemption:
    """`redeemed`: `by` asks for an amount of each allocation of `grant`, in order.

    `after` is the challenge: the line digest of the newest record about this grant. A recorded redemption changes it,
    so no redemption can be used twice or signed before the previous one was recorded. `text` is for the provider, such
    as a user name or a public SSH key. It is public and must not hold a secret.
    """

    by: Digest
    chain: Digest
    grant: Digest
    amounts: tuple[int, ...]
    after: Digest
    text: str = ""


@dataclass(frozen=True, slots=True)
class GivingBack:
    """`released`: `by` will not use what is left of `grant`."""

    by: Digest
    chain: Digest
    grant: Digest
    text: str = ""


@dataclass(frozen=True, slots=True)
class CutOff:
    """`cut-off`: `by`, the beneficiary of the pact `grant`, declares itself cut off. A `drill` has no effect."""

    by: Digest
    chain: Digest
    grant: Digest
    drill: bool
    text: str = ""


@dataclass(frozen=True, slots=True)
class Default:
    """`defaulted`, by the grantee: `grant` was not honoured, or lapsed although it was accepted in time."""

    by: Digest
    chain: Digest
    grant: Digest
    text: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """`usage`, by the grantee: it agrees to the provider's `usage` with line digest `usage`."""

    by: Digest
    chain: Digest
    grant: Digest
    usage: Digest


PartyStatement: TypeAlias = GrantRequest | Acceptance | Redemption | GivingBack | CutOff | Default | Agreement


def party_statement(content: PartyStatement) -> Statement:
    """The statement that `content.by` signs. Raises Malformed if it does not read back."""
    body = _party_body(content)
    subject = content.offer if isinstance(content, GrantRequest) else content.chain
    statement = Statement(
        _PARTY_PREDICATES[type(content)], (Subject("offer", subject),), Author("identity", content.by), body
    )
    if read_party_statement(statement) != content:
        raise Malformed("statement is malformed", why="it does not read back as it was written")
    return statement


def read_party_statement(statement: Statement) -> PartyStatement:
    """Parse a statement of an identity about an offer. Its signature is not checked. Raises Malformed."""
    read = _PARTY_READERS.get(statement.predicate)
    if read is None or statement.by is None or statement.by.kind != "identity":
        raise Malformed(
            "not about an offer", why=f"{statement.predicate[:60]!r} is not a statement of an identity about an offer"
        )
    fields, subject = statement.fields(), statement.sole_subject()
    content = read(statement.by.id, subject, fields)
    fields.done()
    if statement.subjects != (Subject("offer", subject),) or statement.objects:
        raise Malformed(f"{statement.predicate} is malformed", why="its subject is not named 'offer'")
    return content


def is_party_statement(statement: Statement) -> bool:
    """Whether the statement is a party statement, by its predicate and its author's kind."""
    return statement.predicate in PARTY and statement.by is not None and statement.by.kind == "identity"


def _party_body(content: PartyStatement) -> dict[str, Json]:
    if isinstance(content, GrantRequest):
        return {
            "allocations": [allocation.to_json() for allocation in content.allocations],
            "number": content.number,
            "pact": content.pact,
            "text": content.text,
        }
    body: dict[str, Json] = {"grant": content.grant}
    if isinstance(content, Redemption):
        return body | {"amounts": list(content.amounts), "after": content.after, "text": content.text}
    if isinstance(content, CutOff):
        return body | {"drill": content.drill, "text": content.text}
    if isinstance(content, GivingBack | Default):
        return body | {"text": content.text}
    if isinstance(content, Agreement):
        return body | {"usage": content.usage}
    return body


def _read_request(by: Digest, offer: Digest, fields: Fields) -> GrantRequest:
    allocations, number = read_allocations(fields), fields.integer("number", most=MAX_INTEGER)
    return GrantRequest(by, offer, allocations, number, fields.boolean("pact"), read_text(fields))


def _read_redemption(by: Digest, chain: Digest, fields: Fields) -> Redemption:
    grant, amounts, after = fields.digest("grant"), read_amounts(fields), fields.digest("after")
    return Redemption(by, chain, grant, amounts, after, read_text(fields))


def _read_cut_off(by: Digest, chain: Digest, fields: Fields) -> CutOff:
    return CutOff(by, chain, fields.digest("grant"), fields.boolean("drill"), read_text(fields))


_PARTY_READERS: Final[Mapping[str, Callable[[Digest, Digest, Fields], PartyStatement]]] = {
    REQUEST: _read_request,
    ACCEPTED: lambda by, chain, fields: Acceptance(by, chain, fields.digest("grant")),
    REDEEMED: _read_redemption,
    RELEASED: lambda by, chain, fields: GivingBack(by, chain, fields.digest("grant"), read_text(fields)),
    CUT_OFF: _read_cut_off,
    DEFAULTED: lambda by, chain, fields: Default(by, chain, fields.digest("grant"), read_text(fields)),
    USAGE: lambda by, chain, fields: Agreement(by, chain, fields.digest("grant"), fields.digest("usage")),
}
_PARTY_PREDICATES: Final[Mapping[type, str]] = {
    GrantRequest: REQUEST,
    Acceptance: ACCEPTED,
    Redemption: REDEEMED,
    GivingBack: RELEASED,
    CutOff: CUT_OFF,
    Default: DEFAULTED,
    Agreement: USAGE,
}
