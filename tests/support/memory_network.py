"""Whole nodes in one process, on virtual time, behind a network in memory: real messages, codecs and access rules.

gRPC has threads and a clock of its own. So its server and its channels are replaced by these, which carry the bytes of
the messages, take `latency` for each, and let a test stall any call of one node (`Stall`).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from comity.node import app
from comity.node.listeners import ListenAddresses
from comity.node.members import Membership
from comity.node.settings import Limits, Listen
from comity.trust.errors import NotFound, Unavailable
from comity.wire import client as client_module
from comity.wire.access import Access, MutualAccess, OpenAccess, OperatorAccess
from comity.wire.addresses import Address
from comity.wire.channels import EarlyChannels
from comity.wire.draining import Draining
from comity.wire.errors import to_status
from comity.wire.server import Guard
from comity.wire.services import Services, register
from comity.wire.throttle import Allowance, Throttle
from comity.wire.tls import CertificatePin, PinnedChannel, TlsIdentity
from support.lying_node import Liar, NoSuchCall, NotHere, Pause, Question, ShownHistory
from support.raw_bytes import parsed

GENEROUS = Allowance(calls_per_second=1e6, burst=1_000_000)
MESSAGE_TIMEOUT = 10.0
"""Seconds that a node waits for the next message of a peer's answer."""
Handler = Any
"""A grpc.RpcMethodHandler of messages that differ by call."""


class _Ended(grpc.aio.AbortError):
    """A call that its servicer has ended with a status."""


def _rpc_error(status: grpc.Status) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata(*(status.trailing_metadata or ()))
    return grpc.aio.AioRpcError(status.code, grpc.aio.Metadata(), trailing, details=status.details)


class _Port:
    """What `make_server` registers handlers at."""

    def __init__(self, guard: Guard, access: Access) -> None:
        self.guard = guard
        self.access = access
        self.handlers: dict[str, Handler] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The registered handlers follow, which are the same."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        self.handlers |= {f"/{service}/{name}": handler for name, handler in handlers.items()}


@dataclass
class _Details:
    method: str


class _Context:
    """The context of one call at its servicer."""

    def __init__(self, call: _Answer, certificate: bytes | None, timeout: float | None) -> None:
        self._call = call
        self._certificate = certificate
        self._timeout = timeout

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        pem = ssl.DER_cert_to_PEM_cert(self._certificate).encode() if self._certificate else b""
        return {"x509_pem_cert": [pem]} if pem else {}

    def time_remaining(self) -> float | None:
        return self._timeout

    def set_compression(self, compression: grpc.Compression) -> None:
        """Nothing is compressed here."""

    async def send_initial_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._call.metadata.set_result(metadata)

    async def write(self, message: Any) -> None:
        await self._call.deliver(message)

    async def abort_with_status(self, status: grpc.Status) -> None:
        self._call.status = status
        raise _Ended

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        await self.abort_with_status(to_status(Unavailable(details)))


@dataclass(frozen=True)
class Stall:
    """How long a message takes: of `size` bytes, where the next one is waited for `patience` seconds."""

    name: str
    seconds: Callable[[int, float], float]


STALLS = (
    Stall("never answers", lambda size, patience: math.inf),
    Stall("one byte a second", lambda size, patience: float(size)),
    Stall("after 0.9 of the deadline", lambda size, patience: 0.9 * patience),
)


class _LiarPort:
    """The port of a node whose answers a test chooses. Its pauses are virtual."""

    def __init__(self, liar: Liar) -> None:
        self._liar = liar
        self._history = ShownHistory(liar.log)

    async def answer(self, call: _Answer, method: str, request: bytes) -> None:
        try:
            for part in self._liar.answer(method, Question(self._history, parsed(request), lambda: True)):
                if isinstance(part, Pause):
                    await asyncio.sleep(part.seconds)
                else:
                    await call.deliver(part)
        except NotHere:
            call.status = to_status(NotFound("not here"))
        except NoSuchCall:
            call.status = to_status(Unavailable("no such call", code="UNIMPLEMENTED"))


