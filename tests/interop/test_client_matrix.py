"""Three generations of an unmodified huggingface_hub, from the package index, with one node: all operations of each.

They read with requests (0.36), httpx (1.x) and httpx2 (2.x), and find in their environment what `comity env` prints.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from comity.content.gateway_tokens import ALL_REPOSITORIES, TOKENS_FILE, TokenFile
from comity.rules.git_ids import commit_id
from comity_client.client import Client
from comity_client.home import Home
from support.certificates import crafted
from support.environments import python_with
from support.federation import converged
from support.gateway import GatewayNode, gateway_node
from support.ports import free_port
from support.publisher import Release, model
from support.slow_links import SlowRelay
from support.stock import Stock
from support.weights import safetensors

OLD = "huggingface_hub==0.36.2"
MIDDLE = "huggingface_hub==1.33.0"
NEW = "huggingface_hub==2.4.0"
REPOSITORY = "tests/model"
READING = ("version", "info", "files", "tree", "folder", "paths_info", "refs", "commits", "search", "exists", "whoami")
LOADING = ("download", "snapshot", "local_dir", "command", "cache_verify", "filesystem", "safetensors_header")
FAILING = ("no_repository", "no_revision", "no_file")

pytestmark = pytest.mark.slow


def short(requirement: str, tls: bool) -> object:
    return pytest.param(requirement, tls, id=f"{requirement}-{'tls' if tls else 'plain'}")


def full(requirement: str, tls: bool) -> object:
    name = f"{requirement}-{'tls' if tls else 'plain'}"
    return pytest.param(requirement, tls, id=name, marks=pytest.mark.long)


@dataclass(frozen=True)
class Scene:
    """A node that requires a token, behind a relay that cuts the first large download in its middle."""

    node: GatewayNode
    ready: Release
    endpoint: str
    token: str
    ca: Path | None
    relay: SlowRelay

    def stock(self, folder: Path, python: str, *, token: bool = True) -> Stock:
        return Stock(self.endpoint, folder, token=self.token if token else "", python=python, ca=self.ca)

    @property
    def request(self) -> dict[str, Any]:
        more = {"folder": "sub", "paths": ["weights.bin", "sub"], "search": "MODEL", "file": "weights.bin"}
        return {"repository": REPOSITORY, "revision": "v1", **more}


@contextlib.asynccontextmanager
async def staged(tmp_path: Path, *, tls: bool, public: bool = False) -> AsyncIterator[Scene]:
    folder = model(tmp_path / "model", weights=11_000_000)
    (folder / "sub").mkdir()
    (folder / "sub" / "note.txt").write_text("Nobody can take it away.\n")
    (folder / "model.safetensors").write_bytes(safetensors({"embedding": bytes(900), "head": bytes(100)}))
    files = f"127.0.0.1:{free_port()}"
    relay = SlowRelay(files)
    host = relay.address.replace("127.0.0.1", "localhost")
    settings: dict[str, Any] = {"files": files, "files_url": f"{'https' if tls else 'http'}://{host}"}
    ca = certified(tmp_path, settings) if tls else None
    async with gateway_node(tmp_path, public=public, **settings) as node:
        token, _ = TokenFile(node.home.directory / TOKENS_FILE).add("matrix", (ALL_REPOSITORIES,), 0)
        ready = await node.publish(folder, f"{REPOSITORY}@v1")
        try:
            yield Scene(node, ready, node.url.replace("127.0.0.1", "localhost"), token, ca, relay)
        finally:
            relay.close()


def certified(tmp_path: Path, settings: dict[str, Any]) -> Path:
    """A self-signed certificate, named in the node's settings; clients have to trust it."""
    key, certificate = crafted("localhost", ca=True).pem()
    (tmp_path / "gateway.key").write_bytes(key)
    (tmp_path / "gateway.crt").write_bytes(certificate)
    settings |= {"certificate": str(tmp_path / "gateway.crt"), "key": str(tmp_path / "gateway.key")}
    return tmp_path / "gateway.crt"


