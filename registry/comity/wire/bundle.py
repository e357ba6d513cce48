"""`BundleService`: a node takes what a bundle has. Values, codec, calls and servicer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Protocol, TypeAlias

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.v1 import bundle_pb2
from comity.v1.bundle_pb2_grpc import BundleServiceServicer, BundleServiceStub
from comity.wire import limits
from comity.wire.calls import ServiceCalls
from comity.wire.codec import LOG, Exact, OneOfCodec, Sentence, ShownName
from comity.wire.fields import read_text
from comity.wire.messages import Context

if TYPE_CHECKING:
    from comity.v1.bundle_pb2_grpc import BundleServiceAsyncStub

MOST_EVENTS: Final = 4_000_000
"""Events of one call: every artifact of a large federation, and a few each second for an hour."""


@dataclass(frozen=True, slots=True)
class LoadedCharter:
    """The epochs that the node followed before and follows now; `why` and `code` if an epoch was refused."""

    before: int
    now: int
    why: Sentence = ""
    code: Annotated[str, Exact(limits.LABEL)] = ""


@dataclass(frozen=True, slots=True)
class LoadedLog:
    """The entries of a log, named by its verifier key, that the node had before and has now, and those of the bundle's
    checkpoint; `why` and `code` if it was not taken."""

    log: Annotated[str, LOG]
    before: int
    now: int
    carried: int
    why: Sentence = ""
    code: Annotated[str, Exact(limits.LABEL)] = ""

    @property
    def origin(self) -> str:
        return self.log.partition("+")[0]


@dataclass(frozen=True, slots=True)
class LoadedArtifact:
    """An artifact that is complete now, or is not, for a reason."""

    artifact: Digest
    name: ShownName
    why: Sentence = ""
    code: Annotated[str, Exact(limits.LABEL)] = ""


@dataclass(frozen=True, slots=True)
class LoadWaiting:
    """Work goes on."""


@dataclass(frozen=True, slots=True)
class LoadEnded:
    """The last event. `finished` is false if the time of the call was over first; `not_listed` counts the published
    artifacts that the node's settings do not name."""

    finished: bool
    not_listed: int


LoadEvent: TypeAlias = LoadedCharter | LoadedLog | LoadedArtifact | LoadWaiting | LoadEnded


LOAD_EVENT: Final = OneOfCodec[LoadEvent, bundle_pb2.LoadBundleResponse](
    bundle_pb2.LoadBundleResponse,
    "event",
    charter=LoadedCharter,
    log=LoadedLog,
    artifact=LoadedArtifact,
    waiting=LoadWaiting,
    ended=LoadEnded,
)


class BundleCalls(ServiceCalls):
    """The calls of `BundleService`."""

    @cached_property
    def _bundle(self) -> BundleServiceAsyncStub:
        return BundleServiceStub(self._calls.connection.channel)

    async def load(self, socket: Path) -> AsyncGenerator[LoadEvent, None]:
        """Have the node take what is served at `socket`. Yields `LoadEnded` last.

        Raises Unavailable if nothing is served there, Conflict (LOADING).
        """
        request = bundle_pb2.LoadBundleRequest(socket=str(socket))
        size = int(limits.LONGEST_CALL * limits.SLOWEST)  # gives the longest deadline
        events = self._calls.stream(self._bundle.LoadBundle, request, items=MOST_EVENTS, size=size)
        async with aclosing(events):
            async for event in events:
                yield LOAD_EVENT.decode(event)


class BundleLoads(Protocol):
    def load(self, socket: Path) -> AsyncGenerator[LoadEvent, None]:
        """Take what is served at `socket` (absolute). Closing the generator stops the work. Raises Unavailable,
        Conflict (LOADING)."""


class BundleServicer(BundleServiceServicer):
    def __init__(self, loads: BundleLoads) -> None:
        self._loads = loads

    async def LoadBundle(
        self, request: bundle_pb2.LoadBundleRequest, context: Context
    ) -> AsyncIterator[bundle_pb2.LoadBundleResponse]:
        socket = Path(read_text(request.socket, "path", limits.PATH))
        if not socket.is_absolute():
            raise Malformed("not an absolute path", why="the node has another working directory")
        async with aclosing(self._loads.load(socket)) as events:
            async for event in events:
                yield LOAD_EVENT.encode(event)
