"""`comity impact`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
from comity.trust.encoding import Digest

from comity_cli.command import Command, examples, output
from comity_cli.copies_view import of_a_node, read_list
from comity_cli.output import plural


@examples("comity impact --all", "comity impact CH", "comity impact 'Example Institute Zurich' --json")
@click.command(cls=Command, name="impact", short_help="Show what would be lost if a party vanished.")
@click.argument("party", metavar="MEMBER|JURISDICTION|PUBLISHER", required=False)
@click.option("--all", "everybody", is_flag=True, help="Every member and jurisdiction, each alone.")
@of_a_node
def command(party: str | None, everybody: bool, node: str, socket: Path | None, home: Path | None) -> None:
    """Show which artifacts would have fewer copies than the charter asks for, and which none, if this party vanished
    today with all its copies. It counts claimed copies, as one node reads them from the logs. A publisher without a
    seat holds no copies: its loss removes nothing."""
    if (party is None) == (not everybody):
        raise click.UsageError("name a party, or give --all")
    out = output()
    found = read_list(node, socket, home)
    parties = found.parties() if party is None else (found.party(party),)
    losses = found.impact(parties)
    labels = {listed.artifact: found.label(listed) for listed in found.artifacts}
    out.say(f"As {found.source} reads the logs, of {plural(len(found.artifacts), 'artifact')}:")
    if everybody:
        rows = [
            (p.kind, found.names.get(_id(p.name), p.name), str(len(lost)), str(sum(loss.gone for loss in lost)))
            for p, lost in losses.items()
        ]
        out.table(("without", "", "below policy", "no copy left"), rows)
    else:
        (lost,) = losses.values()
        if lost:
            out.table(
                ("artifact", "copies now", "then", ""),
                [
                    (
                        labels[loss.artifact],
                        f"{loss.before.copies} in {loss.before.jurisdictions}",
                        f"{loss.after.copies} in {loss.after.jurisdictions}",
                        "no copy left" if loss.gone else "below policy",
                    )
                    for loss in lost
                ],
            )
        else:
            out.done("Nothing would fall below the policy.")
    documents = [
        {
            "kind": p.kind,
            "id": p.name,
            "name": found.names.get(_id(p.name), p.name),
            "below_policy": len(lost),
            "gone": sum(loss.gone for loss in lost),
            "losses": [{**asdict(loss), "name": labels[loss.artifact], "gone": loss.gone} for loss in lost],
        }
        for p, lost in losses.items()
    ]
    out.document("impact", {"source": found.source, "artifacts": len(found.artifacts), "parties": documents})


def _id(name: str) -> Digest:
    return Digest(name)
