"""Files that are fetched while a client of the gateway reads them: one fetch, verified bytes, and what is left."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
from comity.gateway import beside
from support.federation import NodeHome, found, serving, until
from support.publisher import Publisher, Release, model, release, send

PIECE = 4 * 1024 * 1024


@dataclass(frozen=True)
class Shops:
    """A node that has everything and one that fetches what it is asked for; `url` is the gateway of the latter."""

    full: NodeHome
    cold: NodeHome
    url: str
    publisher: Publisher

    async def publish(self, folder: Path, name: str) -> Release:
        """Publish at the full node, and wait until the other one knows of it."""
        ready = release(self.publisher, folder, name)
        async with self.full.client() as node:
            await send(node, ready)
        async with httpx2.AsyncClient(base_url=self.url) as http:

            async def known() -> bool:
                answer = await http.get(f"/api/models/{ready.entry.statement.subjects[0].name.partition('@')[0]}")
                return answer.status_code == 200

            await until(known, what="the other node to know of it")
        return ready

    def partial(self, digest: str) -> Path:
        return self.cold.config().storage.blobs / "partial" / digest

    def blob(self, digest: str) -> Path:
        return self.cold.config().storage.blobs / "blobs" / digest[:2] / digest

    async def served(self, blob: str) -> int:
        """Bytes of a blob that the full node has sent to the other one."""
        async with self.full.operator() as operator:
            return sum(item.bytes for item in (await operator.status()).served if item.blob == blob)


@contextlib.asynccontextmanager
async def shops(folder: Path, **gateway: object) -> AsyncIterator[Shops]:
    publisher = Publisher.generate()
    full, cold = found(folder, 2, namespaces={"tests": publisher.id}).homes
    cold.set("replication", mirror="none")
    cold.set("gateway", **{"cold": "peers", **gateway})
    async with serving(full), serving(cold, beside=beside) as (listening,):
        yield Shops(full, cold, listening.http, publisher)


async def test_a_file_that_is_not_here_is_sent_while_it_is_fetched(tmp_path: Path) -> None:
    data = model(tmp_path / "model", weights=9_000_000)
    async with shops(tmp_path) as both, httpx2.AsyncClient(base_url=both.url) as http:
        ready = await both.publish(data, "tests/model@v1")
        (digest,) = [digest for digest, path in ready.blobs.items() if path.name == "weights.bin"]
        head = await http.head("/tests/model/resolve/main/weights.bin")
        assert (head.status_code, head.headers["Content-Length"]) == (200, "9000000")
        assert not both.blob(digest).exists(), "HEAD asks nobody"
        for path in data.iterdir():
            answer = await http.get(f"/tests/model/resolve/main/{path.name}")
            assert answer.content == path.read_bytes(), path.name
        assert both.blob(digest).read_bytes() == (data / "weights.bin").read_bytes()
        assert await both.served(digest) == 9_000_000


async def test_without_the_setting_it_is_refused(tmp_path: Path) -> None:
    async with shops(tmp_path, cold="off") as both, httpx2.AsyncClient(base_url=both.url) as http:
        await both.publish(model(tmp_path / "model", weights=1000), "tests/model@v1")
        answer = await http.get("/tests/model/resolve/main/weights.bin")
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (503, "NOT-HERE")
