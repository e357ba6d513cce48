"""Checkpoints (C2SP tlog-checkpoint): a log's name, its size and its root.

    node-a.example/log
    300
    DzRPLD2l81iYCQEyyxWWSMkMVDJBvbJZDoKmOgX9rIY=

Extension lines, which the format allows, are refused: an ML-DSA cosignature would not cover them.
"""

from __future__ import annotations

from dataclasses import dataclass

from comity.trust.encoding import b64decode, b64encode, parse_decimal
from comity.trust.errors import Malformed, Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.tlog.merkle import EMPTY_ROOT, HASH_SIZE, MAX_SIZE
from comity.trust.tlog.note import SignedNote, VerifierKey, check_name, sign_note, verify_note


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`size` leaves under `root` in the log called `origin` (1 to 255 bytes, no white space, no '+').

    Raises Malformed; code "CHECKPOINT-EMPTY-ROOT" where the size is 0 and the root is not that of the empty tree.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        check_name(self.origin)
        if not 0 <= self.size <= MAX_SIZE or len(self.root) != HASH_SIZE:
            raise Malformed("not a checkpoint", why="size or root out of bounds", code="CHECKPOINT")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise Malformed("not a checkpoint", why="an empty log with another root", code="CHECKPOINT-EMPTY-ROOT")

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Inverse of `text`. Raises Malformed; code "CHECKPOINT-EXTENSION" for an extension line."""
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1]:
            raise Malformed("not a checkpoint", why="expected three lines: origin, size, root", code="CHECKPOINT")
        if len(lines) > 4:
            raise Malformed("not a checkpoint", why="extension lines are refused", code="CHECKPOINT-EXTENSION")
        origin, size, root, _ = lines
        return cls(origin, parse_decimal(size), b64decode(root, size=HASH_SIZE))

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{b64encode(self.root)}\n"

    def signed(self, key: PrivateKey) -> SignedNote:
        """The note that the log itself publishes. Raises Malformed unless `key` is an Ed25519 key."""
        return SignedNote(self.text, (sign_note(self.text, self.origin, key),))


def open_checkpoint(note: SignedNote, log_key: VerifierKey) -> Checkpoint:
    """The checkpoint in `note`, which the log called `log_key.name` signed. Raises Malformed and Untrusted.

    Not checked: cosignatures, and whether it is consistent with any other checkpoint.
    """
    verify_note(note, (log_key,))
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != log_key.name:
        why = f"{log_key.name} signed for {checkpoint.origin}"
        raise Untrusted("a checkpoint of another log", why=why, code="CHECKPOINT-ORIGIN")
    return checkpoint
