"""Logs for tests: their keys, lines that are statements, and signed checkpoints."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from comity.trust.encoding import Digest, sha256
from comity.trust.keys import HybridSigner, PrivateKey
from comity.trust.statement import Author, Statement, Subject, sign_statement
from comity.trust.tlog.merkle import leaf_hash, root
from comity.trust.tlog.note import Checkpoint, SignedNote, VerifierKey, log_verifier_key

PUBLISHER = HybridSigner.generate(("ed25519",))
AUTHOR = Author("identity", sha256(b"a publisher"))


@dataclass(frozen=True)
class LogKeys:
    """A log with its private keys."""

    origin: str
    key: PrivateKey

    @classmethod
    def generate(cls, origin: str) -> LogKeys:
        return cls(origin, PrivateKey.generate("ed25519"))

    @property
    def verifier(self) -> VerifierKey:
        return log_verifier_key(self.origin, self.key.public)

    @property
    def vkey(self) -> str:
        return str(self.verifier)

    def note(self, size: int, root: bytes) -> SignedNote:
        return Checkpoint(self.origin, size, root).signed(self.key)

    def note_over(self, lines: Sequence[bytes]) -> SignedNote:
        return self.note(len(lines), root([leaf_hash(line) for line in lines]))


@functools.lru_cache(10_000)
def statement_line(
    number: int,
    *,
    predicate: str = "vouched",
    name: str | None = None,
    subject: Digest | None = None,
    by: Author = AUTHOR,
) -> bytes:
    """A signed statement as a line of a log; another one for each `number`."""
    about = Subject(name or f"tests/model-{number}@v1", subject or sha256(b"subject %d" % number))
    return sign_statement(Statement(predicate, (about,), by, {"number": number}), PUBLISHER).line


def statement_lines(start: int, end: int) -> list[bytes]:
    return [statement_line(number) for number in range(start, end)]
