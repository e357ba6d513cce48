"""The chain of an offer: what the provider's node says about it, each record linked to the one before.

    offer            the offer itself, or one that supersedes the last; the chain is named by its first offer
    offer-withdrawn  nothing more is given out; what was given stands
    grant, pact      answers a request: reserved from here on; a pact may be used only once its beneficiary is cut off
    rejected         answers a request: no
    accepted         the grantee accepted in time; this cannot be withdrawn on paper
    lapsed           the grantee did not
    redeemed         so much was handed over, on the holder's own word
    released         what was not used returns: on the grantee's word, or after the end

A record says `seq`, the line digest of the record before (`prev`), when it was made (`at`, by the provider's clock,
never earlier than the record before), what is left of each slice after it (`remaining`), and the line digest of the
other party's statement that it answers. Records are signed by the node whose log the offer names, and count only at
their index in that log. What they add up to is computed in `book`. Source: protocol, section 9; `at` and that the
first offer is number 0 of its own chain are ours.


What the other side says of an offer: whoever asks, accepts, redeems, gives back, or was let down.

    request    an identity asks for nodes of an offer, or for a standing pact
    accepted   it accepts a grant; the provider's `accepted` records it in the chain
    redeemed   it asks to use so much of a grant now; proves that it holds the key
    released   it gives back what it did not use
    cut-off    it declares itself cut off: a pact becomes redeemable, and nobody is asked
    defaulted  it says that an accepted grant was not honoured; a node's `defaulted` is the provider's answer
    usage      it agrees to what the provider's node says was used (`accounts`)

They are signed by the grantee's identity, a member's or a publisher's, at its own desk. The subject is the offer asked
for, or the chain of the grant. A statement is named by the digest of its line. Source: protocol, section 9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from comity.trust.encoding import MAX_INTEGER, Digest, Fields, Json, bare_digest
from comity.trust.errors import Malformed
from comity.trust.offers.offer import (
    MAX_TIME,
    Offer,
    SliceAllocation,
    read_allocations,
    read_amounts,
    read_flag,
    read_remaining,
)
from comity.trust.statement import Author, Statement, Subject

OFFER: Final = "offer"
WITHDRAWN: Final = "offer-withdrawn"
GRANT: Final = "grant"
PACT: Final = "pact"
REJECTED: Final = "rejected"
ACCEPTED: Final = "accepted"
LAPSED: Final = "lapsed"
REDEEMED: Final = "redeemed"
RELEASED: Final = "released"
RECORDS: Final = (OFFER, WITHDRAWN, GRANT, PACT, REJECTED, ACCEPTED, LAPSED, REDEEMED, RELEASED)
MAX_TEXT: Final = 1000


@dataclass(frozen=True, slots=True)
class ChainLink:
    """Where a record stands in its chain. `chain` is the id of the chain's first offer."""

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
    """`offer-withdrawn`. `text` tells people why."""

    link: ChainLink
    text: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """`grant`, or `pact` where `pact` is true. `request` is the line digest of what it answers.

    `allocations` may be other than was asked for: they bind nobody before the grantee accepts. `accept_by` is the last
    second at which that can be said, POSIX.
    """

    link: ChainLink
    request: Digest
    grantee: Digest
    allocations: tuple[SliceAllocation, ...]
    accept_by: int
    pact: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """`rejected`. `text` tells people why."""

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
    """`redeemed`, by the provider's node: so much of each allocation, in their order, as the holder's own `redeemed`
    (line digest `redemption`) asks. `cut_off` is the beneficiary's declaration that a pact waits for."""

    link: ChainLink
    grant: Digest
    redemption: Digest
    amounts: tuple[int, ...]
    cut_off: Digest | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """`released`, by the provider's node. `giving_back` is the line digest of the grantee's own `released`; None where
    the grant is over."""

    link: ChainLink
    grant: Digest
    giving_back: Digest | None = None


Record: TypeAlias = Offered | Withdrawn | Grant | Rejected | Accepted | Lapsed | Redeemed | Released


