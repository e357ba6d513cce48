"""`comity withdraw`."""

from __future__ import annotations

from pathlib import Path

import click
from comity.trust.copies import WITHDRAWAL_REASONS
from comity.trust.frozen import frozen
from comity.wire.audit import HoldOrder

from comity_cli.command import Command, agree, examples, options_as
from comity_cli.commands.rm import show
from comity_cli.copies_view import artifact_of, of_own_node, socket_of


@frozen
class Reason:
    """Why a copy is withdrawn, for everybody who reads the log."""

    reason: str
    basis: str


@examples(
    "comity withdraw swiss-ai/apertus-8b@v1 --reason legal-order --basis 'order 12/2027' --node /var/lib/comity",
    "comity withdraw swiss-ai/apertus-8b@v1 --reason licence --basis 'see the letter' --delete --yes",
)
@click.command(cls=Command, name="withdraw", short_help="Stop serving an artifact at once, and log why.")
@click.argument("reference", metavar="REF")
@click.option("--reason", type=click.Choice(WITHDRAWAL_REASONS), required=True)
@click.option("--basis", required=True, help="Which order or rule, for everybody who reads the log.")
@click.option("--delete", is_flag=True, help="Delete the bytes. Default: keep them aside, served to nobody.")
@click.option("--last-copy", "typed", default="", help="The name of REF: needed to delete the last known copy.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@of_own_node
@options_as("why", Reason)
def command(
    reference: str, why: Reason, delete: bool, typed: str, yes: bool, socket: Path | None, home: Path | None
) -> None:
    """Stop serving REF at your node now, such as for a legal order, even if no other node has a copy. The withdrawal is
    logged with its reason and basis, so that others see it and can copy REF elsewhere. No other node's copy is touched.
    `comity rm REF --undo` takes it back."""
    from comity_client.own_node import decide_hold

    order = HoldOrder(artifact_of(reference), why.reason, why.basis, keep=not delete, force=True, typed=typed)
    agree(f"Withdraw this node's copy of {reference}, and log the reason?", yes=yes)
    show(reference, order, decide_hold(socket_of(socket, home), order))
