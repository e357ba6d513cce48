"""Bundles as folders: what an export writes, how it continues, and what a reader refuses."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import pytest
from comity.content import durable
from comity.rules.pieces import FIXED_LAYOUT, TENSOR_LAYOUT, PieceIndex, PieceLayout
from comity.rules.signing import sign_content
from comity.rules.tree_proofs import Frontier, MemoryTree, consistency_proof
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, OutOfSpace, Untrusted
from comity.trust.names import Name
from comity.trust.statement import SideObject
from comity.trust.statements import Licence, Published
from comity.trust.tlog.merkle import leaf_hash
from comity.wire import asking
from comity.wire.log import ShownMisbehaviour
from comity_client.bundles.contents import (
    INDEX,
    PARITY_BYTES,
    BundleIndex,
    CarriedFile,
    CarriedLog,
    DiskLayout,
    parity_files,
    parse_contents,
    parse_contents_line,
    parse_misbehaviour_proof,
)
from comity_client.bundles.erasure import ErasureCode
from comity_client.bundles.exporting import EarlierBundle, ExportOrder, UncosignedLog, export_bundle
from comity_client.bundles.folder import BundleFolder
from comity_client.bundles.loading import CarriedTree, _check
from comity_client.bundles.writing import DiskPlan, LargeFile
from comity_client.events import Event, Progress, Started
from support import carried
from support.carried import ORIGIN, MemoryNode, Stopped, a_charter, contents, exported, rewritten, some_node
from support.publisher import Publisher, Release


def everything_in(bundle: BundleFolder, node: MemoryNode) -> bool:
    return all(b"".join(bundle.read_blob(digest, 0, len(data))) == data for digest, data in node.blobs.items() if data)


CLAIMED = 1 << 50
"""Bytes that a disk of a few hundred bytes claims."""


def claiming_disk(folder: Path, number: int) -> Path:
    """A disk of a bundle with one file of a pebibyte, of which it has nothing."""
    listed = f"{'a' * 64} {CLAIMED} blobs/{'a' * 64}\n".encode()
    index = BundleIndex("", "node-ch/log", (), sha256(listed), CLAIMED, CLAIMED, ErasureCode(1, 2), (), 0, 0, 0)
    folder.mkdir()
    for name, data in ((INDEX, index.encode()), ("contents", listed), ("disk", b"%d\n" % number)):
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("number", [1, 2], ids=["data", "parity"])
def test_a_small_disk_that_claims_much_costs_as_little_as_it_has(tmp_path: Path, number: int) -> None:
    folder = claiming_disk(tmp_path / "disk", number)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000
    tracemalloc.start()
    try:
        with pytest.raises(Untrusted, match="this bundle is damaged"):
            BundleFolder.open([folder])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2_000_000


def test_parity_files_are_named_one_at_a_time_from_where_they_are_wanted() -> None:
    assert next(parity_files(CLAIMED)) == ("parity/000000", 0, PARITY_BYTES)
    used = 3 * PARITY_BYTES + 5
    assert [size for _, _, size in parity_files(used)] == [PARITY_BYTES] * 3 + [5]
    inside = list(parity_files(used, 2 * PARITY_BYTES - 1, 2 * PARITY_BYTES + 1))
    assert [path for path, _, _ in inside] == ["parity/000001", "parity/000002"]
    assert list(parity_files(used, used, used + 10)) == []


def test_an_index_claims_at_most_a_pebibyte() -> None:
    index = BundleIndex("", "node-ch/log", (), sha256(b""), 5, 5, ErasureCode(1, 1), (), 0, 0, 0)
    for name in ("size", "disk_bytes"):
        value = json.loads(index.encode()) | {"size": 0, name: CLAIMED + 1}
        with pytest.raises(Malformed):
            BundleIndex.parse(json.dumps(value).encode())


async def test_an_export_has_all_data_of_the_node_and_at_most_two_per_cent_more_bytes(tmp_path: Path) -> None:
    node, folder = some_node(tmp_path), tmp_path / "out"
    made = await exported(node, folder)
    bundle = BundleFolder.open([folder])
    assert everything_in(bundle, node)
    assert bundle.check(lambda count: None) == []
    assert made.index.artifacts == 1
    payload = sum(map(len, node.blobs.values())) + sum(map(len, node.lines))
    assert payload <= made.written <= 1.02 * payload
    assert sum(map(len, contents(folder).values())) <= 1.02 * payload


async def test_a_later_bundle_has_only_what_is_new(tmp_path: Path) -> None:
    node = some_node(tmp_path)
    await exported(node, tmp_path / "first")
    node.publish(tmp_path / "second model", "tests/other@v1", weights=1_500_000, seed=2)
    node.write(3)
    order = ExportOrder(earlier=(EarlierBundle.read(tmp_path / "first"),))
    made = await exported(node, tmp_path / "second", order)
    assert made.entries == 5
    assert made.index.artifacts == 1
    assert 1_500_000 < made.index.size < 1_520_000
    again = await exported(
        node,
        tmp_path / "third",
        ExportOrder(
            everything=True,
            earlier=(EarlierBundle.read(tmp_path / "first"), EarlierBundle.read(tmp_path / "second")),
        ),
    )
    assert again.index.size < 2_000
    assert again.index.artifacts == 2


async def test_a_later_bundle_of_a_rewritten_log_is_refused(tmp_path: Path) -> None:
    node = some_node(tmp_path)
    await exported(node, tmp_path / "first")
    node.lines[3], node.lines[4] = node.lines[4], node.lines[3]
    node.write(2)
    order = ExportOrder(earlier=(EarlierBundle.read(tmp_path / "first"),))
    with pytest.raises(Untrusted) as raised:
        await exported(node, tmp_path / "second", order)
    assert raised.value.code == "ROOT"


@pytest.mark.parametrize("plan", [DiskPlan(), DiskPlan(700_000), DiskPlan(code=ErasureCode(2, 3))], ids=str)
async def test_an_interrupted_export_continues_and_gives_the_same_bundle(tmp_path: Path, plan: DiskPlan) -> None:
    node, order = some_node(tmp_path), ExportOrder(everything=True, disks=plan)
    await exported(node, tmp_path / "straight", order)
    stops = 0
    for _ in range(40):
        node.budget = 350_000
        try:
            await exported(node, tmp_path / "stopped", order)
            break
        except Stopped:
            stops += 1
            with pytest.raises(NotFound):
                BundleFolder.open([tmp_path / "stopped"])
    assert stops > 5
    assert everything_in(BundleFolder.open([tmp_path / "stopped"]), node)
    left, right = contents(tmp_path / "straight"), contents(tmp_path / "stopped")
    assert left.keys() == right.keys()
    node.asked.clear()
    with pytest.raises(Conflict) as raised:
        await exported(node, tmp_path / "stopped", order)
    assert (raised.value.code, node.asked) == ("BUNDLE-EXISTS", [])


async def test_the_progress_of_a_continued_export_adds_up_to_its_work(tmp_path: Path) -> None:
    node, order = some_node(tmp_path), ExportOrder(everything=True, disks=DiskPlan(code=ErasureCode(2, 3)))
    node.budget = 1_000_000
    with pytest.raises(Stopped):
        await exported(node, tmp_path / "out", order)
    node.budget, seen = float("inf"), list[Event]()
    await export_bundle(node.client, order, tmp_path / "out", seen.append)
    (started,) = [event for event in seen if isinstance(event, Started)]
    assert sum(event.count for event in seen if isinstance(event, Progress)) == started.work > 2_500_000


async def test_an_export_that_is_interrupted_computes_no_more_parity(tmp_path: Path) -> None:
    """Otherwise its thread would delay the end of the program."""
    node, order = some_node(tmp_path), ExportOrder(everything=True, disks=DiskPlan(code=ErasureCode(1, 2)))
    parity, begun, released = list[Event](), threading.Event(), threading.Event()

    def on_event(event: Event) -> None:
        if isinstance(event, Progress) and event.path == "parity":
            parity.append(event)
            begun.set()
            assert released.wait(60)

    exporting = asyncio.create_task(export_bundle(node.client, order, tmp_path / "out", on_event))
    assert await asyncio.to_thread(begun.wait, 30)
    exporting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exporting
    released.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert len(parity) == 1


@pytest.mark.parametrize("cosigners", [(), ("one",), ("one", "one", ORIGIN), ("one", "two")])
async def test_an_export_says_which_new_entries_fewer_have_cosigned_than_the_charter_asks_for(
    tmp_path: Path, cosigners: tuple[str, ...]
) -> None:
    node = some_node(tmp_path)
    node.body, node.cosigners = a_charter(2), cosigners
    count = len({*cosigners} - {ORIGIN})
    short = (UncosignedLog(ORIGIN, count, 2),) if count < 2 else ()
    assert (await exported(node, tmp_path / "out")).uncosigned == short
    earlier = (EarlierBundle.read(tmp_path / "out"),)
    assert (await exported(node, tmp_path / "more", ExportOrder(earlier=earlier))).uncosigned == ()


async def test_a_check_that_is_interrupted_reads_no_further(tmp_path: Path) -> None:
    await exported(some_node(tmp_path), tmp_path / "out")
    read, begun, released = list[Event](), threading.Event(), threading.Event()

    def on_event(event: Event) -> None:
        if isinstance(event, Progress):
            read.append(event)
            begun.set()
            assert released.wait(60)

    checking = asyncio.create_task(_check(BundleFolder.open([tmp_path / "out"]), on_event))
    assert await asyncio.to_thread(begun.wait, 30)
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checking
    released.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert len(read) == 1


async def test_a_misbehaviour_proof_that_arrived_during_an_interruption_is_in_the_bundle(tmp_path: Path) -> None:
    node = some_node(tmp_path)
    old, new = (ShownMisbehaviour("roots", origin, (b"one", b"two")) for origin in ("b/log", "a/log"))
    node.misbehaving, node.budget = [old], 1_000_000
    with pytest.raises(Stopped):
        await exported(node, tmp_path / "out")
    node.misbehaving, node.budget = [new, old], float("inf")
    await exported(node, tmp_path / "out")
    proofs = [path.read_bytes() for path in sorted((tmp_path / "out/misbehaviour").iterdir())]
    assert [parse_misbehaviour_proof(proof)[1] for proof in proofs] == ["b/log", "a/log"]


async def test_another_export_does_not_continue_an_interrupted_one(tmp_path: Path) -> None:
    node = some_node(tmp_path)
    node.budget = 10_000
    with pytest.raises(Stopped):
        await exported(node, tmp_path / "out")
    with pytest.raises(Conflict) as raised:
        await exported(node, tmp_path / "out", ExportOrder(artifacts=(Digest("ab" * 32),)))
    assert raised.value.code == "OTHER-EXPORT"


@pytest.mark.parametrize("plan", [DiskPlan(), DiskPlan(700_000), DiskPlan(code=ErasureCode(2, 3))], ids=str)
async def test_a_large_file_that_was_written_and_not_yet_renamed_is_in_the_continued_bundle(
    tmp_path: Path, plan: DiskPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, order, move = some_node(tmp_path), ExportOrder(everything=True, disks=plan), durable.move

    def killed(source: Path, path: Path, *, point: str = "file") -> None:
        if path.parent.name == "blobs":
            raise Stopped
        move(source, path, point=point)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "move", killed)
        with pytest.raises(Stopped):
            await exported(node, tmp_path / "out", order)
    await exported(node, tmp_path / "out", order)
    bundle = BundleFolder.open([tmp_path / "out"])
    assert (bundle.damaged, everything_in(bundle, node)) == ({}, True)


async def test_an_export_that_was_killed_between_the_indexes_of_its_disks_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, order = some_node(tmp_path), ExportOrder(everything=True, disks=DiskPlan(code=ErasureCode(2, 3)))
    write_file, written = durable.write_file, list[Path]()

    def killed(path: Path, data: bytes, *, mode: int = 0o600, point: str = "file") -> None:
        if path.name == INDEX and written:
            raise Stopped
        if path.name == INDEX:
            written.append(path)
        write_file(path, data, mode=mode, point=point)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "write_file", killed)
        with pytest.raises(Stopped):
            await exported(node, tmp_path / "out", order)
    assert len(written) == 1
    await exported(node, tmp_path / "out", order)
    assert len(BundleFolder.open([tmp_path / "out"]).disks) == 3


async def test_a_disk_that_becomes_full_is_reported_as_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carried, "CHUNK", 4096)  # less than the buffer of a file, which then keeps what was refused
    monkeypatch.setattr(LargeFile, "_continued", lambda *_: os.fdopen(os.open("/dev/full", os.O_RDWR), "r+b"))
    with pytest.raises(OutOfSpace):
        await exported(some_node(tmp_path), tmp_path / "out")


async def test_a_file_system_without_large_files_is_named_with_the_option_that_helps(tmp_path: Path) -> None:
    """FAT, the usual format of sticks, has files of up to 4 GiB."""
    node, before = some_node(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, before[1]))
    try:
        with pytest.raises(OutOfSpace) as raised:
            await exported(node, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "--split" in raised.value.hint


async def test_the_name_of_a_small_file_on_a_disk_survives_a_power_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, synced = durable.sync, set[Path]()

    def noted(path: Path, *, point: str) -> None:
        sync(path, point=point)
        synced.update([path, *path.iterdir()] if path.is_dir() else [path])

    monkeypatch.setattr(durable, "sync", noted)
    await exported(some_node(tmp_path), tmp_path / "out", ExportOrder(everything=True, disks=DiskPlan(9_000_000)))
    every = set((tmp_path / "out").rglob("*"))
    assert every - synced == set()


def without_weights(good: Release) -> Manifest:
    return Manifest.of(entry for entry in good.ingested.manifest.files if entry.path != "weights.bin")


def index_of(manifest: Manifest, good: Release, layout: str = "") -> bytes:
    layouts = dict(good.ingested.index.files)
    every = ((entry.path, layouts[entry.path]) for entry in manifest.files)
    return PieceIndex(
        tuple((path, PieceLayout(layout or each.layout, each.count, each.root)) for path, each in every)
    ).encode()


def of_other_sizes(good: Release) -> bytes:
    files = good.ingested.manifest.files
    return Manifest.of(FileEntry(entry.path, max(0, entry.size - 1), entry.sha256) for entry in files).encode()


HOSTILE_DOCUMENTS: dict[str, Callable[[Release], tuple[bytes, bytes]]] = {
    "no manifest": lambda good: (b"{}", good.ingested.index.encode()),
    "no index": lambda good: (without_weights(good).encode(), b"[]"),
    "an index of other files": lambda good: (without_weights(good).encode(), good.ingested.index.encode()),
    "files of other sizes": lambda good: (of_other_sizes(good), good.ingested.index.encode()),
    "no records in that layout": lambda good: (
        without_weights(good).encode(),
        index_of(without_weights(good), good, TENSOR_LAYOUT),
    ),
}


def logged(node: MemoryNode, manifest: bytes, index: bytes, licence: SideObject | None = None) -> None:
    """A member's own node logs any line, and all others mirror it."""
    by, documents = Publisher.generate(), (SideObject.of(manifest), SideObject.of(index))
    named = Published(by.id, Name.parse("evil/model@v1"), documents[0].digest, *documents, Licence("MIT", licence))
    node.lines += [by.announcement, sign_content(named, by.signer).line]
    node.blobs |= {sha256(data): data for data in (manifest, index)}


