"""Rotations: chains of states, thresholds, disputes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pytest
from attackers.charter import branches, copies, unsigned
from attackers.forging import RawKey
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.identity import MAX_KEYS, KeySet
from comity.trust.keys import HybridSigner, PublicKey
from comity.trust.rotation import (
    KeyState,
    LogCut,
    Rotation,
    RotationChain,
    RotationChains,
    RotationStep,
    SigningStates,
    check_rotation,
    follow,
    parse_rotation,
    reachable,
    rotate,
    rotation_statement,
)
from comity.trust.statement import Author, Entry, Envelope, Subject, parse_entry, sign_statement
from comity.trust.tlog.merkle import MAX_SIZE
from support.rotations import CLASSICAL, begun, of, owned
from support.world import identity, seat, signer

FIRST = begun("owner", keys=3, recovery=3)
SECOND, ENTRY = FIRST.to("second", keys=3, recovery=3)
THIRD, NEXT = SECOND.to("third", home="elsewhere.example/log")
RIVAL, ALTERNATE = FIRST.to("rival")
ROTATION, USED = parse_rotation(ENTRY)
CUT = LogCut("node.example/log", 7, bytes(32))
STRANGER = signer("stranger", CLASSICAL)


def signed_by(*signers: HybridSigner, used: Any = USED, **change: Any) -> Entry:
    """The rotation from the first to the second state, changed, with arbitrary signers."""
    return sign_statement(rotation_statement(replace(ROTATION, **change), used), *signers)


def refusal(entry: Entry, before: KeyState = FIRST.state) -> str:
    with pytest.raises(Untrusted) as refused:
        check_rotation(entry, before)
    assert refused.value.code == "ROTATION"
    return refused.value.why


def test_a_rotation_reads_back_and_leads_to_the_next_state() -> None:
    entry = parse_entry(ENTRY.line)
    assert parse_rotation(entry) == (ROTATION, tuple(key.public for key in FIRST.recovery[:2]))
    assert check_rotation(entry, FIRST.state) == SECOND.state
    assert SECOND.state.seq == 1


def test_the_home_log_stays_unless_a_rotation_names_another() -> None:
    assert SECOND.state.home == FIRST.state.home == "node.example/log"
    assert check_rotation(NEXT, SECOND.state).home == "elsewhere.example/log"


def test_the_order_in_which_keys_are_listed_means_nothing() -> None:
    keys, recovery = FIRST.state.keys, FIRST.state.recovery
    shuffled = replace(FIRST.state, keys=KeySet(keys.keys[::-1], keys.threshold), recovery=recovery[::-1])
    assert shuffled.digest == FIRST.state.digest
    assert replace(FIRST.state, keys=KeySet(keys.keys, 3)).digest != FIRST.state.digest


def test_a_chain_starts_at_a_charter_seat_as_well() -> None:
    member = seat("CH")
    after, entry = of(member).to("swiss second")
    chain = follow(member.member.key_state, [entry])
    assert chain.current.keys == after.state.keys
    assert follow(replace(member.member, recovery=()).key_state, [entry]).steps == ()


def test_stolen_keys_without_recovery_keys_rotate_nothing() -> None:
    thief = owned(FIRST.state.identity, "thief", keys=1, recovery=1, algs=CLASSICAL)
    loot = replace(ROTATION, keys=thief.state.keys, recovery=thief.state.recovery)
    for used in (FIRST.keys, thief.recovery, FIRST.keys[:2]):
        with pytest.raises(Untrusted):
            rotate(FIRST.state, loot, used, thief.keys)


def test_a_minority_of_the_recovery_keys_rotates_nothing() -> None:
    for count in (1, 2):
        signers = FIRST.recovery[:count]
        entry = signed_by(*signers, *SECOND.keys, used=[each.public for each in signers])
        if count == 1:
            assert "not a majority" in refusal(entry)
        else:
            assert check_rotation(entry, FIRST.state)
    even = begun("even", recovery=4)
    with pytest.raises(Untrusted):
        even.to("half", used=2)
    assert even.to("most", used=3)


def test_every_recovery_key_that_is_named_signs() -> None:
    assert "recovery key" in refusal(signed_by(FIRST.recovery[0], *SECOND.keys))
    assert "recovery key" in refusal(signed_by(FIRST.recovery[0], FIRST.recovery[2], *SECOND.keys))


def test_a_recovery_key_of_another_state_does_not_count() -> None:
    assert "not a recovery key" in refusal(
        signed_by(*SECOND.recovery, *SECOND.keys, used=[key.public for key in SECOND.recovery])
    )


def test_every_new_key_signs() -> None:
    for missing in range(3):
        present = [key for at, key in enumerate(SECOND.keys) if at != missing]
        assert "new key" in refusal(signed_by(*FIRST.recovery[:2], *present))


def test_one_half_of_a_hybrid_key_is_no_signature() -> None:
    first = begun("hybrid", algs=("ed25519", "ml-dsa-65"))
    _, entry = first.to("hybrid second")
    for missing in range(len(entry.envelope.signatures)):
        kept = [s for at, s in enumerate(entry.envelope.signatures) if at != missing]
        torn = replace(entry, envelope=replace(entry.envelope, signatures=tuple(kept)))
        with pytest.raises(Untrusted):
            check_rotation(torn, first.state)


def test_a_recovery_key_that_was_revealed_is_spent() -> None:
    for spent in FIRST.recovery[:2]:
        entry = signed_by(*FIRST.recovery[:2], *SECOND.keys, recovery=(spent.public.id,))
        assert "cannot be used again" in refusal(entry)
    unrevealed = FIRST.recovery[2].public.id
    assert check_rotation(signed_by(*FIRST.recovery[:2], *SECOND.keys, recovery=(unrevealed,)), FIRST.state)


def test_a_recovery_key_does_not_become_a_key() -> None:
    keys = KeySet((FIRST.recovery[0].public,), 1)
    assert "two roles" in refusal(signed_by(*FIRST.recovery[:2], keys=keys))


def test_a_key_may_stay_while_others_change() -> None:
    keys = (FIRST.keys[0], SECOND.keys[0])
    kept = signed_by(*FIRST.recovery[:2], *keys, keys=KeySet(tuple(key.public for key in keys), 2))
    assert check_rotation(kept, FIRST.state).keys.threshold == 2


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"identity": RIVAL.state.digest}, id="another identity"),
        pytest.param({"prev": SECOND.state.digest}, id="another state"),
        pytest.param({"seq": 2}, id="another number"),
    ],
)
def test_a_rotation_leaves_exactly_one_state(change: dict[str, Any]) -> None:
    assert refusal(signed_by(*FIRST.recovery[:2], *SECOND.keys, **change))


def test_an_identity_without_recovery_keys_never_rotates() -> None:
    bare = begun("bare", recovery=0)
    for anybody in (STRANGER, *bare.keys):
        change = replace(ROTATION, identity=bare.state.identity, prev=bare.state.digest)
        with pytest.raises(Untrusted):
            rotate(bare.state, change, [anybody], SECOND.keys)
    dead_end, entry = FIRST.to("dead end", recovery=0)
    later = replace(ROTATION, prev=dead_end.state.digest, seq=2)
    more = [sign_statement(rotation_statement(later, USED), *FIRST.recovery[:2], *SECOND.keys)]
    assert follow(FIRST.state, [entry, *more]).states == (FIRST.state, dead_end.state)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"seq": 0}, id="number zero"),
        pytest.param({"recovery": tuple(sha256(b"%d" % at) for at in range(MAX_KEYS + 1))}, id="eight recovery keys"),
        pytest.param({"recovery": FIRST.state.recovery[:1] * 2}, id="a recovery digest twice"),
        pytest.param({"home": "two words"}, id="a home that is no origin"),
        pytest.param({"cut": (CUT, replace(CUT, size=8))}, id="two cuts of one log"),
        pytest.param({"cut": tuple(replace(CUT, origin=f"log-{at}") for at in range(33))}, id="too many cuts"),
    ],
)
def test_a_malformed_rotation_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        replace(ROTATION, **change)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"predicate": "rotates"}, id="another predicate"),
        pytest.param({"subjects": (Subject("", SECOND.state.digest),)}, id="another subject"),
        pytest.param({"subjects": (Subject("", FIRST.state.identity),) * 2}, id="two subjects"),
        pytest.param({"body": {**ENTRY.statement.body, "note": ""}}, id="an additional member"),
        pytest.param({"body": {**ENTRY.statement.body, "used": []}}, id="no recovery key"),
        pytest.param({"body": {**ENTRY.statement.body, "threshold": 1}}, id="a threshold that is not more than half"),
        pytest.param({"body": {**ENTRY.statement.body, "keys": [], "threshold": 1}}, id="no keys"),
        pytest.param({"body": {**ENTRY.statement.body, "keys": [STRANGER.public.to_json()] * 8}}, id="eight keys"),
        pytest.param({"body": {**ENTRY.statement.body, "prev": None}}, id="no state before it"),
        pytest.param({"body": {**ENTRY.statement.body, "cut": [{**CUT.to_json(), "size": 0}]}}, id="a cut at nothing"),
        pytest.param({"body": {**ENTRY.statement.body, "cut": [{**CUT.to_json(), "root": "AA=="}]}}, id="a short root"),
        pytest.param({"body": {**ENTRY.statement.body, "cut": [{**CUT.to_json(), "note": ""}]}}, id="a cut with more"),
        pytest.param({"by": Author("node", FIRST.state.identity)}, id="of a node"),
        pytest.param({"body": {}}, id="nothing"),
    ],
)
def test_a_statement_that_is_no_rotation_counts_for_nothing(change: dict[str, Any]) -> None:
    entry = sign_statement(replace(ENTRY.statement, **change), *FIRST.recovery[:2], *SECOND.keys)
    with pytest.raises(Malformed):
        parse_rotation(entry)
    assert follow(FIRST.state, [entry, ENTRY]).states == (FIRST.state, SECOND.state)


def test_cuts_are_part_of_the_signed_payload() -> None:
    _, entry = FIRST.to("cut", cut=(CUT,))
    rotation, _ = parse_rotation(entry)
    assert rotation.cut_of("node.example/log") == CUT
    assert rotation.cut_of("other.example/log") is None
    assert rotation.digest != replace(rotation, cut=()).digest


def test_a_chain_follows_rotations_in_any_order() -> None:
    for order in itertools.permutations((ENTRY, NEXT, ENTRY)):
        chain = follow(FIRST.state, order)
        assert chain.states == (FIRST.state, SECOND.state, THIRD.state) == chain.reached
        assert chain.entries == (ENTRY, NEXT)
        assert chain.disputes == ()


def test_a_rotation_without_its_predecessor_reaches_no_state() -> None:
    assert follow(FIRST.state, [NEXT]).states == (FIRST.state,)


def test_one_rotation_signed_by_other_recovery_keys_is_no_dispute() -> None:
    used = FIRST.recovery[1:]
    again = signed_by(*used, *SECOND.keys, used=[key.public for key in used])
    chain = follow(FIRST.state, [again, ENTRY, NEXT])
    assert chain == follow(FIRST.state, [NEXT, ENTRY, again])
    assert (chain.current, chain.disputes) == (THIRD.state, ())


def test_two_rotations_of_one_state_are_a_dispute_and_the_chain_ends_before_it() -> None:
    chain = follow(FIRST.state, [ENTRY, ALTERNATE, NEXT])
    assert chain.current == FIRST.state
    assert chain.entries == ()
    assert [{entry.digest for entry in pair} for pair in chain.disputes] == [{ENTRY.digest, ALTERNATE.digest}]
    later = follow(FIRST.state, [ENTRY, NEXT, SECOND.to("other third")[1]])
    assert later.states == (FIRST.state, SECOND.state)


def test_two_rotations_to_one_state_with_other_cuts_are_a_dispute() -> None:
    chain = follow(FIRST.state, [ENTRY, FIRST.to("second", keys=3, recovery=3, cut=(CUT,))[1], NEXT])
    assert chain.current == FIRST.state
    assert len(chain.disputes) == 1
    assert chain.reached == (FIRST.state, SECOND.state, THIRD.state)


def test_signatures_from_before_a_dispute_are_still_the_identitys_after_it() -> None:
    said = [sign_statement(ENTRY.statement, *keys).envelope for keys in (FIRST.keys, SECOND.keys, THIRD.keys)]
    chain = follow(FIRST.state, [ENTRY, NEXT])
    assert all(map(chain.signed, said))
    disputed = follow(FIRST.state, [ENTRY, NEXT, ALTERNATE])
    assert all(map(disputed.signed, said))
    assert not disputed.signed(sign_statement(ENTRY.statement, STRANGER).envelope)


def test_a_state_that_returns_does_not_revive_old_rotations() -> None:
    middle, there = FIRST.to("middle")
    back = Rotation(FIRST.state.identity, 2, middle.state.digest, FIRST.state.keys, FIRST.state.recovery)
    again = rotate(middle.state, back, middle.recovery, FIRST.keys)
    chain = follow(FIRST.state, [again, there])
    assert [state.seq for state in chain.states] == [0, 1, 2]
    from_a_seat = follow(replace(FIRST.state, seq=None), [again, there])
    assert [state.seq for state in from_a_seat.states] == [None, 1, 2]


def test_most_new_keys_and_recovery_keys_that_fit_a_line() -> None:
    hybrid = ("ed25519", "ml-dsa-65")
    most = begun("most", recovery=MAX_KEYS, algs=hybrid)
    after, _ = most.to("three", keys=3, recovery=MAX_KEYS)
    assert len(after.state.keys.keys) == 3
    with pytest.raises(Malformed):
        most.to("four", keys=4)
    classical = begun("classical", keys=MAX_KEYS, recovery=MAX_KEYS)
    assert classical.to("seven", keys=MAX_KEYS, recovery=MAX_KEYS)


HYBRID = signer("hybrid", ("ed25519", "ml-dsa-65"))
SHARED = (HYBRID, *(signer(f"shared {number}", CLASSICAL) for number in range(3)))


def shared_states() -> RotationChain:
    """States that have keys in common, with other thresholds."""

    def state(threshold: int, *places: int) -> KeyState:
        return replace(FIRST.state, keys=KeySet(tuple(SHARED[at].public for at in places), threshold))

    start, *others = state(2, 0, 1, 2), state(2, 0, 1), state(3, 1, 2, 3), state(4, 0, 1, 2, 3), state(1, 3)
    return RotationChain(start, tuple(RotationStep(start, ROTATION, after, ENTRY, True) for after in others))


@pytest.mark.parametrize("beside", [(), (STRANGER,)])
@pytest.mark.parametrize("count", range(1, 5))
def test_the_signers_are_the_states_whose_keys_signed(count: int, beside: tuple[HybridSigner, ...]) -> None:
    """m of k of one state, each with all its halves, and no other key."""
    chain, extra = shared_states(), [key.public.halves[0] for key in beside]
    for signers in itertools.combinations((*SHARED, STRANGER), count):
        whole = sign_statement(ENTRY.statement, *signers, *(key for key in beside if key not in signers)).envelope
        forged = replace(whole.signatures[0], sig=bytes(len(whole.signatures[0].sig)))
        envelopes = [whole, replace(whole, signatures=(forged, *whole.signatures[1:]))]
        envelopes += [replace(whole, signatures=whole.signatures[1:])] if len(whole.signatures) > 1 else []
        for envelope in envelopes:
            expected = tuple(state for state in chain.reached if state.keys.signed(envelope, extra))
            assert chain.signers(envelope, extra) == expected
            found = SigningStates.of(chain, envelope, extra)
            assert (found.signers, found.signed(envelope, extra)) == (expected, bool(expected))
            assert not found.signed(replace(envelope), extra) and not found.signed(envelope, [*extra, *extra, HALF])


def test_the_keys_that_signed_are_those_of_valid_signatures() -> None:
    chain = shared_states()
    for count in range(1, 5):
        for signers in itertools.combinations(SHARED, count):
            envelope = sign_statement(ENTRY.statement, *signers).envelope
            expected = {key.public for key in signers} if chain.signed(envelope) else set()
            assert chain.signing_keys(envelope) == expected
            for at in range(len(envelope.signatures)):
                forged = replace(envelope.signatures[at], sig=bytes(len(envelope.signatures[at].sig)))
                others = (*envelope.signatures[:at], *envelope.signatures[at + 1 :])
                assert not chain.signing_keys(replace(envelope, signatures=(forged, *others)))
    assert not chain.signing_keys(sign_statement(ENTRY.statement, *SHARED[:2], STRANGER).envelope)


HALF = signer("half", CLASSICAL).public.halves[0]


def test_the_threshold_of_each_state_counts() -> None:
    chain = shared_states()
    counted = {count: chain.signers(sign_statement(ENTRY.statement, *SHARED[:count]).envelope) for count in range(1, 5)}
    start, pair, _, all_four, _ = chain.reached
    assert counted == {1: (), 2: (start, pair), 3: (start,), 4: (all_four,)}


def test_states_are_safe_from_quantum_computers_if_every_key_up_to_them_is() -> None:
    algs = ("ed25519", "ml-dsa-65")
    first = begun("safe", algs=algs, recovery=3)
    second, one = first.to("safe second")
    third, two = second.to("safe third")
    chain = follow(first.state, [one, two])
    assert chain.post_quantum == {first.state, second.state, third.state} == reachable([first.state], steps_of(chain))
    envelope = sign_statement(ENTRY.statement, *second.keys).envelope
    assert SigningStates.of(chain, envelope).post_quantum
    weak = follow(FIRST.state, [ENTRY])
    assert weak.post_quantum == frozenset()
    assert not SigningStates.of(weak, sign_statement(ENTRY.statement, *SECOND.keys[:2]).envelope).post_quantum

    old = replace(first.state, recovery=tuple(key.public.id for key in FIRST.recovery))
    by_classical_keys = replace(parse_rotation(one)[0], prev=old.digest)
    weak_step = rotate(old, by_classical_keys, FIRST.recovery[:2], second.keys)
    assert follow(old, [weak_step, two]).post_quantum == {old}


def steps_of(chain: RotationChain) -> Callable[[KeyState], list[KeyState]]:
    return lambda state: [step.after for step in chain.steps_from.get(state, ())]


def test_one_rotation_is_safe_if_safe_recovery_keys_are_a_majority_of_some_envelope() -> None:
    safe = [signer(f"safe recovery {number}", ("ed25519", "ml-dsa-65")) for number in range(2)]
    recovery = (*FIRST.recovery[:1], *safe)
    old = replace(FIRST.state, recovery=tuple(key.public.id for key in recovery))
    rotation = replace(ROTATION, prev=old.digest)
    for _ in range(16):  # signatures are randomised, and with them the order of the lines
        entries = [rotate(old, rotation, used, SECOND.keys) for used in (recovery[:2], recovery[1:])]
        (step,) = follow(old, entries).steps
        assert step.post_quantum
    (step,) = follow(old, entries[:1]).steps
    assert not step.post_quantum


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({"size": 1}, True),
        ({"size": 0}, False),
        ({"size": MAX_SIZE}, True),
        ({"size": MAX_SIZE + 1}, False),
        ({"root": bytes(31)}, False),
        ({"origin": "two words"}, False),
        ({"origin": "o" * 255}, True),
        ({"origin": "o" * 256}, False),
    ],
)
def test_a_cut_names_a_log_and_a_tree(change: dict[str, Any], fits: bool) -> None:
    if fits:
        cut = replace(CUT, **change)
        assert cut.size == MAX_SIZE or LogCut.from_json(cut.to_json()) == cut
    else:
        with pytest.raises(Malformed):
            replace(CUT, **change)


def test_a_rotation_may_have_as_much_as_the_limits_allow() -> None:
    most = replace(
        ROTATION,
        cut=tuple(replace(CUT, origin=f"log-{at}") for at in range(32)),
        home="h" * 255,
    )
    statement = rotation_statement(most, USED)
    assert parse_rotation(sign_statement(statement, *SECOND.keys)) == (most, USED)
    with pytest.raises(Malformed):
        parse_rotation(sign_statement(replace(statement, body={**statement.body, "home": "h" * 256}), *SECOND.keys))


def test_only_rotations_from_unknown_states_are_noted() -> None:
    more = sign_statement(replace(ENTRY.statement, predicate="advisory", body={}), *FIRST.keys)
    lost = THIRD.to("fourth")[1]
    chains = RotationChains([ENTRY, more, lost, of(identity("Somebody")).to("more")[1]])
    assert chains.remarks() == ()
    assert chains.follow(FIRST.state).steps == follow(FIRST.state, [ENTRY]).steps
    assert [remark.evidence for remark in chains.remarks()] == [lost.digest]


def test_rotations_of_other_identities_are_skipped() -> None:
    other = of(identity("Somebody"))
    assert follow(FIRST.state, [other.to("more")[1], ENTRY]).current == SECOND.state


def test_the_caller_may_verify_signatures_in_its_own_way() -> None:
    unsigned = signed_by(STRANGER)
    assert follow(FIRST.state, [unsigned], signed=lambda keys, envelope, beside=(): True).current == SECOND.state
    assert follow(FIRST.state, [unsigned]).current == FIRST.state


class Judging:
    """`KeySet.signed`, which counts its calls."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, keys: KeySet, envelope: Envelope, beside: Collection[PublicKey] = ()) -> bool:
        self.asked += 1
        return keys.signed(envelope, beside)


