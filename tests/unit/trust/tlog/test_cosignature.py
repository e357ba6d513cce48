"""Cosignatures of checkpoints (C2SP tlog-cosignature)."""

from __future__ import annotations

import pytest
from comity.rules.cosigned_times import AHEAD_SECONDS, corroborated_time, time_of_quorum, verified_cosigners
from comity.trust.errors import Malformed, Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.tlog import note
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import (
    MAX_TIMESTAMP,
    Checkpoint,
    NoteSignature,
    SignedNote,
    cosign,
    cosigner_key,
    log_verifier_key,
    sign_note,
    verify_cosignature,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

NAME = "node-b.example/cosigner"
CHECKPOINT = Checkpoint("node-a.example/log", 300, leaf_hash(b""))
KEYS = {alg: PrivateKey.generate(alg) for alg in ("ed25519", "ml-dsa-44")}
NOW = 1_795_162_000

both = pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())


@both
def test_a_cosignature_carries_its_time(key: PrivateKey) -> None:
    line = NoteSignature.parse(str(cosign(CHECKPOINT, NAME, key, NOW)))
    assert verify_cosignature(line, cosigner_key(NAME, key.public), CHECKPOINT) == NOW


@both
def test_a_cosignature_holds_for_its_own_checkpoint_only(key: PrivateKey) -> None:
    line = cosign(CHECKPOINT, NAME, key, NOW)
    for other in (
        Checkpoint("node-c.example/log", CHECKPOINT.size, CHECKPOINT.root),
        Checkpoint(CHECKPOINT.origin, 301, CHECKPOINT.root),
        Checkpoint(CHECKPOINT.origin, CHECKPOINT.size, leaf_hash(b"other")),
    ):
        with pytest.raises(Untrusted) as refusal:
            verify_cosignature(line, cosigner_key(NAME, key.public), other)
        assert refusal.value.code == "COSIGNATURE"


@both
def test_no_byte_of_a_cosignature_can_change(key: PrivateKey) -> None:
    line = cosign(CHECKPOINT, NAME, key, NOW)
    for i in (0, 7, 8, 40, len(line.signature) - 1):
        changed = bytearray(line.signature)
        changed[i] ^= 1
        with pytest.raises(Untrusted):
            verify_cosignature(
                NoteSignature(line.name, line.key_id, bytes(changed)), cosigner_key(NAME, key.public), CHECKPOINT
            )


@both
@pytest.mark.parametrize("length", [1, 7, 8, 9, 71, 73])
def test_a_cosignature_of_another_length_is_refused(key: PrivateKey, length: int) -> None:
    verifier = cosigner_key(NAME, key.public)
    with pytest.raises(Untrusted):
        verify_cosignature(NoteSignature(NAME, verifier.key_id, bytes(length)), verifier, CHECKPOINT)


@both
def test_a_line_of_another_name_or_id_is_refused(key: PrivateKey) -> None:
    line = cosign(CHECKPOINT, NAME, key, NOW)
    verifier = cosigner_key(NAME, key.public)
    for other in (NoteSignature("else", line.key_id, line.signature), NoteSignature(NAME, b"0000", line.signature)):
        with pytest.raises(Untrusted):
            verify_cosignature(other, verifier, CHECKPOINT)


def test_an_ml_dsa_cosignature_names_its_cosigner() -> None:
    line = cosign(CHECKPOINT, NAME, KEYS["ml-dsa-44"], NOW)
    other = cosigner_key("node-c.example/cosigner", KEYS["ml-dsa-44"].public)
    with pytest.raises(Untrusted):
        verify_cosignature(NoteSignature(other.name, other.key_id, line.signature), other, CHECKPOINT)


def test_a_log_signature_is_no_cosignature() -> None:
    line = sign_note(CHECKPOINT.text, NAME, KEYS["ed25519"])
    with pytest.raises(Untrusted):
        verify_cosignature(line, log_verifier_key(NAME, KEYS["ed25519"].public), CHECKPOINT)


@pytest.mark.parametrize("alg", ["ecdsa-p256", "ml-dsa-65"])
def test_other_algorithms_do_not_cosign(alg: str) -> None:
    with pytest.raises(Malformed):
        cosign(CHECKPOINT, NAME, PrivateKey.generate(alg), NOW)


@both
@pytest.mark.parametrize("timestamp", [-1, 2**63])
def test_a_time_out_of_range_is_refused(key: PrivateKey, timestamp: int) -> None:
    with pytest.raises(Malformed):
        cosign(CHECKPOINT, NAME, key, timestamp)
    verifier = cosigner_key(NAME, key.public)
    blob = (timestamp % 2**64).to_bytes(8, "big") + bytes(64)
    with pytest.raises(Untrusted):
        verify_cosignature(NoteSignature(NAME, verifier.key_id, blob), verifier, CHECKPOINT)


def test_cosigners_of_a_note_are_those_known_each_with_its_newest_time() -> None:
    keys = [cosigner_key(NAME, key.public) for key in KEYS.values()]
    lines = [cosign(CHECKPOINT, NAME, KEYS["ed25519"], NOW + delay) for delay in (0, 600, 300)]
    stranger = cosign(CHECKPOINT, "stranger", PrivateKey.generate("ed25519"), NOW)
    note = SignedNote(CHECKPOINT.text, (stranger, *lines))
    assert verified_cosigners(note, keys, CHECKPOINT) == {keys[0]: NOW + 600}
    bad = NoteSignature(NAME, keys[1].key_id, bytes(2428))
    with pytest.raises(Untrusted):
        verified_cosigners(note.with_signatures(bad), keys, CHECKPOINT)


def test_a_log_key_does_not_cosign_and_no_time_is_beyond_the_last() -> None:
    """Even if it signs the exact message of a cosigner, or of that time."""
    key = PrivateKey.generate("ed25519")
    for verifier, timestamp in (
        (log_verifier_key("w.example", key.public), 5),
        (cosigner_key("w.example", key.public), MAX_TIMESTAMP + 1),
    ):
        signed = key.sign(note._message(CHECKPOINT, verifier, timestamp))
        line = NoteSignature("w.example", verifier.key_id, timestamp.to_bytes(8, "big") + signed)
        with pytest.raises(Untrusted):
            verify_cosignature(line, verifier, CHECKPOINT)


TIMES = st.integers(0, 2**63 - 1)


@given(
    st.lists(st.integers(NOW - 100_000, NOW), min_size=1, max_size=6),
    st.lists(TIMES, max_size=1),
)
@settings(max_examples=examples(100))
def test_one_member_moves_the_time_of_a_checkpoint_neither_ahead_nor_back(honest: list[int], liar: list[int]) -> None:
    found = corroborated_time([*honest, *liar], NOW)
    assert found is not None
    assert max(honest) <= found <= NOW + AHEAD_SECONDS


def test_a_clock_of_the_reader_that_is_behind_hides_no_time_that_two_members_state() -> None:
    assert corroborated_time([NOW, NOW + 5], NOW - 86_400) == NOW
    assert corroborated_time([NOW], NOW - 86_400) is None
    assert corroborated_time([], NOW) is None


@pytest.mark.parametrize(
    ("times", "needed", "by"),
    [
        ((), 1, None),
        ((7,), 1, 7),
        ((9, 5, 7), 2, 7),
        ((9, 5, 7), 3, 9),
        ((9, 5, 7), 4, None),
        ((9, 5), 0, 5),
        ((), 0, None),
    ],
)
def test_a_quorum_has_cosigned_by_the_time_of_its_last_member(
    times: tuple[int, ...], needed: int, by: int | None
) -> None:
    assert time_of_quorum(times, needed) == by
