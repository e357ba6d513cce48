"""`comity env`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from comity_cli.command import Command, examples, output
from comity_cli.gateways import endpoint, gateway_options

if TYPE_CHECKING:
    from comity_client.hub_environment import HubEnvironment


@examples(
    'eval "$(comity env --dir ./node-ch)"',
    "comity env --url https://models.example.org --token-file ~/.config/comity/token",
    "comity env --node node-es.example.org",
    "comity env --dir ./lab --node node-es --shell fish | source",
)
@click.command(cls=Command, name="env", short_help="Point Hugging Face clients at a node.")
@gateway_options
@click.option("--shell", type=click.Choice(["bash", "fish"]), default="bash", help="Whose syntax; bash is POSIX.")
def command(directory: Path | None, node: str, url: str, token_file: Path | None, ca: Path | None, shell: str) -> None:
    """Print the variables by which unmodified Hugging Face clients read from a node's gateway, for a shell to evaluate.

    A node of the pinned federations (--node) tells its gateway's URL itself. That is its claim; a client that uses it
    trusts what answers there.

    A token is named by its file; what another endpoint's token was kept in is taken away, for clients send it to
    whatever endpoint they are told. Without --token-file they are told to send none.
    """
    from comity_client.hub_environment import hub_environment

    meant = endpoint(directory, node, url)
    made = hub_environment(meant.url, token_file=token_file, ca=ca)
    out = output()
    for line in _fish(made) if shell == "fish" else _posix(made):
        out.say(line)
    out.document("environment", {"endpoint": asdict(meant), "set": dict(made.set), "unset": list(made.unset)})


def _posix(made: HubEnvironment) -> Iterator[str]:
    yield from (f"export {key}={shlex.quote(value)}" for key, value in made.set.items())
    yield f"unset {' '.join(made.unset)}"


def _fish(made: HubEnvironment) -> Iterator[str]:
    """Source: fish, quotes: within single ones only \\ and ' are special."""
    for key, value in made.set.items():
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        yield f"set -gx {key} '{quoted}'"
    yield f"set -e {' '.join(made.unset)}"
