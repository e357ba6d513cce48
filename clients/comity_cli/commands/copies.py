"""`comity copies`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import click
from comity.rules.copy_counts import STATES, ClaimedCopy, CopyCount, CopyPolicy
from comity.trust.encoding import Digest
from comity.trust.places import check_new_jurisdiction

from comity_cli.command import Command, examples, output
from comity_cli.copies_view import of_a_node, reaches_text, read_list
from comity_cli.document import INLINE, document
from comity_cli.output import plural


@dataclass(frozen=True, slots=True)
class CopyItem:
    copy: ClaimedCopy = field(metadata=INLINE)
    state: Annotated[str, {"enum": list(STATES)}]


@dataclass(frozen=True, slots=True)
class CountedArtifact:
    artifact: Digest
    name: str
    meets_policy: bool
    count: CopyCount
    copies: tuple[CopyItem, ...]


@document("copies")
class CopiesDocument:
    """Copies of all artifacts, as `comity copies --json` prints them.

    As the node `source` reads the logs. Reaches are what members declare. `outside`: jurisdictions whose copies were
    left out.
    """

    source: str
    policy: CopyPolicy
    outside: tuple[str, ...]
    artifacts: tuple[CountedArtifact, ...]


@examples(
    "comity copies",
    "comity copies --short",
    "comity copies --outside US --json",
    "comity copies --untested --node node-ch",
)
@click.command(cls=Command, name="copies", short_help="Count the copies of each artifact, claimed and tested.")
@click.option("--short", is_flag=True, help="Only artifacts with too few copies for the charter.")
@click.option("--untested", is_flag=True, help="Only artifacts with enough copies, of which too few were tested.")
@click.option("--outside", "excluded", multiple=True, metavar="CODE", help="Leave out copies that its law reaches.")
@of_a_node
def command(
    short: bool, untested: bool, excluded: tuple[str, ...], node: str, socket: Path | None, home: Path | None
) -> None:
    """Count copies over distinct members and jurisdictions, as one node computes them from the logs. A claimed copy is
    only a node's word; a tested one passed an audit by another member in the last 30 days. Reaches are the fewest
    jurisdictions whose law together reaches every copy, as members declare it: nobody verifies that. With --outside, a
    copy counts only if its member has no seat there and declares a place that this law does not reach."""
    out = output()
    with out.waiting("reading the list of copies"):
        listed_copies = read_list(node, socket, home)
    found = listed_copies.without(map(check_new_jurisdiction, excluded))
    wanted = list(found.artifacts)
    if short or untested:
        wanted = [*(found.short() if short else ()), *(found.untested() if untested else ())]
    rows, listed_artifacts = [], []
    for listed in wanted:
        count = found.count(listed)
        rows.append(
            (
                found.label(listed),
                f"{count.copies} in {count.jurisdictions}",
                f"{count.tested} in {count.tested_jurisdictions}",
                reaches_text(count),
                "" if count.meets(found.policy) else "short",
            )
        )
        items = tuple(CopyItem(copy.copy, copy.state) for copy in listed.copies)
        listed_artifacts.append(CountedArtifact(listed.artifact, listed.name, count.meets(found.policy), count, items))
    where = f", outside {', '.join(excluded)}" if excluded else ""
    out.say(f"As {found.source} reads the logs{where}; the charter asks for {found.policy}:")
    if rows:
        out.table(("artifact", "claimed", "tested", "reaches (declared)", ""), rows)
    out.say(f"{plural(len(found.short()), 'artifact')} of {len(found.artifacts)} with too few copies")
    out.answer(CopiesDocument(found.source, found.policy, excluded, tuple(listed_artifacts)))
