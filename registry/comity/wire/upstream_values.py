"""What travels about repositories elsewhere, as plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

STATES: Final = ("same", "changed", "gone")


@dataclass(frozen=True, slots=True)
class ImportOrder:
    """What a node is to mirror, or to take in from a folder on its machine. `token` is in no `repr`."""

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
    """`count` more bytes of `path` are here and hashed; negative where some had to be thrown away."""

    path: str
    count: int


@dataclass(frozen=True, slots=True)
class ImportWaiting:
    """Nothing is asked for some seconds, and why."""

    why: str
    seconds: int


@dataclass(frozen=True, slots=True)
class ImportDone:
    """The `observed` line and where it stands in the node's log; `before`: it did so already."""

    line: bytes
    origin: str
    index: int
    before: bool


ImportEvent: TypeAlias = ImportStarted | ImportProgress | ImportWaiting | ImportDone


@dataclass(frozen=True, slots=True)
class UpstreamCheck:
    """How an upstream stands, one of `STATES`; `line` is the statement that was logged about it, if any."""

    state: str
    line: bytes = b""
    index: int = 0
