"""Which members have a copy of an artifact that counts, and what the loss of a member or a jurisdiction would leave.

The members with a copy of one artifact are a set of bits of one integer, so a federation has few different sets
and counting costs one step for each set, not for each artifact. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from comity.rules.copy_counts import CopyPolicy
from comity.trust.charter.document import Member
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.trust.places import Reach, count_reaches


@frozen
class CopyCounts:
    """Numbers of artifacts: all, those that meet the rule, those that do not, and those without any copy."""

    total: int
    enough: int
    short: int
    none: int


@frozen
class LossOutcome:
    """What the loss of some members leaves: `newly_short` artifacts meet the rule now and would not after; `lost`
    have a copy now and would have none."""

    after: CopyCounts
    newly_short: int
    lost: int


class CopyHolders:
    """The members in the order of their bits. A member that was replaced and its successor share one bit.

    Args:
        reaches: the declared reach of the nodes of each member that declares one.
    """

    def __init__(self, members: Sequence[Member], reaches: Mapping[Digest, Reach] | None = None) -> None:
        self.members = tuple(members)
        self._reaches = reaches or {}
        self._bits = {member.id: 1 << at for at, member in enumerate(self.members)}
        self._places: dict[str, int] = {}
        for member in self.members:
            self._places[member.jurisdiction] = self._places.get(member.jurisdiction, 0) | self._bits[member.id]

    def bit(self, member: Member) -> int:
        """The bit of a member; 0 if it has no seat in the newest charter."""
        return self._bits.get(member.id, 0)

    def set_of(self, identities: Iterable[Digest]) -> int:
        """The set of some members; those without a seat are left out."""
        found = 0
        for identity in identities:
            found |= self._bits.get(identity, 0)
        return found

    def of(self, held_by: int) -> Iterator[Member]:
        """The members of a set, in the order of the charter."""
        return (member for at, member in enumerate(self.members) if held_by >> at & 1)

    def where(self, jurisdiction: str) -> int:
        """The set of the members of a jurisdiction."""
        return self._places.get(jurisdiction, 0)

    def meets(self, held_by: int, rule: CopyPolicy) -> bool:
        if held_by.bit_count() < rule.min_copies or (
            rule.min_reaches and self._count_reaches(held_by) < rule.min_reaches
        ):
            return False
        missing = rule.min_jurisdictions
        for place in self._places.values():
            missing -= bool(held_by & place)
            if missing <= 0:
                return True
        return missing <= 0

    def _count_reaches(self, held_by: int) -> int:
        return count_reaches(self._reaches.get(member.id, ()) for member in self.of(held_by))

    @staticmethod
    def by_bit(sets: Mapping[int, int]) -> dict[int, int]:
        """By the bit of a member, the number of artifacts of which it has a copy, in one pass over the sets."""
        copies: dict[int, int] = {}
        for held_by, number in sets.items():
            while held_by:
                bit = held_by & -held_by
                copies[bit] = copies.get(bit, 0) + number
                held_by ^= bit
        return copies

    def count(self, sets: Mapping[int, int], rule: CopyPolicy, without: int = 0) -> CopyCounts:
        """Count artifacts by set of holders, as if the members in `without` held nothing."""
        enough = none = 0
        for held_by, artifacts in sets.items():
            left = held_by & ~without
            enough += artifacts if self.meets(left, rule) else 0
            none += artifacts if not left else 0
        total = sum(sets.values())
        return CopyCounts(total, enough, total - enough, none)

    def loss(self, sets: Mapping[int, int], rule: CopyPolicy, gone: int) -> LossOutcome:
        """What the loss of the members in `gone` would change."""
        newly_short = lost = 0
        for held_by, artifacts in sets.items():
            left = held_by & ~gone
            newly_short += artifacts if self.meets(held_by, rule) and not self.meets(left, rule) else 0
            lost += artifacts if held_by and not left else 0
        return LossOutcome(self.count(sets, rule, gone), newly_short, lost)
