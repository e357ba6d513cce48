"""Statements about one digest in a ledger: the first ones are the same whatever others say, and cost the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comity.ledger import subject_reads
from comity.ledger.database import find_log
from comity.ledger.ledger import Backing, Ledger
from comity.ledger.subject_reads import ProvenPosition
from comity.rules.precedence import Bounds, Precedence, Selection
from comity.trust.encoding import sha256
from comity.trust.statement import Author, parse_entry
from sqlalchemy import event
from support.logs import LogKeys, statement_line

LOG = LogKeys.generate("open.example/log")
MODEL = sha256(b"a model")
PUBLISHER, MEMBER, LISTED = (Author("identity", sha256(who)) for who in (b"publisher", b"member", b"listed"))
KNOWN = Precedence(frozenset({PUBLISHER.id}), frozenset({MEMBER.id}))
OWN = [
    statement_line(0, predicate="published", subject=MODEL, by=PUBLISHER),
    statement_line(1, predicate="hold", subject=MODEL, by=MEMBER),
]
LATER = [
    statement_line(2, predicate="advisory", subject=MODEL, by=PUBLISHER),
    statement_line(3, predicate="advisory", subject=MODEL, by=MEMBER),
]


@pytest.fixture
def ledger(tmp_path: Path, backing: Backing | None) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: 1_000, backing=backing)
    opened.logs.create(LOG.origin, LOG.vkey, own=True)
    yield opened
    opened.close()


def fresh(number: int) -> Author:
    return Author("identity", sha256(b"fresh %d" % number))


def flood(ledger: Ledger, kind: str, count: int, first: int = 100) -> None:
    """Advisories about the model by many fresh identities, one listed author or one member."""
    of_one = {"listed": LISTED, "member": MEMBER}
    predicate = "vouched" if kind == "member" else "advisory"
    lines = [
        statement_line(at, predicate=predicate, subject=MODEL, by=of_one.get(kind) or fresh(at))
        for at in range(first, first + count)
    ]
    for start in range(0, count, 500):
        ledger.logs.append(LOG.origin, lines[start : start + 500])


@contextmanager
def counted(ledger: Ledger) -> Iterator[dict[str, int]]:
    """The queries, and the rows that they return."""
    cost = {"queries": 0}

    def executed(*_: Any) -> None:
        cost["queries"] += 1

    engine = ledger._database._engine
    event.listen(engine, "after_cursor_execute", executed)
    try:
        yield cost
    finally:
        event.remove(engine, "after_cursor_execute", executed)


def about(ledger: Ledger, precedence: Precedence = KNOWN) -> Selection[ProvenPosition]:
    return ledger.proven.claims_about(MODEL, precedence, Bounds())


def said_by(ledger: Ledger, found: Selection[ProvenPosition], author: Author) -> set[bytes]:
    lines = {line.line for line in ledger.proven.lines(found.found)}
    return {line for line in (*OWN, *LATER) if line in lines and parse_entry(line).statement.by == author}


def check_flood(ledger: Ledger, kind: str, count: int) -> None:
    ledger.logs.append(LOG.origin, OWN)
    flood(ledger, kind, count)
    ledger.logs.append(LOG.origin, LATER)
    flood(ledger, kind, count, first=100_000)
    with counted(ledger) as cost:
        found = about(ledger)
    assert said_by(ledger, found, PUBLISHER) == {OWN[0], LATER[0]}
    assert said_by(ledger, found, MEMBER) == {OWN[1], LATER[1]}
    assert len(found.first) <= 4 + Bounds().member
    assert len(found.others) <= Bounds().others + 2
    assert cost["queries"] <= 60
    assert found.cut == (frozenset({MEMBER.id}) if kind == "member" else frozenset())
    assert found.more_others is (kind != "member")


@pytest.mark.parametrize("kind", ["fresh", "listed", "member"])
def test_statements_of_others_hide_none_of_the_publisher_and_of_members(
    ledger: Ledger, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject_reads, "FEW", 20)
    check_flood(ledger, kind, 60)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fresh", "listed", "member"])
def test_two_thousand_statements_of_others_hide_none_of_the_publisher_and_of_members(ledger: Ledger, kind: str) -> None:
    check_flood(ledger, kind, 1_000)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["fresh", "listed", "member"])
def test_ten_thousand_statements_of_others_hide_none_of_the_publisher_and_of_members(ledger: Ledger, kind: str) -> None:
    check_flood(ledger, kind, 5_000)


def test_a_reader_gets_the_statements_of_the_authors_that_it_names(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject_reads, "FEW", 20)
    flood(ledger, "fresh", 100)
    wanted = statement_line(7, predicate="advisory", subject=MODEL, by=LISTED)
    ledger.logs.append(LOG.origin, [wanted])
    lines = [line.line for line in ledger.proven.lines(about(ledger).found)]
    assert wanted not in lines
    named = about(ledger, KNOWN.naming([LISTED.id]))
    assert [line.line for line in ledger.proven.lines(named.first)] == [wanted]
    assert not named.cut


@pytest.mark.parametrize("few", [1, 1_000])
def test_the_newest_statements_of_an_author_with_too_many_are_read(
    ledger: Ledger, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the author logged them again in another log."""
    monkeypatch.setattr(subject_reads, "FEW", few)
    lines = [statement_line(at, predicate="advisory", subject=MODEL, by=PUBLISHER) for at in range(12)]
    ledger.logs.append(LOG.origin, lines)
    found = ledger.proven.claims_about(MODEL, KNOWN, replace(Bounds(), named=3))
    assert {line.line for line in ledger.proven.lines(found.first)} == set(lines[-3:])
    assert found.cut == {PUBLISHER.id}


@pytest.mark.parametrize("few", [1, 1_000])
def test_few_and_many_statements_are_read_in_the_same_way(
    ledger: Ledger, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.logs.append(LOG.origin, [*OWN, *LATER])
    flood(ledger, "fresh", 90)
    flood(ledger, "listed", 40, first=500)
    flood(ledger, "member", 50, first=900)
    expected = about(ledger)
    monkeypatch.setattr(subject_reads, "FEW", few)
    assert about(ledger) == expected


def test_the_first_publishers_are_those_that_this_node_proved_first(ledger: Ledger) -> None:
    ledger.logs.append(LOG.origin, OWN)
    rivals = [statement_line(at, predicate="published", subject=MODEL, by=fresh(at)) for at in range(20)]
    ledger.logs.append(LOG.origin, rivals)
    first = ledger.proven.first_publishers(MODEL, 3)
    assert first == (PUBLISHER.id, fresh(0).id, fresh(1).id)


def test_rounds_count_the_statements_of_each_author(ledger: Ledger) -> None:
    """Whether they come in one batch or one by one."""
    lines = [statement_line(at, predicate="advisory", subject=MODEL, by=fresh(at % 2)) for at in range(9)]
    ledger.logs.append(LOG.origin, lines[:4])
    for line in lines[4:]:
        ledger.logs.append(LOG.origin, [line])
    with ledger._database.reading() as connection:
        log = find_log(connection, LOG.origin).id
        found = [subject_reads.next_round(connection, MODEL, fresh(who).id, "advisory", log) for who in range(3)]
    assert found == [5, 4, 0]
