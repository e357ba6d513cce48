"""`BundleService`: a node takes what a bundle has. Values and calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Final, Protocol, TypeAlias

from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.v1 import bundle_pb2
from comity.wire import limits
from comity.wire.calls import ServiceCalls, call
from comity.wire.codec import LOG, AbsolutePath, Exact, OneOfCodec, Sentence, ShownName
from comity.wire.rpc import Rpcs

rpc = Rpcs(bundle_pb2)
MOST_EVENTS: Final = 4_000_000
"""Events of one call: every artifact of a large federation, and a few each second for an hour."""


@frozen
class LoadedCharter:
    """The epochs that the node followed before and follows now; `why` and `code` if an epoch was refused."""

    before: int
    now: int
    why: Sentence = ""
    code: Annotated[str, Exact(limits.LABEL)] = ""


@frozen
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


@frozen
class LoadedArtifact:
    """An artifact that is complete now, or is not, for a reason."""

    artifact: Digest
    name: ShownName
    why: Sentence = ""
    code: Annotated[str, Exact(limits.LABEL)] = ""


@frozen
class LoadWaiting:
    """Work goes on."""


@frozen
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


class BundleService(Protocol):
    @rpc("LoadBundle", items=MOST_EVENTS, size=limits.LONGEST_ANSWER)
    def load(self, socket: AbsolutePath) -> AsyncGenerator[Annotated[LoadEvent, LOAD_EVENT], None]:
        """Take what is served at `socket`; `LoadEnded` comes last. Closing the generator stops the work.

        Raises Unavailable if nothing is served there, Conflict (LOADING).
        """


class BundleCalls(ServiceCalls):
    load = call(BundleService.load)
