"""Audits of copies: challenge, answer, verification, and the `audited` statements about the results. Pure.

A node that logged a `hold` is asked for random pieces of the artifact. Both sides choose a nonce, and the answer has,
for each piece, its record, the record's Merkle path to the root in the piece index that the `hold` names, and

    SHA-256("comity/audit/v2\\n" || federation || auditor's node || prover's node
            || auditor's nonce || prover's nonce || artifact || piece number, u64 || bytes of the piece)

where the federation, the nodes and the artifact are their ids, of 32 bytes each as the nonces are: all that stands
before the bytes has one length. The nonces come before the bytes, so nothing about the piece can be computed before the
challenge, and every byte is read for it. The two nodes stand there too: what one holder answers is of no use to another
one, so that a node without a copy needs the bytes of the pieces, and not the hashes of somebody who has them.

The prover signs the answer with its online key, over the federation, both nonces, the auditor, the artifact, the piece
index, and the record and hash of each piece. So an answer is good for one challenge of one auditor, and a wrong answer
is evidence against the node that signed it: each holder of that one piece can compute the hash again. The paths are not
signed: they prove themselves. Hashes are sent instead of bytes because the auditor has a copy: an audit costs reading
on both disks, and a few kilobytes on the wire.

Older versions hashed neither the nodes nor the federation ("comity/audit/v1"). Their answers name no federation. Such
an answer counts neither for nor against its signer (`OlderAnswer`).

A prover that lost a share d of the pieces passes an audit of c pieces with probability (1-d)^c, and audits add up.
What an audit does not prove: a prover that fetches the pieces from another holder when it is asked passes (it has
access, not a copy); two provers may share one disk; and nothing follows for the time after the answer.

`audited` statements are of two forms. A *failure* has the challenge, the reason and, if the prover signed one, the
wrong answer. A failure without a signed answer is only the auditor's claim. A *summary* lists what passed and what was
missed (no answer) on one day, with the Merkle root of the answers that the auditor keeps.
Source: protocol, section 8 (Copies).
"""

from __future__ import annotations

import hashlib
import itertools
import re
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final, Protocol

from comity.rules.pieces import FIXED_LAYOUT, TENSOR_LAYOUT, PieceIndex, PieceLayout
from comity.rules.signing import sign_content
from comity.rules.tree_proofs import MemoryTree, inclusion_proof
from comity.trust.artifact import PIECE_SIZE, RECORD_BYTES, FileEntry, Manifest, PieceRecord
from comity.trust.codec import (
    JsonBytes,
    JsonDigest,
    JsonItems,
    JsonMerged,
    JsonNumber,
    JsonPath,
    JsonRead,
    JsonRow,
    JsonWord,
)
from comity.trust.content import ByAuthor, ById, Content, SubjectDigest, Subjects
from comity.trust.encoding import Digest, Fields, Json
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.keys import Signer
from comity.trust.node_records import NodeRecord
from comity.trust.statement import (
    MAX_LINE,
    MAX_SUBJECTS,
    Author,
    Entry,
    Statement,
    Subject,
    parse_entry,
)
from comity.trust.statement_kinds import AUDIT_ANSWER, AUDITED
from comity.trust.tlog.merkle import leaf_hash, verify_inclusion
from comity.trust.tlog.merkle import root as merkle_root

MAX_CHALLENGED: Final = 30
"""Pieces of one challenge: at most 120 MiB to read."""
MAX_FILE_PIECES: Final = 262_144
"""Pieces of a file that is audited, 1 TiB in full pieces: the tree over its records is computed for an answer."""
MAX_ROWS: Final = 512
"""Results in one summary."""
MAX_LEASE: Final = 600
"""Seconds for which an answer may promise to keep the copy."""
AUDITABLE: Final = frozenset({FIXED_LAYOUT, TENSOR_LAYOUT})
"""Layouts whose root is the RFC 6962 root over the piece records."""
DAY: Final = 86_400
_ASCII: Final = re.compile(r"[\x00-\x7f]*\Z")
_DOMAIN: Final = b"comity/audit/v2\n"

