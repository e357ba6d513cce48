"""In which order the members of a large federation cosign a log for everybody (protocol, section 6).

Up to 16 members tell everybody their cosignatures of every log. With more, the first few of the order do, for each log
another few; the next ones replace those that fail. Every member computes the same order from the epochs. Nobody can
choose a place in it: it depends on the founding body and on the order in which the epochs admitted the members, not on
keys or names that a member makes for itself. Which cosignatures count is the verifier's policy, and not decided here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from comity.trust.charter.document import Body
from comity.trust.encoding import Digest, sha256

ALL_COSIGN: Final = 16
"""Active members up to which all cosign every log for everybody."""
LEAST: Final = 5
"""Members that are assigned to a log, at least."""
SPARE: Final = 2
"""Members assigned beyond the charter's quorum of cosigners: so many can fail unnoticed."""
_CONTEXT: Final = b"comity/cosigning-order/v1\n"


def assigned_count(body: Body) -> int | None:
    """How many members cosign each log for everybody; None if all do."""
    if len(body.active) <= ALL_COSIGN:
        return None
    return max(LEAST, body.policy.cosigner_quorum + SPARE)


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
    return sha256(_CONTEXT + f"{federation}\n{owner}\n{cosigner}\n".encode())
