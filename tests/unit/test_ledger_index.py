"""Finding statements in the logs of a ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.ledger.index import UNKNOWN, Located, Place, Query
from comity.ledger.ledger import Backing, Ledger
from comity.trust.digest import sha256
from comity.trust.errors import Malformed, NotFound, Untrusted
from comity.trust.statement import Author
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
    yield opened
    opened.close()


def places(found: list[Located]) -> list[tuple[str, int]]:
    return [("own" if entry.origin == OWN.origin else "far", entry.index) for entry in found]


def find(ledger: Ledger, query: Query) -> list[tuple[str, int]]:
    return places(ledger.index.find(query))


def test_an_empty_query_finds_everything_in_order_of_log_and_index(ledger: Ledger) -> None:
    expected = [("own", index) for index in range(4)] + [("far", index) for index in range(3)]
    assert find(ledger, Query()) == expected


def test_what_is_found_are_the_exact_lines(ledger: Ledger) -> None:
    assert [entry.line for entry in ledger.index.find(Query(origin=FAR.origin))] == FAR_LINES


def test_statements_are_found_by_subject_in_every_log(ledger: Ledger) -> None:
    assert find(ledger, Query(subject=MODEL)) == [("own", 0), ("own", 1), ("far", 1), ("far", 2)]


def test_every_condition_must_hold(ledger: Ledger) -> None:
    assert find(ledger, Query(subject=MODEL, predicate="hold")) == [("own", 1), ("far", 1)]
    assert find(ledger, Query(subject=MODEL, predicate="hold", by=SOMEONE.id)) == [("own", 1)]
    assert find(ledger, Query(subject=MODEL, predicate="hold", origin=FAR.origin)) == [("far", 1)]


def test_a_line_that_is_no_statement_is_found_as_unknown(ledger: Ledger) -> None:
    assert find(ledger, Query(predicate=UNKNOWN)) == [("far", 0)]


@pytest.mark.parametrize("name", ["apertus", "APERTUS-8b", "swiss-ai/apertus-8b@v1", "S-AI/A"])
def test_a_name_is_found_by_any_part_in_any_case(ledger: Ledger, name: str) -> None:
    assert find(ledger, Query(name=name, origin=OWN.origin)) == [("own", 0), ("own", 1)]


def test_case_folds_beyond_ascii(ledger: Ledger) -> None:
    assert find(ledger, Query(name="STRASSE")) == [("own", 2)]


@pytest.mark.parametrize("name", ["100%", "%@", "l_1"])
def test_wildcards_in_a_name_stand_for_themselves(ledger: Ledger, name: str) -> None:
    assert len(find(ledger, Query(name=name))) == 1


def test_a_prefix_matches_the_beginning_only(ledger: Ledger) -> None:
    assert find(ledger, Query(prefix="Swiss-AI/", origin=OWN.origin)) == [("own", 0), ("own", 1)]
    assert find(ledger, Query(prefix="ai/")) == []


def test_pages_follow_one_another_without_gap_or_repetition(ledger: Ledger) -> None:
    pages: list[Located] = []
    last = None
    while page := ledger.index.find(Query(), limit=2, after=last):
        assert len(page) <= 2
        pages.extend(page)
        last = (page[-1].vkey, page[-1].index)
    assert pages == ledger.index.find(Query())


def test_a_query_in_one_log_is_a_feed(ledger: Ledger) -> None:
    ledger.logs.append(OWN.origin, statement_lines(10, 12))
    assert places(ledger.index.find(Query(origin=OWN.origin), after=(OWN.origin, 3))) == [("own", 4), ("own", 5)]


def test_staged_entries_are_found_only_once_they_are_visible(ledger: Ledger) -> None:
    lines = [*FAR_LINES, statement_line(20, name="staged/model@v1")]
    ledger.logs.stage(FAR.origin, 3, lines[3:])
    assert find(ledger, Query(name="staged/")) == []
    assert ledger.index.places(sha256(lines[3])) == []
    ledger.logs.advance(FAR.origin, 4, [], FAR.note_over(lines))
    assert find(ledger, Query(name="staged/")) == [("far", 3)]


def test_refused_entries_leave_nothing_in_the_index(ledger: Ledger) -> None:
    with pytest.raises(Untrusted):
        ledger.logs.advance(FAR.origin, 3, [statement_line(20, name="forged/model@v1")], FAR.note(4, b"\x01" * 32))
    assert find(ledger, Query(name="forged/")) == []


def test_a_line_is_found_by_its_digest_wherever_it_was_logged(ledger: Ledger) -> None:
    assert ledger.index.places(sha256(OWN_LINES[0])) == [Place(OWN.origin, OWN.vkey, 0), Place(FAR.origin, FAR.vkey, 2)]
    assert ledger.index.places(sha256(b"never logged")) == []


@pytest.mark.parametrize("limit", [0, 1001])
def test_a_limit_out_of_bounds_is_refused(ledger: Ledger, limit: int) -> None:
    with pytest.raises(Malformed):
        ledger.index.find(Query(), limit=limit)


def test_a_query_in_an_unknown_log_is_not_found(ledger: Ledger) -> None:
    with pytest.raises(NotFound):
        ledger.index.find(Query(origin="nobody.example/log"))