NOT_HELD: Final = "not-held"
REASONS: Final = (NOT_HELD, "malformed", "signature", "challenge", "record", "digest")
"""Why an audit failed: the node says that it has no copy; its answer cannot be read; it is not signed by the node; it
answers another challenge; a record is not in the piece index; a hash is not that of the piece."""


class AuditFailed(Untrusted):
    """An answer that does not prove a copy. `reason` is one of REASONS, `piece` the number of the first wrong piece."""

    def __init__(self, reason: str, why: str, piece: int | None = None) -> None:
        super().__init__("audit failed", why=why, code="AUDIT-FAILED")
        self.reason = reason
        self.piece = piece


class OlderAnswer(Untrusted):
    """An answer in the form of an older version, which binds no prover: it may be another node's. It says nothing about
    the copy."""

    def __init__(self) -> None:
        why = "its node runs an older version, whose answer is not bound to the node that gives it"
        super().__init__("this answer is not counted", why=why, hint="have its operator update", code="AUDIT-OLD-FORM")


@frozen
class NumberedPiece:
    """Piece `index` of a file."""

    file: FileEntry
    layout: PieceLayout
    index: int


class PieceNumbers:
    """Numbers the pieces of an artifact: first those of the manifest's first file, then those of the second."""

    def __init__(self, manifest: Manifest, index: PieceIndex) -> None:
        """Raises Malformed if the index does not list the manifest's files, or has a layout that cannot be audited."""
        if [path for path, _ in index.files] != [entry.path for entry in manifest.files]:
            raise Malformed("no audit", why="the piece index does not list the manifest's files")
        if any(layout.layout not in AUDITABLE or layout.count > MAX_FILE_PIECES for _, layout in index.files):
            raise Malformed("no audit", why="a file has a piece layout that cannot be audited, or too many pieces")
        self.artifact = manifest.digest
        self._files = [(entry, layout) for entry, (_, layout) in zip(manifest.files, index.files, strict=True)]
        self._ends = list(itertools.accumulate(layout.count for _, layout in self._files))

    @property
    def count(self) -> int:
        return self._ends[-1] if self._ends else 0

    def find(self, number: int) -> NumberedPiece:
        """Raises Malformed if there is no such piece."""
        if not 0 <= number < self.count:
            raise Malformed("no such piece", why=f"{number} of {self.count}")
        at = bisect_right(self._ends, number)
        entry, layout = self._files[at]
        return NumberedPiece(entry, layout, number - (self._ends[at - 1] if at else 0))

    def cost(self, numbers: Iterable[int]) -> int:
        """The most bytes that an answer about these pieces reads: pieces, and the records of their files."""
        pieces = [self.find(number) for number in numbers]
        records = {(piece.file.sha256, piece.layout.root): piece.layout.count for piece in pieces}
        return sum(min(PIECE_SIZE, piece.file.size) for piece in pieces) + RECORD_BYTES * sum(records.values())


@frozen
class AuditChallenge:
    """What the node `auditor` asks the node `prover` for: pieces of `artifact` by their `numbers` in the piece index
    `pieces`.

    `nonce` is 32 random bytes in hex. `lease` is the time in seconds for which the prover is asked to keep the copy,
    0 for none.
    """

    auditor: ById
    prover: Annotated[Digest, JsonPath("node")]
    artifact: SubjectDigest
    pieces: Annotated[Digest, JsonPath("index")]
    nonce: Digest
    numbers: Annotated[tuple[int, ...], JsonItems(MAX_CHALLENGED, 1), "Pieces that were asked for, ascending."]
    lease: Annotated[int, JsonNumber(most=MAX_LEASE)] = 0

    def __post_init__(self) -> None:
        ascending = all(left < right for left, right in itertools.pairwise(self.numbers))
        if not (1 <= len(self.numbers) <= MAX_CHALLENGED and ascending and self.numbers[0] >= 0):
            raise Malformed("challenge is malformed", why=f"expected 1 to {MAX_CHALLENGED} pieces, ascending")
        if not 0 <= self.lease <= MAX_LEASE:
            raise Malformed("challenge is malformed", why=f"a lease has at most {MAX_LEASE} seconds")


