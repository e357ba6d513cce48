"""Who reads a commit while it comes: told of each byte that is on the disk, asked which files are waited for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

from comity.trust.upstream.comparing import Observation
from comity.upstream.listing import Listing


class FileAudience(Protocol):
    """Whoever reads one file. Called in the thread that fetches it."""

    def came(self, data: bytes) -> None:
        """The next bytes are in the file; nothing is known of the whole yet."""
        ...

    def lost(self) -> None:
        """What came is thrown away: the file begins anew, or never will."""
        ...


class Audience(Protocol):
    """Whoever reads a commit. Called in threads; must not block."""

    def expected(self, listing: Listing, paths: Sequence[Path]) -> None:
        """What is about to come, and where each file will lie. Called once, before the first byte."""
        ...

    def awaited(self) -> Collection[int]:
        """Numbers of files that somebody waits for: begun before others. May name some that are under way, or here."""
        ...

    def of(self, number: int) -> FileAudience: ...

    def whole(self, number: int, observation: Observation) -> None:
        """A file is here, and is the one that is listed."""
        ...


class Nobody:
    """No one reads before all of it is here."""

    def expected(self, listing: Listing, paths: Sequence[Path]) -> None:
        pass

    def awaited(self) -> Collection[int]:
        return ()

    def of(self, number: int) -> FileAudience:
        return _NO_FILE

    def whole(self, number: int, observation: Observation) -> None:
        pass


class _NoFile:
    def came(self, data: bytes) -> None:
        pass

    def lost(self) -> None:
        pass


_NO_FILE = _NoFile()
NOBODY = Nobody()
