"""Bundles between nodes that have no network: one exports, a folder is carried, another loads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
from pathlib import Path

import pytest
from comity.node.replication.artifacts import Copy
from comity.node.replication.held_copies import HeldCopies
from comity.node.replication.misbehaviour import MisbehaviourProofs
from comity.node.replication.replicas import Replicas
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Untrusted
from comity.trust.tlog.note import Checkpoint, SignedNote
from comity.wire.client import NodeClient
from comity_client.bundles.erasure import ErasureCode
from comity_client.bundles.exporting import (
    EarlierBundle,
    ExportedBundle,
    ExportOrder,
    UncosignedLog,
    export_bundle,
)
from comity_client.bundles.loading import LoadResult, load_bundle
from comity_client.bundles.writing import DiskPlan
from comity_client.events import Progress, ignore_event
from support.carried import rewritten
from support.federation import NodeHome, NodeProcess, cosigners, found, holds, note_of, serving, until
from support.publisher import Publisher, Release, model, release, send

pytestmark = pytest.mark.slow


def _swap_bytes(folder: Path) -> None:
    """Swap two bytes, as a damaged disk may."""
    rewritten(folder, entries_of(folder), lambda data: data.replace(b"a", b"b", 1))


def _forge_entries(folder: Path) -> None:
    """Change entries as the maker of a bundle can: the list and the index match."""
    old = sha256((folder / entries_of(folder)).read_bytes())
    _swap_bytes(folder)
    new = sha256((folder / entries_of(folder)).read_bytes())
    rewritten(folder, "contents", lambda data: data.replace(old.encode(), new.encode()))
    index = json.loads((folder / "bundle.json").read_bytes())
    index["contents"] = sha256((folder / "contents").read_bytes())
    (folder / "bundle.json").write_text(json.dumps(index))


def _other_federation(folder: Path) -> None:
    index = json.loads((folder / "bundle.json").read_bytes())
    (folder / "bundle.json").write_text(json.dumps(index | {"federation": "ab" * 32}))


def entries_of(folder: Path) -> str:
    """The first entries of the first log."""
    return str(next((folder / "logs/00000").glob("*.lines")).relative_to(folder))


HOSTILE = {
    "swapped bytes": (_swap_bytes, "BUNDLE"),
    "forged entries": (_forge_entries, "ROOT-MISMATCH"),
    "another federation": (_other_federation, "WRONG-FEDERATION"),
}


async def exported(home: NodeHome, folder: Path, order: ExportOrder) -> ExportedBundle:
    async with home.client() as client:
        return await export_bundle(client, order, folder, ignore_event)


async def loaded(home: NodeHome, *folders: Path) -> LoadResult:
    return await load_bundle(folders, home.socket)


async def size_of(client: NodeClient, origin: NodeHome) -> int:
    note = await note_of(client, origin.origin)
    return Checkpoint.parse(note.text).size if note else 0


async def publish_under_checkpoint(client: NodeClient, home: NodeHome, artifact: Release) -> None:
    """Publish at a node, and wait for a checkpoint over it: what is exported ends at one."""
    last = max(receipt.index for receipt in (await send(client, artifact)).receipts)

    async def covered() -> bool:
        return await size_of(client, home) > last

    await until(covered, what="a checkpoint over what was published")


async def test_a_node_fed_by_disks_mirrors_cosigns_and_holds(tmp_path: Path) -> None:
    founded = found(tmp_path, 3)
    first, second, inside = founded.homes
    publisher = Publisher.generate()
    one = release(publisher, model(tmp_path / "one", weights=9_000_000), "tests/one@v1")
    two = release(publisher, model(tmp_path / "two", weights=3_000_000, seed=2), "tests/two@v1")
    full, delta, back, disks = (tmp_path / name for name in ("full", "delta", "back", "disks"))
    async with serving(first, second), first.client() as client:
        await send(client, one)
        await until(lambda: holds(first, one.artifact, second), what="a second copy")
        whole = await exported(first, full, ExportOrder(everything=True))
        await send(client, two)
        await until(lambda: holds(first, two.artifact, second), what="a second copy")
        order = ExportOrder(earlier=(EarlierBundle.read(full),))
        more = await exported(first, delta, order)
        order = ExportOrder(everything=True, disks=DiskPlan(code=ErasureCode(2, 4)))
        await exported(first, disks, order)
    assert whole.index.artifacts == more.index.artifacts == 1
    payload = sum(path.stat().st_size for path in full.rglob("*") if path.is_file())
    assert payload <= 1.02 * whole.index.size
    assert whole.written <= 1.02 * whole.index.size
    assert 3_000_000 < more.index.size < 3_200_000

    async with serving(inside), inside.client() as client:
        early = await loaded(inside, delta)
        assert {log.code for log in early.logs} == {"GAP"}
        assert await size_of(client, first) == 0
        for name, (change, code) in HOSTILE.items():
            evil = tmp_path / name
            shutil.copytree(full, evil)
            change(evil)
            try:
                codes = {log.code for log in (await loaded(inside, evil)).logs}
            except Untrusted as error:
                codes = {error.code}
            assert code in codes, (name, codes)
            assert await size_of(client, first) == 0, name
        result = await loaded(inside, full)
        assert not result.refused, result
        assert [item.artifact for item in result.artifacts] == [one.artifact]
        assert await holds(inside, one.artifact, inside)
        again = await loaded(inside, full)
        assert not again.changed
        assert (await loaded(inside, delta)).changed
        assert await holds(inside, two.artifact, inside)
        older = await loaded(inside, full)
        assert not older.changed
        assert any(log.carried < log.now for log in older.logs)
        await until(lambda: cosigned(first, client, inside), what="the cosignature of the node inside")
        await exported(inside, back, ExportOrder(earlier=(EarlierBundle.read(delta),)))

    async with serving(first), first.client() as client:
        assert not await holds(first, one.artifact, inside)
        returned = await loaded(first, back)
        assert returned.changed
        assert await holds(first, one.artifact, inside)
        assert await cosigned(first, client, inside)

    forget(inside)
    for lost in ("disk-02", "disk-03"):
        shutil.rmtree(disks / lost)
    async with serving(inside):
        restored = await loaded(inside, disks)
        assert (restored.disks, restored.restored) == ((2, 4), True)
        assert {item.artifact for item in restored.artifacts if not item.code} == {one.artifact, two.artifact}


async def test_a_later_export_brings_the_cosignatures_that_the_first_one_lacked(tmp_path: Path) -> None:
    first, second, third, inside = found(tmp_path / "nodes", 4, policy=(1, 1)).homes
    one = release(Publisher.generate(), model(tmp_path / "one"), "tests/one@v1")
    async with serving(first), first.client() as client:
        await publish_under_checkpoint(client, first, one)
        early = await exported(first, tmp_path / "full", ExportOrder(everything=True))
    assert early.uncosigned == (UncosignedLog(first.origin, 0, 2),)

    async def cosigned_at(client: NodeClient) -> bool:
        note = await note_of(client, first.origin)
        return note is not None and len(cosigners(first, note, (second, third))) == 2

    async with serving(first, second, third), first.client() as client:
        await until(lambda: cosigned_at(client), what="two cosigners")
        order = ExportOrder(earlier=(EarlierBundle.read(tmp_path / "full"),))
        later = await exported(first, tmp_path / "more", order)
    assert first.origin not in {log.origin for log in later.uncosigned}
    async with serving(inside), inside.client() as client:
        await loaded(inside, tmp_path / "full")
        assert not await cosigned_at(client)
        await loaded(inside, tmp_path / "more")
        assert await cosigned_at(client)


@pytest.mark.parametrize("leaves_late", [False, True], ids=["out of the queue", "about to leave the queue"])
async def test_a_load_reports_copies_that_were_made_while_it_read_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaves_late: bool
) -> None:
    first, inside = found(tmp_path, 2).homes
    one = release(Publisher.generate(), model(tmp_path / "one", weights=100_000), "tests/one@v1")
    async with serving(first), first.client() as client:
        await publish_under_checkpoint(client, first, one)
        await exported(first, tmp_path / "out", ExportOrder(everything=True))
    fetch = MisbehaviourProofs.fetch

    async def fetch_late(self: MisbehaviourProofs, client: NodeClient) -> None:
        """Between the logs and the files, nodes copy the files that the logs name."""
        await until(lambda: holds(inside, one.artifact, inside), what="a copy from the bundle")
        await fetch(self, client)

    listed, list_copies, set_damaged = asyncio.Event(), Replicas.incomplete_copies, HeldCopies.set_damaged

    async def told_when_listed(self: Replicas) -> list[Copy]:
        copies = await list_copies(self)
        listed.set()
        return copies

    async def set_late(self: HeldCopies, artifact: Digest, *, damaged: bool) -> None:
        """What a copy waits for between its claim and its end in the queue."""
        await listed.wait()
        await set_damaged(self, artifact, damaged=damaged)

    monkeypatch.setattr(MisbehaviourProofs, "fetch", fetch_late)
    if leaves_late:
        monkeypatch.setattr(Replicas, "incomplete_copies", told_when_listed)
        monkeypatch.setattr(HeldCopies, "set_damaged", set_late)
    async with serving(inside):
        result = await loaded(inside, tmp_path / "out")
    assert [(item.artifact, item.code) for item in result.artifacts] == [(one.artifact, "")]


ROOM_FOR_FOUR_KB = """
default = "copy"

