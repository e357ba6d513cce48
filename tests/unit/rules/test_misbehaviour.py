"""What proves that a log has shown two histories, and what does not."""

from __future__ import annotations

import itertools

import pytest
from comity.rules.misbehaviour import (
    HISTORY,
    LEAVES,
    ROOTS,
    history_part,
    leaf_part,
    minimal_misbehaviour,
    verify_misbehaviour,
)
from comity.rules.tree_proofs import MemoryTree, consistency_proof, inclusion_proof
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import NoteSignature, SignedNote, sign_note
from comity.trust.tlog.proof import TlogProof
from support.logs import LogKeys

LOG = LogKeys.generate("log.example/log")


def tree(*words: str) -> MemoryTree:
    return MemoryTree(leaf_hash(word.encode()) for word in words)


ONE = tree(*"abcdefg")
OTHER = tree(*"abXdefgh")


def note(of: MemoryTree, size: int, log: LogKeys = LOG) -> bytes:
    return log.note(size, of.root(size)).encode()


def leaf(of: MemoryTree, index: int, size: int) -> bytes:
    proof = TlogProof(index, inclusion_proof(index, size, of.node), LOG.note(size, of.root(size)))
    return leaf_part(of.node(0, index), proof)


def history(of: MemoryTree, old: int, new: int) -> bytes:
    return history_part(of.root(old), consistency_proof(old, new, of.node), LOG.note(new, of.root(new)))


def test_two_roots_for_one_size_are_a_proof() -> None:
    verify_misbehaviour(ROOTS, (note(ONE, 5), note(OTHER, 5)), LOG.verifier)
    verify_misbehaviour(ROOTS, (note(OTHER, 5), note(ONE, 5)), LOG.verifier)


def test_one_root_or_two_sizes_are_no_proof() -> None:
    for parts in ((note(ONE, 5), note(ONE, 5)), (note(ONE, 5), note(OTHER, 6)), (note(ONE, 2), note(OTHER, 2))):
        with pytest.raises(Untrusted):
            verify_misbehaviour(ROOTS, parts, LOG.verifier)


def test_notes_of_another_log_prove_nothing() -> None:
    other = LogKeys.generate(LOG.origin)
    with pytest.raises(Untrusted):
        verify_misbehaviour(ROOTS, (note(ONE, 5), note(OTHER, 5, other)), LOG.verifier)


def test_two_leaves_at_one_index_are_a_proof() -> None:
    verify_misbehaviour(LEAVES, (leaf(ONE, 2, 7), leaf(OTHER, 2, 8)), LOG.verifier)


def test_one_leaf_or_two_indexes_are_no_proof() -> None:
    for parts in ((leaf(ONE, 1, 7), leaf(OTHER, 1, 8)), (leaf(ONE, 2, 7), leaf(OTHER, 3, 8))):
        with pytest.raises(Untrusted):
            verify_misbehaviour(LEAVES, parts, LOG.verifier)


@pytest.mark.parametrize("old", range(3, 8))
def test_a_tree_with_another_beginning_is_a_proof(old: int) -> None:
    verify_misbehaviour(HISTORY, (note(ONE, old), history(OTHER, old, 8)), LOG.verifier)
    verify_misbehaviour(HISTORY, (history(OTHER, old, 8), note(ONE, old)), LOG.verifier)


@pytest.mark.parametrize("old", range(1, 8))
def test_a_tree_that_grew_is_no_proof(old: int) -> None:
    with pytest.raises(Untrusted):
        verify_misbehaviour(HISTORY, (note(OTHER, old), history(OTHER, old, 8)), LOG.verifier)


def test_a_forged_beginning_is_no_proof() -> None:
    forged = history_part(ONE.root(5), consistency_proof(5, 8, OTHER.node), LOG.note(8, OTHER.root(8)))
    with pytest.raises(Untrusted):
        verify_misbehaviour(HISTORY, (note(OTHER, 5), forged), LOG.verifier)


@pytest.mark.parametrize("part", (b"", b"\x00" * 32, b"\x00" * 32 + b"\xff", b"\x00" * 33, note(ONE, 5)))
def test_arbitrary_bytes_prove_nothing(part: bytes) -> None:
    for kind in (ROOTS, LEAVES, HISTORY, "rumour"):
        with pytest.raises(ComityError):
            verify_misbehaviour(kind, (part, note(ONE, 5)), LOG.verifier)


def test_a_leaf_that_its_tree_does_not_have_proves_nothing() -> None:
    """The note is signed, but its tree has another leaf at that index."""
    proof = TlogProof(2, inclusion_proof(2, 8, OTHER.node), LOG.note(8, OTHER.root(8)))
    invented = leaf_part(leaf_hash(b"invented"), proof)
    for parts in ((leaf(ONE, 2, 7), invented), (invented, leaf(ONE, 2, 7)), (leaf(OTHER, 2, 8), invented)):
        with pytest.raises(Untrusted):
            verify_misbehaviour(LEAVES, parts, LOG.verifier)


