"""What an operator does with the node's own offers. One record a call, checked and appended in one transaction.

Everything may be done twice: the same request is granted once, the same redemption recorded once, and whoever asks
again is answered with what stands.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from comity.node.allocation.lines import Heard
from comity.node.allocation.ours import Ours
from comity.node.allocation.pen import Made, Pen, carried, held_by, index_of, to
from comity.node.allocation.register import Register
from comity.node.core import Core
from comity.trust.digest import Digest
from comity.trust.errors import ComityError, Conflict, Malformed, Refused
from comity.trust.offers import (
    Acceptance,
    Accepted,
    Answer,
    Book,
    Chain,
    Commitment,
    CutOff,
    Default,
    GivingBack,
    Grant,
    Lapsed,
    Link,
    Offer,
    Offered,
    Record,
    Redeemed,
    Redemption,
    Rejected,
    Released,
    Request,
    Said,
    Usage,
    Withdrawn,
    answer_statement,
    usage_statement,
)
from comity.trust.offers.book import LAPSED, RELEASED
from comity.wire.offer_values import Act, AnswerDefault, Approve, Post, Redeem, Reject, Release, Report, Withdraw
from comity.wire.values import Located

MAX_TRIED: Final = 8
"""Statements that are looked at where some may be forged: those that were proven when they were read come first."""

_S = TypeVar("_S")


class Allocator:
    """The one writer of this node's chains."""

    def __init__(self, core: Core, pen: Pen, register: Register) -> None:
        self._core = core
        self._pen = pen
        self._register = register

    async def do(self, act: Act) -> tuple[Located, ...]:
        """The lines that now stand for it, the record last.

        Raises NotFound, Refused, Untrusted, Malformed, Conflict: which codes, each act says.
        """
        if isinstance(act, Post):
            return await self.post(Offer.parse(act.document))
        if isinstance(act, Withdraw):
            return await self.withdraw(act.offer, act.text)
        if isinstance(act, Approve):
            return await self.approve(act)
        if isinstance(act, Reject):
            return await self.reject(act.request, act.text)
        if isinstance(act, Redeem):
            return await self.redeem(act.redemption)
        if isinstance(act, Release):
            return await self.release(act.grant)
        if isinstance(act, AnswerDefault):
            return await self.answer(act)
        return await self.report(act)

    async def post(self, offer: Offer) -> tuple[Located, ...]:
        """Raises Refused (OFFER-ELSEWHERE) for an offer that names another provider or log."""
        if (offer.provider, offer.log) != (self._core.seat.inception.id, self._core.log):
            raise Refused(
                "this node does not make that offer",
                why="the offer names another provider, or another log that may grant it",
                hint=f"its provider is {self._core.seat.inception.id}, its log {self._core.log}",
                code="OFFER-ELSEWHERE",
            )

        def make(ours: Ours) -> Made:
            known = ours.log.chain_of(offer.id)
            if known is not None:
                return known.offered[[each.id for each in known.book.offers].index(offer.id)]
            chain = ours.chain(offer.supersedes) if offer.supersedes else Chain(Book(offer.id))
            return [ours.sign(self._pen.linked(chain.book, Offered(to(chain), offer)))]

        return await self._pen.write(make)

    async def withdraw(self, offer: Digest, text: str) -> tuple[Located, ...]:
        """Grant no more. Raises NotFound (NO-OFFER)."""

        def make(ours: Ours) -> Made:
            chain = ours.chain(offer)
            if chain.book.withdrawal is not None:
                return index_of(chain, chain.book.withdrawal)
            return [ours.sign(self._pen.linked(chain.book, Withdrawn(to(chain), text)))]

        return await self._pen.write(make)

    async def approve(self, act: Approve) -> tuple[Located, ...]:
        """Grant a request. Raises Refused (OFFER-CAPACITY, OFFER-STATE, OFFER-FULL, OFFER-ELIGIBILITY), and Conflict
        (OFFER-ANSWERED) where it was rejected."""
        heard = await self._pen.hear(act.request)
        request = _expect(heard, Request)
        seat = self._core.membership.member(request.by)

        def make(ours: Ours) -> Made:
            chain = ours.chain(request.offer)
            if (record := _answer(ours, chain, heard)) is not None:
                if record not in chain.book.grants:
                    raise Conflict("the request was rejected", hint="have it asked anew", code="OFFER-ANSWERED")
                return index_of(chain, record)
            offer = _in_force(chain, request)
            if not offer.eligibility.admits(request.by, seat.jurisdiction if seat else None):
                why = f"{request.by} is not among those to whom it was offered"
                raise Refused("not eligible", why=why, code="OFFER-ELIGIBILITY")
            wanted, until = act.allocations or request.allocations, self._pen.now(chain.book) + offer.accept_seconds
            grant = Grant(to(chain), heard.entry.digest, request.by, wanted, until, request.pact)
            return [*carried(ours, heard), ours.sign(self._pen.linked(chain.book, grant))]

        return await self._pen.write(make)

    async def reject(self, line: Digest, text: str) -> tuple[Located, ...]:
        """Say no to a request. Raises Conflict (OFFER-ANSWERED) where it was granted."""
        heard = await self._pen.hear(line)
        request = _expect(heard, Request)

        def make(ours: Ours) -> Made:
            chain = ours.chain(request.offer)
            if (record := _answer(ours, chain, heard)) is not None:
                if record in chain.book.grants:
                    hint = "a grant that nobody accepts lapses by itself"
                    raise Conflict("the request was granted", hint=hint, code="OFFER-ANSWERED")
                return index_of(chain, record)
            rejected = Rejected(to(chain), heard.entry.digest, text)
            return [*carried(ours, heard), ours.sign(self._pen.linked(chain.book, rejected))]

        return await self._pen.write(make)

    async def accept(self, acceptance: Digest) -> tuple[Located, ...]:
        """Record a grantee's `accepted`. Nobody decides about it."""
        heard = await self._pen.hear(acceptance)
        said = _expect(heard, Acceptance)
        return await self._pen.answer(
            heard, said.grant, lambda link, held: Accepted(link, held.digest, heard.entry.digest)
        )

    async def redeem(self, redemption: Digest) -> tuple[Located, ...]:
        """Record that so much is handed over, as the holder asks. Raises Refused (OFFER-STATE): for more than there is,
        after another redemption, or of a pact whose beneficiary has not declared a cut-off."""
        heard = await self._pen.hear(redemption)
        said = _expect(heard, Redemption)
        cut_off = await self._said(
            said.grant, lambda other: isinstance(other, CutOff) and other.by == said.by and not other.drill
        )

        def make(link: Link, held: Commitment) -> Record:
            if said.after != held.newest:
                raise Refused(
                    "this redemption is not for now",
                    why="it was signed before the newest record about the grant, or for another one",
                    hint=f"have it signed anew, after {held.newest}",
                    code="OFFER-STATE",
                )
            declared = cut_off.entry.digest if cut_off and held.grant.pact else None
            return Redeemed(link, held.digest, heard.entry.digest, said.amounts, declared)

        return await self._pen.answer(heard, said.grant, make, *((cut_off,) if cut_off else ()))

    async def release(self, grant: Digest) -> tuple[Located, ...]:
        """Take back what was not redeemed: on the grantee's word where there is one, else after the end."""
        heard = await self._said(grant, lambda said: isinstance(said, GivingBack))
        if heard is None:
            return await self._pen.record(grant, RELEASED, lambda link, held: Released(link, held.digest))
        return await self._pen.answer(heard, grant, lambda link, held: Released(link, held.digest, heard.entry.digest))

    async def lapse(self, grant: Digest) -> tuple[Located, ...]:
        """Record that nobody accepted in time."""
        return await self._pen.record(grant, LAPSED, lambda link, held: Lapsed(link, held.digest))

    async def answer(self, act: AnswerDefault) -> tuple[Located, ...]:
        """Say what the provider has to say to a grantee's `defaulted`."""
        heard = await self._pen.hear(act.default)
        said = _expect(heard, Default)

        def make(ours: Ours) -> Made:
            chain, held = held_by(ours, said.grant)
            answer = Answer(chain.book.chain, held.digest, heard.entry.digest, act.text)
            same = next((stated.index for stated in chain.stated if stated.said == answer), None)
            if same is not None:
                return same
            return [*carried(ours, heard), ours.seal(answer_statement(answer, ours.node))]

        return await self._pen.write(make)

    async def report(self, act: Report) -> tuple[Located, ...]:
        """Say what was used. Raises Refused (OFFER-STATE) for more than was redeemed."""

        def make(ours: Ours) -> Made:
            chain, held = held_by(ours, act.grant)
            usage = Usage(chain.book.chain, held.digest, act.window, act.amounts, act.text)
            said = {stated.said: stated.index for stated in chain.stated if isinstance(stated.said, Usage)}
            if usage in said:
                return said[usage]
            _require_redeemed(held, [*(other for other in said if other.grant == held.digest), usage])
            return [ours.seal(usage_statement(usage, ours.node))]

        return await self._pen.write(make)

    async def _said(self, grant: Digest, wanted: Callable[[Said], bool]) -> Heard | None:
        """What somebody said of a grant, in whichever log it stands, where it can be proven now."""
        told = [item.stated for item in self._register.about(grant) if wanted(item.stated.said)]  # type: ignore[arg-type]
        for stated in sorted(told, key=lambda stated: not stated.proven)[:MAX_TRIED]:
            with suppress(ComityError):
                return await self._pen.hear(stated.line)
        return None


