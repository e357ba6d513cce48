"""`comity drill`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.content import durable
from comity.rules.parties import HARDWARE_ROOT, PARTY_KINDS
from comity.trust.exit_statuses import PARTIAL
from comity.trust.frozen import frozen

from comity_cli.command import Command, client, examples, output
from comity_cli.document import INLINE, document
from comity_cli.files import FOLDER, NEW_FILE
from comity_cli.nodes import NODE
from comity_cli.output import plural

if TYPE_CHECKING:
    from comity.rules.copy_counts import CopyPolicy
    from comity_client.party_drill import FederationDrill, PartyOutcome

    from comity_cli.lab.outages import Attempt


@document("lab-drill")
class LabDrillDocument:
    """What was pulled and verified without each node of a lab, as `comity drill --lab --json` prints it."""

    attempts: tuple[Attempt, ...]
    verified: int


@frozen
class OutcomeItem:
    """What the loss of a party leaves."""

    outcome: PartyOutcome = field(metadata=INLINE)
    name: str
    survived: bool


@document("drill")
class DrillDocument:
    """What is left without each party, by reasoning, as `comity drill --json` prints it.

    `silent`: nodes that do not answer. `remainders`: entries that only lost nodes have; where there are any it is not
    known what verifies, and `verifies` is 0. `fallen`: the first artifacts that are lost.
    """

    source: str
    artifacts: int
    policy: CopyPolicy
    silent: tuple[str, ...]
    parties: int
    survived: int
    outcomes: tuple[OutcomeItem, ...]

    @classmethod
    def of(cls, found: FederationDrill) -> DrillDocument:
        outcomes = tuple(OutcomeItem(each, found.name(each.party), each.survived) for each in found.outcomes)
        silent = tuple(found.silent)
        return cls(found.source, found.artifacts, found.policy, silent, len(outcomes), found.survived, outcomes)


@examples(
    "comity drill",
    "comity drill --html drill.html",
    "comity drill --node node-ch --json",
    "comity drill --lab ./lab",
    "comity drill --lab ./lab swiss-ai/tiny@v1 --json",
)
@click.command(cls=Command, name="drill", short_help="Show what is left without each single party.")
@click.argument("references", metavar="[REF]...", nargs=-1)
@click.option("--lab", type=FOLDER, help="Really kill each node of this lab in turn, and pull and verify without it.")
@click.option("--node", default="", metavar=NODE, help="Ask this node about copies. Default: the first that answers.")
@click.option("--hub", "hubs", multiple=True, metavar="URL", help="Also name this hub as a party.")
@click.option("--html", type=NEW_FILE, help="Write a page for people who decide, to read and to print.")
def command(references: tuple[str, ...], lab: Path | None, node: str, hubs: tuple[str, ...], html: Path | None) -> int:
    """Remove every single party in turn, in thought: each member, jurisdiction, legal reach and cloud as declared, each
    publisher, the roots of hardware vendors, the hubs, the package index, the update channel, DNS, the CA store and the
    clock. Show for each how many artifacts could still be fetched and
    verified, and name those that could not. Nothing is stopped and no byte is read: it reasons over claimed and tested
    copies and over the logs that nodes have.

    With --lab, each node of a lab on this machine is really killed and started again, and DNS and the CA store are
    hidden; every artifact, or each REF, is pulled into an empty folder and verified meanwhile.

    Exit status: 0 every artifact survives every loss, 8 something falls, or there is no artifact.
    """
    if lab is not None:
        if node or hubs or html:
            raise click.UsageError("--lab takes no --node, --hub or --html")
        return _drill_lab(lab, references)
    if references:
        raise click.UsageError("REF is for --lab: by reasoning, every artifact is looked at")
    return _drill_by_reasoning(node, hubs, html)


def _drill_lab(lab: Path, references: tuple[str, ...]) -> int:
    from comity_cli.lab.outages import drill_lab

    out = output()
    attempts = drill_lab(out, lab, references)
    held = sum(attempt.verified for attempt in attempts)
    out.answer(LabDrillDocument(tuple(attempts), held))
    if attempts and held == len(attempts):
        out.done(f"{held} of {len(attempts)}: every artifact was pulled and verified without each party.")
        return 0
    out.warn(f"{held} of {len(attempts)} pulled and verified" if attempts else "the lab holds no artifact")
    return PARTIAL


def _drill_by_reasoning(node: str, hubs: tuple[str, ...], html: Path | None) -> int:
    from comity_client.party_drill import render_drill

    out = output()
    found = client().drill(node, hubs)
    rows = [
        (
            PARTY_KINDS[outcome.party.kind],
            found.name(outcome.party),
            str(outcome.pulls),
            str(outcome.tested),
            "unknown" if outcome.remainders else str(outcome.verifies),
            str(outcome.enough),
            _result(outcome),
        )
        for outcome in found.outcomes
    ]
    out.say(
        f"As {found.source} reads the logs, of {plural(found.artifacts, 'artifact')}; "
        f"the charter asks for {found.policy}:"
    )
    out.table(("without", "", "pull", "from a tested copy", "verify", "enough", ""), rows)
    for name in found.silent:
        out.warn(f"{name} does not answer: its copies are not counted on")
    if html is not None:
        durable.write_file(html, render_drill(found, _today()).encode(), mode=0o644, point="page")
        out.done(f"page written: {html}")
    out.answer(DrillDocument.of(found))
    return _conclude(found)


def _conclude(found: FederationDrill) -> int:
    """Say the result in one line. Returns the exit status."""
    out, parties = output(), len(found.outcomes)
    if not found.artifacts:
        out.warn("there is no artifact: this drill says nothing")
        return PARTIAL
    if found.survived == parties:
        out.done(f"Every artifact survives the loss of any one of {parties} parties.")
        return 0
    for outcome in found.outcomes:
        for item in outcome.fallen[:3]:
            out.warn(f"{item.name} falls without {outcome.party.kind} {found.name(outcome.party)}".rstrip())
    out.warn(f"the loss of {parties - found.survived} of {parties} parties would take artifacts")
    return PARTIAL


def _result(outcome: PartyOutcome) -> str:
    if outcome.dependents is None:
        return f"not known what depends on it: {outcome.why}"
    if outcome.dependents:
        return f"all left; {_dependents(outcome)}: {outcome.why}"
    if outcome.why:
        return f"nothing depends on it: {outcome.why}"
    if outcome.survived:
        return "all left" if outcome.enough == outcome.artifacts else "all left, below the policy"
    rest = ", ".join(
        f"{plural(item.count, 'entry', 'entries')} of {item.origin} nowhere else" for item in outcome.remainders
    )
    return rest or f"{plural(outcome.artifacts - outcome.pulls, 'artifact')} lost"


def _dependents(outcome: PartyOutcome) -> str:
    """`3 offers (node-ch 1a2b…, …)`."""
    names = ", ".join(outcome.dependent_names[:3]) + (", …" if (outcome.dependents or 0) > 3 else "")
    noun = "offer" if outcome.party.kind == HARDWARE_ROOT else "artifact"
    return f"{plural(outcome.dependents or 0, noun)} ({names})"


def _today() -> str:
    """The date of this machine, for the page."""
    import datetime

    return datetime.datetime.now(datetime.UTC).date().isoformat()
