"""How logs grow in a ledger, and which changes are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from comity.ledger.ledger import Backing, Ledger
from comity.rules.tiles import ENTRIES, Tile, decode_entries
from comity.trust.encoding import sha256
from comity.trust.errors import Conflict, Equivocation, Malformed, NotFound, Refused, Untrusted
from comity.trust.statement import Author, Statement, Subject, parse_entry, sign_statement
from comity.trust.tlog.merkle import EMPTY_ROOT, leaf_hash, root, verify_consistency, verify_inclusion
from comity.trust.tlog.note import SignedNote
from sqlalchemy import event
from support.logs import LogKeys, statement_line, statement_lines
from support.world import signer

OWN = LogKeys.generate("own.example/log")
FAR = LogKeys.generate("far.example/log")


@pytest.fixture
def ledger(tmp_path: Path, backing: Backing | None) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: 1_000, backing=backing)
    opened.logs.create(OWN.origin, OWN.vkey, own=True)
    opened.logs.create(FAR.origin, FAR.vkey)
    yield opened
    opened.close()


@contextmanager
def counted_queries(ledger: Ledger) -> Iterator[list[str]]:
    """The SQL of each query while the block runs."""
    seen: list[str] = []

    def count(connection: object, cursor: object, sql: str, *_: object) -> None:
        seen.append(sql)

    engine = ledger._database._writers
    event.listen(engine, "before_cursor_execute", count)
    yield seen
    event.remove(engine, "before_cursor_execute", count)


def root_over(lines: list[bytes]) -> bytes:
    return root([leaf_hash(line) for line in lines])


def test_a_new_log_is_empty_and_has_no_checkpoint(ledger: Ledger) -> None:
    state = ledger.logs.get(OWN.origin)
    assert (state.size, state.root, state.staged, state.note, state.own) == (0, EMPTY_ROOT, 0, None, True)


def test_logs_are_listed_in_the_order_of_their_creation(ledger: Ledger) -> None:
    assert [(log.origin, log.own) for log in ledger.logs.all()] == [(OWN.origin, True), (FAR.origin, False)]


def test_a_large_batch_of_new_statements_needs_as_many_queries_as_one_statement(ledger: Ledger) -> None:
    """In an earlier version each line needed two queries of its own: two thirds of the time of an append."""
    lines = statement_lines(0, 202)
    ledger.logs.append(OWN.origin, lines[:1])
    counts = []
    for batch in (lines[1:2], lines[2:]):
        with counted_queries(ledger) as seen:
            ledger.logs.append(OWN.origin, batch)
        counts.append(len(seen))
    assert counts[0] == counts[1] > 0


def test_statements_about_one_digest_keep_their_order_across_batches(ledger: Ledger) -> None:
    subject = sha256(b"one")
    lines = [statement_line(number, subject=subject) for number in range(7)]
    for batch in (lines[:3], lines[3:4], [*lines[2:5], *lines[4:]]):
        ledger.logs.append(OWN.origin, batch)
    assert [line.line for line in ledger.proven.about(subject).found] == lines


def test_creating_a_log_again_changes_nothing(ledger: Ledger) -> None:
    ledger.logs.append(OWN.origin, statement_lines(0, 1))
    assert ledger.logs.create(OWN.origin, OWN.vkey, own=True).size == 1


def test_another_key_under_an_origin_is_another_log(ledger: Ledger) -> None:
    rival = LogKeys.generate(FAR.origin)
    first, second = statement_lines(0, 3), statement_lines(3, 5)
    assert ledger.logs.create(rival.origin, rival.vkey).size == 0
    ledger.logs.advance(FAR.vkey, 0, first, FAR.note_over(first))
    ledger.logs.advance(rival.vkey, 0, second, rival.note_over(second))
    assert ledger.history.entries(FAR.vkey, 0, 3) == first
    assert ledger.history.entries(rival.vkey, 0, 2) == second
    assert ledger.cosignatures.cosigned(rival.vkey).encode() == rival.note_over(second).encode()
    (place,) = ledger.index.positions(sha256(second[0]))
    assert (place.origin, place.vkey, place.index) == (FAR.origin, rival.vkey, 0)


def test_an_origin_alone_names_its_first_log(ledger: Ledger) -> None:
    ledger.logs.create(FAR.origin, LogKeys.generate(FAR.origin).vkey)
    assert ledger.logs.get(FAR.origin).vkey == FAR.vkey


def test_a_note_by_another_key_of_the_origin_moves_nothing(ledger: Ledger) -> None:
    lines = statement_lines(0, 2)
    with pytest.raises(Untrusted):
        ledger.logs.advance(FAR.vkey, 0, lines, LogKeys.generate(FAR.origin).note_over(lines))
    assert ledger.logs.get(FAR.vkey).size == 0


def test_a_mirrored_log_never_becomes_an_own_one(ledger: Ledger) -> None:
    with pytest.raises(Conflict) as refusal:
        ledger.logs.create(FAR.origin, FAR.vkey, own=True)
    assert refusal.value.code == "ORIGIN-TAKEN"


def test_a_key_of_another_name_is_refused(ledger: Ledger) -> None:
    with pytest.raises(Malformed):
        ledger.logs.create("third.example/log", FAR.vkey)


def test_an_unknown_log_is_not_found(ledger: Ledger) -> None:
    with pytest.raises(NotFound) as refusal:
        ledger.logs.append("nobody.example/log", [])
    assert refusal.value.code == "NO-SUCH-LOG"


def test_appended_entries_are_there_with_their_root(ledger: Ledger) -> None:
    lines = statement_lines(0, 300)
    assert ledger.logs.append(OWN.origin, lines[:3]) == [0, 1, 2]
    assert ledger.logs.append(OWN.origin, lines[3:]) == list(range(3, len(lines)))
    state = ledger.logs.get(OWN.origin)
    assert (state.size, state.root) == (300, root_over(lines))
    assert ledger.history.entries(OWN.origin, 0, 300) == lines
    assert ledger.history.entry(OWN.origin, 299) == lines[299]


def test_appending_nothing_changes_nothing(ledger: Ledger) -> None:
    assert ledger.logs.append(OWN.origin, []) == []
    assert ledger.logs.get(OWN.origin).size == 0


def test_one_line_that_is_no_statement_refuses_all_of_them(ledger: Ledger) -> None:
    with pytest.raises(Malformed):
        ledger.logs.append(OWN.origin, [*statement_lines(0, 2), b"not a statement"])
    assert ledger.logs.get(OWN.origin).size == 0


def test_only_its_owner_appends_to_a_log(ledger: Ledger) -> None:
    with pytest.raises(Refused):
        ledger.logs.append(FAR.origin, statement_lines(0, 1))


def test_an_own_log_is_never_mirrored(ledger: Ledger) -> None:
    lines = statement_lines(0, 1)
    with pytest.raises(Refused):
        ledger.logs.advance(OWN.origin, 0, lines, OWN.note_over(lines))


def test_a_mirror_follows_the_signed_log(ledger: Ledger) -> None:
    lines = statement_lines(0, 600)
    ledger.logs.advance(FAR.origin, 0, lines[:200], FAR.note_over(lines[:200]))
    ledger.logs.advance(FAR.origin, 200, lines[200:], FAR.note_over(lines))
    state = ledger.logs.get(FAR.origin)
    assert (state.size, state.root, state.note) == (600, root_over(lines), FAR.note_over(lines).encode())
    assert ledger.history.entries(FAR.origin, 0, 600) == lines


def test_a_mirror_keeps_lines_that_are_no_statements(ledger: Ledger) -> None:
    lines = [b"", b"free text", b"\xff" * 65_535]
    ledger.logs.advance(FAR.origin, 0, lines, FAR.note_over(lines))
    assert ledger.history.entries(FAR.origin, 0, 3) == lines


def test_a_line_beyond_the_bound_is_refused(ledger: Ledger) -> None:
    lines = [b"x" * 65_536]
    with pytest.raises(Malformed):
        ledger.logs.advance(FAR.origin, 0, lines, FAR.note_over(lines))


def test_more_lines_than_one_call_takes_are_refused(ledger: Ledger) -> None:
    with pytest.raises(Malformed):
        ledger.logs.stage(FAR.origin, 0, [b"x"] * 8193)


def test_lines_that_do_not_give_the_signed_root_are_refused_and_leave_nothing(ledger: Ledger) -> None:
    lines = statement_lines(0, 10)
    ledger.logs.advance(FAR.origin, 0, lines[:4], FAR.note_over(lines[:4]))
    before = ledger.logs.get(FAR.origin)
    with pytest.raises(Untrusted) as refusal:
        ledger.logs.advance(FAR.origin, 4, [*lines[4:9], b"forged"], FAR.note_over(lines))
    assert refusal.value.code == "ROOT-MISMATCH"
    assert ledger.logs.get(FAR.origin) == before
    ledger.logs.advance(FAR.origin, 4, lines[4:], FAR.note_over(lines))


def test_a_note_that_another_key_signed_is_refused(ledger: Ledger) -> None:
    lines = statement_lines(0, 2)
    forged = LogKeys.generate(FAR.origin).note_over(lines)
    with pytest.raises(Untrusted):
        ledger.logs.advance(FAR.origin, 0, lines, forged)
    assert ledger.logs.get(FAR.origin).size == 0


def test_a_mirror_never_goes_backwards(ledger: Ledger) -> None:
    lines = statement_lines(0, 5)
    ledger.logs.advance(FAR.origin, 0, lines, FAR.note_over(lines))
    with pytest.raises(Conflict) as refusal:
        ledger.logs.advance(FAR.origin, 3, [], FAR.note_over(lines[:3]))
    assert refusal.value.code == "LOG-MOVED"
    assert ledger.logs.get(FAR.origin).size == 5


def test_the_second_of_two_advances_from_one_size_is_refused(ledger: Ledger) -> None:
    lines = statement_lines(0, 5)
    ledger.logs.advance(FAR.origin, 0, lines[:3], FAR.note_over(lines[:3]))
    with pytest.raises(Conflict):
        ledger.logs.advance(FAR.origin, 0, lines, FAR.note_over(lines))


def test_lines_that_end_before_the_note_are_refused(ledger: Ledger) -> None:
    lines = statement_lines(0, 5)
    with pytest.raises(Conflict):
        ledger.logs.advance(FAR.origin, 0, lines[:3], FAR.note_over(lines))


def test_staged_entries_are_invisible_until_they_give_the_signed_root(ledger: Ledger) -> None:
    lines = statement_lines(0, 700)
    assert ledger.logs.stage(FAR.origin, 0, lines[:300]) == root_over(lines[:300])
    assert ledger.logs.stage(FAR.origin, 300, lines[300:600]) == root_over(lines[:600])
    state = ledger.logs.get(FAR.origin)
    assert (state.size, state.staged) == (0, 600)
    with pytest.raises(NotFound) as refusal:
        ledger.history.entry(FAR.origin, 0)
    assert refusal.value.code == "BEYOND-LOG"
    ledger.logs.advance(FAR.origin, 600, lines[600:], FAR.note_over(lines))
    assert ledger.history.entries(FAR.origin, 0, 700) == lines
    ledger.history.verify_all(FAR.origin)


def test_staging_a_step_again_replaces_it_and_later_ones(ledger: Ledger) -> None:
    lines = statement_lines(0, 600)
    ledger.logs.stage(FAR.origin, 0, [b"bad"] * 600)
    assert ledger.logs.stage(FAR.origin, 0, lines[:100]) == root_over(lines[:100])
    assert ledger.logs.get(FAR.origin).staged == 100
    ledger.logs.advance(FAR.origin, 100, lines[100:], FAR.note_over(lines))
    ledger.history.verify_all(FAR.origin)


def test_a_bad_staged_step_is_dropped_when_it_does_not_give_the_root(ledger: Ledger) -> None:
    lines = statement_lines(0, 300)
    ledger.logs.stage(FAR.origin, 0, [b"bad", *lines[1:280]])
    with pytest.raises(Untrusted):
        ledger.logs.advance(FAR.origin, 280, lines[280:], FAR.note_over(lines))
    assert ledger.logs.get(FAR.origin).staged == 0
    ledger.logs.advance(FAR.origin, 0, lines, FAR.note_over(lines))
    ledger.history.verify_all(FAR.origin)


def test_staging_leaves_no_gap(ledger: Ledger) -> None:
    with pytest.raises(Conflict):
        ledger.logs.stage(FAR.origin, 1, statement_lines(0, 1))


def test_a_checkpoint_is_kept_only_over_a_committed_root(ledger: Ledger) -> None:
    lines = statement_lines(0, 3)
    ledger.logs.append(OWN.origin, lines)
    with pytest.raises(Conflict):
        ledger.logs.set_note(OWN.origin, OWN.note(4, b"\x01" * 32))
    with pytest.raises(Untrusted) as refusal:
        ledger.logs.set_note(OWN.origin, OWN.note(3, b"\x01" * 32))
    assert refusal.value.code == "ROOT-MISMATCH"
    ledger.logs.set_note(OWN.origin, OWN.note_over(lines))
    assert ledger.logs.get(OWN.origin).note == OWN.note_over(lines).encode()


def test_two_roots_of_one_size_are_an_equivocation_that_proves_itself(ledger: Ledger) -> None:
    lines = statement_lines(0, 3)
    ledger.logs.advance(FAR.origin, 0, lines, FAR.note_over(lines))
    second = FAR.note(3, b"\x01" * 32)
    for refused in (
        partial(ledger.logs.advance, FAR.origin, 3, [], second),
        partial(ledger.logs.set_note, FAR.origin, second),
    ):
        with pytest.raises(Equivocation) as refusal:
            refused()
        assert refusal.value.proof == (FAR.note_over(lines).encode(), second.encode())


def test_a_checkpoint_of_an_earlier_size_is_kept_beside_the_newest(ledger: Ledger) -> None:
    lines = statement_lines(0, 5)
    ledger.logs.append(OWN.origin, lines)
    for size in (5, 0, 2, 2):
        ledger.logs.set_note(OWN.origin, OWN.note_over(lines[:size]))
    assert ledger.logs.get(OWN.origin).note == OWN.note_over(lines).encode()
    assert ledger.cosignatures.cosigned(OWN.origin, 2) == OWN.note_over(lines[:2])


def test_a_kept_checkpoint_carries_no_signature_but_the_logs(ledger: Ledger) -> None:
    lines = statement_lines(0, 1)
    ledger.logs.append(OWN.origin, lines)
    note = OWN.note_over(lines)
    stray = LogKeys.generate("stray.example/log").note_over(lines).signatures
    ledger.logs.set_note(OWN.origin, SignedNote(note.text, stray + note.signatures))
    assert ledger.cosignatures.cosigned(OWN.origin) == note


def test_proofs_verify_against_the_roots(ledger: Ledger) -> None:
    lines = statement_lines(0, 520)
    ledger.logs.append(OWN.origin, lines)
    for size in (1, 255, 256, 257, 520):
        there = root_over(lines[:size])
        assert ledger.history.root(OWN.origin, size) == there
        for index in {0, size // 2, size - 1}:
            proof = ledger.history.inclusion(OWN.origin, index, size)
            verify_inclusion(leaf_hash(lines[index]), index, size, proof, there)
        growth = ledger.history.consistency(OWN.origin, size, 520)
        verify_consistency(size, there, 520, root_over(lines), growth)


def test_a_hash_reader_can_be_used_after_the_call_that_made_it(ledger: Ledger) -> None:
    lines = statement_lines(0, 300)
    ledger.logs.append(OWN.origin, lines)
    node = ledger.history.node_reader(OWN.origin, 300)
    assert node(8, 0) == root_over(lines[:256])


def test_proofs_beyond_the_log_are_not_found(ledger: Ledger) -> None:
    with pytest.raises(NotFound):
        ledger.history.inclusion(OWN.origin, 0, 1)
    with pytest.raises(NotFound):
        ledger.history.consistency(OWN.origin, 0, 1)


@pytest.mark.parametrize(("start", "end"), [(-1, 0), (-2, -1), (2, 1)])
def test_entries_that_no_log_has_are_refused(ledger: Ledger, start: int, end: int) -> None:
    ledger.logs.append(OWN.origin, statement_lines(0, 3))
    with pytest.raises(Malformed):
        ledger.history.entries(OWN.origin, start, end)
    with pytest.raises(Malformed):
        ledger.history.root(OWN.origin, -1)


def test_tiles_are_those_of_the_public_format(ledger: Ledger) -> None:
    lines = statement_lines(0, 300)
    ledger.logs.append(OWN.origin, lines)
    hashes = [leaf_hash(line) for line in lines]
    assert ledger.history.tile(OWN.origin, Tile(0, 0)) == b"".join(hashes[:256])
    assert ledger.history.tile(OWN.origin, Tile(0, 1, 44)) == b"".join(hashes[256:])
    assert ledger.history.tile(OWN.origin, Tile(0, 1, 7)) == b"".join(hashes[256:263])
    assert ledger.history.tile(OWN.origin, Tile(1, 0, 1)) == root(hashes[:256])
    assert decode_entries(ledger.history.tile(OWN.origin, Tile(ENTRIES, 1, 44))) == lines[256:]


def test_a_tile_that_the_log_has_not_reached_is_not_found(ledger: Ledger) -> None:
    ledger.logs.append(OWN.origin, statement_lines(0, 300))
    for tile in (Tile(0, 1, 45), Tile(0, 2, 1), Tile(1, 0, 2), Tile(2, 0, 1), Tile(63, 0, 1), Tile(ENTRIES, 1, 45)):
        with pytest.raises(NotFound):
            ledger.history.tile(OWN.origin, tile)


def test_a_long_answer_ends_early_and_is_continued_from_there(ledger: Ledger) -> None:
    lines = [bytes([number % 251]) * 65_535 for number in range(600)]
    ledger.logs.advance(FAR.origin, 0, lines, FAR.note_over(lines))
    first = ledger.history.entries(FAR.origin, 0, 600)
    assert 256 <= len(first) < 600
    assert first + ledger.history.entries(FAR.origin, len(first), 600) == lines


def test_entries_of_several_logs_are_read_in_one_query_in_the_requested_order(ledger: Ledger) -> None:
    lines = statement_lines(0, 5)
    ledger.logs.append(OWN.origin, lines)
    assert ledger.history.entries_at([(OWN.vkey, 4), (OWN.origin, 0), (OWN.vkey, 4)]) == [lines[4], lines[0], lines[4]]
    assert ledger.history.entries_at([]) == []
    for wrong in (5, -1):
        with pytest.raises((NotFound, Malformed)):
            ledger.history.entries_at([(OWN.vkey, wrong)])


def _copies(count: int) -> list[bytes]:
    """Envelopes of one statement: ML-DSA signatures differ each time."""
    said = Statement("noted", (Subject("", sha256(b"said once")),), Author("identity", sha256(b"somebody")), {})
    return [sign_statement(said, signer("somebody")).line for _ in range(count)]


def test_a_logged_statement_is_not_added_again_in_another_envelope(ledger: Ledger) -> None:
    """All envelopes of one payload are one statement."""
    first, second, third = _copies(3)
    assert len({first, second, third}) == 3
    assert ledger.logs.append(OWN.origin, [*statement_lines(0, 1), first, second]) == [0, 1, 1]
    assert ledger.logs.append(OWN.origin, [third, *statement_lines(0, 2)]) == [1, 0, 2]
    assert ledger.history.entries(OWN.origin, 0, 3) == [statement_lines(0, 1)[0], first, statement_lines(1, 2)[0]]
    assert ledger.index.first_index(OWN.origin, parse_entry(third).statement_digest) == 1
    assert ledger.index.first_index(OWN.origin, sha256(b"never said")) is None
