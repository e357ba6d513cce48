"""Epoch 0: unanimous. Every member agrees to exactly this body, and is who it says. A refounding is a genesis too.

Source: protocol, section 7.3.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from comity.trust.charter.body import Body, called
from comity.trust.charter.pile import Pile
from comity.trust.charter.proposing import CONSENTED
from comity.trust.charter.succession import check_new_seat
from comity.trust.digest import Digest
from comity.trust.errors import ComityError, Untrusted
from comity.trust.identity import Inception, check_inception
from comity.trust.rotation import Chain, KeyState, follow


def certify_genesis(body: Body, lines: Iterable[bytes]) -> Body:
    """Return `body` if it is a genesis to which every member consented, and in which each seat is what its member's own
    inception, and its rotations where it had any, make of it. Raises Untrusted naming who is missing.
    """
    if body.epoch != 0:
        raise Untrusted("charter refused", why=f"epoch {body.epoch} is not a genesis", code="CHARTER")
    pile = Pile.read(lines)
    agreed = _consenting(body, pile)
    missing = [seat for seat in body.members if seat.id not in agreed]
    if missing:
        why = f"a genesis is unanimous; no valid consent of {called(missing)}"
        raise Untrusted("charter refused", why=why, code="CHARTER-CONSENT")
    for seat in body.members:
        inception = _inception(seat.id, pile)
        check_new_seat(seat, inception, _chain(inception, pile) if inception else None)
    return body


def consenting(body: Body, lines: Iterable[bytes]) -> frozenset[Digest]:
    """Members of `body`, a genesis, whose consent to exactly this body stands among `lines`; whatever does not verify
    counts for nothing."""
    return _consenting(body, Pile.read(lines))


def _consenting(body: Body, pile: Pile) -> frozenset[Digest]:
    seats, about = {seat.id: seat for seat in body.members}, (CONSENTED, body.federation, body.digest)
    return frozenset(
        named.by
        for named, entry in pile.named.get(body.prev, ())
        if (named.predicate, named.federation, named.body) == about
        and named.by in seats
        and seats[named.by].keys.signed(entry.envelope)
    )


def _inception(identity: Digest, pile: Pile) -> Inception | None:
    for entry in pile.inceptions.get(identity, ()):
        with contextlib.suppress(ComityError):
            return check_inception(entry)
    return None


def _chain(inception: Inception, pile: Pile) -> Chain:
    return follow(KeyState.of_inception(inception), pile.rotated.get(inception.id, ()))
