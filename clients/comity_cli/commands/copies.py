"""`comity copies`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from comity_cli.command import Command, examples, output
from comity_cli.copies_view import of_a_node, read_list
from comity_cli.output import plural


@examples("comity copies", "comity copies --short", "comity copies --untested --json", "comity copies --node node-ch")
@click.command(cls=Command, name="copies", short_help="Count the copies of each artifact, claimed and tested.")
@click.option("--short", is_flag=True, help="Only artifacts with too few copies for the charter.")
@click.option("--untested", is_flag=True, help="Only artifacts with enough copies, of which too few were tested.")
@of_a_node
def command(short: bool, untested: bool, node: str, socket: Path | None, home: Path | None) -> None:
    """Count copies over distinct members and jurisdictions, as one node computes them from the logs. A claimed copy is
    only a node's word; a tested one passed an audit by another member in the last 30 days."""
    out = output()
    found = read_list(node, socket, home)
    wanted = list(found.artifacts)
    if short or untested:
        wanted = [*(found.short() if short else ()), *(found.untested() if untested else ())]
    rows, documents = [], []
    for listed in wanted:
        count = found.count(listed)
        rows.append(
            (
                found.label(listed),
                f"{count.copies} in {count.jurisdictions}",
                f"{count.tested} in {count.tested_jurisdictions}",
                "" if count.meets(found.policy) else "short",
            )
        )
        states = [
            {"node": found.names.get(copy.copy.node, copy.copy.node), **asdict(copy.copy), "state": copy.state}
            for copy in listed.copies
        ]
        document = {"artifact": listed.artifact, "name": listed.name, "meets_policy": count.meets(found.policy)}
        documents.append({**document, "count": asdict(count), "copies": states})
    policy = found.policy
    out.say(
        f"As {found.source} reads the logs; the charter asks for {policy.min_copies} in {policy.min_jurisdictions}:"
    )
    if rows:
        out.table(("artifact", "claimed", "tested", ""), rows)
    out.say(f"{plural(len(found.short()), 'artifact')} of {len(found.artifacts)} with too few copies")
    out.document("copies", {"source": found.source, "policy": asdict(policy), "artifacts": documents})
