"""Find the gateway for `env` and `run-with`.

`--node` names it by its URL, by a node's home, operator socket or a lab's folder on this machine, or by the name of a
node of the pinned federations, which is asked for its gateway's URL.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import click
from comity.trust.errors import NotFound, Unavailable
from comity.trust.frozen import frozen

from comity_cli.command import client, output
from comity_cli.nodes import node_option

F = TypeVar("F", bound=Callable[..., Any])

CONNECT_SECONDS: Final = 3.0

_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_OPTIONS: Final = (
    node_option(
        "The gateway's URL; or a node's home or a lab's folder here; or a node of the lab here or of the pinned "
        "federations, which is asked for its gateway's URL. Default: the node or the first running node of the lab "
        "here, or the only node that is pinned."
    ),
    click.option("--dir", "directory", type=click.Path(path_type=Path), hidden=True),
    click.option("--url", default="", hidden=True),
    click.option("--token-file", type=_FILE, help="A file of mode 0600 with a token of that node."),
    click.option(
        "--ca", type=_FILE, help="Certificates (PEM) to trust, if the node's certificate is not publicly trusted."
    ),
)


def gateway_options(command: F) -> F:
    """Decorator: the options that name a gateway, its token and its certificates."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@frozen
class Endpoint:
    """A gateway's URL and its basis: `given` by the user, read from `settings` here, or `claimed` by `node`."""

    url: str
    basis: str
    node: str = ""


def endpoint(directory: Path | None, node: str | None, url: str) -> Endpoint:
    """Return the gateway that the options name; warn if its URL is only a node's claim.

    Args:
        directory: a home or a lab's folder in which `node` is a name, for the earlier spelling of the options.

    Raises NotFound (NO-GATEWAY, NO-NODES), Malformed (CONFIG, GATEWAY-URL), and the error of a node that does not
    answer.
    """
    from comity_client.hub_environment import endpoint_of

    if url or (node and "://" in node):
        return Endpoint(url or str(node), "given")
    if node is None or directory is not None:
        home = _home(directory or Path(), node or "")
    else:
        home = _home(Path(node), "") or _home_of_socket(Path(node)) or _home(Path(), node)
    if home is not None:
        return Endpoint(endpoint_of(home), "settings")
    if directory is not None:
        what = f"no node {node!r} in {directory}" if node else f"neither a node nor a lab in {directory}"
        raise NotFound(what, hint="name one, or the gateway's URL: --node HOME|URL", code="NO-GATEWAY")
    claim = client().gateway(node or "")
    output().warn(f"{claim.url} is the gateway that {claim.node} claims to have; this is not proven")
    return Endpoint(str(claim.url), "claimed", claim.node)


def warn_of_proxy(url: str) -> None:
    """Say that clients ask a gateway elsewhere through a proxy, which a node of one's own site seldom needs."""
    from comity_client.hub_environment import proxies

    parts, found = urlsplit(url), proxies(os.environ)
    if found and not (os.environ.get("NO_PROXY") or os.environ.get("no_proxy")) and not _is_loopback(url):
        output().warn(f"{found[0]} is set: clients ask {parts.hostname} through that proxy")
        output().hint(f"export NO_PROXY={shlex.quote(parts.hostname or '')}   # to ask it directly")


def _is_loopback(url: str) -> bool:
    from comity.wire.addresses import GatewayUrl

    return GatewayUrl.parse(url.removesuffix("/")).address.is_loopback


def check_answers(endpoint: str) -> None:
    """Raises Unavailable (UNREACHABLE) if no server listens there: a Hub client's own error message is misleading."""
    parts = urlsplit(endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with contextlib.closing(socket.create_connection((parts.hostname, port), timeout=CONNECT_SECONDS)):
            pass
    except OSError as error:
        hint = "comity serve --node HOME, or run-with --offline to use only the cache"
        raise Unavailable(f"no gateway answers at {endpoint}", why=str(error), hint=hint, code="UNREACHABLE") from error


def _home_of_socket(socket: Path) -> Path | None:
    """The home of the node on this machine that listens on this operator socket, if the socket is in its home."""
    return socket.parent if socket.is_socket() and (socket.parent / "node.toml").exists() else None


def _home(directory: Path, node: str) -> Path | None:
    """The home of the node `node`; `directory` is that home or a lab's folder. None if there is none."""
    from comity_cli.lab.lab import Lab

    if (directory / "node.toml").exists() and not node:
        return directory
    with contextlib.suppress(NotFound):
        nodes = [found for found in Lab.open(directory).nodes if node in ("", found.name)]
        if nodes:
            return next((found for found in nodes if found.pid is not None), nodes[0]).home
    return None
