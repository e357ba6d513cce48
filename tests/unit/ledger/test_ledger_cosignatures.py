"""Who has cosigned which checkpoint, and which note is served for an entry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from comity.ledger.ledger import Backing, Ledger
from comity.ledger.records import MAX_NAMES, MAX_SIZES, SHOWN_NAMES
from comity.rules.cosigned_times import verified_cosigners
from comity.trust.charter.document import MAX_MEMBERS
from comity.trust.errors import Malformed, NotFound, Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.tlog.note import MAX_SIGNATURES, Checkpoint, NoteSignature, SignedNote, cosign, cosigner_key
from support.logs import LogKeys, statement_lines

LOG = LogKeys.generate("far.example/log")
SIZES = 80
LINES = statement_lines(0, SIZES)
COSIGNER = PrivateKey.generate("ed25519")
QUANTUM = PrivateKey.generate("ml-dsa-44")


@pytest.fixture
def ledger(tmp_path: Path, backing: Backing | None) -> Iterator[Ledger]:
    """A mirrored log with checkpoints of a few sizes, and its newest one."""
    opened = Ledger.open(tmp_path, lambda: 1_000, backing=backing)
    opened.logs.create(LOG.origin, LOG.vkey)
    opened.logs.advance(LOG.origin, 0, LINES, LOG.note_over(LINES))
    with_checkpoints(opened, (10, 20, 30))
    yield opened
    opened.close()


def with_checkpoints(ledger: Ledger, sizes: Iterable[int]) -> None:
    for size in sizes:
        ledger.logs.set_note(LOG.origin, LOG.note(size, ledger.history.root(LOG.origin, size)))


def line(name: str, time: int = 1, key: int = 0) -> NoteSignature:
    """A cosignature line; the ledger does not verify it again."""
    return NoteSignature(name, key.to_bytes(4, "big"), time.to_bytes(8, "big") + bytes(64))


def add(ledger: Ledger, size: int, *lines: NoteSignature) -> int:
    return ledger.cosignatures.add(LOG.origin, size, ledger.history.root(LOG.origin, size), lines)


def names(note: SignedNote) -> set[str]:
    return {signature.name for signature in note.signatures} - {LOG.origin}


def size_of(note: SignedNote) -> int:
    return Checkpoint.parse(note.text).size


def test_the_note_has_the_cosignatures_and_they_verify(ledger: Ledger) -> None:
    checkpoint = Checkpoint(LOG.origin, SIZES, ledger.history.root(LOG.origin, SIZES))
    made = [cosign(checkpoint, "b.example/cosigner", key, 1_000) for key in (COSIGNER, QUANTUM)]
    assert add(ledger, SIZES, *made) == 2
    keys = [cosigner_key("b.example/cosigner", key.public) for key in (COSIGNER, QUANTUM)]
    note = SignedNote.parse(ledger.cosignatures.cosigned(LOG.origin).encode())
    assert set(verified_cosigners(note, keys, checkpoint)) == set(keys)


def test_the_logs_own_signature_is_the_first(ledger: Ledger) -> None:
    add(ledger, SIZES, line("a"))
    assert ledger.cosignatures.cosigned(LOG.origin).signatures[0].name == LOG.origin


def test_the_same_cosignature_twice_counts_once(ledger: Ledger) -> None:
    assert add(ledger, SIZES, line("a")) == 1
    assert add(ledger, SIZES, line("a"), line("a")) == 0


def test_the_later_of_two_times_stays(ledger: Ledger) -> None:
    assert add(ledger, SIZES, line("a", time=5)) == 1
    assert add(ledger, SIZES, line("a", time=9)) == 1
    assert add(ledger, SIZES, line("a", time=7)) == 0
    assert line("a", time=9) in ledger.cosignatures.cosigned(LOG.origin).signatures


def test_a_cosignature_of_another_root_is_refused(ledger: Ledger) -> None:
    with pytest.raises(Untrusted) as refusal:
        ledger.cosignatures.add(LOG.origin, SIZES, b"\x01" * 32, [line("a")])
    assert refusal.value.code == "ROOT-MISMATCH"


def test_a_cosignature_of_a_checkpoint_that_is_not_here_is_refused(ledger: Ledger) -> None:
    with pytest.raises(NotFound) as refusal:
        ledger.cosignatures.add(LOG.origin, SIZES + 1, b"\x01" * 32, [line("a")])
    assert refusal.value.code == "NO-CHECKPOINT"


@pytest.mark.parametrize("length", [8, 8193])
def test_a_signature_out_of_bounds_is_refused(ledger: Ledger, length: int) -> None:
    with pytest.raises(Malformed):
        add(ledger, SIZES, NoteSignature("a", bytes(4), bytes(length)))


def test_the_best_note_has_most_cosigners_before_it_is_large(ledger: Ledger) -> None:
    add(ledger, 10, line("a"), line("b"), line("c"))
    add(ledger, 20, line("d"), line("e"))
    add(ledger, 30, line("f"))
    best = ledger.cosignatures.best_note(LOG.origin, 9)
    assert (size_of(best), names(best)) == (10, {"a", "b", "c"})
    assert size_of(ledger.cosignatures.best_note(LOG.origin, 10)) == 20
    assert size_of(ledger.cosignatures.best_note(LOG.origin, 20)) == 30


def test_of_equally_cosigned_notes_the_largest_is_best(ledger: Ledger) -> None:
    add(ledger, 10, line("a"), line("b"))
    add(ledger, 20, line("c"), line("d"))
    assert size_of(ledger.cosignatures.best_note(LOG.origin, 0)) == 20


def test_two_keys_of_one_cosigner_count_as_one(ledger: Ledger) -> None:
    add(ledger, 10, line("a"), line("b"))
    add(ledger, 20, line("c", key=1), line("c", key=2))
    assert size_of(ledger.cosignatures.best_note(LOG.origin, 0)) == 10


def test_without_cosigners_the_newest_checkpoint_is_best(ledger: Ledger) -> None:
    assert size_of(ledger.cosignatures.best_note(LOG.origin, 5)) == SIZES


def test_no_note_covers_an_entry_beyond_the_newest_checkpoint(ledger: Ledger) -> None:
    with pytest.raises(NotFound) as refusal:
        ledger.cosignatures.best_note(LOG.origin, SIZES)
    assert refusal.value.code == "NO-CHECKPOINT"


def test_a_size_is_dropped_for_a_larger_one_with_all_its_cosigners(ledger: Ledger) -> None:
    add(ledger, 10, line("a"), line("b"))
    add(ledger, 20, line("a"), line("b"), line("c"))
    assert names(ledger.cosignatures.cosigned(LOG.origin, 10)) == set()
    assert names(ledger.cosignatures.cosigned(LOG.origin, 20)) == {"a", "b", "c"}


def test_a_size_with_a_cosigner_of_its_own_stays(ledger: Ledger) -> None:
    add(ledger, 10, line("a"), line("b"))
    add(ledger, 20, line("a"), line("c"))
    assert names(ledger.cosignatures.cosigned(LOG.origin, 10)) == {"a", "b"}


def test_a_note_never_has_more_lines_than_others_read(ledger: Ledger) -> None:
    crowd = [line(f"cosigner-{number}", key=key) for number in range(300) for key in range(4)]
    add(ledger, SIZES, *crowd)
    note = ledger.cosignatures.cosigned(LOG.origin)
    assert len(names(note)) == SHOWN_NAMES
    assert len(note.signatures) <= MAX_SIGNATURES
    assert SignedNote.parse(note.encode()) == note


def test_every_member_of_the_largest_charter_can_cosign_a_log(ledger: Ledger) -> None:
    crowd = range(MAX_MEMBERS - 1)
    assert add(ledger, SIZES, *(line(f"cosigner-{number}", key=key) for number in crowd for key in (1, 2))) == 2 * len(
        crowd
    )
    for number in (MAX_MEMBERS - 1, MAX_MEMBERS):
        stored = add(ledger, SIZES, line(f"cosigner-{number}", key=1), line(f"cosigner-{number}", key=2))
        assert stored == (2 if number < MAX_MEMBERS else 0)
    assert len(names(ledger.cosignatures.all(LOG.origin))) == MAX_MEMBERS
    assert names(ledger.cosignatures.cosigned(LOG.origin)) < names(ledger.cosignatures.all(LOG.origin))


def test_beyond_the_quota_the_least_cosigned_sizes_are_dropped_and_never_the_newest(ledger: Ledger) -> None:
    with_checkpoints(ledger, range(1, SIZES))
    add(ledger, 1, line("x"), line("y"))
    for size in range(2, SIZES + 1):
        add(ledger, size, line(f"only-at-{size}"))
    kept = [size for size in range(1, SIZES + 1) if names(ledger.cosignatures.cosigned(LOG.origin, size))]
    assert len(kept) == MAX_SIZES
    assert kept[0] == 1
    assert kept[1:] == list(range(SIZES + 2 - MAX_SIZES, SIZES + 1))


HONEST = [f"honest-{number}" for number in range(5)]
MANY = [f"mallory-{number}" for number in range(MAX_NAMES)]


def place(ledger: Ledger) -> None:
    """Known members: five honest ones, and before them one with many cosigners."""
    places = {(name, bytes(4)): 0 for name in MANY}
    places |= {(name, bytes(4)): number for number, name in enumerate(HONEST, 1)}
    ledger.cosignatures.place_by(lambda log: places if log == LOG.vkey else {})


def test_one_member_with_many_cosigners_hides_no_other_member(ledger: Ledger) -> None:
    place(ledger)
    add(ledger, SIZES, *map(line, MANY[: MAX_NAMES - len(HONEST)]), *map(line, HONEST))
    shown = names(ledger.cosignatures.cosigned(LOG.origin))
    assert len(shown) == SHOWN_NAMES
    assert shown.issuperset(HONEST)


def test_one_member_with_many_cosigners_keeps_no_other_member_out(ledger: Ledger) -> None:
    place(ledger)
    assert add(ledger, SIZES, *map(line, MANY)) == MAX_NAMES
    assert add(ledger, SIZES, *map(line, HONEST)) == len(HONEST)
    kept = names(ledger.cosignatures.all(LOG.origin))
    assert len(kept) == MAX_NAMES
    assert kept.issuperset(HONEST)
    assert add(ledger, SIZES, *map(line, set(MANY) - kept)) == 0


def test_one_member_with_many_cosigners_does_not_choose_the_checkpoint(ledger: Ledger) -> None:
    place(ledger)
    add(ledger, 20, *map(line, HONEST))
    add(ledger, 30, *map(line, MANY))
    best = ledger.cosignatures.best_note(LOG.origin, 0)
    assert (size_of(best), names(best)) == (20, set(HONEST))


def test_no_member_takes_the_name_of_another_members_cosigner(ledger: Ledger) -> None:
    places = {("honest", key.to_bytes(4, "big")): place for key, place in ((0, 1), (1, 0), (2, 0))}
    ledger.cosignatures.place_by(lambda log: places)
    add(ledger, SIZES, line("honest", key=1), line("honest", key=2))
    assert add(ledger, SIZES, line("honest")) == 1
    assert line("honest") in ledger.cosignatures.cosigned(LOG.origin).signatures


def test_cosignatures_of_one_member_alone_are_dropped_first(ledger: Ledger) -> None:
    place(ledger)
    with_checkpoints(ledger, range(1, SIZES))
    add(ledger, 1, *map(line, HONEST))
    for size in range(2, SIZES + 1):
        add(ledger, size, *map(line, MANY[size : size + len(HONEST) + 1]))
    assert names(ledger.cosignatures.cosigned(LOG.origin, 1)) == set(HONEST)
