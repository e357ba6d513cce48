"""The transport half of OfferService."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol, TypeAlias

import grpc

from comity.trust.digest import Digest
from comity.v1 import offer_pb2, types_pb2
from comity.v1.offer_pb2_grpc import OfferServiceServicer
from comity.wire import checks, codecs, limits, offer_codec
from comity.wire.doors import require_operator
from comity.wire.offer_values import Act, GrantQuery, GrantState, OfferQuery, OfferState
from comity.wire.values import Located

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Offering(Protocol):
    """The thinking half: see `services` for what holds of its methods."""

    def search(self, query: OfferQuery) -> AsyncGenerator[OfferState, None]: ...

    def offer(self, offer: Digest) -> AsyncGenerator[Located, None]:
        """Raises NotFound."""

    def grants(self, query: GrantQuery) -> AsyncGenerator[GrantState, None]: ...

    async def allocate(self, act: Act) -> tuple[Located, ...]:
        """For operators. Raises NotFound, Refused, Untrusted, Conflict."""


class OfferServicer(OfferServiceServicer):
    def __init__(self, offering: Offering) -> None:
        self._offering = offering

    async def SearchOffers(
        self, request: offer_pb2.SearchOffersRequest, context: Context
    ) -> AsyncIterator[offer_pb2.OfferState]:
        query = offer_codec.decode_offer_query(request)
        left = query.limit or limits.OFFERS
        async with aclosing(self._offering.search(query)) as states:
            async for state in states:
                yield offer_codec.encode_offer_state(state)
                left -= 1
                if left == 0:
                    return

    async def GetOffer(self, request: offer_pb2.GetOfferRequest, context: Context) -> AsyncIterator[types_pb2.Located]:
        left, room = limits.PROCEEDINGS, limits.PROCEEDINGS_BYTES
        async with aclosing(self._offering.offer(checks.digest(request.offer))) as lines:
            async for located in lines:
                left, room = left - 1, room - len(located.line)
                if left < 0 or room < 0:
                    return
                yield codecs.encode_located(located)

    async def ListGrants(
        self, request: offer_pb2.ListGrantsRequest, context: Context
    ) -> AsyncIterator[offer_pb2.GrantState]:
        query = offer_codec.decode_grant_query(request)
        left = query.limit or limits.GRANTS
        async with aclosing(self._offering.grants(query)) as states:
            async for state in states:
                yield offer_codec.encode_grant_state(state)
                left -= 1
                if left == 0:
                    return

    async def Allocate(self, request: offer_pb2.AllocateRequest, context: Context) -> offer_pb2.AllocateResponse:
        require_operator()
        return offer_codec.encode_allocated(await self._offering.allocate(offer_codec.decode_act(request)))
