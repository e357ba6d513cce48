"""`OfferService`: offers, grants and the operator's actions. Values and calls.

States and amounts are computed by the answering node; log lines are passed on as bytes. Nothing is verified here:
`comity.rules.offers` computes states and amounts from the lines.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Final, Protocol, TypeAlias

from comity.rules.hardware_evidence import MAX_EVIDENCE
from comity.rules.offers.offer import MAX_BYTES, MAX_SLICES, MAX_TIME, SliceAllocation, Window
from comity.rules.offers.records import MAX_TEXT
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.v1 import offer_pb2
from comity.wire import limits
from comity.wire.calls import ServiceCalls, call, collected
from comity.wire.codec import LOG, At, Data, Exact, Items, Merged, MessageCodec, Number, OneOfCodec, Read, Sentence
from comity.wire.messages import LocatedEntry
from comity.wire.rpc import Rpcs

rpc = Rpcs(offer_pb2)


def _read_long_text(value: str) -> str:
    """A text of at most MAX_TEXT characters. The parser of its statement checks the characters."""
    if len(value) > MAX_TEXT:
        raise Malformed("text too long", why=f"at most {MAX_TEXT} characters are read")
    return value


_LongText: TypeAlias = Annotated[str, Read(_read_long_text)]
_Amounts: TypeAlias = Annotated[tuple[int, ...], Items(MAX_SLICES)]
_Jurisdictions: TypeAlias = Annotated[tuple[str, ...], Items(limits.JURISDICTIONS, Exact(limits.LABEL))]
_ALLOCATION: Final = MessageCodec(
    SliceAllocation,
    offer_pb2.Allocation,
    slice=Exact(limits.LABEL),
    start=Number(most=MAX_TIME),
    end=Number(most=MAX_TIME),
)


@frozen
class OfferQuery:
    """A search for offers. All given fields must match.

    Attributes:
        accelerator: SkyPilot's name; upper and lower case are equal.
        least_amount: minimum amount left of one slice, with that accelerator if one is given.
        jurisdictions: the machines are in one of these.
        beyond_reach_of: the offer's legal reach contains none of these.
        artifact: digest of a model that is stored near the machines.
        ends_after: POSIX seconds; the window ends later.
        closed: include offers that are withdrawn or have a fault.
        after: the last chain of the previous page.
        limit: at most 1,000; 0 for the maximum.
    """

    accelerator: Annotated[str, Exact(limits.LABEL)] = ""
    least_amount: int = 0
    jurisdictions: _Jurisdictions = ()
    beyond_reach_of: _Jurisdictions = ()
    artifact: Digest | None = None
    engine: Annotated[str, Exact(limits.LABEL)] = ""
    measure: Annotated[str, Exact(limits.LABEL)] = ""
    provider: Digest | None = None
    ends_after: int | None = None
    closed: bool = False
    after: Digest | None = None
    limit: Annotated[int, Number(most=limits.OFFERS)] = 0


@frozen
class OfferStatus:
    """The offer in force of one chain, and the state that a node computed."""

    offer: LocatedEntry
    vkey: Annotated[str, LOG]
    chain: Digest
    remaining: _Amounts
    seq: int
    at: int
    withdrawn: bool = False
    fault: Sentence = ""


@frozen
class GrantQuery:
    """A list of requests. All given fields must match. `after` is the last request of the previous page."""

    offer: Digest | None = None
    grantee: Digest | None = None
    state: Annotated[str, Exact(limits.LABEL)] = ""
    after: Digest | None = None
    limit: Annotated[int, Number(most=limits.GRANTS)] = 0


@frozen
class GrantStatus:
    """A request and its state: requested, granted, rejected, accepted, lapsed or released.

    Attributes:
        answer: the record that grants or rejects the request.
        redeemed: amount redeemed of each allocation, in order.
        newest: line digest of the newest record about the grant: the challenge of the next redemption.
        statements: line digests of statements about the grant that are not records.
    """

    request: LocatedEntry
    chain: Digest
    state: Annotated[str, Exact(limits.LABEL)]
    answer: LocatedEntry | None = None
    redeemed: _Amounts = ()
    newest: Digest | None = None
    statements: Annotated[tuple[Digest, ...], At("said"), Items(limits.GRANT_STATEMENTS)] = ()


@frozen
class Post:
    """Log an offer: its document in canonical form."""

    document: Annotated[bytes, Data(MAX_BYTES)]


@frozen
class Withdraw:
    """Withdraw an offer."""

    offer: Digest
    text: _LongText = ""


@frozen
class Approve:
    """Grant a request (line digest). Without `allocations`, grant what was requested."""

    request: Digest
    allocations: Annotated[tuple[SliceAllocation, ...], Items(MAX_SLICES, _ALLOCATION)] = ()


@frozen
class Reject:
    """Reject a request (line digest)."""

    request: Digest
    text: _LongText = ""


@frozen
class Redeem:
    """Record a grantee's `redeemed` (line digest)."""

    redemption: Digest


