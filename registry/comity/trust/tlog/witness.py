"""What a log asks of a witness, and what it gets (C2SP tlog-witness): the bodies of `add-checkpoint`.

    old 20852014
    PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
                                                              (an empty line)
    node-a.example/log
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
                                                              (an empty line)
    — node-a.example/log Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=

The answer is signature lines, each with its line feed. What a witness keeps, and when it signs, is said elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from comity.trust.encoding import b64decode, b64encode, parse_decimal
from comity.trust.errors import Malformed
from comity.trust.tlog.merkle import HASH_SIZE, MAX_SIZE
from comity.trust.tlog.note import MAX_SIGNATURES, NoteSignature, SignedNote

MAX_REQUEST: Final = 128 * 1024
"""Bytes of a request: a checkpoint, and more signatures than its log makes."""
MAX_ANSWER: Final = 512 * 1024
MAX_HASHES: Final = 63


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A checkpoint, and the proof that it continues the tree of `old` leaves; none of it checked. Raises Malformed."""

    old: int
    proof: tuple[bytes, ...]
    checkpoint: SignedNote

    def __post_init__(self) -> None:
        if not 0 <= self.old <= MAX_SIZE or any(len(value) != HASH_SIZE for value in self.proof):
            raise _malformed("size or hash out of bounds")
        if len(self.proof) > MAX_HASHES:
            raise _malformed(f"{len(self.proof)} hashes, at most {MAX_HASHES}")

    @property
    def origin(self) -> str:
        """The log that the checkpoint names: its first line, whatever that is."""
        return self.checkpoint.text.partition("\n")[0]

    @classmethod
    def parse(cls, data: bytes) -> AddCheckpoint:
        """Inverse of `encode`. Raises Malformed."""
        head, _, note = data.partition(b"\n\n")
        try:
            first, *hashes = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise _malformed("not ASCII before the checkpoint") from error
        if not first.startswith("old ") or len(hashes) > MAX_HASHES:
            raise _malformed(f"expected 'old', a size, and at most {MAX_HASHES} hashes")
        old = parse_decimal(first.removeprefix("old "))
        return cls(old, tuple(b64decode(line, size=HASH_SIZE) for line in hashes), SignedNote.parse(note))

    def encode(self) -> bytes:
        lines = (f"old {self.old}", *map(b64encode, self.proof), "", "")
        return "\n".join(lines).encode("ascii") + self.checkpoint.encode()


def parse_signatures(data: bytes) -> tuple[NoteSignature, ...]:
    """The signature lines of an answer; there may be none. Raises Malformed."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("not signature lines", why="not UTF-8", code="NOTE-SIGNATURE") from error
    lines = text.split("\n")
    if lines.pop() or len(lines) > MAX_SIGNATURES:
        why = f"expected at most {MAX_SIGNATURES} lines, each with its line feed"
        raise Malformed("not signature lines", why=why, code="NOTE-SIGNATURE")
    return tuple(map(NoteSignature.parse, lines))


def encode_signatures(lines: Iterable[NoteSignature]) -> bytes:
    """Inverse of `parse_signatures`."""
    return "".join(f"{line}\n" for line in lines).encode()


def _malformed(why: str) -> Malformed:
    return Malformed("not an add-checkpoint request", why=why, code="ADD-CHECKPOINT")
