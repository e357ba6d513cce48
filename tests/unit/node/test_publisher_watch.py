"""What concerns a publisher is found however many others speak, and common files alarm nobody."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attackers.forging import Identity, Release
from comity.content.blobs import FolderStore
from comity.ledger.ledger import Ledger
from comity.node import publisher_watch, uploads
from comity.node.file_index import FileIndex, FileIndexReader
from comity.node.projection import Position
from comity.node.publisher_watch import HEAVY, LEAST, Concern, PublisherWatch, WatchReader, heavy_files
from comity.node.threads import AsyncLedger
from comity.node.webhook_deliveries import StatementEvents
from comity.rules.file_records import MEMBERS, OTHERS
from comity.rules.precedence import Precedence
from comity.trust.artifact import FileEntry
from comity.trust.encoding import Digest, Json, canonical, sha256
from comity.trust.statement import parse_entry
from support.logs import LogKeys

LOG = LogKeys.generate("far.example/log")
OWNER, MEMBER, STRANGER, OTHER = (Identity.made(name) for name in ("owner", "member", "stranger", "other"))
COMMON = b"Apache licence"
WEIGHTS = b"w" * LEAST


def id_of(identity: Identity) -> Digest:
    author = parse_entry(identity.publish("a/b@v1", Release(b""))).statement.by
    assert author is not None
    return author.id


@dataclass(frozen=True)
class Licensed(Release):
    """Weights, a licence that others have too, and a note of its own."""

    note: bytes = b""

    @property
    def manifest(self) -> bytes:
        named = {"LICENSE": COMMON, "note.txt": self.note, "weights.bin": self.data}
        files: list[Json] = [{"path": path, "sha256": sha256(data), "size": len(data)} for path, data in named.items()]
        return canonical({"files": files, "schema": "comity/manifest/v1", "size": sum(map(len, named.values()))})


class Scene:
    """A ledger, a store, and a charter that binds the namespace `owner` to OWNER and has MEMBER as a member."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger.open(folder / "ledger", lambda: 1_000)
        self.ledger.logs.create(LOG.origin, LOG.vkey, own=True)
        self.store = FolderStore(folder / "blobs")
        bound, member = id_of(OWNER), id_of(MEMBER)
        body, known = SimpleNamespace(namespaces={"owner": bound}), {member: None}
        precedence = Precedence(members=frozenset({bound, member}))
        membership: Any = SimpleNamespace(
            body=body,
            known=known,
            precedence=precedence,
            bound_publisher=lambda name: bound if name.lower() == "owner" else None,
        )
        pools: Any = SimpleNamespace(files=self._call)
        self.index, self.watch = FileIndex(folder / "files", ""), PublisherWatch(folder / "watch", "")
        weakref.finalize(self, self.index.close)
        weakref.finalize(self, self.watch.close)
        ledger = AsyncLedger(self.ledger)
        self.files = FileIndexReader(ledger, self.store, pools, membership, self.index)
        self.new_reader = partial(WatchReader, ledger, self.store, pools, membership, self.files, self.watch)
        self.reader = self.new_reader()

    async def _call(self, work: Any, *arguments: Any) -> Any:
        return work(*arguments)

    def publish(self, identity: Identity, name: str, release: Release) -> None:
        self.store.put(sha256(release.manifest), release.manifest)
        self.ledger.logs.append(LOG.vkey, [identity.publish(name, release)])

    async def concerns(self, identity: Identity, most: int = 100) -> list[tuple[str, Digest, int]]:
        await self.files.read()
        await self.reader.read()
        return [(each.why, each.author, each.number) for each in self.watch.concerns(id_of(identity), most).found]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    with closing(made.ledger), closing(made.index), closing(made.watch):
        yield made


async def test_a_statement_under_an_identity_concerns_it(scene: Scene) -> None:
    scene.publish(STRANGER, "a/b@v1", Release(b"1"))
    scene.publish(OTHER, "c/d@v1", Release(b"2"))
    assert await scene.concerns(STRANGER) == [("own", id_of(STRANGER), 1)]


