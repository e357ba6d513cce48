"""A mutual port keeps answering while strangers open and close connections, and its pins change.

The long form is 100,000 connections and 1,000 changes: python -m pytest -m long tests/chaos/test_mutual_port.py
Another grpcio is tried with COMITY_TEST_PYTHON=DIR/bin/python, an environment of its own:
    python -m venv DIR; DIR/bin/pip install grpcio==1.78.0 grpcio-status==1.78.0 cryptography googleapis-common-protos
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from attackers.connections import brief_connections

ROOT = Path(__file__).parents[2]
CHILD = ROOT / "tests" / "support" / "mutual_child.py"


async def survived(connections: int, changes: int) -> bytes:
    python = os.environ.get("COMITY_TEST_PYTHON", sys.executable)
    child = await asyncio.create_subprocess_exec(
        python,
        str(CHILD),
        str(changes),
        "0.03",
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "registry")},
    )
    assert child.stdout is not None
    port = int(await child.stdout.readline())
    made, ending = 0, asyncio.create_task(child.stdout.readline())
    try:
        while made < connections or not ending.done():
            if child.returncode is not None:
                break
            made += await asyncio.to_thread(
                brief_connections, "127.0.0.1", port, min(2_000, max(400, connections // 20))
            )
            if made >= connections:
                break
        last = await ending
        assert await child.wait() == 0, last
        return last
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def test_short_connections_and_changes_of_pins_leave_a_mutual_port_serving() -> None:
    assert await survived(4_000, 40) == b"survived 40 changes, 1 of 1 calls answered\n"


@pytest.mark.long
async def test_a_mutual_port_survives_a_hundred_thousand_connections_and_a_thousand_changes_of_pins() -> None:
    assert await survived(100_000, 1_000) == b"survived 1000 changes, 10 of 10 calls answered\n"
