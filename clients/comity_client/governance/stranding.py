"""Why a draft would leave a federation without its quorum: a charter that nobody could ever change again.

A member counts as active if its keys were *seen*: they signed something about this epoch or the one before that is at
hand. No clock decides, and silence alone never makes a member fewer: who is not seen counts among the n as before.
Source: protocol, section 7.6.
"""

from __future__ import annotations

from collections.abc import Iterable

from comity.trust.charter import Body, Member
from comity.trust.charter.proposing import CONSENTED, DRAFT, LEFT
from comity.trust.charter.readings import INTENT, RATIFIED
from comity.trust.digest import Digest
from comity.trust.statement import Entry

from comity_client.governance.sitting import Sitting

_BY_GOVERNANCE_KEYS = frozenset({DRAFT, CONSENTED, LEFT, INTENT, RATIFIED})


def stranded(sitting: Sitting, body: Body, me: Digest) -> str:
    """Why `body` could not be changed any more by the members that are seen active; empty where it could.

    Args:
        me: the member that asks, which is active since it is about to sign.
    """
    unseen = [seat for seat in body.active if seat.id != me and not _seen(sitting, seat)]
    able = len(body.active) - len(unseen)
    if able >= body.quorum:
        return ""
    names = ", ".join(seat.name for seat in unseen)
    return f"it would need {body.quorum} of {len(body.active)} members to change, and no key was seen of {names}"


def _seen(sitting: Sitting, seat: Member) -> bool:
    """Newcomers are seen: the body is not certified without their consent."""
    if sitting.current.member(seat.id) is None or any(seat.id in heard for heard in sitting.council.heard.values()):
        return True
    chain = sitting.chain(seat.id)
    return any(chain.signed(entry.envelope) for entry in _recent(sitting, seat.id))


def _recent(sitting: Sitting, member: Digest) -> Iterable[Entry]:
    """What a member said about this epoch or the one before, and its rotations, which its new keys sign."""
    epochs = (sitting.current.digest, sitting.current.prev)
    for entry in sitting.entries:
        statement = entry.statement
        if statement.by is None or statement.by.id != member:
            continue
        if statement.predicate == "rotated" or (
            statement.predicate in _BY_GOVERNANCE_KEYS and statement.body.get("prev") in epochs
        ):
            yield entry
