"""`comity catalogue`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity_cli.command import Command, client, examples, output
from comity_cli.document import document
from comity_cli.files import NEW_FILE
from comity_cli.output import plural

from comity.content import durable
from comity.rules.artifact_kind import DATASET, check_kind
from comity.trust.errors import ComityError, NotFound
from comity.trust.frozen import frozen
from comity.trust.names import Name, is_upstream
from comity.trust.upstream import check_endpoint, endpoint_host

if TYPE_CHECKING:
    from comity_client.evidence.artifact_info import ArtifactInfo
    from comity_client.evidence.known_since import KnownSince
    from comity_client.evidence.search import FoundArtifacts

    from comity.addons.mldcat.catalogue import CatalogueEntry, TrainingDataset
    from comity.trust.statements import Advisory, Parent

MOST = 1000
"""Results of the search."""


@frozen
class LeftOutItem:
    """A name that is not in the catalogue, and why."""

    name: str
    why: str


@document("catalogue")
class CatalogueDocument:
    """The catalogue that was written, as `comity catalogue --json` prints it.

    `left_out`: names that were found, and are not in it, each with the reason.
    """

    file: Path
    artifacts: int
    left_out: tuple[LeftOutItem, ...]


@examples(
    "comity catalogue --gateway https://models.example.org --out catalogue.jsonld",
    "comity catalogue apertus --gateway https://models.example.org > catalogue.jsonld",
)
@click.command(cls=Command, name="catalogue", short_help="Write a catalogue of artifacts for data portals.")
@click.argument("text", default="")
@click.option(
    "--gateway", metavar="URL", required=True, help="The public gateway that serves the files: it is not asked."
)
@click.option("--kind", metavar="KIND", help="Only artifacts of this kind, such as dataset.")
@click.option(
    "--limit", type=click.IntRange(1, MOST), default=50, show_default=True, help="Results of the search, at most."
)
@click.option("--out", "file", type=NEW_FILE, help="Write to this file instead of stdout.")
def command(text: str, gateway: str, kind: str | None, limit: int, file: Path | None) -> None:
    """Write what `comity search TEXT` finds as a catalogue for a data portal: MLDCAT-AP 3.1.0 in JSON-LD. Of each name
    it has the newest version that is not withdrawn, with its files by address and digest. Signatures are verified here;
    what publishers claim is marked as claimed, and what the profile requires and nobody states is "not stated". A
    portal can also harvest a gateway itself: URL/-/catalogue/mldcat-ap."""
    from comity.addons.mldcat.catalogue import CatalogueWriter

    out, base = output(), check_endpoint(gateway.removesuffix("/"))
    if file is None and out.as_json:
        raise click.UsageError("--json says what was written to a file: name it with --out")
    if not base:
        raise click.BadParameter("expected https://host[:port]", param_hint="--gateway")
    with out.waiting("asking the nodes"):
        found = client().search(text, limit, check_kind(kind) if kind is not None else "")
    entries: list[CatalogueEntry] = []
    left_out: list[LeftOutItem] = []
    datasets: dict[Parent, TrainingDataset | None] = {}
    names = list(_names(found))
    with out.waiting(f"reading {plural(len(names), 'artifact')}"):
        for name in names:
            try:
                entries.append(_with_datasets(_entry(client().show(name)), datasets))
            except ComityError as error:
                left_out.append(LeftOutItem(name, str(error)))
    for each in left_out:
        out.warn(f"{each.name} is left out: {each.why}")
    catalogue = CatalogueWriter(base, endpoint_host(base)).write(entries)
    if file is None:
        click.echo(catalogue, nl=False)
        return
    durable.write_file(file, catalogue.encode(), mode=0o644, point="catalogue")
    out.say(f"MLDCAT-AP 3.1.0: {file}, {len(entries)} of {len(names)} names")
    out.answer(CatalogueDocument(file, len(entries), tuple(left_out)))


def _names(found: Iterable[FoundArtifacts]) -> Iterator[str]:
    """The names without versions, each once; of what nodes mirrored, the commits."""
    names = (hit.name if is_upstream(hit.name) else hit.name.partition("@")[0] for hit in found)
    return iter(dict.fromkeys(names))


def _entry(info: ArtifactInfo) -> CatalogueEntry:
    """Raises NotFound if nothing about the artifact is proven."""
    from comity.addons.mldcat.catalogue import CatalogueEntry, CataloguePublisher

    if (publication := info.current) is not None:
        published, known = publication.published, info.known_since(publication.entry)
        return CatalogueEntry(
            repository=published.name.repository,
            version=published.name.version,
            artifact=info.artifact,
            revision=f"sha256:{info.artifact}",
            kind=info.kind,
            licence=published.licence.spdx,
            manifest=info.manifest,
            publisher=CataloguePublisher(publication.publisher.display, publication.publisher.id),
            lineage=published.lineage,
            known_since=known.at if known else 0,
            known_by=_known_by(known),
            notices=tuple(map(_notice, info.advisories)),
        )
    upstream = info.mirroring.upstream
    observed = next((each.observed for each in info.mirroring.seen if each.observed.upstream == upstream), None)
    if observed is None:
        raise NotFound("nothing that is proven names it")
    return CatalogueEntry(
        repository=observed.upstream.repository,
        version=observed.upstream.requested,
        artifact=info.artifact,
        revision=observed.upstream.commit,
        kind=info.kind,
        licence=observed.conditions.licence,
        manifest=info.manifest,
        upstream=observed.name,
        notices=tuple(map(_notice, info.advisories)),
    )


def _with_datasets(entry: CatalogueEntry, known: dict[Parent, TrainingDataset | None]) -> CatalogueEntry:
    """The entry with the datasets on which the model was trained.

    Args:
        known: what was found of parents before; each is asked for once.
    """
    for parent in entry.training_parents:
        if parent not in known:
            known[parent] = _dataset(parent)
    found = (known[parent] for parent in entry.training_parents)
    return replace(entry, trained_on=tuple(each for each in found if each is not None))


def _dataset(parent: Parent) -> TrainingDataset | None:
    """The dataset that a parent is, if that is proven."""
    from comity.addons.mldcat.catalogue import TrainingDataset

    try:
        name, info = Name.parse(parent.name), client().show(parent.name)
    except ComityError:  # nothing proves it
        return None
    if info.publication is None or info.artifact != parent.digest or info.kind != DATASET:
        return None
    return TrainingDataset(name.repository, name.version, info.artifact)


def _known_by(known: KnownSince | None) -> str:
    """Whose word the time is."""
    if known is None:
        return "nobody"
    if known.basis == "cosigned":
        return f"{plural(known.members, 'member')} that cosigned it, as was verified"
    return f"nodes of {plural(known.members, 'member')}, by their own clocks"


def _notice(advisory: Advisory) -> str:
    """An advisory, with its author."""
    said = f": {advisory.text}" if advisory.text else ""
    return f"{advisory.kind} ({advisory.severity}), claimed by the {advisory.by.kind} {advisory.by.id}{said}"
