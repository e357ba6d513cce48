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
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from comity.trust.digest import Digest, bare_digest
from comity.trust.encoding import MAX_INTEGER, Json
from comity.trust.errors import Malformed
from comity.trust.fields import Fields
from comity.trust.offers.capacity import MAX_TIME, Allocation, read_allocations, read_amounts, read_remaining
from comity.trust.offers.offer import Offer
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
class Link:
    """Where a record stands in its chain. `chain` is the id of the chain's first offer."""

    chain: Digest
    seq: int
    prev: Digest | None
    at: int
    remaining: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Offered:
    """`offer`."""

    link: Link
    offer: Offer


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """`offer-withdrawn`. `text` tells people why."""

    link: Link
    text: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """`grant`, or `pact` where `pact` is true. `request` is the line digest of what it answers.

    `allocations` may be other than was asked for: they bind nobody before the grantee accepts. `accept_by` is the last
    second at which that can be said, POSIX.
    """

    link: Link
    request: Digest
    grantee: Digest
    allocations: tuple[Allocation, ...]
    accept_by: int
    pact: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """`rejected`. `text` tells people why."""

    link: Link
    request: Digest
    text: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """`accepted`, by the provider's node: `acceptance` is the line digest of the grantee's own `accepted`."""

    link: Link
    grant: Digest
    acceptance: Digest


@dataclass(frozen=True, slots=True)
class Lapsed:
    """`lapsed`."""

    link: Link
    grant: Digest


@dataclass(frozen=True, slots=True)
class Redeemed:
    """`redeemed`, by the provider's node: so much of each allocation, in their order, as the holder's own `redeemed`
    (line digest `redemption`) asks. `cut_off` is the beneficiary's declaration that a pact waits for."""

    link: Link
    grant: Digest
    redemption: Digest
    amounts: tuple[int, ...]
    cut_off: Digest | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """`released`, by the provider's node. `giving_back` is the line digest of the grantee's own `released`; None where
    the grant is over."""

    link: Link
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
    return _PREDICATES[type(record)]


def read_record(statement: Statement) -> Record:
    """What a record says; nothing is proven, and no chain is looked at. Raises Malformed."""
    read = _READERS.get(statement.predicate)
    if read is None or statement.by is None or statement.by.kind != "node":
        raise Malformed("not a record of an offer", why=f"a node does not say {statement.predicate[:60]!r} of an offer")
    fields = statement.fields()
    prev = fields.take("prev")
    link = Link(
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


def _read_grant(link: Link, fields: Fields, pact: bool) -> Grant:
    return Grant(
        link,
        fields.digest("request"),
        fields.digest("grantee"),
        read_allocations(fields),
        fields.integer("accept_by", most=MAX_TIME),
        pact,
    )


def _read_redeemed(link: Link, fields: Fields) -> Redeemed:
    return Redeemed(
        link,
        fields.digest("grant"),
        fields.digest("redemption"),
        read_amounts(fields),
        read_digest_or_none(fields, "cut_off"),
    )


def _read_rejected(link: Link, fields: Fields) -> Rejected:
    return Rejected(link, fields.digest("request"), read_text(fields))


def read_digest_or_none(fields: Fields, name: str) -> Digest | None:
    """A member that is a digest or null. Raises Malformed."""
    value = fields.take(name)
    return None if value is None else bare_digest(value)


def read_text(fields: Fields) -> str:
    """The member `text`: at most 1,000 characters for people. Raises Malformed."""
    return fields.text("text", least=0, most=MAX_TEXT, lines=True)


_READERS: Final[Mapping[str, Callable[[Link, Fields], Record]]] = {
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
_PREDICATES: Final[Mapping[type, str]] = {
    Offered: OFFER,
    Withdrawn: WITHDRAWN,
    Rejected: REJECTED,
    Accepted: ACCEPTED,
    Lapsed: LAPSED,
    Redeemed: REDEEMED,
    Released: RELEASED,
}
