"""The transport half of UpstreamService."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol, TypeAlias

import grpc

from comity.v1 import upstream_pb2
from comity.v1.upstream_pb2_grpc import UpstreamServiceServicer
from comity.wire import checks, limits, upstream_codec
from comity.wire.doors import require_operator
from comity.wire.upstream_values import ImportEvent, ImportOrder, UpstreamCheck

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Importing(Protocol):
    """The thinking half, for operators: see `services` for what holds of its methods."""

    def run(self, order: ImportOrder) -> AsyncGenerator[ImportEvent, None]:
        """What happens, `ImportDone` last; something every few seconds. Closing it ends the work where it stands."""

    async def check(self, name: str, token: str) -> UpstreamCheck:
        """Raises NotFound where this node observed no such commit."""


class UpstreamServicer(UpstreamServiceServicer):
    def __init__(self, importing: Importing) -> None:
        self._importing = importing

    async def ImportRepository(
        self, request: upstream_pb2.ImportRepositoryRequest, context: Context
    ) -> AsyncIterator[upstream_pb2.ImportRepositoryResponse]:
        require_operator()
        async with aclosing(self._importing.run(upstream_codec.decode_order(request))) as events:
            async for event in events:
                yield upstream_codec.encode_event(event)

    async def CheckUpstream(
        self, request: upstream_pb2.CheckUpstreamRequest, context: Context
    ) -> upstream_pb2.CheckUpstreamResponse:
        require_operator()
        name, token = checks.text(request.name, "name", limits.NAME), checks.text(request.token, "token", limits.TOKEN)
        return upstream_codec.encode_check(await self._importing.check(name, token))
