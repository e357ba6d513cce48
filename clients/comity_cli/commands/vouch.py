"""`comity vouch`."""

from __future__ import annotations

from pathlib import Path

import click
from comity.trust.vouched import STATEMENTS

from comity_cli.command import Command, client, examples, output
from comity_cli.commands.publish import FILE, NODE, PUBLISHER, show_receipt, signing
from comity_cli.following import follow


@examples(
    "comity vouch swiss-ai/apertus-8b@v1 --statement rehashed --node node-es",
    "comity vouch ./apertus-8b --statement rehashed --sign-as 'Evaluation lab'",
    "comity vouch swiss-ai/apertus-8b@v1 --statement evaluated --document results.json --text 'MMLU, 5 shots'",
)
@click.command(cls=Command, name="vouch", short_help="Sign and log that you checked an artifact yourself.")
@click.argument("target", metavar="DIR|REF")
@click.option("--statement", required=True, type=click.Choice(STATEMENTS), help="What you did.")
@click.option("--text", default="", help="How, in a few words.")
@click.option("--document", type=FILE, help="Results or a method at length; logged by digest, and carried.")
@PUBLISHER
@NODE
def command(
    target: str, statement: str, text: str, document: Path | None, publisher: str, nodes: tuple[str, ...]
) -> None:
    """Log a statement about an artifact's digest under your publisher's name. Others see it as your claim.

    *rehashed* hashes every file of DIR (or of what REF was pulled to) now, and is refused unless each is as published.
    *evaluated* and *reproduced* are your word alone: nothing here checks them.
    """
    out, api, folder = output(), client(), Path(target)
    with follow(out, "vouching") as on_event:
        receipt = api.vouch(
            folder if folder.is_dir() else target,
            statement,
            text=text,
            document=document,
            publisher=signing(api, publisher),
            nodes=nodes,
            on_event=on_event,
        )
    out.say(f"{statement}: {receipt.title}  sha256:{receipt.artifact}")
    show_receipt(out, receipt)
    out.hint(f"comity show sha256:{receipt.artifact}")
