"""Who must do what next, and by which command: the council's duties, for people."""

from __future__ import annotations

from dataclasses import dataclass

from comity.trust.charter.proposing import CONSENTED
from comity.trust.digest import Digest

from comity_client.governance.sitting import Sitting


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing that one member has to do: `action` is `intent`, `ratified` or `consented`."""

    member: Digest
    name: str
    jurisdiction: str
    action: str
    body: Digest
    round: int
    why: str
    command: str


def turns(sitting: Sitting) -> list[Turn]:
    """All that is missing for the leading draft, in the council's order."""
    found = []
    for duty in sitting.council.duties:
        draft = sitting.council.draft(duty.body)
        seat = sitting.current.member(duty.member) or (draft.body.member(duty.member) if draft else None)
        verb = "consent" if duty.action == CONSENTED else "approve"
        name, where = (seat.name, seat.jurisdiction) if seat else (duty.member[:16], "")
        command = f"comity proposal {verb} {duty.body[:12]}"
        found.append(Turn(duty.member, name, where, duty.action, duty.body, duty.round, duty.why, command))
    return found
