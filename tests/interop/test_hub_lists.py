"""The `hf` command lists what a node has."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.gateway import gateway_node
from support.publisher import model


@pytest.mark.slow
async def test_hf_lists_the_models_that_it_was_asked_for(tmp_path: Path) -> None:
    hf = Path(sys.executable).with_name("hf")
    if not hf.exists():
        pytest.fail("huggingface_hub is in the environment of the tests, and its command is missing")
    async with gateway_node(tmp_path) as node:
        for name in ("Tiny-Chat", "tiny-words", "other"):
            folder = model(tmp_path / name)
            (folder / "README.md").write_text("---\npipeline_tag: fill-mask\n---\n" if name == "tiny-words" else "")
            (folder / "name.txt").write_text(name)
            await node.publish(folder, f"tests/{name}@v1")

        async def listed(*arguments: str) -> list[str]:
            environment = {**os.environ, "HF_ENDPOINT": node.url, "HF_HOME": str(tmp_path / "hf")}
            command = (str(hf), "models", "ls", *arguments, "--json")
            done = await asyncio.to_thread(
                subprocess.run, command, env=environment, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, done.stderr
            return sorted(item["id"] for item in json.loads(done.stdout))

        assert await listed("--search", "tiny") == ["tests/Tiny-Chat", "tests/tiny-words"]
        assert await listed("--search", "tiny", "--filter", "fill-mask") == ["tests/tiny-words"]
        assert await listed("--author", "nobody") == []
