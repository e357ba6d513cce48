"""The policy of the owner of a node, read again when its file changes, or a file that it names.

The last policy that could be read counts: one that is gone, cannot be read or is no policy changes nothing, and the
node says so in its log and its status until the file is right again. So a mistake never makes a node accept more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import Pools
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen
from comity.trust.policy import Policy
from comity.verifier import read_policy

LOOKS: Final = LoopTiming(interval=2.0, deadline=60.0)
RETRY_SECONDS: Final = 30.0
"""Seconds after which a policy that could not be read is tried again although no file has changed."""

FileIdentity: TypeAlias = "tuple[int, int, int, int] | None"

_log: Final = structlog.get_logger("comity.node")


@frozen
class _Known:
    """What was read; `files` are those of the policy with their identities from before they were read."""

    policy: Policy | None
    basis: str
    files: tuple[tuple[Path, FileIdentity], ...]


class PolicyFile:
    """Thread-safe. The constructor raises NotFound, Malformed, Untrusted and Unavailable, as `read_policy` does.

    Attributes:
        problem: why the file cannot be read now, empty if it can: then the policy before it still counts.
    """

    def __init__(self, file: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._lock = threading.Lock()
        self._tried_at = clock()
        self.problem = ""
        self._known = _Known(None, "", ())
        if file is not None:
            self._known = _read(file, _SeenFiles())

    @property
    def configured(self) -> bool:
        """Whether the owner has a policy."""
        return self._file is not None

    @property
    def policy(self) -> Policy | None:
        """The policy that counts; None without a file."""
        return self._known.policy

    @property
    def basis(self) -> str:
        """Is another one for another policy; empty without a file."""
        return self._known.basis

    def named(self) -> Collection[Digest]:
        """Blocking. Whom the policy names now."""
        self.refresh()
        policy = self.policy
        return policy.named if policy is not None else ()

    def begin(self, supervisor: Supervisor, pools: Pools) -> None:
        """Look for changes in the background."""

        async def look() -> None:
            await pools.files(self.refresh)

        if self.configured:
            supervisor.loop("policy", look, LOOKS)

    def refresh(self) -> None:
        """Blocking. Read the policy again if one of its files has changed."""
        if self._file is None:
            return
        with self._lock:
            known = self._known
            changed = any(_identity(path) != identity for path, identity in known.files)
            if not changed and not (self.problem and self._clock() - self._tried_at > RETRY_SECONDS):
                return
            self._read_again(self._file)

    def _read_again(self, file: Path) -> None:
        self._tried_at, seen = self._clock(), _SeenFiles()
        before = {path: _identity(path) for path, _ in self._known.files}
        try:
            self._known = _read(file, seen)
        except ComityError as error:
            files = tuple((before | seen.identities).items())  # with what it named before
            self._known = _Known(self._known.policy, self._known.basis, files)
            self.problem = f"{error.what}: {error.why}" if error.why else error.what
            _log.warning("the policy cannot be read; the one before it still counts", file=str(file), why=self.problem)
            return
        self.problem = ""
        _log.info("the policy was read again", file=str(file), basis=self._known.basis)


class _SeenFiles:
    """The identities of files, each from before it was read."""

    def __init__(self) -> None:
        self.identities: dict[Path, FileIdentity] = {}

    def note(self, path: Path) -> None:
        self.identities[path] = _identity(path)


def _read(file: Path, seen: _SeenFiles) -> _Known:
    policy, data = read_policy(file, seen.note)
    files = tuple(seen.identities.items())
    return _Known(policy, _basis(data, files), files)


def _basis(data: bytes, files: Sequence[tuple[Path, FileIdentity]]) -> str:
    """Named files may be large, so their identities stand for them."""
    return sha256(data + repr([identity for _, identity in files[1:]]).encode())


def _identity(path: Path) -> FileIdentity:
    with suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    return None
