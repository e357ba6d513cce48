"""`comity impact`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import click
from comity.rules.copy_counts import CopyCount, Loss, losses
from comity.rules.parties import HARDWARE_ROOT, HOLDING_KINDS, PACKAGE_INDEX, UPDATE_CHANNEL, Party
from comity.trust.errors import NotFound
from comity.trust.frozen import frozen

from comity_cli.command import Command, client, examples, output
from comity_cli.copies_view import fold_list, of_a_node, reaches_text
from comity_cli.document import INLINE, document
from comity_cli.output import plural

if TYPE_CHECKING:
    from comity_client.copies import AskedArtifact, CountedCopies

Asked: TypeAlias = tuple[str, Path | None, Path | None]
"""The node that is asked, as a name, a socket or a home."""
Losses: TypeAlias = dict[Party, list[tuple[Loss, str]]]
"""What each party would take, with the label of the artifact."""


@frozen
class LossItem:
    loss: Loss = field(metadata=INLINE)
    name: str
    gone: bool


@frozen
class PartyItem:
    kind: Annotated[str, {"enum": [*HOLDING_KINDS, HARDWARE_ROOT, PACKAGE_INDEX, UPDATE_CHANNEL]}]
    id: str
    name: str
    below_policy: int
    gone: int
    losses: tuple[LossItem, ...]
    dependents: Annotated[int | None, "Offers or artifacts that need it for something else; null: not known."] = 0
    dependent_names: tuple[str, ...] = ()
    why: str = ""


@document("impact")
class ImpactDocument:
    """What the loss of a party would break, as `comity impact --json` prints it.

    As the node `source` reads the logs. `id` is that of a member or publisher, or the code or name of another party.
    """

    source: str
    artifacts: Annotated[int | None, "Whose copies were counted; null where none were."]
    parties: tuple[PartyItem, ...]


@examples(
    "comity impact --all",
    "comity impact CH",
    "comity impact reach:US",
    "comity impact 'cloud:Example Cloud' --json",
    "comity impact 'Example Institute Zurich'",
    "comity impact package-index",
    "comity impact hardware-root:nvidia",
)
@click.command(cls=Command, name="impact", short_help="Show what would be lost if a party vanished.")
@click.argument("party", metavar="MEMBER|JURISDICTION|PUBLISHER|KIND:NAME", required=False)
@click.option("--all", "everybody", is_flag=True, help="Every member, jurisdiction, reach and cloud, each alone.")
@of_a_node
def command(party: str | None, everybody: bool, node: str, socket: Path | None, home: Path | None) -> None:
    """Show which artifacts would have fewer copies than the charter asks for, and which none, if this party vanished
    today with all its copies. It counts claimed copies, as one node reads them from the logs. `reach:US` takes every
    copy that the law of US reaches, and `cloud:NAME` every copy on that cloud, as far as members declare it; where they
    declare nothing, this is unknown. A publisher without a seat holds no copies: its loss removes nothing. Of
    `package-index`, `update-channel` and `hardware-root:VENDOR` (amd, intel, nvidia) it shows what needs them here."""
    if (party is None) == (not everybody):
        raise click.UsageError("name a party, or give --all")
    if (further := _further_party(party or "")) is not None:
        _show_dependents(further, node, socket, home)
        return
    from comity.rules.copy_questions import CopyQuestion

    found = fold_list(node, socket, home, CopyQuestion())
    asked = (node if socket or home else found.source), socket, home
    parties = found.parties() if party is None else (found.party(party),)
    output().say(f"As {found.source} reads the logs, of {plural(found.artifacts, 'artifact')}:")
    below = found.below(parties)
    lost: Losses = {each: [] for each in parties}
    if everybody:
        rows = [(each.kind, found.party_name(each), *map(str, numbers)) for each, numbers in below.items()]
        output().table(("without", "", "below policy", "no copy left"), rows)
        if output().as_json and any(number for number, _ in below.values()):
            _name_losses(asked, lost)
    elif any(number for number, _ in below.values()):
        _show_losses(asked, lost)
    else:
        output().done("Nothing would fall below the policy.")
    items = (
        PartyItem(
            p.kind,
            p.name,
            found.party_name(p),
            *below[p],
            tuple(LossItem(loss, name, loss.gone) for loss, name in named),
        )
        for p, named in lost.items()
    )
    output().answer(ImpactDocument(found.source, found.artifacts, tuple(items)))


def _further_party(text: str) -> Party | None:
    """The party that holds no copy and that a user names; None for other texts. Raises NotFound (NO-PARTY)."""
    kind, _, name = text.partition(":")
    if kind not in (HARDWARE_ROOT, PACKAGE_INDEX, UPDATE_CHANNEL):
        return None
    from comity_client.dependents import FURTHER_PARTIES

    party = Party(kind, name)
    if party not in FURTHER_PARTIES:
        known = ", ".join(map(str, FURTHER_PARTIES))
        raise NotFound("no such party", why=f"known are {known}", hint="comity drill", code="NO-PARTY")
    return party


def _show_dependents(party: Party, node: str, socket: Path | None, home: Path | None) -> None:
    """What needs a party that holds no copy."""
    found, out = client().dependents(party, node or str(socket or home or "")), output()
    if found.count is None:
        out.warn(f"it is not known what depends on {party}: {found.why}")
    elif not found.count:
        out.done(f"Nothing depends on {party}: {found.why}.")
    else:
        noun = "offer" if party.kind == HARDWARE_ROOT else "artifact"
        out.say(f"{plural(found.count, noun)} on {party}: {found.why}.")
        out.table((noun,), [(name,) for name in found.first])
    item = PartyItem(party.kind, party.name, party.name, 0, 0, (), found.count, found.first, found.why)
    out.answer(ImpactDocument(found.source, None, (item,)))


def _name_losses(asked: Asked, lost: Losses) -> None:
    """Ask for every artifact by name, and keep what each party would take."""
    from comity.rules.copy_questions import ALL, CopyQuestion

    def show(found: CountedCopies, artifacts: Sequence[AskedArtifact]) -> None:
        for item, (party, before, after) in _losses(found, artifacts, lost):
            lost[party].append((Loss(item.artifact, before, after), item.label))

    fold_list(*asked, CopyQuestion((ALL,), named=True), show)


def _show_losses(asked: Asked, lost: Losses) -> None:
    """Ask for what one party would take, and print it as it arrives; keep it for the JSON document only."""
    from comity.rules.copy_questions import LOST, CopyQuestion

    (party,) = lost
    table = output().growing_table(("artifact", "copies now", "then", ""))

    def show(found: CountedCopies, artifacts: Sequence[AskedArtifact]) -> None:
        for item, (_, before, after) in _losses(found, artifacts, lost):
            if output().as_json:
                lost[party].append((Loss(item.artifact, before, after), item.label))
            else:
                table.add((item.label, _text(before), _text(after), "below policy" if after.copies else "no copy left"))

    fold_list(*asked, CopyQuestion((LOST,), party=party, named=True), show)
    table.finish()


def _losses(
    found: CountedCopies, artifacts: Sequence[AskedArtifact], lost: Losses
) -> Iterator[tuple[AskedArtifact, tuple[Party, CopyCount, CopyCount]]]:
    """What each party would take of these artifacts: computed once for each set of copies."""
    known: dict[int, list[tuple[Party, CopyCount, CopyCount]]] = {}
    for item in artifacts:
        if id(item.held) not in known:
            known[id(item.held)] = list(losses(item.held.holders, lost, found.policy))
        yield from ((item, loss) for loss in known[id(item.held)])


def _text(count: CopyCount) -> str:
    return f"{count.copies} in {count.jurisdictions}, reaches {reaches_text(count)}"
