"""`comity token new|ls|revoke`."""

from __future__ import annotations

import time
from pathlib import Path

import click
from comity.content.secrets import ALL_REPOSITORIES, TOKENS_FILE, TokenFile
from comity.trust.errors import NotFound

from comity_cli.command import Group, examples, output
from comity_cli.nodes import home_option

HOME = home_option("Your node, by its home. Default: here.", name="directory", exists=False)


@examples("comity token new ci --reach swiss-ai/*", "comity token ls", "comity token revoke ci")
@click.group(cls=Group, name="token", short_help="Manage tokens for your node's gateway.")
def command() -> None:
    """Manage tokens. A token gives read access to the gateway of your node if node.toml has public = false. It gives no
    other right: no publishing, no votes, no operator calls."""


@examples(
    "comity token new ci", "comity token new 'Ana, laptop' --reach swiss-ai/* --reach acme/model --node ./node-ch"
)
@command.command("new", short_help="Make a token.")
@click.argument("name")
@click.option("--reach", multiple=True, help="namespace/* or namespace/name; repeatable. Default: everything.")
@HOME
def new(name: str, reach: tuple[str, ...], directory: Path) -> None:
    """Make a token called NAME and print it once: the node stores only its hash. A running node accepts it at once.
    With --quiet the token alone is printed, for a file."""
    secret, token = _file(directory).add(name, reach or (ALL_REPOSITORIES,), int(time.time()))
    out = output()
    if out.quiet and not out.as_json:
        click.echo(secret)  # it is printed only once, so quiet means nothing but the token
    out.done(f"token {token.name} ({token.id}) gives access to {', '.join(token.reach)}")
    out.fact("token", secret)
    out.document("token", {"id": token.id, "name": token.name, "reach": list(token.reach), "token": secret})
    out.hint("keep it in a file of mode 0600, and name that file in HF_TOKEN_PATH")


@examples("comity token ls", "comity token ls --node ./node-ch --json")
@command.command("ls", short_help="List the tokens.")
@HOME
def ls(directory: Path) -> None:
    """List the names and ids of the tokens. The tokens themselves are not stored."""
    out, tokens = output(), _file(directory).read()
    if tokens:
        out.table(("id", "name", "access to"), [(t.id, t.name, ", ".join(t.reach)) for t in tokens])
    else:
        out.say("None yet.")
        out.hint("comity token new NAME")
    listed = [{"id": t.id, "name": t.name, "reach": list(t.reach), "created": t.created} for t in tokens]
    out.document("tokens", {"tokens": listed})


@examples("comity token revoke ci", "comity token revoke 3f9c01aa --node ./node-ch")
@command.command("revoke", short_help="Revoke a token.")
@click.argument("identifier", metavar="ID-OR-NAME")
@HOME
def revoke(identifier: str, directory: Path) -> None:
    """Revoke a token. A running node refuses it from its next request on."""
    token = _file(directory).revoke(identifier)
    out = output()
    out.done(f"token {token.name} ({token.id}) is revoked")
    out.document("token", {"id": token.id, "name": token.name, "revoked": True})


def _file(directory: Path) -> TokenFile:
    if not (directory / "node.toml").exists():
        raise NotFound(f"no node in {directory}", why="node.toml is missing", hint="comity token --help")
    return TokenFile(directory / TOKENS_FILE)
