"""`comity serve`."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.trust.errors import OutOfSpace

from comity_cli.command import Command, examples, output
from comity_cli.document import document
from comity_cli.files import FILE
from comity_cli.node_home import node_file, node_installed
from comity_cli.nodes import home_option
from comity_cli.output import plural
from comity_cli.start import collect_as_in_a_long_run

if TYPE_CHECKING:
    from comity.node.app import HomeCheck


@document("node-check")
class NodeCheckDocument:
    """A home that can be started, as `comity serve --check --json` prints it; the addresses by their setting."""

    node: str
    origin: str
    listeners: Mapping[str, str]


@examples(
    "comity serve --node /var/lib/comity",
    "comity serve --node /var/lib/comity --check",
    "comity serve --node node-es --federation founding.json",
)
@click.command(cls=Command, name="serve", short_help="Run a node.")
@home_option("The node, by its home. Default: here.", name="directory", exists=False)
@click.option(
    "--federation", "founded", type=FILE, help="First put this federation, or founding that all signed, into the home."
)
@click.option("--check", is_flag=True, help="Check settings, keys, federation file and ports, and start nothing.")
@click.option("--until-eof", is_flag=True, hidden=True, help="Stop when standard input closes.")
def command(directory: Path, founded: Path | None, check: bool, until_eof: bool) -> None:
    """Run a node from its home directory, with its HTTP gateway if node.toml names one, until SIGTERM or Ctrl-C. With
    role = "front-end" in node.toml it only reads what the node writes, and serves it."""
    config = node_file(directory)
    if founded is not None:
        from comity_client.founding_file import install_federation

        install_federation(directory, founded)
    with node_installed():
        from comity.gateway import front_end as gateway
    if check:
        _show(gateway.check(config))
        return
    if until_eof:
        threading.Thread(target=_stop_at_eof, daemon=True).start()
    collect_as_in_a_long_run()
    try:
        gateway.run(config)
    except OutOfSpace as error:
        hint = f"comity doctor --node {shlex.quote(str(directory))}   names the disk; free some space, and start again"
        raise OutOfSpace(error.what, why=error.why, hint=hint) from error


def _show(found: HomeCheck) -> None:
    out = output()
    out.fact("node", f"{found.node}, its log is {found.origin}")
    if found.members is None:
        out.warn(f"{found.federation_file} is missing: the node serves alone until the file is there")
    else:
        out.fact("federation", plural(found.members, "member"))
    for setting, address in found.listeners.items():
        out.fact(setting, f"{address} is free")
    if found.loopback:
        out.warn(f"[advertise] names {' and '.join(found.loopback)}, which other machines cannot reach")
    out.done("the settings, keys and ports are usable")
    out.answer(NodeCheckDocument(found.node, found.origin, found.listeners))


def _stop_at_eof() -> None:
    """Stop the node when the process at the other end of standard input ends."""
    while os.read(0, 4096):  # not `sys.stdin`: a node that ends for another reason could not close it meanwhile
        pass
    os.kill(os.getpid(), signal.SIGTERM)
