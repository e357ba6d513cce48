"""Calls of UpstreamService, for `NodeClient.upstream`. For operators of the node alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from comity.v1 import upstream_pb2
from comity.v1.upstream_pb2_grpc import UpstreamServiceStub
from comity.wire import limits, upstream_codec
from comity.wire.calls import Calls
from comity.wire.upstream_values import ImportEvent, ImportOrder, UpstreamCheck


class UpstreamCalls:
    """May raise what every call of `NodeClient` may."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._upstream = UpstreamServiceStub(calls.connection.channel)

    async def run(self, order: ImportOrder) -> AsyncGenerator[ImportEvent, None]:
        """Have the node import. Ends after an hour at the latest, with Unavailable (DEADLINE): call again then.

        Raises NotFound, Refused, Untrusted, OutOfSpace.
        """
        request = upstream_codec.encode_order(order)
        size = int(limits.LONGEST_CALL * limits.SLOWEST)  # so that the longest deadline holds
        events = self._calls.stream(self._upstream.ImportRepository, request, items=limits.IMPORT_EVENTS, size=size)
        async with aclosing(events):
            async for event in events:
                yield upstream_codec.decode_event(event)

    async def check(self, name: str, token: str = "") -> UpstreamCheck:
        """Have the node ask an upstream again. Raises NotFound, Refused."""
        request = upstream_pb2.CheckUpstreamRequest(name=name, token=token)
        return upstream_codec.decode_check(await self._calls.unary(self._upstream.CheckUpstream, request))
