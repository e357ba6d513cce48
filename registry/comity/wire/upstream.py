"""UpstreamService, for the node's operators only: values, codecs, client calls (`NodeClient.upstream`), servicer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from comity.trust.errors import Malformed
from comity.v1 import upstream_pb2
from comity.v1.upstream_pb2_grpc import UpstreamServiceServicer, UpstreamServiceStub
from comity.wire import limits
from comity.wire.calls import ServiceCalls
from comity.wire.errors import clean
from comity.wire.messages import Context, read_data, read_integer, read_line, read_many, read_origin, read_text

if TYPE_CHECKING:
    from comity.v1.upstream_pb2_grpc import UpstreamServiceAsyncStub

STATES: Final = ("same", "changed", "gone")


@dataclass(frozen=True, slots=True)
class ImportOrder:
    """What a node should mirror, or import from a folder on its machine. `repr` omits `token`."""

    name: str
    endpoint: str = ""
    folder: str = ""
    hosts: tuple[str, ...] = ()
    terms: bytes = b""
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ImportStarted:
    """The commit is pinned as `name`, and its files are listed."""

    name: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """`count` more bytes of `path` are stored and hashed; negative if some were discarded."""

    path: str
    count: int


@dataclass(frozen=True, slots=True)
class ImportWaiting:
    """The import waits for `seconds`, with the reason."""

    why: str
    seconds: int


@dataclass(frozen=True, slots=True)
class ImportDone:
    """The `observed` line and its position in the node's log; `before`: whether the log had it already."""

    line: bytes
    origin: str
    index: int
    before: bool


ImportEvent: TypeAlias = ImportStarted | ImportProgress | ImportWaiting | ImportDone


@dataclass(frozen=True, slots=True)
class UpstreamCheck:
    """The state of an upstream, one of `STATES`; `line` is the statement that was logged about it, if any."""

    state: str
    line: bytes = b""
    index: int = 0


def encode_order(order: ImportOrder) -> upstream_pb2.ImportRepositoryRequest:
    return upstream_pb2.ImportRepositoryRequest(
        name=order.name,
        endpoint=order.endpoint,
        folder=order.folder,
        hosts=order.hosts,
        terms=order.terms,
        token=order.token,
    )


def decode_order(message: upstream_pb2.ImportRepositoryRequest) -> ImportOrder:
    folder = read_text(message.folder, "path", limits.PATH)
    if folder and not PurePosixPath(folder).is_absolute():
        raise Malformed("not an absolute path", why="the node has another working directory")
    if not folder and not message.name:
        raise Malformed("nothing to import", why="neither a repository nor a folder is given")
    return ImportOrder(
        name=read_text(message.name, "name", limits.NAME),
        endpoint=read_text(message.endpoint, "endpoint", limits.NAME),
        folder=folder,
        hosts=read_many(
            message.hosts, "hosts", limits.UPSTREAM_HOSTS, lambda host: read_text(host, "host", limits.ORIGIN)
        ),
        terms=read_data(message.terms, "terms", limits.TERMS),
        token=read_text(message.token, "token", limits.TOKEN),
    )


def encode_event(event: ImportEvent) -> upstream_pb2.ImportRepositoryResponse:
    match event:
        case ImportStarted():
            started = upstream_pb2.ImportStarted(name=event.name, files=event.files, bytes=event.bytes)
            return upstream_pb2.ImportRepositoryResponse(started=started)
        case ImportProgress():
            progress = upstream_pb2.ImportProgress(path=clean(event.path, limits.NAME), count=event.count)
            return upstream_pb2.ImportRepositoryResponse(progress=progress)
        case ImportWaiting():
            waiting = upstream_pb2.ImportWaiting(why=clean(event.why, limits.STATUS_TEXT), seconds=event.seconds)
            return upstream_pb2.ImportRepositoryResponse(waiting=waiting)
        case ImportDone():
            done = upstream_pb2.ImportDone(line=event.line, origin=event.origin, index=event.index, before=event.before)
            return upstream_pb2.ImportRepositoryResponse(done=done)


