"""`comity lab up|down|status`."""

from __future__ import annotations

from pathlib import Path

import click
from comity.trust.frozen import frozen

from comity_cli.command import Group, examples, output
from comity_cli.document import document
from comity_cli.files import NEW_FOLDER
from comity_cli.lab.lab import Lab, check_lab_folder

DIRECTORY = click.argument("directory", type=NEW_FOLDER)


@frozen
class LabNodeItem:
    """A node of a lab; `pid` is null while it is stopped, `http` empty without a gateway."""

    node: str
    jurisdiction: str
    pid: int | None
    open: str
    http: str


@document("lab")
class LabDocument:
    """The nodes of a lab, as `comity lab status --json` prints them."""

    directory: Path
    nodes: tuple[LabNodeItem, ...]
    federation: Path


@examples("comity lab up ./lab", "comity lab status ./lab", "comity lab down ./lab")
@click.group(cls=Group, name="lab", short_help="Run a four-node federation on this machine.")
def command() -> None:
    """Run a four-node federation on this machine, to learn and to experiment."""


@examples("comity lab up ./lab", "comity trust pin ./lab/federation.json")
@command.command("up", short_help="Found the lab if it is new, and start its nodes.")
@DIRECTORY
def up(directory: Path) -> None:
    """Found the lab in DIRECTORY if it is new, and start its nodes in the background."""
    check_lab_folder(directory)
    lab = Lab.open(directory) if (directory / "federation.json").exists() else Lab.create(directory, {})
    lab.up()
    _show(lab)
    output().hint(f"comity trust pin {lab.federation}")


@examples("comity lab down ./lab")
@command.command("down", short_help="Stop the lab's nodes.")
@DIRECTORY
def down(directory: Path) -> None:
    """Stop the lab's nodes. Their data stays in DIRECTORY."""
    lab = Lab.open(directory)
    lab.down()
    _show(lab)


@examples("comity lab status ./lab")
@command.command("status", short_help="Show which nodes of the lab run.")
@DIRECTORY
def status(directory: Path) -> None:
    """Show which nodes of the lab run, and where they listen."""
    _show(Lab.open(directory))


def _show(lab: Lab) -> None:
    out = output()
    nodes = tuple(
        LabNodeItem(each.name, each.jurisdiction, each.pid, each.address, each.endpoint) for each in lab.nodes
    )
    rows = [(n.node, n.jurisdiction, f"running, pid {n.pid}" if n.pid else "stopped", n.open, n.http) for n in nodes]
    out.table(("node", "jur", "state", "open port", "HF_ENDPOINT"), rows)
    out.answer(LabDocument(lab.directory, nodes, lab.federation))