def test_copies_of_a_rotation_are_judged_until_one_holds() -> None:
    count = Judging()
    padded = [parse_entry(line) for line in copies(ENTRY.line, 40)]
    chain = follow(FIRST.state, [ENTRY, *padded, *padded, NEXT], signed=count)
    assert chain.current == THIRD.state
    assert count.asked <= 42
    again = Judging()
    assert follow(FIRST.state, [ENTRY] * 100 + [NEXT] * 100, signed=again) == chain
    assert again.asked == 2


def test_rotations_from_unreached_states_are_not_judged() -> None:
    count = Judging()
    elsewhere = RawKey.of_seed("recovery")
    flood = [parse_entry(line) for line in branches(FIRST.state.identity, sha256(b"no state"), elsewhere, 40)]
    thieves = [parse_entry(line) for line in branches(FIRST.state.identity, FIRST.state.digest, elsewhere, 40)]
    of_others = [parse_entry(line) for line in branches(sha256(b"else"), FIRST.state.digest, elsewhere, 40)]
    assert follow(FIRST.state, [*flood, *thieves, *of_others, ENTRY], signed=count).current == SECOND.state
    assert count.asked == 1


def test_an_envelope_that_does_not_hold_takes_nothing_from_one_that_does() -> None:
    junk = [parse_entry(unsigned(ENTRY.line, number)) for number in range(20)]
    for entries in ([ENTRY, *junk], [*junk, ENTRY], [*junk[:9], ENTRY, *junk[9:]]):
        chain = follow(FIRST.state, entries)
        assert [step.entry for step in chain.steps] == [ENTRY]
