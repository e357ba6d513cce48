"""How a command of this house is made: the common flags, examples at the end of its help, the client at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from comity_cli.main import INTERRUPTED, common_options
from comity_cli.output import Output

if TYPE_CHECKING:
    from comity_client.client import Client

C = TypeVar("C", bound=click.Command)


class Command(click.Command):
    """A command whose help ends with examples and that takes the common flags."""

    examples: Sequence[str] = ()

    def __init__(self, name: str | None, *, params: Sequence[click.Parameter] | None = None, **kwargs: Any) -> None:
        super().__init__(name, params=[*(params or ()), *common_options()], **kwargs)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _examples(self.examples, formatter)


class Group(click.Group):
    """A noun whose verbs are `Command`s."""

    command_class = Command
    examples: Sequence[str] = ()

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _examples(self.examples, formatter)


def examples(*lines: str) -> Callable[[C], C]:
    """Decorate a command with the examples that its help page ends with."""

    def decorate(command: C) -> C:
        assert isinstance(command, Command | Group)
        command.examples = lines
        return command

    return decorate


def output() -> Output:
    return click.get_current_context().ensure_object(Output)


def agree(question: str, *, yes: bool) -> None:
    """Ask a person, unless --yes was given; return if they agree. A program (--json) is not asked: it says --yes.

    Raises click.UsageError, and click's Exit (130) where they decline or nobody answers.
    """
    if yes:
        return
    if output().as_json:
        raise click.UsageError("with --json nothing is asked: read the plan first, then repeat with --yes")
    try:
        refusal = "" if click.confirm(question, err=True) else "declined"
    except click.Abort:
        click.echo(err=True)
        refusal = "no answer"
        output().hint("where nobody can answer, read what is above and repeat it with --yes")
    if refusal:
        output().warn(f"{refusal}: nothing was signed or changed")
        raise click.exceptions.Exit(INTERRUPTED)


def client() -> Client:
    """The client over this user's home; imported late, because it brings gRPC."""
    from comity.content.heap import bound_arenas
    from comity_client.client import Client

    bound_arenas()
    return Client()


def _examples(lines: Sequence[str], formatter: click.HelpFormatter) -> None:
    if lines:
        with formatter.section("Examples"):
            formatter.write_text("\b\n" + "\n".join(lines))
