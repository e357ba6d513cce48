"""Which piece index an artifact is copied by: anyone may publish another's artifact with a different index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.content.blobs import FolderStore
from comity.ledger.ledger import Ledger
from comity.node.members import PeerKey
from comity.node.metrics import Metrics
from comity.node.replication.artifacts import Copy
from comity.node.replication.files import FileFetcher
from comity.node.replication.link import PeerState
from comity.node.replication.questions import PeerQuestions
from comity.node.replication.replicas import ArtifactCopier
from comity.node.threads import AsyncLedger, Pools
from comity.node.uploads import Uploads, Want
from comity.rules.pieces import FIXED_LAYOUT, PieceIndex, PieceLayout, records_root
from comity.trust.artifact import MAX_PIECES, PIECE_SIZE, RECORD_BYTES, FileEntry, Manifest, PieceRecord
from comity.trust.encoding import Digest, canonical, sha256
from comity.trust.errors import NotFound, OutOfSpace, Unavailable, Untrusted
from comity.trust.statement import SideObject
from comity.wire import limits
from support.context import node_context

DATA = b"weights\n"
MANIFEST = Manifest.of([FileEntry("w.bin", len(DATA), sha256(DATA))])


def index(root: bytes) -> bytes:
    return PieceIndex((("w.bin", PieceLayout(FIXED_LAYOUT, 1, sha256(root))),)).encode()


GOOD, OTHER = index(b"the right root"), index(b"a root that nobody has")


class Files:
    """A network in which one node has the file, with the records of one index."""

    def __init__(self, store: FolderStore) -> None:
        self.store = store
        self.failure: Exception | None = None
        self.tried: list[Digest] = []

    async def require_objects(self, objects: Sequence[SideObject]) -> None:
        for item in objects:
            if not self.store.has(item.digest):
                raise NotFound("side object not found", code="NO-HOLDER")

    async def fetch(self, files: Sequence[tuple[Want, PieceLayout]], **_: object) -> None:
        if self.failure is not None:
            raise self.failure
        for want, layout in files:
            self.tried.append(layout.root)
            if layout.root != sha256(b"the right root"):
                raise NotFound("no piece records here", code="NO-RECORDS")
            self.store.put(want.digest, DATA)

    async def require_records(self, manifest: Manifest, index: PieceIndex) -> None:
        pass


@asynccontextmanager
async def _nothing(*_: object) -> Any:
    yield


class Scene:
    def __init__(self, folder: Path) -> None:
        self.store = FolderStore(folder / "blobs")
        self.ledger = Ledger.open(folder, lambda: 1_000)
        self.files = Files(self.store)
        self.claimed: list[SideObject] = []

        async def claim(copy: Any) -> None:
            self.claimed.append(copy.pieces)

        async def uncharged(copy: Copy) -> None:
            return None

        async def no(*_: object, **__: object) -> bool:
            return False

        self.copier = ArtifactCopier(
            node_context(ledger=AsyncLedger(self.ledger), store=self.store, pools=Pools()),
            cast(FileFetcher, self.files),
            cast(Any, SimpleNamespace(losses=0, set_damaged=no)),
            cast(Any, SimpleNamespace(add=claim)),
            cast(Any, SimpleNamespace(admitted=_nothing)),
            cast(Any, SimpleNamespace(pace=None)),
            uncharged,
        )

    def copy(self, *indexes: bytes, missing: Sequence[bytes] = ()) -> Copy:
        for data in (MANIFEST.encode(), *indexes):
            if data not in missing:
                self.store.put(sha256(data), data)
        made = Copy(MANIFEST.digest, "a/b@v1", SideObject.of(MANIFEST.encode()), "member")
        made.indexes = {SideObject.of(data): None for data in indexes}
        return made


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.ledger.close()


@pytest.mark.parametrize(
    "bad", [b"no index at all", canonical({"files": [], "schema": "x"}), PieceIndex(()).encode(), OTHER]
)
async def test_a_useless_index_does_not_stop_a_copy(scene: Scene, bad: bytes) -> None:
    await scene.copier.complete(scene.copy(bad, GOOD))
    assert scene.claimed == [SideObject.of(GOOD)]


async def test_an_index_without_available_records_does_not_stop_a_copy_either(scene: Scene) -> None:
    await scene.copier.complete(scene.copy(OTHER, GOOD, missing=[OTHER]))
    assert scene.claimed == [SideObject.of(GOOD)]


@pytest.mark.parametrize(
    "failure", [Unavailable("no answer"), NotFound("w.bin not found", code="NO-HOLDER"), OutOfSpace("the disk is full")]
)
async def test_a_failure_that_is_not_about_the_index_tries_no_other_index(scene: Scene, failure: Exception) -> None:
    scene.files.failure = failure
    with pytest.raises(type(failure)):
        await scene.copier.complete(scene.copy(OTHER, GOOD))
    assert scene.claimed == []


class AnyPeer:
    """A peer with this client."""

    address = "a.example:1"
    peer_key = PeerKey(sha256(b"member"), "a.example/log")
    state = PeerState(reachable=True)

    def __init__(self, client: object) -> None:
        self.client = client


async def test_the_record_of_a_file_of_one_piece_is_derived(scene: Scene) -> None:
    """A peer that delayed each answer about small files delayed every copy."""
    fetcher = FileFetcher(cast(Any, AsyncLedger(scene.ledger)), scene.store, Pools(), *cast(Any, (None,) * 4))
    want, record = Want(sha256(DATA), len(DATA), "w.bin"), PieceRecord(len(DATA), bytes.fromhex(sha256(DATA)))
    layout = PieceLayout(FIXED_LAYOUT, 1, records_root([record]))
    assert await fetcher._records(want, layout, []) == [record]
    for false in (PieceLayout(FIXED_LAYOUT, 1, sha256(b"root")), PieceLayout(FIXED_LAYOUT, 0, sha256(b""))):
        with pytest.raises(Untrusted):
            await fetcher._records(want, false, [])
    large = Want(sha256(DATA), PIECE_SIZE + 1, "w.bin")
    with pytest.raises(Untrusted):
        await fetcher._records(large, layout, [])


async def test_no_more_records_are_read_than_the_index_names(scene: Scene) -> None:
    """A node that claims to have every file could otherwise answer with 64 MiB for each file that is copied."""
    asked = list[int]()

    async def records(digest: Digest, layout: str, most: int) -> bytes:
        asked.append(most)
        raise NotFound("no piece records here", code="NO-RECORDS")

    ledger: Any = AsyncLedger(scene.ledger)
    holder: Any = AnyPeer(SimpleNamespace(records=records))
    fetcher = FileFetcher(ledger, scene.store, Pools(), *cast(Any, (None, None, PeerQuestions(lambda: [holder]), None)))
    for count in (3, MAX_PIECES):
        with pytest.raises(NotFound):
            layout = PieceLayout(FIXED_LAYOUT, count, sha256(b"root"))
            await fetcher._records(Want(sha256(DATA), len(DATA), "w.bin"), layout, [holder])
    assert asked == [3 * RECORD_BYTES, limits.RECORDS]


async def test_the_records_of_many_stored_files_are_kept_by_one_turn_of_the_ledger(scene: Scene) -> None:
    """A turn a file made a fifth of what a publication of many small files costs its node."""
    turns = list[object]()

    class Counted(AsyncLedger):
        async def run(self, work: Any, *args: Any, **kwargs: Any) -> Any:
            turns.append(work)
            return await super().run(work, *args, **kwargs)

    ledger, pools = Counted(scene.ledger), Pools()
    uploads = Uploads(ledger, scene.store, pools, Metrics())
    fetcher = FileFetcher(ledger, scene.store, pools, Metrics(), uploads, *cast(Any, (None, None)))
    contents = {f"{number:03}.txt": b"%d" % number * 100 for number in range(200)}
    for data in contents.values():
        scene.store.put(sha256(data), data)
    manifest = Manifest.of([FileEntry(path, len(data), sha256(data)) for path, data in contents.items()])
    records = [PieceRecord(entry.size, bytes.fromhex(entry.sha256)) for entry in manifest.files]
    layouts = [PieceLayout(FIXED_LAYOUT, 1, records_root([record])) for record in records]
    index = PieceIndex(tuple(zip(contents, layouts, strict=True)))
    for _ in range(2):
        await fetcher.require_records(manifest, index)
    assert len(turns) == 1
    kept = scene.ledger.pieces.all_records({entry.sha256 for entry in manifest.files})
    assert len(kept) == len(contents)
    false = PieceIndex(tuple((path, PieceLayout(FIXED_LAYOUT, 1, sha256(b"root"))) for path in contents))
    with pytest.raises(Untrusted):
        await fetcher.require_records(manifest, false)
    pools.close()
