"""`comity vouch`."""

from __future__ import annotations

from pathlib import Path

import click
from comity.trust.encoding import printable
from comity.trust.frozen import frozen
from comity.trust.statements import VOUCH_KINDS

from comity_cli.command import Command, agree, client, examples, options_as, output
from comity_cli.commands.publish import NODE, show_receipt
from comity_cli.files import FILE, FOLDER
from comity_cli.following import follow
from comity_cli.signers import SignerOptions, signer_options


@frozen
class VouchOptions:
    """What is said about an artifact; `built`: the folder that the signer built."""

    statement: str
    text: str
    built: Path | None
    document: Path | None


@examples(
    "comity vouch swiss-ai/apertus-8b@v1 --statement rehashed --node node-es",
    "comity vouch ./apertus-8b --statement rehashed --sign-as 'Evaluation lab'",
    "comity vouch swiss-ai/apertus-8b@v1 --statement evaluated --document results.json --text 'MMLU, 5 shots'",
    "comity vouch swiss-ai/apertus-8b@v1 --statement rehashed --dir ./node-es",
    "comity vouch comity/comity@0.2.0 --statement reproduced --built build/release --dir ./node-es",
)
@click.command(cls=Command, name="vouch", short_help="Sign and log that you checked an artifact yourself.")
@click.argument("target", metavar="DIR|REF")
@click.option("--statement", required=True, type=click.Choice(VOUCH_KINDS), help="What you checked.")
@click.option("--text", default="", help="How, in a few words.")
@click.option("--built", type=FOLDER, help="With reproduced: the folder that you built; its bytes must be the same.")
@click.option("--document", type=FILE, help="A file with results or the method; logged by digest and uploaded.")
@signer_options
@NODE
@click.option("--yes", is_flag=True, help="Sign as a member without asking.")
@options_as("vouch", VouchOptions)
def command(target: str, vouch: VouchOptions, by: SignerOptions, nodes: tuple[str, ...], yes: bool) -> int:
    """Log a statement about an artifact's digest, as your publisher or (--dir) as your member. Others see it as your
    claim; policies can count the members that vouch.

    *rehashed* hashes every file of DIR (or of the folder to which REF was pulled) now, and fails unless all are as
    published. *reproduced* with --built does so with the folder that you built yourself. *evaluated*, and *reproduced*
    without --built, are claims only: the command does not check them. Exit status 8: not every node that you named
    logged it.
    """
    statement, built = vouch.statement, vouch.built
    if built is not None and (statement != "reproduced" or vouch.document is not None):
        raise click.UsageError("--built goes with --statement reproduced, and with no --document")
    out, api, folder = output(), client(), Path(target)
    signer = by.of(api)
    if by.home is not None:
        out.say(f"{printable(signer.label)} signs this with its governance keys: {printable(f'{statement} {target}')}")
        agree("Sign this?", yes=yes)
    where = nodes or own_node(by.home)
    with follow(out, "vouching") as on_event:
        if built is not None:
            receipt = api.vouch_built(target, built, text=vouch.text, by=signer, nodes=where, on_event=on_event)
        else:
            receipt = api.vouch(
                folder if folder.is_dir() else target,
                statement,
                text=vouch.text,
                document=vouch.document,
                by=signer,
                nodes=where,
                on_event=on_event,
            )
    out.prose(f"{statement}: {receipt.title}  sha256:{receipt.artifact}")
    status = show_receipt(out, receipt, nodes)
    out.hint(f"comity show sha256:{receipt.artifact}")
    return status


def own_node(home: Path | None) -> list[str]:
    """The operator socket of the member's node; empty for a publisher, whose home log names the node."""
    from comity_client.own_node import operator_socket

    return [] if home is None else [str(operator_socket(home))]
