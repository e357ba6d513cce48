"""The list of the console: what it shows of names and copies, how it continues after a restart, and that every search
ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from attackers.forging import Identity, Release
from comity.gateway.console import listing_file
from comity.gateway.console.copies import CopyHolders
from comity.gateway.console.index import FILE_NAME, ArtifactIndex
from comity.gateway.console.listing_file import (
    CatalogueQuery,
    CopySets,
    ListedArtifact,
    ListingFile,
    ReadKind,
    ReadStatement,
)
from comity.gateway.hub.mirrored import LocalArtifacts
from comity.ledger.ledger import Ledger
from comity.node.copies.index import CopiesIndex, HoldFact, ResultFact, WithdrawalFact
from comity.node.members import Membership
from comity.node.projection import Position
from comity.node.threads import AsyncLedger, Pools
from comity.rules.copy_counts import FRESH_DAYS, AuditResult, CopyPolicy
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.charter.document import Member
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, Unavailable
from comity.trust.statement import SideObject
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.logs import LogKeys
from support.world import identity

OWN = LogKeys.generate("own.example/log")
OWNER, OTHER = Digest("f" * 64), Digest("e" * 64)
PUBLISHER = Identity.made("a publisher")
END = Position(1, "line")


def member(number: int, jurisdiction: str) -> Member:
    inception = identity(f"member {number}").inception
    return Member(inception.id, f"member {number}", jurisdiction, inception.keys, ())


MEMBERS = [member(0, "CH"), member(1, "ES"), member(2, "SG")]
HOLDERS = CopyHolders(MEMBERS)


@pytest.fixture
def listing(tmp_path: Path) -> Iterator[ListingFile]:
    with closing(ListingFile(tmp_path / "list.sqlite", "basis", HOLDERS)) as made:
        yield made


def claim(number: int, name: str, publisher: Digest | None = OWNER, version: str = "v1") -> ReadStatement:
    digest = sha256(b"%d" % number)
    manifest = SideObject(digest, 100)
    return ReadStatement("log", number, digest, name, name.lower(), version, publisher, "A label", "MIT", manifest)


def held(said: ReadStatement, held_by: int, tested_by: int = 0) -> CopySets:
    return CopySets(said.artifact, held_by, tested_by)


def names(listing: ListingFile, query: CatalogueQuery | None = None, after: str = "", most: int = 100) -> list[str]:
    return [found.name for found in listing.page(query or CatalogueQuery(), after, most, lambda name: True).found]


def test_copies_are_counted_by_the_sets_of_their_members(listing: ListingFile) -> None:
    said = claim(1, "tests/m")
    listing.set_copies([held(said, 1)], None)
    assert not listing.sets, "not listed"
    listing.add([said], END)
    for held_by, tested_by in ((0, 0), (3, 1), (3, 1), (2, 2), (0, 0)):
        listing.set_copies([held(said, held_by, tested_by)], None)
        assert (listing.sets, listing.tested) == ({held_by: 1}, {tested_by: 1})
        assert CopyHolders.by_bit(listing.sets).get(1, 0) == held_by & 1


def test_copies_are_due_on_the_day_that_may_change_them_and_after_everything_was_forgotten(
    listing: ListingFile,
) -> None:
    first, second = claim(1, "a/one"), claim(2, "a/two")
    listing.add([first, second], END)
    assert set(listing.due(5, 9)) == {first.artifact, second.artifact}
    listing.set_copies([replace(held(first, 1), due=8)], 17)
    assert (listing.due(5, 9), listing.followed) == ([second.artifact], 17)
    listing.set_copies([held(second, 1)], 17)
    assert [listing.due(day, 9) for day in (7, 8, 10**9)] == [[], [first.artifact], [first.artifact]]
    listing.forget_copies()
    assert (len(listing.due(5, 9)), listing.followed) == (2, -1)
    assert listing.known([second.artifact, OTHER, first.artifact]) == [second.artifact, first.artifact]


def test_a_file_that_cannot_be_read_is_an_error_that_the_loop_knows(listing: ListingFile) -> None:
    """Any other exception would end the loop that reads it for good, without a message."""
    listing.close()
    for read in (
        lambda: listing.due(5, 9),
        lambda: listing.pending(9),
        lambda: listing.known([OTHER]),
        lambda: listing.facets("size", 9),
        lambda: names(listing),
        lambda: names(listing, CatalogueQuery(words=("model",))),
    ):
        with pytest.raises(Unavailable) as refused:
            read()
        assert refused.value.code == "INDEX"


def test_the_first_claimant_owns_a_name_unless_the_charter_binds_it(listing: ListingFile) -> None:
    listing.add([claim(1, "Tests/M"), claim(2, "tests/m", OTHER)], END)
    (first,) = listing.page(CatalogueQuery(), "", 9, lambda name: True).found
    assert (first.name, first.publisher, first.others) == ("Tests/M", OWNER, True)
    listing.add([replace(claim(3, "tests/m", OTHER, "v2"), standing="bound")], END)
    (bound,) = listing.page(CatalogueQuery(), "", 9, lambda name: True).found
    assert (bound.publisher, bound.version, bound.others, bound.versions) == (OTHER, "v2", True, 1)
    assert listing.facets("publisher", 9) == [(OTHER, "A label", 1)]


def test_facets_follow_versions_and_manifests(listing: ListingFile) -> None:
    listing.add([claim(1, "a/b"), replace(claim(2, "a/b", version="v2"), licence="Apache-2.0")], END)
    assert listing.facets("licence", 9) == [("apache-2.0", "apache-2.0", 1)]
    assert {item.digest for item in listing.pending(9)} == {sha256(b"1"), sha256(b"2")}
    listing.add_details([ListedArtifact(sha256(b"2"), 0, 0, 3_000_000_000, 2, ("gguf", "safetensors"))])
    assert [value for value, _, _ in listing.facets("format", 9)] == ["gguf", "safetensors"]
    assert listing.facets("size", 9) == [("m", "m", 1)]
    assert names(listing, CatalogueQuery(format="gguf")) == names(listing, CatalogueQuery(size="m")) == ["a/b"]
    assert names(listing, CatalogueQuery(format="onnx")) == names(listing, CatalogueQuery(size="s")) == []
    assert [item.digest for item in listing.pending(9)] == [sha256(b"1")]


def test_a_search_by_copies_and_places(listing: ListingFile) -> None:
    first, second = claim(1, "a/one"), claim(2, "a/two")
    listing.add([first, second], END)
    listing.set_copies([held(first, 3), held(second, 4)], None)
    assert names(listing, CatalogueQuery(jurisdiction="SG")) == ["a/two"]
    assert names(listing, CatalogueQuery(short_of=CopyPolicy(2, 2))) == ["a/two"]
    affected = listing.affected(lambda held_by: held_by == 3, 9, lambda name: True)
    assert [found.name for found in affected.found] == ["a/one"]


def test_a_cursor_names_nothing_that_its_reader_may_not_see(
    listing: ListingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_file, "SCANNED", 10)
    hidden = [f"hidden/model-{number}" for number in range(35)]
    listing.add([claim(number, name) for number, name in enumerate([*hidden, "own/model"])], END)
    found, after, cursors = list[str](), "", list[str]()
    while True:
        page = listing.page(CatalogueQuery(), after, 5, lambda name: name.startswith("own/"))
        found += [each.name for each in page.found]
        if not page.after:
            break
        after = page.after
        cursors.append(after)
    assert found == ["own/model"]
    assert len(cursors) == 3
    assert not any("hidden" in cursor for cursor in cursors)


@pytest.mark.parametrize("after", ["#", "#x", "#-1", "#99", "#" + "9" * 30])
def test_a_cursor_of_no_row_is_refused(listing: ListingFile, after: str) -> None:
    with pytest.raises(Malformed) as refused:
        listing.page(CatalogueQuery(), after, 5, lambda name: True)
    assert refused.value.code == "CURSOR"


@pytest.mark.parametrize("most", [1, 7, 100])
@pytest.mark.parametrize("words", [(), ("model",), ("b", "7"), ("model", "-12"), ("absent",)])
def test_pages_list_each_name_with_the_words_once_in_order(
    listing: ListingFile, words: tuple[str, ...], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_file, "SCANNED", 10)
    monkeypatch.setattr(listing_file, "MAX_RARE", 5)
    every = sorted(f"{org}/model-{number}" for org in "ab" for number in range(20))
    listing.add([claim(number, name) for number, name in enumerate(every)], END)
    found, after = list[str](), ""
    while True:
        page = listing.page(CatalogueQuery(words), after, most, lambda name: True)
        found += [repository.name for repository in page.found]
        after = page.after
        if not after:
            break
    assert found == [name for name in every if all(word in name for word in words)]


def pages(listing: ListingFile, query: CatalogueQuery, most: int) -> list[list[str]]:
    found, after = list[list[str]](), ""
    while True:
        page = listing.page(query, after, most, lambda name: True)
        found.append([repository.name for repository in page.found])
        after = page.after
        if not after:
            return found


@pytest.mark.parametrize("words", [(), ("model",)])
def test_a_thousand_names_of_one_publisher_fill_no_page(listing: ListingFile, words: tuple[str, ...]) -> None:
    """Neither before the names of others, nor after them; under the one publisher its names are in their order."""
    junk = [f"a{number:04}/model" for number in range(1_000)]
    listing.add([claim(number, name, OTHER) for number, name in enumerate(junk)], END)
    listing.add([claim(2_000, "honest/model"), claim(2_001, "mirrored/model", None)], END)
    found = pages(listing, CatalogueQuery(words), 50)
    assert {"honest/model", "mirrored/model"} < set(found[0])
    assert sorted(name for page in found for name in page) == [*junk, "honest/model", "mirrored/model"]
    only = pages(listing, CatalogueQuery(words, publisher=OTHER), 50)
    assert [name for page in only for name in page] == junk


def test_a_name_that_its_owner_gets_is_among_the_first_of_its_owner(listing: ListingFile) -> None:
    listing.add([claim(number, f"a{number:02}/model", OTHER) for number in range(30)], END)
    listing.add([replace(claim(99, "a29/model", OWNER, "v2"), standing="bound")], END)
    assert "a29/model" in pages(listing, CatalogueQuery(), 11)[0]


def test_only_readable_names_are_listed_or_counted_as_found(listing: ListingFile) -> None:
    listing.add([claim(number, f"{org}/m{number}") for number, org in enumerate("abab")], END)
    page = listing.page(CatalogueQuery(), "", 2, lambda name: name.startswith("b/"))
    assert [found.name for found in page.found] == ["b/m1", "b/m3"]


@settings(max_examples=examples(60), deadline=None)
@given(words=st.lists(st.text(min_size=1, max_size=40), max_size=4))
def test_any_words_can_be_searched(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    with closing(ListingFile(tmp_path_factory.getbasetemp() / "any.sqlite", "basis", HOLDERS)) as listing:
        if not listing.position.number:
            listing.add([claim(1, 'a/"quoted" *'), claim(2, "a/NEAR(b")], END)
        found = names(listing, CatalogueQuery(tuple(word.lower() for word in words)))
        assert set(found) <= {'a/"quoted" *', "a/NEAR(b"}


def test_the_counts_of_copies_are_the_same_after_the_list_was_opened_again(tmp_path: Path) -> None:
    file, said = tmp_path / "list.sqlite", claim(1, "a/b")
    with closing(ListingFile(file, "basis", HOLDERS)) as listing:
        listing.add([said], END)
        listing.set_copies([held(said, 1)], None)
    for basis, sets in (("basis", {1: 1}), ("another", {})):
        with closing(ListingFile(file, basis, HOLDERS)) as listing:
            assert listing.sets == sets


class Indexed:
    """An own log with publications, and the index over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger.open(folder, lambda: 1_000)
        self.ledger.logs.create(OWN.origin, OWN.vkey, own=True)
        self.nodes: list[Digest] = []
        self.pools = Pools()
        self.copies = CopiesIndex(folder / "copies.sqlite", "log own", lambda: 1)
        self.day = 20_000
        record = SimpleNamespace(log="log own", member=MEMBERS[0].id, name="node", place=None)
        self.seat = SimpleNamespace(record=record, inception=SimpleNamespace(id=MEMBERS[0].id))
        self.members: Any = None
        self.bound: Digest | None = None
        self.peers = [
            SimpleNamespace(member=seat, record=SimpleNamespace(log=f"log {seat.name}", place=None))
            for seat in MEMBERS[1:]
        ]

    def close(self) -> None:
        self.copies.close()
        self.ledger.close()

    def index(self) -> ArtifactIndex:
        membership = SimpleNamespace(
            body=self.members,
            bound_publisher=lambda name: self.bound if name.lower() == "a" else None,
            node_ids=self.nodes,
            node=lambda author: None,
            reaches=dict,
            own_node=self.seat,
            peers=self.peers,
            shown_name=lambda peer: "peer",
        )
        local = SimpleNamespace(manifest=lambda item: Manifest.of([FileEntry("m.gguf", 5, sha256(b"m"))]))
        arguments = AsyncLedger(self.ledger), self.pools, cast(Membership, membership), cast(LocalArtifacts, local)
        return ArtifactIndex(self.folder, *arguments, self.copies, lambda: self.day * 86_400.0)

    def publish(self, first: int, count: int, by: Identity = PUBLISHER, namespace: str = "a") -> None:
        numbers = range(first, first + count)
        lines = [by.publish(f"{namespace}/m{number}@v1", Release(b"%d\n" % number)) for number in numbers]
        self.ledger.logs.append(OWN.vkey, lines)


