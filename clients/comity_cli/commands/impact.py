"""`comity impact`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import click
from comity.rules.copy_counts import CopyCount, Loss

from comity_cli.command import Command, examples, output
from comity_cli.copies_view import of_a_node, reaches_text, read_list
from comity_cli.document import INLINE, document
from comity_cli.output import plural


@dataclass(frozen=True, slots=True)
class LossItem:
    loss: Loss = field(metadata=INLINE)
    name: str
    gone: bool


@dataclass(frozen=True, slots=True)
class PartyItem:
    kind: Annotated[str, {"enum": ["member", "jurisdiction", "publisher", "reach", "cloud"]}]
    id: str
    name: str
    below_policy: int
    gone: int
    losses: tuple[LossItem, ...]


@document("impact")
class ImpactDocument:
    """What the loss of a party would break, as `comity impact --json` prints it.

    As the node `source` reads the logs. `id` is that of a member or publisher, or the code or name of another party.
    """

    source: str
    artifacts: int
    parties: tuple[PartyItem, ...]


@examples(
    "comity impact --all",
    "comity impact CH",
    "comity impact reach:US",
    "comity impact 'cloud:Example Cloud' --json",
    "comity impact 'Example Institute Zurich'",
)
@click.command(cls=Command, name="impact", short_help="Show what would be lost if a party vanished.")
@click.argument("party", metavar="MEMBER|JURISDICTION|reach:CODE|cloud:NAME|PUBLISHER", required=False)
@click.option("--all", "everybody", is_flag=True, help="Every member, jurisdiction, reach and cloud, each alone.")
@of_a_node
def command(party: str | None, everybody: bool, node: str, socket: Path | None, home: Path | None) -> None:
    """Show which artifacts would have fewer copies than the charter asks for, and which none, if this party vanished
    today with all its copies. It counts claimed copies, as one node reads them from the logs. `reach:US` takes every
    copy that the law of US reaches, and `cloud:NAME` every copy on that cloud, as far as members declare it; where they
    declare nothing, this is unknown. A publisher without a seat holds no copies: its loss removes nothing."""
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
            (p.kind, found.party_name(p), str(len(lost)), str(sum(loss.gone for loss in lost)))
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
                        _text(loss.before),
                        _text(loss.after),
                        "no copy left" if loss.gone else "below policy",
                    )
                    for loss in lost
                ],
            )
        else:
            out.done("Nothing would fall below the policy.")
    items = (
        PartyItem(
            p.kind,
            p.name,
            found.party_name(p),
            below_policy=len(lost),
            gone=sum(loss.gone for loss in lost),
            losses=tuple(LossItem(loss, labels[loss.artifact], loss.gone) for loss in lost),
        )
        for p, lost in losses.items()
    )
    out.answer(ImpactDocument(found.source, len(found.artifacts), tuple(items)))


def _text(count: CopyCount) -> str:
    return f"{count.copies} in {count.jurisdictions}, reaches {reaches_text(count)}"
