"""A node that may open 256 files, while strangers hold a thousand connections to each of its gRPC ports.

The long form also opens and closes 100,000 connections, and holds the thousand for five minutes:
    python -m pytest -m long tests/chaos/test_few_descriptors.py
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import ExitStack
from pathlib import Path

import pytest
from attackers.connections import brief_connections, silent
from comity.trust.errors import Unavailable
from support.federation import NodeHome, NodeProcess, introduced, make_home, until
from support.waiting import PATIENCE

MAIN = (
    "import pathlib, resource, sys; from comity.node.app import run;"
    "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256));"
    "run(pathlib.Path(sys.argv[1]))"
)
STRANGERS = "127.0.9.1"


def ports(home: NodeHome) -> tuple[int, ...]:
    return tuple(int(address.rpartition(":")[2]) for address in (home.card.mutual[0], home.card.open[0]))


async def attacked(home: NodeHome, *, brief: int, seconds: float) -> None:
    """Both ports held by a thousand connections each, while the operator and an honest caller ask."""
    with ExitStack() as held:
        for port in ports(home):
            for begun in (False, True):
                strangers = silent("127.0.0.1", port, 500, begun=begun, source=STRANGERS)
                await asyncio.to_thread(held.enter_context, strangers)
        ending = asyncio.get_running_loop().time() + seconds
        while True:
            async with home.operator() as operator:
                await asyncio.wait_for(operator.status(), PATIENCE)
            await until(lambda: answered(home), what="an honest caller to be answered")
            if brief:
                for port in ports(home):
                    await asyncio.to_thread(brief_connections, "127.0.0.1", port, min(brief, 5_000))
                brief -= min(brief, 5_000)
            elif asyncio.get_running_loop().time() > ending:
                return
            await asyncio.sleep(0.2)


async def answered(home: NodeHome) -> bool:
    async with home.client() as client:
        try:
            return (await client.with_timeout(5).node()).origin == home.origin
        except Unavailable:
            return False


async def survives(tmp_path: Path, *, brief: int, seconds: float) -> None:
    home = make_home(tmp_path / "home", 0)
    with contextlib.closing(NodeProcess(home, main=MAIN, fresh=True)) as node:
        await node.ready()
        await introduced(home)
        await attacked(home, brief=brief, seconds=seconds)
        assert node.alive
        assert node.stop() == 0


@pytest.mark.slow
async def test_a_node_with_few_descriptors_answers_while_strangers_hold_a_thousand_connections(tmp_path: Path) -> None:
    await survives(tmp_path, brief=2_000, seconds=0)


@pytest.mark.long
async def test_a_node_serves_after_five_minutes_and_a_hundred_thousand_short_connections(tmp_path: Path) -> None:
    await survives(tmp_path, brief=100_000, seconds=300)
