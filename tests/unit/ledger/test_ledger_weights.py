"""The size that a log counts, as stored and once; and how much outsiders may add to the own log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attackers.forging import Identity, Release
from comity.ledger import entry_rows
from comity.ledger.entry_rows import LINE_OVERHEAD
from comity.ledger.intake import IntakeResult, statement_facts
from comity.ledger.ledger import Backing, Ledger
from comity.ledger.page_sums import CHECKPOINT_BYTES
from comity.ledger.quotas import ALL, AUTHOR, OutsideAmount, OutsideQuota
from comity.ledger.sqlite import MAX_WAL_BYTES
from comity.ledger.stored_lines import pack_line
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound, OutOfSpace, Untrusted
from comity.trust.statement import (
    Entry,
    SideObject,
    Statement,
    Subject,
    parse_entry,
    sign_payload,
    sign_statement,
)
from sqlalchemy import Connection
from support.logs import AUTHOR as WHO
from support.logs import PUBLISHER, LogKeys, statement_lines

OWN = LogKeys.generate("own.example/log")
FAR = LogKeys.generate("far.example/log")
LARGE, OTHER = SideObject(sha256(b"large"), 32 * 1024**2), SideObject(sha256(b"other"), 7)


@pytest.fixture
def ledger(tmp_path: Path, backing: Backing | None) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: 1_000, backing=backing)
    opened.logs.create(OWN.origin, OWN.vkey, own=True)
    opened.logs.create(FAR.origin, FAR.vkey)
    yield opened
    opened.close()


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.suffix == ".sqlite")


def naming(number: int, *objects: SideObject) -> bytes:
    statement = Statement("vouched", (Subject("", sha256(str(number).encode())),), WHO, {"number": number}, objects)
    return sign_statement(statement, PUBLISHER).line


def weight(*lines: bytes) -> int:
    """The counted size of lines, without their objects."""
    return sum(len(line) + LINE_OVERHEAD for line in lines)


def test_a_log_of_short_lines_is_charged_for_its_size_on_the_disk(tmp_path: Path) -> None:
    who, release = Identity.made("a flood"), Release(b"short\n")
    lines = [who.publish(f"a/b{number}@v1", release) for number in range(500)]
    ledger = Ledger.open(tmp_path, lambda: 1_000)
    ledger.logs.create(FAR.origin, FAR.vkey)
    ledger.close()
    empty = _size(tmp_path)
    ledger = Ledger.open(tmp_path, lambda: 1_000)
    ledger.logs.advance(FAR.origin, 0, lines, FAR.note_over(lines))
    while (batch := ledger.intake.next_batch(FAR.vkey)).lines:
        facts = (statement_facts(index, parse_entry(line)) for index, line in enumerate(batch.lines, batch.start))
        ledger.intake.commit(batch, IntakeResult(FAR.vkey, tuple(item for item in facts if item is not None)))
    charged = ledger.logs.weight(FAR.vkey)
    ledger.close()
    used = _size(tmp_path) - empty
    assert sum(len(pack_line(line)) for line in lines) * 3 // 2 < used <= charged


def test_an_object_that_many_lines_name_counts_once_for_a_log(ledger: Ledger) -> None:
    lines = [naming(number, LARGE) for number in range(5)]
    ledger.logs.append(OWN.vkey, lines[:3])
    assert ledger.logs.weight(OWN.vkey) == weight(*lines[:3]) + LARGE.size
    assert ledger.logs.added_weight(OWN.vkey, lines[3:]) == weight(*lines[3:])
    ledger.logs.append(OWN.vkey, lines[3:])
    assert ledger.logs.weight(OWN.vkey) == weight(*lines) + LARGE.size
    added = ledger.logs.added_weight(FAR.vkey, lines)
    assert added == weight(*lines) + LARGE.size, "another log has its own quota"


def test_staged_lines_that_were_replaced_count_no_longer(ledger: Ledger) -> None:
    first, junk, second = naming(0, OTHER), naming(1, LARGE, OTHER), b"no statement"
    ledger.logs.stage(FAR.vkey, 0, [first])
    ledger.logs.stage(FAR.vkey, 1, [junk])
    assert ledger.logs.weight(FAR.vkey) == weight(first, junk) + LARGE.size + OTHER.size
    ledger.logs.stage(FAR.vkey, 1, [second])
    assert ledger.logs.weight(FAR.vkey) == weight(first, second) + OTHER.size
    with pytest.raises(Untrusted):
        ledger.logs.advance(FAR.vkey, 2, [junk], FAR.note_over([first, second, second]))
    assert ledger.logs.weight(FAR.vkey) == 0, "nothing of it is known to be good"


def test_the_weight_is_known_after_a_restart_without_reading_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_objects = [naming(number, LARGE) for number in range(3)]
    ledger = Ledger.open(tmp_path, lambda: 1_000)
    ledger.logs.create(OWN.origin, OWN.vkey, own=True)
    ledger.logs.append(OWN.vkey, with_objects)
    ledger.close()
    again = Ledger.open(tmp_path, lambda: 1_000)
    monkeypatch.setattr(type(again.history), "entries", None)
    assert again.logs.weight(OWN.vkey) == weight(*with_objects) + LARGE.size
    again.close()


def test_a_share_is_charged_whole_or_not_at_all_and_permanently(ledger: Ledger) -> None:
    lines = statement_lines(0, 3)
    size = weight(*lines)
    everybody = OutsideQuota(ALL, "", OutsideAmount(100, 10 * size))
    one, two = (OutsideQuota(AUTHOR, name, OutsideAmount(3, 2 * size)) for name in ("one", "two"))
    assert ledger.outside_usage.charge(OWN.vkey, lines, (everybody, one)) == OutsideAmount(3, size)
    with pytest.raises(OutOfSpace) as refused:
        ledger.outside_usage.charge(OWN.vkey, lines, (everybody, one))
    assert refused.value.code == "LOG-SHARE"
    assert ledger.outside_usage.used(ALL) == OutsideAmount(3, size), "nothing of what was refused is charged"
    amount = ledger.outside_usage.charge(OWN.vkey, lines, (everybody, two))
    assert ledger.outside_usage.used(ALL) == OutsideAmount(6, 2 * size)
    ledger.outside_usage.release((everybody, two), amount)
    assert ledger.outside_usage.used(ALL) == OutsideAmount(3, size)
    assert ledger.outside_usage.used(AUTHOR, "two") == OutsideAmount()


def test_a_refused_author_leaves_no_row(ledger: Ledger) -> None:
    lines = statement_lines(0, 1)
    for number in range(20):
        with pytest.raises(OutOfSpace):
            ledger.outside_usage.charge(OWN.vkey, lines, (OutsideQuota(AUTHOR, str(number), OutsideAmount(0, 0)),))
    assert all(ledger.outside_usage.used(AUTHOR, str(number)) == OutsideAmount() for number in range(20))


def test_lines_of_a_mirrored_log_are_parsed_before_the_transaction_and_not_in_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an earlier version a flood of lines was parsed while every other writer waited."""
    inside: list[bool] = []
    begin, writing = ledger._database.writing, [False]

    @contextmanager
    def watched(point: str) -> Iterator[Connection]:
        with begin(point) as connection:
            writing[0] = True
            yield connection
        writing[0] = False

    def parsed(line: bytes) -> Entry:
        inside.append(writing[0])
        return parse_entry(line)

    entry_rows._remembered_objects.cache_clear()
    monkeypatch.setattr(ledger._database, "writing", watched)
    monkeypatch.setattr(entry_rows, "parse_entry", parsed)
    lines = [naming(number, LARGE) for number in range(3)]
    ledger.logs.stage(FAR.vkey, 0, lines[:2])
    ledger.logs.advance(FAR.vkey, 2, lines[2:], FAR.note_over(lines))
    assert inside == [False] * 3


