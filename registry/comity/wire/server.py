"""A gRPC server for one door, with a guard in front and only the services that the door offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import grpc

from comity.v1 import blob_pb2
from comity.v1.artifact_pb2_grpc import add_ArtifactServiceServicer_to_server
from comity.v1.blob_pb2_grpc import add_BlobServiceServicer_to_server
from comity.v1.charter_pb2_grpc import add_CharterServiceServicer_to_server
from comity.v1.log_pb2_grpc import add_LogServiceServicer_to_server
from comity.v1.node_pb2_grpc import add_NodeServiceServicer_to_server
from comity.v1.offer_pb2_grpc import add_OfferServiceServicer_to_server
from comity.v1.operator_pb2_grpc import add_OperatorServiceServicer_to_server
from comity.v1.publish_pb2_grpc import add_PublishServiceServicer_to_server
from comity.v1.upstream_pb2_grpc import add_UpstreamServiceServicer_to_server
from comity.wire import limits, servicers
from comity.wire.doors import Door
from comity.wire.guards import Admitted, Guard, ignored
from comity.wire.offer_servicer import Offering, OfferServicer
from comity.wire.services import ArtifactReads, BlobReads, Governance, LogReads, NodeReads, Operating, Publishing
from comity.wire.throttle import Throttle
from comity.wire.upstream_servicer import Importing, UpstreamServicer

_BLOBS: Final = "comity.v1.BlobService"
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", limits.MESSAGE),
    ("grpc.max_send_message_length", limits.MESSAGE),
    ("grpc.max_concurrent_streams", limits.STREAMS),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # The pings of our own clients are welcome; by default they count as abuse on a quiet stream.
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    # A connection that has not ended its handshake by then is closed; gRPC's own default is two minutes.
    ("grpc.server_handshake_timeout_ms", int(limits.HANDSHAKE * 1000)),
    ("grpc.max_connection_idle_ms", int(limits.IDLE_CONNECTION * 1000)),
)


@dataclass(frozen=True, slots=True)
class Services:
    """The thinking halves that a door offers; None is answered as not offered here."""

    node: NodeReads | None = None
    logs: LogReads | None = None
    artifacts: ArtifactReads | None = None
    blobs: BlobReads | None = None
    publishing: Publishing | None = None
    operating: Operating | None = None
    governance: Governance | None = None
    offers: Offering | None = None
    importing: Importing | None = None


def make_server(
    door: Door,
    services: Services,
    throttle: Throttle,
    *,
    connections: int = 1024,
    shared_port: bool = False,
    admitted: Admitted = ignored,
) -> grpc.aio.Server:
    """A server that listens nowhere yet: `server.add_secure_port(address, door.credentials())`, then start it.

    Other services (health, reflection) may be added to it, and stand behind the same guard.

    Args:
        throttle: what each caller may use; several servers may share one.
        connections: how many there may be at once; gRPC closes those beyond.
        shared_port: whether another server of this process listens at the same port. Without it the port is refused
            where anybody listens already.
        admitted: is told of each call that is let in: the peer as gRPC names it, and the owner of its connection.
    """
    options = (
        *_OPTIONS,
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.so_reuseport", int(shared_port)),
    )
    server = grpc.aio.server(interceptors=(Guard(door, throttle, admitted),), options=options)
    if services.node:
        add_NodeServiceServicer_to_server(servicers.NodeServicer(services.node), server)
    if services.logs:
        add_LogServiceServicer_to_server(servicers.LogServicer(services.logs), server)
    if services.artifacts:
        add_ArtifactServiceServicer_to_server(servicers.ArtifactServicer(services.artifacts), server)
    if services.blobs:
        _add_blobs(servicers.BlobServicer(services.blobs), server)
    if services.publishing:
        add_PublishServiceServicer_to_server(servicers.PublishServicer(services.publishing), server)
    if services.operating:
        add_OperatorServiceServicer_to_server(servicers.OperatorServicer(services.operating), server)
    if services.governance:
        add_CharterServiceServicer_to_server(servicers.CharterServicer(services.governance), server)
    if services.offers:
        add_OfferServiceServicer_to_server(OfferServicer(services.offers), server)
    if services.importing:
        add_UpstreamServiceServicer_to_server(UpstreamServicer(services.importing), server)
    return server


def _add_blobs(blobs: servicers.BlobServicer, server: grpc.aio.Server) -> None:
    """Register BlobService with Read as bare bytes, which generated code cannot say. Of two handlers for one call,
    grpcio 1.80 and older take the first generic one, newer ones the last registered one."""
    read: grpc.RpcMethodHandler[blob_pb2.ReadRequest, Any] = grpc.unary_stream_rpc_method_handler(
        blobs.Read, request_deserializer=blob_pb2.ReadRequest.FromString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_BLOBS, {"Read": read}),))
    add_BlobServiceServicer_to_server(blobs, server)
    server.add_registered_method_handlers(_BLOBS, {"Read": read})
