"""`comity audit run|ls`: test the copies of others, and show who tested which copy."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
from comity.trust.copies import MISSED, PASSED

from comity_cli.command import Group, examples, output
from comity_cli.copies_view import artifact_of, date, of_a_node, of_own_node, outcome_text, read_list, socket_of
from comity_cli.output import plural

FAILED_STATUS = 3
MISSED_STATUS = 5


@examples("comity audit run swiss-ai/apertus-8b@v1 --node /var/lib/comity", "comity audit ls --failed")
@click.group(cls=Group, name="audit", short_help="Test the copies of others, and show who tested which.")
def command() -> None:
    """An audit asks a node for random pieces of a copy that it claims. It proves quick access to these pieces at that
    moment: not a disk of its own, and nothing about later. Nodes audit one another all the time, within a budget."""


@examples("comity audit run swiss-ai/apertus-8b@v1 --node /var/lib/comity", "comity audit run sha256:9f2c… --json")
@command.command("run", short_help="Have your node audit the copies of an artifact now.")
@click.argument("reference", metavar="REF")
@of_own_node
def run(reference: str, socket: Path | None, home: Path | None) -> None:
    """Have your node audit all copies of REF that other members claim. It needs a copy of its own to compare with.
    Failures are logged at once. Exit status 3 if a copy failed, 5 if a node gave no answer."""
    from comity_client.copies import check_copies

    out = output()
    results = check_copies(socket_of(socket, home), artifact_of(reference))
    rows = [(r.jurisdiction, r.member, r.node, _word(r.outcome), str(r.pieces or "-"), r.why) for r in results]
    if rows:
        out.table(("jurisdiction", "member", "node", "result", "pieces", "why"), rows)
    else:
        out.say("No other member claims a copy that this node can audit.")
    out.document("audits", {"audits": [asdict(result) for result in results]})
    outcomes = {result.outcome for result in results}
    if outcomes - {PASSED, MISSED}:
        raise click.exceptions.Exit(FAILED_STATUS)
    if MISSED in outcomes:
        raise click.exceptions.Exit(MISSED_STATUS)


@examples("comity audit ls swiss-ai/apertus-8b@v1", "comity audit ls --failed", "comity audit ls --json")
@command.command("ls", short_help="Show the results of audits.")
@click.argument("reference", metavar="REF", required=False)
@click.option("--failed", is_flag=True, help="Only copies with a failed audit, or one without an answer.")
@of_a_node
def ls(reference: str | None, failed: bool, node: str, socket: Path | None, home: Path | None) -> None:
    """Show the newest result of each auditor about each copy of REF, or of all artifacts, as one node reads them from
    the logs. A result is what the auditor says; "proven" means that the node that was asked found the signed answer to
    be wrong, with its own copy."""
    out = output()
    found = read_list(node, socket, home, artifact_of(reference) if reference else None)
    rows, documents = [], []
    for listed in found.artifacts:
        for copy in listed.copies:
            for result in copy.results:
                if failed and result.outcome == PASSED:
                    continue
                auditor = found.names.get(result.auditor, result.auditor[:12])
                holder = found.names.get(copy.copy.node, copy.copy.node[:12])
                proof = "proven" if result.proven else f"says {auditor}"
                rows.append((found.label(listed), holder, date(result.day), outcome_text(result), proof))
                documents.append(
                    {"artifact": listed.artifact, "node": holder, "auditor_name": auditor, "date": date(result.day)}
                    | asdict(result)
                )
    out.say(f"As {found.source} reads the logs:")
    if rows:
        out.table(("artifact", "copy at", "day", "result", "basis"), rows)
    else:
        out.say("No audits." if not failed else "No failed audits.")
    out.say(f"{plural(len(rows), 'result')} for {plural(len(found.artifacts), 'artifact')}")
    out.document("audit-results", {"source": found.source, "results": documents})


def _word(outcome: str) -> str:
    return {PASSED: "passed", MISSED: "no answer"}.get(outcome, f"FAILED: {outcome}")
