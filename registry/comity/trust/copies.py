"""Copies of artifacts: a node claims that it holds one, and ends the claim. Pure.

A `hold` is a node's claim, in its own log, that it holds every byte; a later `hold-withdrawn` there ends it:

    {"basis":"order 12/2027 of …","by":{"node":"…"},"forced":false,"hold":17,"kept":true,"reason":"legal-order"}

One `holds` statement claims complete copies of 2 to 64 artifacts, under one signature. It says of each artifact what a
`hold` says of one, at the same index of the same log, and each is withdrawn alone. It names no side objects: manifest
and piece index are those of a publication, which names them.

    subject      the artifacts, by their manifests' digests, in ascending order
    "manifests"  the sizes of the manifests, in the same order
    "pieces"     base64 of one record of 36 bytes for each artifact: u32 size || SHA-256 of its piece index

What audits make of these claims, and what counts as enough, is in `comity.rules.copy_counts`. Source: protocol,
section 5.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from typing import Annotated, ClassVar, Final

from comity.trust.codec import JsonBytes, JsonItems, JsonNumber, JsonPath, JsonText, JsonWord
from comity.trust.content import ByAuthor, Content, Label, SubjectDigest, Subjects
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.trust.statement import MAX_OBJECT_BYTES, MAX_SUBJECTS, Author, SideObject, Statement, Subject
from comity.trust.statement_kinds import HOLD, HOLD_WITHDRAWN, HOLDS

MAX_HELD: Final = MAX_SUBJECTS
"""Artifacts of one statement."""
MAX_LABEL: Final = 64
"""Characters of the label of one artifact: a line about many stays short."""
_RECORD: Final = struct.Struct(">I32s")
WITHDRAWAL_REASONS: Final = ("space", "retention", "legal-order", "licence", "safety", "damaged", "other")
MAX_BASIS: Final = 4_000


@frozen
class HeldArtifact(Content):
    """A node holds every byte of an artifact: as its `hold` claims it, or one of its `holds`. `label` makes a repeated
    claim another statement."""

    predicate: ClassVar = HOLD
    by: ByAuthor
    manifest: SideObject
    pieces: SideObject
    label: Label = ""

    @property
    def artifact(self) -> Digest:
        return self.manifest.digest

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject(self.label, self.artifact),)

    def check(self, statement: Statement) -> None:
        if statement.subject != self.artifact:
            raise self.malformed("its subject must be the digest of its manifest")


@frozen
class Holds(Content):
    """A node holds every byte of several artifacts, which are the subjects in ascending order."""

    predicate: ClassVar = HOLDS
    subject_count: ClassVar = (2, MAX_HELD)
    by: ByAuthor
    named: Subjects
    sizes: Annotated[
        tuple[int, ...],
        JsonItems(MAX_HELD, 2, of=JsonNumber(0, MAX_OBJECT_BYTES)),
        JsonPath("manifests"),
        "The sizes of the manifests, in the order of the subjects.",
    ]
    records: Annotated[
        bytes, JsonBytes(), JsonPath("pieces"), "For each artifact 36 bytes: size (u32) and SHA-256 of its piece index."
    ]

    @classmethod
    def of(cls, by: Author, held: Sequence[HeldArtifact]) -> Holds:
        ordered = sorted(held, key=lambda item: item.artifact)
        records = (_RECORD.pack(item.pieces.size, bytes.fromhex(item.pieces.digest)) for item in ordered)
        subjects = tuple(Subject(item.label, item.artifact) for item in ordered)
        return cls(by, subjects, tuple(item.manifest.size for item in ordered), b"".join(records))

    @property
    def held(self) -> tuple[HeldArtifact, ...]:
        pieces = (SideObject(Digest(digest.hex()), size) for size, digest in _RECORD.iter_unpack(self.records))
        return tuple(
            HeldArtifact(self.by, SideObject(subject.digest, size), index, subject.name)
            for subject, size, index in zip(self.named, self.sizes, pieces, strict=True)
        )

    def subjects(self) -> tuple[Subject, ...]:
        return self.named

    def check(self, statement: Statement) -> None:
        if any(one.digest >= next_one.digest for one, next_one in itertools.pairwise(self.named)):
            raise self.malformed("its artifacts are not in ascending order, each once")
        if any(len(subject.name) > MAX_LABEL for subject in self.named):
            raise self.malformed(f"a label has more than {MAX_LABEL} characters")
        if (len(self.sizes), len(self.records)) != (len(self.named), _RECORD.size * len(self.named)):
            raise self.malformed("not one manifest and one piece index for each artifact")
        if any(size > MAX_OBJECT_BYTES for size, _ in _RECORD.iter_unpack(self.records)):
            raise self.malformed("a piece index has a size that no side object has")


def read_holds(statement: Statement) -> tuple[HeldArtifact, ...]:
    """The artifacts of a `hold` or `holds` statement. Raises Malformed."""
    return Holds.parse(statement).held if statement.predicate == HOLDS else (HeldArtifact.parse(statement),)


def hold_of(statement: Statement, artifact: Digest) -> HeldArtifact | None:
    """What a `hold` or `holds` statement says about one artifact; None if it does not name it. Raises Malformed."""
    return next((item for item in read_holds(statement) if item.artifact == artifact), None)


@frozen
class HoldWithdrawn(Content):
    """A node does not hold or serve an artifact any more. It ends its `hold`, which is entry `hold` of its log. `kept`:
    it keeps the bytes without serving them; `forced`: it did not ask whether enough others hold a copy."""

    predicate: ClassVar = HOLD_WITHDRAWN
    by: ByAuthor
    artifact: SubjectDigest
    hold: int
    reason: Annotated[str, JsonWord(WITHDRAWAL_REASONS)]
    basis: Annotated[str, JsonText(MAX_BASIS, 0, lines=True)]
    kept: bool = False
    forced: bool = False
