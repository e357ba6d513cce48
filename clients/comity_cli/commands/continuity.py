"""`comity continuity`: plans for the day on which a service is cut off, and their rehearsal."""

from __future__ import annotations

import click

from comity_cli.command import Group, examples
from comity_cli.commands.continuity_drill import command as drill
from comity_cli.commands.continuity_plan import check, new, show, sign
from comity_cli.commands.continuity_report import command as report


@examples(
    "comity continuity check plan.toml",
    "comity continuity drill chat --plan plan.toml",
    "comity continuity report check drill.json",
)
@click.group(cls=Group, name="continuity", short_help="Plan for the day a service is cut off, and rehearse it.")
def command() -> None:
    """Plan what replaces a service on the day it is cut off, check whether that holds, and rehearse the day."""


for each in (new, sign, show, check, drill, report):
    command.add_command(each)
