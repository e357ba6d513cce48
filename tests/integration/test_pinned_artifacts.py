"""Five nodes and ten artifacts, each pinned by three nodes other than its holders: two nodes are killed at the same
time.

No node copies for others before the kill, so that every copy that is counted afterwards was made for the repair.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

import pytest
from comity.rules.artifact_pins import HERE, VERIFIED, Pin
from comity.rules.copy_counts import CopyPolicy
from comity.trust.errors import NotFound
from comity.wire.pin import ListedPin
from comity_client.client import Client
from comity_client.home import Home
from support.federation import Founded, NodeHome, found, processes, until
from support.publisher import Publisher, Release, model, release, send

POLICY = CopyPolicy(3, 3)
WEIGHTS = 300_000
NOTHING = 'default = "skip"\n'
RULES = NOTHING + '[[rule]]\nname = "members"\ndo = "copy"\nwanted_by = [{}]\nmax_bytes = 1_000_000\n'


def federation(folder: Path) -> Founded:
    founded = found(folder, 5, policy=(3, 3))
    for home in founded:
        (home.directory / "mirror.toml").write_text(NOTHING)
        home.set("replication", rules="mirror.toml")
        home.set("pins", patience_seconds=2.0)
        home.set("audits", bytes_per_day=0, answer_bytes_per_hour=1 << 40)
    return founded


async def pins(home: NodeHome) -> list[ListedPin]:
    async with home.operator() as operator:
        return [pin async for pin in operator.pins.listed()]


async def all_met(homes: list[NodeHome]) -> bool:
    listed = [pin for home in homes for pin in await pins(home)]
    return all(pin.met and not pin.asked for pin in listed)


async def met_without(left: list[NodeHome], lost: tuple[NodeHome, ...]) -> bool:
    """Whether every pin of the remaining nodes is met by copies of these nodes alone."""
    for home in left:
        for pin in await pins(home):
            counted = {copy.node for copy in pin.copies if copy.state in (HERE, VERIFIED)}
            if not pin.met or pin.asked or counted & {gone.name for gone in lost} or len(counted) < POLICY.min_copies:
                return False
    return True


@pytest.mark.slow
async def test_pinned_artifacts_survive_any_two_nodes_and_have_enough_copies_again(tmp_path: Path) -> None:
    founded = federation(tmp_path)
    homes, publisher = founded.homes, Publisher.generate()
    triples = list(itertools.combinations(homes, 3))  # every way in which the killed ones can be among the holders
    what = [
        release(publisher, model(tmp_path / f"model-{at}", weights=WEIGHTS, seed=at), f"tests/model-{at}@v1")
        for at in range(len(triples))
    ]
    lost, left = homes[:2], list(homes[2:])
    with processes(*homes) as nodes:
        for node in nodes:
            await node.ready()
        for made, triple in zip(what, triples, strict=True):
            async with triple[0].client() as client:
                await send(client, made)
        for made, triple in zip(what, triples, strict=True):
            for home in triple:
                await pin(home, made)
        await until(lambda: all_met([*homes]), what="every pin to be met")
        await until(lambda: hold([*homes], 6), what="every node to hold what it pinned")
        for node in nodes[:2]:
            node.kill()
        pulled = await asyncio.to_thread(pull_all, founded, tmp_path / "before", what)
        assert pulled == [made.artifact for made in what]
        assert [await held(home) for home in left] == [6] * 3
        for node in nodes[2:]:
            assert node.stop() == 0
    members = ", ".join(f'"{home.record.member}"' for home in homes)
    for home in left:
        (home.directory / "mirror.toml").write_text(RULES.format(members))
    with processes(*left) as nodes:
        begun = time.monotonic()
        for node in nodes:
            await node.ready()
        await until(lambda: met_without(left, lost), what="what is left to meet every pin")
        seconds = time.monotonic() - begun
        await until(lambda: hold(left, 10), what="every node that is left to hold everything")
    size = sum(path.stat().st_size for path in what[0].blobs.values())
    print(
        f"2 of 5 killed, all of {len(what)} pulled; 12 copies of {size} bytes made in {seconds:.1f} s with three starts"
    )


async def held(home: NodeHome) -> int:
    async with home.operator() as operator:
        return (await operator.status()).holds


async def hold(homes: list[NodeHome], count: int) -> bool:
    return [await held(home) for home in homes] == [count] * len(homes)


async def pin(home: NodeHome, made: Release) -> None:
    """Pin an artifact as soon as a log at the node names it."""

    async def pinned() -> bool:
        async with home.operator() as operator:
            try:
                await operator.pins.put(Pin(made.artifact, "", POLICY))
            except NotFound:
                return False
        return True

    await until(pinned, what="the publication to reach the node")


def pull_all(founded: Founded, folder: Path, what: list[Release]) -> list[str]:
    """Pull and verify every artifact into empty folders; returns the accepted ones."""
    client = Client(Home(folder / "home"))
    client.pin(founded.homes[0].directory / "federation.json")
    artifacts: list[str] = []
    for made in what:
        pulled = client.pull(f"sha256:{made.artifact}", to=folder / made.artifact)
        assert client.verify(folder / made.artifact).exit_status == 0
        artifacts.append(pulled.artifact)
    return artifacts
