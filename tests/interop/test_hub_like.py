"""The Hub of the tests works with three generations of unmodified clients, so tests may use it as an upstream.

The clients run the same script, with the same steps, as with a node (`test_client_matrix`).
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
from support.environments import python_with
from support.hub_like import HubLike, hub_like
from support.stock import Stock
from support.weights import as_tensor, safetensors

GENERATIONS = ("huggingface_hub==0.36.2", "huggingface_hub==1.33.0", "huggingface_hub==2.4.0")
READING = ("version", "info", "files", "tree", "folder", "paths_info", "refs", "commits", "search", "exists", "whoami")
LOADING = ("download", "snapshot", "local_dir", "command", "cache_verify", "filesystem", "safetensors_header")
FAILING = ("no_repository", "no_revision", "no_file")
TOKEN = f"hf_{'a' * 37}"
FILES = {
    "README.md": b"---\nlicense: mit\n---\n# Tiny\n",
    "config.json": b"{}\n",
    "empty.txt": b"",
    "model.safetensors": safetensors({"embedding": bytes(900), "head": bytes(100)}),
    "sub/note.txt": b"Nobody can take it away.\n",
    "weights.bin": as_tensor(bytes(range(256)) * 8000),
}

pytestmark = pytest.mark.slow


def furnished(hub: HubLike) -> str:
    """A Hub with one repository; its commit."""
    hub.users[TOKEN] = "somebody"
    hub.page = 3  # so that every client has to follow pages
    return hub.repository("org/tiny").commit(FILES, tag="v1").sha


@pytest.mark.parametrize("requirement", GENERATIONS)
async def test_every_generation_of_clients_works_with_this_hub_as_with_a_node(tmp_path: Path, requirement: str) -> None:
    python = await asyncio.to_thread(python_with, requirement)
    said: dict[str, Any] = {"folder": "sub", "paths": ["weights.bin", "sub"], "search": "TINY", "file": "weights.bin"}
    with hub_like() as hub:
        commit = furnished(hub)
        stock = Stock(hub.url, tmp_path / "hf", token=TOKEN, python=python)
        found = await stock.run((*READING, *LOADING, *FAILING), repository="org/tiny", revision="v1", **said)
        to_cdn = [asked for asked in hub.asked if asked.cdn]
    hashes = {path: hashlib.sha256(data).hexdigest() for path, data in FILES.items()}
    assert found["version"] == requirement.partition("==")[2]
    assert (found["info"]["id"], found["info"]["sha"]) == ("org/tiny", commit)
    assert found["info"]["files"] == {path: len(data) for path, data in FILES.items()}
    assert found["info"]["sha256"] == [hashes["model.safetensors"], hashes["weights.bin"]]
    assert sorted(found["files"]) == sorted(FILES)
    assert sorted(path for _, path in found["tree"]) == sorted([*FILES, "sub"])
    assert found["folder"] == ["sub/note.txt"]
    assert sorted(found["paths_info"]) == ["sub", "weights.bin"]
    assert found["refs"] == {"branches": {"main": commit}, "tags": {"v1": commit}}
    assert found["commits"] == [commit]
    assert found["search"] == ["org/tiny"]
    assert found["exists"] == [True, False, True, False, True, False]
    assert found["whoami"] == "somebody"
    assert found["download"] == {"sha256": hashes["weights.bin"], "blob": hashes["weights.bin"]}
    assert found["snapshot"] == {"commit": commit, "files": hashes}
    assert found["local_dir"] == hashes
    assert found["command"] == {"files": hashes}
    assert found["safetensors_header"] == {"model.safetensors": ["embedding", "head"]}
    assert found["filesystem"]["middle"] == FILES["weights.bin"][1000:1050].hex()
    assert found["cache_verify"] is True or "0.36" in requirement  # came with 1.0
    assert found["no_repository"]["raised"] == "RepositoryNotFoundError"
    assert found["no_revision"]["raised"] == "RevisionNotFoundError"
    assert found["no_file"]["raised"] in ("RemoteEntryNotFoundError", "EntryNotFoundError")
    assert to_cdn
    assert not any("authorization" in asked.headers for asked in to_cdn)


@pytest.mark.parametrize(
    "requirement", [GENERATIONS[-1], *(pytest.param(g, marks=pytest.mark.long) for g in GENERATIONS[:-1])]
)
async def test_gated_repositories_are_gated_to_clients_too(tmp_path: Path, requirement: str) -> None:
    python = await asyncio.to_thread(python_with, requirement)
    with hub_like() as hub:
        furnished(hub)
        hub.repositories["org/tiny"].gated = "auto"
        hub.repositories["org/tiny"].tokens.add(TOKEN)
        request: dict[str, Any] = {"repository": "org/tiny", "revision": "main", "file": "config.json"}
        nobody = await Stock(hub.url, tmp_path / "nobody", python=python).run(["download"], **request)
        known = await Stock(hub.url, tmp_path / "known", token=TOKEN, python=python).run(["download"], **request)
    assert "GatedRepoError" in nobody["download"]["raised"]
    assert known["download"]["sha256"] == hashlib.sha256(FILES["config.json"]).hexdigest()