def test_the_objects_that_a_range_of_entries_names_first_are_listed(ledger: Ledger) -> None:
    lines = [naming(0, OTHER), naming(1), naming(2, LARGE, OTHER), naming(3, OTHER)]
    ledger.logs.append(OWN.vkey, lines)
    ledger.logs.stage(FAR.vkey, 0, lines)
    for log in (OWN.vkey, FAR.vkey):
        ranges = [(0, 4), (0, 1), (1, 2), (1, 4), (3, 4)]
        found = [ledger.side_object_positions.first_named(log, *each) for each in ranges]
        assert found == [[OTHER, LARGE], [OTHER], [], [LARGE], []]
    with pytest.raises(NotFound):
        ledger.side_object_positions.first_named(LogKeys.generate("other.example/log").vkey, 0, 1)


def test_a_short_line_is_parsed_once_and_a_long_line_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = list[bytes]()

    def noted(line: bytes) -> Entry:
        parsed.append(line)
        return parse_entry(line)

    monkeypatch.setattr(entry_rows, "parse_entry", noted)
    entry_rows._remembered_objects.cache_clear()
    short, long = naming(1, LARGE), bytes(entry_rows.REMEMBERED_BYTES + 1)
    for line, objects in 2 * [(short, (LARGE,)), (long, ())]:
        assert entry_rows.named_objects(line) == objects
    assert parsed == [short, long, long]


def test_objects_are_found_with_any_spelling_of_the_payload() -> None:
    usual = parse_entry(naming(1, LARGE)).envelope.payload
    spellings = {
        usual: (LARGE,),
        usual.replace(b'"objects"', b'"\\u006fbjects"'): (LARGE,),
        usual.replace(b'"objects"', b'"ob\\u006Aects" '): (LARGE,),
        usual.replace(b'"objects"', b'"\\bobjects"'): (),
        usual.replace(b'"objects"', b'"subjects"'): (),
        usual.replace(b"vouched", b"noted"): (),
        usual[:-1]: (),
    }
    for payload, objects in spellings.items():
        assert entry_rows._parsed_objects(sign_payload(payload, PUBLISHER).encode()) == objects, payload


def test_a_line_without_the_name_of_objects_is_not_parsed_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_rows, "parse_entry", None)
    plain, *_ = statement_lines(0, 1)
    assert entry_rows._parsed_objects(plain) == ()


def test_a_large_transaction_leaves_no_large_file_beside_the_database(tmp_path: Path) -> None:
    lines = [b"%d" % number + bytes(60_000) for number in range(CHECKPOINT_BYTES // 60_000 + 1)]
    ledger = Ledger.open(tmp_path, lambda: 1_000)
    ledger.logs.create(FAR.origin, FAR.vkey)
    ledger.logs.stage(FAR.vkey, 0, lines)
    for end in range(len(lines), len(lines) + 3):
        ledger.logs.stage(FAR.vkey, end, [b"one more"])
    (wal,) = tmp_path.glob("*-wal")
    assert wal.stat().st_size <= MAX_WAL_BYTES
    ledger.close()
