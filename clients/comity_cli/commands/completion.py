"""`comity completion`."""

from __future__ import annotations

import click

from comity_cli.command import Command, examples


@examples('eval "$(comity completion bash)"', "comity completion zsh > _comity", "comity completion fish | source")
@click.command(cls=Command, name="completion", short_help="Print a shell completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print a shell completion script."""
    from click.shell_completion import get_completion_class

    from comity_cli.main import command as root

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(root, {}, "comity", "_COMITY_COMPLETE").source())
