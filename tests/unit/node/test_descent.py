"""The rows of roots: what publishers, mirrors and derivations say, and that no stranger moves a member's root."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attackers.forging import Identity, Release
from comity.content.blobs import FolderStore
from comity.ledger.ledger import Ledger
from comity.node import descent as module
from comity.node import uploads
from comity.node.descent import MAX_CLAIMS, DescentFact, DescentReader, DescentRows, NamedParent, organisation
from comity.node.projection import Position
from comity.node.threads import AsyncLedger
from comity.rules.descent import LineageFacts, LineageRoot, ParentEdge, roots_of
from comity.rules.file_records import MEMBERS, OTHERS
from comity.rules.precedence import Precedence
from comity.trust.encoding import Digest, sha256
from comity.trust.lineage import MAX_DEPTH, MAX_NODES
from comity.trust.statement import parse_entry
from support.logs import LogKeys

LOG = LogKeys.generate("far.example/log")
MEMBER, STRANGER = Identity.made("member"), Identity.made("stranger")


def id_of(identity: Identity) -> Digest:
    author = parse_entry(identity.publish("a/b@v1", Release(b""))).statement.by
    assert author is not None
    return author.id


class Scene:
    """A ledger, a store, and a charter with MEMBER as a member."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger.open(folder / "ledger", lambda: 1_000)
        self.ledger.logs.create(LOG.origin, LOG.vkey, own=True)
        self.store = FolderStore(folder / "blobs")
        member = id_of(MEMBER)
        membership: Any = SimpleNamespace(
            body=None, known={member: None}, precedence=Precedence(members=frozenset({member}))
        )
        pools: Any = SimpleNamespace(files=self._call)
        self.rows = DescentRows(folder / "roots", "")
        weakref.finalize(self, self.rows.close)
        self.new_reader = partial(DescentReader, AsyncLedger(self.ledger), self.store, pools, membership, self.rows)
        self.reader = self.new_reader()

    async def _call(self, work: Any, *arguments: Any) -> Any:
        return work(*arguments)

    def publish(self, identity: Identity, name: str, release: Release, *, stored: bool = True) -> None:
        if stored:
            self.store.put(sha256(release.manifest), release.manifest)
        self.ledger.logs.append(LOG.vkey, [identity.publish(name, release)])

    def roots(self, number: int) -> tuple[LineageRoot, ...]:
        return roots_of(number, self.rows.known, MAX_NODES, MAX_DEPTH)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    with closing(made.ledger), closing(made.rows):
        yield made


async def test_publications_are_rows_with_sizes_and_authors(scene: Scene) -> None:
    scene.publish(MEMBER, "a/b@v1", Release(b"12345"))
    scene.publish(STRANGER, "c/d@v1", Release(b"lost"), stored=False)
    await scene.reader.read()
    first, second = scene.rows.page(0, 9)
    assert (first.digest, first.size, first.of_members) == (sha256(Release(b"12345").manifest), 5, True)
    assert (first.largest, first.authors) == (sha256(b"12345"), (id_of(MEMBER),))
    assert (second.size, second.largest, second.of_members) == (None, None, False)
    assert [row.number for row in scene.rows.page(first.number, 9)] == [second.number]
    assert scene.roots(first.number) == (LineageRoot(id_of(MEMBER), "own"),)
    state = scene.reader.progress()
    assert state.done == state.total == 2


async def test_a_stranger_who_publishes_a_members_artifact_moves_nothing(scene: Scene) -> None:
    scene.publish(STRANGER, "x/y@v1", Release(b"1"))
    scene.publish(MEMBER, "a/b@v1", Release(b"1"))
    await scene.reader.read()
    (row,) = scene.rows.page(0, 9)
    assert (row.of_members, row.authors) == (True, (id_of(MEMBER),))


CHILD, PARENT = sha256(b"child"), sha256(b"parent")


