"""Each clause of sections 7.1 to 7.4 is necessary: without it, and only without it, an attack succeeds.

A clause is one function of `comity.trust.charter` or of the rules beside it. Some clauses protect the same property, so
that no fork follows from the loss of one alone (`tests/model`); their attack is that an invalid vote counts, that an
honest member is accused, or that two certificates name too few of the members that equivocated.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
from comity.rules import equivocation as equivocation_module
from comity.rules import tally, vote_state
from comity.trust.charter import certificate, votes
from comity.trust.charter import certificate as certificate_module
from comity.trust.charter import document as succession
from comity.trust.charter.certificate import ValidVotes
from comity.trust.charter.document import Body, Member
from comity.trust.charter.votes import Intent, Ratify
from comity.trust.encoding import Digest
from comity.trust.identity import KeySet
from comity.trust.statement import Entry, Envelope
from support import charter_attacks as attacks


def always(*_: object) -> bool:
    return True


def never(*_: object) -> bool:
    return False


def nothing(*_: object) -> list[object]:
    return []


def without_order(said: Intent) -> bool:
    return said.last_ratified is None or said.unlock is not None


def without_strict_order(said: Intent) -> bool:
    return said.last_ratified is None or said.last_ratified.round <= (said.unlock or 0)


def one_less(quorum: int, members: Mapping[Digest, Intent]) -> bool:
    return len(members) >= quorum - 1


def one_ratify_less(previous: Body, ratified: Mapping[Digest, Entry]) -> bool:
    return len(ratified) >= previous.quorum - 1


def of_anybody(said: Intent, voters: frozenset[Digest], previous: Body) -> bool:
    return said.epoch == previous.epoch + 1


def of_any_epoch(said: Intent, voters: frozenset[Digest], previous: Body) -> bool:
    return said.member in voters


def by_the_threshold(seat: Member, entry: Entry, signed: Callable[[KeySet, Envelope], bool]) -> bool:
    return signed(seat.keys, entry.envelope)


def by_any_key(self: ValidVotes, identity: Digest, envelope: Envelope) -> bool:
    keys = next(state.keys for state in self.rotation_paths(identity))
    return any(self.signed(KeySet((key,), 1), envelope) for key in keys.keys)


def by_the_newest_keys(self: ValidVotes, identity: Digest, envelope: Envelope) -> bool:
    *_, newest = self.rotation_paths(identity)
    return self.signed(newest.keys, envelope)


def of_all_rounds(
    self: ValidVotes, body: Digest, by_round: Callable[..., Mapping[int, Mapping[Digest, Entry]]] = ValidVotes.ratified
) -> Mapping[int, Mapping[Digest, Entry]]:
    rounds = by_round(self, body)
    together = {member: entry for members in rounds.values() for member, entry in members.items()}
    return dict.fromkeys(rounds, together)


def of_the_round_itself(said: Intent, voted: Ratify) -> bool:
    return voted.round <= said.round and said.last_ratified is None


@dataclass(frozen=True)
class Clause:
    """A clause: the function that implements it, its replacement, and the attack that it prevents."""

    module: object
    function: str
    without: Callable[..., object]
    attack: Callable[[], bool]

    @property
    def name(self) -> str:
        return f"{self.function.strip('_')}-{self.attack.__name__}"


CLAUSES = [
    Clause(vote_state, "_rounds_never_decrease", always, attacks.steps_back),
    Clause(vote_state, "_one_intent_a_round", always, attacks.intends_twice),
    Clause(vote_state, "_one_ratify_a_round", always, attacks.ratifies_twice),
    Clause(vote_state, "_declares_last_ratify", always, attacks.hides_its_lock),
    Clause(tally, "_enough_votes", always, attacks.enters_a_round_alone),
    Clause(votes, "_unlock_covers_lock", always, attacks.breaks_its_lock),
    Clause(votes, "_unlock_covers_lock", without_order, attacks.unlocks_with_the_past),
    Clause(votes, "_unlock_covers_lock", without_strict_order, attacks.unlocks_with_the_round_of_its_lock),
    Clause(votes, "_unlock_is_earlier", always, attacks.unlocks_with_its_own_round),
    Clause(certificate_module, "_unlock_is_certified", always, attacks.unlocks_with_anothers_certificate),
    Clause(certificate_module, "_intents_are_a_quorum", one_less, attacks.counts_too_few_intents),
    Clause(certificate_module, "_is_of_a_voter", of_anybody, attacks.an_observer_votes),
    Clause(certificate_module, "_is_of_a_voter", of_any_epoch, attacks.a_reading_of_another_epoch_counts),
    Clause(certificate_module, "_by_all_keys", by_the_threshold, attacks.is_seated_by_two_of_its_three_keys),
    Clause(ValidVotes, "is_signed_by", by_any_key, attacks.one_key_of_two_votes),
    Clause(ValidVotes, "is_signed_by", by_the_newest_keys, attacks.a_rotation_un_counts_what_was_said),
    Clause(ValidVotes, "ratified", of_all_rounds, attacks.adds_up_rounds),
    Clause(certificate, "_ratified_by_a_quorum", one_ratify_less, attacks.two_of_four_ratify),
    Clause(certificate, "_intent_certified", always, attacks.ratifies_without_a_certificate),
    Clause(certificate, "accepted_by_the_new_set", always, attacks.raises_a_quorum_that_the_new_set_cannot_muster),
    Clause(certificate, "new_keys_without_consent", nothing, attacks.is_seated_unasked),
    Clause(equivocation_module, "_two_in_one_round", never, attacks.two_liars_in_one_round),
    Clause(equivocation_module, "_hides_a_ratify", never, attacks.two_liars_in_two_rounds),
    Clause(equivocation_module, "_hides_a_ratify", of_the_round_itself, attacks.intends_one_and_ratifies_another),
    Clause(succession, "_epoch_follows", always, attacks.follows_another_federation),
    Clause(succession, "_keys_are_its_own", always, attacks.re_keys_a_seat),
    Clause(succession, "_jurisdiction_stays", always, attacks.relabels_a_jurisdiction),
    Clause(succession, "_lineage_stays", always, attacks.makes_a_seat_anothers_heir),
    Clause(succession, "_successor_of_a_removed_seat", always, attacks.seats_an_heir_of_nobody),
    Clause(succession, "_names_lost", nothing, attacks.drops_a_name),
]

ECHOES = {
    "_no_intent_after_ratify": "such an INTENT is void or hides a RATIFY; this clause only words the refusal better",
    "_reason_to_wait": "advice on when to go on (7.4); `_enough_votes` is its rule",
}
"""Functions that quote a clause, and whose loss lets no attack succeed."""


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.name)
def test_with_the_clause_the_attack_fails(clause: Clause) -> None:
    assert not clause.attack()


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.name)
def test_without_the_clause_the_attack_succeeds(clause: Clause, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clause.module, clause.function, clause.without)
    assert clause.attack()


def test_every_clause_in_the_code_has_its_attack() -> None:
    quoted = set()
    for module in (
        tally,
        vote_state,
        votes,
        certificate_module,
        certificate,
        equivocation_module,
        succession,
        ValidVotes,
    ):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if (function.__doc__ or "").startswith(("7.1", "7.2", "7.3", "7.4", "5:")):
                quoted.add(name)
    assert quoted - ECHOES.keys() <= {clause.function for clause in CLAUSES}
    assert ECHOES.keys() <= quoted


def test_an_intent_after_a_ratify_of_its_round_is_refused_by_other_clauses_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not attacks.intends_after_it_ratified()
    monkeypatch.setattr(vote_state, "_no_intent_after_ratify", always)
    assert not attacks.intends_after_it_ratified()
