"""`comity search`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click
from comity.rules.artifact_kind import ARTIFACT_KINDS, MODEL, check_kind
from comity.trust.encoding import short

from comity_cli.command import Command, client, examples, output
from comity_cli.document import document
from comity_cli.known_since import earliest, known_day

if TYPE_CHECKING:
    from comity_client.evidence.search import FoundArtifacts


MOST = 1000
"""Results of one search."""


@document("search")
class SearchDocument:
    """What a search found, as `comity search --json` prints it.

    `proven`: the signature was verified here; otherwise all of it is a node's word. `near`: the name is only near the
    words. `withdrawn`: its publisher yanked or superseded it, by a statement that was verified here. `known_since`: by
    when nodes say that they knew it, by their own clocks. `kind`: what its publisher states, by a statement that was
    verified here, else a model; null where the publication is not proven.
    """

    found: tuple[FoundArtifacts, ...]


@examples("comity search apertus", "comity search", "comity search minilm --json", "comity search --kind dataset")
@click.command(cls=Command, name="search", short_help="Find artifacts by name.")
@click.argument("text", default="")
@click.option("--limit", type=click.IntRange(1, MOST), default=50, show_default=True)
@click.option("--kind", metavar="KIND", help=f"Only artifacts of this kind, such as {', '.join(ARTIFACT_KINDS[1:3])}.")
def command(text: str, limit: int, kind: str | None) -> None:
    """List publications and mirrored commits whose name contains every word of TEXT, from the reachable nodes. If there
    is none, list names that are near TEXT. With --kind, list only those whose publisher states that kind, by a
    statement that is verified here; a model is what its publisher calls nothing else."""
    out = output()
    wanted = check_kind(kind) if kind is not None else None
    with out.waiting("asking the nodes"):
        found = client().search(text, limit, wanted or "")
    groups: dict[tuple[str, str, str], list[FoundArtifacts]] = {}
    for hit in found:
        groups.setdefault((hit.name, hit.artifact, hit.publisher), []).append(hit)
    rows = [_row(hits) for hits in groups.values()]
    if not found and wanted is not None:
        out.say(f"None of the names that were found is proven to be of the kind {wanted}.")
        out.hint(f"comity search {shlex.quote(text)}   # of every kind" if text else "comity search   # of every kind")
    elif not found:
        out.say(
            f"No node that answered knows a name like {text!r}."
            if text
            else "The nodes that answered know no artifact yet."
        )
        out.hint("comity search   # lists every name" if text else "comity publish --help")
    else:
        if found[0].near:
            out.say(f"No name has every word of {text!r}. Near it:")
        out.table(("name", "digest", "licence", "by", "signature", "known since (claimed)"), rows)
        out.hint(f"comity show {shlex.quote(found[0].name)}")
    out.answer(SearchDocument(tuple(found)))


def _row(hits: list[FoundArtifacts]) -> tuple[str, ...]:
    """One row for all publications of the same bytes under one name by one publisher."""
    first = hits[0]
    licences = " / ".join(dict.fromkeys(hit.licence or "?" for hit in hits))
    state = _state(any(hit.proven for hit in hits))
    state += ", withdrawn by its publisher" if any(hit.withdrawn for hit in hits) else ""
    by = f"{first.label} [{first.publisher[:12]}]" if first.label else first.publisher[:12]
    known = known_day(earliest(hit.known_since for hit in hits))
    name = first.name if first.kind in (None, MODEL) else f"{first.name} ({first.kind})"
    return name, short(first.artifact), licences, by, state, known


def _state(proven: bool) -> str:
    return "verified here" if proven else "not proven"