async def test_a_claim_to_a_name_concerns_who_claims_it_too_and_whom_the_charter_binds(scene: Scene) -> None:
    scene.publish(STRANGER, "owner/model@v1", Release(b"1"))
    scene.publish(OWNER, "owner/model@v1", Release(b"2"))
    scene.publish(OTHER, "Owner/never-seen@v1", Release(b"3"))
    own, stranger, other = id_of(OWNER), id_of(STRANGER), id_of(OTHER)
    assert await scene.concerns(OWNER) == [("name", stranger, 1), ("own", own, 2), ("name", other, 3)]
    assert await scene.concerns(STRANGER) == [("own", stranger, 1), ("name", own, 2)]
    assert await scene.concerns(OTHER) == [("own", other, 3)]


async def test_a_webhook_tells_once_of_who_used_a_name_before_the_publisher(scene: Scene) -> None:
    groups: Any = SimpleNamespace(of=lambda statement: OTHERS)
    ours, squatter, bound = id_of(OTHER), id_of(STRANGER), id_of(OWNER)
    events = StatementEvents(scene.ledger.proven, groups, scene.reader, [ours, bound])
    told = list[list[tuple[str, str, str, int]]]()
    for number, (identity, name) in enumerate(
        [(STRANGER, "x/y"), (STRANGER, "owner/z"), (OTHER, "x/y"), (OTHER, "x/y"), (OWNER, "owner/z")]
    ):
        scene.publish(identity, f"{name}@v{number}", Release(b"%d" % number))
        await scene.concerns(OTHER)
        found = [each for each in events.of(scene.ledger.proven.since(number, events.predicates)) if each.publisher]
        told.append([(each.publisher, each.data["why"], each.data["by"], each.data["entry"]) for each in found])
    assert told == [
        [],
        [(bound, "name", squatter, 1)],
        [(ours, "name", squatter, 0), (ours, "own", ours, 2)],
        [(ours, "own", ours, 3)],
        [(bound, "own", bound, 4)],
    ]


async def test_of_an_author_what_concerns_the_publisher_newly_is_kept(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_watch, "KEPT", 2)
    watched, squatter = Digest("aa" * 32), Digest("bb" * 32)
    rows = [Concern(watched, "name", squatter, number, later=later) for number, later in ((1, 9), (2, 0), (3, 0))]
    scene.watch._write(rows, publisher_watch._add)
    assert list(scene.watch.concerns(watched, 100).found) == [rows[2], rows[0]]


async def test_weights_under_another_name_concern_who_published_them_first_and_a_licence_nobody(scene: Scene) -> None:
    scene.publish(STRANGER, "x/y@v1", Licensed(WEIGHTS, b"first"))
    scene.publish(OTHER, "z/copy@v1", Licensed(WEIGHTS, b"second"))
    scene.publish(MEMBER, "m/n@v1", Licensed(b"own" * LEAST, b"third"))
    assert await scene.concerns(STRANGER) == [("own", id_of(STRANGER), 1), ("files", id_of(OTHER), 2)]
    assert await scene.concerns(OTHER) == [("own", id_of(OTHER), 2)]  # not of the original, which is older
    assert await scene.concerns(MEMBER) == [("own", id_of(MEMBER), 3)]


async def test_the_same_artifact_under_another_name_concerns_who_published_it_first(scene: Scene) -> None:
    scene.publish(STRANGER, "x/y@v1", Release(b"tiny"))
    scene.publish(OTHER, "z/renamed@v1", Release(b"tiny"))
    assert await scene.concerns(STRANGER) == [("own", id_of(STRANGER), 1), ("files", id_of(OTHER), 2)]


async def test_rows_that_are_computed_again_are_the_same(scene: Scene) -> None:
    for number, identity in enumerate((STRANGER, OTHER, MEMBER)):
        scene.publish(identity, "x/y@v1", Licensed(WEIGHTS, b"%d" % number))
    before = [await scene.concerns(each) for each in (STRANGER, OTHER, MEMBER)]
    scene.watch.begin_again("")  # now the index of files has what came later, too
    scene.reader = scene.new_reader()
    assert [await scene.concerns(each) for each in (STRANGER, OTHER, MEMBER)] == before


async def test_nothing_is_read_that_the_index_of_files_has_not_read(scene: Scene) -> None:
    scene.publish(STRANGER, "x/y@v1", Release(b"1"))
    await scene.reader.read()
    assert scene.watch.concerns(id_of(STRANGER), 9).found == ()
    assert len(await scene.concerns(STRANGER)) == 1