def record_statement(record: Record, node: Author) -> Statement:
    """What `node`, whose log the offer names, signs. Raises Malformed for a record that nobody could read back."""
    link = record.link
    body: dict[str, Json] = {
        "chain": link.chain,
        "seq": link.seq,
        "prev": link.prev,
        "at": link.at,
        "remaining": list(link.remaining),
        **_said(record),
    }
    statement = Statement(predicate_of(record), _subjects(record), node, body)
    if read_record(statement) != record:
        raise Malformed("record is malformed", why="it cannot be read back as it was written")
    return statement


def predicate_of(record: Record) -> str:
    if isinstance(record, Grant):
        return PACT if record.pact else GRANT
    return _RECORD_PREDICATES[type(record)]


def read_record(statement: Statement) -> Record:
    """What a record says; nothing is proven, and no chain is looked at. Raises Malformed."""
    read = _RECORD_READERS.get(statement.predicate)
    if read is None or statement.by is None or statement.by.kind != "node":
        raise Malformed("not a record of an offer", why=f"a node does not say {statement.predicate[:60]!r} of an offer")
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
        raise Malformed(f"{statement.predicate} is malformed", why="its subject is not the offer that it is about")
    return record


def is_record(statement: Statement) -> bool:
    """Whether it is one by its predicate and its author's kind."""
    return statement.predicate in RECORDS and statement.by is not None and statement.by.kind == "node"


def _subjects(record: Record) -> tuple[Subject, ...]:
    """The chain; and the offer, where it supersedes the one that the chain is named by."""
    named = [record.link.chain]
    if isinstance(record, Offered) and record.offer.id != record.link.chain:
        named.append(record.offer.id)
    return tuple(Subject("offer", digest) for digest in named)


def _said(record: Record) -> dict[str, Json]:
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
        read_digest_or_none(fields, "cut_off"),
    )


def _read_rejected(link: ChainLink, fields: Fields) -> Rejected:
    return Rejected(link, fields.digest("request"), read_text(fields))


def read_digest_or_none(fields: Fields, name: str) -> Digest | None:
    """A member that is a digest or null. Raises Malformed."""
    value = fields.take(name)
    return None if value is None else bare_digest(value)


def read_text(fields: Fields) -> str:
    """The member `text`: at most 1,000 characters for people. Raises Malformed."""
    return fields.text("text", least=0, most=MAX_TEXT, lines=True)


_RECORD_READERS: Final[Mapping[str, Callable[[ChainLink, Fields], Record]]] = {
    OFFER: lambda link, fields: Offered(link, Offer.from_json(fields.take("offer"))),
    WITHDRAWN: lambda link, fields: Withdrawn(link, read_text(fields)),
    GRANT: lambda link, fields: _read_grant(link, fields, False),
    PACT: lambda link, fields: _read_grant(link, fields, True),
    REJECTED: _read_rejected,
    ACCEPTED: lambda link, fields: Accepted(link, fields.digest("grant"), fields.digest("acceptance")),
    LAPSED: lambda link, fields: Lapsed(link, fields.digest("grant")),
    REDEEMED: _read_redeemed,
    RELEASED: lambda link, fields: Released(link, fields.digest("grant"), read_digest_or_none(fields, "giving_back")),
}
_RECORD_PREDICATES: Final[Mapping[type, str]] = {
    Offered: OFFER,
    Withdrawn: WITHDRAWN,
    Rejected: REJECTED,
    Accepted: ACCEPTED,
    Lapsed: LAPSED,
    Redeemed: REDEEMED,
    Released: RELEASED,
}


