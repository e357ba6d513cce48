"""The state that a witness keeps of logs: one for each pair of origin and key, updated by compare-and-swap."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.ledger.ledger import Backing, Ledger
from comity.ledger.records import NO_CHECKPOINT, WitnessedHead
from comity.rules.tree_proofs import MemoryTree
from comity.trust.errors import Conflict, Untrusted
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import Checkpoint, SignedNote
from support.logs import LogKeys, statement_lines

LOG = LogKeys.generate("outside.example/log")
TREE = MemoryTree(leaf_hash(b"%d" % number) for number in range(32))


@pytest.fixture
def ledger(tmp_path: Path, backing: Backing | None) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: 1_000, backing=backing)
    yield opened
    opened.close()


def note(size: int, log: LogKeys = LOG) -> SignedNote:
    return log.note(size, TREE.root(size))


def seen(size: int, log: LogKeys = LOG) -> WitnessedHead:
    return WitnessedHead(size, TREE.root(size), note(size, log).encode())


def test_a_log_that_was_never_seen_is_empty(ledger: Ledger) -> None:
    assert ledger.witnessed.latest(LOG.verifier) == NO_CHECKPOINT
    assert ledger.witnessed.submitted(LOG.verifier) is None


def test_the_newest_checkpoint_outlives_the_process(tmp_path: Path, backing: Backing | None) -> None:
    first = Ledger.open(tmp_path, lambda: 1_000, backing=backing)
    first.witnessed.move(LOG.verifier, NO_CHECKPOINT, note(3))
    first.close()
    second = Ledger.open(tmp_path, lambda: 1_000, backing=backing)
    assert second.witnessed.latest(LOG.verifier) == seen(3)
    assert second.witnessed.submitted(LOG.verifier) == note(3)
    second.close()


def test_two_keys_of_one_origin_have_a_state_each(ledger: Ledger) -> None:
    rival = LogKeys.generate(LOG.origin)
    ledger.witnessed.move(LOG.verifier, NO_CHECKPOINT, note(3))
    ledger.witnessed.move(rival.verifier, NO_CHECKPOINT, note(5, rival))
    assert ledger.witnessed.latest(LOG.verifier) == seen(3)
    assert ledger.witnessed.latest(rival.verifier) == seen(5, rival)


def test_an_update_from_an_old_state_changes_nothing(ledger: Ledger) -> None:
    ledger.witnessed.move(LOG.verifier, NO_CHECKPOINT, note(3))
    ledger.witnessed.move(LOG.verifier, seen(3), note(9))
    for old in (NO_CHECKPOINT, seen(3), WitnessedHead(9, leaf_hash(b"another"), b"")):
        with pytest.raises(Conflict) as refusal:
            ledger.witnessed.move(LOG.verifier, old, note(12))
        assert refusal.value.code == "LOG-MOVED"
    assert ledger.witnessed.latest(LOG.verifier) == seen(9)


def test_of_concurrent_updates_from_one_state_exactly_one_succeeds(ledger: Ledger) -> None:
    ledger.witnessed.move(LOG.verifier, NO_CHECKPOINT, note(3))
    together, moved = threading.Barrier(8), []

    def race(size: int) -> None:
        together.wait()
        try:
            ledger.witnessed.move(LOG.verifier, seen(3), note(size))
        except Conflict:
            return
        moved.append(size)

    threads = [threading.Thread(target=race, args=(4 + number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(moved) == 1
    assert ledger.witnessed.latest(LOG.verifier) == seen(moved[0])


def test_a_mirrored_log_counts_with_its_mirrored_size(ledger: Ledger) -> None:
    lines = statement_lines(0, 4)
    ledger.logs.create(LOG.origin, LOG.vkey)
    ledger.logs.advance(LOG.vkey, 0, lines, LOG.note_over(lines))
    held = ledger.witnessed.latest(LOG.verifier)
    assert held.size == 4
    with pytest.raises(Conflict):
        ledger.witnessed.move(LOG.verifier, NO_CHECKPOINT, LOG.note_over(lines))
    ledger.witnessed.move(LOG.verifier, held, LOG.note_over(lines))
    assert ledger.witnessed.latest(LOG.verifier) == held


def test_a_log_mirrored_with_another_history_than_submitted_has_no_state(ledger: Ledger) -> None:
    lines = statement_lines(0, 6)
    ledger.witnessed.move(LOG.verifier, NO_CHECKPOINT, note(4))
    ledger.logs.create(LOG.origin, LOG.vkey)
    ledger.logs.advance(LOG.vkey, 0, lines[:3], LOG.note_over(lines[:3]))
    assert ledger.witnessed.latest(LOG.verifier) == seen(4)
    ledger.logs.advance(LOG.vkey, 3, lines[3:], LOG.note_over(lines))
    for look in (ledger.witnessed.latest, lambda log: ledger.witnessed.move(log, seen(4), note(8))):
        with pytest.raises(Untrusted) as refusal:
            look(LOG.verifier)
        assert refusal.value.code == "SPLIT-VIEW"


def test_the_hashes_of_staged_entries_are_read_before_they_are_visible(ledger: Ledger) -> None:
    lines = [b"%d" % number for number in range(300)]
    ledger.logs.create(LOG.origin, LOG.vkey)
    ledger.logs.stage(LOG.vkey, 0, lines)
    assert ledger.logs.staged_leaves(LOG.vkey, 256, 299) == [leaf_hash(line) for line in lines[256:299]]
    assert ledger.logs.staged_leaves(LOG.vkey, 3, 5) == [leaf_hash(b"3"), leaf_hash(b"4")]
    assert ledger.logs.staged_leaves(LOG.vkey, 300, 300) == []
    with pytest.raises(Conflict):
        ledger.logs.staged_leaves(LOG.vkey, 256, 301)


def test_a_checkpoint_of_no_entries_is_a_state_too(ledger: Ledger) -> None:
    empty = Checkpoint(LOG.origin, 0, NO_CHECKPOINT.root).signed(LOG.key)
    ledger.witnessed.move(LOG.verifier, NO_CHECKPOINT, empty)
    assert ledger.witnessed.latest(LOG.verifier) == WitnessedHead(0, NO_CHECKPOINT.root, empty.encode())
