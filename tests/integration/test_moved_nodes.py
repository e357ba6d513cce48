"""Nodes that are elsewhere than the pinned federation file says: users find them by what the nodes announced since."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from comity.transfer.limits import TransferLimits
from comity.trust.errors import ComityError, NotFound
from comity.trust.node_records import read_addresses
from comity.trust.statement import parse_entry
from comity_client.client import Client
from comity_client.home import Home
from support.federation import Founded, NodeHome, converged, found, serving, until
from support.ports import free_port
from support.publisher import Publisher, model, release, send
from support.slow_links import SlowRelay

pytestmark = pytest.mark.slow
SIZE = 24_000_000
RATE = 6_000_000.0
"""Bytes a second of a connection through a relay."""


def user(folder: Path, founded: Founded) -> Client:
    client = Client(Home(folder), limits=TransferLimits(patience=60.0))
    client.pin(founded.federation.encode())
    return client


async def published(writer: NodeHome, folder: Path, size: int) -> int:
    """Publish tests/one@v1 at a node. Returns the size of its log then."""
    what = release(Publisher.generate(jurisdiction="ES"), model(folder, weights=size), "tests/one@v1")
    async with writer.client() as client:
        return (await send(client, what)).receipts[-1].index + 1


async def tells(asked: NodeHome, about: NodeHome, address: str) -> None:
    """Wait until a node tells strangers that another one is at an address."""

    async def told() -> bool:
        try:
            async with asked.client() as client:
                found = await client.claims(about.record.node.id)
        except (NotFound, ComityError):
            return False
        read = [read_addresses(parse_entry(each.line), about.record) for each in found]
        return any(each is not None and address in each.open for each in read)

    await until(told, what=f"{asked.name} to tell that {about.name} is at {address}")


def pulled(client: Client, folder: Path) -> bytes:
    client.pull("tests/one@v1", to=folder)
    return (folder / "weights.bin").read_bytes()


async def test_a_node_at_another_port_is_found_by_who_pinned_before(tmp_path: Path) -> None:
    founded = found(tmp_path / "nodes", 2, policy=(1, 1))
    first, second = founded.homes
    first.set("replication", mirror="none")
    async with serving(first, second):
        size = await published(second, tmp_path / "model", 1_000_000)
        await converged(founded.homes, second, least=size)
    moved = f"127.0.0.1:{free_port()}"
    second.set("listen", open=moved)
    second.set("advertise", open=[first.card.open[0], moved])  # the first one leads to another node
    weights, client = (tmp_path / "model" / "weights.bin").read_bytes(), user(tmp_path / "home", founded)
    async with serving(first, second):
        await tells(first, second, moved)
        assert await asyncio.to_thread(pulled, client, tmp_path / "one") == weights
    async with serving(second):  # nobody else can tell now
        assert await asyncio.to_thread(pulled, client, tmp_path / "two") == weights
    (kept,) = (tmp_path / "home" / "trust" / "addresses").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


@asynccontextmanager
async def behind_two_doors(founded: Founded) -> AsyncIterator[tuple[SlowRelay, SlowRelay]]:
    """The second node with two relays before it, of which the federation file names the first one."""
    first, second = founded.homes
    inner = f"127.0.0.1:{free_port()}"
    with (
        closing(SlowRelay(inner, second.card.open[0])) as named,
        closing(SlowRelay(inner)) as other,
    ):
        named.rate = other.rate = RATE
        second.set("listen", open=inner)
        second.set("advertise", open=[named.address, other.address])
        async with serving(first, second):
            await tells(first, second, other.address)
            yield named, other


async def test_a_pull_goes_on_at_the_other_door_of_its_node(tmp_path: Path) -> None:
    founded = found(tmp_path / "nodes", 2, policy=(1, 1))
    first, second = founded.homes
    first.set("replication", mirror="none")
    async with behind_two_doors(founded) as (named, other):
        size = await published(second, tmp_path / "model", SIZE)
        await converged(founded.homes, second, least=size)
        client, before = user(tmp_path / "home", founded), named.passed
        pulling = asyncio.create_task(asyncio.to_thread(pulled, client, tmp_path / "one"))
        await until(lambda: pulling.done() or named.passed > before + SIZE / 2, what="half of the file")
        named.kill()
        assert await pulling == (tmp_path / "model" / "weights.bin").read_bytes()
        assert 0 < other.passed < SIZE


async def test_a_long_pull_learns_the_other_door_from_the_node_itself(tmp_path: Path) -> None:
    founded = found(tmp_path / "nodes", 2, policy=(1, 1))
    first, second = founded.homes
    first.set("replication", mirror="none")
    async with behind_two_doors(founded) as (_, other):
        size = await published(second, tmp_path / "model", SIZE)
        await converged(founded.homes, second, least=size)
        client, weights = user(tmp_path / "home", founded), (tmp_path / "model" / "weights.bin").read_bytes()
        assert await asyncio.to_thread(pulled, client, tmp_path / "one") == weights
        assert other.passed < SIZE / 4, "only what a race for the first connection costs"
        (kept,) = (tmp_path / "home" / "trust" / "addresses").iterdir()
        read = read_addresses(parse_entry(kept.read_bytes()), second.record)
        assert read is not None and other.address in read.open
