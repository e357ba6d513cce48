"""Files that prove facts about a log: inclusion (C2SP tlog-proof), and consistency.

    c2sp.org/tlog-proof@v1
    index 1
    CTtplUjEBYtS3TAZNWgVjZEiXD3Ow49VE2C5rqqDY74=
                                                              (an empty line, then the signed checkpoint)

    comity/growth/v1
    node-a.example/log
    3 8
    CTtplUjEBYtS3TAZNWgVjZEiXD3Ow49VE2C5rqqDY74=

`TlogProof` proves offline that a leaf is in a log. It does not contain the leaf; the verifier has it, or builds it from
its own hashes. Policies (`TlogPolicy` in `comity.rules.witness`, and the charter) define which cosigners are enough.

`ConsistencyProof` leads from one size to another. It does not contain the roots; the verifier takes them from signed
checkpoints. Source: protocol, section 6.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Final

from comity.trust.encoding import b64decode, b64encode, parse_decimal
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.tlog.merkle import HASH_SIZE, MAX_SIZE, leaf_hash, verify_consistency, verify_inclusion
from comity.trust.tlog.note import MAX_NOTE, Checkpoint, SignedNote, VerifierKey, check_name, open_checkpoint

MAX_INCLUSION_HASHES: Final = 63
MAX_EXTRA: Final = 65_535
MAX_PROOF: Final = MAX_NOTE + 100_000
"""Bytes: a note, 63 hashes and the largest `extra`, in base64."""

_PROOF_HEADER: Final = "c2sp.org/tlog-proof@v1"


@frozen
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


@frozen
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
