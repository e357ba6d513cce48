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
from comity.rules.git_ids import commit_id
from comity_client.hub_environment import hub_environment
from support.gateway import gateway_node
from support.llama_cpp import llama_fetch
from support.ports import free_port
from support.slow_links import SlowRelay
from support.weights import gguf

REPOSITORY = "tests/tiny-GGUF"

pytestmark = pytest.mark.slow


async def fetch(program: Path, endpoint: str, home: Path, wanted: str, token: str = "") -> tuple[int, str]:
    environ = hub_environment(endpoint).applied(os.environ) | {"HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")}
    process = await asyncio.create_subprocess_exec(
        *(str(program), f"{REPOSITORY}:{wanted}"),
        env=environ | ({"HF_TOKEN": token} if token else {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


@pytest.mark.parametrize("files", [True, False], ids=["file server", "inline"])
async def test_llama_cpp_fetches_into_the_hubs_own_cache_over_a_line_that_breaks(tmp_path: Path, files: bool) -> None:
    program = await asyncio.to_thread(llama_fetch)
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name in ("tiny-Q4_K_M.gguf", "tiny-Q8_0.gguf"):
        (folder / name).write_bytes(gguf({"embedding": name.encode() * 500_000}))
    settings: dict[str, Any] = {"files": ""}
    relay = None
    if files:
        settings["files"] = f"127.0.0.1:{free_port()}"
        relay = SlowRelay(settings["files"])
        settings["files_url"] = f"http://{relay.address}"
    async with gateway_node(tmp_path, public=False, **settings) as node:
        ready = await node.publish(folder, f"{REPOSITORY}@v1")
        token, _ = TokenFile(node.home.directory / TOKENS_FILE).add("llama", (ALL_REPOSITORIES,), 0)
        relay = relay or SlowRelay(node.url.removeprefix("http://"))
        endpoint = node.url if files else f"http://{relay.address}"
        relay.cut_after = 4_000_000
        status, said = await fetch(program, endpoint, tmp_path / "hf", "Q8_0", token)
        refused, _ = await fetch(program, endpoint, tmp_path / "nobody", "Q8_0")
    relay.close()
    manifest = ready.ingested.manifest
    digest = next(entry.sha256 for entry in manifest.files if entry.path == "tiny-Q8_0.gguf")
    assert status == 0, said
    (path,) = (Path(line.removeprefix("fetched ")) for line in said.splitlines() if line.startswith("fetched "))
    assert relay.cuts == 1, said
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert path.parts[-4:] == ("models--tests--tiny-GGUF", "snapshots", commit_id(manifest), "tiny-Q8_0.gguf")
    assert path.resolve().name == digest
    assert refused != 0
    assert token not in said
