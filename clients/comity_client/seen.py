"""What this user has seen of logs, and will not be talked out of.

    logs/<id>.note           the newest checkpoint of each log, as its signed note with the cosignatures that came along
    misbehaviour/<id>.json   contradictions: the two notes that one log's key signed

A log is the pair (origin, key). Its newest checkpoint only ever moves forward, and only with a consistency proof; one
that contradicts it is kept beside it and raised. Older checkpoints are no contradiction: mirrors may be behind.


Meeting a log's checkpoint again: ask for the proof that links it to what is remembered, and remember the newer.

What names meant to this user when they were resolved first, and go on meaning whoever claims them later.

    names/<id>.json    one repository: its name, and whose it was: a publisher, or the upstream repository of that name

A binding in the trust store, and the namespaces of a pinned charter, come before it; `comity trust unbind` forgets it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from comity.content import durable
from comity.trust.encoding import (
    Digest,
    Fields,
    Json,
    b64decode,
    b64encode,
    bare_digest,
    canonical,
    parse_canonical,
    parse_json,
    sha256,
)
from comity.trust.errors import Conflict, Equivocation, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.resolution import PublisherClaim
from comity.trust.tlog.merkle import verify_consistency
from comity.trust.tlog.note import MAX_NOTE, Checkpoint, SignedNote, VerifierKey, open_checkpoint
from comity.verifier import read_bounded
from comity.wire.client import NodeClient
from comity_client.home import exclusive
from comity_client.session import Session

Relation = Literal["first", "same", "newer", "older"]

ALARMS: Final = frozenset({"EQUIVOCATION", "UNRECONCILED"})
"""Codes of errors by which `contradict` says that two notes of a log do not go together."""
MAX_EVIDENCE: Final = 4 * MAX_NOTE


@dataclass(frozen=True, slots=True)
class LogContradiction:
    """Two notes by one log's key. `kind` is `split-view` where they alone prove that it lied (one size, two roots), or
    `unreconciled` where those who answered could not show that one continues the other: then somebody lies, the log or
    they, and the notes alone do not say who."""

    kind: str
    log: str
    notes: tuple[bytes, bytes]


class SeenLogs:
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

    def contradictions(self) -> tuple[LogContradiction, ...]:
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


def _contradiction(data: bytes) -> LogContradiction:
    fields = Fields(parse_json(data, limit=MAX_EVIDENCE, what="contradiction"), "contradiction")
    log = VerifierKey.parse(fields.text("log"))
    first, second = (b64decode(item) for item in fields.items("notes", least=2, most=2))
    kind = fields.choice("kind", ("split-view", "unreconciled"))
    fields.done()
    for note in (first, second):
        open_checkpoint(SignedNote.parse(note), log)
    return LogContradiction(kind, log.name, (first, second))


def _brief(note: SignedNote) -> str:
    checkpoint = Checkpoint.parse(note.text)
    return f"size {checkpoint.size} root {checkpoint.root.hex()[:12]}"


ConsistencyProofs: TypeAlias = "Callable[[str, int, int], AsyncGenerator[tuple[bytes, ...], None]]"
"""(origin, old size, new size) -> proofs from whoever answers, one after the other."""


async def meet(memory: SeenLogs, log: VerifierKey, note: SignedNote, proofs: ConsistencyProofs) -> None:
    """Remember `note` if it is the newest of its log; be sure that it and what is remembered are one history.

    Raises Untrusted where the log did not sign it, and (code UNRECONCILED) where proofs are given and none holds;
    Equivocation for one size with two roots. Raises Unavailable (code UNLINKED) where nobody answers: then nothing is
    known, and nothing is remembered.
    """
    relation, seen = memory.compare(log, note)
    checkpoint = open_checkpoint(note, log)
    if seen is None or relation == "same" or seen.size == 0:
        memory.advance(log, note)
        return
    if checkpoint.size == 0:
        return
    old, new = sorted((seen, checkpoint), key=lambda head: head.size)
    proof = await _link(old, new, proofs)
    if proof is None:
        raise memory.contradict("unreconciled", log, memory.newest(log) or note, note)
    if relation == "newer":
        try:
            memory.advance(log, note, proof)
        except Conflict:
            await meet(memory, log, note, proofs)


async def _link(old: Checkpoint, new: Checkpoint, proofs: ConsistencyProofs) -> tuple[bytes, ...] | None:
    """The first proof that holds; None where some were given and none holds."""
    answered = False
    async with aclosing(proofs(old.origin, old.size, new.size)) as offered:
        async for proof in offered:
            answered = True
            try:
                verify_consistency(old.size, old.root, new.size, new.root, proof)
            except (Malformed, Untrusted):
                continue
            return proof
    if not answered:
        why = f"nobody here can link its checkpoints of size {old.size} and {new.size}"
        raise Unavailable(f"log {old.origin} is not linked to what was seen before", why=why, code="UNLINKED")
    return None


def consistency_proofs(session: Session, *first: NodeClient) -> ConsistencyProofs:
    """Asks `first`, one after the other, then every node of the session."""

    async def proofs(origin: str, old: int, new: int) -> AsyncGenerator[tuple[bytes, ...], None]:
        for client in first:
            with suppress(Unavailable):
                yield await client.consistency(origin, old, new)
        async with aclosing(session.answers(lambda node: node.consistency(origin, old, new))) as answers:
            async for answer in answers:
                yield answer

    return proofs


SCHEMA: Final = "comity/known-name/v1"
MAX_FILE: Final = 4_096


class KnownNames:
    """The names in `folder`, which must exist. Methods raise Malformed where a file in it is broken, OutOfSpace,
    Unavailable."""

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self._folder = folder / "names"
        with durable.disk_errors(f"{folder} was not opened"):
            durable.make_folders(self._folder, mode=0o700)

    def claimant(self, repository: str) -> PublisherClaim | None:
        """Whose the name was when it was resolved first; None where it never was."""
        path = self._path(repository)
        try:
            data = read_bounded(path, MAX_FILE)
        except NotFound:
            return None
        try:
            fields = Fields(parse_canonical(data, limit=MAX_FILE, what="known name"), "known name")
            fields.constant("schema", SCHEMA)
            name, publisher = fields.text("repository", most=512), fields.take("publisher")
            fields.done()
            if name != repository.lower():
                raise Malformed("known name is malformed", why=f"it is about {name!r}")
            return PublisherClaim(None if publisher is None else bare_digest(publisher))
        except Malformed as error:
            raise Malformed(
                f"what {repository} meant before cannot be read", why=str(error), hint=f"remove {path}"
            ) from error

    def remember(self, repository: str, claimant: PublisherClaim) -> None:
        """Keep whose the name is, where nothing is kept yet."""
        document: dict[str, Json] = {
            "schema": SCHEMA,
            "repository": repository.lower(),
            "publisher": claimant.publisher,
        }
        with exclusive(self._root):
            if not self._path(repository).exists():
                durable.write_file(self._path(repository), canonical(document), mode=0o600, point="memory")

    def forget(self, repository: str) -> bool:
        """Whether anything was kept."""
        with exclusive(self._root), durable.disk_errors("a known name was not removed"):
            kept = self._path(repository).exists()
            self._path(repository).unlink(missing_ok=True)
        return kept

    def _path(self, repository: str) -> Path:
        return self._folder / f"{sha256(repository.lower().encode())[:32]}.json"
