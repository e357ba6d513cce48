"""Which gateway a user means: by its URL, by the home of a node or a lab's folder on this machine, or by the name of a
node of the pinned federations, which tells its own. For `env` and `run-with`."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import click
from comity.trust.errors import NotFound, Unavailable

from comity_cli.command import client, output

F = TypeVar("F", bound=Callable[..., Any])

CONNECT_SECONDS: Final = 3.0

_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_OPTIONS: Final = (
    click.option(
        "--dir",
        "directory",
        type=click.Path(path_type=Path),
        help="A node's home, or a lab's folder. Default: the current folder, where it is one.",
    ),
    click.option(
        "--node",
        default="",
        metavar="NAME",
        help="Which node: of the lab, else of the pinned federations, which is asked for its gateway's URL. "
        "Default: the first of the lab that runs, or the only one that is pinned.",
    ),
    click.option("--url", default="", help="The gateway's URL; no node is asked for it."),
    click.option("--token-file", type=_FILE, help="A token of that node's, in a file of mode 0600."),
    click.option("--ca", type=_FILE, help="Certificates (PEM) to trust, where the node's is not publicly trusted."),
)


def gateway_options(command: F) -> F:
    """Add the options that say which gateway, and what it takes to use it."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A gateway's URL, and whose word that is: `given` by the user, read in `settings` here, or `claimed` by `node`."""

    url: str
    basis: str
    node: str = ""


def endpoint(directory: Path | None, node: str, url: str) -> Endpoint:
    """What the options ask for; a claim is said to be one. Raises NotFound (NO-GATEWAY, NO-NODES), Malformed (CONFIG,
    GATEWAY-URL), and what keeps a node from answering."""
    from comity_client.hub_environment import endpoint_of

    if url:
        return Endpoint(url, "given")
    home = _home(directory or Path(), node)
    if home is not None:
        return Endpoint(endpoint_of(home), "settings")
    if directory is not None:
        what = f"no node {node!r} in {directory}" if node else f"neither a node nor a lab in {directory}"
        raise NotFound(what, hint="name one with --dir, or the gateway with --url", code="NO-GATEWAY")
    told = client().gateway(node)
    output().warn(f"{told.url} is where {told.node} claims to have its gateway; nothing proves it")
    return Endpoint(str(told.url), "claimed", told.node)


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


def _home(directory: Path, node: str) -> Path | None:
    """The home of the node `node` in `directory`, a home itself or a lab's folder; None where it is not there."""
    from comity_cli.lab.lab import Lab

    if (directory / "node.toml").exists() and not node:
        return directory
    with contextlib.suppress(NotFound):
        nodes = [found for found in Lab.open(directory).nodes if node in ("", found.name)]
        if nodes:
            return next((found for found in nodes if found.pid is not None), nodes[0]).home
    return None