async def complete(index: ArtifactIndex) -> int:
    """Read all entries. Returns how many statements were read."""
    read = 0
    original = index._statement

    def counted(*line: Any) -> object:
        nonlocal read
        read += 1
        return original(*line)

    index._statement = counted  # type: ignore[method-assign, assignment]
    for _ in range(2):
        while await index.step():
            pass
    assert index.ready
    return read


@pytest.fixture
def indexed(tmp_path: Path) -> Iterator[Indexed]:
    made = Indexed(tmp_path)
    yield made
    made.close()


async def test_a_restart_reads_only_what_is_new(indexed: Indexed) -> None:
    indexed.publish(0, 5)
    with closing(indexed.index()) as index:
        assert await complete(index) == 5
        assert await index.facets("format", 9) == [("gguf", "gguf", 5)]
    indexed.publish(5, 2)
    with closing(indexed.index()) as index:
        assert await complete(index) == 2
        page = await index.page(CatalogueQuery(), "", 9, lambda name: True)
        assert [found.name for found in page.found] == [f"a/m{number}" for number in range(7)]


async def test_a_name_in_a_bound_namespace_is_of_its_publisher_alone_in_any_case(indexed: Indexed) -> None:
    """A stranger's name there is not listed, whether it came before or after the publisher's."""
    stranger = Identity.made("a stranger")
    indexed.bound = Digest(PUBLISHER.id)
    indexed.publish(0, 2, by=stranger, namespace="A")
    indexed.publish(1, 2)
    indexed.publish(2, 2, by=stranger)
    indexed.publish(9, 1, by=stranger, namespace="elsewhere")
    with closing(indexed.index()) as index:
        await complete(index)
        page = await index.page(CatalogueQuery(), "", 9, lambda name: True)
    shown = {found.name: (found.publisher, found.others) for found in page.found}
    assert shown == {
        "a/m1": (PUBLISHER.id, True),
        "a/m2": (PUBLISHER.id, True),
        "elsewhere/m9": (stranger.id, False),
    }


