"""The node's three listeners: the mutual and the open gRPC ports, and the operator's Unix socket; which services each
announces; and how many connections each may have.

All ports have all services: who may make a call is declared with the call (`wire.access`), and not here.

Every connection uses an open file, as do blobs being read, files of the ledger and connections to peers; a process
without free descriptors cannot even answer its operator. So the node keeps `RESERVED_FILES` for itself and divides the
rest in fixed shares among the listeners.

Stock gRPC tools ask for the services of a node by server reflection: v1alpha, as grpcio-reflection has it, and v1,
which newer tools ask for first. The two versions have the same messages on the wire; only their package differs. So v1
is the servicer of v1alpha under the other name, with the description of v1 made from that of v1alpha. Source:
grpc/reflection/v1/reflection.proto.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Self

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from comity.node.members import Membership
from comity.node.settings import Limits, Listen
from comity.trust.errors import ComityError, Malformed
from comity.trust.frozen import frozen
from comity.wire.access import Access, MutualAccess, OpenAccess, OperatorAccess
from comity.wire.connections import ConnectionGuard, MutualPort, PortShares, cannot_listen
from comity.wire.draining import Draining
from comity.wire.server import AdmitHook, ignore_admitted, make_server
from comity.wire.services import SERVICES, RefusedServices, Services, announced
from comity.wire.throttle import Allowance, Throttle
from comity.wire.tls import TlsIdentity

RESERVED_FILES: Final = 96
"""Open files for the ledger, blobs, logs, thread pipes, the operator socket, and connections to peers."""
MIN_CONNECTIONS: Final = 8
"""Minimum connections of a listener."""
BLOB_FILES: Final = 3
"""Open files of one connection to the blob server: two for its socket, one for the blob."""
_ALPHA: Final = "v1alpha"
REFLECTION: Final = "grpc.reflection.v1.ServerReflection"
_REFLECT: Final = "ServerReflectionInfo"


@frozen
class ConnectionLimits:
    """Concurrent connections at the mutual and the open gRPC port, the gateway, and each of the two blob servers."""

    mutual: int
    open: int
    http: int
    blobs: int

    @classmethod
    def of(cls, files: int) -> Self:
        """Divide `files` open files."""
        tenth = max(0, files - RESERVED_FILES) // 10

        def share(tenths: int, most: int, each: int = 1) -> int:
            return max(MIN_CONNECTIONS, min(most, tenths * tenth // each))

        return cls(
            mutual=share(2, 1024), open=share(2, 2048), http=share(2, 2048), blobs=share(2, 1024, each=BLOB_FILES)
        )


def allow_descriptors() -> None:
    """Raise the process's limit of open files to the hard limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def connection_limits() -> ConnectionLimits:
    """The limits for this process, from its current limit of open files."""
    return ConnectionLimits.of(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


MAX_SOCKET_PATH: Final = 100
"""Longest path of a Unix socket, in bytes, that every system accepts."""
GRACE: Final = 2.0
"""Seconds that running calls have to finish when the listeners close, so that the end of a cut call is still sent."""

OPERATOR_CONNECTIONS: Final = 32
"""Concurrent connections to the operator socket."""

_PEER: Final = Allowance(calls_per_second=200, burst=1000, at_once=64)
_OPERATOR: Final = Allowance(calls_per_second=1000, burst=5000, at_once=128)


@frozen
class ListenAddresses:
    """The addresses of the open listeners; `http` is the URL of the gateway, empty if there is none."""

    mutual: str
    open: str
    operator: Path
    http: str = ""


class Listeners:
    """The servers of a node. `open` starts them; `close` lets running calls finish."""

    def __init__(
        self,
        listen: Listen,
        limits: Limits,
        tls: TlsIdentity,
        membership: Membership,
        services: Services,
        draining: Draining,
    ) -> None:
        self._listen = listen
        self._limits = limits
        self._tls = tls
        self._membership = membership
        self._mutual: MutualPort | None = None
        self._guard: ConnectionGuard | None = None
        self._servers: list[grpc.aio.Server] = []
        self._health: dict[str, health.aio.HealthServicer] = {}
        self._services = services
        self._draining = draining

    async def open(self) -> ListenAddresses:
        """Raises Unavailable (LISTEN) if an address is not available, Malformed if the socket path is too long."""
        listen, limits = self._listen, connection_limits()
        allowance = _open_allowance(self._limits)
        peers, others = _port_shares(limits.mutual), _port_shares(limits.open)
        mutual = await self._serve_peers(listen.mutual, limits.mutual, peers)
        access = OpenAccess(self._tls)
        open_ = await self._serve(access, allowance, listen.open, limits.open, others.admitted)
        await self._serve_operators(listen)
        self._guard = ConnectionGuard({mutual: peers, open_: others})
        self._guard.start()
        return ListenAddresses(_with_port(listen.mutual, mutual), _with_port(listen.open, open_), listen.operator)

    async def listen_for_users(self, refusal: Callable[[], ComityError], operators: str) -> str:
        """Listen at the open port alone, as a front end does. Returns its address. Calls of services that are not given
        are answered with `refusal`; who makes a call for operators is told `operators`. Raises as `open`."""
        listen, most = self._listen, connection_limits().open
        allowance, shares = _open_allowance(self._limits), _port_shares(most)
        refused = RefusedServices(SERVICES, refusal)
        access = OpenAccess(self._tls, operators)
        port = await self._serve(access, allowance, listen.open, most, shares.admitted, refused)
        self._guard = ConnectionGuard({port: shares})
        self._guard.start()
        return _with_port(listen.open, port)

    async def tell_not_serving(self) -> None:
        """Tell health checks at every port that no new work is taken."""
        for servicer in self._health.values():
            await servicer.enter_graceful_shutdown()

    async def close(self) -> None:
        await self.tell_not_serving()
        mutual = (self._mutual.close(GRACE),) if self._mutual else ()
        await asyncio.gather(*mutual, *(server.stop(GRACE) for server in self._servers))
        if self._guard is not None:
            await asyncio.to_thread(self._guard.stop)

    async def _serve_peers(self, address: str, connections: int, shares: PortShares) -> int:
        members = self._membership
        access = MutualAccess(self._tls, members.pins, members.operators)
        throttle = Throttle(_PEER)

        async def make() -> grpc.aio.Server:
            server = make_server(
                access,
                self._services,
                throttle,
                connections=connections,
                shared_port=True,
                admitted=shares.admitted,
                draining=self._draining,
            )
            await self._report_health("mutual", server, access)
            return server

        self._mutual = MutualPort(access, make)
        members.watch_pins(self._mutual.pins_changed)
        return await self._mutual.open(address)

    async def _serve(
        self,
        access: Access,
        allowance: Allowance,
        address: str,
        connections: int,
        admitted: AdmitHook = ignore_admitted,
        refused: RefusedServices | None = None,
    ) -> int:
        server = make_server(
            access,
            self._services,
            Throttle(allowance),
            connections=connections,
            admitted=admitted,
            draining=self._draining,
        )
        if refused is not None:
            server.add_generic_rpc_handlers((refused,))  # asked after the services that are given
        await self._report_health(address, server, access)
        try:
            port = server.add_secure_port(address, access.credentials())
        except RuntimeError as error:
            raise cannot_listen(address, str(error)) from error
        await server.start()
        self._servers.append(server)
        return port

    async def _serve_operators(self, listen: Listen) -> None:
        path = listen.operator
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            why = f"a Unix socket has a path of at most {MAX_SOCKET_PATH} bytes"
            raise Malformed(f"{path} cannot be a socket", why=why, hint="set [listen] operator to a shorter path")
        try:
            path.unlink(missing_ok=True)  # left by a dead process: the ledger's lock excludes another running node
        except OSError as error:  # such as the folder of a home that is only read
            raise cannot_listen(f"{path} ([listen] operator)", error.strerror or str(error)) from error
        before = os.umask(0o177)  # the socket is created private
        try:
            await self._serve(OperatorAccess(), _OPERATOR, f"unix:{path}", OPERATOR_CONNECTIONS)
        finally:
            os.umask(before)

    async def _report_health(self, port: str, server: grpc.aio.Server, access: Access) -> None:
        """Report the services that callers of this port may use, to health checks and to reflection."""
        servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        names = (*announced(self._services, access.callers()), health.SERVICE_NAME)
        add_reflection(names, server)
        for name in ("", *names):
            await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._health[port] = servicer


def _port_shares(connections: int) -> PortShares:
    """Connection slots at a port. A quarter of gRPC's limit stays free, so that new connections are accepted and
    checked."""
    return PortShares(max(1, connections * 3 // 4))


def _open_allowance(limits: Limits) -> Allowance:
    rate = limits.open_calls_per_second
    return Allowance(calls_per_second=rate, burst=int(4 * rate) + 1, at_once=32, all_at_once=128, block_at_once=48)


def _with_port(address: str, port: int) -> str:
    return f"{address.rpartition(':')[0]}:{port}"


def add_reflection(services: Iterable[str], server: grpc.aio.Server) -> None:
    """Register both versions, which list `services` (full names) and themselves."""
    _describe()
    names = (*services, reflection.SERVICE_NAME, REFLECTION)
    reflection.enable_server_reflection(names, server)
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(names).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(REFLECTION, {_REFLECT: handler}),))


def _describe() -> None:
    """Add the description of v1 to the pool that the servicers read, once in a process."""
    pool = descriptor_pool.Default()
    try:
        pool.FindServiceByName(REFLECTION)
    except KeyError:
        alpha = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
        text = json_format.MessageToJson(alpha).replace(_ALPHA, "v1")
        pool.AddSerializedFile(json_format.Parse(text, descriptor_pb2.FileDescriptorProto()).SerializeToString())
