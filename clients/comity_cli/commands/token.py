"""`comity token new|ls|rotate|revoke`."""

from __future__ import annotations

import time
from dataclasses import field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import click
from comity.content.gateway_tokens import ALL_REPOSITORIES, TOKENS_FILE, USES_FILE, Token, TokenFile, read_uses
from comity.trust.frozen import frozen

from comity_cli.command import Group, examples, output
from comity_cli.document import INLINE, document
from comity_cli.node_home import node_file, recorded_act
from comity_cli.nodes import home_option

DAY: Final = 86_400
HOUR: Final = 3_600
OVERLAP_HOURS: Final = 24
HOME = home_option("Your node, by its home. Default: here.", name="directory", exists=False)


@frozen
class TokenItem:
    """A token without its secret. `expires` in POSIX seconds, null for never."""

    id: str
    name: str
    reach: tuple[str, ...]
    created: Annotated[int, {"$ref": "../common.json#/$defs/time"}]
    expires: int | None

    @classmethod
    def of(cls, token: Token) -> TokenItem:
        return cls(token.id, token.name, token.reach, token.created, token.expires or None)


@frozen
class UsedToken:
    """A token, and when it was used last."""

    token: TokenItem = field(metadata=INLINE)
    used: int | None


@document("tokens")
class TokensDocument:
    """The tokens of a node's gateway, as `comity token ls --json` prints them.

    No secret is printed. `reach`: patterns of the names that the token may read. `expires`, `used`: null for never.
    """

    tokens: tuple[UsedToken, ...]


@document("token")
class TokenDocument:
    """A token with its secret, once, as `comity token new --json` and `comity token rotate --json` print it."""

    item: TokenItem = field(metadata=INLINE)
    token: str


@document("token")
class RevokedTokenDocument:
    """A token that is accepted no longer, as `comity token revoke --json` prints it."""

    id: str
    name: str
    revoked: Literal[True] = True


@examples(
    "comity token new ci --reach swiss-ai/*", "comity token ls", "comity token rotate ci", "comity token revoke ci"
)
@click.group(cls=Group, name="token", short_help="Manage tokens for your node's gateway.")
def command() -> None:
    """Manage tokens. A token gives read access to the gateway of your node if node.toml has public = false. It gives no
    other right: no publishing, no votes, no operator calls."""


@examples(
    "comity token new ci --days 90",
    "comity token new 'Ana, laptop' --reach swiss-ai/* --reach acme/model --node ./node-ch",
)
@command.command("new", short_help="Make a token.")
@click.argument("name")
@click.option("--reach", multiple=True, help="namespace/* or namespace/name; repeatable. Default: everything.")
@click.option("--days", type=click.IntRange(1, 3650), help="Days after which it ends. Default: it does not end.")
@HOME
def new(name: str, reach: tuple[str, ...], days: int | None, directory: Path) -> None:
    """Make a token called NAME and print it once: the node stores only its hash. A running node accepts it at once.
    With --quiet the token alone is printed, for a file."""
    now = int(time.time())
    tokens, reaches = _file(directory), reach or (ALL_REPOSITORIES,)
    with recorded_act(directory, "token.new", name, f"access to {', '.join(reaches)}"):
        secret, token = tokens.add(name, reaches, now, now + days * DAY if days else 0)
    _show_new(secret, token)


@examples("comity token ls", "comity token ls --node ./node-ch --json")
@command.command("ls", short_help="List the tokens.")
@HOME
def ls(directory: Path) -> None:
    """List the names and ids of the tokens, when they end, and when each was used last, to the minute. The tokens
    themselves are not stored."""
    out, tokens, uses = output(), _file(directory).read(), read_uses(directory / USES_FILE)
    if tokens:
        out.table(
            ("id", "name", "access to", "ends", "last used"),
            [(t.id, t.name, ", ".join(t.reach), _ends(t), _moment(uses.get(t.id, 0)) or "-") for t in tokens],
        )
    else:
        out.say("None yet.")
        out.hint("comity token new NAME")
    out.answer(TokensDocument(tuple(UsedToken(TokenItem.of(token), uses.get(token.id)) for token in tokens)))


@examples("comity token rotate ci", "comity token rotate 3f9c01aa --overlap 0 --node ./node-ch")
@command.command("rotate", short_help="Replace a token by another one.")
@click.argument("identifier", metavar="ID-OR-NAME")
@click.option(
    "--overlap",
    type=click.IntRange(0, 24 * 366),
    default=OVERLAP_HOURS,
    show_default=True,
    help="Hours for which the old token still works.",
)
@HOME
def rotate(identifier: str, overlap: int, directory: Path) -> None:
    """Make a token with the name and the access of another one, and print it once. It is valid for as long as the other
    one was. The old token ends after the overlap, so that clients can change over. With --quiet the token alone is
    printed."""
    tokens = _file(directory)
    with recorded_act(directory, "token.rotate", identifier, f"the old one ends after {overlap} h"):
        secret, token, old = tokens.rotate(identifier, int(time.time()), overlap * HOUR)
    _show_new(secret, token)
    output().say(f"The old token {old.id} ends: {_ends(old)}.")


@examples("comity token revoke ci", "comity token revoke 3f9c01aa --node ./node-ch")
@command.command("revoke", short_help="Revoke a token.")
@click.argument("identifier", metavar="ID-OR-NAME")
@HOME
def revoke(identifier: str, directory: Path) -> None:
    """Revoke a token. A running node refuses it from its next request on."""
    tokens = _file(directory)
    with recorded_act(directory, "token.revoke", identifier):
        token = tokens.revoke(identifier)
    out = output()
    out.done(f"token {token.name} ({token.id}) is revoked")
    out.answer(RevokedTokenDocument(token.id, token.name))


def _show_new(secret: str, token: Token) -> None:
    out = output()
    if out.quiet and not out.as_json:
        click.echo(secret)  # it is printed only once, so quiet means nothing but the token
    out.done(f"token {token.name} ({token.id}) gives access to {', '.join(token.reach)}")
    out.fact("token", secret)
    out.fact("ends", _ends(token))
    out.answer(TokenDocument(TokenItem.of(token), secret))
    out.hint("keep it in a file of mode 0600, and name that file in HF_TOKEN_PATH")


def _ends(token: Token) -> str:
    if not token.expires:
        return "never"
    return f"{'ended ' if token.expired(time.time()) else ''}{_moment(token.expires)}"


def _moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC" if seconds else ""


def _file(directory: Path) -> TokenFile:
    node_file(directory)
    return TokenFile(directory / TOKENS_FILE)
