"""UpstreamService, for the node's operators only: values, codecs, client calls (`NodeClient.upstream`), servicer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Final, Protocol, TypeAlias

from comity.trust.errors import Malformed
from comity.v1 import upstream_pb2
from comity.v1.upstream_pb2_grpc import UpstreamServiceServicer, UpstreamServiceStub
from comity.wire import limits
from comity.wire.calls import ServiceCalls
from comity.wire.codec import (
    LINE,
    LINE_OR_NONE,
    ORIGIN,
    Data,
    Exact,
    Items,
    MessageCodec,
    Number,
    OneOf,
    OneOfCodec,
    Sentence,
    ShownName,
)
from comity.wire.fields import read_text
from comity.wire.messages import Context

if TYPE_CHECKING:
    from comity.v1.upstream_pb2_grpc import UpstreamServiceAsyncStub

STATES: Final = ("same", "changed", "gone")


@dataclass(frozen=True, slots=True)
class ImportOrder:
    """What a node should mirror, or import from a folder on its machine. `repr` omits `token`."""

    name: Annotated[str, Exact(limits.NAME)]
    endpoint: Annotated[str, Exact(limits.NAME)] = ""
    folder: Annotated[str, Exact(limits.PATH)] = ""
    hosts: Annotated[tuple[str, ...], Items(limits.UPSTREAM_HOSTS, Exact(limits.ORIGIN))] = ()
    terms: Annotated[bytes, Data(limits.TERMS)] = b""
    token: Annotated[str, Exact(limits.TOKEN)] = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ImportStarted:
    """The commit is pinned as `name`, and its files are listed."""

    name: Annotated[str, Exact(limits.NAME)]
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """`count` more bytes of `path` are stored and hashed; negative if some were discarded."""

    path: ShownName
    count: Annotated[int, Number(least=-limits.INTEGER)]


@dataclass(frozen=True, slots=True)
class ImportWaiting:
    """The import waits for `seconds`, with the reason."""

    why: Sentence
    seconds: int


@dataclass(frozen=True, slots=True)
class ImportDone:
    """The `observed` line and its position in the node's log; `before`: whether the log had it already."""

    line: Annotated[bytes, LINE]
    origin: Annotated[str, ORIGIN]
    index: int
    before: bool


ImportEvent: TypeAlias = ImportStarted | ImportProgress | ImportWaiting | ImportDone


@dataclass(frozen=True, slots=True)
class UpstreamCheck:
    """The state of an upstream, one of `STATES`; `line` is the statement that was logged about it, if any."""

    state: Annotated[str, OneOf(STATES)]
    line: Annotated[bytes, LINE_OR_NONE] = b""
    index: int = 0


def _check_order(order: ImportOrder) -> None:
    if order.folder and not PurePosixPath(order.folder).is_absolute():
        raise Malformed("not an absolute path", why="the node has another working directory")
    if not order.folder and not order.name:
        raise Malformed("nothing to import", why="neither a repository nor a folder is given")


ORDER: Final = MessageCodec(ImportOrder, upstream_pb2.ImportRepositoryRequest, _check_order)
EVENT: Final = OneOfCodec[ImportEvent, upstream_pb2.ImportRepositoryResponse](
    upstream_pb2.ImportRepositoryResponse,
    "event",
    started=ImportStarted,
    progress=ImportProgress,
    waiting=ImportWaiting,
    done=ImportDone,
)
CHECK: Final = MessageCodec(UpstreamCheck, upstream_pb2.CheckUpstreamResponse)


class UpstreamCalls(ServiceCalls):
    """Client calls. They also raise the errors of every `NodeClient` call."""

    @cached_property
    def _upstream(self) -> UpstreamServiceAsyncStub:
        return UpstreamServiceStub(self._calls.connection.channel)

    async def run(self, order: ImportOrder) -> AsyncGenerator[ImportEvent, None]:
        """Ask the node to import. Ends after at most one hour, with Unavailable (DEADLINE): then call again.

        Raises NotFound, Refused, Untrusted, OutOfSpace.
        """
        request = ORDER.encode(order)
        size = int(limits.LONGEST_CALL * limits.SLOWEST)  # gives the longest deadline
        events = self._calls.stream(self._upstream.ImportRepository, request, items=limits.IMPORT_EVENTS, size=size)
        async with aclosing(events):
            async for event in events:
                yield EVENT.decode(event)

    async def check(self, name: str, token: str = "") -> UpstreamCheck:
        """Ask the node to check an upstream again. Raises NotFound, Refused."""
        request = upstream_pb2.CheckUpstreamRequest(name=name, token=token)
        return CHECK.decode(await self._calls.unary(self._upstream.CheckUpstream, request))


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
        async with aclosing(self._importing.run(ORDER.decode(request))) as events:
            async for event in events:
                yield EVENT.encode(event)

    async def CheckUpstream(
        self, request: upstream_pb2.CheckUpstreamRequest, context: Context
    ) -> upstream_pb2.CheckUpstreamResponse:
        name, token = read_text(request.name, "name", limits.NAME), read_text(request.token, "token", limits.TOKEN)
        return CHECK.encode(await self._importing.check(name, token))
