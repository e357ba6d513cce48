"""What an honest member signs next, and what its key must never sign.

`guard` is the second lock of every desk: pure over the vote state that lies beside the key, it refuses whatever could
prove the member a liar. `next_reading` is the advice: INTENT a body, RATIFY it once a quorum intends it, and after a
stall or split go on to the next round. There is no leader and no clock; a person says which body, and when the silent
are not waited for. Source: protocol, sections 7.2, 7.4 and 7.5.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from comity.trust.charter.body import Body, called
from comity.trust.charter.proceedings import Council, DraftState
from comity.trust.charter.readings import Intent, Ratify, Reading, RoundBody, void
from comity.trust.digest import Digest, short
from comity.trust.errors import Conflict, Untrusted

_REFUSED: Final = "reading refused"


@dataclass(frozen=True, slots=True)
class VoteState:
    """What one key has signed about `prev`. `lost` where nobody can say: the key then sits out this `prev` (7.5)."""

    prev: Digest
    intents: tuple[Intent, ...] = ()
    ratified: tuple[Ratify, ...] = ()
    lost: bool = False

    @property
    def round(self) -> int:
        """The newest round in which it signed anything; 0 for none."""
        return max((reading.round for reading in self.readings), default=0)

    @property
    def readings(self) -> tuple[Reading, ...]:
        return (*self.intents, *self.ratified)

    @property
    def last_ratified(self) -> RoundBody | None:
        last = max(self.ratified, key=lambda reading: reading.round, default=None)
        return RoundBody(last.round, last.body) if last else None

    def adding(self, reading: Reading) -> VoteState:
        """This state after `reading` was signed. It judges nothing; ask `guard` first."""
        if reading in self.readings:
            return self
        if isinstance(reading, Intent):
            return replace(self, intents=(*self.intents, reading))
        return replace(self, ratified=(*self.ratified, reading))


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to sign now. `why` is a sentence for people: who must do what first."""

    why: str


def guard(state: VoteState, reading: Reading) -> None:
    """Return if the key of `state` may sign `reading`. What it signed already it may sign again.

    The reading may have been drawn up under another key of the same member, which knows more: it may own up to a RATIFY
    that this key did not sign, never hide one that it did. Raises Conflict (VOTE-PREV) where the state is about another
    body, Untrusted otherwise: VOTE-LOST, VOTE-VOID, VOTE-BACK, VOTE-TWICE, VOTE-LOCK.
    """
    if reading.prev != state.prev:
        raise Conflict(_REFUSED, why="this vote state is about another charter", code="VOTE-PREV")
    if state.lost:
        why = "this key lost its vote state: it sits out until the charter changes"
        raise Untrusted(_REFUSED, why=why, code="VOTE-LOST")
    if reading in state.readings:
        return
    if not _rounds_never_decrease(state, reading):
        why = f"it signed in round {state.round} already, and rounds never decrease"
        raise Untrusted(_REFUSED, why=why, code="VOTE-BACK")
    if isinstance(reading, Intent):
        _guard_intent(state, reading)
    elif not _one_ratify_a_round(state, reading):
        raise Untrusted(_REFUSED, why=f"it signed another RATIFY in round {reading.round}", code="VOTE-TWICE")


def _guard_intent(state: VoteState, intent: Intent) -> None:
    if (reason := void(intent)) is not None:
        raise Untrusted(_REFUSED, why=reason, code="VOTE-VOID")
    if not _one_intent_a_round(state, intent):
        raise Untrusted(_REFUSED, why=f"it signed another INTENT in round {intent.round}", code="VOTE-TWICE")
    if not _no_intent_after_ratify(state, intent):
        why = f"it has ratified in round {intent.round}, and INTENT comes first"
        raise Untrusted(_REFUSED, why=why, code="VOTE-BACK")
    if not _owns_up(state, intent):
        raise Untrusted(_REFUSED, why="it hides what this key ratified before", code="VOTE-LOCK")


def next_reading(
    state: VoteState, council: Council, me: Digest, body: Body, *, stalled: bool = False
) -> Reading | Wait:
    """What the honest member `me`, whose person wants `body`, signs next; or what it waits for.

    Args:
        state: of the key that will sign; `council` of everything that is known.
        body: what a person, having seen it, approves.
        stalled: a person says that the silent are not waited for; then 7.4 alone decides about the next round.

    Sign one reading and ask again with what is known then. Never raises.
    """
    draft = council.draft(body.digest)
    if draft is None:
        decided = body.digest == council.current.digest
        return Wait("it is the charter now" if decided else "nobody has put it forward to follow the current charter")
    if (reason := _may_not_vote(state, council, me, draft)) is not None:
        return Wait(reason)
    ratified = {reading.round for reading in state.ratified}
    ready = [at for at in draft.ready_rounds if at >= state.round and at not in ratified]
    if ready:
        at = max(ready, key=lambda at: (len(draft.ratified.get(at, ())), at))
        return Ratify(me, state.prev, council.current.epoch + 1, at, body.digest)
    if state.round and (reason := _stays(state, council, me, draft, stalled)) is not None:
        return Wait(reason)
    return _intent(state, council, me, draft)


