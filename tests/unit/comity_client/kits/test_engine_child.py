"""The process around an engine tells how that ended, and ends it when it is told to."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from comity_client.kits.engine_child import supervise


def request(folder: Path, code: str) -> dict[str, Any]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return {
        "command": [sys.executable, "-c", code],
        "environment": {"PATH": "/usr/bin:/bin"},
        "folder": str(folder),
        "port": listener.getsockname()[1],
        "isolated": False,
        "confined": False,
        "readable": [],
        "writable": [],
        "listener": listener.detach(),
    }


@pytest.mark.parametrize(
    ("code", "status"), [("import sys; sys.exit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 128 + 9)]
)
async def test_the_status_is_that_of_the_engine(tmp_path: Path, code: str, status: int) -> None:
    assert await supervise(request(tmp_path, code), asyncio.Event()) == status


async def test_an_engine_is_ended_with_what_it_started(tmp_path: Path) -> None:
    stopped, held = asyncio.Event(), tmp_path / "held"
    os.mkfifo(held)
    code = (
        "import subprocess, time; subprocess.Popen(['sh', '-c', 'exec >held; echo; exec sleep 600']); time.sleep(600)"
    )
    running = asyncio.ensure_future(supervise(request(tmp_path, code), stopped))
    with await asyncio.to_thread(held.open) as pipe:
        assert await asyncio.to_thread(pipe.readline) == "\n"
        stopped.set()
        assert await running == 0
        assert await asyncio.to_thread(pipe.read) == "", "the pipe ends with the last process that holds it"
