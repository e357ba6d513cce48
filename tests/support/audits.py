"""Copies in memory, audits of them, and statements about audits."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from comity.rules.artifact_pins import Pin, Wanted, WantedWithdrawn
from comity.rules.audit import (
    AuditFailure,
    AuditRow,
    AuditSummary,
    PieceNumbers,
    answers_root,
    draw_challenge,
    draw_nonce,
    read_pieces,
    sign_answer,
)
from comity.rules.copy_counts import CopyPolicy
from comity.rules.pieces import FIXED_LAYOUT, PieceIndex, PieceLayout, records_root
from comity.rules.signing import sign_content
from comity.trust.artifact import FileEntry, Manifest, PieceRecord
from comity.trust.copies import HeldArtifact, Holds, HoldWithdrawn
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound
from comity.trust.statement import SideObject
from support.case import nodes

PROVER, OTHER, AUDITOR, THIRD = nodes(4)
FEDERATION = sha256(b"the federation")
PIECES = sha256(b"the piece index")


@dataclass(frozen=True)
class Copy:
    """A copy in memory, cut into tiny pieces."""

    files: dict[Digest, bytes]
    cut: dict[Digest, tuple[int, ...]]

    def records(self, file: FileEntry, layout: PieceLayout) -> Sequence[PieceRecord]:
        if file.sha256 not in self.cut:
            raise NotFound("no piece records here")
        return records_of(self.files[file.sha256], self.cut[file.sha256])

    def read(self, blob: Digest, offset: int, length: int) -> Iterable[bytes]:
        data = self.files[blob][offset : offset + length]
        return [data[:3], data[3:]]

    def bytes_of(self, numbers: PieceNumbers, number: int) -> Iterable[bytes]:
        """The bytes of a piece, damaged or not."""
        piece = numbers.find(number)
        lengths = self.cut[piece.file.sha256]
        return self.read(piece.file.sha256, sum(lengths[: piece.index]), lengths[piece.index])


def records_of(data: bytes, lengths: Iterable[int]) -> list[PieceRecord]:
    found, at = [], 0
    for length in lengths:
        found.append(PieceRecord(length, bytes.fromhex(sha256(data[at : at + length]))))
        at += length
    return found


def artifact(*files: tuple[bytes, tuple[int, ...]]) -> tuple[PieceNumbers, Copy]:
    copy = Copy({sha256(data): data for data, _ in files}, {sha256(data): cut for data, cut in files})
    entries = [FileEntry(f"file-{at}", len(data), sha256(data)) for at, (data, _) in enumerate(files)]
    layouts = [PieceLayout(FIXED_LAYOUT, len(cut), records_root(records_of(data, cut))) for data, cut in files]
    index = PieceIndex(tuple((entry.path, layout) for entry, layout in zip(entries, layouts, strict=True)))
    return PieceNumbers(Manifest.of(entries), index), copy


_NUMBERS, _COPY = artifact((b"bytes", (2, 3)))
_CHANCE = random.Random(1)
CHALLENGE = draw_challenge(AUDITOR.record.node.id, PROVER.record.node.id, _NUMBERS, PIECES, 2, _CHANCE)
_NONCE = draw_nonce(_CHANCE)
_READ = read_pieces(FEDERATION, CHALLENGE, _NONCE, _NUMBERS, _COPY)
ANSWER = sign_answer(PROVER.record, FEDERATION, CHALLENGE, _NONCE, 1, _READ, PROVER.online).line
FAILURE = sign_content(AuditFailure(AUDITOR.record.node, CHALLENGE, 1, "digest", ANSWER, 1), AUDITOR.online).line
SUMMARY = sign_content(
    AuditSummary.of(
        AUDITOR.record.node,
        20_000,
        (AuditRow(CHALLENGE.artifact, PROVER.record.node.id, 1, 2, 3),),
        answers_root([ANSWER]),
        1,
    ),
    AUDITOR.online,
).line
WITHDRAWN = sign_content(
    HoldWithdrawn(PROVER.record.node, CHALLENGE.artifact, 17, "space", "disk is full"), PROVER.online
).line
WANTED = sign_content(
    Wanted.of(PROVER.record.node, Pin(CHALLENGE.artifact, "", CopyPolicy(3, 3, 2))), PROVER.online
).line
WANTED_WITHDRAWN = sign_content(WantedWithdrawn(PROVER.record.node, CHALLENGE.artifact, 17, "met"), PROVER.online).line
HELD_TOGETHER = sign_content(
    Holds.of(
        PROVER.record.node,
        [
            HeldArtifact(PROVER.record.node, SideObject(sha256(b"%d" % number), 100), SideObject(PIECES, 200))
            for number in range(3)
        ],
    ),
    PROVER.online,
).line
