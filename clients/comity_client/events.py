"""Events of a pull or a publication, for progress displays and logs.

A callback may be called from a worker thread, but never from two threads at once. An exception in it ends the work.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TypeAlias, TypeVar

from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.evidence import Verdict
from comity.trust.frozen import frozen
from comity.trust.statements import Advisory


@frozen
class Resolved:
    """A reference was resolved to this artifact, because of `basis`. `publisher` is None if no publisher signed it."""

    title: str
    artifact: Digest
    basis: str
    publisher: Digest | None = None


@frozen
class Advised:
    """There is an advisory about the artifact. `own`: its author is the publisher of the artifact. `str` says
    who warns of what."""

    advisory: Advisory
    own: bool

    def __str__(self) -> str:
        by = "its publisher" if self.own else f"{self.advisory.by.kind} {self.advisory.by.id[:12]}"
        return f"{self.advisory.kind} ({self.advisory.severity}) by {by}: {self.advisory.text}"


@frozen
class MisbehaviourFound:
    """Misbehaviour of a log or node was detected; `text` says what, and where the proof is. Local copies stay valid."""

    text: str
    hint: str = ""


@frozen
class Note:
    """Information for the user that changes nothing."""

    text: str


@frozen
class PolicyJudged:
    """The verdict of the policy. `final`: the bytes were hashed here. Otherwise the manifest is assumed to be true, to
    refuse early what no download would change."""

    verdict: Verdict
    final: bool


@frozen
class Started:
    """Work on `bytes` in `files` begins; `here` of the bytes are already on this machine. The `count`s of the
    `Progress` events that follow sum up to `work`, at most."""

    files: int
    bytes: int
    here: int
    work: int


@frozen
class Progress:
    """`count` more bytes of `path` are hashed, fetched and verified, or sent; each byte is counted once for each node
    that gets it, also if it was there before."""

    path: str
    count: int


@frozen
class FileDone:
    """A file is complete and verified. `sources`: bytes by node; `reused`: bytes found on this machine."""

    path: str
    sources: dict[str, int]
    reused: int


@frozen
class SourceDropped:
    """A node is no longer used for a file; `why` gives the reason."""

    node: str
    path: str
    why: str


@frozen
class SourceFailed:
    """A node failed during a file, and was or would have been retried after a delay; `why` gives the reason."""

    node: str
    path: str
    why: str


@frozen
class NodeAtFault:
    """An answer of a node violates the protocol, or provably is not the requested data."""

    node: str
    why: str


@frozen
class Waiting:
    """Another process fetches the same file; its result will be used."""

    path: str


Event: TypeAlias = (
    Resolved
    | Advised
    | MisbehaviourFound
    | Note
    | PolicyJudged
    | Started
    | Progress
    | FileDone
    | NodeAtFault
    | SourceDropped
    | SourceFailed
    | Waiting
)
OnEvent: TypeAlias = Callable[[Event], None]
T = TypeVar("T")


def ignore_event(_: Event) -> None:
    """Ignore the event."""


async def in_thread(work: Callable[[OnEvent], T], on_event: OnEvent) -> T:
    """Run blocking `work` in a thread. If this call is cancelled, the next event of `work` raises: otherwise the thread
    would go on, and keep the program from ending."""
    cancelled = threading.Event()

    def report(event: Event) -> None:
        if cancelled.is_set():
            raise CancelledError
        on_event(event)

    try:
        return await asyncio.to_thread(work, report)
    finally:
        cancelled.set()


def first_error(failures: BaseExceptionGroup[ComityError]) -> ComityError:
    """Return the first failure of a task group; the other tasks were cancelled because of it."""
    found = failures.exceptions[0]
    return first_error(found) if isinstance(found, BaseExceptionGroup) else found