[[rule]]
name = "tests"
do = "copy"
repositories = ["tests/*"]
quota_bytes = 4000
"""


async def test_a_load_names_what_has_no_room_and_claims_what_it_tells_as_loaded(tmp_path: Path) -> None:
    first, inside = found(tmp_path, 2).homes
    publisher = Publisher.generate()
    small = release(publisher, model(tmp_path / "small", weights=1_000), "tests/small@v1")
    large = release(publisher, model(tmp_path / "large", weights=9_000, seed=2), "tests/large@v1")
    async with serving(first), first.client() as client:
        await publish_under_checkpoint(client, first, small)
        await publish_under_checkpoint(client, first, large)
        await exported(first, tmp_path / "out", ExportOrder(everything=True))
    (tmp_path / "rules.toml").write_text(ROOM_FOR_FOUR_KB)
    inside.set("replication", rules=str(tmp_path / "rules.toml"), hold_batch=64)
    async with serving(inside):
        result = await loaded(inside, tmp_path / "out")
        taken = {item.artifact: item.code for item in result.artifacts}
        assert taken == {small.artifact: "", large.artifact: "MIRROR-QUOTA"}
        assert await holds(inside, small.artifact, inside)
        assert not await holds(inside, large.artifact, inside)


def forget(home: NodeHome) -> None:
    """Simulate the loss of the machine: a new one has the keys, and nothing else."""
    storage = home.config().storage
    shutil.rmtree(storage.blobs)
    for path in storage.ledger.parent.glob("ledger*"):
        path.unlink()


async def cosigned(origin: NodeHome, client: NodeClient, by: NodeHome) -> bool:
    """Whether a node shows a checkpoint of a log with another node's cosignature."""
    note = SignedNote.parse(await client.checkpoint(origin.origin, 0))
    return by.name in cosigners(origin, note, (by,))


