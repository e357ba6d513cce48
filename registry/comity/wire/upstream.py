"""`UpstreamService`: imports, for the node's operators only. Values and calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import field
from pathlib import PurePosixPath
from typing import Annotated, Final, Protocol, TypeAlias

from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.v1 import upstream_pb2
from comity.wire import limits
from comity.wire.calls import ServiceCalls, call
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
from comity.wire.rpc import Rpcs

rpc = Rpcs(upstream_pb2)
STATES: Final = ("same", "changed", "gone")


@frozen
class ImportOrder:
    """What a node should mirror, or import from a folder on its machine. `repr` omits `token`."""

    name: Annotated[str, Exact(limits.NAME)]
    endpoint: Annotated[str, Exact(limits.NAME)] = ""
    folder: Annotated[str, Exact(limits.PATH)] = ""
    hosts: Annotated[tuple[str, ...], Items(limits.UPSTREAM_HOSTS, Exact(limits.ORIGIN))] = ()
    terms: Annotated[bytes, Data(limits.TERMS)] = b""
    token: Annotated[str, Exact(limits.UPSTREAM_TOKEN)] = field(default="", repr=False)


@frozen
class ImportStarted:
    """The commit is pinned as `name`, and its files are listed."""

    name: Annotated[str, Exact(limits.NAME)]
    files: int
    bytes: int


@frozen
class ImportProgress:
    """`count` more bytes of `path` are stored and hashed; negative if some were discarded."""

    path: ShownName
    count: Annotated[int, Number(least=-limits.INTEGER)]


@frozen
class ImportWaiting:
    """The import waits for `seconds`, with the reason."""

    why: Sentence
    seconds: int


@frozen
class ImportDone:
    """The `observed` line and its position in the node's log; `before`: whether the log had it already."""

    line: Annotated[bytes, LINE]
    origin: Annotated[str, ORIGIN]
    index: int
    before: bool


ImportEvent: TypeAlias = ImportStarted | ImportProgress | ImportWaiting | ImportDone


@frozen
class UpstreamCheck:
    """The state of an upstream, one of `STATES`; `line` is the statement that was logged about it, if any."""

    state: Annotated[str, OneOf(STATES)]
    line: Annotated[bytes, LINE_OR_NONE] = b""
    index: int = 0


WAITING: Final = "waiting"
IMPORTING: Final = "importing"
LOGGED: Final = "logged"
REFUSED: Final = "refused"
QUEUE_STATES: Final = (WAITING, IMPORTING, LOGGED, REFUSED)


@frozen
class QueuedImport:
    """An import that a node keeps, and how far it is.

    `failures`: tries that failed since bytes last arrived; `why` the last one did. `queued` and `next_try` are POSIX
    seconds, 0 if there is none. `size` is 0 while it is unknown. `pinned`: the name with the commit, once a try
    has found it.
    """

    name: Annotated[str, Exact(limits.NAME)]
    endpoint: Annotated[str, Exact(limits.NAME)]
    hosts: Annotated[tuple[str, ...], Items(limits.UPSTREAM_HOSTS, Exact(limits.ORIGIN))]
    state: Annotated[str, OneOf(QUEUE_STATES)]
    queued: int
    failures: int = 0
    why: Sentence = ""
    next_try: int = 0
    received: int = 0
    size: int = 0
    pinned: Annotated[str, Exact(limits.NAME)] = ""


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


class UpstreamService(Protocol):
    @rpc("ImportRepository", items=limits.IMPORT_EVENTS, size=limits.LONGEST_ANSWER)
    def run(self, order: Annotated[ImportOrder, ORDER]) -> AsyncGenerator[Annotated[ImportEvent, EVENT], None]:
        """Import; events, one at least every few seconds, `ImportDone` last. Ends after at most one hour, with
        Unavailable (DEADLINE): then call again. Closing the generator stops the import.

        Raises NotFound, Refused, Untrusted, OutOfSpace.
        """

    @rpc("CheckUpstream")
    async def check(
        self, name: Annotated[str, Exact(limits.NAME)], token: Annotated[str, Exact(limits.UPSTREAM_TOKEN)] = ""
    ) -> UpstreamCheck:
        """Check an upstream again. Raises Refused, and NotFound if this node observed no such commit."""

    @rpc("DecideImport")
    async def decide(
        self,
        name: Annotated[str, Exact(limits.NAME)],
        endpoint: Annotated[str, Exact(limits.NAME)] = "",
        hosts: Annotated[tuple[str, ...], Items(limits.UPSTREAM_HOSTS, Exact(limits.ORIGIN))] = (),
        *,
        keep: bool = False,
    ) -> None:
        """Queue an import; end it unless `keep`. Raises Malformed, NotFound (NOT-QUEUED), OutOfSpace (IMPORT-QUEUE)."""

    @rpc("ListImports", items=limits.QUEUED_IMPORTS)
    def queued(self) -> AsyncGenerator[QueuedImport, None]:
        """Every queued import."""


class UpstreamCalls(ServiceCalls):
    run = call(UpstreamService.run)
    check = call(UpstreamService.check)
    decide = call(UpstreamService.decide)
    queued = call(UpstreamService.queued)
