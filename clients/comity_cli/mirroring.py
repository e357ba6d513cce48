"""Where an artifact is from, as people read it: who mirrored it, how many corroborate one another, who contradicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comity_cli.output import Output

if TYPE_CHECKING:
    from comity.trust.claims import MirrorEvidence, ProvenObservation
    from comity.trust.statement import SideObject


def show_mirroring(out: Output, mirroring: MirrorEvidence) -> None:
    """Lines for `show`: signatures by nodes of pinned members are verified, what they say is theirs."""
    from comity.trust.rows.signatures import dispute_facts, names, news_text, observed_text

    for name in mirroring.names:
        members = mirroring.corroborating(name)
        if members:
            out.fact("corroborated", f"{len(members)}: nodes of {names(members)} fetched these bytes as {name}")
    for seen in mirroring.seen:
        out.fact("mirrored", f"claimed by {names(seen.members)}: {observed_text(seen)}")
        said = seen.observed.conditions
        gate = f", gated ({said.gated})" if said.gated else ""
        licence = f"{said.licence} (claimed by the upstream's card)" if said.licence else "none was written down"
        out.fact("licence", licence + gate)
        out.fact("as obtained", f"card {_document(said.card)}, licence text {_document(said.licence_text)}")
    for _, news, members in mirroring.news:
        out.warn(f"{names(members)}: {news_text(news)}")
    for fact in dispute_facts(mirroring):
        out.warn(f"ALARM {fact.text} (says {fact.by})")


def _document(item: SideObject | None) -> str:
    return f"sha256:{item.digest[:12]}…" if item else "absent"


def mirroring_document(mirroring: MirrorEvidence) -> dict[str, Any]:
    return {
        "corroborated": mirroring.corroborated,
        "observations": [_observation(seen) for seen in mirroring.seen],
        "contradictions": [_observation(seen) for seen in mirroring.rivals],
        "news": [
            {"what": entry.statement.predicate, "name": news.upstream.name, "at": news.at, "by": _ids(members)}
            for entry, news, members in mirroring.news
        ],
    }


def _observation(seen: ProvenObservation) -> dict[str, Any]:
    said = seen.observed
    return {
        "name": said.upstream.name,
        "artifact": said.artifact,
        "by": _ids(seen.members),
        "endpoint": said.upstream.endpoint,
        "requested": said.upstream.requested,
        "obtained": said.obtained.how,
        "matched": said.matched.to_json(),
        "unchecked": list(said.unchecked),
        "licence": said.conditions.licence,
        "card": said.conditions.card.digest if said.conditions.card else None,
        "licence_text": said.conditions.licence_text.digest if said.conditions.licence_text else None,
    }


def _ids(members: tuple[Any, ...]) -> list[str]:
    return [member.id for member in members]
