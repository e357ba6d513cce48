"""Which piece index an artifact is copied by: anyone may publish another's artifact with a different index."""

from __future__ import annotations

import io
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.content.blobs import FolderStore, piece_lengths
from comity.ledger.ledger import Ledger
from comity.node.members import PeerKey
from comity.node.metrics import Metrics
from comity.node.replication import replicas
from comity.node.replication.artifacts import Copy
from comity.node.replication.files import FileFetcher
from comity.node.replication.link import PeerState
from comity.node.replication.questions import PeerQuestions
from comity.node.replication.replicas import ArtifactCopier
from comity.node.threads import AsyncLedger, Pools
from comity.node.uploads import Uploads, Want
from comity.rules.pieces import FIXED_LAYOUT, TENSOR_LAYOUT, PieceIndex, PieceLayout, encode_records, records_root
from comity.rules.precedence import Precedence
from comity.transfer.sources import SourceKey
from comity.trust.artifact import MAX_PIECES, PIECE_SIZE, RECORD_BYTES, FileEntry, Manifest, PieceRecord
from comity.trust.encoding import Digest, canonical, sha256
from comity.trust.errors import NotFound, OutOfSpace, Unavailable, Untrusted
from comity.trust.keys import HybridSigner
from comity.trust.statement import Author, SideObject, Statement, Subject, sign_statement
from comity.wire import limits
from comity.wire.blob import BlobStat
from support.context import node_context
from support.logs import LogKeys
from support.weights import safetensors

DATA = b"weights\n"
MANIFEST = Manifest.of([FileEntry("w.bin", len(DATA), sha256(DATA))])


def index(root: bytes) -> bytes:
    return PieceIndex((("w.bin", PieceLayout(FIXED_LAYOUT, 1, sha256(root))),)).encode()


LOG, SIGNER = LogKeys.generate("own.example/log"), HybridSigner.generate(("ed25519",))
MEMBER = Author("node", sha256(b"a member's node"))
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
        self.ledger.logs.create(LOG.origin, LOG.vkey, own=True)
        self.files = Files(self.store)
        self.claimed: list[SideObject] = []

        async def claim(copy: Any) -> None:
            self.claimed.append(copy.pieces)

        async def uncharged(copy: Copy) -> None:
            return None

        async def no(*_: object, **__: object) -> bool:
            return False

        self.copier = ArtifactCopier(
            node_context(
                ledger=AsyncLedger(self.ledger),
                store=self.store,
                pools=Pools(),
                membership=SimpleNamespace(precedence=Precedence(members=frozenset({MEMBER.id}))),
            ),
            cast(FileFetcher, self.files),
            cast(Any, SimpleNamespace(losses=0, set_damaged=no)),
            cast(Any, SimpleNamespace(add=claim)),
            cast(Any, SimpleNamespace(admitted=_nothing)),
            cast(Any, SimpleNamespace(pace=None)),
            uncharged,
        )

    def hold(self, index: bytes, *nodes: Author) -> None:
        """Log holds of nodes that name this index."""
        manifest, pieces = SideObject.of(MANIFEST.encode()), SideObject.of(index)
        body = {"manifest": manifest.to_json(), "pieces": pieces.to_json()}
        subject, objects = Subject("", MANIFEST.digest), (manifest, pieces)
        said = [Statement("hold", (subject,), node, body, objects) for node in nodes]
        self.ledger.logs.append(LOG.vkey, [sign_statement(each, SIGNER).line for each in said])

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


async def test_holds_of_strangers_displace_no_index_of_a_member(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "MAX_HOLDS", 8)
    copy = scene.copy(OTHER, GOOD)
    copy.indexes = {}
    scene.hold(OTHER, *(Author("node", sha256(b"stranger %d" % number)) for number in range(20)))
    scene.hold(GOOD, MEMBER)
    await scene.copier.complete(copy)
    assert scene.claimed == [SideObject.of(GOOD)]


@pytest.mark.parametrize(
    "failure", [Unavailable("no answer"), NotFound("w.bin not found", code="NO-HOLDER"), OutOfSpace("the disk is full")]
)
async def test_a_failure_that_is_not_about_the_index_tries_no_other_index(scene: Scene, failure: Exception) -> None:
    scene.files.failure = failure
    with pytest.raises(type(failure)):
        await scene.copier.complete(scene.copy(OTHER, GOOD))
    assert scene.claimed == []


