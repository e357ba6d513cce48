"""Search by parts of names: it finds the same as a scan of all names, in pages, in both databases."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from attackers.forging import Identity, Release
from comity.ledger import proven as proven_module
from comity.ledger.database import Database, migrate
from comity.ledger.intake import IntakeResult, statement_facts
from comity.ledger.ledger import Backing, Ledger
from comity.ledger.listing_turns import ROUND_BITS
from comity.ledger.name_search import grams_of, name_index
from comity.ledger.proven import ListedPublication
from comity.ledger.sqlite import SqliteFile
from comity.trust.statement import parse_entry
from comity.trust.tlog.merkle import EMPTY_ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from support.examples import examples
from support.logs import LogKeys

FIRST, SECOND = LogKeys.generate("first.example/log"), LogKeys.generate("second.example/log")
PUBLISHER = Identity.made("a publisher")
RELEASE = Release(b"one\n")
NAMES = [f"org-{number % 3}/{family}-{number}@v{number % 2}" for number in range(12) for family in ("apertus", "poro")]
WORDS = [
    (),
    ("apertus",),
    ("apertus", "-11"),
    ("org-1", "poro"),
    ("@v1",),
    ("r", "-7"),
    ("absent",),
    ("apertus", "absent"),
]


@pytest.fixture
def ledger(tmp_path: Path, backing: Backing | None) -> Iterator[Ledger]:
    with closing(Ledger.open(tmp_path, lambda: 1_000, backing=backing)) as made:
        for log, names in ((FIRST, NAMES[:20]), (SECOND, NAMES[20:])):
            made.logs.create(log.origin, log.vkey)
            prove(made, log, [publication(name) for name in names])
        yield made


@functools.cache
def publication(name: str) -> bytes:
    return PUBLISHER.publish(name, Release(name.encode()))


def prove(ledger: Ledger, log: LogKeys, lines: list[bytes]) -> None:
    ledger.logs.advance(log.origin, 0, lines, log.note_over(lines))
    while (batch := ledger.intake.next_batch(log.vkey)).lines:
        facts = (statement_facts(index, parse_entry(line)) for index, line in enumerate(batch.lines, batch.start))
        ledger.intake.commit(batch, IntakeResult(log.vkey, tuple(item for item in facts if item is not None)))


def every(ledger: Ledger, words: Sequence[str]) -> list[ListedPublication]:
    """The result of a scan of all names."""
    return [item for item in ledger.proven.listed(None, 1_000) if all(word in item.name for word in words)]


def test_pages_list_each_matching_publication_once_in_order(ledger: Ledger) -> None:
    for words, limit in itertools.product(WORDS, (1, 5, 50)):
        found, after = list[ListedPublication](), None
        while True:
            page = ledger.proven.named(words, after, limit)
            found += page.found
            after = page.after
            if after is None:
                break
            assert len(page.found) == limit
        assert found == every(ledger, words), (words, limit)


def test_matching_names_are_listed_in_order_or_reported_as_too_many(ledger: Ledger) -> None:
    for words in WORDS:
        names = sorted({item.name.rpartition("@")[0] for item in every(ledger, words)})
        found = ledger.proven.names_with(words, 1_000)
        if words == ("@v1",):
            assert found == [], "no name has its version"
        else:
            assert found == (names if grams_of(*words) else None), words
    assert ledger.proven.names_with(("apertus",), 3) is None


def test_a_word_that_no_name_has_reads_no_name(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> object:
        raise AssertionError("names were read")

    monkeypatch.setattr(type(ledger.proven), "listed", refused)
    assert ledger.proven.named(("absent",), None, 50).found == ()
    assert len(ledger.proven.named(("apertus-7",), None, 50).found) == 1


def test_a_search_that_reads_too_many_names_continues_in_the_next_page(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proven_module, "MAX_CANDIDATES", 5)
    monkeypatch.setattr(proven_module, "MAX_ANSWER", 5)
    page = ledger.proven.named(("-7",), None, 5)
    assert (page.found, page.after is not None) == ((), True)


@settings(max_examples=examples(80), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.text(min_size=1, max_size=50), max_size=4))
def test_any_words_can_be_searched(ledger: Ledger, words: list[str]) -> None:
    assert list(ledger.proven.named(words, None, 50).found) == every(ledger, words)
    ledger.proven.names_with(words, 50)


def test_signs_of_the_query_languages_are_characters(ledger: Ledger) -> None:
    for quoted in ("'", '"', "\\", "a'b", 'x"" OR', "*&|", "a:b", "NEAR("):
        assert ledger.proven.named((quoted * 3,), None, 50).found == (), quoted


def test_publications_of_an_earlier_version_are_found(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "ledger.sqlite")
    lock = file.lock()
    with closing(Database(file.engine(), lock)) as database:
        migrate(database, "0010")
        log = "INSERT INTO logs (id, origin, vkey, own, size, root, staged) VALUES (7, 'o', 'v', 0, 0, :root, 0)"
        row = (
            "INSERT INTO publications"
            ' (log_id, turn, "index", predicate, name, publisher, version, repository, artifact)'
            " VALUES (7, :turn, :turn, 'published', :name, :digest, 'V1', :name, :digest)"
        )
        with database.writing("test") as connection:
            connection.execute(text(log), {"root": EMPTY_ROOT})
            for turn in range(2_500):
                connection.execute(text(row), {"turn": turn, "name": f"a/m{turn:04}", "digest": bytes(32)})
        migrate(database)
        with database.reading() as connection:
            index = name_index(connection)
            turns = [(turn // 8 << ROUND_BITS) + turn % 8 for turn in range(2_500)]
            assert index.find(connection, grams_of("m2499@v1"), (0, -1), 9) == [(turns[-1], 7)]
            assert index.find(connection, grams_of("a/m"), (0, -1), 9_999) == [(turn, 7) for turn in turns]
    lock.release()


@pytest.mark.parametrize("names", [60, pytest.param(1_500, marks=pytest.mark.slow)])
def test_one_publisher_with_many_names_leaves_the_first_page_to_everybody(ledger: Ledger, names: int) -> None:
    """The names of the flood come before and after the others, in one log."""
    flood, *honest = [Identity.made(f"publisher {number}") for number in range(4)]
    lines = [flood.publish(f"aaa/apertus-{number:04}@v1", RELEASE) for number in range(names)]
    own = [who.publish(f"own/apertus-{number}@v1", RELEASE) for number, who in enumerate(honest)]
    log = LogKeys.generate("open.example/log")
    ledger.logs.create(log.origin, log.vkey, own=True)
    for some in (lines[: names // 2], own, lines[names // 2 :]):
        for start in range(0, len(some), 250):
            ledger.logs.append(log.vkey, some[start : start + 250])
    first = [item.name for item in ledger.proven.named(("apertus",), None, 40).found]
    assert {f"own/apertus-{number}@v1" for number in range(3)} < set(first)
    assert {f"own/apertus-{number}" for number in range(3)} < set(ledger.proven.names_in_turn("", 40))
    every = ledger.proven.names_in_turn("", 1_000) if names < 1_000 else []
    assert len(every) == len(set(every))
    after = every[20:21]
    assert not after or ledger.proven.names_in_turn(after[0], 1_000) == every[21:]