class Chance(Protocol):
    """A source of random numbers that nobody can predict: `random.SystemRandom`."""

    def sample(self, population: Sequence[int], k: int) -> list[int]: ...

    def getrandbits(self, k: int, /) -> int: ...


def draw_challenge(
    auditor: Digest,
    prover: Digest,
    numbers: PieceNumbers,
    pieces: Digest,
    count: int,
    chance: Chance,
    *,
    lease: int = 0,
) -> AuditChallenge:
    """A challenge for `count` random pieces, or all if there are fewer. `chance` must be unpredictable: the system's.

    Raises Malformed for an artifact without bytes, which has no pieces.
    """
    drawn = tuple(sorted(chance.sample(range(numbers.count), min(count, MAX_CHALLENGED, numbers.count))))
    return AuditChallenge(auditor, prover, numbers.artifact, pieces, draw_nonce(chance), drawn, lease)


def draw_nonce(chance: Chance) -> Digest:
    return Digest(chance.getrandbits(256).to_bytes(32, "big").hex())


def possession_hash(
    federation: Digest, challenge: AuditChallenge, nonce: Digest, number: int, data: Iterable[bytes]
) -> Digest:
    """The hash that proves possession of a piece; `nonce` is the prover's, `data` the bytes of the piece."""
    hasher = hashlib.sha256(_DOMAIN)
    nodes = challenge.auditor, challenge.prover
    for digest in (federation, *nodes, challenge.nonce, nonce, challenge.artifact):
        hasher.update(bytes.fromhex(digest))
    hasher.update(struct.pack(">Q", number))
    for chunk in data:
        hasher.update(chunk)
    return Digest(hasher.hexdigest())


class DamagedPiece(Untrusted):
    """A piece of an own copy differs from its record. `blob` is the SHA-256 of its file."""

    def __init__(self, blob: Digest, why: str) -> None:
        super().__init__("this copy is damaged", why=why, code="PIECE")
        self.blob = blob


class PieceSource(Protocol):
    """A copy of an artifact: the piece records of its files, and their bytes. Blocking."""

    def records(self, file: FileEntry, layout: PieceLayout) -> Sequence[PieceRecord]:
        """Raises NotFound."""

    def read(self, blob: Digest, offset: int, length: int) -> Iterable[bytes]:
        """Raises NotFound."""


@frozen
class ReadPiece:
    """A challenged piece as a copy has it: its record, the record's path, and the possession hash."""

    number: int
    record: PieceRecord
    path: tuple[bytes, ...]
    digest: Digest


def read_pieces(
    federation: Digest, challenge: AuditChallenge, nonce: Digest, numbers: PieceNumbers, source: PieceSource
) -> list[ReadPiece]:
    """Read the challenged pieces from a copy. Blocking.

    Raises Malformed, NotFound if a part is missing, and DamagedPiece: an auditor must not
    accuse others because of its own disk, and an honest prover signs no wrong answer.
    """
    files: dict[tuple[Digest, Digest], tuple[Sequence[PieceRecord], MemoryTree, list[int]]] = {}
    found = []
    for number in challenge.numbers:
        piece = numbers.find(number)
        key = piece.file.sha256, piece.layout.root
        if key not in files:
            records = source.records(piece.file, piece.layout)
            if len(records) != piece.layout.count:
                raise Malformed("no audit", why="the piece records are not those of the piece index")
            starts = [0, *itertools.accumulate(record.length for record in records)]
            files[key] = records, MemoryTree(leaf_hash(record.encode()) for record in records), starts
        records, tree, starts = files[key]
        record = records[piece.index]
        hasher = hashlib.sha256()
        data = _hashed(source.read(piece.file.sha256, starts[piece.index], record.length), hasher)
        digest = possession_hash(federation, challenge, nonce, number, data)
        if hasher.digest() != record.sha256:
            why = f"piece {piece.index} of {piece.file.path[:200]} differs from its record"
            raise DamagedPiece(piece.file.sha256, why)
        found.append(ReadPiece(number, record, inclusion_proof(piece.index, tree.size, tree.node), digest))
    return found


