"""A node whose blobs are in a bucket of a real Ceph: it publishes, mirrors and is mirrored, and serves pulls."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from comity_client.client import Client
from comity_client.home import Home
from support.federation import NodeHome, NodeProcess, converged, found, processes, until
from support.publisher import Publisher, Release, model, release, send
from support.s3 import S3Account, keep_in_bucket
from support.waiting import eventually
from support.weights import write_large_tensor

pytestmark = [pytest.mark.ceph, pytest.mark.slow]

MIB = 1024 * 1024
BOUND = 250 * MIB


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def peak(node: NodeProcess) -> int:
    """The most resident bytes so far."""
    status = Path(f"/proc/{node.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]  # Linux writes it


async def copied(home: NodeHome, what: Release) -> None:
    async with home.client() as client:

        async def whole() -> bool:
            return all(stat.have for stat in await client.stat([*what.objects, *what.blobs]))

        await until(whole, what=f"{home.name} to have every byte")


def user(folder: Path, federation: bytes) -> Client:
    client = Client(Home(folder))
    client.pin(federation)
    return client


async def test_a_node_publishes_from_a_bucket_and_is_mirrored_and_pulled_from(
    tmp_path: Path, ceph_s3: S3Account
) -> None:
    founded = found(tmp_path / "nodes", 2)
    first, second = founded.homes
    bucket = keep_in_bucket(first, ceph_s3)
    source = model(tmp_path / "model", weights=40 * MIB + 17)
    what = release(Publisher.generate(), source, "tests/model@v1")
    with processes(*founded.homes) as (on_s3, on_folder):
        for node in (on_s3, on_folder):
            await node.ready()
        async with first.client() as client:
            receipts = (await send(client, what)).receipts
        await copied(second, what)
        await converged(founded.homes, first, least=receipts[-1].index + 1)
        assert set(dict(bucket.sizes())) >= set(what.blobs)
        on_folder.kill()
        puller = user(tmp_path / "home", founded.federation.encode())
        await asyncio.to_thread(eventually, lambda: puller.pull("tests/model@v1", to=tmp_path / "pulled"))
        assert contents(tmp_path / "pulled") == contents(source)
        assert puller.verify(tmp_path / "pulled").exit_status == 0
        assert peak(on_s3) < BOUND


async def test_a_node_mirrors_into_a_bucket(tmp_path: Path, ceph_s3: S3Account) -> None:
    founded = found(tmp_path / "nodes", 2)
    first, second = founded.homes
    bucket = keep_in_bucket(second, ceph_s3)
    what = release(Publisher.generate(), model(tmp_path / "model", weights=40 * MIB + 17), "tests/model@v1")
    with processes(*founded.homes) as nodes:
        for node in nodes:
            await node.ready()
        async with first.client() as client:
            await send(client, what)
        await copied(second, what)
        assert all(bucket.verify(digest) for digest in (*what.objects, *what.blobs))
        assert not list((second.config().storage.blobs / "partial").glob("*"))
        assert peak(nodes[1]) < BOUND


@pytest.mark.long
async def test_a_node_on_a_bucket_takes_and_gives_512_mib_in_bounded_memory(tmp_path: Path, ceph_s3: S3Account) -> None:
    """Long: the short form has the same bound for 40 MiB, and `test_s3_store.py` for 512 MiB without a node."""
    founded = found(tmp_path / "nodes", 2)
    first = founded.homes[0]
    for home in founded.homes:
        keep_in_bucket(home, ceph_s3)
    (tmp_path / "model").mkdir()
    write_large_tensor(tmp_path / "model" / "weights.bin", 512 * MIB)
    client = user(tmp_path / "home", founded.federation.encode())
    publisher = client.new_publisher("Tests", "CH", first.origin)
    with processes(*founded.homes) as nodes:
        for node in nodes:
            await node.ready()
        name = "tests/model@v1"
        await asyncio.to_thread(client.publish, tmp_path / "model", name, publisher=publisher, licence="MIT")

        async def mirrored() -> bool:
            return any(event["event"] == "hold logged" for event in nodes[1].events)

        await until(mirrored, patience=300, what="the copy")
        peaks = [peak(nodes[0])]
        nodes[0].stop()
        await asyncio.to_thread(eventually, lambda: client.pull(name, to=tmp_path / "pulled"))
        peaks.append(peak(nodes[1]))
    assert max(peaks) < BOUND
