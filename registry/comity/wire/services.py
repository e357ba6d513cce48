"""The services of comity.v1: what implements each, how it is registered with a server, and the rules of their calls.

The rules are read from the contract itself (`access.CallRule`). Health and reflection, which are gRPC's own, are for
everybody; stock tools call them without a deadline.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from typing import Final

import grpc

from comity.trust.errors import ComityError
from comity.trust.frozen import frozen
from comity.v1 import access_pb2
from comity.wire import artifact, audit, blob, bundle, charter, log, news, node, offer, operator, pin, publish, upstream
from comity.wire.access import CallRule
from comity.wire.artifact import ArtifactService
from comity.wire.audit import AuditService
from comity.wire.blob import BlobService
from comity.wire.bundle import BundleService
from comity.wire.charter import CharterService
from comity.wire.log import LogService
from comity.wire.news import NewsService
from comity.wire.node import NodeService
from comity.wire.offer import OfferService
from comity.wire.operator import OperatorService
from comity.wire.pin import PinService
from comity.wire.publish import PublishService
from comity.wire.rpc import Context, Handler
from comity.wire.upstream import UpstreamService


@frozen
class Services:
    """What implements the services of a node, the same at all of its ports; a call of None is answered with
    UNIMPLEMENTED. Each has the name of its .proto file."""

    node: NodeService | None = None
    log: LogService | None = None
    artifact: ArtifactService | None = None
    blob: BlobService | None = None
    publish: PublishService | None = None
    operator: OperatorService | None = None
    charter: CharterService | None = None
    offer: OfferService | None = None
    upstream: UpstreamService | None = None
    news: NewsService | None = None
    audit: AuditService | None = None
    bundle: BundleService | None = None
    pin: PinService | None = None


_MODULES: Final = (node, log, news, artifact, blob, charter, offer, audit, publish, operator, upstream, bundle, pin)
_RPCS: Final = {module.__name__.rpartition(".")[2]: module.rpc for module in _MODULES}
"""The calls of each service, by its field of `Services`."""
SERVICES: Final = frozenset(rpcs.service.full_name for rpcs in _RPCS.values())
"""All services of `comity.v1`, by their full names."""
_OF_GRPC: Final = (
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/List",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
)
CALL_RULES: Final[dict[str, CallRule]] = {
    **{
        rpc.path: rule
        for rpcs in _RPCS.values()
        for rpc in rpcs.declared
        if (rule := CallRule.declared(rpc.descriptor)) is not None
    },
    **dict.fromkeys(_OF_GRPC, CallRule(access_pb2.WHO_ANYONE, needs_deadline=False)),
}
"""The rule of each call, by its path. `server.Guard` refuses every other call."""


def register(services: Services, server: grpc.aio.Server) -> None:
    """Register each service that is implemented."""
    for field, rpcs in _RPCS.items():
        implementation = getattr(services, field)
        if implementation is not None:
            handlers = {rpc.descriptor.name: rpc.handler(implementation) for rpc in rpcs.declared}
            name = rpcs.service.full_name
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
            server.add_registered_method_handlers(name, handlers)


def announced(services: Services, callers: Collection[access_pb2.Who.ValueType]) -> tuple[str, ...]:
    """Returns the full names of the services that are implemented and have a call for one of `callers`."""
    return tuple(
        rpcs.service.full_name
        for field, rpcs in _RPCS.items()
        if getattr(services, field) is not None
        and any((rule := CALL_RULES.get(rpc.path)) is not None and rule.who in callers for rpc in rpcs.declared)
    )


class RefusedServices(grpc.GenericRpcHandler):
    """Answers every call of the named services with an error: of services that another process of the node has.

    Args:
        names: full names of services.
        refusal: makes the error.
    """

    def __init__(self, names: frozenset[str], refusal: Callable[[], ComityError]) -> None:
        self._names = names
        self._refusal = refusal

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        service = handler_call_details.method.strip("/").partition("/")[0]
        return grpc.stream_stream_rpc_method_handler(self._refuse) if service in self._names else None

    async def _refuse(self, requests: AsyncIterator[bytes], context: Context) -> AsyncGenerator[bytes, None]:
        raise self._refusal()
        yield b""
