"""Who must do what next, in words that a command line can print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from comity.trust.charter.proceedings import Council, DraftState, Duty
from comity.trust.charter.proposing import CONSENTED
from comity.trust.charter.readings import INTENT, RATIFIED, Intent, Ratify, Reading
from comity.trust.charter.voting import VoteState, Wait, next_reading
from comity.trust.digest import Digest
from comity.trust.statement import Entry


def duties(council: Council, heard: Mapping[Reading, Entry]) -> Iterator[Duty]:
    """What is missing for the leading draft, seat by seat: consents, then the readings that an honest member would sign
    next if it wanted that draft. A member may want another one, or none."""
    if council.stopped:
        return
    states = _states(council, heard)
    for draft in council.drafts:
        if draft.objection is None:
            for seat in draft.missing:
                why = f"{seat.name} has to agree to its seat, with every key that is listed there"
                yield Duty(seat.id, CONSENTED, draft.body.digest, council.round, why)
    for seat in council.current.active:
        state = states.get(seat.id) or VoteState(council.current.digest)
        draft_ = council.leading(state.round or council.round)
        reading = next_reading(state, council, seat.id, draft_.body) if draft_ else None
        if draft_ is not None and reading is not None and not isinstance(reading, Wait):
            action = INTENT if isinstance(reading, Intent) else RATIFIED
            why = _why(council, draft_, reading, seat.name)
            yield Duty(seat.id, action, draft_.body.digest, reading.round, why)


def _states(council: Council, heard: Mapping[Reading, Entry]) -> dict[Digest, VoteState]:
    """The vote state of every member as far as the world knows it."""
    intents: dict[Digest, list[Intent]] = {}
    ratified: dict[Digest, list[Ratify]] = {}
    for reading in heard:
        if isinstance(reading, Intent):
            intents.setdefault(reading.member, []).append(reading)
        else:
            ratified.setdefault(reading.member, []).append(reading)
    prev = council.current.digest
    return {
        member: VoteState(prev, tuple(intents.get(member, ())), tuple(ratified.get(member, ())))
        for member in {*intents, *ratified}
    }


def _why(council: Council, draft: DraftState, reading: Reading, name: str) -> str:
    at, quorum = reading.round, council.current.quorum
    if isinstance(reading, Ratify):
        had = len(draft.ratified.get(at, ()))
        return f"a quorum intends it in round {at}, and {had} of {quorum} have ratified: {name} has not"
    had = len(draft.intents.get(at, ()))
    others = sum(other.objection is None for other in council.drafts) - 1
    beside = f"; {others} other draft{'s are' if others > 1 else ' is'} open" if others else ""
    return f"{had} of {quorum} intend it in round {at}: {name} has not said{beside}"
