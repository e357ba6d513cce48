"""A vote state that was lost, and the owner's decision to vote all the same.

The key sits out the current epoch by itself, and nothing is to be done: an absent member, which the quorum tolerates.
An owner who cannot wait first imports what *every other active member* mirrored of its home log. What none of them has,
nobody can know: a reading that left this desk, and reached only somebody who hid it until now, would make the member a
provable liar. Source: protocol, section 7.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from comity.trust.charter.readings import Reading
from comity.trust.digest import Digest
from comity.trust.errors import Refused

from comity_client.desk.keys import DeskKey
from comity_client.desk.signing import readings_of
from comity_client.governance.sitting import Material, Sitting, convene

RISK = (
    "If this key signed a reading that none of these copies shows, and somebody kept it, your next reading proves your "
    "member a liar, for ever and to everybody."
)


@dataclass(frozen=True, slots=True)
class Resumption:
    """What the owner would decide: to vote again on the epoch after `prev`, knowing only of the readings in `found`.

    `risk` is to be shown, and agreed to, before `resume`.
    """

    key: DeskKey
    prev: Digest
    found: tuple[Reading, ...]
    copies: tuple[str, ...]
    risk: str = RISK


def weigh(sitting: Sitting, key: DeskKey, copies: Mapping[Digest, Material]) -> Resumption:
    """Lay out the decision.

    Args:
        copies: for each other active member, what it mirrored of this member's home log, readings at least.

    Raises Refused (VOTES-COPIES) naming those whose copy is missing, and as `Sitting.seat_of` does.
    """
    seat, _ = sitting.seat_of(key.public)
    others = [other for other in sitting.current.active if other.id != seat.id]
    missing = [other.name for other in others if other.id not in copies]
    if missing:
        why = f"no copy of this member's home log as mirrored by {', '.join(missing)}"
        hint = "get it from them, or let this key sit out the epoch"
        raise Refused("too little is known of what this key signed", why=why, hint=hint, code="VOTES-COPIES")
    prev, found = sitting.current.digest, dict[Reading, None]()
    for material in (sitting.material, *copies.values()):
        entries = convene(sitting.start, material).entries
        found |= dict.fromkeys(reading for reading in readings_of(key.public, entries) if reading.prev == prev)
    return Resumption(key, prev, tuple(found), tuple(other.name for other in others))


def resume(decided: Resumption) -> None:
    """The owner has read the risk, and decided. Raises OutOfSpace, Unavailable, and as the vote file does."""
    why = f"the owner's decision, after importing the home log as mirrored by {', '.join(decided.copies)}"
    decided.key.votes.resume(decided.prev, decided.found, why[:1000])
