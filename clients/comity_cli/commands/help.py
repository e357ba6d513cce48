"""`comity help`."""

from __future__ import annotations

import click

from comity_cli.command import Command, examples


@examples("comity help", "comity help pull", "comity help proposal approve")
@click.command(cls=Command, name="help", short_help="Show the help of a command.", add_help_option=True)
@click.argument("words", nargs=-1, metavar="[COMMAND]")
@click.pass_context
def command(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of COMMAND, or of all commands: the same as `comity COMMAND --help`."""
    context = ctx.find_root()
    for word in words:
        group = context.command
        if not isinstance(group, click.Group):
            raise click.UsageError(f"{context.command_path!r} has no commands of its own", context)
        _, found, _ = group.resolve_command(context, [word])
        assert found is not None
        context = click.Context(found, parent=context, info_name=word)
    click.echo(context.get_help())
