"""`comity takeover`."""

from __future__ import annotations

from pathlib import Path

import click

from comity_cli.command import Command, agree, examples, output
from comity_cli.document import document
from comity_cli.node_home import node_file, node_installed, noted_act
from comity_cli.nodes import home_option
from comity_cli.output import plural


@document("takeover")
class TakeoverDocument:
    """A writer that was ended, as `comity takeover --json` prints it.

    `silent`: seconds since its last sign of life; null if it gave none. `ended`: its connections to the database.
    """

    silent: float | None
    ended: int


@examples("comity takeover --node /var/lib/comity", "comity takeover --node /var/lib/comity --yes")
@click.command(cls=Command, name="takeover", short_help="End the writer of your node, so that a standby goes on.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@home_option("Your node, by the home of the standby. Default: here.", name="directory")
def command(directory: Path, yes: bool) -> None:
    """End all connections of the process that writes the ledger of your node in PostgreSQL. What it had not committed
    is undone, it signs nothing more, and a process with role = "standby" goes on within seconds.

    A standby does this by itself with a writer that gave no sign of life for 30 seconds. This command is for one that
    gives signs and does nothing else, or for those who do not want to wait.
    """
    file, out = node_file(directory), output()
    with node_installed():
        from comity.node.maintenance.takeover import end_writer, writer_state
    state = writer_state(file)
    if state.held:
        sign = "it gave none" if state.silent is None else f"{state.silent:.0f} s ago"
        out.fact("last sign of life of the writer", sign)
        agree("End this writer?", yes=yes)
    with noted_act(directory, "takeover"):
        ended = end_writer(file)
    out.done(f"the writer was ended: {plural(ended, 'connection')} to the database closed")
    out.hint('comity status   shows when another process writes; a process with role = "standby" begins by itself')
    out.answer(TakeoverDocument(state.silent, ended))
