"""Server reflection, by which stock gRPC tools ask for the services of a node: v1alpha, as grpcio-reflection has it,
and v1, which newer tools ask for first.

The two versions have the same messages on the wire; only their package differs. So v1 is the servicer of v1alpha under
the other name, with the description of v1 made from that of v1alpha. Source: grpc/reflection/v1/reflection.proto.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format
from grpc_reflection.v1alpha import reflection, reflection_pb2

ALPHA: Final = "v1alpha"
SERVICE: Final = "grpc.reflection.v1.ServerReflection"
METHOD: Final = "ServerReflectionInfo"


def add_reflection(services: Iterable[str], server: grpc.aio.Server) -> None:
    """Register both versions, which list `services` (full names) and themselves."""
    _describe()
    names = (*services, reflection.SERVICE_NAME, SERVICE)
    reflection.enable_server_reflection(names, server)
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(names).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))


def _describe() -> None:
    """Add the description of v1 to the pool that the servicers read, once in a process."""
    pool = descriptor_pool.Default()
    try:
        pool.FindServiceByName(SERVICE)
    except KeyError:
        alpha = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
        text = json_format.MessageToJson(alpha).replace(ALPHA, "v1")
        pool.AddSerializedFile(json_format.Parse(text, descriptor_pb2.FileDescriptorProto()).SerializeToString())