def decode_event(message: upstream_pb2.ImportRepositoryResponse) -> ImportEvent:
    match message.WhichOneof("event"):
        case "started":
            return ImportStarted(
                read_text(message.started.name, "name", limits.NAME),
                read_integer(message.started.files, "files"),
                read_integer(message.started.bytes, "size"),
            )
        case "progress":
            count = read_integer(message.progress.count, "count", least=-limits.INTEGER)
            return ImportProgress(read_text(message.progress.path, "path", limits.NAME), count)
        case "waiting":
            seconds = read_integer(message.waiting.seconds, "seconds")
            return ImportWaiting(read_text(message.waiting.why, "reason", limits.STATUS_TEXT), seconds)
        case "done":
            return ImportDone(
                read_line(message.done.line),
                read_origin(message.done.origin),
                read_integer(message.done.index, "index"),
                message.done.before,
            )
        case _:
            raise Malformed("unknown event", why="the message has no known event")


def encode_check(check: UpstreamCheck) -> upstream_pb2.CheckUpstreamResponse:
    return upstream_pb2.CheckUpstreamResponse(state=check.state, line=check.line, index=check.index)


def decode_check(message: upstream_pb2.CheckUpstreamResponse) -> UpstreamCheck:
    if message.state not in STATES:
        raise Malformed("unknown upstream state", why=f"expected one of {', '.join(STATES)}")
    line = read_line(message.line) if message.line else b""
    return UpstreamCheck(message.state, line, read_integer(message.index, "index"))


class UpstreamCalls(ServiceCalls):
    """Client calls. They also raise the errors of every `NodeClient` call."""

    @cached_property
    def _upstream(self) -> UpstreamServiceAsyncStub:
        return UpstreamServiceStub(self._calls.connection.channel)

    async def run(self, order: ImportOrder) -> AsyncGenerator[ImportEvent, None]:
        """Ask the node to import. Ends after at most one hour, with Unavailable (DEADLINE): then call again.

        Raises NotFound, Refused, Untrusted, OutOfSpace.
        """
        request = encode_order(order)
        size = int(limits.LONGEST_CALL * limits.SLOWEST)  # gives the longest deadline
        events = self._calls.stream(self._upstream.ImportRepository, request, items=limits.IMPORT_EVENTS, size=size)
        async with aclosing(events):
            async for event in events:
                yield decode_event(event)

    async def check(self, name: str, token: str = "") -> UpstreamCheck:
        """Ask the node to check an upstream again. Raises NotFound, Refused."""
        request = upstream_pb2.CheckUpstreamRequest(name=name, token=token)
        return decode_check(await self._calls.unary(self._upstream.CheckUpstream, request))


class ImportService(Protocol):
    """The service logic, for operators only. For rules that apply to all methods see `messages`."""

    def run(self, order: ImportOrder) -> AsyncGenerator[ImportEvent, None]:
        """Import events, one at least every few seconds, `ImportDone` last. Closing the generator stops the import."""

    async def check(self, name: str, token: str) -> UpstreamCheck:
        """Check an upstream. Raises NotFound if this node observed no such commit."""


class UpstreamServicer(UpstreamServiceServicer):
    def __init__(self, importing: ImportService) -> None:
        self._importing = importing

    async def ImportRepository(
        self, request: upstream_pb2.ImportRepositoryRequest, context: Context
    ) -> AsyncIterator[upstream_pb2.ImportRepositoryResponse]:
        async with aclosing(self._importing.run(decode_order(request))) as events:
            async for event in events:
                yield encode_event(event)

    async def CheckUpstream(
        self, request: upstream_pb2.CheckUpstreamRequest, context: Context
    ) -> upstream_pb2.CheckUpstreamResponse:
        name, token = read_text(request.name, "name", limits.NAME), read_text(request.token, "token", limits.TOKEN)
        return encode_check(await self._importing.check(name, token))
