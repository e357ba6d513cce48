"""Atom feeds of the console: the content of an entry, a bound for each log, and the state that is kept."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from comity.gateway.console.feeds import (
    MAX_ENTRIES,
    FeedEntry,
    FeedMemory,
    atom,
    fair,
    read_memory,
)
from comity.gateway.console.state import RecentEntry
from comity.rules.precedence import MEMBERS, NAMED
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from support.console import HOSTILE

ATOM = "{http://www.w3.org/2005/Atom}"


def entry(number: int, log: str = "log", subject: str = "swiss-ai/apertus@v1", text: str = "") -> FeedEntry:
    what = RecentEntry("published", subject, "by somebody", f"{log} origin", log, number, "/swiss-ai/apertus/tree/v1")
    return FeedEntry(Digest(f"{number:064x}"), number, 1_800_000_000 + number, what, text)


def test_an_entry_has_an_id_of_its_statement_and_says_whose_word_it_is() -> None:
    feed = ET.fromstring(atom("versions", "node.example", "https://models.example.org", [entry(2), entry(1)]))
    assert feed.findtext(f"{ATOM}updated") == "2027-01-15T08:00:02Z"
    first, second = feed.findall(f"{ATOM}entry")
    assert first.findtext(f"{ATOM}id") == f"tag:comity.dev,2026:statement:{2:064x}"
    assert first.findtext(f"{ATOM}id") != second.findtext(f"{ATOM}id")
    link = first.find(f"{ATOM}link")
    assert link is not None and link.get("href") == "https://models.example.org/swiss-ai/apertus/tree/v1"
    assert "Claimed by by somebody" in (first.findtext(f"{ATOM}summary") or "")
    other = ET.fromstring(atom("versions", "other.example", "https://other.example", [entry(2)]))
    assert other.findtext(f"{ATOM}entry/{ATOM}id") == first.findtext(f"{ATOM}id")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_text(text: str) -> None:
    document = atom("advisories", text, "http://127.0.0.1", [entry(1, text, text, text)])
    feed = ET.fromstring(document)
    assert {element.tag.removeprefix(ATOM) for element in feed.iter()} <= {
        *("feed", "id", "title", "updated", "link", "author", "name", "entry", "summary")
    }
    assert not [mark for mark in document if mark in "\u202e\u2066\x1b\x00"]


def test_a_log_that_publishes_without_end_does_not_push_out_the_others() -> None:
    kept: list[FeedEntry] = []
    for number in range(3):
        kept = fair([*kept, entry(number, "quiet")])
    for number in range(10, 500):
        kept = fair([*kept, entry(number, "flood")])
    assert len(kept) == MAX_ENTRIES
    assert [item.number for item in kept[:3]] == [0, 1, 2]
    assert kept[-1].number == 499


@pytest.mark.parametrize("authors", [1, 1_000])
def test_no_number_of_warnings_of_others_pushes_out_those_of_members_and_of_publishers(authors: int) -> None:
    """Also in the same log, before and after."""
    junk = [replace(entry(number), author=sha256(b"%d" % (number % authors))) for number in range(1_000)]
    member = replace(entry(5_000), author=sha256(b"a member"), group=NAMED)
    publisher = replace(entry(5_001), author=sha256(b"a publisher"), group=MEMBERS)
    kept = fair([*junk[:500], member, publisher, *(replace(each, number=each.number + 9_000) for each in junk[500:])])
    assert len(kept) == MAX_ENTRIES
    assert {member, publisher} < set(kept)


def test_a_statement_in_several_logs_is_one_entry_the_first() -> None:
    again = FeedEntry(entry(1).statement, 7, 1, entry(7, "other").what)
    assert fair([entry(1), again]) == [entry(1)]


def test_what_is_remembered_can_be_read_again(tmp_path: Path) -> None:
    memory = FeedMemory(5, {entry(1).statement: 1_800_000_000})
    assert FeedMemory.parse(memory.encode()) == memory
    (tmp_path / "feeds.json").write_bytes(memory.encode()[:-5])
    assert read_memory(tmp_path / "feeds.json") == read_memory(tmp_path / "nothing.json") == FeedMemory(0, {})
    with pytest.raises(Malformed):
        FeedMemory.parse(FeedMemory(0, {Digest(f"{n:064x}"): 1 for n in range(2 * MAX_ENTRIES + 1)}).encode())
