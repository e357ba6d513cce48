"""What the commands about copies share: which node is asked, and how copies and audits are shown."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from comity.trust.copies import MISSED, PASSED, AuditResult
from comity.trust.encoding import Digest, parse_digest
from comity.trust.errors import Malformed

from comity_cli.command import client

if TYPE_CHECKING:
    from comity_client.copies import CopyList

F = TypeVar("F", bound=Callable[..., Any])


def of_own_node(function: F) -> F:
    """Decorator: options that name the node of this machine."""
    path: Any = click.Path(path_type=Path)
    function = click.option("--dir", "home", type=path, help="Ask the node of this machine, by its home.")(function)
    return click.option("--socket", type=path, help="Ask the node of this machine through its operator socket.")(
        function
    )


def of_a_node(function: F) -> F:
    """Decorator: options that name the node that is asked."""
    return of_own_node(
        click.option("--node", default="", help="Ask this node. Default: the first one that answers.")(function)
    )


def socket_of(socket: Path | None, home: Path | None) -> Path:
    """The operator socket; by default that of the node whose home is the current folder."""
    from comity_client.session import operator_socket

    if socket is not None and home is not None:
        raise click.UsageError("--socket and --dir name the same node; give one")
    return socket or operator_socket(home or Path())


def artifact_of(reference: str) -> Digest:
    """The artifact that a digest or a name names. Raises as `Client.resolve` does."""
    try:
        return parse_digest(reference)
    except Malformed:
        return client().resolve(reference).artifact


def read_list(node: str, socket: Path | None, home: Path | None, artifact: Digest | None = None) -> CopyList:
    """What the chosen node says about copies."""
    from comity_client.copies import own_copies

    if socket is None and home is None:
        return client().copies(node, artifact)
    if node:
        raise click.UsageError("--node is a node of the federation, --socket and --dir are your own; give one")
    return own_copies(socket_of(socket, home), artifact)


def date(day: int) -> str:
    """`2026-11-25` for a day counted from 1970."""
    if day > 2_900_000:  # the year 9909
        return f"day {day}"
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()


def outcome_text(result: AuditResult) -> str:
    """`passed 10 pieces`, `no answer`, `failed: digest`."""
    if result.outcome == PASSED:
        return f"passed {result.pieces} pieces"
    return "no answer" if result.outcome == MISSED else f"failed: {result.outcome}"
