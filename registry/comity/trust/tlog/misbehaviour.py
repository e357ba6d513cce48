"""Proof that a log has shown two histories: two things that one key signed and that exclude one another.

    roots    two notes of one size with different roots
    leaves   two notes, and one leaf index proven into both with different leaves
    history  two notes of different sizes, and a proof that the larger tree began otherwise than the smaller note says

Each convicts by itself, for ever, whoever passes it on. `history` needs the entries of one side only, so that any node
that holds the larger tree can make it. Source: protocol, section 6; `history` is our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.tlog.checkpoint import Checkpoint, open_checkpoint
from comity.trust.tlog.merkle import HASH_SIZE, verify_consistency, verify_inclusion
from comity.trust.tlog.note import SignedNote, VerifierKey
from comity.trust.tlog.proof import TlogProof

ROOTS: Final = "roots"
LEAVES: Final = "leaves"
HISTORY: Final = "history"
KINDS: Final = (ROOTS, LEAVES, HISTORY)
MAX_HASHES: Final = 127


def convict(kind: str, parts: Sequence[bytes], key: VerifierKey) -> None:
    """Return if `parts`, in either order, show that the log of `key` has two histories.

    Raises Malformed, and Untrusted (NO-MISBEHAVIOUR) where they show nothing of the kind.
    """
    if kind not in KINDS or len(parts) != 2:
        raise Malformed("not a proof of misbehaviour", why=f"expected two parts, of kind {', '.join(KINDS)}")
    first, second = parts
    if kind == ROOTS:
        _different_roots(_open(first, key), _open(second, key))
    elif kind == LEAVES:
        _different_leaves(first, second, key)
    else:
        _different_history(first, second, key)


def leaf_part(leaf: bytes, proof: TlogProof) -> bytes:
    """One side of `leaves`: a leaf hash and its proof into a signed note."""
    return leaf + proof.encode()


def history_part(root: bytes, proof: Sequence[bytes], note: SignedNote) -> bytes:
    """The larger side of `history`: the root that its tree had at the smaller size, the consistency proof from there,
    and the larger note. The other part is the smaller note."""
    return root + bytes([len(proof)]) + b"".join(proof) + note.encode()


def _different_roots(first: Checkpoint, second: Checkpoint) -> None:
    if first.size != second.size or first.root == second.root:
        raise _nothing("the notes are of different sizes, or of one root")


def _different_leaves(first: bytes, second: bytes, key: VerifierKey) -> None:
    proofs = []
    for part in (first, second):
        leaf, proof = part[:HASH_SIZE], TlogProof.parse(part[HASH_SIZE:])
        checkpoint = open_checkpoint(proof.checkpoint, key)
        verify_inclusion(leaf, proof.index, checkpoint.size, proof.hashes, checkpoint.root)
        proofs.append((proof.index, leaf))
    if proofs[0][0] != proofs[1][0] or proofs[0][1] == proofs[1][1]:
        raise _nothing("the leaves are of different places, or the same")


def _different_history(first: bytes, second: bytes, key: VerifierKey) -> None:
    for smaller, larger in ((first, second), (second, first)):
        try:
            _other_beginning(_open(smaller, key), larger, key)
        except ComityError:
            continue
        return
    raise _nothing("neither part proves that the log began otherwise than the other says")


def _other_beginning(claimed: Checkpoint, larger: bytes, key: VerifierKey) -> None:
    root, count, rest = larger[:HASH_SIZE], larger[HASH_SIZE : HASH_SIZE + 1], larger[HASH_SIZE + 1 :]
    end = HASH_SIZE * (count[0] if count else 0)
    if not count or count[0] > MAX_HASHES or len(rest) < end:
        raise Malformed("not a proof of misbehaviour", why="cut short")
    proof = [rest[at : at + HASH_SIZE] for at in range(0, end, HASH_SIZE)]
    checkpoint = _open(rest[end:], key)
    verify_consistency(claimed.size, root, checkpoint.size, checkpoint.root, proof)
    if root == claimed.root:
        raise _nothing("the larger tree extends the smaller one")


def _open(note: bytes, key: VerifierKey) -> Checkpoint:
    return open_checkpoint(SignedNote.parse(note), key)


def _nothing(why: str) -> Untrusted:
    return Untrusted("no misbehaviour is shown", why=why, code="NO-MISBEHAVIOUR")
