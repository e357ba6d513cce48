"""`comity version`."""

from __future__ import annotations

import platform

import click
import comity

from comity_cli.command import Command, examples, output
from comity_cli.document import document


@document("version")
class VersionDocument:
    """The version, as `comity version --json` prints it."""

    version: str
    python: str


@examples("comity version", "comity version --json")
@click.command(cls=Command, name="version", short_help="Print the version.")
def command() -> None:
    """Print the version of this software and of the Python that runs it."""
    out = output()
    out.say(f"comity {comity.__version__} (Python {platform.python_version()})")
    out.answer(VersionDocument(comity.__version__, platform.python_version()))
