"""`comity whereis`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from comity_cli.command import Command, client, examples, output
from comity_cli.output import plural

if TYPE_CHECKING:
    from comity_client.evidence.inspect import Replica


@examples("comity whereis swiss-ai/apertus-8b", "comity whereis sha256:9f2c… --json")
@click.command(cls=Command, name="whereis", short_help="List the nodes that claim a full copy.")
@click.argument("reference", metavar="REF")
def command(reference: str) -> None:
    """List the nodes that have REF: by their signed claims, and by their answers now. Neither is a proof of storage."""
    out = output()
    replicas = client().whereis(reference)
    rows = [(r.jurisdiction, r.member, r.node, _claim(r), _answer(r)) for r in replicas]
    out.table(("jurisdiction", "member", "node", "signed claim", "answers now"), rows)
    full = {r.jurisdiction for r in replicas if r.claimed or r.complete}
    out.say(f"A full copy is claimed or answered in {plural(len(full), 'jurisdiction')}.")
    out.document("replicas", {"replicas": [{**asdict(r), "complete": r.complete} for r in replicas]})


def _claim(replica: Replica) -> str:
    return "full copy" if replica.claimed else "-"


def _answer(replica: Replica) -> str:
    if replica.held is None:
        return f"unknown: {replica.why}"
    return "complete" if replica.complete else f"{replica.held} of {replica.files} files"
