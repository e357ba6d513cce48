"""Who waits for a file while it is still coming in: told of each piece, asked what is waited for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class Audience(Protocol):
    """Called on the transfer's event loop; must not block."""

    def arrived(self, piece: int) -> None:
        """A piece is verified and in the partial file."""
        ...

    def awaited(self) -> Collection[int]:
        """Pieces, in ascending order, that somebody waits for: fetched before others. May name some that are here."""
        ...


class Nobody:
    """No one waits before the file is whole."""

    def arrived(self, piece: int) -> None:
        pass

    def awaited(self) -> Collection[int]:
        return ()
