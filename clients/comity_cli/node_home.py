"""The home of a node on this machine: its settings file, and whether the node itself is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from comity.trust.errors import NotFound, Unavailable


@contextmanager
def node_installed() -> Iterator[None]:
    """The block imports parts of the node. Raises Unavailable if they are not installed."""
    try:
        yield
    except ImportError as error:
        raise Unavailable(
            "the node is not installed", why=f"{error.name} is missing", hint="pip install 'comity[node]'"
        ) from error


def node_file(home: Path) -> Path:
    """The settings file of a home. Raises NotFound."""
    file = home / "node.toml"
    if not file.exists():
        hint = "name your node's home: --node HOME; or make one: comity init --help"
        raise NotFound(f"no node in {home}", why=f"{file} is missing", hint=hint)
    return file