async def test_each_try_begins_with_another_index(scene: Scene) -> None:
    """A node served records for a false index, and no bytes: every try began with that one, and ended there."""
    copy = scene.copy(OTHER, GOOD)

    async def fetch(files: Sequence[tuple[Want, PieceLayout]], **_: object) -> None:
        if files[0][1].root != sha256(b"the right root"):
            raise Unavailable("transfer timed out", code="PATIENCE")

    scene.files.fetch = fetch  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await scene.copier.complete(copy)
    copy.failures = 1
    await scene.copier.complete(copy)
    assert scene.claimed == [SideObject.of(GOOD)]


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


class Holder(AnyPeer):
    """A peer that has a file, and these records of it."""

    key = host = SourceKey("node", "holder")
    name = "holder"

    def __init__(self, data: bytes, records: Sequence[PieceRecord]) -> None:
        self.data = data

        async def stat(digests: Sequence[Digest]) -> list[BlobStat]:
            return [BlobStat(digest, True, len(data)) for digest in digests]

        async def sent(digest: Digest, layout: str, most: int) -> bytes:
            return encode_records(records)

        super().__init__(SimpleNamespace(stat=stat, records=sent))

    def over_https(self) -> None:
        return None

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncIterator[bytes]:
        yield self.data[offset : offset + length]


def records_of(data: bytes, lengths: Sequence[int]) -> list[PieceRecord]:
    ends = list(itertools.accumulate(lengths))
    parts = [data[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    return [PieceRecord(len(part), bytes.fromhex(sha256(part))) for part in parts]


FIXED = bytes(PIECE_SIZE) + b"\1" * PIECE_SIZE
TENSORS = safetensors({"first": bytes(300 * 1024), "second": b"\1" * 500 * 1024})


@pytest.mark.parametrize(
    ("path", "data", "layout", "false"),
    [
        ("w.bin", FIXED, FIXED_LAYOUT, [PIECE_SIZE - 1, PIECE_SIZE, 1]),
        ("w.safetensors", TENSORS, TENSOR_LAYOUT, [len(TENSORS)]),
        ("w.safetensors", TENSORS, TENSOR_LAYOUT, [len(TENSORS) - 7, 7]),
    ],
)
async def test_records_that_cut_a_file_elsewhere_than_its_layout_does_are_never_kept(
    scene: Scene, path: str, data: bytes, layout: str, false: list[int]
) -> None:
    """They are true for the file, and matched the false index: every other artifact with the file was refused then."""
    blob = sha256(data)
    true = records_of(data, piece_lengths(path, io.BytesIO(data), len(data))[1])
    honest = PieceLayout(layout, len(true), records_root(true))
    lie = records_of(data, false)
    ledger, pools = AsyncLedger(scene.ledger), Pools()
    uploads = Uploads(ledger, scene.store, pools, Metrics())

    def fetcher(records: Sequence[PieceRecord]) -> FileFetcher:
        questions = PeerQuestions(lambda: [cast(Any, Holder(data, records))])
        return FileFetcher(ledger, scene.store, pools, Metrics(), uploads, questions, cast(Any, None))

    want, manifest = Want(blob, len(data), path), Manifest.of([FileEntry(path, len(data), blob)])
    named = PieceLayout(layout, len(lie), records_root(lie))
    with pytest.raises(Untrusted):
        await fetcher(lie).fetch([(want, named)], name="m/x@v1")
    await fetcher(true).fetch([(want, honest)], name="a/b@v1")
    with pytest.raises(Untrusted):
        await fetcher(lie).require_records(manifest, PieceIndex(((path, named),)))
    await fetcher(true).require_records(manifest, PieceIndex(((path, honest),)))
    assert scene.ledger.pieces.records(blob, layout) == encode_records(true)
    pools.close()


async def test_an_index_of_one_piece_says_nothing_about_a_file_of_tensors_that_is_stored(scene: Scene) -> None:
    ledger, pools = AsyncLedger(scene.ledger), Pools()
    uploads = Uploads(ledger, scene.store, pools, Metrics())
    fetcher = FileFetcher(ledger, scene.store, pools, Metrics(), uploads, *cast(Any, (None, None)))
    blob, path = sha256(TENSORS), "w.safetensors"
    scene.store.put(blob, TENSORS)
    manifest = Manifest.of([FileEntry(path, len(TENSORS), blob)])
    one = PieceLayout(TENSOR_LAYOUT, 1, records_root(records_of(TENSORS, [len(TENSORS)])))
    with pytest.raises(Untrusted):
        await fetcher.require_records(manifest, PieceIndex(((path, one),)))
    true = records_of(TENSORS, piece_lengths(path, io.BytesIO(TENSORS), len(TENSORS))[1])
    assert scene.ledger.pieces.records(blob, TENSOR_LAYOUT) == encode_records(true)
    pools.close()