@pytest.mark.parametrize(
    ("requirement", "tls"),
    [
        full(OLD, False),
        short(MIDDLE, False),
        short(OLD, True),
        full(MIDDLE, True),
        full(NEW, False),
        full(NEW, True),
    ],
)
async def test_every_generation_of_clients_works_with_a_node_as_with_a_hub(
    tmp_path: Path, requirement: str, tls: bool
) -> None:
    python = await asyncio.to_thread(python_with, requirement)
    async with staged(tmp_path, tls=tls) as scene:
        scene.relay.cut_after = 6_000_000
        found = await scene.stock(tmp_path / "hf", python).run((*READING, *LOADING, *FAILING), **scene.request)
        nobody = await scene.stock(tmp_path / "nobody", python, token=False).run(["download"], **scene.request)
    offline = await Stock("", tmp_path / "hf", python=python).run(["snapshot"], **scene.request)
    assert found["version"] == version(requirement)
    look_at_what_was_read(found, scene.ready)
    look_at_what_was_loaded(found, scene)
    assert found["no_repository"]["raised"] == "RepositoryNotFoundError"
    assert found["no_revision"]["raised"] == "RevisionNotFoundError"
    assert found["no_file"]["raised"] in ("RemoteEntryNotFoundError", "EntryNotFoundError")
    assert nobody["download"]["raised"] == "RepositoryNotFoundError"
    assert offline["snapshot"] == found["snapshot"]
    assert scene.token not in found["stderr"]


def look_at_what_was_read(found: dict[str, Any], ready: Release) -> None:
    manifest, commit = ready.ingested.manifest, commit_id(ready.ingested.manifest)
    paths = sorted(entry.path for entry in manifest.files)
    assert found["info"] == {
        "id": REPOSITORY,
        "sha": commit,
        "private": False,
        "gated": False,
        "files": {entry.path: entry.size for entry in manifest.files},
        "sha256": [entry.sha256 for entry in manifest.files],
    }
    listed = found["files"]
    assert isinstance(listed, list)
    assert sorted(listed) == paths
    assert found["tree"] == sorted([["RepoFolder", "sub"], *(["RepoFile", path] for path in paths)], key=lambda e: e[1])
    assert found["folder"] == ["sub/note.txt"]
    assert found["refs"] == {"branches": {"main": commit}, "tags": {"v1": commit}}
    assert found["commits"] == [commit]
    assert found["search"] == [REPOSITORY]
    assert found["exists"] == [True, False, True, False, True, False]
    assert found["whoami"] == "matrix"


def look_at_what_was_loaded(found: dict[str, Any], scene: Scene) -> None:
    manifest = scene.ready.ingested.manifest
    files = {entry.path: entry.sha256 for entry in manifest.files}
    weights = (scene.ready.ingested.files["weights.bin"]).read_bytes()
    assert scene.relay.cuts == 1
    if found["version"] == version(OLD):
        assert "'raised': 'ChunkedEncodingError'" in str(found["download"])  # does not resume a broken download
        assert "raised" in str(found["cache_verify"])  # came with 1.0
    else:
        assert found["download"] == {"sha256": files["weights.bin"], "blob": files["weights.bin"]}
        assert found["cache_verify"] is True
    assert found["snapshot"] == {"commit": commit_id(manifest), "files": files}
    assert found["local_dir"] == files
    assert found["command"] == {"files": files}
    assert found["safetensors_header"] == {"model.safetensors": ["embedding", "head"]}
    filesystem = found["filesystem"]
    assert isinstance(filesystem, dict)
    assert filesystem["middle"] == weights[1000:1050].hex()


def version(requirement: str) -> str:
    return requirement.partition("==")[2]


async def test_comity_pull_and_the_gateway_fill_equal_caches(
    tmp_path: Path,
) -> None:
    async with staged(tmp_path, tls=False, public=True) as scene:
        await converged((scene.node.home,), scene.node.home, least=5)
        user = Client(Home(tmp_path / "user"))
        user.pin(scene.node.home.directory / "federation.json")
        cache = tmp_path / "pulled" / "hub"
        await asyncio.to_thread(user.pull, f"{REPOSITORY}@v1", hub_cache=cache)
        by_gateway = scene.stock(tmp_path / "fetched", python_with(MIDDLE), token=False)
        fetched = await by_gateway.run(["snapshot"], **scene.request)
        await by_gateway.run(["snapshot"], **{**scene.request, "revision": "main"})
        with structlog.testing.capture_logs() as events:
            by_pull = scene.stock(tmp_path / "pulled", python_with(MIDDLE), token=False)
            again = await by_pull.run(["snapshot", "cache_verify"], **scene.request)
    assert fetched["snapshot"]["commit"] == again["snapshot"]["commit"]
    assert [event for event in events if event["event"] == "blob served"] == []
    assert again["cache_verify"] is True
    assert placed(cache) == placed(tmp_path / "fetched" / "hub")


def placed(cache: Path) -> dict[str, str]:
    """The files in a Hub cache, without those that each program keeps there for itself."""
    repository = cache / "models--tests--model"
    found = {}
    for path in sorted(repository.rglob("*")):
        name = path.relative_to(repository).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file() and name.startswith(("blobs/", "refs/")):
            found[name] = path.read_bytes().hex()[:200]
    return {name: what for name, what in found.items() if "/.comity" not in name}