def _hashed(chunks: Iterable[bytes], hasher: hashlib._Hash) -> Iterator[bytes]:
    for chunk in chunks:
        hasher.update(chunk)
        yield chunk


class _Federation(JsonDigest):
    def read(self, fields: Fields, name: str) -> Digest:
        if not fields.has(name):
            raise OlderAnswer
        return super().read(fields, name)


class _Record(JsonBytes):
    def __init__(self) -> None:
        super().__init__(size=RECORD_BYTES)

    def read(self, fields: Fields, name: str) -> Any:
        data = super().read(fields, name)
        return PieceRecord(struct.unpack_from(">I", data)[0], data[4:])

    def write(self, value: Any) -> Json:
        return super().write(value.encode())


@frozen
class Answer(Content):
    """What an audited node signs for its auditor; in no log. `nonce` and `time` are the prover's; `index` is the piece
    index, `asked` the auditor's nonce."""

    predicate: ClassVar = AUDIT_ANSWER
    by: ByAuthor
    artifact: SubjectDigest
    federation: Annotated[Digest, _Federation()]
    auditor: Digest
    asked: Annotated[Digest, JsonPath("challenge")]
    lease: Annotated[int, JsonNumber(most=MAX_LEASE)]
    nonce: Digest
    index: Digest
    time: int
    answered: Annotated[
        tuple[tuple[int, PieceRecord, Digest], ...],
        JsonItems(MAX_CHALLENGED, 1, of=JsonRow(JsonNumber(), _Record(), JsonDigest())),
        JsonPath("pieces"),
        "Each [number, record in base64, hash].",
    ]

    @property
    def challenge(self) -> AuditChallenge:
        numbers = tuple(number for number, _, _ in self.answered)
        return AuditChallenge(self.auditor, self.by.id, self.artifact, self.index, self.asked, numbers, self.lease)

    @property
    def pieces(self) -> dict[int, tuple[PieceRecord, Digest]]:
        """{number: (record, hash)} of the challenged pieces."""
        return {number: (record, digest) for number, record, digest in self.answered}

    def check(self, statement: Statement) -> None:
        _ = self.challenge  # made of numbers that a challenge may have


def sign_answer(
    record: NodeRecord,
    federation: Digest,
    challenge: AuditChallenge,
    nonce: Digest,
    time: int,
    read: Sequence[ReadPiece],
    online: Signer,
) -> Entry:
    answer = Answer(
        by=record.node,
        artifact=challenge.artifact,
        federation=federation,
        auditor=challenge.auditor,
        asked=challenge.nonce,
        lease=challenge.lease,
        nonce=nonce,
        index=challenge.pieces,
        time=time,
        answered=tuple((piece.number, piece.record, piece.digest) for piece in read),
    )
    return sign_content(answer, online)


ExpectedHash = Callable[[int, Digest], Digest]
"""The possession hash of a piece, by its number and the prover's nonce, from the verifier's own copy. Blocking."""