REQUEST: Final = "request"
CUT_OFF: Final = "cut-off"
DEFAULTED: Final = "defaulted"
USAGE: Final = "usage"
PARTY: Final = (REQUEST, ACCEPTED, REDEEMED, RELEASED, CUT_OFF, DEFAULTED, USAGE)


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """`request`: `by` asks for these allocations of `offer`, the version that is in force.

    `number` is the asker's own count, so that two alike requests are two. With `pact` it asks for a standing one.
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
    """`redeemed`: `by` asks for so much of each allocation of `grant`, in their order.

    `after` is the challenge: the line digest of the newest record about this grant. A redemption that was recorded
    moves it on, so that no redemption can be used twice, and none was signed before the one before was recorded.
    `text` is for whoever hands over: a user name, a public SSH key. Never a secret: it is logged.
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
    """`cut-off`: `by`, the beneficiary of the pact `grant`, declares itself cut off. A `drill` opens nothing."""

    by: Digest
    chain: Digest
    grant: Digest
    drill: bool
    text: str = ""


@dataclass(frozen=True, slots=True)
class Default:
    """`defaulted`, by the grantee: `grant` was not honoured, or a lapse was recorded though it was accepted in time."""

    by: Digest
    chain: Digest
    grant: Digest
    text: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """`usage`, by the grantee: what the provider's `usage` of line digest `usage` says was used, was."""

    by: Digest
    chain: Digest
    grant: Digest
    usage: Digest


Said: TypeAlias = GrantRequest | Acceptance | Redemption | GivingBack | CutOff | Default | Agreement


def said_statement(said: Said) -> Statement:
    """What `said.by` signs. Raises Malformed for one that nobody could read back."""
    body = _body(said)
    subject = said.offer if isinstance(said, GrantRequest) else said.chain
    statement = Statement(
        _PARTY_PREDICATES[type(said)], (Subject("offer", subject),), Author("identity", said.by), body
    )
    if read_said(statement) != said:
        raise Malformed("statement is malformed", why="it cannot be read back as it was written")
    return statement


def read_said(statement: Statement) -> Said:
    """What a statement of an identity says of an offer; nothing is proven. Raises Malformed."""
    read = _PARTY_READERS.get(statement.predicate)
    if read is None or statement.by is None or statement.by.kind != "identity":
        raise Malformed("not about an offer", why=f"an identity does not say {statement.predicate[:60]!r} of an offer")
    fields, subject = statement.fields(), statement.sole_subject()
    said = read(statement.by.id, subject, fields)
    fields.done()
    if statement.subjects != (Subject("offer", subject),) or statement.objects:
        raise Malformed(f"{statement.predicate} is malformed", why="its subject is not called 'offer'")
    return said


def is_said(statement: Statement) -> bool:
    """Whether it is one by its predicate and its author's kind."""
    return statement.predicate in PARTY and statement.by is not None and statement.by.kind == "identity"


def _body(said: Said) -> dict[str, Json]:
    if isinstance(said, GrantRequest):
        return {
            "allocations": [allocation.to_json() for allocation in said.allocations],
            "number": said.number,
            "pact": said.pact,
            "text": said.text,
        }
    body: dict[str, Json] = {"grant": said.grant}
    if isinstance(said, Redemption):
        return body | {"amounts": list(said.amounts), "after": said.after, "text": said.text}
    if isinstance(said, CutOff):
        return body | {"drill": said.drill, "text": said.text}
    if isinstance(said, GivingBack | Default):
        return body | {"text": said.text}
    if isinstance(said, Agreement):
        return body | {"usage": said.usage}
    return body


def _read_request(by: Digest, offer: Digest, fields: Fields) -> GrantRequest:
    allocations, number = read_allocations(fields), fields.integer("number", most=MAX_INTEGER)
    return GrantRequest(by, offer, allocations, number, read_flag(fields, "pact"), read_text(fields))


def _read_redemption(by: Digest, chain: Digest, fields: Fields) -> Redemption:
    grant, amounts, after = fields.digest("grant"), read_amounts(fields), fields.digest("after")
    return Redemption(by, chain, grant, amounts, after, read_text(fields))


def _read_cut_off(by: Digest, chain: Digest, fields: Fields) -> CutOff:
    return CutOff(by, chain, fields.digest("grant"), read_flag(fields, "drill"), read_text(fields))


_PARTY_READERS: Final[Mapping[str, Callable[[Digest, Digest, Fields], Said]]] = {
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
