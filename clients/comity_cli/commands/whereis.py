"""`comity whereis`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Final

import click
from comity.rules.copy_counts import FAILED
from comity.trust.frozen import frozen

from comity_cli.command import Command, examples, output, resolving, user
from comity_cli.copies_view import date, outcome_text
from comity_cli.document import INLINE, document
from comity_cli.known_since import known_text
from comity_cli.output import plural
from comity_cli.places import reach_text

if TYPE_CHECKING:
    from comity_client.evidence.artifact_info import Replica

MOST_NAMES: Final = 3
"""Auditors with the same result that are named; `--json` has all."""


@frozen
class ReplicaItem:
    replica: Replica = field(metadata=INLINE)
    complete: bool
    reach: tuple[str, ...]


@document("replicas")
class ReplicasDocument:
    """Copies of an artifact, as `comity whereis --json` prints them.

    `claimed`: a signed statement of the node; `held`: files that it says it has now, null if it did not answer (`why`).
    `audits` are what other members' nodes logged. `place` and `reach` are what the member declares. `known_since`: by
    when nodes say that they knew the newest claim.
    """

    replicas: tuple[ReplicaItem, ...]


@examples("comity whereis swiss-ai/apertus-8b", "comity whereis sha256:9f2c… --json")
@click.command(cls=Command, name="whereis", short_help="List the nodes that claim a full copy.")
@click.argument("reference", metavar="REF")
def command(reference: str) -> None:
    """List the nodes that have REF: by their signed claims, by their answers now, and by the newest audit of each other
    member. An audit is what its auditor says; it proves quick access, not a disk of its own. The declared reach is its
    member's word, as your pin has it."""
    out = output()
    with resolving("whereis"), output().waiting("asking the nodes"):
        replicas = user().whereis(reference)
    rows = [(r.jurisdiction, r.member, r.node, _claim(r), _answer(r), _reach(r), _audits(r)) for r in replicas]
    out.table(("jur", "member", "node", "signed claim", "answers now", "declared reach", "audits"), rows)
    full = {replica.jurisdiction for replica in replicas if replica.counts}
    out.say(f"A full copy is claimed or answered in {plural(len(full), 'jurisdiction')}.")
    out.answer(ReplicasDocument(tuple(ReplicaItem(r, r.complete, r.reach) for r in replicas)))


def _claim(replica: Replica) -> str:
    if replica.withdrawn:
        return f"withdrawn: {replica.withdrawn}"
    if replica.state == FAILED:
        return "full copy, which failed its audits"
    return f"full copy, known since {known_text(replica.known_since)}" if replica.claimed else "-"


def _reach(replica: Replica) -> str:
    cloud = f" on {replica.place.cloud}" if replica.place and replica.place.cloud else ""
    return f"{reach_text(replica.reach)}{cloud}"


def _audits(replica: Replica) -> str:
    """The newest result of each auditor; auditors with the same one are named together."""
    by_result: dict[tuple[str, str], list[str]] = {}
    for audit in replica.audits:
        found = f"{outcome_text(audit.result)} on {date(audit.result.day)}"
        proof = " with the signed answer" if audit.signed else "" if audit.logged else ", not logged yet"
        by_result.setdefault((found, proof), []).append(audit.auditor)
    return "; ".join(f"{found}, {_say(names)}{proof}" for (found, proof), names in by_result.items()) or "none"


def _say(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"{'says' if len(names) == 1 else 'say'} {', '.join(names[:MOST_NAMES])}{more}"


def _answer(replica: Replica) -> str:
    if replica.held is None:
        return f"unknown: {replica.why}"
    return "complete" if replica.complete else f"{replica.held} of {replica.files} files"
