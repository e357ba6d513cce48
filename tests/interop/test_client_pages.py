"""The documentation pages for users of other clients: every block of commands runs unchanged, beside a real node."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from pathlib import Path

import pytest
from support.certificates import crafted
from support.federation import converged
from support.fenced import Block, blocks
from support.gateway import gateway_node
from support.ports import free_port
from support.publisher import model
from support.walks import Person
from support.weights import gguf

FOUND = list(blocks("docs/clients/*.md"))
PAGES = {page: list(group) for page, group in itertools.groupby(FOUND, lambda block: block.page)}
LOGGED = 6
"""Entries of the node's log once both models are published: three of its own, the publisher, two models."""

pytestmark = pytest.mark.slow


def person(where: Path, url: str) -> Person:
    """A user with the files that the pages name. Their servers of models and of containers are replaced by stubs."""
    where.mkdir()
    _, certificate = crafted("localhost", ca=True).pem()
    (where / "site-ca.pem").write_bytes(certificate)
    (where / "train.py").write_text("import huggingface_hub as h\nprint(h.snapshot_download('swiss-ai/tiny'))\n")
    for token in (where / "token", where / ".config" / "comity" / "token"):
        token.parent.mkdir(parents=True, exist_ok=True)
        token.write_text("secret\n")
        token.chmod(0o600)
    return Person(where, where / "state", instead={"https://models.example.org": url}, more={"HOME": str(where)})


@pytest.mark.parametrize("page", PAGES)
async def test_commands_of_the_pages_for_users_run_as_shown(tmp_path: Path, page: str) -> None:
    quantised = tmp_path / "tiny-GGUF"
    quantised.mkdir()
    (quantised / "tiny-Q4_K_M.gguf").write_bytes(gguf({"embedding": bytes(4096)}))
    http = f"127.0.0.1:{free_port()}"
    async with gateway_node(tmp_path, http=http, url=f"http://{http}", files="127.0.0.1:0") as node:
        user = person(tmp_path / "user", node.url)
        await node.publish(model(tmp_path / "tiny", weights=2_000_000), "swiss-ai/tiny@v1")
        await node.publish(quantised, "swiss-ai/tiny-GGUF@v1")
        await converged((node.home,), node.home, least=LOGGED)
        (user.folder / "node-ch").symlink_to(node.home.directory)
        shutil.copy(node.home.directory / "federation.json", user.folder)
        for block in PAGES[page]:
            await asyncio.to_thread(user.does, script(block))


def script(block: Block) -> str:
    return block.text if block.mark == "sh" else "\n".join(block.commands)
