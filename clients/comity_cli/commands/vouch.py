"""`comity vouch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.trust.encoding import plain
from comity.trust.statements import STATEMENTS

from comity_cli.command import Command, agree, client, examples, output
from comity_cli.commands.publish import NODE, PUBLISHER, show_receipt, signing
from comity_cli.files import FILE, FOLDER
from comity_cli.following import follow

if TYPE_CHECKING:
    from comity_client.offers.speaker import OfferSigner
    from comity_client.publishers import Publisher


@examples(
    "comity vouch swiss-ai/apertus-8b@v1 --statement rehashed --node node-es",
    "comity vouch ./apertus-8b --statement rehashed --sign-as 'Evaluation lab'",
    "comity vouch swiss-ai/apertus-8b@v1 --statement evaluated --document results.json --text 'MMLU, 5 shots'",
    "comity vouch swiss-ai/apertus-8b@v1 --statement rehashed --dir ./node-es",
)
@click.command(cls=Command, name="vouch", short_help="Sign and log that you checked an artifact yourself.")
@click.argument("target", metavar="DIR|REF")
@click.option("--statement", required=True, type=click.Choice(STATEMENTS), help="What you did.")
@click.option("--text", default="", help="How, in a few words.")
@click.option("--document", type=FILE, help="Results or a method at length; logged by digest, and carried.")
@PUBLISHER
@click.option(
    "--dir", "home", type=FOLDER, help="Speak as the member whose node's home this is, by its governance keys."
)
@click.option("--key", "keys", multiple=True, type=FILE, help="A governance key. Default: those in HOME/offline.")
@NODE
@click.option("--yes", is_flag=True, help="Sign as a member without asking.")
def command(
    target: str,
    statement: str,
    text: str,
    document: Path | None,
    publisher: str,
    home: Path | None,
    keys: tuple[Path, ...],
    nodes: tuple[str, ...],
    yes: bool,
) -> None:
    """Log a statement about an artifact's digest, as your publisher or (--dir) as your member. Others see it as your
    claim, and count members.

    *rehashed* hashes every file of DIR (or of what REF was pulled to) now, and is refused unless each is as published.
    *evaluated* and *reproduced* are your word alone: nothing here checks them.
    """
    if keys and home is None:
        raise click.UsageError("--key names keys of a member: give --dir too")
    out, api, folder = output(), client(), Path(target)
    by: Publisher | OfferSigner = (
        signing(api, publisher) if home is None else _member(home, keys, f"{statement} {target}", yes)
    )
    with follow(out, "vouching") as on_event:
        receipt = api.vouch(
            folder if folder.is_dir() else target,
            statement,
            text=text,
            document=document,
            by=by,
            nodes=nodes or _own_node(home),
            on_event=on_event,
        )
    out.say(f"{statement}: {receipt.title}  sha256:{receipt.artifact}")
    show_receipt(out, receipt)
    out.hint(f"comity show sha256:{receipt.artifact}")


def _member(home: Path, keys: tuple[Path, ...], what: str, yes: bool) -> OfferSigner:
    from comity_client.offers.speaker import OfferSigner

    voice = OfferSigner.of_member(home, keys)
    output().say(f"{plain(voice.label)} is going to say, by its governance keys: {plain(what)}")
    agree("Sign this?", yes=yes)
    return voice


def _own_node(home: Path | None) -> list[str]:
    """The operators' socket of the member's node; a publisher's home log is known otherwise."""
    from comity_client.session import socket_of

    return [] if home is None else [str(socket_of(home))]
