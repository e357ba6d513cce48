"""Proofs that a log has two histories.

A misbehaviour proof shows two histories of one log, signed by one key, in two parts. It is valid by itself, whatever
its source, without time limit. Source: protocol, section 6; `history` is specific to Comity.

    roots    two notes of one size with different roots
    leaves   two notes, and different leaves at one index with an inclusion proof for each note
    history  two notes of different sizes, and a proof that the larger tree had another root at the smaller size;
             it needs the entries of one side only, so any node that has the larger tree can create it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.tlog.merkle import HASH_SIZE, verify_consistency, verify_inclusion
from comity.trust.tlog.note import Checkpoint, SignedNote, VerifierKey, open_checkpoint
from comity.trust.tlog.proof import MAX_CONSISTENCY_HASHES, TlogProof

ROOTS: Final = "roots"
LEAVES: Final = "leaves"
HISTORY: Final = "history"
KINDS: Final = (ROOTS, LEAVES, HISTORY)


def verify_misbehaviour(kind: str, parts: Sequence[bytes], key: VerifierKey) -> None:
    """Verify that `parts`, in either order, prove two histories of the log of `key`.

    Raises Malformed, and Untrusted (NO-MISBEHAVIOUR) if they do not prove that.
    """
    if kind not in KINDS or len(parts) != 2:
        raise Malformed("not a proof of misbehaviour", why=f"expected two parts, of kind {', '.join(KINDS)}")
    first, second = parts
    if kind == ROOTS:
        _different_roots(_signed_checkpoint(first, key), _signed_checkpoint(second, key))
    elif kind == LEAVES:
        _different_leaves(first, second, key)
    else:
        _different_history(first, second, key)


def minimal_misbehaviour(kind: str, parts: Sequence[bytes], key: VerifierKey) -> tuple[bytes, bytes]:
    """The same proof without what it does not need: signatures by others, and what is not authenticated. Otherwise a
    log that wants to hide the proofs about another one could make its own as large as a note may be.

    Raises as `verify_misbehaviour`.
    """
    verify_misbehaviour(kind, parts, key)
    first, second = parts
    if kind == ROOTS:
        return _minimal_note(first, key), _minimal_note(second, key)
    if kind == LEAVES:
        return _minimal_leaf(first, key), _minimal_leaf(second, key)
    smaller, larger = (first, second) if _is_history(first, second, key) else (second, first)
    end = HASH_SIZE + 1 + HASH_SIZE * larger[HASH_SIZE]
    return _minimal_note(smaller, key), larger[:end] + _minimal_note(larger[end:], key)


def leaf_part(leaf: bytes, proof: TlogProof) -> bytes:
    """One part of a `leaves` proof: a leaf hash and its inclusion proof with a signed note."""
    return leaf + proof.encode()


def history_part(root: bytes, proof: Sequence[bytes], note: SignedNote) -> bytes:
    """The part of a `history` proof for the larger tree: its root at the smaller size, the consistency proof from that
    size, and the larger note. The other part is the smaller note."""
    return root + bytes([len(proof)]) + b"".join(proof) + note.encode()


def _different_roots(first: Checkpoint, second: Checkpoint) -> None:
    if first.size != second.size or first.root == second.root:
        raise _not_proven("the notes have different sizes or the same root")


def _different_leaves(first: bytes, second: bytes, key: VerifierKey) -> None:
    proofs = []
    for part in (first, second):
        leaf, proof = part[:HASH_SIZE], TlogProof.parse(part[HASH_SIZE:])
        checkpoint = open_checkpoint(proof.checkpoint, key)
        verify_inclusion(leaf, proof.index, checkpoint.size, proof.hashes, checkpoint.root)
        proofs.append((proof.index, leaf))
    if proofs[0][0] != proofs[1][0] or proofs[0][1] == proofs[1][1]:
        raise _not_proven("the leaves have different indexes or are equal")


def _different_history(first: bytes, second: bytes, key: VerifierKey) -> None:
    if not _is_history(first, second, key) and not _is_history(second, first, key):
        raise _not_proven("neither part proves that the other note is not a prefix of its tree")


def _is_history(smaller: bytes, larger: bytes, key: VerifierKey) -> bool:
    try:
        _check_history(_signed_checkpoint(smaller, key), larger, key)
    except ComityError:
        return False
    return True


def _check_history(smaller: Checkpoint, larger: bytes, key: VerifierKey) -> None:
    root, count, rest = larger[:HASH_SIZE], larger[HASH_SIZE : HASH_SIZE + 1], larger[HASH_SIZE + 1 :]
    end = HASH_SIZE * (count[0] if count else 0)
    if not count or count[0] > MAX_CONSISTENCY_HASHES or len(rest) < end:
        raise Malformed("not a proof of misbehaviour", why="truncated")
    proof = [rest[at : at + HASH_SIZE] for at in range(0, end, HASH_SIZE)]
    checkpoint = _signed_checkpoint(rest[end:], key)
    verify_consistency(smaller.size, root, checkpoint.size, checkpoint.root, proof)
    if root == smaller.root:
        raise _not_proven("the larger tree extends the smaller one")


def _signed_checkpoint(note: bytes, key: VerifierKey) -> Checkpoint:
    return open_checkpoint(SignedNote.parse(note), key)


def _minimal_note(data: bytes, key: VerifierKey) -> bytes:
    note = SignedNote.parse(data)
    return SignedNote(note.text, (next(line for line in note.signatures if line.by(key)),)).encode()


def _minimal_leaf(part: bytes, key: VerifierKey) -> bytes:
    proof = TlogProof.parse(part[HASH_SIZE:])
    note = SignedNote.parse(_minimal_note(proof.checkpoint.encode(), key))
    return leaf_part(part[:HASH_SIZE], TlogProof(proof.index, proof.hashes, note))


def _not_proven(why: str) -> Untrusted:
    return Untrusted("misbehaviour is not proven", why=why, code="NO-MISBEHAVIOUR")
