"""Print where an artifact was mirrored from: observations, corroborating members and contradictions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from comity.trust.encoding import Digest
from comity.trust.frozen import frozen

from comity_cli.output import Output

if TYPE_CHECKING:
    from comity.trust.charter.document import Member
    from comity.trust.claims import MirrorEvidence, ProvenObservation
    from comity.trust.statement import SideObject
    from comity.trust.upstream import Conditions, Matched


@frozen
class ObservationItem:
    """What nodes of the members `by` say that they fetched from an upstream."""

    name: str
    artifact: Digest
    by: tuple[Digest, ...]
    endpoint: str
    requested: str
    obtained: str
    matched: Matched
    unchecked: tuple[str, ...]
    licence: str
    licence_is_listed: bool | None
    card: Digest | None
    licence_text: Digest | None

    @classmethod
    def of(cls, seen: ProvenObservation) -> ObservationItem:
        observed, conditions = seen.observed, seen.observed.conditions
        return cls(
            name=observed.upstream.name,
            artifact=observed.artifact,
            by=_ids(seen.members),
            endpoint=observed.upstream.endpoint,
            requested=observed.upstream.requested,
            obtained=observed.obtained.how,
            matched=observed.matched,
            unchecked=tuple(observed.unchecked),
            licence=conditions.licence,
            licence_is_listed=licence_is_listed(conditions),
            card=conditions.card.digest if conditions.card else None,
            licence_text=conditions.licence_text.digest if conditions.licence_text else None,
        )


@frozen
class NewsItem:
    """A later change at an upstream, as nodes of the members `by` saw it. `at` in POSIX seconds."""

    what: str
    name: str
    at: int
    by: tuple[Digest, ...]


@frozen
class MirroredItem:
    """Where an artifact was mirrored from; `corroborated` counts the members whose nodes fetched the same bytes."""

    corroborated: int
    observations: tuple[ObservationItem, ...]
    contradictions: tuple[ObservationItem, ...]
    news: tuple[NewsItem, ...]

    @classmethod
    def of(cls, mirroring: MirrorEvidence) -> MirroredItem:
        return cls(
            mirroring.corroborated,
            tuple(map(ObservationItem.of, mirroring.seen)),
            tuple(map(ObservationItem.of, mirroring.rivals)),
            tuple(
                NewsItem(entry.statement.predicate, news.upstream.name, news.at, _ids(members))
                for entry, news, members in mirroring.changes
            ),
        )


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


def _ids(members: Iterable[Member]) -> tuple[Digest, ...]:
    return tuple(member.id for member in members)