@pytest.mark.parametrize("name", HOSTILE_DOCUMENTS)
async def test_a_contradictory_publication_leaves_no_others_out_of_a_bundle(tmp_path: Path, name: str) -> None:
    node = MemoryNode(lacks=TENSOR_LAYOUT)
    good = node.publish(tmp_path / "model", "tests/model@v1", weights=10_000, seed=1)
    logged(node, *HOSTILE_DOCUMENTS[name](good))
    made = await exported(node, tmp_path / "out")
    assert (made.index.artifacts, made.incomplete) == (1, ("evil/model@v1",))
    bundle = BundleFolder.open([tmp_path / "out"])
    assert all(bundle.carries(digest) for digest in good.blobs)
    assert everything_in(bundle, node)


@pytest.mark.parametrize("index", ["malformed", "of another layout"])
async def test_a_false_index_of_an_artifact_does_not_replace_its_publishers_own(tmp_path: Path, index: str) -> None:
    node = MemoryNode(lacks=TENSOR_LAYOUT)
    good = MemoryNode().publish(tmp_path / "model", "tests/model@v1", weights=10_000, seed=1)
    manifest = good.ingested.manifest
    false = b"{}" if index == "malformed" else index_of(manifest, good, TENSOR_LAYOUT)
    logged(node, manifest.encode(), false)
    node.publish(tmp_path / "again", "tests/model@v1", weights=10_000, seed=1)
    made = await exported(node, tmp_path / "out")
    assert (made.index.artifacts, made.incomplete) == (1, ())
    bundle = BundleFolder.open([tmp_path / "out"])
    assert all(bundle.carries(digest) and bundle.records(digest, FIXED_LAYOUT) for digest in good.blobs)


