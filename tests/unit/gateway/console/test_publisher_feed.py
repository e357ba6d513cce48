"""The feed of one publisher: an entry says why it is there, and hostile texts stay texts."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from comity.gateway.console.publisher_feed import ConcernEntry, atom
from comity.gateway.console.state import RecentEntry
from comity.node.publisher_watch import WHYS, Concern, Why
from comity.trust.encoding import Digest
from support.console import HOSTILE

ATOM = "{http://www.w3.org/2005/Atom}"
PUBLISHER = Digest("ab" * 32)


def entry(number: int, why: Why, text: str = "swiss-ai/apertus@v1") -> ConcernEntry:
    concern = Concern(PUBLISHER, why, Digest("cd" * 32), number)
    what = RecentEntry("published", text, text, text, text, number, f"/{text}")
    return ConcernEntry(concern, Digest(f"{number:064x}"), what, 1_800_000_000 + number)


def test_an_entry_says_why_it_concerns_the_publisher_and_a_cut_feed_that_there_is_more() -> None:
    entries = [entry(number, why) for number, why in enumerate(WHYS)]
    feed = ET.fromstring(atom(PUBLISHER, "node.example", "https://a.example", entries, more=True))
    titles = [each.text or "" for each in feed.findall(f"{ATOM}entry/{ATOM}title")]
    assert [title.partition(":")[0] for title in titles] == [
        "Under this identity",
        "Somebody else under a name of this publisher",
        "Files of this publisher under another name",
    ]
    assert "the newest of more than 3" in (feed.findtext(f"{ATOM}title") or "")
    assert "Published an artifact, by swiss-ai" in (feed.findtext(f"{ATOM}entry/{ATOM}summary") or "")
    assert len({each.text for each in feed.findall(f"{ATOM}entry/{ATOM}id")}) == 3
    link = feed.find(f"{ATOM}link")
    assert link is not None and link.get("href") == f"https://a.example/-/feeds/publishers/{PUBLISHER}.atom"
    whole = ET.fromstring(atom(PUBLISHER, "node.example", "https://a.example", [], more=False))
    assert "more than" not in (whole.findtext(f"{ATOM}title") or "") and not whole.findall(f"{ATOM}entry")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_text(text: str) -> None:
    document = atom(PUBLISHER, text, "http://127.0.0.1", [entry(1, why, text) for why in WHYS], more=True)
    names = {element.tag.removeprefix(ATOM) for element in ET.fromstring(document).iter()}
    assert names <= {"feed", "id", "title", "updated", "link", "author", "name", "entry", "summary"}
    assert not [mark for mark in document if mark in "\u202e\u2066\x1b\x00"]
