"""The kind in the row of a publication: which statements decide it, and what a search for one kind reads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.ledger import proven as proven_module
from comity.ledger.database import migrate, set_revision
from comity.ledger.ledger import Backing, Ledger
from comity.node.intake import LineProver
from comity.rules.artifact_kind import KindStated
from comity.rules.signing import sign_content
from comity.trust.encoding import sha256
from comity.trust.names import Name
from comity.trust.statement import Entry, SideObject
from comity.trust.statements import Licence, Published
from sqlalchemy import text
from support.logs import LogKeys
from support.rotations import CLASSICAL
from support.world import Identity, identity

FAR = LogKeys.generate("far.example/log")
OWNER, RIVAL = identity("Owner", algs=CLASSICAL), identity("Rival", algs=CLASSICAL)


def published(name: str, by: Identity = OWNER) -> Entry:
    manifest = SideObject(sha256(name.encode()), 100)
    pieces = SideObject(sha256(b"pieces"), 1)
    return sign_content(
        Published(by.id, Name.parse(f"{name}@v1"), manifest.digest, manifest, pieces, Licence("MIT")), by.signer
    )


def kind(name: str, word: str, number: int = 0, by: Identity = OWNER) -> Entry:
    stated = KindStated(by.id, Name.parse(f"{name}@v1"), sha256(name.encode()), word, number)
    return sign_content(stated, by.signer)


@pytest.fixture
def ledger(tmp_path: Path, backing: Backing | None) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: 1_000, backing=backing)
    opened.logs.create(FAR.origin, FAR.vkey)
    yield opened
    opened.close()


def say(ledger: Ledger, *entries: Entry) -> None:
    lines = [entry.line for entry in (OWNER.entry, RIVAL.entry, *entries)]
    ledger.logs.advance(FAR.vkey, 0, lines, FAR.note_over(lines))
    LineProver(ledger, lambda who: ()).finish_all()


def names(ledger: Ledger, *kinds: str, words: tuple[str, ...] = (), limit: int = 50) -> list[str]:
    """All pages of a search."""
    found, after = list[str](), None
    while True:
        page = ledger.proven.named(words, after, limit, kinds)
        found += [item.name for item in page.found]
        after = page.after
        if after is None:
            return found


SAID = (published("lab/words"), kind("lab/words", "dataset"), kind("lab/words", "prompt", 1))


@pytest.mark.parametrize("entries", list(itertools.permutations(SAID)))
def test_the_newest_kind_counts_in_whatever_order_the_statements_are_logged(
    ledger: Ledger, entries: tuple[Entry, ...]
) -> None:
    say(ledger, *entries, published("lab/model"))
    assert names(ledger, "prompt") == ["lab/words@v1"]
    assert names(ledger, "dataset") == []
    assert names(ledger, "model") == ["lab/model@v1"]
    assert names(ledger, "model", "prompt") == ["lab/words@v1", "lab/model@v1"]


def test_two_last_statements_that_contradict_each_other_and_those_of_strangers_leave_a_model(ledger: Ledger) -> None:
    say(ledger, published("lab/words"), kind("lab/words", "dataset"), kind("lab/words", "prompt"),
        published("lab/other"), kind("lab/other", "dataset", by=RIVAL))  # fmt: skip
    assert names(ledger, "model") == ["lab/words@v1", "lab/other@v1"]
    assert names(ledger, "dataset", "prompt") == []


@pytest.mark.parametrize("limit", [1, 3, 50])
@pytest.mark.parametrize("few", [1, 4, 4_000])
def test_pages_of_one_kind_have_what_a_scan_of_all_names_has(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, limit: int, few: int
) -> None:
    """Whether a search reads the index of kinds or that of words, which depends on how many there are."""
    monkeypatch.setattr(proven_module, "MAX_CANDIDATES", few)
    every = [f"lab/{family}-{number}" for number in range(6) for family in ("words", "tiny")]
    say(ledger, *map(published, every), *(kind(name, "dataset") for name in every[:7]))
    wanted = [f"{name}@v1" for name in every[:7]]
    assert names(ledger, "dataset", limit=limit) == wanted
    assert names(ledger, "dataset", words=("words",), limit=limit) == [name for name in wanted if "words" in name]
    assert names(ledger, "dataset", words=("w",), limit=limit) == [name for name in wanted if "words" in name]
    assert names(ledger, "dataset", "model", limit=limit) == [f"{name}@v1" for name in every]


def test_one_publisher_with_many_datasets_leaves_the_first_page_to_everybody(ledger: Ledger) -> None:
    flood = [f"aaa/words-{number:02}" for number in range(60)]
    say(ledger, *map(published, flood), *(kind(name, "dataset") for name in flood),
        published("own/words", RIVAL), kind("own/words", "dataset", by=RIVAL))  # fmt: skip
    first = ledger.proven.named((), None, 20, ("dataset",))
    assert "own/words@v1" in [item.name for item in first.found]


def test_a_ledger_of_an_earlier_version_gets_the_kinds(ledger: Ledger) -> None:
    say(ledger, published("lab/words"), kind("lab/words", "dataset"), published("lab/model"))
    with ledger._database.writing("test") as connection:
        connection.execute(text("DROP INDEX ix_publications_kind_turn_log_id"))
        connection.execute(text("ALTER TABLE publications DROP COLUMN kind"))
        set_revision(connection, "0023")
    migrate(ledger._database)
    assert (names(ledger, "dataset"), names(ledger, "model")) == (["lab/words@v1"], ["lab/model@v1"])