def _expect(heard: Heard, kind: type[_S]) -> _S:
    if not isinstance(heard.said, kind):
        raise Malformed("not that kind of statement", why=f"the line is a {heard.entry.statement.predicate}")
    return heard.said


def _answer(ours: Ours, chain: Chain, heard: Heard) -> Digest | None:
    """The record that answers a request: this line, or the same request signed again."""
    if (record := chain.book.answers.get(heard.entry.digest)) is not None:
        return record
    same = (line for line in chain.book.answers if (known := ours.log.said.get(line)) and known.said == heard.said)
    return next((chain.book.answers[line] for line in same), None)


def _in_force(chain: Chain, request: Request) -> Offer:
    """Raises Refused (OFFER-STATE) for a request that asks for an older version."""
    offer = chain.book.offer
    if request.offer != offer.id:
        hint = f"have the offer in force asked for: {offer.id}"
        raise Refused("the offer was superseded", why="the request asks for what was", hint=hint, code="OFFER-STATE")
    return offer


def _require_redeemed(held: Commitment, usages: list[Usage]) -> None:
    if any(len(usage.amounts) != len(held.redeemed) for usage in usages):
        raise Malformed("not this grant's usage", why=f"it has {len(held.redeemed)} allocations")
    totals = [sum(parts) for parts in zip(*(usage.amounts for usage in usages), strict=True)]
    if any(total > redeemed for total, redeemed in zip(totals, held.redeemed, strict=True)):
        why = f"{', '.join(map(str, totals))} of {', '.join(map(str, held.redeemed))}"
        raise Refused("more was used than redeemed", why=why, code="OFFER-STATE")