async def test_a_statement_that_names_an_object_with_another_size_stops_no_export(tmp_path: Path) -> None:
    node = MemoryNode()
    good = node.publish(tmp_path / "model", "tests/model@v1", weights=10_000, seed=1)
    digest, data = next(iter(good.objects.items()))
    less = without_weights(good)
    logged(node, less.encode(), index_of(less, good), SideObject(digest, len(data) + 1))
    assert (await exported(node, tmp_path / "out")).index.artifacts == 2
    assert everything_in(BundleFolder.open([tmp_path / "out"]), node)


@pytest.mark.parametrize("plan", [DiskPlan(), DiskPlan(700_000)], ids=str)
async def test_a_second_export_into_the_same_folder_is_refused_while_one_runs(tmp_path: Path, plan: DiskPlan) -> None:
    node, order, refused = some_node(tmp_path), ExportOrder(everything=True, disks=plan), list[str]()

    def export_too(asked: MemoryNode) -> None:
        asked.on_read = lambda: None
        with pytest.raises(Conflict) as raised:
            asyncio.run(exported(asked, tmp_path / "out", order))
        refused.append(raised.value.code)

    node.on_read = lambda: ThreadPoolExecutor(1).submit(export_too, node).result()
    await exported(node, tmp_path / "out", order)
    assert refused == ["EXPORT-RUNS"]
    assert everything_in(BundleFolder.open([tmp_path / "out"]), node)


