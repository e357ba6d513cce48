"""Which gateway a user means: by the home of a node, by a lab's folder, or by its URL. For `env` and `run-with`."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import click
from comity.trust.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from comity_client.hub_environment import HubEnvironment

F = TypeVar("F", bound=Callable[..., Any])

CONNECT_SECONDS: Final = 3.0

_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_OPTIONS: Final = (
    click.option(
        "--dir",
        "directory",
        type=click.Path(path_type=Path),
        default=Path(),
        help="The node's home, or a lab's folder.",
    ),
    click.option("--node", default="", metavar="NAME", help="Which node of the lab. Default: the first that runs."),
    click.option("--url", default="", help="The gateway's URL, where the node is not on this machine."),
    click.option("--token-file", type=_FILE, help="A token of that node's, in a file of mode 0600."),
    click.option("--ca", type=_FILE, help="Certificates (PEM) to trust, where the node's is not publicly trusted."),
)


def gateway_options(command: F) -> F:
    """Add the options that say which gateway, and what it takes to use it."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def environment(directory: Path, node: str, url: str, token_file: Path | None, ca: Path | None) -> HubEnvironment:
    """What the options ask for. Raises NotFound (NO-GATEWAY), and what `hub_environment` raises."""
    from comity_client.hub_environment import hub_environment

    return hub_environment(url or _endpoint(directory, node), token_file=token_file, ca=ca)


def check_answers(endpoint: str) -> None:
    """Raises Unavailable (UNREACHABLE) unless something listens there: a client's own words for it mislead."""
    parts = urlsplit(endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with contextlib.closing(socket.create_connection((parts.hostname, port), timeout=CONNECT_SECONDS)):
            pass
    except OSError as error:
        hint = "comity serve --dir HOME, or run-with --offline for what is in the cache"
        raise Unavailable(f"no gateway answers at {endpoint}", why=str(error), hint=hint, code="UNREACHABLE") from error


def _endpoint(directory: Path, node: str) -> str:
    from comity_client.hub_environment import endpoint_of

    return endpoint_of(_home(directory, node))


def _home(directory: Path, node: str) -> Path:
    """The home of the node `node` in `directory`, which is a home itself or a lab's folder."""
    from comity_cli.lab.lab import Lab

    if (directory / "node.toml").exists() and not node:
        return directory
    with contextlib.suppress(NotFound):
        nodes = [found for found in Lab.open(directory).nodes if node in ("", found.name)]
        if nodes:
            return next((found for found in nodes if found.pid is not None), nodes[0]).home
    what = f"no node {node!r} in {directory}" if node else f"neither a node nor a lab in {directory}"
    raise NotFound(what, hint="name one with --dir, or the gateway with --url", code="NO-GATEWAY")