def padded(data: bytes) -> bytes:
    """A note with the maximum number of lines by others."""
    lines = (NoteSignature(f"{number}.example", bytes(4), bytes(9_000)) for number in range(70))
    return SignedNote.parse(data).with_signatures(*lines).encode()


def padded_leaf(of: MemoryTree, index: int, size: int) -> bytes:
    proof = TlogProof.parse(leaf(of, index, size)[32:])
    large = SignedNote.parse(padded(proof.checkpoint.encode()))
    return leaf_part(of.node(0, index), TlogProof(proof.index, proof.hashes, large, b"extra" * 9_000))


def padded_history(of: MemoryTree, old: int, new: int) -> bytes:
    end = len(history(of, old, new)) - len(note(of, new))
    return history(of, old, new)[:end] + padded(note(of, new))


@pytest.mark.parametrize(
    ("kind", "padded_parts", "parts"),
    [
        (ROOTS, (padded(note(ONE, 5)), padded(note(OTHER, 5))), (note(ONE, 5), note(OTHER, 5))),
        (LEAVES, (padded_leaf(ONE, 2, 7), padded_leaf(OTHER, 2, 8)), (leaf(ONE, 2, 7), leaf(OTHER, 2, 8))),
        (HISTORY, (padded(note(ONE, 5)), padded_history(OTHER, 5, 8)), (note(ONE, 5), history(OTHER, 5, 8))),
        (HISTORY, (padded_history(OTHER, 5, 8), padded(note(ONE, 5))), (note(ONE, 5), history(OTHER, 5, 8))),
    ],
    ids=["roots", "leaves", "history", "history the other way"],
)
def test_a_proof_is_kept_in_its_minimal_form(
    kind: str, padded_parts: tuple[bytes, bytes], parts: tuple[bytes, bytes]
) -> None:
    assert sum(map(len, padded_parts)) > 1_000_000
    assert minimal_misbehaviour(kind, padded_parts, LOG.verifier) == parts


def test_signatures_of_others_are_left_out_at_any_position() -> None:
    other = LogKeys.generate("log.example/log")
    parts = []
    for data in (note(ONE, 5), note(OTHER, 5)):
        own = SignedNote.parse(data)
        foreign = sign_note(own.text, other.origin, other.key)
        parts.append(SignedNote(own.text, (foreign, *own.signatures, foreign)).encode())
    assert minimal_misbehaviour(ROOTS, (parts[0], parts[1]), LOG.verifier) == (note(ONE, 5), note(OTHER, 5))


def test_the_hashes_of_a_history_are_not_read_as_text() -> None:
    """The only hash ends in a byte that is no valid text."""
    trees = (tree("X", "b", "c", f"d{number}") for number in itertools.count())
    larger = next(each for each in trees if consistency_proof(2, 4, each.node)[-1][-1] >= 0xF8)
    parts = note(ONE, 2), history(larger, 2, 4)
    assert minimal_misbehaviour(HISTORY, parts, LOG.verifier) == parts


def test_an_invalid_proof_has_no_minimal_form() -> None:
    with pytest.raises(Untrusted):
        minimal_misbehaviour(ROOTS, (note(ONE, 5), note(ONE, 5)), LOG.verifier)


def test_a_proof_has_a_known_kind_and_two_parts() -> None:
    parts = (note(ONE, 5), history(OTHER, 5, 8))
    verify_misbehaviour(HISTORY, parts, LOG.verifier)
    for kind, wrong in (("rumour", parts), (HISTORY, parts[:1]), (HISTORY, (*parts, parts[0])), (HISTORY, ())):
        with pytest.raises(Malformed):
            verify_misbehaviour(kind, wrong, LOG.verifier)
    with pytest.raises(Malformed):
        verify_misbehaviour(ROOTS, (note(ONE, 5), note(OTHER, 5), note(OTHER, 5)), LOG.verifier)


def test_a_history_has_the_stated_number_of_hashes() -> None:
    """It is truncated, or counts more hashes than a proof may have, or counts one hash more than there are."""
    whole = history(OTHER, 5, 8)
    smaller, count = note(ONE, 5), whole[32]
    assert count == len(consistency_proof(5, 8, OTHER.node))
    for changed in (
        whole[:33],
        whole[: 33 + 32 * count],
        whole[: 33 + 32 * count - 1],
        whole[:32] + bytes([count + 1]) + whole[33:],
        whole[:32] + bytes([count - 1]) + whole[33:],
        whole[:32] + bytes([128]) + bytes(32 * 128) + whole[33 + 32 * count :],
    ):
        with pytest.raises(ComityError):
            verify_misbehaviour(HISTORY, (smaller, changed), LOG.verifier)
