"""When a node cosigns a mirrored log again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from comity.ledger.ledger import Ledger
from comity.ledger.records import MAX_NAMES
from comity.node.keys import NodeKeys
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.replication.cosigner import HEARTBEAT, CheckedCosignatures, CheckpointCosigner, OpenedNotes
from comity.node.replication.link import StartBarrier
from comity.node.replication.misbehaviour import MisbehaviourProofs
from comity.node.threads import AsyncLedger
from comity.trust.errors import Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.tlog.note import (
    Checkpoint,
    NoteSignature,
    SignedNote,
    VerifierKey,
    cosign,
    cosigner_key,
    verify_cosignature,
)
from support.logs import LogKeys, statement_lines

LOG = LogKeys.generate("far.example/log")
LINES = statement_lines(0, 3)
KEY = PrivateKey.generate("ed25519")
COSIGNER = cosigner_key("own.example/cosigner", KEY.public)


class Bench:
    """A node that cosigns one log."""

    def __init__(self, folder: Path) -> None:
        self.now, self.signed = 10_000.0, 0
        self.tables = Ledger.open(folder, lambda: self.now)
        self.tables.logs.create(LOG.origin, LOG.vkey)
        self.tables.logs.advance(LOG.origin, 0, LINES, LOG.note_over(LINES))

        def sign(checkpoint: Checkpoint, clock: object) -> tuple[NoteSignature, ...]:
            self.signed += 1
            return (cosign(checkpoint, COSIGNER.name, KEY, int(self.now)),)

        keys = SimpleNamespace(record=SimpleNamespace(cosigners=(COSIGNER,)), cosign=sign)
        self.cosigner = CheckpointCosigner(
            AsyncLedger(self.tables),
            cast(Membership, None),
            cast(NodeKeys, keys),
            lambda: self.now,
            Metrics(),
            StartBarrier((), None),
            cast(MisbehaviourProofs, SimpleNamespace(frozen=lambda key: False)),
        )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.tables.close()


def crowd(bench: Bench, count: int) -> None:
    lines = [NoteSignature(f"{number}.example", b"\0\0\0\1", bytes(9)) for number in range(count)]
    head = bench.tables.logs.get(LOG.origin)
    assert bench.tables.cosignatures.add(LOG.origin, head.size, head.root, lines) == count


@pytest.mark.parametrize("others", [0, 47, 48, MAX_NAMES - 1, MAX_NAMES])
async def test_an_unchanged_checkpoint_is_signed_once_a_heartbeat_with_any_number_of_cosigners(
    bench: Bench, others: int
) -> None:
    crowd(bench, others)
    for _ in range(3):
        await bench.cosigner.cosign_if_due(LOG.verifier)
    assert bench.signed == 1
    bench.now += HEARTBEAT
    for _ in range(3):
        await bench.cosigner.cosign_if_due(LOG.verifier)
    assert bench.signed == 2


def test_verified_cosignatures_are_not_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = list[bytes]()

    def counted(line: NoteSignature, key: VerifierKey, checkpoint: Checkpoint) -> int:
        checked.append(line.signature)
        return verify_cosignature(line, key, checkpoint)

    monkeypatch.setattr("comity.node.replication.cosigner.verify_cosignature", counted)
    head = Checkpoint.parse(LOG.note_over(LINES).text)
    good = cosign(head, COSIGNER.name, KEY, 5)
    bad = NoteSignature(good.name, good.key_id, good.signature[:8] + bytes(64))
    results = CheckedCosignatures(most=2)
    for line, valid in ((good, True), (bad, False), (good, True), (bad, False)):
        again = NoteSignature(line.name, line.key_id, line.signature)
        assert results.is_valid(again, COSIGNER, head) is valid
    assert checked == [good.signature, bad.signature]
    assert not results.is_valid(good, COSIGNER, Checkpoint(LOG.origin, 1, bytes(32))), "over another checkpoint"


def test_an_opened_note_is_the_one_that_the_log_signed() -> None:
    opened, note = OpenedNotes(most=1), LOG.note_over(LINES)
    assert opened.get(note, LOG.verifier) == opened.get(note, LOG.verifier) == Checkpoint.parse(note.text)
    other = LOG.note_over(LINES[:1])
    with pytest.raises(Untrusted):
        opened.get(SignedNote(other.text, note.signatures), LOG.verifier)