KILLS = (
    "blob.rename:2",
    "ledger.advance.before-commit:1",
    "ledger.advance.after-commit:1",
    "blob.rename:1",
    "blob.done:1",
)
"""In the order in which a continued load reads them: side objects, the log, files."""


def closed(node: NodeProcess) -> bool:
    """Whether a node has closed the bundle that it opened."""
    return any(event["event"] == "bundle closed" for event in node.events)


async def test_a_load_continues_after_a_kill_of_the_node_at_any_point(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    first, inside = founded.homes
    one = release(Publisher.generate(), model(tmp_path / "one", weights=30_000_000), "tests/one@v1")
    async with serving(first), first.client() as client:
        await publish_under_checkpoint(client, first, one)
        await exported(first, tmp_path / "out", ExportOrder(everything=True))
    ended = dict[str, object]()
    for fault in KILLS:
        with contextlib.closing(NodeProcess(inside, {"COMITY_FAULT": fault})) as node:
            await node.ready()
            try:
                ended[fault] = await loaded(inside, tmp_path / "out")
            except ComityError as error:
                ended[fault] = node.ended() if node.ended() == -signal.SIGKILL else error
    assert ended == dict.fromkeys(KILLS, -signal.SIGKILL)
    with contextlib.closing(NodeProcess(inside)) as node:
        await node.ready()
        read = asyncio.Event()

        def on_event(event: object) -> None:
            if isinstance(event, Progress):
                read.set()

        loading = asyncio.create_task(load_bundle([tmp_path / "out"], inside.socket, on_event=on_event))
        reading = asyncio.create_task(read.wait())
        await asyncio.wait((loading, reading), return_when=asyncio.FIRST_COMPLETED)
        assert reading.done(), loading.result()
        loading.cancel()  # the loader is killed, and the node continues
        with contextlib.suppress(asyncio.CancelledError):
            await loading
        await until(lambda: closed(node), what="the node to notice that the loader is gone")
        result = await loaded(inside, tmp_path / "out")
        assert not result.refused, result
        assert await holds(inside, one.artifact, inside), node.words
        async with inside.client() as client:
            for digest, path in one.blobs.items():
                data = path.read_bytes()
                assert b"".join([chunk async for chunk in client.read(digest, 0, len(data))]) == data
