"""The search for proven statements in the logs of a ledger, and the positions of lines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from comity.ledger.entry_index import EntryPosition, EntryQuery, IndexedEntry
from comity.ledger.intake import IntakeResult, statement_facts
from comity.ledger.ledger import Backing, Ledger
from comity.rules.precedence import Bounds, Precedence
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, NotFound, Untrusted
from comity.trust.statement import Author, parse_entry
from support.logs import LogKeys, statement_line, statement_lines

OWN = LogKeys.generate("own.example/log")
FAR = LogKeys.generate("far.example/log")
SOMEONE = Author("node", sha256(b"someone"))
MODEL = sha256(b"a model")

OWN_LINES = [
    statement_line(0, predicate="published", name="swiss-ai/Apertus-8B@v1", subject=MODEL),
    statement_line(1, predicate="hold", name="swiss-ai/apertus-8b@v1", subject=MODEL, by=SOMEONE),
    statement_line(2, predicate="published", name="straße/modell_1@v1"),
    statement_line(3, predicate="published", name="other/100%@v1"),
]
FAR_LINES = [
    b"no statement at all",
    statement_line(4, predicate="hold", name="swiss-ai/apertus-8b@v1", subject=MODEL),
    OWN_LINES[0],
]


@pytest.fixture
def ledger(tmp_path: Path, backing: Backing | None) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: 1_000, backing=backing)
    opened.logs.create(OWN.origin, OWN.vkey, own=True)
    opened.logs.create(FAR.origin, FAR.vkey)
    opened.logs.append(OWN.origin, OWN_LINES)
    opened.logs.advance(FAR.origin, 0, FAR_LINES, FAR.note_over(FAR_LINES))
    believe(opened, FAR.vkey)
    yield opened
    opened.close()


def believe(ledger: Ledger, log: str) -> None:
    """Treat all statements of mirrored logs as proven."""
    stretch = ledger.intake.next_batch(log)
    facts = []
    for index, line in enumerate(stretch.lines, stretch.start):
        with contextlib.suppress(Malformed):
            facts.append(statement_facts(index, parse_entry(line)))
    ledger.intake.commit(stretch, IntakeResult(log, tuple(item for item in facts if item is not None)))


def test_the_next_statement_with_a_predicate_is_found_without_those_between(ledger: Ledger) -> None:
    following = partial(ledger.index.next_with, OWN.origin)
    assert [following(("hold", "vouched"), start, 4) for start in range(5)] == [1, 1, 4, 4, 4]
    assert following(("published", "hold"), 1, 4) == 1
    assert following(("published",), 0, 0) == 0
    assert following(("vouched",), 0, 4) == 4
    assert ledger.index.next_with(FAR.origin, ("hold",), 0, 3) == 1


def test_the_newest_statements_about_a_digest_come_from_each_log_in_turn(ledger: Ledger) -> None:
    audits = [statement_line(at, predicate="audited", subject=MODEL) for at in range(10, 15)]
    ledger.logs.append(OWN.origin, audits)
    lines = [*FAR_LINES, statement_line(20, predicate="audited", subject=MODEL)]
    ledger.logs.advance(FAR.origin, len(FAR_LINES), lines[-1:], FAR.note_over(lines))
    believe(ledger, FAR.vkey)
    found = ledger.proven.newest_about(MODEL, "audited", 4)
    assert [(item.vkey == OWN.vkey, item.index) for item in found] == [(True, 8), (False, 3), (True, 7), (True, 6)]
    assert ledger.proven.newest_about(MODEL, "audited", 100)[-1].index == 4
    assert len(ledger.proven.newest_about(MODEL, "audited", 100)) == 6
    assert ledger.proven.newest_about(sha256(b"another model"), "audited", 4) == []
    held = {position.index for position in ledger.proven.claims_about(MODEL, Precedence(), Bounds()).found}
    assert held.isdisjoint({4, 5, 6, 7, 8})  # audits are no part of the claims about an artifact


def places(found: list[IndexedEntry]) -> list[tuple[str, int]]:
    return [("own" if entry.origin == OWN.origin else "far", entry.index) for entry in found]


def find(ledger: Ledger, query: EntryQuery) -> list[tuple[str, int]]:
    return places(ledger.index.find(query))


def test_an_empty_query_finds_everything_in_order_of_log_and_index(ledger: Ledger) -> None:
    expected = [("own", index) for index in range(4)] + [("far", index) for index in (1, 2)]
    assert find(ledger, EntryQuery()) == expected


def test_a_query_finds_the_exact_lines(ledger: Ledger) -> None:
    assert [entry.line for entry in ledger.index.find(EntryQuery(origin=FAR.origin))] == FAR_LINES[1:]


def test_statements_are_found_by_subject_in_every_log(ledger: Ledger) -> None:
    assert find(ledger, EntryQuery(subject=MODEL)) == [("own", 0), ("own", 1), ("far", 1), ("far", 2)]


def test_every_condition_must_hold(ledger: Ledger) -> None:
    assert find(ledger, EntryQuery(subject=MODEL, predicate="hold")) == [("own", 1), ("far", 1)]
    assert find(ledger, EntryQuery(subject=MODEL, predicate="hold", by=SOMEONE.id)) == [("own", 1)]
    assert find(ledger, EntryQuery(subject=MODEL, predicate="hold", origin=FAR.origin)) == [("far", 1)]


def test_pages_follow_one_another_without_gap_or_repetition(ledger: Ledger) -> None:
    pages: list[IndexedEntry] = []
    last = None
    while page := ledger.index.find(EntryQuery(), limit=2, after=last):
        assert len(page) <= 2
        pages.extend(page)
        last = (page[-1].vkey, page[-1].index)
    assert pages == ledger.index.find(EntryQuery())


def test_a_query_in_one_log_is_a_feed(ledger: Ledger) -> None:
    ledger.logs.append(OWN.origin, statement_lines(10, 12))
    assert places(ledger.index.find(EntryQuery(origin=OWN.origin), after=(OWN.origin, 3))) == [("own", 4), ("own", 5)]


def test_staged_entries_are_found_only_once_they_are_visible(ledger: Ledger) -> None:
    lines = [*FAR_LINES, statement_line(20, name="staged/model@v1")]
    ledger.logs.stage(FAR.origin, 3, lines[3:])
    assert ledger.intake.next_batch(FAR.vkey).lines == ()
    assert ledger.index.positions(sha256(lines[3])) == []
    ledger.logs.advance(FAR.origin, 4, [], FAR.note_over(lines))
    assert ledger.intake.next_batch(FAR.vkey).lines == (lines[3],)


def test_statements_of_a_mirrored_log_are_found_once_they_are_proven(ledger: Ledger) -> None:
    line = statement_line(20, subject=MODEL)
    ledger.logs.advance(FAR.origin, 3, [line], FAR.note_over([*FAR_LINES, line]))
    assert ("far", 3) not in find(ledger, EntryQuery(subject=MODEL))
    believe(ledger, FAR.vkey)
    assert ("far", 3) in find(ledger, EntryQuery(subject=MODEL))


def test_refused_entries_leave_nothing_for_the_intake(ledger: Ledger) -> None:
    with pytest.raises(Untrusted):
        ledger.logs.advance(FAR.origin, 3, [statement_line(20, name="forged/model@v1")], FAR.note(4, b"\x01" * 32))
    assert ledger.intake.next_batch(FAR.vkey).lines == ()


def test_a_line_is_found_by_its_digest_in_any_log(ledger: Ledger) -> None:
    assert ledger.index.positions(sha256(OWN_LINES[0])) == [
        EntryPosition(OWN.origin, OWN.vkey, 0),
        EntryPosition(FAR.origin, FAR.vkey, 2),
    ]
    assert ledger.index.positions(sha256(b"never logged")) == []


@pytest.mark.parametrize("limit", [0, 1001])
def test_a_limit_out_of_bounds_is_refused(ledger: Ledger, limit: int) -> None:
    with pytest.raises(Malformed):
        ledger.index.find(EntryQuery(), limit=limit)


def test_a_query_in_an_unknown_log_is_not_found(ledger: Ledger) -> None:
    with pytest.raises(NotFound):
        ledger.index.find(EntryQuery(origin="nobody.example/log"))
