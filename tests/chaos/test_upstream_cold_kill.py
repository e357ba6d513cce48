"""A node that is killed while it mirrors, from an upstream Hub, a repository that a client reads."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from support.federation import WITH_GATEWAY, NodeProcess, found
from support.hub_like import hub_like
from support.importing import FILES, NAME, WEIGHTS
from support.ports import free_port
from support.read_through_nodes import taken
from support.reading_through import held_back

MIB = 1024 * 1024


@pytest.mark.slow
async def test_a_killed_node_continues_the_import_where_it_was(tmp_path: Path) -> None:
    (home,) = found(tmp_path, 1).homes
    http = f"127.0.0.1:{free_port()}"
    url = f"http://{http}/{NAME}/resolve/main/weights.bin"
    home.set("gateway", http=http, cold="upstream")
    with hub_like() as hub:
        home.set("upstream", allow=[NAME], endpoint=hub.url, hosts=[hub.cdn.removeprefix("http://")])
        hub.repository(NAME).commit(FILES)
        with held_back(hub, 2 * MIB), contextlib.closing(NodeProcess(home, main=WITH_GATEWAY)) as node:
            await node.ready()
            reader = asyncio.create_task(taken(url))
            assert await taken(url, most=MIB) == WEIGHTS[:MIB]
            node.kill()
            assert WEIGHTS.startswith(await reader)
        killed = len(hub.asked)
        with contextlib.closing(NodeProcess(home, main=WITH_GATEWAY)) as node:
            await node.ready()
            assert await taken(url) == WEIGHTS
    (again,) = [asked for asked in hub.asked[killed:] if asked.cdn]
    assert again.offset >= MIB, "received bytes are not fetched again"
