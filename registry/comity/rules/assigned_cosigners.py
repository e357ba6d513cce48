"""Which members cosign which log, in which order, where a charter does not ask all of them for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from comity.trust.charter.document import Body
from comity.trust.encoding import Digest, sha256

ALL_COSIGN: Final = 16
"""Active members up to which all cosign every log for everybody."""
MIN_ASSIGNED: Final = 5
"""Members that are assigned to a log, at least."""
SPARE_ASSIGNED: Final = 2
"""Members assigned beyond the charter's quorum of cosigners: so many can fail unnoticed."""
_ORDER_CONTEXT: Final = b"comity/cosigning-order/v1\n"


def assigned_count(body: Body) -> int | None:
    """How many members cosign each log for everybody; None if all do."""
    if len(body.active) <= ALL_COSIGN:
        return None
    return max(MIN_ASSIGNED, body.policy.cosigner_quorum + SPARE_ASSIGNED)


def cosigning_order(body: Body, admitted: Sequence[Digest], owner: Digest) -> tuple[Digest, ...]:
    """The active members in the order in which they cosign the logs of the member `owner`.

    Members of other jurisdictions come before those of the owner's, and one of each jurisdiction before the second one
    of any. The owner is not in the order.

    Args:
        body: the followed epoch.
        admitted: every member that an epoch ever listed, in the order of their first epochs, and within one epoch in
            the order of its body. `owner` and the members of `body` are among them.
    """
    place = {member: index for index, member in enumerate(admitted)}
    home = next((seat.jurisdiction for seat in body.members if seat.id == owner), "")
    drawn = sorted(
        (seat for seat in body.active if seat.id != owner),
        key=lambda seat: _draw(body.federation, place[owner], place[seat.id]),
    )
    seen = Counter[str]()
    ranked = list[tuple[bool, int, Digest]]()
    for seat in drawn:
        ranked.append((seat.jurisdiction == home, seen[seat.jurisdiction], seat.id))
        seen[seat.jurisdiction] += 1
    return tuple(member for _, _, member in sorted(ranked, key=lambda item: item[:2]))


def _draw(federation: Digest, owner: int, cosigner: int) -> Digest:
    return sha256(_ORDER_CONTEXT + f"{federation}\n{owner}\n{cosigner}\n".encode())
