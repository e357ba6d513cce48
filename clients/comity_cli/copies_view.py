"""What the commands about copies share: which node is asked, and how copies and audits are shown."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from comity.rules.copy_counts import MISSED, PASSED, AuditResult, CopyCount
from comity.trust.encoding import Digest, parse_digest
from comity.trust.errors import Malformed
from comity.trust.places import MOST_REACHES

from comity_cli.command import client
from comity_cli.nodes import NODE

if TYPE_CHECKING:
    from comity.rules.copy_questions import CopyQuestion
    from comity_client.copies import CopyList, CountedCopies, ShowArtifacts

F = TypeVar("F", bound=Callable[..., Any])


def of_own_node(function: F) -> F:
    """Decorator: `--node` for the node of this machine, as the arguments `socket` and `home`."""

    @functools.wraps(function)
    def resolved(*arguments: Any, node: str, socket: Path | None, home: Path | None, **options: Any) -> Any:
        if node:
            socket, home = _own_place(node, socket, home)
        return function(*arguments, socket=socket, home=home, **options)

    return _node_options("HOME|SOCKET", "Your node, by its home or its operator socket.")(resolved)  # type: ignore[return-value]


def of_a_node(function: F) -> F:
    """Decorator: `--node` for the node that is asked, as the arguments `node`, `socket` and `home`."""

    @functools.wraps(function)
    def resolved(*arguments: Any, node: str, socket: Path | None, home: Path | None, **options: Any) -> Any:
        if node and Path(node).exists():
            socket, home = _own_place(node, socket, home)
            node = ""
        return function(*arguments, node=node, socket=socket, home=home, **options)

    return _node_options(NODE, "Ask this node. Default: the first one that answers.")(resolved)  # type: ignore[return-value]


def _node_options(metavar: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        path: Any = click.Path(path_type=Path)
        for option in (
            click.option("--socket", type=path, hidden=True),
            click.option("--dir", "home", type=path, hidden=True),
            click.option("--node", default="", metavar=metavar, help=text),
        ):
            function = option(function)
        return function

    return decorate


def _own_place(node: str, socket: Path | None, home: Path | None) -> tuple[Path | None, Path | None]:
    """The operator socket, or the home, of the node of this machine that `node` names."""
    if socket is not None or home is not None:
        raise click.UsageError("name the node once")
    return (Path(node), None) if Path(node).is_socket() else (None, Path(node))


def socket_of(socket: Path | None, home: Path | None) -> Path:
    """The operator socket; by default that of the node whose home is the current folder."""
    from comity_client.own_node import operator_socket

    if socket is not None and home is not None:
        raise click.UsageError("name the node once")
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
        raise click.UsageError("name the node once")
    return own_copies(socket_of(socket, home), artifact)


def fold_list(
    node: str,
    socket: Path | None,
    home: Path | None,
    question: CopyQuestion,
    show: ShowArtifacts = lambda counted, found: None,
) -> CountedCopies:
    """What the chosen node says about the copies of all artifacts; `show` gets those that the question is about."""
    from comity_client.copies import fold_own_copies

    if socket is None and home is None:
        return client().fold_copies(question, node, show)
    if node:
        raise click.UsageError("name the node once")
    return fold_own_copies(socket_of(socket, home), question, show)


def reaches_text(count: CopyCount) -> str:
    """`2`, `4 or more`, `1, 2 undeclared`."""
    least = f"{count.reaches} or more" if count.reaches == MOST_REACHES else str(count.reaches)
    return least + (f", {count.undeclared} undeclared" if count.undeclared else "")


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
