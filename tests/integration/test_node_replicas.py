"""Copies of artifacts between nodes: fetched from any peer that has them, verified, and only then claimed as held."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from comity.content.blobs import FolderStore
from comity.node.services.blob import BlobServicer
from comity.trust.copies import hold_of
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound
from comity.trust.node_records import signed_by_node
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import HOLD_PREDICATES
from comity.wire.asking import patiently
from comity.wire.client import NodeClient
from support.federation import NodeHome, found, processes, serving, until
from support.publisher import Publisher, Release, model, release, send

pytestmark = pytest.mark.slow


async def holders(client: NodeClient, artifact: Digest, homes: tuple[NodeHome, ...]) -> set[str]:
    """Names of the nodes whose holds a node shows in the holder's own log."""
    found: set[str] = set()
    try:
        claims = await client.claims(artifact)
    except NotFound:
        return found
    for located in claims:
        entry = parse_entry(located.line)
        for home in homes:
            if entry.statement.predicate in HOLD_PREDICATES and located.origin == home.origin:
                assert signed_by_node(entry, home.record)
                assert hold_of(entry.statement, artifact) is not None
                found.add(home.name)
    return found


async def held_by_all(asked: NodeHome, what: Release, homes: tuple[NodeHome, ...]) -> None:
    async with asked.client() as client:

        async def all_hold() -> bool:
            return await holders(client, what.artifact, homes) == {home.name for home in homes}

        await until(all_hold, what="every node to hold the artifact")


async def has_every_byte(home: NodeHome, what: Release) -> None:
    async with home.client() as client:
        for digest, path in what.blobs.items():
            data = path.read_bytes()
            assert await patiently(partial(_read, client, digest, len(data))) == data


async def _read(client: NodeClient, digest: Digest, size: int) -> bytes:
    return b"".join([chunk async for chunk in client.read(digest, 0, size)])


async def test_an_artifact_published_at_one_node_is_held_by_all(tmp_path: Path) -> None:
    founded = found(tmp_path, 3)
    first, second, third = founded.homes
    what = release(Publisher.generate(), model(tmp_path / "model", weights=9_000_000), "tests/model@v1")
    async with serving(*founded.homes), first.client() as client, second.operator() as operator:
        await send(client, what)
        await held_by_all(third, what, founded.homes)
        for home in founded.homes:
            await has_every_byte(home, what)
        others = {home.name: (True, 0) for home in (first, third)}

        async def level() -> bool:
            return {peer.name: (peer.reachable, peer.lag) for peer in (await operator.status()).peers} == others

        await until(level, what="the second node to be level with its peers")
        status = await operator.status()
        assert status.holds == 1
        assert status.store.blobs == len(what.objects) + len({file.sha256 for file in what.ingested.manifest.files})
        async with first.operator() as origin:
            served = (await origin.status()).served
        assert {item.blob for item in served if item.caller in (second.name, third.name)} >= set(what.blobs)


async def test_a_file_gets_its_name_where_its_piece_records_are_kept_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: dict[Path, list[Digest]] = {}
    admit, put_all = FolderStore.admit, FolderStore.put_all

    def require_records(store: FolderStore, digest: Digest) -> None:
        with contextlib.closing(sqlite3.connect(store.root.with_name("ledger.sqlite"))) as ledger:
            records = ledger.execute("SELECT blob FROM piece_records WHERE blob = ?", (bytes.fromhex(digest),))
            assert records.fetchone(), "a node that is killed now has a file without its piece records"
        came.setdefault(store.root, []).append(digest)

    def admitted(store: FolderStore, path: Path, digest: Digest, size: int, *, link: bool = False) -> None:
        require_records(store, digest)
        admit(store, path, digest, size, link=link)

    def put(store: FolderStore, objects: Mapping[Digest, bytes]) -> None:
        for digest in objects.keys() & ready.blobs.keys():
            require_records(store, digest)
        put_all(store, objects)

    monkeypatch.setattr(FolderStore, "admit", admitted)
    monkeypatch.setattr(FolderStore, "put_all", put)
    homes = found(tmp_path, 2).homes
    ready = release(Publisher.generate(), model(tmp_path / "model"), "tests/model@v1")
    async with serving(*homes):
        async with homes[0].client() as client:
            await send(client, ready)
        await held_by_all(homes[0], ready, homes)
    assert {root: set(digests) for root, digests in came.items()} == {
        home.config().storage.blobs: set(ready.blobs) for home in homes
    }


