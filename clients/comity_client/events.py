"""What happens during a pull or a publication, as it happens: for whoever draws progress, or writes a log.

A callback may be called from a worker thread, never from two at once; what it raises ends the work.


Errors of tasks that ran side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.evidence import Verdict
from comity.trust.statements import Advisory


@dataclass(frozen=True, slots=True)
class Resolved:
    """The reference stands for this artifact, because of `basis`."""

    title: str
    artifact: Digest
    basis: str


@dataclass(frozen=True, slots=True)
class Advised:
    """Somebody warns of the artifact. `own` says that it is its publisher."""

    advisory: Advisory
    own: bool


@dataclass(frozen=True, slots=True)
class MisbehaviourFound:
    """A log, or a node, was caught at something; `text` says what and where the proof is. Copies stay valid."""

    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a person may want to know and that changes nothing."""

    text: str


@dataclass(frozen=True, slots=True)
class PolicyJudged:
    """The policy's verdict. `final` says that the bytes were hashed here; before that they are taken as announced, to
    refuse early what no download would change."""

    verdict: Verdict
    final: bool


@dataclass(frozen=True, slots=True)
class Started:
    """Work of `bytes` in `files` begins; `here` of the bytes are on this machine already."""

    files: int
    bytes: int
    here: int


@dataclass(frozen=True, slots=True)
class Progress:
    """`count` more bytes of `path` are done: hashed, fetched and verified, or sent."""

    path: str
    count: int


@dataclass(frozen=True, slots=True)
class FileDone:
    """A file is whole and verified. `sources` gives the bytes that each node brought, `reused` those found here."""

    path: str
    sources: dict[str, int]
    reused: int


@dataclass(frozen=True, slots=True)
class SourceDropped:
    """A node was given up for a file, and why."""

    node: str
    path: str
    why: str


@dataclass(frozen=True, slots=True)
class SourceFailed:
    """A node failed in the middle of a file, and was or would have been asked again after a rest; `why` says how."""

    node: str
    path: str
    why: str


@dataclass(frozen=True, slots=True)
class NodeAtFault:
    """A node answered a question with what breaks the contract, or is provably not what was asked for."""

    node: str
    why: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Another process is fetching the same file; its result will be used."""

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


def ignore_event(_: Event) -> None:
    """For callers who do not want to know."""


def first_error(failures: BaseExceptionGroup[ComityError]) -> ComityError:
    """The first of the failures that ended a task group: the others were cancelled for it."""
    found = failures.exceptions[0]
    return first_error(found) if isinstance(found, BaseExceptionGroup) else found
