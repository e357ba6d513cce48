"""Persistent memory of log checkpoints and of resolved names, so that later answers cannot contradict earlier ones.

logs/<id>.note           the newest checkpoint of each log, as its signed note, with the first cosignature received
                         from each cosigner: not verified, and nothing depends on them
misbehaviour/<id>.json   contradictions: the two notes that the key of one log signed
names/<id>.json          one repository: its name, and its claimant: a publisher, or the upstream repository

A log is the pair (origin, key). Its newest checkpoint moves forward only, with a consistency proof. A contradicting
checkpoint is stored and raised. Older checkpoints are not a contradiction, because mirrors may lag. A binding in the
trust store and the namespaces of a pinned charter take precedence over remembered names; `comity trust unbind` removes
a remembered name.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.rules.cosigned_times import verified_cosigners
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
from comity.trust.evidence import EvidenceReader
from comity.trust.frozen import frozen
from comity.trust.tlog.merkle import verify_consistency
from comity.trust.tlog.note import MAX_NOTE, MAX_SIGNATURES, Checkpoint, SignedNote, VerifierKey, open_checkpoint
from comity.wire.client import NodeClient

from comity_client.home import exclusive
from comity_client.session import Session

if TYPE_CHECKING:
    from comity.trust.resolution import PublisherClaim

Relation = Literal["first", "same", "newer", "older"]

CONTRADICTION_CODES: Final = frozenset({"EQUIVOCATION", "UNRECONCILED"})
"""Codes of the errors that `record_contradiction` returns."""
MAX_EVIDENCE: Final = 4 * MAX_NOTE


@frozen
class LogContradiction:
    """Two notes by the key of one log. `kind`: `split-view` if they alone prove misbehaviour of the log (one size, two
    roots); `unreconciled` if no node could prove that one extends the other: then either the log or the nodes are at
    fault, and the notes do not show which."""

    kind: str
    log: str
    notes: tuple[bytes, bytes]


class SeenLogs:
    """Log memory in `folder`, which must exist. A stored note that did not change is not verified again. Methods raise
    Malformed if a file is corrupt, OutOfSpace, Unavailable.

    Args:
        reader: that of the session, which may have read the notes before; default: a new one.
    """

    def __init__(self, folder: Path, reader: EvidenceReader | None = None) -> None:
        self._folder = folder
        self._reader = reader or EvidenceReader()
        self._logs, self._misbehaviour = folder / "logs", folder / "misbehaviour"
        with durable.disk_errors(f"{folder} was not opened"):
            for made in (self._logs, self._misbehaviour):
                durable.make_folders(made, mode=0o700)

    def newest(self, log: VerifierKey) -> SignedNote | None:
        """Return the newest note of a log, its signature verified; None if there is none."""
        path = self._path(log)
        try:
            data = read_bounded(path, MAX_NOTE)
        except NotFound:
            return None
        try:
            note = self._reader.note(_first_lines(data))
            open_checkpoint(note, log)
        except (Malformed, Untrusted) as error:
            what = f"the stored checkpoint of {log.name} cannot be read"
            raise Malformed(what, why=str(error), hint=f"remove {path}") from error
        return note

    def compare(self, log: VerifierKey, note: SignedNote) -> tuple[Relation, Checkpoint | None]:
        """Compare a note with the newest one; returns the relation and the checkpoint of the newest.

        Raises Untrusted if the log did not sign it; Equivocation, after storing the evidence, if it has the same size
        and another root.
        """
        checkpoint = open_checkpoint(note, log)
        newest = self.newest(log)
        if newest is None:
            return "first", None
        seen = open_checkpoint(newest, log)
        if checkpoint.size != seen.size:
            return ("newer" if checkpoint.size > seen.size else "older"), seen
        if checkpoint.root != seen.root:
            raise self.record_contradiction("split-view", log, newest, note)
        return "same", seen

    def advance(self, log: VerifierKey, note: SignedNote, proof: Sequence[bytes] = ()) -> None:
        """Store a note that is the first of its log, the same as the newest (possibly with more cosigners), or newer
        and proven to extend it. One that adds nothing is not written again.

        Raises Untrusted (CONSISTENCY) if `proof` is invalid, Equivocation as `compare` does, Conflict if another
        process stored a newer note.
        """
        checkpoint = open_checkpoint(note, log)
        before = self.newest(log)
        if before is not None and before.text == note.text and _with_cosigners_of(note, before) == before:
            return
        with exclusive(self._folder):
            relation, seen = self.compare(log, note)
            if relation == "older":
                raise Conflict("a newer checkpoint is known", why=f"of {log.name}", code="MEMORY-MOVED")
            if relation == "newer" and seen is not None and seen.size > 0:
                verify_consistency(seen.size, seen.root, checkpoint.size, checkpoint.root, proof)
            newest = self.newest(log)
            if relation == "same" and newest is not None:
                note = _with_cosigners_of(note, newest)
            durable.write_file(self._path(log), note.encode(), mode=0o600, point="memory")

    def record_contradiction(self, kind: str, log: VerifierKey, first: SignedNote, second: SignedNote) -> Untrusted:
        """Store two contradicting notes and return the error to raise, with a code of `CONTRADICTION_CODES`. Only notes
        that are a proof by themselves give an Equivocation."""
        notes = (first.encode(), second.encode())
        document: dict[str, Json] = {"kind": kind, "log": str(log), "notes": [b64encode(data) for data in notes]}
        # Named by the texts without signatures: cosignatures differ each time, but the contradiction is the same.
        name = sha256(f"{log}\n{first.text}{second.text}".encode())
        path = self._misbehaviour / f"{name[:32]}.json"
        data = canonical(document)
        durable.write_file(path, data, mode=0o600, point="memory")
        pair, hint = f"{_describe(first)} and {_describe(second)}", f"comity log check {log.name}"
        if kind == "split-view":
            why = f"{pair} contradict each other; proof stored in {path}"
            return Equivocation(f"log {log.name} showed two histories", why=why, hint=hint, proof=notes)
        why = f"no valid consistency proof for {pair}: the log forked, or nodes gave false proofs; stored in {path}"
        return Untrusted(f"log {log.name} is not proven to have one history", why=why, hint=hint, code="UNRECONCILED")

    def contradictions(self) -> tuple[LogContradiction, ...]:
        """Return all stored contradictions whose notes verify; corrupt files are skipped."""
        found = []
        for path in sorted(self._misbehaviour.glob("*.json")):
            try:
                found.append(_contradiction(read_bounded(path, MAX_EVIDENCE)))
            except (Malformed, Untrusted):
                continue
        return tuple(found)

    def _path(self, log: VerifierKey) -> Path:
        return self._logs / f"{log_id(log)[:32]}.note"


def _first_lines(data: bytes) -> bytes:
    """A note without the signature lines past those that one may have: earlier versions added lines without limit,
    after those of the first note."""
    text, blank, lines = data.rpartition(b"\n\n")
    return text + blank + b"".join(lines.splitlines(keepends=True)[:MAX_SIGNATURES])


def _with_cosigners_of(note: SignedNote, newest: SignedNote) -> SignedNote:
    """Return `newest` with the lines of `note` whose keys have none in it, if it can still be read with them. Nodes
    cosign the checkpoint of an idle log again and again: those lines say nothing new."""
    known = {(line.name, line.key_id) for line in newest.signatures}
    lines = [line for line in note.signatures if (line.name, line.key_id) not in known]
    made = newest.with_signatures(*lines[: MAX_SIGNATURES - len(newest.signatures)])
    return made if len(made.encode()) <= MAX_NOTE else newest


def log_id(log: VerifierKey) -> Digest:
    """Return an id of the pair (origin, key)."""
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


def _describe(note: SignedNote) -> str:
    checkpoint = Checkpoint.parse(note.text)
    return f"size {checkpoint.size} root {checkpoint.root.hex()[:12]}"


ConsistencyProofs: TypeAlias = "Callable[[str, int, int], AsyncGenerator[tuple[bytes, ...], None]]"
"""(verifier key or origin of a log, old size, new size) -> proofs, one for each source that answers."""


async def reconcile_checkpoint(
    seen_logs: SeenLogs, log: VerifierKey, note: SignedNote, proofs: ConsistencyProofs
) -> None:
    """Check that `note` and the stored checkpoint are of one history; store `note` if it is newer.

    Raises Untrusted if the log did not sign it, and (UNRECONCILED) if proofs are given and none is valid; Equivocation
    for one size with two roots. Raises Unavailable (UNLINKED), and stores nothing, if no source gives a proof.
    """
    relation, seen = seen_logs.compare(log, note)
    checkpoint = open_checkpoint(note, log)
    if seen is None or relation == "same" or seen.size == 0:
        seen_logs.advance(log, note)
        return
    if checkpoint.size == 0:
        return
    old, new = sorted((seen, checkpoint), key=lambda head: head.size)
    proof = await _consistency_proof(log, old, new, proofs)
    if proof is None:
        raise seen_logs.record_contradiction("unreconciled", log, seen_logs.newest(log) or note, note)
    if relation == "newer":
        try:
            seen_logs.advance(log, note, proof)
        except Conflict:
            await reconcile_checkpoint(seen_logs, log, note, proofs)


async def _consistency_proof(
    log: VerifierKey, old: Checkpoint, new: Checkpoint, proofs: ConsistencyProofs
) -> tuple[bytes, ...] | None:
    """Return the first valid proof; None if proofs were given and none is valid."""
    answered = False
    async with aclosing(proofs(str(log), old.size, new.size)) as offered:
        async for proof in offered:
            answered = True
            try:
                verify_consistency(old.size, old.root, new.size, new.root, proof)
            except (Malformed, Untrusted):
                continue
            return proof
    if not answered:
        why = f"no reachable node proves consistency of sizes {old.size} and {new.size}"
        raise Unavailable(f"log {log.name} is not proven consistent with earlier checkpoints", why=why, code="UNLINKED")
    return None


def cosigner_names(session: Session, note: SignedNote, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the names of the cosigners of the session's nodes whose signatures on `note` are valid."""
    keys = [key for node in session.nodes for key in node.record.cosigners]
    return tuple(sorted({key.name for key in verified_cosigners(note, keys, checkpoint)}))


