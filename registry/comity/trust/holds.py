"""One `holds` statement: a node claims complete copies of 2 to 64 artifacts, under one signature.

    subject      the artifacts, by their manifests' digests, in ascending order
    "manifests"  the sizes of the manifests, in the same order
    "pieces"     base64 of one record of 36 bytes for each artifact: u32 size || SHA-256 of its piece index

It says of each artifact what a `hold` says of one, at the same index of the same log, and each is withdrawn alone. It
names no side objects: manifest and piece index are those of a publication, which names them.
Source: protocol, section 5; decision 31.
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
from comity.trust.statements import NodeRecord, parse_hold

HOLD: Final = "hold"
HOLDS: Final = "holds"
HOLD_PREDICATES: Final = (HOLD, HOLDS)
MAX_HELD: Final = MAX_SUBJECTS
"""Artifacts of one statement."""
MAX_LABEL: Final = 64
"""Characters of the label of one artifact: a line about many stays short."""
_RECORD: Final = struct.Struct(">I32s")


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
    by, subjects = statement.by, statement.subjects
    if statement.predicate != HOLDS or by is None or by.kind != "node":
        raise Malformed("holds is malformed", why="not a holds statement of a node")
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