@pytest.mark.parametrize(
    ("plan", "path"),
    [(DiskPlan(), "contents"), (DiskPlan(), "disk"), (DiskPlan(700_000), "staged/thesis.odt")],
    ids=str,
)
async def test_other_files_in_the_folder_are_neither_replaced_nor_removed(
    tmp_path: Path, plan: DiskPlan, path: str
) -> None:
    mine = tmp_path / "stick" / path
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(Conflict) as raised:
        await exported(some_node(tmp_path), tmp_path / "stick", ExportOrder(everything=True, disks=plan))
    assert (raised.value.code, mine.read_bytes()) == ("BUNDLE-EXISTS", b"mine")


async def test_every_choice_of_k_of_n_disks_reads_everything(tmp_path: Path) -> None:
    node, code = some_node(tmp_path), ErasureCode(3, 5)
    await exported(node, tmp_path / "out", ExportOrder(everything=True, disks=DiskPlan(code=code)))
    disks = sorted((tmp_path / "out").iterdir())
    assert len(disks) == 5
    for chosen in combinations(disks, 3):
        assert everything_in(BundleFolder.open(chosen), node), chosen
    few = BundleFolder.open(disks[3:])
    with pytest.raises(NotFound):
        list(few.read_blob(max(node.blobs, key=lambda each: len(node.blobs[each])), 0, 10))


