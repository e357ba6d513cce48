"""The pages for users of other people's clients: every `sh` block is run, as it stands, beside a real node."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from support.federation import converged
from support.gateway import shop
from support.ports import free_port
from support.publisher import model
from support.weights import gguf

PAGES = sorted((Path(__file__).resolve().parents[2] / "docs" / "clients").glob("*.md"))
LOGGED = 6
"""Entries of the node's log once both models are published: three of its own, the publisher, two models."""

pytestmark = pytest.mark.slow


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


async def run(script: str, where: Path) -> tuple[int, str]:
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HTTP", "http"))}
    environ = {
        **ours,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COMITY_HOME": str(where / "state"),
        "HF_HOME": str(where / "hf"),
    }
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        cwd=where,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
async def test_what_a_page_for_users_shows_can_be_typed(tmp_path: Path, page: Path) -> None:
    scripts = blocks(page)
    assert scripts
    where = tmp_path / "user"
    where.mkdir()
    quantised = tmp_path / "tiny-GGUF"
    quantised.mkdir()
    (quantised / "tiny-Q4_K_M.gguf").write_bytes(gguf({"embedding": bytes(4096)}))
    http = f"127.0.0.1:{free_port()}"
    async with shop(tmp_path, http=http, url=f"http://{http}", files="127.0.0.1:0") as node:
        await node.publish(model(tmp_path / "tiny", weights=2_000_000), "swiss-ai/tiny@v1")
        await node.publish(quantised, "swiss-ai/tiny-GGUF@v1")
        await converged((node.home,), node.home, least=LOGGED)
        (where / "node-ch").symlink_to(node.home.directory)
        shutil.copy(node.home.directory / "federation.json", where)
        for script in scripts:
            status, said = await run(script, where)
            assert status == 0, f"{script}\n{said}"
