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
from dataclasses import dataclass
from typing import Final

from comity.trust.encoding import Digest, Json, b64decode, b64encode
from comity.trust.errors import Malformed
from comity.trust.keys import Signer
from comity.trust.node_records import NodeRecord
from comity.trust.statement import (
    MAX_OBJECT_BYTES,
    MAX_SUBJECTS,
    Author,
    Entry,
    SideObject,
    Statement,
    Subject,
    sign_statement,
)
from comity.trust.statement_kinds import HOLD, HOLD_WITHDRAWN, HOLDS

MAX_HELD: Final = MAX_SUBJECTS
"""Artifacts of one statement."""
MAX_LABEL: Final = 64
"""Characters of the label of one artifact: a line about many stays short."""
_RECORD: Final = struct.Struct(">I32s")
WITHDRAWAL_REASONS: Final = ("space", "retention", "legal-order", "licence", "safety", "damaged", "other")
MAX_BASIS: Final = 4_000


@dataclass(frozen=True, slots=True)
class Hold:
    """A node claims a complete copy of `artifact`; `pieces` is the digest of the piece index."""

    by: Author
    artifact: Digest
    pieces: Digest


def sign_hold(
    record: NodeRecord, artifact: Digest, manifest: SideObject, pieces: SideObject, online: Signer, label: str = ""
) -> Entry:
    """`label` makes a repeated hold another statement."""
    body = {"manifest": manifest.to_json(), "pieces": pieces.to_json()}
    statement = Statement(HOLD, (Subject(label, artifact),), record.node, body, (manifest, pieces))
    return sign_statement(statement, online)


def parse_hold(statement: Statement) -> Hold:
    """Raises Malformed."""
    by = statement.author(HOLD)
    fields = statement.fields()
    manifest, pieces = SideObject.from_json(fields.take("manifest")), SideObject.from_json(fields.take("pieces"))
    fields.done()
    artifact = statement.sole_subject()
    if manifest.digest != artifact or {manifest, pieces} != set(statement.objects):
        raise Malformed("hold is malformed", why="its subject must be the digest of its manifest")
    return Hold(by, artifact, pieces.digest)


@dataclass(frozen=True, slots=True)
class HeldArtifact:
    """A complete copy that a node claims, as its `hold` or one of its `holds` names it. `label` makes a repeated claim
    another statement."""

    by: Author
    manifest: SideObject
    pieces: SideObject
    label: str = ""

    @property
    def artifact(self) -> Digest:
        return self.manifest.digest


def sign_holds(record: NodeRecord, held: Sequence[HeldArtifact], online: Signer) -> Entry:
    """Claim copies of 2 to MAX_HELD artifacts. Raises Malformed if an artifact is named twice, or for another number
    of artifacts."""
    ordered = sorted(held, key=lambda item: item.artifact)
    body: dict[str, Json] = {
        "manifests": [item.manifest.size for item in ordered],
        "pieces": b64encode(
            b"".join(_RECORD.pack(item.pieces.size, bytes.fromhex(item.pieces.digest)) for item in ordered)
        ),
    }
    subjects = tuple(Subject(item.label, item.artifact) for item in ordered)
    statement = Statement(HOLDS, subjects, record.node, body)
    parse_holds(statement)
    return sign_statement(statement, online)


def parse_holds(statement: Statement) -> tuple[HeldArtifact, ...]:
    """The artifacts of a `holds` statement. Raises Malformed."""
    by, subjects = statement.author(HOLDS), statement.subjects
    if not 2 <= len(subjects) <= MAX_HELD:
        raise Malformed("holds is malformed", why=f"{len(subjects)} artifacts instead of 2 to {MAX_HELD}")
    if any(one.digest >= next_one.digest for one, next_one in itertools.pairwise(subjects)):
        raise Malformed("holds is malformed", why="its artifacts are not in ascending order, each once")
    if any(len(subject.name) > MAX_LABEL for subject in subjects):
        raise Malformed("holds is malformed", why=f"a label has more than {MAX_LABEL} characters")
    fields = statement.fields()
    sizes = fields.items("manifests", least=2, most=MAX_HELD)
    records = b64decode(fields.take("pieces"))
    fields.done()
    if (len(sizes), len(records)) != (len(subjects), _RECORD.size * len(subjects)):
        raise Malformed("holds is malformed", why="not one manifest and one piece index for each artifact")
    return tuple(
        HeldArtifact(by, SideObject(subject.digest, _size(size)), _pieces(*record), subject.name)
        for subject, size, record in zip(subjects, sizes, _RECORD.iter_unpack(records), strict=True)
    )


def read_holds(statement: Statement) -> tuple[HeldArtifact, ...]:
    """The artifacts of a `hold` or `holds` statement. Raises Malformed."""
    if statement.predicate == HOLDS:
        return parse_holds(statement)
    hold, objects = parse_hold(statement), {item.digest: item for item in statement.objects}
    return (HeldArtifact(hold.by, objects[hold.artifact], objects[hold.pieces], statement.subjects[0].name),)


def hold_of(statement: Statement, artifact: Digest) -> HeldArtifact | None:
    """What a `hold` or `holds` statement says about one artifact; None if it does not name it. Raises Malformed."""
    return next((item for item in read_holds(statement) if item.artifact == artifact), None)


def _size(value: Json) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_OBJECT_BYTES:
        raise Malformed("holds is malformed", why="a manifest has a size that no side object has")
    return value


def _pieces(size: int, digest: bytes) -> SideObject:
    if size > MAX_OBJECT_BYTES:
        raise Malformed("holds is malformed", why="a piece index has a size that no side object has")
    return SideObject(Digest(digest.hex()), size)


@dataclass(frozen=True, slots=True)
class HoldWithdrawn:
    """A node ends its `hold` of `artifact`, which is entry `hold` of its log. `kept`: it keeps the bytes without
    serving them; `forced`: it did not ask whether enough others hold a copy."""

    by: Author
    artifact: Digest
    hold: int
    reason: str
    basis: str
    kept: bool = False
    forced: bool = False


def sign_hold_withdrawn(record: NodeRecord, withdrawn: HoldWithdrawn, online: Signer) -> Entry:
    """Raises Malformed if the statement is not valid."""
    body: dict[str, Json] = {
        "basis": withdrawn.basis,
        "forced": withdrawn.forced,
        "hold": withdrawn.hold,
        "kept": withdrawn.kept,
        "reason": withdrawn.reason,
    }
    statement = Statement(HOLD_WITHDRAWN, (Subject("", withdrawn.artifact),), record.node, body)
    parse_hold_withdrawn(statement)
    return sign_statement(statement, online)


def parse_hold_withdrawn(statement: Statement) -> HoldWithdrawn:
    """Raises Malformed."""
    by = statement.author(HOLD_WITHDRAWN)
    fields = statement.fields()
    kept, forced = fields.take("kept"), fields.take("forced")
    if not (isinstance(kept, bool) and isinstance(forced, bool)):
        raise fields.error("'kept' and 'forced' must be true or false")
    hold, reason = fields.integer("hold"), fields.choice("reason", WITHDRAWAL_REASONS)
    basis = fields.text("basis", least=0, most=MAX_BASIS, lines=True)
    fields.done()
    return HoldWithdrawn(by, statement.sole_subject(), hold, reason, basis, kept, forced)
