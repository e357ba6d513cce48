"""`comity show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from comity.trust.encoding import short

from comity_cli.command import Command, client, examples, output
from comity_cli.mirroring import mirroring_document, show_mirroring
from comity_cli.output import Output, plural, size

if TYPE_CHECKING:
    from comity_client.evidence.inspect import ArtifactInfo


@examples(
    "comity show swiss-ai/apertus-8b",
    "comity show swiss-ai/apertus-8b@v1",
    "comity show sha256:9f2c… --json",
    "comity show hf:org/name",
)
@click.command(cls=Command, name="show", short_help="Show what is said about an artifact, and by whom.")
@click.argument("reference", metavar="REF")
@click.option("--files", is_flag=True, help="List its files.")
def command(reference: str, files: bool) -> None:
    """Show an artifact: its publisher, versions, licence, advisories, and who says what about it."""
    out = output()
    dossier = client().show(reference)
    manifest = dossier.manifest
    out.say(f"{dossier.title}  sha256:{dossier.artifact}")
    out.fact("stands for", f"it by {dossier.basis}")
    out.fact("content", f"{plural(len(manifest.files), 'file')}, {size(manifest.size)}")
    if dossier.publication is not None:
        who, said = dossier.publication.publisher, dossier.publication.published
        out.fact("publisher", f"{who.display} [{who.id[:12]}], signature verified here")
        out.fact("licence", f"{said.licence.spdx} (claimed by the publisher)")
        for parent in said.lineage:
            out.fact(parent.relation, f"of {parent.name} (claimed by the publisher)")
    for version in dossier.versions:
        out.fact("version", f"{version.version}  {short(version.artifact)}{'  withdrawn' if version.withdrawn else ''}")
    for check in dossier.checks:
        out.fact("verified", f"claimed by {check.by}: {check.text}")
    for vouch in dossier.vouches:
        out.fact(vouch.said.statement, f"claimed by {vouch.by.name}{': ' * bool(vouch.said.text)}{vouch.said.text}")
    show_mirroring(out, dossier.mirroring)
    for advisory in dossier.advisories:
        out.warn(f"{advisory.kind} ({advisory.severity}) by {_issuer(dossier, advisory.by.id)}: {advisory.text}")
    _show_disputes(out, dossier)
    if files:
        out.table(("path", "size", "sha256"), [(e.path, size(e.size), e.sha256) for e in manifest.files])
    else:
        out.say("\nWho says what (claims as the nodes gave them; comity verify proves them):")
        rows = [
            (s.predicate, s.by, ", ".join(f"{origin} #{index}" for origin, index in s.places)) for s in dossier.said
        ]
        out.table(("statement", "by", "logged at"), rows)
    out.document("artifact", _document(dossier))
    out.hint(f"comity pull {dossier.title}")


def _show_disputes(out: Output, dossier: ArtifactInfo) -> None:
    """Keys that its publisher says were lost, and others who claim the name."""
    for notice in dossier.lost_keys:
        since = f"from entry {notice.index} of {notice.origin} on"
        out.warn(f"key-compromise ({notice.severity}) by its publisher: {since}: {notice.text}")
    for rival in dossier.rivals:
        who = f"{rival.publisher.display} [{rival.publisher.id[:12]}]"
        out.warn(f"{who} claims {rival.published.name} too, for sha256:{short(rival.published.artifact)}")


def _issuer(dossier: ArtifactInfo, identity: str) -> str:
    own = dossier.publication is not None and dossier.publication.publisher.id == identity
    return "its publisher" if own else identity[:12]


def _document(dossier: ArtifactInfo) -> dict[str, object]:
    publication = dossier.publication
    return {
        "title": dossier.title,
        "artifact": dossier.artifact,
        "basis": dossier.basis,
        "publisher": publication.publisher.id if publication else None,
        "licence": publication.published.licence.spdx if publication else None,
        "bytes": dossier.manifest.size,
        "files": [{"path": e.path, "size": e.size, "sha256": e.sha256} for e in dossier.manifest.files],
        "versions": [
            {"version": v.version, "artifact": v.artifact, "withdrawn": v.withdrawn} for v in dossier.versions
        ],
        "advisories": [
            {"kind": a.kind, "severity": a.severity, "text": a.text, "by": a.by.id} for a in dossier.advisories
        ],
        "mirrored": mirroring_document(dossier.mirroring),
        "checks": [check.to_json() for check in dossier.checks],
        "vouched": [
            {"statement": v.said.statement, "text": v.said.text, "by": v.by.id, "name": v.by.name}
            for v in dossier.vouches
        ],
        "lost_keys": [{"key": n.key, "origin": n.origin, "index": n.index, "text": n.text} for n in dossier.lost_keys],
        "rivals": [{"publisher": r.publisher.id, "artifact": r.published.artifact} for r in dossier.rivals],
        "said": [
            {"predicate": s.predicate, "by": s.by, "places": [list(place) for place in s.places]} for s in dossier.said
        ],
    }