@frozen
class Release:
    """Release a grant (line digest) that is over or was given back."""

    grant: Digest


@frozen
class AnswerDefault:
    """Answer a grantee's `defaulted` (line digest)."""

    default: Annotated[Digest, At("default_line")]
    text: _LongText


@frozen
class UsageReport:
    """Log the amounts used of a grant (line digest) within a window."""

    grant: Digest
    amounts: _Amounts
    window: Annotated[Window, Merged(start=Number(), end=Number())]
    text: _LongText = ""


@frozen
class Attest:
    """Log hardware evidence (`comity.rules.hardware_evidence`) of an offer's machines, for the challenge that names the
    first `size` entries of the node's log, with this `root`."""

    offer: Digest
    size: int
    root: Digest
    evidence: Annotated[bytes, Data(MAX_EVIDENCE)]


OfferAction: TypeAlias = Post | Withdraw | Approve | Reject | Redeem | Release | AnswerDefault | UsageReport | Attest


ACTION: Final = OneOfCodec[OfferAction, offer_pb2.AllocateRequest](
    offer_pb2.AllocateRequest,
    "act",
    post=Post,
    withdraw=Withdraw,
    approve=Approve,
    reject=Reject,
    redeem=Redeem,
    release=Release,
    answer=AnswerDefault,
    report=UsageReport,
    attest=Attest,
)
ANY_OFFER: Final = OfferQuery()
ANY_GRANT: Final = GrantQuery()


class OfferService(Protocol):
    @rpc("SearchOffers", items=limits.OFFERS)
    def search(self, query: OfferQuery = ANY_OFFER) -> AsyncGenerator[OfferStatus, None]:
        """Offers in force that match, those of each log in turn, at most 1,000; use `after` for the next page."""

    @rpc("GetOffer", items=limits.ANSWER_LINES, size=limits.ANSWER_BYTES + limits.ANSWER_LINES * limits.NAME, cut=True)
    def offer(self, offer: Digest) -> AsyncGenerator[LocatedEntry, None]:
        """The lines about the chain of an offer, of any version: first lines of its own log in order, then lines that
        only other logs hold. `comity.rules.offers.log_reader.OfferLogReader` reads the former. Raises NotFound."""

    @rpc("ListGrants", items=limits.GRANTS, size=4 * limits.ANSWER)
    def grants(self, query: GrantQuery = ANY_GRANT) -> AsyncGenerator[GrantStatus, None]:
        """Requests and their states, at most 10,000; use `after` for the next page."""

    @rpc("Allocate")
    async def allocate(
        self, action: Annotated[OfferAction, ACTION]
    ) -> Annotated[tuple[LocatedEntry, ...], Items(limits.ALLOCATED)]:
        """Perform an action. Safe to repeat. The last returned entry is the record in the node's log.

        Raises NotFound, Refused (OFFER-CAPACITY, OFFER-STATE, OFFER-FULL, OFFER-ELIGIBILITY), Untrusted, Conflict.
        """


class OfferCalls(ServiceCalls):
    search = collected(OfferService.search)
    get = collected(OfferService.offer)
    grants = collected(OfferService.grants)
    allocate = call(OfferService.allocate)
