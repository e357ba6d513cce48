"""`comity pin add|ls|rm`: artifacts that your node keeps available, by asking others for copies."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
from comity.rules.artifact_pins import FAILED, HERE, SILENT, VERIFIED, Pin, check_pin_policy
from comity.rules.copy_counts import CLAIMED, CopyPolicy
from comity.trust.encoding import Digest
from comity.trust.exit_statuses import PARTIAL
from comity.trust.frozen import frozen

from comity_cli.command import Group, examples, output
from comity_cli.copies_view import artifact_of, of_own_node, socket_of
from comity_cli.document import document
from comity_cli.output import plural

if TYPE_CHECKING:
    from comity.wire.pin import ListedPin, ListedPinnedCopy

WORDS = {
    HERE: "here, every file is stored",
    VERIFIED: "verified by this node's own audit",
    CLAIMED: "claimed, not verified yet",
    SILENT: "does not answer: not counted",
    FAILED: "failed this node's audit: not counted",
}


@frozen
class PinNumbers:
    copies: int
    jurisdictions: int
    reaches: int

    @classmethod
    def of(cls, policy: CopyPolicy) -> PinNumbers:
        return cls(policy.min_copies, policy.min_jurisdictions, policy.min_reaches)


@frozen
class ArtifactPinItem:
    artifact: Digest
    name: str
    asked_for: PinNumbers
    verified: PinNumbers
    with_claimed: PinNumbers
    met: bool
    asked: Annotated[bool, "The node asks others in its log now."]
    copies: tuple[ListedPinnedCopy, ...]

    @classmethod
    def of(cls, pin: ListedPin) -> ArtifactPinItem:
        asked_for, verified, hoped = map(PinNumbers.of, (pin.pin.policy, pin.verified, pin.hoped))
        return cls(pin.pin.artifact, pin.pin.name, asked_for, verified, hoped, pin.met, pin.asked, pin.copies)


@document("artifact-pins")
class ArtifactPinsDocument:
    """The pins of a node, as `comity pin ls --json` shows them.

    `verified` counts the node's own copy and those that it verified itself; `with_claimed` also those that are claimed
    and whose nodes answer.
    """

    pins: tuple[ArtifactPinItem, ...]
    unmet: int


@examples(
    "comity pin add swiss-ai/apertus-8b@v1 --copies 3 --jurisdictions 3 --reaches 2 --node /var/lib/comity",
    "comity pin ls --node /var/lib/comity",
    "comity pin rm swiss-ai/apertus-8b@v1 --node /var/lib/comity",
)
@click.group(cls=Group, name="pin", short_help="Keep artifacts available, by asking others for copies.")
def command() -> None:
    """Your node keeps a copy of what you pin, verifies the copies of others itself, and asks for more in its log where
    too few are verified. Others answer by their own rules (`wanted_by` in their mirror rules); nobody is commanded. A
    pin works while its node runs: have more members pin an artifact than may be lost at once."""


@examples("comity pin add swiss-ai/apertus-8b@v1 --copies 3 --jurisdictions 3 --reaches 2 --node /var/lib/comity")
@command.command("add", short_help="Pin an artifact, or change its pin.")
@click.argument("reference", metavar="REF")
@click.option("--copies", type=int, default=3, show_default=True, help="Members with a copy, yours included.")
@click.option("--jurisdictions", type=int, default=1, show_default=True, help="Jurisdictions of these members.")
@click.option("--reaches", type=int, default=0, show_default=True, help="Fewest legal orders that reach every copy.")
@of_own_node
def add(reference: str, copies: int, jurisdictions: int, reaches: int, socket: Path | None, home: Path | None) -> None:
    """Have your node work for that many copies of REF. What it asks of others is a statement in its log."""
    from comity_client.own_node import put_pin

    out, policy = output(), check_pin_policy(CopyPolicy(copies, jurisdictions, reaches))
    pin = Pin(artifact_of(reference), reference, policy)
    put_pin(socket_of(socket, home), pin)
    out.done(f"{reference} is pinned: {policy}")
    place = f" --node {shlex.quote(str(home or socket))}" if home or socket else ""
    out.hint(f"comity pin ls {shlex.quote(reference)}{place}   shows how it is met")


@examples("comity pin ls --node /var/lib/comity", "comity pin ls swiss-ai/apertus-8b@v1 --node /var/lib/comity --json")
@command.command("ls", short_help="Show the pins of your node, and how they are met.")
@click.argument("reference", metavar="REF", required=False)
@of_own_node
def ls(reference: str | None, socket: Path | None, home: Path | None) -> None:
    """Show each pin of your node: what is asked for, what this node verified itself, and what is only claimed. Exit
    status 8 if a pin is not met."""
    from comity_client.own_node import list_pins

    out = output()
    pins = list_pins(socket_of(socket, home), artifact_of(reference) if reference else None)
    if pins:
        out.table(("artifact", "copies", "jurisdictions", "reaches", ""), [_row(pin) for pin in pins])
        out.say("Counted: copies that your node verified itself, of those that are asked for.")
    else:
        out.say("Nothing is pinned.")
    if reference:
        copies = [(copy.jurisdiction, copy.node, WORDS[copy.state]) for pin in pins for copy in pin.copies]
        out.table(("jurisdiction", "node", "copy"), copies)
    unmet = sum(not pin.met for pin in pins)
    out.say(f"{plural(len(pins), 'pin')}, {unmet} not met")
    out.answer(ArtifactPinsDocument(tuple(map(ArtifactPinItem.of, pins)), unmet))
    if unmet:
        raise click.exceptions.Exit(PARTIAL)


@examples("comity pin rm swiss-ai/apertus-8b@v1 --node /var/lib/comity")
@command.command("rm", short_help="End a pin; no copy is removed.")
@click.argument("reference", metavar="REF")
@of_own_node
def rm(reference: str, socket: Path | None, home: Path | None) -> None:
    """End the pin of REF. What your node asks of others ends; no copy is removed, here or elsewhere."""
    from comity_client.own_node import end_pin

    end_pin(socket_of(socket, home), artifact_of(reference))
    output().done(f"{reference} is pinned no longer")


def _row(pin: ListedPin) -> tuple[str, ...]:
    here, wanted = pin.verified, pin.pin.policy
    counts = (
        (here.min_copies, wanted.min_copies),
        (here.min_jurisdictions, wanted.min_jurisdictions),
        (here.min_reaches, wanted.min_reaches),
    )
    name = pin.pin.name or pin.pin.artifact[:12]
    return name, *(f"{count} of {asked}" if asked else "not asked" for count, asked in counts), _state(pin)


def _state(pin: ListedPin) -> str:
    if pin.met:
        return "met"
    claimed = max(0, pin.hoped.min_copies - pin.verified.min_copies)
    return f"{f'{claimed} more claimed, ' if claimed else ''}{'others are asked' if pin.asked else 'nobody asked yet'}"
