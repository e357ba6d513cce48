"""`comity transparency-report`."""

from __future__ import annotations

from pathlib import Path

import click
from comity.trust.copies import WITHDRAWAL_REASONS
from comity.trust.frozen import frozen

from comity_cli.command import Command, examples, output
from comity_cli.copies_view import date, fold_list, of_a_node
from comity_cli.document import document
from comity_cli.output import plural


@frozen
class WithdrawnItem:
    """Copies that members of a jurisdiction withdrew for a reason."""

    jurisdiction: str
    reason: str
    copies: int


@document("transparency-report")
class TransparencyReportDocument:
    """Withdrawn copies as one node reads the logs, as `comity transparency-report --json` prints them."""

    source: str
    date: str
    artifacts: int
    total: int
    withdrawn: tuple[WithdrawnItem, ...]


@examples(
    "comity transparency-report",
    "comity transparency-report --node node-ch --json",
)
@click.command(cls=Command, name="transparency-report", short_help="Count withdrawn copies by jurisdiction and reason.")
@of_a_node
def command(node: str, socket: Path | None, home: Path | None) -> None:
    """Count the copies that members have withdrawn, by the jurisdiction of the member and by the reason that its node
    logged: space, retention, legal-order, licence, safety, damaged or other. Every withdrawal is a signed entry of the
    member's own log; the counts are what one node computes from the logs, so ask several. A withdrawal that was taken
    back is not counted. `comity whereis REF` names the nodes that withdrew one artifact."""
    from comity.rules.copy_questions import CopyQuestion

    out = output()
    found = fold_list(node, socket, home, CopyQuestion())
    counts = found.withdrawals()
    total = sum(counts.values())
    out.say(
        f"As {found.source} reads the logs on {date(found.day)}: {plural(total, 'withdrawn copy', 'withdrawn copies')}"
    )
    jurisdictions = sorted({jurisdiction for jurisdiction, _ in counts})
    reasons = [reason for reason in WITHDRAWAL_REASONS if any(reason == known for _, known in counts)]
    if counts:
        rows = [(code, *(str(counts.get((code, reason), 0)) for reason in reasons)) for code in jurisdictions]
        out.table(("jurisdiction", *reasons), rows)
    listed = tuple(WithdrawnItem(*key, count) for key, count in sorted(counts.items()))
    out.answer(TransparencyReportDocument(found.source, date(found.day), found.artifacts, total, listed))
