"""`comity copies`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
from comity.rules.copy_counts import STATES, ClaimedCopy, CopyCount, CopyPolicy
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.trust.places import check_new_jurisdiction

from comity_cli.command import Command, examples, output
from comity_cli.copies_view import fold_list, of_a_node, reaches_text
from comity_cli.document import INLINE, document
from comity_cli.output import plural

if TYPE_CHECKING:
    from comity_client import copies as listed


@frozen
class CopyItem:
    copy: ClaimedCopy = field(metadata=INLINE)
    state: Annotated[str, {"enum": list(STATES)}]


@frozen
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
    from comity.rules.copy_questions import ALL, SHORT, UNTESTED, CopyQuestion

    which = (*((SHORT,) if short else ()), *((UNTESTED,) if untested else ())) or (ALL,)
    question = CopyQuestion(which, tuple(map(check_new_jurisdiction, excluded)), named=True)
    shown = _CopiesOutput(excluded)
    shown.finish(fold_list(node, socket, home, question, shown.add))


class _CopiesOutput:
    """Prints each artifact when the node has listed it; keeps them only for the JSON document."""

    def __init__(self, excluded: tuple[str, ...]) -> None:
        self._excluded = excluded
        self._table = output().growing_table(("artifact", "claimed", "tested", "reaches (declared)", ""))
        self._listed: list[CountedArtifact] = []
        self._began = False

    def add(self, found: listed.CountedCopies, artifacts: Sequence[listed.AskedArtifact]) -> None:
        for item in artifacts:
            count = item.held.count
            meets = count.meets(found.policy)
            if output().as_json:
                copies = tuple(CopyItem(copy.copy, copy.state) for copy in item.held.copies)
                self._listed.append(CountedArtifact(item.artifact, item.name, meets, count, copies))
                continue
            self._begin(found)
            self._table.add(
                (
                    item.label,
                    f"{count.copies} in {count.jurisdictions}",
                    f"{count.tested} in {count.tested_jurisdictions}",
                    reaches_text(count),
                    "" if meets else "short",
                )
            )

    def _begin(self, found: listed.CountedCopies) -> None:
        if not self._began:
            where = f", outside {', '.join(self._excluded)}" if self._excluded else ""
            output().say(f"As {found.source} reads the logs{where}; the charter asks for {found.policy}:")
            self._began = True

    def finish(self, found: listed.CountedCopies) -> None:
        self._begin(found)
        self._table.finish()
        output().say(f"{plural(found.short, 'artifact')} of {found.artifacts} with too few copies")
        output().answer(CopiesDocument(found.source, found.policy, self._excluded, tuple(self._listed)))
