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
from comity_client.client import Client
from comity_client.home import Home
from support.certificates import crafted
from support.client_repository import CHILD, SHARD, ClientRepository
from support.environments import python_with
from support.federation import converged
from support.gateway import GatewayNode, gateway_node
from support.ports import free_port
from support.slow_links import SlowRelay
from support.stock import Stock
from support.stock_checks import ASKED, FAILING, LOADING, READING, check_failing, check_loading, check_reading

OLD = "huggingface_hub==0.36.2"
MIDDLE = "huggingface_hub==1.33.0"
NEW = "huggingface_hub==2.4.0"

pytestmark = pytest.mark.slow


def short(requirement: str, tls: bool) -> object:
    return pytest.param(requirement, tls, id=f"{requirement}-{'tls' if tls else 'plain'}")


def full(requirement: str, tls: bool) -> object:
    name = f"{requirement}-{'tls' if tls else 'plain'}"
    return pytest.param(requirement, tls, id=name, marks=pytest.mark.long)


@dataclass(frozen=True)
class Scene:
    """A node that requires a token, behind a relay that cuts the first large download in its middle. `size`: of its log
    with the repository."""

    size: int
    node: GatewayNode
    endpoint: str
    token: str
    ca: Path | None
    relay: SlowRelay

    def stock(self, folder: Path, python: str, *, token: bool = True) -> Stock:
        return Stock(self.endpoint, folder, token=self.token if token else "", python=python, ca=self.ca)


@contextlib.asynccontextmanager
async def staged(
    repository: ClientRepository, tmp_path: Path, *, tls: bool, public: bool = False
) -> AsyncIterator[Scene]:
    files = f"127.0.0.1:{free_port()}"
    relay = SlowRelay(files)
    host = relay.address.replace("127.0.0.1", "localhost")
    settings: dict[str, Any] = {"files": files, "files_url": f"{'https' if tls else 'http'}://{host}"}
    ca = certified(tmp_path, settings) if tls else None
    async with gateway_node(tmp_path, publisher=repository.publisher, public=public, **settings) as node:
        token, _ = TokenFile(node.home.directory / TOKENS_FILE).add("matrix", (ALL_REPOSITORIES,), 0)
        size = await repository.send(node.home)
        try:
            yield Scene(size, node, node.url.replace("127.0.0.1", "localhost"), token, ca, relay)
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
    tmp_path: Path, repository: ClientRepository, requirement: str, tls: bool
) -> None:
    python = await asyncio.to_thread(python_with, requirement)
    async with staged(repository, tmp_path, tls=tls) as scene:
        scene.relay.cut_after = 6_000_000
        steps = ("version", "whoami", *READING, *LOADING, *FAILING)
        found = await scene.stock(tmp_path / "hf", python).run(steps, **ASKED)
        nobody = await scene.stock(tmp_path / "nobody", python, token=False).run(["download"], **ASKED)
    offline = await Stock("", tmp_path / "hf", python=python).run(["snapshot"], **ASKED)
    assert (found["version"], found["whoami"]) == (version(requirement), "matrix")
    check_reading(found, repository)
    check_loading(found, repository)
    check_failing(found)
    assert scene.relay.cuts == 1
    if found["version"] == version(OLD):
        assert "'raised': 'ChunkedEncodingError'" in str(found["download"])  # does not resume a broken download
        assert "raised" in str(found["cache_verify"])  # came with 1.0
    else:
        assert found["download"] == {"sha256": repository.hashes[SHARD], "blob": repository.hashes[SHARD]}
        assert found["cache_verify"] is True
    assert nobody["download"]["raised"] == "RepositoryNotFoundError"
    assert offline["snapshot"] == found["snapshot"]
    assert scene.token not in found["stderr"]


def version(requirement: str) -> str:
    return requirement.partition("==")[2]


async def test_comity_pull_and_the_gateway_fill_equal_caches(tmp_path: Path, repository: ClientRepository) -> None:
    async with staged(repository, tmp_path, tls=False, public=True) as scene:
        await converged((scene.node.home,), scene.node.home, least=scene.size)
        user = Client(Home(tmp_path / "user"))
        user.pin(scene.node.home.directory / "federation.json")
        cache = tmp_path / "pulled" / "hub"
        await asyncio.to_thread(user.pull, f"{CHILD}@v1", hub_cache=cache)
        by_gateway = scene.stock(tmp_path / "fetched", python_with(MIDDLE), token=False)
        fetched = await by_gateway.run(["snapshot"], **ASKED)
        await by_gateway.run(["snapshot"], **{**ASKED, "revision": "main"})
        with structlog.testing.capture_logs() as events:
            by_pull = scene.stock(tmp_path / "pulled", python_with(MIDDLE), token=False)
            again = await by_pull.run(["snapshot", "cache_verify"], **ASKED)
    assert fetched["snapshot"]["commit"] == again["snapshot"]["commit"]
    assert [event for event in events if event["event"] == "blob served"] == []
    assert again["cache_verify"] is True
    assert placed(cache) == placed(tmp_path / "fetched" / "hub")


def placed(cache: Path) -> dict[str, str]:
    """The files in a Hub cache, without those that each program keeps there for itself."""
    repository = cache / f"models--{CHILD.replace('/', '--')}"
    found = {}
    for path in sorted(repository.rglob("*")):
        name = path.relative_to(repository).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file() and name.startswith(("blobs/", "refs/")):
            found[name] = path.read_bytes().hex()[:200]
    return {name: what for name, what in found.items() if "/.comity" not in name}