async def test_a_publisher_alone_in_its_namespace_has_no_others(indexed: Indexed) -> None:
    indexed.bound = Digest(PUBLISHER.id)
    indexed.publish(0, 1, namespace="A")
    with closing(indexed.index()) as index:
        await complete(index)
        page = await index.page(CatalogueQuery(), "", 9, lambda name: True)
    assert [(found.publisher, found.others) for found in page.found] == [(PUBLISHER.id, False)]


async def test_the_list_of_another_ledger_is_computed_again(indexed: Indexed) -> None:
    indexed.publish(0, 3)
    with closing(indexed.index()) as index:
        await complete(index)
        index.listing.add([], Position(2, "of another ledger"))
    with closing(indexed.index()) as index:
        assert await complete(index) == 3
        index.listing.add([], Position(99, "beyond this ledger"))
    with closing(indexed.index()) as index:
        assert await complete(index) == 3


async def test_the_former_list_is_shown_until_that_of_other_nodes_is_complete(indexed: Indexed) -> None:
    indexed.publish(0, 3)
    with closing(indexed.index()) as index:
        await complete(index)
        former = index.listing
        indexed.nodes.append(OWNER)
        await index.step()
        assert index.listing is former
        assert (await index.page(CatalogueQuery(), "", 9, lambda name: True)).found
        await complete(index)
        assert index.listing is not former
        assert [path.name for path in indexed.folder.glob(FILE_NAME.format("*"))] == [index.listing.file.name]