@dataclass
class MemoryNetwork:
    """The ports of all nodes, by address. `stalled` has, by the address of a port, how each call is answered there;
    `called` counts the calls between nodes: those of a caller that shows a certificate.
    """

    latency: float = 0.1
    ports: dict[str, _Port | _LiarPort] = field(default_factory=dict)
    stalled: dict[str, Mapping[str, Stall]] = field(default_factory=dict)
    called: Counter[str] = field(default_factory=Counter)

    def serve(self, liar: Liar, *addresses: str) -> None:
        self.ports |= {address: _LiarPort(liar) for address in addresses}

    def seconds(self, address: str, method: str, size: int, timeout: float | None) -> float:
        stall = self.stalled.get(address, {}).get(method)
        patience = min(timeout or math.inf, MESSAGE_TIMEOUT)
        return self.latency if stall is None else max(self.latency, stall.seconds(size, patience))

    def connect(
        self,
        address: Address,
        pin: CertificatePin,
        identity: TlsIdentity | None = None,
        *,
        proxy: bool = False,
        early: EarlyChannels | None = None,
    ) -> PinnedChannel:
        return self._channel(str(address), identity.certificate if identity else None)

    def connect_operator(self, socket: object) -> PinnedChannel:
        return self._channel(f"unix:{socket}", None)

    def _channel(self, address: str, certificate: bytes | None) -> PinnedChannel:
        async def explain() -> None:
            return None

        channel: Any = _Channel(self, address, certificate)
        return PinnedChannel(channel, explain, local=address.startswith("unix:"))


class _Channel:
    def __init__(self, network: MemoryNetwork, address: str, certificate: bytes | None) -> None:
        self._network = network
        self._address = address
        self._certificate = certificate
        self._calls: set[_Answer] = set()

    def unary_unary(self, path: str, serialize: Any = None, parse: Any = None, **given: Any) -> Any:
        begin = self._stub(path, given, serialize, parse)

        async def call(request: Any, timeout: float | None = None) -> Any:
            answer = begin([request], timeout)
            try:
                return await answer.only()
            finally:
                answer.cancel()

        return call

    def unary_stream(self, path: str, serialize: Any = None, parse: Any = None, **given: Any) -> Any:
        begin = self._stub(path, given, serialize, parse)
        return lambda request, timeout=None: begin([request], timeout)

    def stream_unary(self, path: str, serialize: Any = None, parse: Any = None, **given: Any) -> Any:
        begin = self._stub(path, given, serialize, parse)
        return lambda timeout=None: begin(None, timeout)

    async def close(self, grace: float | None = None) -> None:
        for answer in self._calls:
            answer.cancel()

    def _stub(self, path: str, given: Mapping[str, Any], serialize: Any, parse: Any) -> Callable[..., _Answer]:
        serialize = given.get("request_serializer", serialize)
        parse = given.get("response_deserializer", parse)

        def begin(requests: list[Any] | None, timeout: float | None) -> _Answer:
            answer = _Answer(self._network, self._address, path, serialize, parse, timeout)
            answer.begin(self._certificate, requests)
            self._calls.add(answer)
            return answer

        return begin


