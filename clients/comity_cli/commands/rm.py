"""`comity rm`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.wire.audit import HoldDecision, HoldOrder

from comity_cli.command import Command, agree, examples, options_as, output
from comity_cli.copies_view import artifact_of, of_own_node, socket_of
from comity_cli.document import document
from comity_cli.output import size


@document("hold-decision")
class HoldDecisionDocument:
    """What became of a node's copy, as `comity rm --json` and `comity withdraw --json` print it.

    `trial`: nothing was done. `again`: it may be copied again. `index`: of the entry that withdraws it. `proven`: nodes
    that proved their copy. `bytes`: were freed, or would be.
    """

    artifact: Digest
    trial: bool
    again: bool
    index: int | None
    proven: tuple[str, ...]
    unproven: tuple[str, ...]
    bytes: int


@frozen
class Removal:
    """How a copy is removed, as `HoldOrder` has it."""

    basis: str
    force: bool
    typed: str
    trial: bool
    again: bool


@examples(
    "comity rm swiss-ai/apertus-8b@v1 --dry-run --node /var/lib/comity",
    "comity rm swiss-ai/apertus-8b@v1 --yes --node /var/lib/comity",
    "comity rm swiss-ai/apertus-8b@v1 --undo --node /var/lib/comity",
)
@click.command(cls=Command, name="rm", short_help="Remove your node's copy, if enough others prove theirs now.")
@click.argument("reference", metavar="REF")
@click.option("--dry-run", "trial", is_flag=True, help="Only say what would happen.")
@click.option("--force", is_flag=True, help="Do not ask whether enough others hold a copy. It is logged.")
@click.option("--last-copy", "typed", default="", help="The name of REF: needed where nobody else claims a copy.")
@click.option("--undo", "again", is_flag=True, help="Let your node copy REF again.")
@click.option("--basis", default="", help="A note for the log.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@of_own_node
@options_as("removal", Removal)
def command(reference: str, removal: Removal, yes: bool, socket: Path | None, home: Path | None) -> None:
    """Remove your node's copy of REF. The node asks the other holders to prove their copies now and to keep them for a
    few minutes. It refuses unless enough of them do for the charter. The withdrawal is logged before the bytes go;
    files that other artifacts use stay."""
    from comity_client.own_node import decide_hold

    order = HoldOrder(artifact_of(reference), "space", **asdict(removal))
    if not (removal.trial or removal.again):
        agree(f"Remove this node's copy of {reference}?", yes=yes)
    show(reference, order, decide_hold(socket_of(socket, home), order))


def show(reference: str, order: HoldOrder, decision: HoldDecision) -> None:
    """Print what was done, or would be."""
    out = output()
    if order.again:
        out.done(f"The node may copy {reference} again.")
    elif order.trial:
        out.say(f"{size(decision.bytes)} would be freed, if enough of these prove their copies:")
        for name in decision.unproven:
            out.fact("would ask", name)
        if not decision.unproven:
            out.warn("nobody else claims a copy")
    else:
        kept = "kept aside, served to nobody" if order.keep else "deleted"
        out.done(f"hold of {reference} withdrawn: entry {decision.index}; {size(decision.bytes)} {kept}")
        for name in decision.proven:
            out.fact("proven by", name)
        for name in decision.unproven:
            out.fact("not proven", name)
        if order.force:
            out.warn("nobody was asked whether enough copies are left; this is logged")
    index = decision.index if decision.line else None
    out.answer(
        HoldDecisionDocument(
            order.artifact, order.trial, order.again, index, decision.proven, decision.unproven, decision.bytes
        )
    )
