"""The Python API of a user: `from comity_client import Client`. docs/python.md shows it.

`Client` is loaded at its first use: the commands use other modules of this package, and need not all that it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comity_client.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> object:
    if name != "Client":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from comity_client.client import Client

    return Client
