"""The option `--node`: one way to name a node.

    NAME     a node of a pinned federation: its name, its log, its member, or its address host:port
    URL      https://host:port of such a node
    SOCKET   the operator socket of a node on this machine
    HOME     the folder of a node on this machine

Commands that need files of a home (keys, tokens) take a home only. Earlier spellings of the option are accepted and
not shown.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from comity_cli.completions import nodes, suggestions
from comity_cli.files import FOLDER

F = TypeVar("F", bound=Callable[..., Any])

NODE: Final = "NAME|URL|SOCKET|HOME"


class SpelledOption(click.Option):
    """An option whose first spelling is shown in the help; the others are accepted as well."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of known nodes, and folders."""
        names = suggestions(nodes, incomplete) if self.metavar == NODE else []
        return [*names, CompletionItem(incomplete, type="dir")]

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        spellings, self.opts = self.opts, self.opts[:1]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = spellings


def node_option(help: str, *, old: Sequence[str] = ()) -> Callable[[F], F]:
    """Decorator: `--node` for one node, as the argument `node`, a string or None."""
    return click.option(
        "--node", *old, "node", cls=SpelledOption, multiple=True, metavar=NODE, callback=_only, help=help
    )


def nodes_option(help: str, *, old: Sequence[str] = ()) -> Callable[[F], F]:
    """Decorator: `--node`, repeatable, as the argument `nodes`."""
    return click.option("--node", *old, "nodes", cls=SpelledOption, multiple=True, metavar=NODE, help=help)


def home_option(help: str, *, name: str = "home", exists: bool = True) -> Callable[[F], F]:
    """Decorator: `--node HOME` for a command that needs the files of a node's home; without `exists` the
    command itself refuses a folder that is not there."""
    kind = FOLDER if exists else click.Path(path_type=Path)
    return click.option(
        "--node", "--dir", name, cls=SpelledOption, type=kind, metavar="HOME", default=Path(), help=help
    )


def member_node_options(home_help: str, target_help: str, *, default: Path | None = Path()) -> Callable[[F], F]:
    """Decorator: `--node`, for a command that signs with the keys of a home and logs at a node, as the arguments `home`
    and `to`: a home gives the keys, and its node logs the line unless another node is named.

    Args:
        default: the home if none is named.
    """

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def resolved(*args: Any, nodes: tuple[str, ...], home: Path | None, to: str | None, **options: Any) -> Any:
            home, to = _home_and_target(nodes, home, to)
            return command(*args, home=home or default, to=to, **options)

        for option in (
            click.option("--to", hidden=True),
            click.option("--dir", "home", type=FOLDER, hidden=True),
            nodes_option(f"{home_help} {target_help}"),
        ):
            resolved = option(resolved)
        return resolved  # type: ignore[return-value]

    return decorate


def is_home(named: str) -> bool:
    """Whether a node's home, or the home of a member before its node's first start, has this path."""
    return any((Path(named) / name).is_file() for name in ("node.toml", "inception.line"))


def _home_and_target(named: Sequence[str], home: Path | None, to: str | None) -> tuple[Path | None, str | None]:
    for each in named:
        if home is None and is_home(each):
            home = Path(each)
        elif to is None:
            to = each
        else:
            raise click.UsageError("--node names at most a home and one other node")
    return home, to


def _only(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> str | None:
    if len(given) > 1:
        raise click.UsageError("one node can be named here", context)
    return given[0] if given else None
