"""llama.cpp's own code fetches a model by `-hf`: by name and quantisation, with a token, over a connection
that breaks.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from comity.content.gateway_tokens import ALL_REPOSITORIES, TOKENS_FILE, TokenFile
from comity_client.hub_environment import hub_environment
from support.client_repository import CHILD, ClientRepository
from support.gateway import gateway_node
from support.llama_cpp import llama_fetch
from support.ports import free_port
from support.slow_links import SlowRelay

FILE = "tiny-Q8_0.gguf"

pytestmark = pytest.mark.slow


async def fetch(program: Path, endpoint: str, home: Path, wanted: str, token: str = "") -> tuple[int, str]:
    environ = hub_environment(endpoint).applied(os.environ) | {"HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")}
    process = await asyncio.create_subprocess_exec(
        *(str(program), f"{CHILD}:{wanted}"),
        env=environ | ({"HF_TOKEN": token} if token else {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


@pytest.mark.parametrize("files", [True, False], ids=["file server", "inline"])
async def test_llama_cpp_fetches_into_the_hubs_own_cache_over_a_line_that_breaks(
    tmp_path: Path, repository: ClientRepository, files: bool
) -> None:
    program = await asyncio.to_thread(llama_fetch)
    settings: dict[str, Any] = {"files": ""}
    relay = None
    if files:
        settings["files"] = f"127.0.0.1:{free_port()}"
        relay = SlowRelay(settings["files"])
        settings["files_url"] = f"http://{relay.address}"
    async with gateway_node(tmp_path, publisher=repository.publisher, public=False, **settings) as node:
        await repository.send(node.home)
        token, _ = TokenFile(node.home.directory / TOKENS_FILE).add("llama", (ALL_REPOSITORIES,), 0)
        relay = relay or SlowRelay(node.url.removeprefix("http://"))
        endpoint = node.url if files else f"http://{relay.address}"
        relay.cut_after = 2_000_000
        status, said = await fetch(program, endpoint, tmp_path / "hf", "Q8_0", token)
        refused, _ = await fetch(program, endpoint, tmp_path / "nobody", "Q8_0")
    relay.close()
    digest = repository.hashes[FILE]
    assert status == 0, said
    (path,) = (Path(line.removeprefix("fetched ")) for line in said.splitlines() if line.startswith("fetched "))
    assert relay.cuts == 1, said
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert path.parts[-4:] == (f"models--{CHILD.replace('/', '--')}", "snapshots", repository.commit, FILE)
    assert path.resolve().name == digest
    assert refused != 0
    assert token not in said
