"""Transparency-log proofs (C2SP tlog-proof): all that shows, offline, that a leaf is in a log.

    c2sp.org/tlog-proof@v1
    index 1
    CTtplUjEBYtS3TAZNWgVjZEiXD3Ow49VE2C5rqqDY74=
                                                              (an empty line)
    node-a.example/log
    2
    DzRPLD2l81iYCQEyyxWWSMkMVDJBvbJZDoKmOgX9rIY=
                                                              (an empty line)
    — node-a.example/log uVCkwSLkJFSWfNHRb+VidGCiFs54L8lqAP6I+TcC5pxH34H3zYyYxRI1uG/Vo4wdM2BHJfDCHAF8uNd3tTsZZf2cKgM=

The leaf itself is not in it: the verifier has it, or rebuilds it from what it hashed. Which cosigners suffice is a
matter of policy (`tlog_policy`, and the charter).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comity.trust.encoding import b64decode, b64encode, parse_decimal
from comity.trust.errors import Malformed
from comity.trust.tlog.checkpoint import Checkpoint, open_checkpoint
from comity.trust.tlog.merkle import HASH_SIZE, MAX_SIZE, leaf_hash, verify_inclusion
from comity.trust.tlog.note import MAX_NOTE, SignedNote, VerifierKey

MAX_HASHES: Final = 63
MAX_EXTRA: Final = 65_535
MAX_PROOF: Final = MAX_NOTE + 100_000
"""Bytes: a note, 63 hashes and the largest `extra`, all in base64."""

_HEADER: Final = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True)
class TlogProof:
    """Leaf `index` leads over `hashes` (the sibling first) to the root in `checkpoint`, none of it checked.

    `extra` is a note to the application that nothing authenticates. Raises Malformed.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: SignedNote
    extra: bytes | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.index < MAX_SIZE:
            raise Malformed("not a log proof", why="index out of bounds", code="TLOG-PROOF")
        if len(self.hashes) > MAX_HASHES or any(len(value) != HASH_SIZE for value in self.hashes):
            raise Malformed("not a log proof", why=f"at most {MAX_HASHES} hashes of 32 bytes", code="TLOG-PROOF")
        if self.extra is not None and not 1 <= len(self.extra) <= MAX_EXTRA:
            raise Malformed("not a log proof", why=f"extra has 1 to {MAX_EXTRA} bytes", code="TLOG-PROOF")

    @classmethod
    def parse(cls, data: bytes) -> TlogProof:
        """Inverse of `encode`. Raises Malformed."""
        if len(data) > MAX_PROOF:
            raise Malformed("log proof too large", why=f"{len(data)} bytes, at most {MAX_PROOF} are read")
        head, _, note = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise Malformed("not a log proof", why="not ASCII before the checkpoint", code="TLOG-PROOF") from error
        if lines.pop(0) != _HEADER:
            raise Malformed("not a log proof", why=f"expected a first line {_HEADER!r}", code="TLOG-PROOF")
        extra = b64decode(lines.pop(0).removeprefix("extra ")) if lines and lines[0].startswith("extra ") else None
        if not lines or not lines[0].startswith("index "):
            raise Malformed("not a log proof", why="expected an index line", code="TLOG-PROOF")
        index = parse_decimal(lines.pop(0).removeprefix("index "))
        if len(lines) > MAX_HASHES:
            raise Malformed("not a log proof", why=f"{len(lines)} hashes, at most {MAX_HASHES}", code="TLOG-PROOF")
        hashes = tuple(b64decode(line, size=HASH_SIZE) for line in lines)
        return cls(index, hashes, SignedNote.parse(note), extra)

    def encode(self) -> bytes:
        lines = [_HEADER]
        if self.extra is not None:
            lines.append(f"extra {b64encode(self.extra)}")
        lines.append(f"index {self.index}")
        lines.extend(b64encode(value) for value in self.hashes)
        return "\n".join(lines).encode("ascii") + b"\n\n" + self.checkpoint.encode()

    def verify(self, leaf_data: bytes, log_key: VerifierKey) -> Checkpoint:
        """The checkpoint, signed by `log_key`, of a log whose entry `index` is `leaf_data`.

        Raises Malformed and Untrusted: (1) the log signed the checkpoint, for its own origin; (2) the leaf is in it.
        Cosignatures are not looked at.
        """
        checkpoint = open_checkpoint(self.checkpoint, log_key)
        verify_inclusion(leaf_hash(leaf_data), self.index, checkpoint.size, self.hashes, checkpoint.root)
        return checkpoint