def check_answer(
    federation: Digest,
    challenge: AuditChallenge,
    numbers: PieceNumbers,
    prover: NodeRecord,
    line: bytes,
    paths: Sequence[Sequence[bytes]],
    expected: ExpectedHash,
) -> Answer:
    """Verify an answer. Blocking if `expected` is. Raises AuditFailed, OlderAnswer, and what `expected` raises.

    Args:
        line: the signed answer. paths: the Merkle path of each challenged piece, in order.
    """
    try:
        entry = parse_entry(line)
        answer = Answer.parse(entry.statement)
    except OlderAnswer:
        raise
    except ComityError as error:
        raise AuditFailed("malformed", error.why) from error
    if answer.by != prover.node or not entry.envelope.verified_by(prover.online):
        raise AuditFailed("signature", f"not signed by {prover.name}")
    if (answer.federation, answer.challenge) != (federation, challenge):
        raise AuditFailed("challenge", "it answers another challenge: it is stale, swapped or replayed")
    if len(paths) != len(challenge.numbers):
        raise AuditFailed("malformed", f"{len(paths)} Merkle paths instead of {len(challenge.numbers)}")
    for number, path in zip(challenge.numbers, paths, strict=True):
        record, digest = answer.pieces[number]
        check_record(numbers.find(number), number, record, path)
        if digest != expected(number, answer.nonce):
            raise AuditFailed("digest", f"the hash of piece {number} is not that of its bytes", number)
    return answer


def check_record(piece: NumberedPiece, number: int, record: PieceRecord, path: Sequence[bytes]) -> None:
    """Raises AuditFailed unless the record is in the piece index."""
    try:
        root = bytes.fromhex(piece.layout.root)
        verify_inclusion(leaf_hash(record.encode()), piece.index, piece.layout.count, path, root)
    except ComityError as error:
        raise AuditFailed("record", f"the record of piece {number} is not in the piece index", number) from error


class _Line(JsonRead):
    controls = True

    def __init__(self) -> None:
        super().__init__(str, _ASCII, write=lambda line: line.decode("ascii"), most=MAX_LINE, least=0)

    def read(self, fields: Fields, name: str) -> bytes:
        value = fields.take(name)
        if not (isinstance(value, str) and value.isascii() and len(value) <= MAX_LINE):
            raise fields.error(f"{name!r} must be null or a line")
        return value.encode("ascii")


@frozen
class AuditFailure(Content):
    """A failed audit of a node, in full, as the node `by` logged it.

    Attributes:
        time: POSIX seconds by the auditor's clock.
        answer: the line that the prover signed, if it signed this challenge; otherwise the failure is only a claim.
        piece: the number of the first wrong piece.
    """

    predicate: ClassVar = AUDITED
    by: ByAuthor
    challenge: Annotated[AuditChallenge, JsonMerged("failed")]
    time: Annotated[int, JsonPath("failed.time")]
    reason: Annotated[str, JsonWord(REASONS), JsonPath("failed.reason")]
    answer: Annotated[
        bytes | None,
        _Line(),
        JsonPath("failed.answer"),
        "The line that the audited node signed, if it answered this challenge.",
    ] = None
    piece: Annotated[int | None, JsonPath("failed.piece"), "The first wrong piece."] = None

    @property
    def prover(self) -> Digest:
        return self.challenge.prover

    @classmethod
    def is_form_of(cls, statement: Statement) -> bool:
        return "failed" in statement.body

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject("", self.challenge.artifact),)


@frozen
class AuditRow:
    """Results of one copy on one day: audits passed and their pieces, and audits without an answer."""

    artifact: Digest
    prover: Digest
    passed: int
    pieces: int
    missed: int


