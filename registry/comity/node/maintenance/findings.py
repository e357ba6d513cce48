"""What a check of `comity doctor` sees, and what it finds.

A finding never claims more than its check looked at: `unknown` says that something was not checked, and why.
"""

from __future__ import annotations

import ctypes
import os
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

from comity.node.config import NodeConfig
from comity.node.home import HomeFiles
from comity.node.threads import Clock
from comity.trust.errors import ComityError
from comity.wire.node_status import NodeStatus

Level: TypeAlias = Literal["ok", "warn", "fail", "unknown"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One result of a check: its topic in a word, what was seen, and for `warn` and `fail` the next step."""

    topic: str
    level: Level
    text: str
    fix: str = ""

    @classmethod
    def of(cls, topic: str, error: ComityError, *, fix: str = "", level: Level = "fail") -> Diagnosis:
        return cls(topic, level, f"{error}  [{error.code}]", fix or error.hint or f"comity explain {error.code}")


EXIT_STATUS: Final[Mapping[Level, int]] = {"ok": 0, "unknown": 0, "warn": 8, "fail": 1}
"""Of the worst finding, from the best level to the worst."""


def worst(findings: Iterable[Diagnosis]) -> Level:
    """The worst level."""
    return max((finding.level for finding in findings), key=list(EXIT_STATUS).index, default="ok")


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Free and total bytes of a file system, and inodes; a file system without a table of inodes has 0 of 0."""

    free: int
    size: int
    free_inodes: int
    inodes: int


def disk_space(folder: Path) -> DiskSpace:
    """The space for an ordinary user below `folder`. Raises OSError."""
    found = os.statvfs(folder)
    return DiskSpace(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, found.f_favail, found.f_files)


_UNSYNCHRONISED: Final = 5
"""TIME_ERROR of adjtimex(2): no time service keeps this clock."""
_TIMEX_BYTES: Final = 256
"""More than the kernel's struct timex, whose first field, 0, asks for no change."""


def clock_synchronised() -> bool | None:
    """Whether the kernel says that a time service keeps the clock of this machine; None if the kernel does not say."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _UNSYNCHRONISED


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts about this machine that checks use."""

    clock: Clock = time.time
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    space: Callable[[Path], DiskSpace] = disk_space
    synchronised: Callable[[], bool | None] = clock_synchronised
    open_files: Callable[[], int] = lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@dataclass(frozen=True, slots=True)
class ExaminedNode:
    """A home whose settings are usable. `files` is None if its keys or public files are not; `status` is None while
    its node does not run."""

    home: Path
    config: NodeConfig
    files: HomeFiles | None
    status: NodeStatus | None
    machine: Machine


Check: TypeAlias = Callable[[ExaminedNode], Iterable[Diagnosis]]