def _intent(state: VoteState, council: Council, me: Digest, draft: DraftState) -> Intent | Wait:
    """An INTENT of the next round that owns up to the last RATIFY, with the earliest certificate that unlocks it."""
    body, last, at = draft.body.digest, state.last_ratified, state.round + 1
    intent = Intent(me, state.prev, council.current.epoch + 1, at, body, last)
    if last is None:
        return intent
    unlocked = (replace(intent, unlock=certified) for certified in draft.certified_rounds)
    held = next((intent for intent in unlocked if void(intent) is None), None)
    return held or Wait(
        f"this member ratified {short(last.body)} in round {last.round}: it stays with it until a quorum intends "
        f"{short(body)} in a later round"
    )


def _may_not_vote(state: VoteState, council: Council, me: Digest, draft: DraftState) -> str | None:
    if state.lost:
        return "this key lost its vote state: it sits out until the charter changes"
    if state.prev != council.current.digest:
        return f"the charter is at epoch {council.current.epoch} now, and this key's state is about another one"
    if council.stopped:
        return "two certificates stand for one epoch: nothing is signed until a person pins one"
    if all(seat.id != me for seat in council.current.active):
        return f"this member has no vote in epoch {council.current.epoch}"
    return draft.objection


def _stays(state: VoteState, council: Council, me: Digest, draft: DraftState, stalled: bool) -> str | None:
    """7.4: why the member stays in its round; None where it may go on to the next.

    Enough members were heard, and one of these: a person waits no longer, or approves another body than before; or the
    round can come to nothing whoever else is heard; or a quorum was heard, it came to nothing, and somebody went on.
    After a split those go on who are behind the leading draft; the others have lost, and a person approves that one or
    writes a new one. So a round is split twice only if people want it so.
    """
    at, current = state.round, council.current
    heard = council.heard.get(at, frozenset()) | {me}
    if not _enough_heard(current, heard):
        return f"round {at} goes on: wait for {_silent(council, heard)}"
    if stalled or draft.body.digest not in _signed_in(state, at):
        return None
    left_behind = len(heard) >= current.quorum and any(council.reached.get(member, 0) > at for member in heard)
    if not left_behind and _may_come_to_something(council, at):
        return _waits_for(council, draft, at, heard)
    leading = council.leading(at)
    if leading is not None and leading.body.digest != draft.body.digest:
        return (
            f"round {at} was split, and {short(leading.body.digest)} leads: approve that one, or put a new one forward"
        )
    return None


def _waits_for(council: Council, draft: DraftState, at: int, heard: Collection[Digest]) -> str:
    if at in draft.certified_rounds and draft.missing:
        return f"wait for the consent of {called(draft.missing)}"
    if at in draft.ready_rounds:
        return f"ratified in round {at}: wait for {_silent(council, draft.ratified.get(at, ()))}"
    return f"round {at} goes on: wait for {_silent(council, heard)}, or say that they are not waited for"


def _may_come_to_something(council: Council, at: int) -> bool:
    """Whether round `at` can still decide a body, if all who did not go on do what they may."""
    current = council.current
    here = {seat.id for seat in current.active if council.reached.get(seat.id, 0) <= at}
    spoken = {member for draft in council.drafts for member in draft.intents.get(at, ())}
    ratified = {member for draft in council.drafts for member in draft.ratified.get(at, ())}
    open_to_intend, open_to_ratify = here - spoken - ratified, here - ratified
    quorum = current.quorum
    if len(open_to_intend) >= quorum:
        return True
    return any(
        len(draft.intents.get(at, frozenset()) | open_to_intend) >= quorum
        and len(draft.ratified.get(at, frozenset()) | open_to_ratify) >= quorum
        for draft in council.drafts
        if draft.objection is None
    )


def _signed_in(state: VoteState, at: int) -> set[Digest]:
    return {reading.body for reading in state.readings if reading.round == at}


def _silent(council: Council, heard: Collection[Digest]) -> str:
    return called(seat for seat in council.current.active if seat.id not in heard) or "the others"


def _enough_heard(current: Body, heard: Collection[Digest]) -> bool:
    """7.4: round-r readings of n - q + 1 members, its own included."""
    return len(heard) >= current.blocking


def _rounds_never_decrease(state: VoteState, reading: Reading) -> bool:
    """7.2: rounds of INTENT and RATIFY together never decrease."""
    return reading.round >= state.round


def _one_intent_a_round(state: VoteState, reading: Intent) -> bool:
    """7.2: one INTENT a round."""
    return all(before.round != reading.round for before in state.intents)


def _one_ratify_a_round(state: VoteState, reading: Ratify) -> bool:
    """7.2: one RATIFY a round."""
    return all(before.round != reading.round for before in state.ratified)


def _no_intent_after_ratify(state: VoteState, reading: Intent) -> bool:
    """7.2: INTENT comes before RATIFY within a round, so that `last_ratified`, which is of an earlier one, is all."""
    return all(before.round != reading.round for before in state.ratified)


def _owns_up(state: VoteState, reading: Intent) -> bool:
    """7.2: `last_ratified` is this member's last RATIFY."""
    mine, said = state.last_ratified, reading.last_ratified
    if mine is None:
        return True
    return said is not None and (said == mine or said.round > mine.round)