class _Answer:
    """A call that runs, as its caller has it."""

    def __init__(
        self, network: MemoryNetwork, address: str, path: str, serialize: Any, parse: Any, timeout: float | None
    ) -> None:
        self._network = network
        self._address = address
        self._path = path
        self._serialize = serialize
        self._parse = parse or (lambda data: data)
        self._timeout = timeout
        self._sent: asyncio.Queue[Any] = asyncio.Queue(1)
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._encode: Callable[[Any], bytes] = lambda message: message
        self.metadata: asyncio.Future[tuple[tuple[str, str], ...]] = asyncio.get_running_loop().create_future()
        self.status: grpc.Status | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, certificate: bytes | None, requests: list[Any] | None) -> None:
        if certificate is not None:
            self._network.called[self._path.rpartition("/")[2]] += 1
        for request in requests or ():
            self._requests.put_nowait(self._serialize(request))
        if requests is not None:
            self._requests.put_nowait(None)
        self._task = asyncio.create_task(self._run(certificate))

    async def read(self) -> Any:
        if self._task is None or (self._task.done() and self._sent.empty()):
            return self._end()
        message = await self._sent.get()
        return self._end() if message is None else self._parse(message)

    async def only(self) -> Any:
        """The only message of an answer."""
        message = await self.read()
        if message is grpc.aio.EOF:
            raise _rpc_error(to_status(Unavailable("no answer")))
        return message

    def __await__(self) -> Generator[Any, None, Any]:
        return self.only().__await__()

    async def write(self, request: Any) -> None:
        self._requests.put_nowait(self._serialize(request))

    async def done_writing(self) -> None:
        self._requests.put_nowait(None)

    async def initial_metadata(self) -> tuple[tuple[str, str], ...]:
        return await self.metadata

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def deliver(self, message: Any) -> None:
        data = self._encode(message)
        await asyncio.sleep(
            self._network.seconds(self._address, self._path.rpartition("/")[2], len(data), self._timeout)
        )
        await self._sent.put(data)

    def _end(self) -> object:
        if self.status is not None:
            raise _rpc_error(self.status)
        return grpc.aio.EOF

    async def _received(self, read: Callable[[bytes], Any]) -> AsyncIterator[Any]:
        while (data := await self._requests.get()) is not None:
            yield read(data)

    async def _run(self, certificate: bytes | None) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._answer(certificate)
        except TimeoutError:
            self.status = to_status(Unavailable("the node does not answer", code="DEADLINE"))
        except _Ended:
            await asyncio.sleep(self._network.seconds(self._address, self._path.rpartition("/")[2], 1, self._timeout))
        finally:
            if not self.metadata.done():
                self.metadata.set_result(())
            with contextlib.suppress(asyncio.QueueFull):
                self._sent.put_nowait(None)

    async def _answer(self, certificate: bytes | None) -> None:
        port = self._network.ports.get(self._address)
        if port is None:
            self.status = to_status(Unavailable("no node listens there", code="UNREACHABLE"))
            return
        if isinstance(port, _LiarPort):
            request = await self._requests.get()
            await port.answer(self, self._path.rpartition("/")[2], request or b"")
            return
        handler = port.handlers[self._path]

        async def found(details: object) -> Handler:
            return handler

        details: Any = _Details(self._path)
        guarded: Any = await port.guard.intercept_service(found, details)
        self._encode = guarded.response_serializer or (lambda message: bytes(message))
        context = _Context(self, certificate, self._timeout)
        await guarded.stream_stream(self._received(guarded.request_deserializer), context)


class _Listeners:
    """The listeners of a node at a network in memory."""

    network: MemoryNetwork

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
        self._draining = draining
        self._ports: dict[str, Access] = {
            listen.mutual: MutualAccess(tls, membership.pins, membership.operators),
            listen.open: OpenAccess(tls),
            f"unix:{listen.operator}": OperatorAccess(),
        }
        self._services = services

    async def open(self) -> ListenAddresses:
        for address, access in self._ports.items():
            port: Any = _Port(Guard(access, Throttle(GENEROUS), draining=self._draining), access)
            register(self._services, port)
            self.network.ports[address] = port
        return ListenAddresses(self._listen.mutual, self._listen.open, self._listen.operator)

    async def tell_not_serving(self) -> None:
        """No health check asks here."""

    async def close(self) -> None:
        for address in self._ports:
            del self.network.ports[address]


@contextlib.contextmanager
def networked(network: MemoryNetwork) -> Iterator[None]:
    """All nodes and clients that are made in the block use `network`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(client_module, "connect", network.connect)
        patched.setattr(client_module, "connect_operator", network.connect_operator)
        patched.setattr(_Listeners, "network", network, raising=False)
        patched.setattr(app, "Listeners", _Listeners)
        yield