async def test_copies_are_counted_as_the_index_of_copies_assesses_them(indexed: Indexed) -> None:
    indexed.members = SimpleNamespace(members=MEMBERS, digest="d", namespaces={})
    artifact, side = sha256(b"an artifact"), SideObject(Digest("c" * 64), 1)

    def hold(log: str, at: int) -> HoldFact:
        return HoldFact(artifact, log, Digest("e" * 64), at, side, side)

    async def seen() -> tuple[int, int]:
        while await index.step():
            pass
        ((held_by, of_held),) = index.listing.sets.items()
        ((tested_by, of_tested),) = index.listing.tested.items()
        assert of_held == of_tested == 1
        return held_by, tested_by

    copies = indexed.copies
    copies.add([hold("log member 1", 5)])  # before the artifact had a name
    with closing(indexed.index()) as index:
        index.listing.add([replace(claim(1, "tests/m"), artifact=artifact)], Position())
        assert await seen() == (0b010, 0)
        copies.add([hold("log member 2", 3), hold("log own", 1)])
        assert await seen() == (0b111, 0b001)  # this node reads its own copy again all the time
        passed = AuditResult(MEMBERS[2].id, 20_000, "passed", 10)
        copies.add([ResultFact(artifact, "log member 1", passed)])
        assert await seen() == (0b111, 0b011)
        wrong = replace(passed, auditor=MEMBERS[1].id, outcome="wrong", proven=True)
        copies.add([ResultFact(artifact, "log member 2", wrong)])
        assert await seen() == (0b011, 0b011)
        copies.add([WithdrawalFact(artifact, "log own", 9, "space")])
        assert await seen() == (0b010, 0b010)
        copies.add([hold("log own", 10)])
        assert await seen() == (0b011, 0b011)
        indexed.day += 40  # the result is stale on another day
        assert await seen() == (0b111, 0b001)
        copies.begin_again("log own")
        assert await seen() == (0, 0)


