"""The node's three doors, open: mutual, open, and the operators' Unix socket. What each offers is decided here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from comity.node.config import Limits, Listen
from comity.node.core import Core
from comity.trust.errors import Malformed, Unavailable
from comity.v1 import (
    artifact_pb2,
    blob_pb2,
    charter_pb2,
    log_pb2,
    node_pb2,
    offer_pb2,
    operator_pb2,
    publish_pb2,
    upstream_pb2,
)
from comity.wire.doors import Door, MutualDoor, OpenDoor, OperatorDoor
from comity.wire.server import Services, make_server
from comity.wire.throttle import Allowance

MAX_SOCKET: Final = 100
"""Bytes of a Unix socket's path that every system takes."""
GRACE: Final = 2.0
"""Seconds that calls under way are given when the node stops."""

_PEER: Final = Allowance(calls_per_second=200, burst=1000, at_once=64)
_OPERATOR: Final = Allowance(calls_per_second=1000, burst=5000, at_once=128)
_READS: Final = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (node_pb2, "NodeService"),
        (log_pb2, "LogService"),
        (artifact_pb2, "ArtifactService"),
        (blob_pb2, "BlobService"),
        (charter_pb2, "CharterService"),
        (offer_pb2, "OfferService"),
    )
)
_PUBLISH: Final = publish_pb2.DESCRIPTOR.services_by_name["PublishService"].full_name
_OPERATE: Final = operator_pb2.DESCRIPTOR.services_by_name["OperatorService"].full_name
_IMPORT: Final = upstream_pb2.DESCRIPTOR.services_by_name["UpstreamService"].full_name


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the doors are, once they are open; `http` is the URL of the gateway, empty where there is none."""

    mutual: str
    open: str
    operator: Path
    http: str = ""


class Doors:
    """The servers of a node. `open` starts them, `close` lets calls under way end."""

    def __init__(self, core: Core, services: Services) -> None:
        self._core = core
        self._servers: list[grpc.aio.Server] = []
        self._health: list[health.aio.HealthServicer] = []
        self._all = services
        self._public = replace(services, operating=None, importing=None)

    async def open(self) -> Listening:
        """Raises Unavailable (LISTEN) for an address that cannot be had, Malformed for too long a socket path."""
        listen, identity = self._core.config.listen, self._core.keys.tls
        members = self._core.membership
        mutual = MutualDoor(identity, members.pins, members.operators)
        operators_here = bool(self._core.seat.record.operators)
        at_mutual = self._all if operators_here else self._public
        ports = (
            await self._serve(mutual, at_mutual, _PEER, listen.mutual),
            await self._serve(OpenDoor(identity), self._public, _strangers(self._core.config.limits), listen.open),
        )
        await self._serve_operators(listen)
        return Listening(_at(listen.mutual, ports[0]), _at(listen.open, ports[1]), listen.operator)

    async def close(self) -> None:
        for servicer in self._health:
            await servicer.enter_graceful_shutdown()
        await asyncio.gather(*(server.stop(GRACE) for server in self._servers))

    async def _serve(self, door: Door, services: Services, allowance: Allowance, address: str) -> int:
        server = make_server(door, services, allowance)
        try:
            port = server.add_secure_port(address, door.credentials())
        except RuntimeError as error:
            hint = "choose another address in node.toml, or stop what listens there"
            raise Unavailable(f"cannot listen on {address}", why=str(error)[:200], hint=hint, code="LISTEN") from error
        await self._start(server, _offered(services))
        return port

    async def _serve_operators(self, listen: Listen) -> None:
        path = listen.operator
        if len(os.fsencode(path)) > MAX_SOCKET:
            why = f"a Unix socket has a path of at most {MAX_SOCKET} bytes"
            raise Malformed(f"{path} cannot be a socket", why=why, hint="set [listen] operator to a shorter path")
        path.unlink(missing_ok=True)  # a dead process's: the ledger's lock says that no other node runs here
        before = os.umask(0o177)  # the socket is private from its first moment on
        try:
            await self._serve(OperatorDoor(), self._all, _OPERATOR, f"unix:{path}")
        finally:
            os.umask(before)

    async def _start(self, server: grpc.aio.Server, names: Iterable[str]) -> None:
        servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        offered = (*names, health.SERVICE_NAME)
        reflection.enable_server_reflection((*offered, reflection.SERVICE_NAME), server)
        await server.start()
        for name in ("", *offered):
            await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._servers.append(server)
        self._health.append(servicer)


def _offered(services: Services) -> tuple[str, ...]:
    publish = (_PUBLISH,) if services.publishing else ()
    importing = (_IMPORT,) if services.importing else ()
    return (*_READS, *publish, *((_OPERATE,) if services.operating else ()), *importing)


def _strangers(limits: Limits) -> Allowance:
    rate = limits.open_calls_per_second
    return Allowance(calls_per_second=rate, burst=int(4 * rate) + 1, at_once=32, all_at_once=128)


def _at(address: str, port: int) -> str:
    return f"{address.rpartition(':')[0]}:{port}"