async def test_a_damaged_disk_is_restored_from_the_others(tmp_path: Path) -> None:
    node, code = some_node(tmp_path), ErasureCode(2, 3)
    await exported(node, tmp_path / "out", ExportOrder(everything=True, disks=DiskPlan(code=code)))
    largest = max((tmp_path / "out/disk-02").rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    bundle = BundleFolder.open([tmp_path / "out"])
    assert list(bundle.damaged) == [str(tmp_path / "out/disk-02")]
    assert everything_in(bundle, node)


async def test_disks_of_a_size_hold_no_more_and_can_be_read_one_by_one(tmp_path: Path) -> None:
    node = some_node(tmp_path, weights=1_000_000)
    node.publish(tmp_path / "b", "tests/b@v1", weights=1_400_000, seed=3)
    made = await exported(node, tmp_path / "out", ExportOrder(everything=True, disks=DiskPlan(1_450_000)))
    assert made.index.code == ErasureCode(2, 2)
    assert made.written <= 1.02 * made.index.size
    assert everything_in(BundleFolder.open([tmp_path / "out"]), node)
    assert not BundleFolder.open([tmp_path / "out/disk-01"]).whole


async def test_one_undamaged_disk_of_several_is_not_reported_as_damaged(tmp_path: Path) -> None:
    node = some_node(tmp_path, weights=1_000_000)
    await exported(node, tmp_path / "out", ExportOrder(everything=True, disks=DiskPlan(700_000)))
    assert BundleFolder.open([tmp_path / "out/disk-01"]).check(lambda count: None) == []
    rewritten(tmp_path / "out/disk-01", "charter/000000.body", lambda data: data[1:] + data[:1])
    assert BundleFolder.open([tmp_path / "out/disk-01"]).check(lambda count: None) == ["charter/000000.body"]


async def test_disks_that_are_too_small_are_refused_with_the_number_that_is_needed(tmp_path: Path) -> None:
    plan = DiskPlan(500_000, ErasureCode(2, 3))
    with pytest.raises(OutOfSpace) as raised:
        await exported(some_node(tmp_path), tmp_path / "out", ExportOrder(everything=True, disks=plan))
    assert raised.value.hint == "use more data disks: --parity 6/7"


async def test_an_export_waits_while_the_node_limits_its_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PAUSE", 0.0)
    node = some_node(tmp_path)
    node.refusals = 9
    node.limited = {"node", "charter", "epochs", "logs", "entries", "misbehaviour", "read"}
    await exported(node, tmp_path / "out")
    assert (node.limited, everything_in(BundleFolder.open([tmp_path / "out"]), node)) == (set(), True)


async def test_a_file_with_other_bytes_than_its_name_is_not_written(tmp_path: Path) -> None:
    node = some_node(tmp_path)
    large = max(node.blobs, key=lambda each: len(node.blobs[each]))
    good = node.blobs[large]
    node.blobs[large] = good[:-1] + b"?"
    with pytest.raises(Untrusted):
        await exported(node, tmp_path / "out")
    node.blobs[large] = good
    await exported(node, tmp_path / "out")
    assert BundleFolder.open([tmp_path / "out"]).check(lambda count: None) == []


def _index(**members: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        value = json.loads((folder / "bundle.json").read_bytes()) | members
        (folder / "bundle.json").write_text(json.dumps(value))

    return change


def _listed(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Change the list of contents, and its hash in the index, as the maker of a bundle can."""

    def apply(folder: Path) -> None:
        rewritten(folder, "contents", change)
        _index(contents=sha256((folder / "contents").read_bytes()))(folder)

    return apply


def _link(folder: Path) -> None:
    (folder / "packs/000000").unlink()
    (folder / "packs/000000").symlink_to("/etc/passwd")


def _linked_folder(folder: Path) -> None:
    (folder / "packs").rename(folder / "elsewhere")
    (folder / "packs").symlink_to("elsewhere")


def _pipe(folder: Path) -> None:
    (folder / "packs/000000").unlink()
    os.mkfifo(folder / "packs/000000")


def _folder(folder: Path) -> None:
    (folder / "disk").unlink()
    (folder / "disk").mkdir()


def _device(folder: Path) -> None:
    (folder / "contents").unlink()
    (folder / "contents").symlink_to("/dev/zero")


HOSTILE: dict[str, Callable[[Path], None]] = {
    "a truncated pack": lambda folder: rewritten(folder, "packs/000000", lambda data: data[:-1]),
    "an oversized pack": lambda folder: rewritten(folder, "packs/000000", lambda data: data + b"x"),
    "a missing pack": lambda folder: (folder / "packs/000000").unlink(),
    "a link": _link,
    "a linked folder": _linked_folder,
    "a pipe": _pipe,
    "a device": _device,
    "a folder for a file": _folder,
    "a changed list": lambda folder: rewritten(folder, "contents", lambda data: data[1:] + data[:1]),
    "a path outside": _listed(lambda data: data.replace(b"packs/000000", b"../../../etc")),
    "an absolute path": _listed(lambda data: data.replace(b"packs/000000", b"/etc/shadow!")),
    "a path with a zero": _listed(lambda data: data.replace(b"packs/000000", b"packs/00000\0")),
    "a file listed twice": _listed(lambda data: data + data.splitlines(keepends=True)[0]),
    "an endless line": _listed(lambda data: data + b"0" * 1_000_000),
    "a size with a sign": _listed(lambda data: data.replace(b" 1", b" +1", 1)),
    "members of another size": _listed(lambda data: data[: data.rindex(b"\n", 0, -1) + 1]),
    "a member without a pack": _listed(lambda data: data.splitlines(keepends=True)[-1] + data),
    "a size that is not the sum": _index(size=1),
    "more data than disks": _index(data_disks=3, disks=2),
    "no disks": _index(data_disks=0, disks=0),
    "too many disks": _index(data_disks=9_999, disks=9_999),
    "disks without bytes": _index(disk_bytes=0),
    "another format": _index(schema="comity.dev/bundle/v9"),
    "a member too many": _index(exec="rm -rf /"),
    "no JSON": lambda folder: rewritten(folder, "bundle.json", lambda data: data[:-5]),
    "a huge index": lambda folder: os.truncate(folder / "bundle.json", 2**40),
    "a number of no disk": lambda folder: rewritten(folder, "disk", lambda data: b"7\n"),
    "nothing in the index": lambda folder: rewritten(folder, "bundle.json", lambda data: b""),
    "a log listed twice": lambda folder: _index(logs=2 * json.loads((folder / "bundle.json").read_bytes())["logs"])(
        folder
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_folder_is_refused_as_a_whole(tmp_path: Path, name: str) -> None:
    await exported(some_node(tmp_path, weights=10_000), tmp_path / "out")
    HOSTILE[name](tmp_path / "out")
    with pytest.raises(ComityError) as raised:
        BundleFolder.open([tmp_path / "out"])
    assert isinstance(raised.value, Malformed | Untrusted), raised.value
    assert raised.value.why


async def test_disks_of_different_bundles_are_refused(tmp_path: Path) -> None:
    order = ExportOrder(everything=True, disks=DiskPlan(code=ErasureCode(1, 2)))
    for name in ("a", "b"):
        await exported(some_node(tmp_path / f"of-{name}", weights=10_000), tmp_path / name, order)
    with pytest.raises(Untrusted) as raised:
        BundleFolder.open([tmp_path / "a/disk-01", tmp_path / "b/disk-02"])
    assert raised.value.code == "BUNDLE"


async def test_bytes_that_were_swapped_are_found_by_a_check(tmp_path: Path) -> None:
    await exported(some_node(tmp_path), tmp_path / "out")
    rewritten(tmp_path / "out", "packs/000000", lambda data: data[1:] + data[:1])
    bundle = BundleFolder.open([tmp_path / "out"])
    assert bundle.check(lambda count: None) == ["packs/000000"]


def test_a_path_that_no_export_writes_is_no_line_of_contents() -> None:
    good = f"{'0' * 64} 5 packs/000001\n".encode()
    assert parse_contents_line(good) == CarriedFile("packs/000001", 5, Digest("0" * 64))
    for path in ("packs/../packs/1", "Packs/000001", "packs/0000001", "blobs/" + "1" * 64, "bundle.json", "x", "+ +"):
        with pytest.raises(Malformed):
            parse_contents_line(good.replace(b"packs/000001", path.encode()))


def test_consistency_proofs_from_the_edge_of_an_earlier_bundle_are_those_of_the_whole_tree() -> None:
    leaves = [leaf_hash(b"%d" % number) for number in range(70)]
    tree = MemoryTree(leaves)
    for start in (0, 1, 2, 3, 7, 8, 31, 32, 33, 64, 69):
        edges = [Frontier.read(size, tree.node) for size in (start, 70)]
        carried = CarriedTree(CarriedLog("x+00000000+AA==", *edges), leaves[start:])
        for old in range(start, 71):
            for new in range(max(1, old), 71):
                assert carried.consistency(old, new) == consistency_proof(old, new, tree.node)


def test_a_proof_about_entries_before_the_start_is_not_in_the_bundle() -> None:
    leaves = [leaf_hash(b"%d" % number) for number in range(20)]
    tree = MemoryTree(leaves)
    edges = [Frontier.read(size, tree.node) for size in (8, 20)]
    with pytest.raises(NotFound) as raised:
        CarriedTree(CarriedLog("x+00000000+AA==", *edges), leaves[8:]).consistency(5, 20)
    assert raised.value.code == "GAP"


def test_the_parts_of_all_files_are_every_byte_once_and_in_order() -> None:
    source = random.Random(5)
    for _ in range(300):
        sizes = [source.choice([0, 1, 5, 30, 100]) for _ in range(source.randint(1, 6))]
        files = [CarriedFile(f"packs/{number:06d}", size, Digest("0" * 64)) for number, size in enumerate(sizes)]
        data = source.randint(1, 4)
        layout = DiskLayout(files, max(1, -(-sum(sizes) // data)), ErasureCode(data, data + 1))
        at = 0
        for number, file in enumerate(files):
            parts = layout.parts(number)
            assert sum(part.size for part in parts) == file.size
            for part in parts:
                assert part.disk < data
                assert not part.size or part.disk * layout.disk_bytes + part.on_disk == at
                at += part.size
        for disk in range(data):
            ranges = list(layout.files_of(disk, 0, layout.disk_bytes))
            assert sum(count for _, _, count in ranges) == layout.used(disk)


async def test_an_index_and_its_contents_are_read_back_as_written(tmp_path: Path) -> None:
    await exported(some_node(tmp_path, weights=10_000), tmp_path / "out")
    data, listed = ((tmp_path / "out" / name).read_bytes() for name in ("bundle.json", "contents"))
    assert BundleIndex.parse(data).encode() == data
    files = parse_contents(listed.splitlines(keepends=True))
    assert b"".join(file.encode() for file in files) == listed