async def test_a_restart_looks_only_at_copies_with_changes(indexed: Indexed) -> None:
    indexed.publish(0, 3)
    side = SideObject(Digest("c" * 64), 1)
    looked = list[Digest]()

    async def follow(index: ArtifactIndex) -> list[Digest]:
        original = index._sets_of_members
        looked.clear()

        def noted(listing: ListingFile, artifacts: list[Digest], today: int) -> list[CopySets]:
            looked.extend(artifacts)
            return original(listing, artifacts, today)

        index._sets_of_members = noted  # type: ignore[method-assign, assignment]
        await complete(index)
        return sorted(set(looked))

    indexed.copies.add([], Position(5))
    with closing(indexed.index()) as index:
        assert len(await follow(index)) == 3
    indexed.copies.close()
    indexed.copies = CopiesIndex(indexed.folder / "copies.sqlite", "log own", lambda: 1)
    known = next(iter(looked))
    indexed.copies.add([HoldFact(known, "log member 1", Digest("e" * 64), 5, side, side)], Position(6))
    with closing(indexed.index()) as index:
        assert await follow(index) == [known]
        indexed.copies.add(
            [ResultFact(known, "log member 1", AuditResult(MEMBERS[2].id, indexed.day, "passed", 1))], Position(7)
        )
        assert await follow(index) == [known]
        indexed.day += FRESH_DAYS - 1
        assert await follow(index) == [], "no change of the date has an effect yet"
        indexed.day += 1
        assert await follow(index) == [known]
    indexed.copies.add([], Position(9))
    indexed.copies.close()
    indexed.copies = CopiesIndex(indexed.folder / "copies.sqlite", "log own", lambda: 1)
    with closing(indexed.index()) as index:
        assert len(await follow(index)) == 3, "something may have been missed"


