"""Which vote about a charter a key may sign.

A key knows which votes about `prev` it signed (`VoteState`). `check_vote` refuses every vote that could prove the
equivocation of its member. Source: protocol, sections 7.2 and 7.5.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from comity.trust.charter.votes import Intent, Ratify, RoundBody, Vote, void_reason
from comity.trust.encoding import Digest
from comity.trust.errors import Conflict, Untrusted
from comity.trust.frozen import frozen

_REFUSED: Final = "vote refused"


@frozen
class VoteState:
    """The votes of one key about `prev`. `lost`: the record is incomplete, so the key does not vote on `prev` (7.5)."""

    prev: Digest
    intents: tuple[Intent, ...] = ()
    ratified: tuple[Ratify, ...] = ()
    lost: bool = False

    @property
    def round(self) -> int:
        """The newest round of a vote; 0 for none."""
        return max((vote.round for vote in self.votes), default=0)

    @property
    def votes(self) -> tuple[Vote, ...]:
        return (*self.intents, *self.ratified)

    @property
    def last_ratified(self) -> RoundBody | None:
        last = max(self.ratified, key=lambda vote: vote.round, default=None)
        return RoundBody(last.round, last.body) if last else None

    def adding(self, vote: Vote) -> VoteState:
        """This state with `vote` added. Not checked: call `check_vote` first."""
        if vote in self.votes:
            return self
        if isinstance(vote, Intent):
            return replace(self, intents=(*self.intents, vote))
        return replace(self, ratified=(*self.ratified, vote))


def check_vote(state: VoteState, vote: Vote) -> None:
    """Return if the key of `state` may sign `vote`. It may sign again what it signed before.

    Another key of the same member may have prepared the vote: it may declare a RATIFY that this key did not sign, but
    must not omit one that this key signed. Raises Conflict (VOTE-PREV) if the state is about another body, and
    Untrusted (VOTE-LOST, VOTE-VOID, VOTE-BACK, VOTE-TWICE, VOTE-LOCK).
    """
    if vote.prev != state.prev:
        raise Conflict(_REFUSED, why="this vote state is about another charter", code="VOTE-PREV")
    if state.lost:
        why = "this key lost its vote state: it must not vote until the charter changes"
        raise Untrusted(_REFUSED, why=why, code="VOTE-LOST")
    if vote in state.votes:
        return
    if not _rounds_never_decrease(state, vote):
        why = f"it already signed in round {state.round}, and rounds never decrease"
        raise Untrusted(_REFUSED, why=why, code="VOTE-BACK")
    if isinstance(vote, Intent):
        _check_intent(state, vote)
    elif not _one_ratify_a_round(state, vote):
        raise Untrusted(_REFUSED, why=f"it signed another RATIFY in round {vote.round}", code="VOTE-TWICE")


def _check_intent(state: VoteState, intent: Intent) -> None:
    if (reason := void_reason(intent)) is not None:
        raise Untrusted(_REFUSED, why=reason, code="VOTE-VOID")
    if not _one_intent_a_round(state, intent):
        raise Untrusted(_REFUSED, why=f"it signed another INTENT in round {intent.round}", code="VOTE-TWICE")
    if not _no_intent_after_ratify(state, intent):
        why = f"it already ratified in round {intent.round}, and INTENT comes before RATIFY"
        raise Untrusted(_REFUSED, why=why, code="VOTE-BACK")
    if not _declares_last_ratify(state, intent):
        raise Untrusted(_REFUSED, why="it does not declare the last RATIFY of this key", code="VOTE-LOCK")


def _rounds_never_decrease(state: VoteState, vote: Vote) -> bool:
    """7.2: rounds of INTENT and RATIFY together never decrease."""
    return vote.round >= state.round


def _one_intent_a_round(state: VoteState, vote: Intent) -> bool:
    """7.2: one INTENT for each round."""
    return all(before.round != vote.round for before in state.intents)


def _one_ratify_a_round(state: VoteState, vote: Ratify) -> bool:
    """7.2: one RATIFY for each round."""
    return all(before.round != vote.round for before in state.ratified)


def _no_intent_after_ratify(state: VoteState, vote: Intent) -> bool:
    """7.2: within a round, INTENT comes before RATIFY; so `last_ratified` is always of an earlier round."""
    return all(before.round != vote.round for before in state.ratified)


def _declares_last_ratify(state: VoteState, vote: Intent) -> bool:
    """7.2: `last_ratified` is this member's last RATIFY."""
    own, declared = state.last_ratified, vote.last_ratified
    if own is None:
        return True
    return declared is not None and (declared == own or declared.round > own.round)
