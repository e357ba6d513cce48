"""`comity serve`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import click
from comity.trust.errors import NotFound, Unavailable

from comity_cli.command import Command, examples


@examples("comity serve", "comity serve --dir /var/lib/comity", "comity status")
@click.command(cls=Command, name="serve", short_help="Run a node.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), default=Path(), help="The node's home.")
@click.option("--until-eof", is_flag=True, hidden=True, help="Stop when standard input closes.")
def command(directory: Path, until_eof: bool) -> None:
    """Run a node from its home directory, with its HTTP gateway if node.toml names one, until SIGTERM or Ctrl-C."""
    config = directory / "node.toml"
    if not config.exists():
        raise NotFound(f"no node in {directory}", why=f"{config} is missing", hint="comity init --help")
    try:
        from comity.gateway import app as gateway
        from comity.node import app as node
    except ImportError as error:
        raise Unavailable(
            "the node is not installed", why=f"{error.name} is missing", hint="pip install 'comity[node]'"
        ) from error
    if until_eof:
        threading.Thread(target=_stop_at_eof, daemon=True).start()
    node.run(config, gateway.serve_gateway)


def _stop_at_eof() -> None:
    """Stop the node when the process at the other end of standard input ends."""
    while sys.stdin.buffer.read(4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
