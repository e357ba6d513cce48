"""The services of comity.v1: what implements each, how it is registered with a server, and the rules of their calls.

The rules are read from the contract itself (`access.CallRule`). Health and reflection, which are gRPC's own, are for
everybody; stock tools call them without a deadline.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc
from google.protobuf.message_factory import GetMessageClass

from comity.trust.errors import ComityError
from comity.v1 import (
    access_pb2,
    artifact_pb2,
    audit_pb2,
    blob_pb2,
    bundle_pb2,
    charter_pb2,
    log_pb2,
    news_pb2,
    node_pb2,
    offer_pb2,
    operator_pb2,
    pin_pb2,
    publish_pb2,
    upstream_pb2,
)
from comity.wire.access import CallRule
from comity.wire.artifact import ArtifactReads, ArtifactServicer
from comity.wire.audit import AuditReads, AuditServicer
from comity.wire.blob import BlobReads, BlobServicer
from comity.wire.bundle import BundleLoads, BundleServicer
from comity.wire.charter import CharterReads, CharterServicer
from comity.wire.log import LogReads, LogServicer
from comity.wire.news import NewsReads, NewsServicer
from comity.wire.node import NodeReads, NodeServicer
from comity.wire.offer import OfferService, OfferServicer
from comity.wire.operator import OperateService, OperatorServicer
from comity.wire.pin import PinOrders, PinServicer
from comity.wire.publish import PublishService, PublishServicer
from comity.wire.upstream import ImportService, UpstreamServicer

if TYPE_CHECKING:
    from google.protobuf.descriptor import ServiceDescriptor

# The four kinds of handlers have different types, which gRPC's types cannot express.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True, slots=True)
class Services:
    """What implements the services of a node, the same at all of its ports; a call of None is answered with
    UNIMPLEMENTED."""

    node: NodeReads | None = None
    logs: LogReads | None = None
    artifacts: ArtifactReads | None = None
    blobs: BlobReads | None = None
    publishing: PublishService | None = None
    operating: OperateService | None = None
    governance: CharterReads | None = None
    offers: OfferService | None = None
    importing: ImportService | None = None
    news: NewsReads | None = None
    audits: AuditReads | None = None
    loading: BundleLoads | None = None
    pinning: PinOrders | None = None


@dataclass(frozen=True, slots=True)
class _Service:
    """One service. `field` is that of `Services`; `servicer` makes what answers its calls."""

    field: str
    descriptor: ServiceDescriptor
    servicer: Callable[[Any], Any]

    @classmethod
    def of(cls, field: str, file: Any, servicer: Callable[[Any], Any]) -> _Service:
        (descriptor,) = file.DESCRIPTOR.services_by_name.values()  # each file has one service
        return cls(field, descriptor, servicer)

    def register(self, implementation: object, server: grpc.aio.Server) -> None:
        servicer, name = self.servicer(implementation), self.descriptor.full_name
        handlers = {method.name: _handler(getattr(servicer, method.name), method) for method in self.descriptor.methods}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        server.add_registered_method_handlers(name, handlers)


def _handler(answer: Callable[..., Any], method: Any) -> Handler:
    """What gRPC calls for a method with this descriptor. `Read` answers with bytes, without a message around them."""
    made = _HANDLERS[method.client_streaming, method.server_streaming]
    response = None if method.full_name == _RAW else GetMessageClass(method.output_type).SerializeToString
    return made(answer, GetMessageClass(method.input_type).FromString, response)


_RAW: Final = "comity.v1.BlobService.Read"
_HANDLERS: Final[dict[tuple[bool, bool], Callable[..., Handler]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
}
_SERVICES: Final = (
    _Service.of("node", node_pb2, NodeServicer),
    _Service.of("logs", log_pb2, LogServicer),
    _Service.of("news", news_pb2, NewsServicer),
    _Service.of("artifacts", artifact_pb2, ArtifactServicer),
    _Service.of("blobs", blob_pb2, BlobServicer),
    _Service.of("governance", charter_pb2, CharterServicer),
    _Service.of("offers", offer_pb2, OfferServicer),
    _Service.of("audits", audit_pb2, AuditServicer),
    _Service.of("publishing", publish_pb2, PublishServicer),
    _Service.of("operating", operator_pb2, OperatorServicer),
    _Service.of("importing", upstream_pb2, UpstreamServicer),
    _Service.of("loading", bundle_pb2, BundleServicer),
    _Service.of("pinning", pin_pb2, PinServicer),
)
SERVICES: Final = frozenset(service.descriptor.full_name for service in _SERVICES)
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
        f"/{service.descriptor.full_name}/{method.name}": rule
        for service in _SERVICES
        for method in service.descriptor.methods
        if (rule := CallRule.declared(method)) is not None
    },
    **dict.fromkeys(_OF_GRPC, CallRule(access_pb2.WHO_ANYONE, needs_deadline=False)),
}
"""The rule of each call, by its path. `server.Guard` refuses every other call."""


def register(services: Services, server: grpc.aio.Server) -> None:
    """Register each service that is implemented."""
    for service in _SERVICES:
        implementation = getattr(services, service.field)
        if implementation is not None:
            service.register(implementation, server)


def announced(services: Services, callers: Collection[access_pb2.Who.ValueType]) -> tuple[str, ...]:
    """Returns the full names of the services that are implemented and have a call for one of `callers`."""
    return tuple(
        service.descriptor.full_name
        for service in _SERVICES
        if getattr(services, service.field) is not None
        and any(
            (rule := CALL_RULES.get(f"/{service.descriptor.full_name}/{method.name}")) is not None
            and rule.who in callers
            for method in service.descriptor.methods
        )
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
