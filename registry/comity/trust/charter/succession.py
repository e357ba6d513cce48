"""What a body must keep of the one before it: nobody is re-keyed, relabelled, renamed or followed by a stranger.

Each rule is one function; `check_succession` asks them all. They bind whoever draws the body up, a quorum included.
Source: protocol, sections 5 (names) and 7.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from comity.trust.charter.body import Body, Member
from comity.trust.digest import Digest
from comity.trust.errors import Untrusted
from comity.trust.identity import Inception
from comity.trust.rotation import Chain, KeyState

_REFUSED: Final = "charter refused"


def check_succession(
    previous: Body, body: Body, chains: Mapping[Digest, Chain], inceptions: Mapping[Digest, Inception]
) -> None:
    """Return if `body` may follow `previous`. Raises Untrusted, with a code for each rule.

    Args:
        chains: where identities have rotated: from their seat in `previous`, or from their inception if they have none.
        inceptions: the proven records of those who have no seat in `previous`.

    Not asked: whether anybody decided it, which is what a certificate shows.
    """
    if not _epoch_follows(previous, body):
        why = f"it does not follow epoch {previous.epoch} of this federation"
        raise Untrusted(_REFUSED, why=why, code="CHARTER-EPOCH")
    before = {seat.id: seat for seat in previous.members}
    for seat in body.members:
        if (old := before.get(seat.id)) is None:
            check_new_seat(seat, inceptions.get(seat.id), chains.get(seat.id))
            if not _successor_of_a_removed_seat(seat, previous, body):
                why = f"{seat.name} succeeds no seat of its jurisdiction that leaves"
                raise Untrusted(_REFUSED, why=why, code="CHARTER-SUCCESSOR")
        else:
            _check_old_seat(old, seat, chains.get(seat.id))
    if lost := _names_lost(previous, body):
        why = f"namespace {', '.join(lost[:5])} dropped or given to another publisher"
        raise Untrusted(_REFUSED, why=why, code="CHARTER-NAMESPACE")


def check_new_seat(seat: Member, inception: Inception | None, chain: Chain | None = None) -> None:
    """Return if a seat is what its identity makes it: id, jurisdiction, and keys of the inception or rotated from it.

    Raises Untrusted.
    """
    if inception is None or inception.id != seat.id:
        raise Untrusted(_REFUSED, why=f"no valid inception of {seat.name}", code="CHARTER-INCEPTION")
    if inception.kind != "member" or inception.jurisdiction != seat.jurisdiction:
        why = f"the inception of {seat.name} claims no seat in {seat.jurisdiction}"
        raise Untrusted(_REFUSED, why=why, code="CHARTER-JURISDICTION")
    _check_keys(seat, chain or Chain(KeyState.of_inception(inception), ()))


def _check_old_seat(old: Member, seat: Member, chain: Chain | None) -> None:
    _check_keys(seat, chain or Chain(old.key_state, ()))
    if not _jurisdiction_stays(old, seat):
        why = f"{seat.name} would move to {seat.jurisdiction}"
        raise Untrusted(_REFUSED, why=why, code="CHARTER-JURISDICTION")
    if not _lineage_stays(old, seat):
        why = f"{seat.name} would count as another seat's successor"
        raise Untrusted(_REFUSED, why=why, code="CHARTER-SUCCESSOR")


def _check_keys(seat: Member, chain: Chain) -> None:
    if not _keys_are_its_own(seat, chain):
        why = f"{seat.name} gets keys to which its own rotations do not lead"
        raise Untrusted(_REFUSED, why=why, code="CHARTER-REKEYED")


def _epoch_follows(previous: Body, body: Body) -> bool:
    """7.1: exactly the next epoch, linked by hash, of the same federation."""
    expected = (previous.epoch + 1, previous.digest, previous.federation)
    return (body.epoch, body.prev, body.federation) == expected


def _keys_are_its_own(seat: Member, chain: Chain) -> bool:
    """7.1: under an existing id only keys that its own `rotated` statements lead to, on whatever branch: no charter
    settles a dispute, and a rotation that turns up later unmakes no certificate. Members do not *sign* a body that
    takes sides (`council`)."""
    return any((seat.keys, seat.recovery) == (state.keys, state.recovery) for state in chain.reached)


def _jurisdiction_stays(old: Member, seat: Member) -> bool:
    """7.1: under an existing id the same jurisdiction."""
    return old.jurisdiction == seat.jurisdiction


def _lineage_stays(old: Member, seat: Member) -> bool:
    """7.1: a seat goes on counting as the one that it succeeded."""
    return old.successor_of == seat.successor_of


def _successor_of_a_removed_seat(seat: Member, previous: Body, body: Body) -> bool:
    """7.1: a seat is succeeded when it is removed, in its own jurisdiction, and under the id at which its line begins,
    so that a member and all its successors count once even for whom has not seen those between."""
    if seat.successor_of is None:
        return True
    stay = {member.id for member in body.members}
    gone = [old for old in previous.members if old.id not in stay]
    return any((old.lineage, old.jurisdiction) == (seat.successor_of, seat.jurisdiction) for old in gone)


def _names_lost(previous: Body, body: Body) -> list[str]:
    """5: every name stands in the next body with the same publisher."""
    return [name for name, publisher in previous.namespaces.items() if body.namespaces.get(name) != publisher]
