"""`BundleService`: a node takes what a bundle has. Values, codec, calls and servicer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.v1 import bundle_pb2
from comity.v1.bundle_pb2_grpc import BundleServiceServicer, BundleServiceStub
from comity.wire import limits
from comity.wire.calls import ServiceCalls
from comity.wire.errors import clean
from comity.wire.messages import Context, encode_digest, read_digest, read_integer, read_log, read_text

if TYPE_CHECKING:
    from comity.v1.bundle_pb2_grpc import BundleServiceAsyncStub

MOST_EVENTS: Final = 4_000_000
"""Events of one call: every artifact of a large federation, and a few each second for an hour."""


@dataclass(frozen=True, slots=True)
class LoadedCharter:
    """The epochs that the node followed before and follows now; `why` and `code` if an epoch was refused."""

    before: int
    now: int
    why: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class LoadedLog:
    """The entries of a log, named by its verifier key, that the node had before and has now, and those of the bundle's
    checkpoint; `why` and `code` if it was not taken."""

    log: str
    before: int
    now: int
    carried: int
    why: str = ""
    code: str = ""

    @property
    def origin(self) -> str:
        return self.log.partition("+")[0]


@dataclass(frozen=True, slots=True)
class LoadedArtifact:
    """An artifact that is complete now, or is not, for a reason."""

    artifact: Digest
    name: str
    why: str = ""
    code: str = ""


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


def encode_load_event(event: LoadEvent) -> bundle_pb2.LoadBundleResponse:
    """Texts are cleaned, because they can contain errors of the disks."""
    match event:
        case LoadedCharter():
            charter = bundle_pb2.LoadedCharter(before=event.before, now=event.now, why=_why(event), code=event.code)
            return bundle_pb2.LoadBundleResponse(charter=charter)
        case LoadedLog():
            log = bundle_pb2.LoadedLog(
                log=event.log,
                before=event.before,
                now=event.now,
                carried=event.carried,
                why=_why(event),
                code=event.code,
            )
            return bundle_pb2.LoadBundleResponse(log=log)
        case LoadedArtifact():
            artifact = bundle_pb2.LoadedArtifact(
                artifact=encode_digest(event.artifact),
                name=clean(event.name, limits.NAME),
                why=_why(event),
                code=event.code,
            )
            return bundle_pb2.LoadBundleResponse(artifact=artifact)
        case LoadWaiting():
            return bundle_pb2.LoadBundleResponse(waiting=bundle_pb2.LoadWaiting())
        case LoadEnded():
            ended = bundle_pb2.LoadEnded(finished=event.finished, not_listed=event.not_listed)
            return bundle_pb2.LoadBundleResponse(ended=ended)


def decode_load_event(message: bundle_pb2.LoadBundleResponse) -> LoadEvent:
    """Raises Malformed."""
    match message.WhichOneof("event"):
        case "charter":
            charter = message.charter
            before, now = read_integer(charter.before, "epochs"), read_integer(charter.now, "epochs")
            return LoadedCharter(before, now, *_reason(charter))
        case "log":
            log = message.log
            sizes = [read_integer(value, "entries") for value in (log.before, log.now, log.carried)]
            return LoadedLog(read_log(log.log), sizes[0], sizes[1], sizes[2], *_reason(log))
        case "artifact":
            artifact = message.artifact
            name = read_text(artifact.name, "name", limits.NAME)
            return LoadedArtifact(read_digest(artifact.artifact), name, *_reason(artifact))
        case "waiting":
            return LoadWaiting()
        case "ended":
            return LoadEnded(message.ended.finished, read_integer(message.ended.not_listed, "artifacts"))
        case _:
            raise Malformed("unknown event", why="the message has no known event")


def _why(event: LoadedCharter | LoadedLog | LoadedArtifact) -> str:
    return clean(event.why, limits.STATUS_TEXT)


def _reason(message: bundle_pb2.LoadedCharter | bundle_pb2.LoadedLog | bundle_pb2.LoadedArtifact) -> tuple[str, str]:
    why = read_text(message.why, "reason", limits.STATUS_TEXT)
    return why, read_text(message.code, "code", limits.LABEL)


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
                yield decode_load_event(event)


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
                yield encode_load_event(event)
