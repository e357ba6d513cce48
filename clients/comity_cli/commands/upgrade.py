"""`comity upgrade check`."""

from __future__ import annotations

import time
from dataclasses import field
from pathlib import Path

import click

from comity_cli.command import Group, examples, output
from comity_cli.commands.doctor import AllFindings, show_findings
from comity_cli.document import INLINE, document
from comity_cli.node_home import node_file, node_installed
from comity_cli.nodes import home_option


@document("upgrade")
class UpgradeDocument:
    """What a start of the installed version would change, as `comity upgrade check --json` prints it."""

    found: AllFindings = field(metadata=INLINE)


@examples("comity upgrade check", "comity upgrade check --node /var/lib/comity", "comity upgrade check --no-peers")
@click.group(cls=Group, name="upgrade", short_help="See what an upgrade of your node would change.")
def command() -> None:
    """See what a start of the installed version would change in a home, before it starts."""


@examples(
    "comity upgrade check --node /var/lib/comity",
    "/opt/comity-new/bin/comity upgrade check --node /var/lib/comity",
    "comity upgrade check --no-peers --json",
)
@command.command("check", short_help="Try the upgrade on a copy of the ledger.")
@click.option("--peers/--no-peers", default=True, help="Ask peers for their version.")
@home_option("Your node, by its home. Default: here.", exists=False)
def check(peers: bool, home: Path) -> int:
    """Check the settings with the installed version, copy the ledger into a temporary folder, migrate the copy, and
    compute the newest checkpoint of the node's log again. The home is only read, and the node may run. To try a version
    before you switch to it, run this with its own `comity`.

    Exit status: 0 nothing changes, 8 something changes: back up first, 1 a start would fail.
    """
    file = node_file(home)
    with node_installed():
        from comity.node.maintenance.upgrade_check import check_upgrade
    with output().waiting("checking"):
        found = tuple(check_upgrade(file, clock=time.time, ask_peers=peers))
    return show_findings(UpgradeDocument, found)
