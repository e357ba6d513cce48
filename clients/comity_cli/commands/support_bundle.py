"""`comity support-bundle`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from comity_cli.command import Command, examples, output
from comity_cli.files import FILE
from comity_cli.node_home import node_file, node_installed, noted_act
from comity_cli.nodes import home_option
from comity_cli.output import plural


@examples(
    "comity support-bundle --node /var/lib/comity",
    "journalctl -u comity-node --since -1h > node.log",
    "comity support-bundle --node /var/lib/comity --events node.log --out bundle.tar.gz",
)
@click.command(cls=Command, name="support-bundle", short_help="Collect what helps others to find a fault: no secrets.")
@click.option("--events", type=FILE, help="A file with the node's events; the last 8 MiB are included.")
@click.option("--out", type=click.Path(path_type=Path), help="The new file. Default: comity-support-TIME.tar.gz here.")
@home_option("Your node, by its home. Default: here.", exists=False)
def command(events: Path | None, out: Path | None, home: Path) -> None:
    """Write findings of `comity doctor`, settings, status, versions and names of files into one archive. Secrets are
    not copied, and are looked for and cut out of everything else. It names addresses and members: read it before you
    send it."""
    node_file(home)
    with node_installed():
        from comity.node.maintenance.support_bundle import write_bundle
    path = out or Path(time.strftime("comity-support-%Y%m%d-%H%M%S.tar.gz", time.gmtime()))
    with noted_act(home, "support-bundle", str(path)):
        shown = output()
        with shown.waiting("collecting"):
            made = write_bundle(home, path, clock=time.time, log=events)
    shown.done(f"{path} is written")
    for name, text in sorted(made.texts.items()):
        shown.fact(name, f"{len(text.encode())} bytes")
    shown.say(
        f"  {plural(made.redactions, 'place was', 'places were')} cut out; look yourself: tar -xzOf {path} | less"
    )
    listed = {name: len(text.encode()) for name, text in made.texts.items()}
    shown.document("support-bundle", {"file": str(path), "texts": listed, "redactions": made.redactions})
