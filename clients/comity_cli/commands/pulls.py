"""`comity pulls`."""

from __future__ import annotations

from pathlib import Path

import click

from comity_cli.command import Command, client, examples, output
from comity_cli.node_home import node_file, node_installed
from comity_cli.nodes import home_option


@examples("comity pulls --node /var/lib/comity", "comity pulls swiss-ai/apertus-8b@v1 --weeks 8 --json")
@click.command(cls=Command, name="pulls", short_help="Count the pulls from your node, by week.")
@click.argument("reference", metavar="[REF]", required=False)
@click.option("--weeks", type=click.IntRange(1, 105), default=13, show_default=True, help="How many weeks.")
@home_option("Your node, by its home. Default: here.", exists=False)
def command(reference: str | None, weeks: int, home: Path) -> None:
    """Show how often REF was pulled from your node in each week; without REF, the number of all files that clients got
    to their end. Weeks begin on Mondays, UTC. The node keeps counts only, and nothing about who pulled.

    A pull is counted when the last byte of the largest file was sent to a client. Copies of other members' nodes are
    not counted, and a client that pulls from several nodes counts at one of them. The node writes the counts every half
    minute."""
    file, out = node_file(home), output()
    with node_installed():
        from comity.node.maintenance.home_files import pull_weeks
    info = client().show(reference) if reference else None
    found = pull_weeks(file, info.manifest if info else None, weeks)
    if found:
        what = "pulls" if info else "files sent whole"
        out.table(("week of", what), [(week.begins, str(week.count)) for week in found])
    else:
        out.say("Nothing was counted yet.")
    listed = [{"begins": week.begins, "count": week.count} for week in found]
    out.document("pulls", {"artifact": info.artifact if info else None, "weeks": listed})
