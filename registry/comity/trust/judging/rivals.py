"""Who else claims the name: other publications of it that are proven to be somebody's, among the claims at hand.

A name is not a thing that anybody owns. Where the owner or a pinned charter bound its namespace, that decides, and the
others are told beside; where nobody did, or its own publisher gave one version to two artifacts, it is a dispute.
"""

from __future__ import annotations

from dataclasses import dataclass

from comity.trust.errors import ComityError
from comity.trust.identity import Inception
from comity.trust.judging.reading import Publication, Readings
from comity.trust.statement import Entry
from comity.trust.statements.published import Published, check_published


@dataclass(frozen=True, slots=True)
class Rival:
    """Another publication under the same name and version."""

    entry: Entry
    published: Published
    publisher: Inception


def rivals(readings: Readings, publication: Publication) -> tuple[Rival, ...]:
    """Those that give the name of `publication` to other bytes, or are another identity's; one for each publisher and
    artifact."""
    found: dict[tuple[str, str], Rival] = {}
    for entry in readings.entries:
        rival = _rival(readings, entry, publication)
        if rival is not None:
            found.setdefault((rival.publisher.id, rival.published.artifact), rival)
    return tuple(found.values())


def _rival(readings: Readings, entry: Entry, publication: Publication) -> Rival | None:
    statement = entry.statement
    if statement.predicate != "published" or statement.by is None or entry.digest == publication.entry.digest:
        return None
    publisher, chain = readings.inceptions.get(statement.by.id), readings.chain(statement.by.id)
    if publisher is None or chain is None:
        return None
    try:
        said = check_published(entry, publisher, chain)
    except ComityError:
        return None
    if str(said.name).lower() != str(publication.published.name).lower():
        return None
    same = (publisher.id, said.artifact) == (publication.publisher.id, publication.published.artifact)
    return None if same else Rival(entry, said, publisher)
