"""Files that prove facts about a log: inclusion (C2SP tlog-proof), consistency, and misbehaviour.

    c2sp.org/tlog-proof@v1
    index 1
    CTtplUjEBYtS3TAZNWgVjZEiXD3Ow49VE2C5rqqDY74=
                                                              (an empty line, then the signed checkpoint)

    comity/growth/v1
    node-a.example/log
    3 8
    CTtplUjEBYtS3TAZNWgVjZEiXD3Ow49VE2C5rqqDY74=

`TlogProof` proves offline that a leaf is in a log. It does not contain the leaf; the verifier has it, or builds it from
its own hashes. Policies (`TlogPolicy` in `witness`, and the charter) define which cosigners are enough.

`ConsistencyProof` leads from one size to another. It does not contain the roots; the verifier takes them from signed
checkpoints.

A misbehaviour proof shows two histories of one log, signed by one key, in two parts. It is valid by itself, whatever
its source, without time limit. Source: protocol, section 6; `history` is specific to Comity.

    roots    two notes of one size with different roots
    leaves   two notes, and different leaves at one index with an inclusion proof for each note
    history  two notes of different sizes, and a proof that the larger tree had another root at the smaller size;
             it needs the entries of one side only, so any node that has the larger tree can create it
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from comity.trust.encoding import b64decode, b64encode, parse_decimal
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.tlog.merkle import HASH_SIZE, MAX_SIZE, leaf_hash, verify_consistency, verify_inclusion
from comity.trust.tlog.note import MAX_NOTE, Checkpoint, SignedNote, VerifierKey, check_name, open_checkpoint

MAX_INCLUSION_HASHES: Final = 63
MAX_EXTRA: Final = 65_535
MAX_PROOF: Final = MAX_NOTE + 100_000
"""Bytes: a note, 63 hashes and the largest `extra`, in base64."""

_PROOF_HEADER: Final = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True)
class TlogProof:
    """Inclusion of leaf `index` under `checkpoint` through `hashes` (the sibling first); not verified.

    `extra` is unauthenticated data for the application. Raises Malformed. The object keeps the leaf that it proved, so
    that an inclusion is verified once.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: SignedNote
    extra: bytes | None = None
    _included: tuple[bytes, Checkpoint] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.index < MAX_SIZE:
            raise Malformed("not a log proof", why="index out of bounds", code="TLOG-PROOF")
        if len(self.hashes) > MAX_INCLUSION_HASHES or any(len(value) != HASH_SIZE for value in self.hashes):
            raise Malformed(
                "not a log proof", why=f"expected at most {MAX_INCLUSION_HASHES} hashes of 32 bytes", code="TLOG-PROOF"
            )
        if self.extra is not None and not 1 <= len(self.extra) <= MAX_EXTRA:
            raise Malformed("not a log proof", why=f"extra has 1 to {MAX_EXTRA} bytes", code="TLOG-PROOF")

    @classmethod
    def parse(cls, data: bytes, parse_note: Callable[[bytes], SignedNote] = SignedNote.parse) -> TlogProof:
        """Inverse of `encode`. Raises Malformed."""
        if len(data) > MAX_PROOF:
            raise Malformed("log proof too large", why=f"{len(data)} bytes, at most {MAX_PROOF} allowed")
        head, _, note = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise Malformed("not a log proof", why="not ASCII before the checkpoint", code="TLOG-PROOF") from error
        if lines.pop(0) != _PROOF_HEADER:
            raise Malformed("not a log proof", why=f"expected a first line {_PROOF_HEADER!r}", code="TLOG-PROOF")
        extra = b64decode(lines.pop(0).removeprefix("extra ")) if lines and lines[0].startswith("extra ") else None
        if not lines or not lines[0].startswith("index "):
            raise Malformed("not a log proof", why="expected an index line", code="TLOG-PROOF")
        index = parse_decimal(lines.pop(0).removeprefix("index "))
        if len(lines) > MAX_INCLUSION_HASHES:
            raise Malformed(
                "not a log proof", why=f"{len(lines)} hashes, at most {MAX_INCLUSION_HASHES}", code="TLOG-PROOF"
            )
        hashes = tuple(b64decode(line, size=HASH_SIZE) for line in lines)
        return cls(index, hashes, parse_note(note), extra)

    def encode(self) -> bytes:
        lines = [_PROOF_HEADER]
        if self.extra is not None:
            lines.append(f"extra {b64encode(self.extra)}")
        lines.append(f"index {self.index}")
        lines.extend(b64encode(value) for value in self.hashes)
        return "\n".join(lines).encode("ascii") + b"\n\n" + self.checkpoint.encode()

    def verify(self, leaf_data: bytes, log_key: VerifierKey) -> Checkpoint:
        """Return the checkpoint if `log_key` signed it for its own origin and its entry `index` is `leaf_data`.

        Raises Malformed and Untrusted. Cosignatures are not verified.
        """
        open_checkpoint(self.checkpoint, log_key)
        return self.including(leaf_data)

    def including(self, leaf_data: bytes) -> Checkpoint:
        """Return the checkpoint if entry `index` of its tree is `leaf_data`; its signatures are not checked here.
        Raises Malformed and Untrusted."""
        leaf, known = leaf_hash(leaf_data), self._included
        if known is None or known[0] != leaf:
            checkpoint = Checkpoint.parse(self.checkpoint.text)
            verify_inclusion(leaf, self.index, checkpoint.size, self.hashes, checkpoint.root)
            known = leaf, checkpoint
            object.__setattr__(self, "_included", known)
        return known[1]