def test_what_a_stranger_says_of_parents_does_not_count_beside_a_member(scene: Scene) -> None:
    lie = DescentFact(CHILD, OTHERS, "hf:mallory", (NamedParent(None, "hf:mallory", False),))
    said = DescentFact(CHILD, MEMBERS, "hf:alice", (NamedParent(PARENT, "", False),))
    scene.rows.add([lie], Position(1, "1"))
    assert scene.rows.known(1) == LineageFacts(("hf:mallory",), (ParentEdge(None, "hf:mallory", False),))
    scene.rows.add([said, DescentFact(PARENT, OTHERS, "hf:google", ())], Position(2, "2"))
    assert scene.rows.known(1) == LineageFacts(("hf:alice",), (ParentEdge(2, "", False),))
    assert scene.roots(1) == (LineageRoot("hf:google", "claimed"),)
    assert [row.number for row in scene.rows.page(0, 9)] == [1, 2]


def test_a_parent_that_nobody_published_is_no_artifact_of_the_catalogue(scene: Scene) -> None:
    scene.rows.add([DescentFact(CHILD, MEMBERS, "hf:alice", (NamedParent(PARENT, "", False),))], Position(1, "1"))
    assert [row.digest for row in scene.rows.page(0, 9)] == [CHILD]
    assert [each.basis for each in scene.roots(1)] == ["unknown"]


def test_a_derivation_that_a_member_signed_makes_the_step_signed(scene: Scene) -> None:
    derived = DescentFact(CHILD, MEMBERS, "", (NamedParent(PARENT, "", True),))
    published = DescentFact(CHILD, OTHERS, "hf:alice", (NamedParent(PARENT, "", False),))
    scene.rows.add([derived, published, DescentFact(PARENT, MEMBERS, "hf:google", ())], Position(1, "1"))
    assert scene.roots(1) == (LineageRoot("hf:google", "signed"),)


def test_further_publishers_of_one_artifact_are_not_counted(scene: Scene) -> None:
    facts = [DescentFact(CHILD, OTHERS, f"hf:{number}", ()) for number in range(MAX_CLAIMS + 4)]
    scene.rows.add([*facts, DescentFact(CHILD, MEMBERS, "hf:last", ())], Position(1, "1"))
    assert scene.rows.known(1).authors == ("hf:last",)
    scene.rows.add([DescentFact(PARENT, OTHERS, f"hf:{number}", ()) for number in range(99)], Position(2, "2"))
    assert len(scene.rows.known(2).authors) == MAX_CLAIMS


@pytest.mark.parametrize(
    ("name", "expected"),
    [("hf:Google/gemma@abc", "hf:google"), ("hf:/x", ""), ("hf:google", ""), ("google/gemma@v1", ""), ("", "")],
)
def test_the_organisation_of_an_upstream_repository_is_in_its_name(name: str, expected: str) -> None:
    assert organisation(name) == expected


async def test_rows_that_are_computed_again_are_the_same(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        scene.publish(MEMBER if number % 2 else STRANGER, f"a/b@v{number}", Release(b"%d" % number))
    await scene.reader.read()
    before = scene.rows.page(0, 9)
    monkeypatch.setattr(module, "READ_PAGE", 2)
    scene.rows.begin_again("")
    scene.reader = scene.new_reader()
    await scene.reader.read()
    assert scene.rows.page(0, 9) == before


async def test_large_manifests_are_read_in_steps_of_their_own(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        scene.publish(MEMBER, f"a/b@v{number}", Release(b"%d" % number))
    await scene.reader.read()
    together = scene.rows.page(0, 9)
    monkeypatch.setattr(uploads, "STEP_BYTES", 1)
    scene.rows.begin_again("")
    scene.reader = scene.new_reader()
    lines, after = await scene.reader._follower.next(9), list[int]()
    for _ in range(4):
        scene.reader._add(await scene.reader._follower.next(9), frozenset())
        after.append(scene.rows.position.number)
    assert after == [line.number for line in lines]
    assert [(row.digest, row.size) for row in scene.rows.page(0, 9)] == [(row.digest, row.size) for row in together]


def test_an_artifact_is_written_with_few_statements(scene: Scene) -> None:
    asked = list[str]()
    facts = [DescentFact(sha256(b"%d" % number), OTHERS, "hf:one", ()) for number in range(100)]
    scene.rows._database.set_trace_callback(asked.append)
    scene.rows.add(facts, Position(1, "1"))
    scene.rows._database.set_trace_callback(None)
    assert len(asked) < 3.2 * len(facts)
    assert len(scene.rows.page(0, 200)) == 100
