"""A member's part: the plans that it may want to sign, and the signature.

    propose      put a body forward
    read         the next reading that this member owes a body: INTENT, and RATIFY when a quorum meant it to
    agree        a newcomer's consent to its seat
    leave        ask to be left out of the next body

Each gives a plan to show; `sign` puts one key to it. With m of k keys the ceremony in the plan goes on to the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from comity.trust.charter import Body, consent_statement, draft_statement, left_statement
from comity.trust.charter.proceedings import DraftState
from comity.trust.charter.readings import Ratify, Reading
from comity.trust.charter.voting import Wait, next_reading
from comity.trust.digest import Digest
from comity.trust.errors import Conflict, Refused, Untrusted
from comity.trust.identity import KeySet
from comity.trust.keys import VerifyingKey
from comity.trust.statement import Entry, Statement

from comity_client.desk import signing
from comity_client.desk.ceremony import Ceremony, Panel
from comity_client.desk.keys import DeskKey
from comity_client.desk.signing import readings_of
from comity_client.desk.votes import reading_of
from comity_client.governance.plans import Plan, plan
from comity_client.governance.sitting import Sitting
from comity_client.governance.stranding import stranded

GOVERNANCE = "governance"


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is nothing for this key to sign now: `why`, a sentence for people."""

    why: str


def propose(sitting: Sitting, key: VerifyingKey, body: Body, text: str, *, despite_quorum: bool = False) -> Plan:
    """Put `body` forward as the member whose key this is.

    Args:
        text: why; everybody reads it.
        despite_quorum: the owner knows that the body may leave the federation without a quorum.

    Raises Refused (NO-SEAT, RETIRED-KEY, STRANDED), Conflict (FORK).
    """
    seat, state = sitting.seat_of(key)
    _check_open(sitting)
    _check_quorum(sitting, body, seat.id, despite_quorum)
    return _plan(sitting, draft_statement(body, seat.id, text), state.keys, body)


def read(
    sitting: Sitting, key: DeskKey, body: Body, *, stalled: bool = False, despite_quorum: bool = False
) -> Plan | Nothing:
    """The next reading that the member whose key this is owes `body`; or why there is none.

    A reading for `body` that this key signed before, and of which the lines at hand know nothing, comes first: it may
    have been lost on the way.

    Args:
        stalled: a person decided not to wait for those who are silent in this round (7.4).
        despite_quorum: as in `propose`.

    Raises Refused (NO-SEAT, RETIRED-KEY, STRANDED), Conflict (FORK), Untrusted (DRAFT-REFUSED) for a draft that no
    honest member signs, and as the vote file does.
    """
    seat, state = sitting.seat_of(key.public)
    _check_open(sitting)
    _check_lawful(sitting.council.draft(body.digest))
    prev, said = sitting.current.digest, sitting.said(seat.id)
    votes = key.votes.look(prev, readings_of(key.public, sitting.entries))
    if mark := votes.lost(prev):
        return Nothing(f"this key's vote state is lost, so it sits out this epoch: {mark.why}")
    reading = _undelivered(votes.state(prev).readings, said, body.digest) or next_reading(
        votes.state(prev, said), sitting.council, seat.id, body, stalled=stalled
    )
    if isinstance(reading, Wait):
        return Nothing(reading.why)
    _check_quorum(sitting, body, seat.id, despite_quorum)
    return _plan(sitting, reading.statement(), state.keys, body)


def agree(sitting: Sitting, body: Body, member: Digest) -> Plan:
    """The consent of `member` to its seat in `body`: by all its keys where the seat is new, else by its threshold.

    Raises Refused (NO-SEAT).
    """
    seat = body.member(member)
    if seat is None:
        raise Refused("nothing to consent to", why=f"{member[:16]} has no seat in this charter", code="NO-SEAT")
    new = sitting.current.member(member) is None
    keys = KeySet(seat.keys.keys, len(seat.keys.keys)) if new else sitting.chain(member).current.keys
    return _plan(sitting, consent_statement(body, member), keys, body)


