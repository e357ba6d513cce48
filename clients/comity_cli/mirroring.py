"""Print where an artifact was mirrored from: observations, corroborating members and contradictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comity_cli.output import Output

if TYPE_CHECKING:
    from comity.trust.claims import MirrorEvidence, ProvenObservation
    from comity.trust.statement import SideObject
    from comity.trust.upstream import Conditions


def show_mirroring(out: Output, mirroring: MirrorEvidence) -> None:
    """Print lines for `show`. The signatures of pinned members' nodes are verified; the content is their claim."""
    from comity.trust.rows.findings import change_text, dispute_facts, member_names, observed_text

    for name in mirroring.names:
        members = mirroring.corroborating(name)
        if members:
            out.fact("corroborated", f"{len(members)}: nodes of {member_names(members)} fetched these bytes as {name}")
    for seen in mirroring.seen:
        out.fact("mirrored", f"claimed by {member_names(seen.members)}: {observed_text(seen)}")
        conditions = seen.observed.conditions
        gate = f", gated ({conditions.gated})" if conditions.gated else ""
        out.fact("licence", (card_licence(conditions) or "none recorded") + gate)
        out.fact("as obtained", f"card {_document(conditions.card)}, licence text {_document(conditions.licence_text)}")
    for _, news, members in mirroring.changes:
        out.warn(f"{member_names(members)}: {change_text(news)}")
    for fact in dispute_facts(mirroring):
        out.warn(f"ALARM {fact.text} (claimed by {fact.by})")


def card_licence(conditions: Conditions) -> str:
    """The licence that the upstream's card claims, with a mark if it is no SPDX expression; empty if it claims none."""
    if not conditions.licence:
        return ""
    mark = "" if licence_is_listed(conditions) else "; not an SPDX expression"
    return f"{conditions.licence} (claimed by the upstream's card{mark})"


def licence_is_listed(conditions: Conditions) -> bool | None:
    """Whether the licence that the card claims is an SPDX expression; None if it claims none. Cards have others, which
    are recorded as they are."""
    from comity_client.licences import is_listed

    return is_listed(conditions.licence) if conditions.licence else None


def _document(item: SideObject | None) -> str:
    return f"sha256:{item.digest[:12]}…" if item else "absent"


def mirroring_document(mirroring: MirrorEvidence) -> dict[str, Any]:
    return {
        "corroborated": mirroring.corroborated,
        "observations": [_observation(seen) for seen in mirroring.seen],
        "contradictions": [_observation(seen) for seen in mirroring.rivals],
        "news": [
            {"what": entry.statement.predicate, "name": news.upstream.name, "at": news.at, "by": _ids(members)}
            for entry, news, members in mirroring.changes
        ],
    }


def _observation(seen: ProvenObservation) -> dict[str, Any]:
    observed = seen.observed
    return {
        "name": observed.upstream.name,
        "artifact": observed.artifact,
        "by": _ids(seen.members),
        "endpoint": observed.upstream.endpoint,
        "requested": observed.upstream.requested,
        "obtained": observed.obtained.how,
        "matched": observed.matched.to_json(),
        "unchecked": list(observed.unchecked),
        "licence": observed.conditions.licence,
        "licence_is_listed": licence_is_listed(observed.conditions),
        "card": observed.conditions.card.digest if observed.conditions.card else None,
        "licence_text": observed.conditions.licence_text.digest if observed.conditions.licence_text else None,
    }


def _ids(members: tuple[Any, ...]) -> list[str]:
    return [member.id for member in members]
