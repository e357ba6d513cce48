"""`comity env`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from comity_cli.command import Command, examples, output
from comity_cli.document import document
from comity_cli.gateways import Endpoint, endpoint, gateway_options, warn_of_proxy

if TYPE_CHECKING:
    from comity_client.hub_environment import HubEnvironment


@document("environment")
class EnvironmentDocument:
    """The variables to set and to unset, as `comity env --json` prints them."""

    endpoint: Endpoint
    set: Mapping[str, str]
    unset: tuple[str, ...]


@examples(
    'eval "$(comity env --node ./node-ch)"',
    "comity env --node https://models.example.org --token-file ~/.config/comity/token",
    "comity env --node node-es.example.org",
    "comity env --node ./lab/node-es --shell fish | source",
)
@click.command(cls=Command, name="env", short_help="Point Hugging Face clients at a node.")
@gateway_options
@click.option(
    "--shell", type=click.Choice(["bash", "fish"]), default="bash", help="Syntax of the output; bash is POSIX."
)
def command(
    directory: Path | None, node: str | None, url: str, token_file: Path | None, ca: Path | None, shell: str
) -> None:
    """Print shell commands that make unmodified Hugging Face clients read from a node's gateway.

    With --node, a node of the pinned federations gives its gateway's URL. This is the node's claim; a client that uses
    the URL trusts the server there.

    The variables name the file of the token. Variables with a token of another endpoint are unset, because clients
    would send it to this one. Without --token-file clients send no token.
    """
    from comity_client.hub_environment import hub_environment

    gateway = endpoint(directory, node, url)
    variables = hub_environment(gateway.url, token_file=token_file, ca=ca)
    warn_of_proxy(gateway.url)
    out = output()
    for line in _fish(variables) if shell == "fish" else _posix(variables):
        out.say(line)
    out.answer(EnvironmentDocument(gateway, variables.set, variables.unset))


def _posix(variables: HubEnvironment) -> Iterator[str]:
    yield from (f"export {key}={shlex.quote(value)}" for key, value in variables.set.items())
    yield f"unset {' '.join(variables.unset)}"


def _fish(variables: HubEnvironment) -> Iterator[str]:
    """In single quotes fish treats only \\ and ' as special. Source: fish manual, quotes."""
    for key, value in variables.set.items():
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        yield f"set -gx {key} '{quoted}'"
    yield f"set -e {' '.join(variables.unset)}"