def leave(sitting: Sitting, key: VerifyingKey, text: str = "") -> Plan:
    """Ask to be left out of the next charter. Until one says so, the member stays one (7.3).

    Raises Refused (NO-SEAT, RETIRED-KEY).
    """
    seat, state = sitting.seat_of(key)
    return _plan(sitting, left_statement(sitting.current, seat.id, text), state.keys, sitting.current)


def sign(shown: Plan, key: DeskKey) -> Plan:
    """The same plan with the signature of `key`; its owner has seen it.

    Raises Refused (NOT-A-SIGNER) for a reading of another member, whatever panel a carried file puts this key on,
    Untrusted (DRAFT-REFUSED, NO-CERTIFICATE) for one that no honest member signs, whoever drew it up, and as
    `desk.signing.sign` does.
    """
    sitting, said = shown.sitting, list[Reading]()
    if shown.ceremony.statement.predicate in signing.READINGS:
        reading = reading_of(shown.ceremony.payload)
        if sitting.seat_of(key.public)[0].id != reading.member:
            why = "it is a reading of another member"
            raise Refused("this key has nothing to sign here", why=why, code="NOT-A-SIGNER")
        _check_reading(sitting, reading)
        said = sitting.said(reading.member)
    return dataclasses.replace(shown, ceremony=signing.sign(shown.ceremony, key, sitting.entries, said))


def sign_all(shown: Plan, keys: Iterable[DeskKey]) -> Plan:
    """`sign` by those of `keys` that the statement is for, until it is complete."""
    for key in keys:
        if not shown.ceremony.complete and shown.ceremony.awaits(key.public):
            shown = sign(shown, key)
    return shown


def _plan(sitting: Sitting, statement: Statement, keys: KeySet, body: Body) -> Plan:
    objects = dict.fromkeys((body.data, sitting.current.data))
    lines = (
        tuple(entry.line for entry in sitting.entries if _bears_on(entry, sitting.current)) if _several(keys) else ()
    )
    ceremony = Ceremony(statement.encode(), (Panel(GOVERNANCE, keys),), (), tuple(objects), lines)
    return plan(ceremony, sitting)


def _several(keys: KeySet) -> bool:
    return keys.threshold > 1


def _bears_on(entry: Entry, current: Body) -> bool:
    """Whether another signer, elsewhere, needs this line to see what it signs."""
    statement = entry.statement
    return statement.predicate in ("inception", "rotated") or statement.body.get("prev") == current.digest


def _undelivered(mine: Iterable[Reading], said: Iterable[Reading], body: Digest) -> Reading | None:
    """The newest reading of this key, if it is for `body` and its member was not heard to say as much or more."""
    newest = max(mine, key=_order, default=None)
    if newest is None or newest.body != body or any(_order(reading) >= _order(newest) for reading in said):
        return None
    return newest


def _order(reading: Reading) -> tuple[int, bool]:
    return reading.round, isinstance(reading, Ratify)


def _check_reading(sitting: Sitting, reading: Reading) -> None:
    """7.2: a RATIFY, and an INTENT that names a certificate, need it at hand."""
    draft = sitting.council.draft(reading.body)
    _check_lawful(draft)
    named = reading.round if isinstance(reading, Ratify) else reading.unlock
    if named is not None and (draft is None or named not in draft.certified_rounds):
        why = f"no intent-certificate of round {named} for it is among the lines at hand"
        raise Untrusted("this reading would count for nothing", why=why, code="NO-CERTIFICATE")


def _check_lawful(draft: DraftState | None) -> None:
    if draft is not None and draft.objection:
        raise Untrusted("this draft may not become the charter", why=draft.objection, code="DRAFT-REFUSED")


def _check_open(sitting: Sitting) -> None:
    if sitting.council.stopped:
        why = "two charters of one epoch are certified, and governance stands still until a person pins one of them"
        raise Conflict("this federation is split", why=why, hint="comity trust diff FILE", code="FORK")


def _check_quorum(sitting: Sitting, body: Body, me: Digest, despite_quorum: bool) -> None:
    if not despite_quorum and (why := stranded(sitting, body, me)):
        hint = "have them sign something first, a reading say; or --despite-quorum if you know better"
        raise Refused("nobody could change this charter any more", why=why, hint=hint, code="STRANDED")
