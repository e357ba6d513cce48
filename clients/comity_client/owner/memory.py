"""What this user has seen of logs, and will not be talked out of.

    logs/<id>.note           the newest checkpoint of each log, as its signed note with the cosignatures that came along
    misbehaviour/<id>.json   contradictions: the two notes that one log's key signed

A log is the pair (origin, key). Its newest checkpoint only ever moves forward, and only with a consistency proof; one
that contradicts it is kept beside it and raised. Older checkpoints are no contradiction: mirrors may be behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from comity.content import durable
from comity.trust.digest import Digest, sha256
from comity.trust.encoding import Json, b64decode, b64encode, canonical, parse_json
from comity.trust.errors import Conflict, Equivocation, Malformed, NotFound, Untrusted
from comity.trust.fields import Fields
from comity.trust.tlog.checkpoint import Checkpoint, open_checkpoint
from comity.trust.tlog.merkle import verify_consistency
from comity.trust.tlog.note import MAX_NOTE, SignedNote, VerifierKey
from comity.verifier import read_bounded

from comity_client.owner.lock import exclusive

Relation = Literal["first", "same", "newer", "older"]

ALARMS: Final = frozenset({"EQUIVOCATION", "UNRECONCILED"})
"""Codes of errors by which `contradict` says that two notes of a log do not go together."""
MAX_EVIDENCE: Final = 4 * MAX_NOTE


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two notes by one log's key. `kind` is `split-view` where they alone prove that it lied (one size, two roots), or
    `unreconciled` where those who answered could not show that one continues the other: then somebody lies, the log or
    they, and the notes alone do not say who."""

    kind: str
    log: str
    notes: tuple[bytes, bytes]


class Memory:
    """The memory in `folder`, which must exist. Methods raise Malformed where a file in it is broken, OutOfSpace,
    Unavailable."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._logs, self._misbehaviour = folder / "logs", folder / "misbehaviour"
        with durable.disk_errors(f"{folder} was not opened"):
            for made in (self._logs, self._misbehaviour):
                durable.make_folders(made, mode=0o700)

    def newest(self, log: VerifierKey) -> SignedNote | None:
        """The newest note seen of a log, its signature checked again; None where none was."""
        try:
            note = SignedNote.parse(read_bounded(self._path(log), MAX_NOTE))
        except NotFound:
            return None
        open_checkpoint(note, log)
        return note

    def compare(self, log: VerifierKey, note: SignedNote) -> tuple[Relation, Checkpoint | None]:
        """How a note relates to the newest one seen, and the latter's checkpoint.

        Raises Untrusted where the log did not sign it; Equivocation, after keeping the evidence, where it has the size
        of the one seen and another root.
        """
        checkpoint = open_checkpoint(note, log)
        newest = self.newest(log)
        if newest is None:
            return "first", None
        seen = open_checkpoint(newest, log)
        if checkpoint.size != seen.size:
            return ("newer" if checkpoint.size > seen.size else "older"), seen
        if checkpoint.root != seen.root:
            raise self.contradict("split-view", log, newest, note)
        return "same", seen

    def advance(self, log: VerifierKey, note: SignedNote, proof: Sequence[bytes] = ()) -> None:
        """Remember a note that is the first of its log, the same as the newest (with more cosignatures, say), or newer
        and proven to continue it.

        Raises Untrusted (code CONSISTENCY) where `proof` does not hold, Equivocation as `compare` does, Conflict where
        another process has moved the memory past it.
        """
        checkpoint = open_checkpoint(note, log)
        with exclusive(self._folder):
            relation, seen = self.compare(log, note)
            if relation == "older":
                raise Conflict("a newer checkpoint is known", why=f"of {log.name}", code="MEMORY-MOVED")
            if relation == "newer" and seen is not None and seen.size > 0:
                verify_consistency(seen.size, seen.root, checkpoint.size, checkpoint.root, proof)
            newest = self.newest(log)
            if relation == "same" and newest is not None:
                note = newest.adding(*note.signatures)
            durable.write_file(self._path(log), note.encode(), mode=0o600, point="memory")

    def contradict(self, kind: str, log: VerifierKey, first: SignedNote, second: SignedNote) -> Untrusted:
        """Keep two notes that do not go together; gives the error to raise, with a code of `ALARMS`. Only notes that
        prove it by themselves make an Equivocation."""
        notes = (first.encode(), second.encode())
        document: dict[str, Json] = {"kind": kind, "log": str(log), "notes": [b64encode(data) for data in notes]}
        # Named by what contradicts, without signatures: cosigners sign anew each time, and it is still the same lie.
        name = sha256(f"{log}\n{first.text}{second.text}".encode())
        path = self._misbehaviour / f"{name[:32]}.json"
        data = canonical(document)
        durable.write_file(path, data, mode=0o600, point="memory")
        pair, hint = f"{_brief(first)} and {_brief(second)}", f"comity log check {log.name}"
        if kind == "split-view":
            why = f"{pair} do not go together; proof kept in {path}"
            return Equivocation(f"log {log.name} showed two histories", why=why, hint=hint, proof=notes)
        why = f"no proof given links {pair}: the log forked, or who answered lies; kept in {path}"
        return Untrusted(f"log {log.name} is not shown to be one history", why=why, hint=hint, code="UNRECONCILED")

    def contradictions(self) -> tuple[Contradiction, ...]:
        """All that is kept, each log's notes checked again; what a person damaged is left out."""
        found = []
        for path in sorted(self._misbehaviour.glob("*.json")):
            try:
                found.append(_contradiction(read_bounded(path, MAX_EVIDENCE)))
            except (Malformed, Untrusted):
                continue
        return tuple(found)

    def _path(self, log: VerifierKey) -> Path:
        return self._logs / f"{log_id(log)[:32]}.note"


def log_id(log: VerifierKey) -> Digest:
    """Names the pair (origin, key)."""
    return sha256(str(log).encode())


def _contradiction(data: bytes) -> Contradiction:
    fields = Fields(parse_json(data, limit=MAX_EVIDENCE, what="contradiction"), "contradiction")
    log = VerifierKey.parse(fields.text("log"))
    first, second = (b64decode(item) for item in fields.items("notes", least=2, most=2))
    kind = fields.choice("kind", ("split-view", "unreconciled"))
    fields.done()
    for note in (first, second):
        open_checkpoint(SignedNote.parse(note), log)
    return Contradiction(kind, log.name, (first, second))


def _brief(note: SignedNote) -> str:
    checkpoint = Checkpoint.parse(note.text)
    return f"size {checkpoint.size} root {checkpoint.root.hex()[:12]}"
