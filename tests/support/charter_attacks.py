"""Attacks on the charter, one for each clause that prevents it; each says whether it succeeds.

Of four members Dan lies. Ann, Ben and Clo sign what they are asked to sign, as far as the vote file on their machine
allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from typing import Any

from comity.rules.charter_drafts import draft
from comity.rules.equivocation import find_equivocations
from comity.rules.tally import NothingToVote, next_vote
from comity.rules.vote_state import VoteState, check_vote
from comity.trust.charter.certificate import certify
from comity.trust.charter.document import Body, quorum
from comity.trust.charter.votes import Intent, RoundBody, Vote, void_reason
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError
from comity.trust.identity import KeySet
from comity.trust.statement import Entry, sign_statement
from support import second_checker
from support.charter_voters import VotingMembers
from support.charters import CheapSigner, Seated, cheaply_signed, drafts, founded, intent, ratify, seated, votes

ANN, BEN, CLO, DAN = PEOPLE = [seated(f"Institute {name}") for name in ("Ann", "Ben", "Clo", "Dan")]
EVE = seated("Institute Eve", in_="SG")
FIRST = draft(founded(PEOPLE), namespaces={"swiss-ai": sha256(b"a publisher")})
A, B = drafts(FIRST)


def intends(
    who: Seated, round_: int, body: Body, locked: tuple[int, Body] | None = None, unlock: int | None = None
) -> Intent:
    last = RoundBody(locked[0], locked[1].digest) if locked else None
    return intent(FIRST, who.id, round_, body, last_ratified=last, unlock=unlock)


def ratifies(who: Seated, round_: int, body: Body) -> Vote:
    return ratify(FIRST, who.id, round_, body)


def all_of(kind: Callable[[Seated, int, Body], Vote], round_: int, body: Body, *people: Seated) -> list[Vote]:
    return [kind(who, round_, body) for who in people]


def signed(said: Iterable[Vote]) -> list[Entry]:
    by = {who.id: who for who in PEOPLE}
    return [by[reading.member].says(reading) for reading in said]


def allowed(said: Iterable[Vote]) -> bool:
    """Whether the vote files of all but Dan allow all these signatures, in this order."""
    states = {who.id: VoteState(FIRST.digest) for who in (ANN, BEN, CLO)}
    for reading in said:
        if reading.member in states:
            try:
                check_vote(states[reading.member], reading)
            except ComityError:
                return False
            states[reading.member] = states[reading.member].adding(reading)
    return True


def certified(body: Body, entries: Iterable[Entry], previous: Body = FIRST) -> bool:
    try:
        certify(previous, body, [entry.line for entry in entries], signed=cheaply_signed)
    except ComityError:
        return False
    return True


def forks(*said: list[Vote]) -> bool:
    """Whether two bodies are certified though only Dan lies."""
    everything = list(chain(*said))
    entries = signed(everything)
    return allowed(everything) and certified(A, entries) and certified(B, entries)


def accused(*said: list[Vote]) -> bool:
    """Whether the members, who signed only what their vote files allow, are accused."""
    everything = list(chain(*said))
    votes_read = dict(zip(everything, signed(everything), strict=True))
    return allowed(everything) and bool(find_equivocations(votes_read))


def unproven(*said: list[Vote]) -> bool:
    """Whether there are two certificates, and Comity names too few of the members that equivocated for them."""
    everything = list(chain(*said))
    entries = signed(everything)
    assert certified(A, entries) and certified(B, entries)
    votes_read = dict(zip(everything, entries, strict=True))
    return len({lie.member for lie in find_equivocations(votes_read)}) < second_checker.fewest(FIRST.data)


def steps_back() -> bool:
    return forks(
        all_of(intends, 1, A, ANN, BEN, DAN),
        all_of(ratifies, 1, A, ANN, DAN),
        all_of(intends, 2, B, BEN, CLO, DAN),
        all_of(ratifies, 2, B, BEN, CLO, DAN),
        all_of(ratifies, 1, A, BEN),
    )


def hides_its_lock() -> bool:
    return forks(
        all_of(intends, 1, A, ANN, BEN, DAN),
        all_of(ratifies, 1, A, ANN, BEN, DAN),
        all_of(intends, 2, B, BEN, CLO, DAN),
        all_of(ratifies, 2, B, BEN, CLO, DAN),
    )


def breaks_its_lock() -> bool:
    return forks(
        all_of(intends, 1, A, ANN, BEN, DAN),
        all_of(ratifies, 1, A, ANN, BEN, DAN),
        [intends(BEN, 2, B, locked=(1, A)), *all_of(intends, 2, B, CLO, DAN)],
        all_of(ratifies, 2, B, BEN, CLO, DAN),
    )


def unlocks_with_the_past() -> bool:
    return forks(
        all_of(intends, 1, B, BEN, CLO, DAN),
        all_of(intends, 2, A, ANN, BEN, DAN),
        all_of(ratifies, 2, A, ANN, BEN, DAN),
        [intends(BEN, 3, B, locked=(2, A), unlock=1), *all_of(intends, 3, B, CLO, DAN)],
        all_of(ratifies, 3, B, BEN, CLO, DAN),
    )


def unlocks_with_anothers_certificate() -> bool:
    return forks(
        all_of(intends, 1, A, ANN, BEN, DAN),
        all_of(ratifies, 1, A, ANN, BEN, DAN),
        [intends(who, 2, A, locked=(1, A), unlock=1) for who in (ANN, BEN)],
        all_of(intends, 2, A, DAN),
        [intends(BEN, 3, B, locked=(1, A), unlock=2), *all_of(intends, 3, B, CLO, DAN)],
        all_of(ratifies, 3, B, BEN, CLO, DAN),
    )


def unlocks_with_its_own_round() -> bool:
    return void_reason(intends(BEN, 2, B, locked=(1, A), unlock=2)) is None


def unlocks_with_the_round_of_its_lock() -> bool:
    return void_reason(intends(BEN, 2, B, locked=(1, A), unlock=1)) is None


def counts_too_few_intents() -> bool:
    return forks(
        all_of(intends, 1, A, ANN, DAN),
        all_of(ratifies, 1, A, ANN, BEN, DAN),
        all_of(intends, 2, B, CLO, DAN),
        all_of(ratifies, 2, B, BEN, CLO, DAN),
    )


def ratifies_without_a_certificate() -> bool:
    return forks(
        all_of(ratifies, 1, A, ANN, BEN, DAN),
        all_of(ratifies, 2, B, BEN, CLO, DAN),
    )


def adds_up_rounds() -> bool:
    return forks(
        all_of(intends, 1, A, ANN, BEN, DAN),
        all_of(ratifies, 1, A, ANN),
        all_of(intends, 2, B, BEN, CLO, DAN),
        all_of(intends, 3, A, BEN, DAN),
        [intends(ANN, 3, A, locked=(1, A), unlock=1)],
        all_of(ratifies, 3, A, BEN, DAN),
        [intends(ANN, 4, B, locked=(1, A), unlock=2), *all_of(intends, 4, B, CLO, DAN)],
        all_of(ratifies, 4, B, ANN, CLO, DAN),
    )


def intends_twice() -> bool:
    return accused(all_of(intends, 1, A, ANN), all_of(intends, 1, B, ANN))


def ratifies_twice() -> bool:
    return accused(all_of(ratifies, 1, A, ANN), all_of(ratifies, 1, B, ANN))


def intends_one_and_ratifies_another() -> bool:
    """Honest members do this when their draft has lost (7.3)."""
    return accused(all_of(intends, 1, A, ANN), all_of(ratifies, 1, B, ANN))


def intends_after_it_ratified() -> bool:
    pasts: list[dict[str, Any]] = [{}, {"locked": (1, A), "unlock": 1}, {"locked": (2, A), "unlock": 2}]
    return any(allowed([ratifies(ANN, 1, A), ratifies(ANN, 2, A), intends(ANN, 2, B, **past)]) for past in pasts)


def two_liars_in_one_round() -> bool:
    return unproven(
        all_of(intends, 1, A, ANN, CLO, DAN),
        all_of(ratifies, 1, A, ANN, CLO, DAN),
        all_of(intends, 1, B, BEN, CLO, DAN),
        all_of(ratifies, 1, B, BEN, CLO, DAN),
    )


def two_liars_in_two_rounds() -> bool:
    return unproven(
        all_of(intends, 1, A, ANN, CLO, DAN),
        all_of(ratifies, 1, A, ANN, CLO, DAN),
        all_of(intends, 2, B, BEN, CLO, DAN),
        all_of(ratifies, 2, B, BEN, CLO, DAN),
    )


def two_of_four_ratify() -> bool:
    """Three newcomers would make a majority of the new set; the present members decide all the same."""
    newcomers = [seated(f"Institute {number}") for number in range(3)]
    body = enlarged(*newcomers)
    intents, ratified = votes([ANN, BEN, DAN], FIRST, body)[::2], votes([ANN, BEN], FIRST, body)[1::2]
    welcomed = [entry for who in newcomers for entry in (who.announced, who.agrees(body))]
    return certified(body, [*intents, *ratified, *welcomed])


def an_observer_votes() -> bool:
    observer = replace(CLO.seat, status="observer")
    before = draft(FIRST, members=[observer if seat.id == CLO.id else seat for seat in FIRST.members])
    body = draft(before, members=FIRST.members)
    return certified(body, votes([ANN, CLO, DAN], before, body), before)


def a_reading_of_another_epoch_counts() -> bool:
    said = [*all_of(intends, 1, A, *PEOPLE), *all_of(ratifies, 1, A, *PEOPLE)]
    return certified(A, signed(replace(reading, epoch=9) for reading in said))


def one_key_of_two_votes() -> bool:
    """A vote is m signatures over identical bytes (7.2)."""
    keys = CheapSigner.named("Dan first"), CheapSigner.named("Dan second")
    many = Seated(replace(DAN.inception, keys=KeySet(tuple(key.public for key in keys), 2)), keys[0], DAN.recovery)
    previous = founded([ANN, BEN, CLO, many])
    body = drafts(previous)[0]
    return certified(body, votes([ANN, BEN, many], previous, body), previous)


def a_rotation_un_counts_what_was_said() -> bool:
    _, rotated = BEN.rotated(BEN.seat, CheapSigner.named("Ben later"), CheapSigner.named("Ben rescue"))
    return not certified(A, [*votes([ANN, BEN, CLO], FIRST, A), rotated])


def raises_a_quorum_that_the_new_set_cannot_muster() -> bool:
    body = draft(FIRST, policy=replace(FIRST.policy, quorum_change=4))
    return certified(body, votes([ANN, BEN, CLO], FIRST, body))


def enlarged(*newcomers: Seated) -> Body:
    """A body with newcomers, and the least quorum for that number of members."""
    seats = [*FIRST.members, *(who.seat for who in newcomers)]
    return draft(FIRST, members=seats, policy=replace(FIRST.policy, quorum_change=quorum(len(seats))))


def is_seated_unasked() -> bool:
    body = enlarged(EVE)
    return certified(body, [*votes(PEOPLE, FIRST, body), EVE.announced])


def is_seated_by_two_of_its_three_keys() -> bool:
    keys = [CheapSigner.named(f"Eve {number}") for number in range(3)]
    eve = replace(EVE, inception=replace(EVE.inception, keys=KeySet(tuple(key.public for key in keys), 2)))
    body = enlarged(eve)
    announced = sign_statement(eve.announced.statement, *keys)
    consent = sign_statement(eve.agrees(body).statement, *keys[:2])
    return certified(body, [*votes(PEOPLE, FIRST, body), announced, consent])


def changed(**change: Any) -> bool:
    """Whether three members certify a charter in which the seat of the fourth is changed."""
    other = replace(DAN.seat, **change)
    body = draft(FIRST, members=[other if seat.id == DAN.id else seat for seat in FIRST.members])
    return certified(body, votes([ANN, BEN, CLO], FIRST, body))


def re_keys_a_seat() -> bool:
    return changed(keys=KeySet((CheapSigner.named("a thief").public,), 1))


def relabels_a_jurisdiction() -> bool:
    return changed(jurisdiction="CN")


def makes_a_seat_anothers_heir() -> bool:
    return changed(successor_of=sha256(b"somebody"))


def seats_an_heir_of_nobody() -> bool:
    usual = enlarged(EVE)
    heir = replace(EVE.seat, successor_of=sha256(b"nobody"))
    body = draft(FIRST, members=[*FIRST.members, heir], policy=usual.policy)
    return certified(body, [*votes(PEOPLE, FIRST, body), EVE.announced, EVE.agrees(body)])


def drops_a_name() -> bool:
    body = draft(FIRST, namespaces={})
    return certified(body, votes(PEOPLE, FIRST, body))


def follows_another_federation() -> bool:
    twin = draft(founded(PEOPLE[:3]), members=FIRST.members, namespaces=FIRST.namespaces, policy=FIRST.policy)
    body = drafts(twin)[0]
    said = votes(PEOPLE, FIRST, body)
    return certified(body, said)


def enters_a_round_alone() -> bool:
    assembly = VotingMembers(PEOPLE, 1)
    ann = assembly.honest[0]
    assembly.acts(ann, assembly.drafts[0], stalled=True)
    tally = assembly.tally(ann.held.values())
    return not isinstance(next_vote(ann.votes, tally, ann.id, assembly.drafts[0], stalled=True), NothingToVote)