@frozen
class AuditSummary(Content):
    """The results of a day, counted from 1970. The subjects are artifacts; each result is [subject, node, passed,
    pieces, missed]. `root` is the RFC 6962 root over the `answers` lines that passed."""

    predicate: ClassVar = AUDITED
    subject_count: ClassVar = (1, MAX_SUBJECTS)
    by: ByAuthor
    named: Subjects
    nodes: Annotated[tuple[Digest, ...], JsonItems(MAX_ROWS, 1)]
    results: Annotated[tuple[tuple[int, ...], ...], JsonItems(MAX_ROWS, 1, of=JsonRow(*[JsonNumber()] * 5))]
    day: int
    root: Digest
    answers: int

    @classmethod
    def of(cls, by: Author, day: int, rows: Sequence[AuditRow], root: Digest, answers: int) -> AuditSummary:
        artifacts = list(dict.fromkeys(row.artifact for row in rows))
        nodes = list(dict.fromkeys(row.prover for row in rows))
        at, of = ({digest: index for index, digest in enumerate(items)} for items in (artifacts, nodes))
        results = [(at[row.artifact], of[row.prover], row.passed, row.pieces, row.missed) for row in rows]
        named = tuple(Subject("", digest) for digest in artifacts)
        return cls(by, named, tuple(nodes), tuple(results), day, root, answers)

    @property
    def rows(self) -> tuple[AuditRow, ...]:
        return tuple(
            AuditRow(self.named[subject].digest, self.nodes[node], passed, pieces, missed)
            for subject, node, passed, pieces, missed in self.results
        )

    def subjects(self) -> tuple[Subject, ...]:
        return self.named

    def check(self, statement: Statement) -> None:
        for subject, node, passed, pieces, missed in self.results:
            if subject >= len(self.named) or node >= len(self.nodes) or passed + missed == 0:
                raise self.malformed("a result names no listed artifact or node, or has no audit")
            if not passed <= pieces <= passed * MAX_CHALLENGED:
                raise self.malformed(f"an audit has 1 to {MAX_CHALLENGED} pieces")
        if len({(row.artifact, row.prover) for row in self.rows}) != len(self.results):
            raise self.malformed("a copy is listed twice")
        if self.answers != sum(row.passed for row in self.rows):
            raise self.malformed("'answers' must be the number of passed audits")


def answers_root(lines: Iterable[bytes]) -> Digest:
    """RFC 6962 root over the signed answers of a summary, in hex."""
    return Digest(merkle_root([leaf_hash(line) for line in lines]).hex())


def parse_audited(statement: Statement) -> AuditFailure | AuditSummary:
    """Raises Malformed."""
    return (AuditFailure if AuditFailure.is_form_of(statement) else AuditSummary).parse(statement)


def split_rows(rows: Sequence[AuditRow]) -> list[list[AuditRow]]:
    """Split the results of a day into those of one summary each: at most 64 artifacts and 512 results."""
    parts: list[list[AuditRow]] = []
    artifacts: set[Digest] = set()
    for row in rows:
        if not parts or len(parts[-1]) == MAX_ROWS or len({*artifacts, row.artifact}) > MAX_SUBJECTS:
            parts.append([])
            artifacts = set()
        parts[-1].append(row)
        artifacts.add(row.artifact)
    return parts


def is_evidence(failure: AuditFailure, prover: NodeRecord) -> bool:
    """Whether the prover itself signed the answer in a failure, for exactly this challenge. If not, the failure is only
    a claim of the auditor. That the answer is wrong is then checked with `check_failure` by a holder of the piece."""
    if failure.answer is None or failure.piece is None:
        return False
    try:
        entry = parse_entry(failure.answer)
        answer = Answer.parse(entry.statement)
    except ComityError:
        return False
    signed = answer.by == prover.node == Author("node", failure.prover) and entry.envelope.verified_by(prover.online)
    return signed and answer.challenge == failure.challenge and failure.piece in answer.pieces


def check_failure(failure: AuditFailure, prover: NodeRecord, numbers: PieceNumbers, copy: PieceSource) -> str | None:
    """What is wrong with the signed answer in a failure: `record` or `digest`; None if nothing is, or if the prover did
    not sign it. A holder of the failed piece and of the piece records of its file can check this. Blocking.

    Raises Malformed, and NotFound if `copy` is without them.
    """
    if not is_evidence(failure, prover):
        return None
    assert failure.answer is not None and failure.piece is not None
    answer = Answer.parse(parse_entry(failure.answer).statement)
    challenge = replace(failure.challenge, numbers=(failure.piece,))
    (true,) = read_pieces(answer.federation, challenge, answer.nonce, numbers, copy)
    record, digest = answer.pieces[failure.piece]
    if record != true.record:
        return "record"
    return "digest" if digest != true.digest else None
