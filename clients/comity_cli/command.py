"""Base classes and helpers of commands: common flags, examples at the end of the help, and the client."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from comity.trust.errors import NotFound
from comity.trust.exit_statuses import INTERRUPTED

from comity_cli.completions import OF_ARGUMENTS, LocalName
from comity_cli.main import close, common_options, no_such_command
from comity_cli.output import Output

if TYPE_CHECKING:
    from comity_client.client import Client
    from comity_client.user import User

C = TypeVar("C", bound=click.Command)
R = TypeVar("R")

_WORD: Final = re.compile(r"(?:--[\w-]+ +(?=[^-\s]))?(?:[^\s']|'[^']*')+")
"""A word of an example, or an option with its value."""

SAME_VERBS: Final[Mapping[str, Sequence[str]]] = {
    "list": ("ls",),
    "add": ("new", "pin", "draft"),
    "create": ("new", "draft"),
    "make": ("new", "draft"),
    "delete": ("rm", "revoke", "withdraw"),
    "remove": ("rm", "revoke", "unpin", "withdraw"),
    "cancel": ("withdraw", "revoke"),
    "get": ("show", "ls"),
    "info": ("show",),
    "import": ("load",),
    "vote": ("approve",),
    "accept": ("approve", "accept"),
    "clean": ("prune",),
    "gc": ("prune",),
}
"""Verbs of other tools, and the verbs here that may be meant."""


class Command(click.Command):
    """A command that takes the common flags and whose help ends with examples."""

    examples: Sequence[str] = ()

    def __init__(self, name: str | None, *, params: Sequence[click.Parameter] | None = None, **kwargs: Any) -> None:
        super().__init__(name, params=[*map(_with_names, params or ()), *common_options()], **kwargs)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _examples(self.examples, formatter)


class Group(click.Group):
    """A command group whose subcommands are `Command`s."""

    command_class = Command
    examples: Sequence[str] = ()

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            found = SAME_VERBS.get(args[0].lower(), ())
            near = [verb for verb in found if verb in self.commands] or close(args[0], self.commands)
            ctx.fail(no_such_command(f"{self.name} {args[0]}", [f"{self.name} {verb}" for verb in near]))
        return super().resolve_command(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _examples(self.examples, formatter)


def examples(*lines: str) -> Callable[[C], C]:
    """Decorator: the examples at the end of a command's help."""

    def decorate(command: C) -> C:
        assert isinstance(command, Command | Group)
        command.examples = lines
        return command

    return decorate


def options_as(name: str, options: type[Any]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Decorator for a command of more than seven parameters: those that a frozen dataclass has as fields are given to
    the function as one value of it, under `name`. Decorators above this one take theirs first."""
    names = [each.name for each in fields(options)]

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(function)
        def run(**values: Any) -> R:
            given = {each: values.pop(each) for each in names if each in values}
            return function(**values, **{name: options(**given)})

        return run

    return decorate


def output() -> Output:
    return click.get_current_context().ensure_object(Output)


@contextlib.contextmanager
def resolving(verb: str) -> Iterator[None]:
    """The block resolves a reference. An error that advises to pull a version advises the command `verb` instead."""
    try:
        yield
    except NotFound as error:
        if not error.by_node:
            error.hint = error.hint.replace("comity pull ", f"comity {verb} ", 1)
        raise


def agree(question: str, *, yes: bool) -> None:
    """Ask the user for confirmation, unless --yes was given. With --json there is no question: --yes is required.

    Raises click.UsageError, and click's Exit (130) if the user declines or gives no answer.
    """
    if yes:
        return
    if output().as_json:
        raise click.UsageError("with --json there is no question: read the plan first, then repeat with --yes")
    try:
        refusal = "" if click.confirm(question, err=True) else "declined"
    except click.Abort:
        click.echo(err=True)
        refusal = "no answer"
        output().hint("in a script, read the output above and repeat the command with --yes")
    if refusal:
        output().warn(f"{refusal}: nothing was signed or changed")
        raise click.exceptions.Exit(INTERRUPTED)


def client() -> Client:
    """The client with this user's home. The import is deferred because it loads gRPC."""
    from comity.content.heap import limit_arenas
    from comity_client.client import Client

    limit_arenas()
    return Client()


@contextlib.contextmanager
def connected_client() -> Iterator[Client]:
    """The same with one session, whose connections are opened before the client is imported."""
    from comity.content.heap import limit_arenas

    limit_arenas()
    with user().connected() as connected:
        from comity_client.client import Client

        yield Client(user=connected)


def user() -> User:
    """This user's stores, for what reads local files only: gRPC is not loaded."""
    from comity_client.early import begun
    from comity_client.home import Home
    from comity_client.user import User

    return User(Home.default(), early=begun())


def _with_names(parameter: click.Parameter) -> click.Parameter:
    """Have the shell complete an argument that takes a model, member or log with names of this user's files."""
    source = OF_ARGUMENTS.get(parameter.name or "")
    if source is not None and isinstance(parameter, click.Argument) and parameter.type is click.STRING:
        parameter.type = LocalName(source)
    return parameter


def _examples(lines: Sequence[str], formatter: click.HelpFormatter) -> None:
    if lines:
        with formatter.section("Examples"):
            width = formatter.width - formatter.current_indent
            formatter.write_text("\b\n" + "\n".join(continued(line, width) for line in lines))


def continued(line: str, width: int) -> str:
    """A command line in lines of at most `width` columns, which a shell reads as one: each but the last ends with a
    backslash. What is quoted, and a longer word, stays whole."""
    if len(line) <= width:
        return line
    lines = [""]
    for word in _WORD.findall(line):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if len(joined) + len(" \\") <= width or not lines[-1].strip():
            lines[-1] = joined
        else:
            lines.append(f"    {word}")
    return " \\\n".join(lines)