MAX_CONSISTENCY_HASHES: Final = 127
MAX_CONSISTENCY_PROOF: Final = 8192
_GROWTH_HEADER: Final = b"comity/growth/v1\n"


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """RFC 9162 consistency proof from `old` to `new` leaves of the log `origin`; not verified. Raises Malformed."""

    origin: str
    old: int
    new: int
    hashes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        check_name(self.origin)
        if not 0 <= self.old <= self.new <= MAX_SIZE or len(self.hashes) > MAX_CONSISTENCY_HASHES:
            raise Malformed(
                "not a consistency proof", why=f"sizes must ascend, at most {MAX_CONSISTENCY_HASHES} hashes"
            )

    @classmethod
    def parse(cls, data: bytes) -> ConsistencyProof:
        """Inverse of `encode`. Raises Malformed."""
        if len(data) > MAX_CONSISTENCY_PROOF or not data.startswith(_GROWTH_HEADER) or not data.endswith(b"\n"):
            raise Malformed(
                "not a consistency proof",
                why=f"expected {_GROWTH_HEADER!r} and at most {MAX_CONSISTENCY_PROOF} bytes of lines",
            )
        try:
            origin, sizes, *hashes = data[len(_GROWTH_HEADER) : -1].decode("utf-8").split("\n")
            old, new = sizes.split(" ")
        except ValueError as error:
            raise Malformed("not a consistency proof", why="expected an origin, two sizes and hashes") from error
        return cls(
            origin, parse_decimal(old), parse_decimal(new), tuple(b64decode(item, size=HASH_SIZE) for item in hashes)
        )

    def encode(self) -> bytes:
        lines = [self.origin, f"{self.old} {self.new}", *(b64encode(item) for item in self.hashes)]
        return _GROWTH_HEADER + "\n".join(lines).encode() + b"\n"

    def verify(self, old_root: bytes, new_root: bytes) -> None:
        """Raises Untrusted (CONSISTENCY)."""
        verify_consistency(self.old, old_root, self.new, new_root, self.hashes)


def is_consistency_proof(data: bytes) -> bool:
    """Whether `data` parses as a consistency proof. Does not verify the proof."""
    try:
        ConsistencyProof.parse(data)
    except Malformed:
        return False
    return True


def consistency_proofs(objects: Iterable[bytes]) -> Mapping[tuple[str, int, int], Sequence[ConsistencyProof]]:
    """The consistency proofs among side objects, by origin and sizes; other objects are ignored."""
    found: dict[tuple[str, int, int], list[ConsistencyProof]] = {}
    for data in objects:
        if not data.startswith(_GROWTH_HEADER):
            continue
        with contextlib.suppress(Malformed):
            proof = ConsistencyProof.parse(data)
            found.setdefault((proof.origin, proof.old, proof.new), []).append(proof)
    return found


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
        _different_roots(_open(first, key), _open(second, key))
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
        _check_history(_open(smaller, key), larger, key)
    except ComityError:
        return False
    return True


def _check_history(smaller: Checkpoint, larger: bytes, key: VerifierKey) -> None:
    root, count, rest = larger[:HASH_SIZE], larger[HASH_SIZE : HASH_SIZE + 1], larger[HASH_SIZE + 1 :]
    end = HASH_SIZE * (count[0] if count else 0)
    if not count or count[0] > MAX_CONSISTENCY_HASHES or len(rest) < end:
        raise Malformed("not a proof of misbehaviour", why="truncated")
    proof = [rest[at : at + HASH_SIZE] for at in range(0, end, HASH_SIZE)]
    checkpoint = _open(rest[end:], key)
    verify_consistency(smaller.size, root, checkpoint.size, checkpoint.root, proof)
    if root == smaller.root:
        raise _not_proven("the larger tree extends the smaller one")


def _open(note: bytes, key: VerifierKey) -> Checkpoint:
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