async def test_many_small_files_are_copied_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, batches, read = tmp_path / "many", list[int](), list[Digest]()
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:03}.json").write_bytes(b'{"number": %d}' % number)
    what = release(Publisher.generate(), folder, "tests/many@v1")
    small, one = BlobServicer.small, BlobServicer.read

    def together(
        service: BlobServicer, digests: Sequence[Digest]
    ) -> AsyncGenerator[Sequence[tuple[Digest, bytes]], None]:
        batches.append(len(what.blobs.keys() & set(digests)))
        return small(service, digests)

    def alone(service: BlobServicer, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        read.append(digest)
        return one(service, digest, offset, length)

    homes = found(tmp_path, 2).homes
    async with serving(*homes):
        async with homes[0].client() as client:
            await send(client, what)
        monkeypatch.setattr(BlobServicer, "small", together)
        monkeypatch.setattr(BlobServicer, "read", alone)
        await held_by_all(homes[0], what, homes)
        monkeypatch.undo()
        await has_every_byte(homes[1], what)
    assert sum(batches) >= len(what.blobs)
    assert len([count for count in batches if count]) <= 4
    assert not what.blobs.keys() & set(read)


async def test_the_copies_outlive_their_origin(tmp_path: Path) -> None:
    founded = found(tmp_path, 3)
    first, second, third = founded.homes
    what = release(Publisher.generate(), model(tmp_path / "model"), "tests/model@v1")
    with processes(first, second) as nodes:
        for node in nodes:
            await node.ready()
        async with first.client() as client:
            await send(client, what)
        await held_by_all(second, what, (first, second))
        nodes[0].kill()
        shutil.rmtree(first.directory)
        with processes(third) as (late,):
            await late.ready()
            await held_by_all(third, what, founded.homes)
            await has_every_byte(third, what)

            def served() -> bool:
                told = [said for said in nodes[1].events if said.get("peer") == third.name]
                alone = {said["blob"] for said in told if said["event"] == "served"}
                lists = (cast(list[object], said["blobs"]) for said in told if said["event"] == "served together")
                return alone.union(*lists) >= set(what.blobs)

            await until(served, what="the second node to tell what it served")
            (fetched,) = [event for event in late.events if event.get("path") == "weights.bin"]
            assert fetched["sources"] == {second.name: 5_000_000}


async def test_only_what_the_operator_wants_is_copied(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    first, second = founded.homes
    second.set("replication", mirror=["tests/*"])
    publisher = Publisher.generate()
    wanted = release(publisher, model(tmp_path / "one", weights=1000, seed=1), "tests/model@v1")
    other = release(publisher, model(tmp_path / "two", weights=1000, seed=2), "others/model@v1")
    async with serving(*founded.homes), first.client() as client, second.client() as copy:
        await send(client, other)
        await send(client, wanted)
        await held_by_all(second, wanted, founded.homes)

        async def held_by_first() -> bool:
            return await holders(copy, other.artifact, founded.homes) == {first.name}

        await until(held_by_first, what="the first node to hold the other one too")
        assert not any(stat.have for stat in await copy.stat(list(other.blobs)))


async def test_a_hold_is_logged_once_however_often_the_node_starts(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    first, second = founded.homes
    what = release(Publisher.generate(), model(tmp_path / "model", weights=1000), "tests/model@v1")
    async with serving(*founded.homes), first.client() as client:
        await send(client, what)
        await held_by_all(second, what, founded.homes)
    again = release(what.publisher, tmp_path / "model", "tests/model@v2")
    async with serving(*founded.homes), first.client() as client, second.client() as copy:
        await send(client, again)
        later = release(what.publisher, model(tmp_path / "later", weights=1000, seed=3), "tests/model@v3")
        await send(client, later)
        await held_by_all(second, later, founded.homes)
        said = [parse_entry(located.line).statement.predicate for located in await copy.claims(what.artifact)]
        assert said.count("hold") == 2


async def test_a_lost_file_is_fetched_again(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    first, second = founded.homes
    what = release(Publisher.generate(), model(tmp_path / "model", weights=1000), "tests/model@v1")
    async with serving(*founded.homes), first.client() as client:
        await send(client, what)
        await held_by_all(second, what, founded.homes)
    for digest in what.blobs:
        (second.config().storage.blobs / "blobs" / digest[:2] / digest).unlink()
    async with serving(*founded.homes), second.client() as copy:

        async def back() -> bool:
            return all(stat.have for stat in await copy.stat(list(what.blobs)))

        await until(back, what="the files to come back")
        await has_every_byte(second, what)


async def test_a_restored_node_fetches_every_side_object_again_from_any_peer_that_has_it(tmp_path: Path) -> None:
    founded = found(tmp_path, 3)
    first, second, third = founded.homes
    what = release(Publisher.generate(), model(tmp_path / "model", weights=1000), "tests/model@v1")
    async with serving(*founded.homes), first.client() as client:
        await send(client, what)
        await held_by_all(third, what, founded.homes)
    shutil.rmtree(second.config().storage.blobs)
    licence = sha256(b"Do as you like.\n")
    (first.config().storage.blobs / "blobs" / licence[:2] / licence).unlink()
    async with serving(*founded.homes), second.client() as copy:

        async def back() -> bool:
            return all(stat.have for stat in await copy.stat([*what.objects, *what.blobs]))

        await until(back, what="the side objects to come back")


async def test_a_node_reports_which_side_objects_it_lacks(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    first, second = founded.homes
    what = release(Publisher.generate(), model(tmp_path / "model", weights=1000), "tests/model@v1")
    async with serving(*founded.homes), first.client() as client:
        await send(client, what)
        await held_by_all(second, what, founded.homes)
    shutil.rmtree(second.config().storage.blobs)
    async with serving(second), second.operator() as operator:

        async def told() -> bool:
            return any("side objects" in warning for warning in (await operator.status()).warnings)

        await until(told, what="the loss to be told")