async def test_an_artifact_whose_manifest_was_lost_hides_no_claim(scene: Scene) -> None:
    scene.publish(OWNER, "owner/m@v1", Release(b"1"))
    scene.ledger.logs.append(LOG.vkey, [STRANGER.publish("owner/m@v1", Release(b"lost"))])
    assert ("name", id_of(STRANGER), 2) in await scene.concerns(OWNER)


def flood(watch: PublisherWatch, watched: Digest, authors: int, each: int, whose: int, begin: int) -> None:
    rows = (
        Concern(watched, "name", sha256(b"%d" % (number % authors)), begin + number, whose)
        for number in range(authors * each)
    )
    watch._write(rows, publisher_watch._add)


def test_strangers_displace_nobody_and_the_list_says_that_there_is_more(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_watch, "READ", 100)
    watched, own, member, stranger = Digest("aa" * 32), Digest("aa" * 32), Digest("bb" * 32), Digest("cc" * 32)
    first = [Concern(watched, "own", own, 1), Concern(watched, "name", member, 2, MEMBERS)]
    scene.watch._write([*first, Concern(watched, "name", stranger, 3)], publisher_watch._add)
    flood(scene.watch, watched, 1, 500, OTHERS, 10)
    found = scene.watch.concerns(watched, 20)
    assert {*first, Concern(watched, "name", stranger, 3)} <= set(found.found)
    assert (len(found.found), found.more) == (20, True)
    flood(scene.watch, watched, 200, 2, OTHERS, 1_000)
    found = scene.watch.concerns(watched, 20)
    assert set(first) <= set(found.found) and found.more
    assert len({each.author for each in found.found}) > 10


def test_of_an_author_the_newest_are_kept_and_of_a_range_all(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_watch, "KEPT", 5)
    watched, author = Digest("aa" * 32), Digest("bb" * 32)
    rows = [Concern(watched, "name", author, number) for number in range(1, 9)]
    rows += [Concern(watched, "own", watched, number) for number in range(1, 9)]
    scene.watch._write(rows, publisher_watch._add)
    found = scene.watch.concerns(watched, 100)
    assert [each.number for each in found.found if each.why == "name"] == [4, 5, 6, 7, 8]
    assert [each.number for each in found.found if each.why == "own"] == [*range(1, 9)]
    assert not found.more
    ranged = scene.watch.concerns(watched, 100, 5, 7)
    assert [each.number for each in ranged.found] == [6, 6, 7, 7]
    assert scene.watch.concerns(Digest("dd" * 32), 100).found == ()


@pytest.mark.parametrize(
    ("sizes", "heavy"),
    [([1, HEAVY, HEAVY + 1, HEAVY - 1], [HEAVY + 1, HEAVY]), ([LEAST, 9], [LEAST]), ([LEAST - 1], []), ([], [])],
)
def test_files_of_weight_are_large_or_the_largest(sizes: list[int], heavy: list[int]) -> None:
    entries = tuple(FileEntry(f"f{size}", size, sha256(b"%d" % size)) for size in sizes)
    manifest: Any = SimpleNamespace(files=entries)
    assert [entry.size for entry in heavy_files(manifest)] == heavy


async def test_many_statements_of_one_identity_cost_one_question_and_one_removal(tmp_path: Path) -> None:
    """The oldest of a thousand rows were looked for with each row that was added."""
    identity, asked = sha256(b"busy"), list[str]()
    rows = [Concern(identity, "own", identity, number) for number in range(1, 400)]
    with closing(PublisherWatch(tmp_path / "watch", "")) as watch:
        watch._database.set_trace_callback(asked.append)
        watch.add(rows, Position(399, "statement"))
        assert len(watch.concerns(identity, 1_000).found) == 399
    assert [len([text for text in asked if text.startswith(word)]) for word in ("SELECT id", "DELETE")] == [1, 1]


async def test_large_manifests_are_read_in_steps_of_their_own(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        scene.publish(STRANGER, f"a/b@v{number}", Release(b"%d" % number))
    monkeypatch.setattr(uploads, "STEP_BYTES", 1)
    steps = [await scene.files.step() for _ in range(5)]
    assert steps == [True, True, True, True, False]
    assert [await scene.reader.step() for _ in range(5)] == steps
    assert [each[2] for each in await scene.concerns(STRANGER)] == [1, 2, 3, 4]
