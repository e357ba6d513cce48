"""Calls of OfferService, for `NodeClient.offers`."""

from __future__ import annotations

from comity.trust.digest import Digest
from comity.v1 import offer_pb2
from comity.v1.offer_pb2_grpc import OfferServiceStub
from comity.wire import codecs, limits, offer_codec
from comity.wire.calls import Calls
from comity.wire.checks import digest_bytes
from comity.wire.offer_values import Act, GrantQuery, GrantState, OfferQuery, OfferState
from comity.wire.values import Located


class OfferCalls:
    """What a node knows of compute offers. May raise what every call of `NodeClient` may."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._offer = OfferServiceStub(calls.connection.channel)

    async def search(self, query: OfferQuery | None = None) -> tuple[OfferState, ...]:
        """Offers in force that match, by the id of their chain; at most 1,000, then ask again `after` the last."""
        request = offer_codec.encode_offer_query(query or OfferQuery())
        return await self._calls.all(self._offer.SearchOffers, request, offer_codec.decode_offer_state, limits.OFFERS)

    async def get(self, offer: Digest) -> tuple[Located, ...]:
        """The lines about the chain of an offer, of any version: those of its own log in order, then those that only
        other logs hold. `comity.trust.offers.OfferLog` reads the former. Raises NotFound."""
        request = offer_pb2.GetOfferRequest(offer=digest_bytes(offer))
        size = limits.PROCEEDINGS_BYTES + limits.PROCEEDINGS * limits.NAME
        return await self._calls.all(self._offer.GetOffer, request, codecs.decode_located, limits.PROCEEDINGS, size)

    async def grants(self, query: GrantQuery | None = None) -> tuple[GrantState, ...]:
        """Requests and what became of them; at most 10,000, then ask again `after` the last."""
        request = offer_codec.encode_grant_query(query or GrantQuery())
        return await self._calls.all(
            self._offer.ListGrants, request, offer_codec.decode_grant_state, limits.GRANTS, 4 * limits.ANSWER
        )

    async def allocate(self, act: Act) -> tuple[Located, ...]:
        """For operators: post, withdraw, approve, reject, redeem, release, answer, report. Safe to repeat. The record
        that now stands in the node's log is the last line.

        Raises NotFound, Refused (OFFER-CAPACITY, OFFER-STATE, OFFER-FULL, OFFER-ELIGIBILITY), Untrusted, Conflict.
        """
        answer = await self._calls.unary(self._offer.Allocate, offer_codec.encode_act(act))
        return offer_codec.decode_allocated(answer)
