"""Callers of every kind at a running node, and every call that the node itself lists, by server reflection."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from comity.content.secrets import read_keys
from comity.trust.errors import ComityError, Refused
from comity.wire.access import Caller, require_allowed
from comity.wire.addresses import Address
from comity.wire.client import NodeClient
from comity.wire.errors import from_rpc
from comity.wire.services import CALL_RULES
from comity.wire.tls import CertificatePin, TlsIdentity
from google.protobuf.descriptor_pool import Default
from grpc_reflection.v1alpha import reflection_pb2
from support.federation import NodeHome

REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
TIMEOUT = 20


@dataclass(frozen=True)
class ConnectedCaller:
    """A connection to a node, and who the caller is to it."""

    client: NodeClient
    caller: Caller

    @property
    def _channel(self) -> grpc.aio.Channel:
        return self.client._calls.connection.channel

    async def services(self) -> list[str]:
        """The services that this port announces."""
        call: Any = self._channel.stream_stream(
            REFLECT,
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        async for answer in call(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=TIMEOUT):
            return [service.name for service in answer.list_services_response.service]
        raise AssertionError("reflection gave no answer")

    async def code(self, path: str) -> str:
        """Make a call with an empty request. Returns the code of its error; empty if it has none."""
        method: Any = self._channel.unary_stream(path)  # a single request is a stream of one message
        call = method(b"", timeout=TIMEOUT)
        try:
            await call.read()
        except grpc.aio.AioRpcError as error:
            failure: ComityError = from_rpc(error)
            return failure.code
        finally:
            call.cancel()
        return ""


def refusal(path: str, caller: Caller) -> str:
    """The code with which the declared rule of a call refuses the caller; empty if it does not."""
    try:
        require_allowed(CALL_RULES.get(path), caller)
    except Refused as error:
        return error.code
    return ""


def calls_of(services: list[str]) -> list[str]:
    """The paths of all calls of these services, from their descriptions."""
    found = (Default().FindServiceByName(name) for name in services)
    return [f"/{service.full_name}/{method.name}" for service in found for method in service.methods]


@contextlib.asynccontextmanager
async def callers(home: NodeHome, peer: NodeHome) -> AsyncIterator[Mapping[str, ConnectedCaller]]:
    """A stranger, a member's node and an operator, connected to `home`."""
    tls = TlsIdentity(peer.record.tls, read_keys(peer.directory / "keys" / "tls.pem")[0])
    mutual, pin = Address.parse(home.card.mutual[0]), CertificatePin.of(home.record.tls)
    async with home.client() as stranger, home.operator() as operator, NodeClient.connect(mutual, pin, tls) as member:
        yield {
            "stranger": ConnectedCaller(stranger, Caller("127.0.0.1")),
            "member": ConnectedCaller(member, Caller("member", peer.record.tls)),
            "operator": ConnectedCaller(operator, Caller("operator", operator=True)),
        }
