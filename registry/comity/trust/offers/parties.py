"""What the other side says of an offer: whoever asks, accepts, redeems, gives back, or was let down.

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

from comity.trust.digest import Digest
from comity.trust.encoding import MAX_INTEGER, Json
from comity.trust.errors import Malformed
from comity.trust.fields import Fields
from comity.trust.offers.capacity import Allocation, read_allocations, read_amounts, read_flag
from comity.trust.offers.records import read_text
from comity.trust.statement import Author, Statement, Subject

REQUEST: Final = "request"
ACCEPTED: Final = "accepted"
REDEEMED: Final = "redeemed"
RELEASED: Final = "released"
CUT_OFF: Final = "cut-off"
DEFAULTED: Final = "defaulted"
USAGE: Final = "usage"
PARTY: Final = (REQUEST, ACCEPTED, REDEEMED, RELEASED, CUT_OFF, DEFAULTED, USAGE)


@dataclass(frozen=True, slots=True)
class Request:
    """`request`: `by` asks for these allocations of `offer`, the version that is in force.

    `number` is the asker's own count, so that two alike requests are two. With `pact` it asks for a standing one.
    """

    by: Digest
    offer: Digest
    allocations: tuple[Allocation, ...]
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


Said: TypeAlias = Request | Acceptance | Redemption | GivingBack | CutOff | Default | Agreement


def said_statement(said: Said) -> Statement:
    """What `said.by` signs. Raises Malformed for one that nobody could read back."""
    body = _body(said)
    subject = said.offer if isinstance(said, Request) else said.chain
    statement = Statement(_PREDICATES[type(said)], (Subject("offer", subject),), Author("identity", said.by), body)
    if read_said(statement) != said:
        raise Malformed("statement is malformed", why="it cannot be read back as it was written")
    return statement


def read_said(statement: Statement) -> Said:
    """What a statement of an identity says of an offer; nothing is proven. Raises Malformed."""
    read = _READERS.get(statement.predicate)
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
    if isinstance(said, Request):
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


def _read_request(by: Digest, offer: Digest, fields: Fields) -> Request:
    allocations, number = read_allocations(fields), fields.integer("number", most=MAX_INTEGER)
    return Request(by, offer, allocations, number, read_flag(fields, "pact"), read_text(fields))


def _read_redemption(by: Digest, chain: Digest, fields: Fields) -> Redemption:
    grant, amounts, after = fields.digest("grant"), read_amounts(fields), fields.digest("after")
    return Redemption(by, chain, grant, amounts, after, read_text(fields))


def _read_cut_off(by: Digest, chain: Digest, fields: Fields) -> CutOff:
    return CutOff(by, chain, fields.digest("grant"), read_flag(fields, "drill"), read_text(fields))


_READERS: Final[Mapping[str, Callable[[Digest, Digest, Fields], Said]]] = {
    REQUEST: _read_request,
    ACCEPTED: lambda by, chain, fields: Acceptance(by, chain, fields.digest("grant")),
    REDEEMED: _read_redemption,
    RELEASED: lambda by, chain, fields: GivingBack(by, chain, fields.digest("grant"), read_text(fields)),
    CUT_OFF: _read_cut_off,
    DEFAULTED: lambda by, chain, fields: Default(by, chain, fields.digest("grant"), read_text(fields)),
    USAGE: lambda by, chain, fields: Agreement(by, chain, fields.digest("grant"), fields.digest("usage")),
}
_PREDICATES: Final[Mapping[type, str]] = {
    Request: REQUEST,
    Acceptance: ACCEPTED,
    Redemption: REDEEMED,
    GivingBack: RELEASED,
    CutOff: CUT_OFF,
    Default: DEFAULTED,
    Agreement: USAGE,
}