def consistency_proofs(session: Session, *first: NodeClient) -> ConsistencyProofs:
    """Return a source of proofs that asks `first` in order, then every node of the session."""

    async def proofs(log: str, old: int, new: int) -> AsyncGenerator[tuple[bytes, ...], None]:
        for client in first:
            with suppress(Unavailable):
                yield await client.consistency(log, old, new)
        async with aclosing(session.answers(lambda node: node.consistency(log, old, new))) as answers:
            async for answer in answers:
                yield answer

    return proofs


SCHEMA: Final = "comity/known-name/v1"
MAX_NAME_FILE: Final = 4_096


class KnownNames:
    """Remembered names in `folder`, which must exist. Methods raise Malformed if a file is corrupt, OutOfSpace,
    Unavailable."""

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self._folder = folder / "names"
        with durable.disk_errors(f"{folder} was not opened"):
            durable.make_folders(self._folder, mode=0o700)

    def claimant(self, repository: str) -> PublisherClaim | None:
        """Return the claimant of the name at its first resolution; None if it was never resolved."""
        from comity.trust.resolution import PublisherClaim

        path = self._path(repository)
        try:
            data = read_bounded(path, MAX_NAME_FILE)
        except NotFound:
            return None
        try:
            fields = Fields(parse_canonical(data, limit=MAX_NAME_FILE, what="known name"), "known name")
            fields.constant("schema", SCHEMA)
            name, publisher = fields.text("repository", most=512), fields.take("publisher")
            fields.done()
            if name != repository.lower():
                raise Malformed("known name is malformed", why=f"the file is for {name!r}")
            return PublisherClaim(None if publisher is None else bare_digest(publisher))
        except Malformed as error:
            raise Malformed(
                f"the stored claimant of {repository} cannot be read", why=str(error), hint=f"remove {path}"
            ) from error

    def remember(self, repository: str, claimant: PublisherClaim) -> None:
        """Store the claimant of the name, unless one is stored."""
        document: dict[str, Json] = {
            "schema": SCHEMA,
            "repository": repository.lower(),
            "publisher": claimant.publisher,
        }
        with exclusive(self._root):
            if not self._path(repository).exists():
                durable.write_file(self._path(repository), canonical(document), mode=0o600, point="memory")

    def forget(self, repository: str) -> bool:
        """Remove the stored claimant; returns whether there was one."""
        with exclusive(self._root), durable.disk_errors("a known name was not removed"):
            kept = self._path(repository).exists()
            self._path(repository).unlink(missing_ok=True)
        return kept

    def _path(self, repository: str) -> Path:
        return self._folder / f"{sha256(repository.lower().encode())[:32]}.json"
