"""Since when a statement is known: what the cosigners of a proof that is here show, or what nodes say.

Statements have no time of their own. A proof shows by when members had cosigned a log that has the statement. What
nodes say, by their own clocks, is their word alone: one that says a day before all others moves nothing where two do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from comity.rules.collected import CollectedEvidence
from comity.rules.cosigned_times import time_of_quorum
from comity.trust.claims import Publication
from comity.trust.encoding import Digest
from comity.trust.evidence import EvidenceReader, InclusionEvidence
from comity.trust.frozen import frozen
from comity.trust.key_validity import JudgedPublication, judge_publication
from comity.trust.policy import Policy
from comity.wire.messages import LocatedEntry


@frozen
class KnownSince:
    """By when a statement was known, in POSIX seconds.

    Attributes:
        basis: *cosigned*: a proof that was verified here shows that members had cosigned it by then, by their clocks;
            *claimed*: nodes say so, by theirs.
        members: how many members cosigned it by then, or have a node that says so.
    """

    at: int
    basis: Literal["cosigned", "claimed"]
    members: int


class ClaimedTimes:
    """What nodes say of lines, by member. Not thread-safe."""

    def __init__(self) -> None:
        self._of_line: dict[bytes, dict[Digest, int]] = {}

    def add(self, member: Digest, answer: Iterable[LocatedEntry]) -> None:
        """Add what a node of `member` says in an answer: of each line the earliest time counts."""
        for item in answer:
            if item.known_since:
                said = self._of_line.setdefault(item.line, {})
                said[member] = min(item.known_since, said.get(member, item.known_since))

    def of(self, *lines: bytes) -> KnownSince | None:
        """By when the first of these lines was known: the second earliest time of those that members say, or the only
        one; None if nobody says one."""
        earliest: dict[Digest, int] = {}
        for member, since in (said for line in lines for said in self._of_line.get(line, {}).items()):
            earliest[member] = min(since, earliest.get(member, since))
        at = time_of_quorum(earliest.values(), min(2, len(earliest)))
        return None if at is None else KnownSince(at, "claimed", sum(said <= at for said in earliest.values()))


def cosigned_since(judged: JudgedPublication, policy: Policy) -> KnownSince | None:
    """By when as many cosigners as `policy` asks for had cosigned a publication, by the proofs with which it was
    judged; None if too few had."""
    found = judged.first_cosigned(policy)
    return None if found is None else KnownSince(found.time, "cosigned", found.cosigners)


def proven_times(
    evidence: CollectedEvidence,
    publications: Iterable[Publication],
    proofs: tuple[InclusionEvidence, ...],
    reader: EvidenceReader,
) -> dict[bytes, KnownSince]:
    """By line, by when each of these publications had been cosigned; without those of which no proof shows that."""
    found: dict[bytes, KnownSince] = {}
    for each in publications if proofs else ():
        judged = judge_publication(each, evidence.claims, proofs, {}, evidence.bound, evidence.policy, reader)
        if (since := cosigned_since(judged, evidence.policy)) is not None:
            found[each.entry.line] = since
    return found
