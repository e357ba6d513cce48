"""Which bytes a commit stands for where nodes observed different ones. Pure; protocol, section 6a.

A commit has one content, so somebody is wrong. What most members fetched themselves counts; of equally many, what most
members' nodes saw first. The other observations stay, and are shown as a dispute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from comity.trust.digest import Digest
from comity.trust.judging.claimants import most_first
from comity.trust.upstream.weighing import Mirroring


def most_corroborated(found: Mapping[Digest, Mirroring], name: str) -> tuple[Digest, ...]:
    """The artifacts that most members fetched under the commit `name`, each member and its successors once; several
    where equally many fetched them. A member that fetched different bytes under one commit contradicts itself, and
    counts for none."""
    voices = {
        digest: frozenset(member.lineage for member in mirroring.corroborating(name))
        for digest, mirroring in found.items()
        if name in mirroring.names
    }
    said = Counter(member for members in voices.values() for member in members)
    counted = {digest: sum(said[member] == 1 for member in members) for digest, members in voices.items()}
    most = max(counted.values(), default=0)
    return tuple(digest for digest, count in counted.items() if count == most)


def stands_for(
    found: Mapping[Digest, Mirroring], name: str, sightings: Mapping[Digest, Digest | None]
) -> Digest | None:
    """The artifact that the commit stands for; None where nothing prefers one of several.

    Args:
        sightings: by member, which of the artifacts its nodes saw first.
    """
    best = most_corroborated(found, name)
    if len(best) == 1:
        return best[0]
    first = most_first({member: seen for member, seen in sightings.items() if seen in best})
    return first[0] if first else None