class CountedSets(dict[int, int]):
    """Sets of members, which count how often all of them were read."""

    passes = 0

    def items(self) -> Any:
        self.passes += 1
        return super().items()


@given(st.dictionaries(st.integers(0, 2**12), st.integers(0, 1000), max_size=40))
@settings(max_examples=examples(60))
def test_the_copies_of_all_members_are_counted_in_one_pass_over_the_sets(found: dict[int, int]) -> None:
    sets = CountedSets(found)
    by_bit = CopyHolders.by_bit(sets)
    assert sets.passes == 1
    for bit in (1 << number for number in range(13)):
        assert by_bit.get(bit, 0) == sum(number for held, number in found.items() if held & bit)


@pytest.mark.parametrize("words", [(), ("model",), ("m",)])
def test_a_search_for_a_kind_reads_names_of_that_kind_alone(
    listing: ListingFile, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_file, "SCANNED", 3)
    monkeypatch.setattr(listing_file, "MAX_RARE", 3)
    said = [claim(number, f"a/model-{number:02}") for number in range(20)]
    listing.add([replace(each, kind="dataset") if number % 10 == 5 else each for number, each in enumerate(said)], END)
    assert pages(listing, CatalogueQuery(words, kind="dataset"), 10) == [["a/model-05", "a/model-15"]]
    listing.add([], END, [ReadKind(said[15].artifact, OTHER, "prompt"), ReadKind(said[5].artifact, OWNER, "prompt")])
    assert pages(listing, CatalogueQuery(words, kind="prompt"), 10) == [["a/model-05"]]
    assert pages(listing, CatalogueQuery(words, kind="dataset"), 10) == [["a/model-15"]], "of another publisher"
    assert len([name for page in pages(listing, CatalogueQuery(words, kind="model"), 2) for name in page]) == 18


async def test_a_kind_is_listed_whether_it_was_stated_before_or_after_the_publication(indexed: Indexed) -> None:
    def kind(number: int, word: str, correction: int = 0) -> bytes:
        subject = f"a/m{number}@v1", sha256(Release(b"%d\n" % number).manifest)
        return PUBLISHER.say("artifact-kind", subject, {"kind": word, "name": subject[0], "number": correction})

    indexed.ledger.logs.append(OWN.vkey, [kind(0, "dataset"), kind(1, "dataset")])
    indexed.publish(0, 3)
    with closing(indexed.index()) as index:
        await complete(index)
        assert names(index.listing, CatalogueQuery(kind="dataset")) == ["a/m0", "a/m1"]
        indexed.ledger.logs.append(OWN.vkey, [kind(1, "model", 1), kind(2, "prompt")])
        await complete(index)
        assert names(index.listing, CatalogueQuery(kind="dataset")) == ["a/m0"]
        assert names(index.listing, CatalogueQuery(kind="prompt")) == ["a/m2"]
        assert names(index.listing, CatalogueQuery(kind="model")) == ["a/m1"]
