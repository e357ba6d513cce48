"""Options that choose who signs: a publisher identity of this user, or the member of a node on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click
from comity.trust.errors import Conflict, NotFound
from comity.trust.frozen import frozen

from comity_cli.command import options_as
from comity_cli.files import FILE, FOLDER

if TYPE_CHECKING:
    from comity_client.client import Client
    from comity_client.identity_signer import IdentitySigner
    from comity_client.publishers import Publisher

R = TypeVar("R")

PUBLISHER: Final = click.option(
    "--publisher", "--sign-as", "publisher", default="", help="The publisher that signs; required if you have several."
)


def signing(api: Client, name: str) -> Publisher:
    """The publisher called `name`, or the only one if `name` is empty. Raises NotFound, Conflict."""
    if name:
        return api.publisher(name)
    known = api.publishers()
    if not known:
        raise NotFound("no publisher identity here", hint="comity publisher new LABEL --jurisdiction CODE")
    if len(known) > 1:
        names = ", ".join(publisher.label for publisher in known)
        raise Conflict("several publisher identities", why=names, hint="name one with --publisher")
    return known[0]


@frozen
class SignerOptions:
    """Who signs: the member of `home` if that is given, else the publisher of that name, or the only one."""

    publisher: str
    home: Path | None
    keys: tuple[Path, ...]

    def of(self, api: Client) -> Publisher | IdentitySigner:
        """Raises click.UsageError for keys without a home, and as `signing` and `IdentitySigner.of_member` do."""
        if self.home is None:
            if self.keys:
                raise click.UsageError("--key names keys of a member: give --dir too")
            return signing(api, self.publisher)
        from comity_client.identity_signer import IdentitySigner

        return IdentitySigner.of_member(self.home, self.keys)


def signer_options(function: Callable[..., R]) -> Callable[..., R]:
    """Decorator: `--publisher`, `--dir` and `--key`, as the argument `by`."""
    function = options_as("by", SignerOptions)(function)
    for option in (
        click.option(
            "--key", "keys", multiple=True, type=FILE, help="A governance key. Default: those in HOME/offline."
        ),
        click.option(
            "--dir", "home", type=FOLDER, help="Sign as the member of this node's home, with its governance keys."
        ),
        PUBLISHER,
    ):
        function = option(function)
    return function
