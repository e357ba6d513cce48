"""`comity pulls`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen

from comity_cli.command import Command, client, examples, output
from comity_cli.document import document
from comity_cli.node_home import node_file, node_installed
from comity_cli.nodes import home_option


@frozen
class WeekItem:
    """The count of one week."""

    begins: Annotated[str, "The Monday on which the week begins, in UTC."]
    count: int


@document("pulls")
class PullsDocument:
    """The counts of pulls from a node by week, as `comity pulls --json` prints them, the newest week first.

    Weeks in which nothing was counted are left out. Without an artifact, files of which clients got the end.
    """

    artifact: Digest | None
    weeks: tuple[WeekItem, ...]


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
    listed = tuple(WeekItem(week.begins, week.count) for week in found)
    out.answer(PullsDocument(info.artifact if info else None, listed))
