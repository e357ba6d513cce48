"""A node that fetches missing blobs for its readers, the nodes that have them, and a link between that tests can block
or make to forge data.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from comity.gateway.app import serve_gateway
from comity.node.replication.link import PeerLink
from comity.trust.encoding import Digest
from support.federation import NodeHome, found, serving, until
from support.publisher import Publisher, Release, release, send
from support.waiting import PATIENCE


class PeerRelay:
    """The link from the peers to the node that fetches: it may be blocked, may forge the bytes, and counts them.

    Attributes:
        open_until: offsets from which on nothing passes until `opened`.
        forged_from: what passes beyond this offset is forged where it comes from one of `liars`.
        passed: bytes of each blob that did.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open_until = 1 << 60
        self.opened = asyncio.Event()
        self.forged_from = 0
        self.liars: set[str] = set()
        self.passed: dict[str, int] = {}
        self.streams = 0
        true = PeerLink.read

        async def read(link: PeerLink, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
            self.streams += 1
            try:
                async with aclosing(true(link, digest, offset, length)) as parts:
                    async for part in parts:
                        if offset >= self.open_until:
                            await self.opened.wait()
                        forged = link.name in self.liars and offset >= self.forged_from
                        yield bytes(len(part)) if forged else part
                        offset += len(part)
                        self.passed[digest] = self.passed.get(digest, 0) + len(part)
            finally:
                self.streams -= 1

        monkeypatch.setattr(PeerLink, "read", read)


@dataclass(frozen=True)
class ReadThroughNodes:
    """Nodes that have all artifacts and one that fetches what it is asked for; `url` is the gateway of the latter."""

    full: tuple[NodeHome, ...]
    cold: NodeHome
    url: str
    publisher: Publisher

    async def publish(self, folder: Path, name: str) -> Release:
        """Publish at a full node, and wait until the others have it and the cold one knows of it."""
        ready = release(self.publisher, folder, name)
        async with self.full[0].client() as node:
            await send(node, ready)
        for home in self.full:
            await until(partial(_holds, home, ready), what="copies")
        name = name.partition("@")[0]
        async with httpx2.AsyncClient(base_url=self.url, timeout=PATIENCE) as http:

            async def known() -> bool:
                return (await http.get(f"/api/models/{name}")).status_code == 200

            await until(known, what="the other node to know of it")
        return ready

    def partial(self, digest: str) -> Path:
        return self.cold.config().storage.blobs / "partial" / digest

    def blob(self, digest: str) -> Path:
        return _blob(self.cold, digest)


@contextlib.asynccontextmanager
async def read_through_nodes(
    folder: Path, full: int = 1, mirror: str = "none", **gateway: object
) -> AsyncIterator[ReadThroughNodes]:
    publisher = Publisher.generate()
    *others, last = found(folder, full + 1, namespaces={"tests": publisher.id}).homes
    last.set("replication", mirror=mirror)
    last.set("gateway", **{"cold": "peers", **gateway})
    async with serving(*others), serving(last, companion=serve_gateway) as (listening,):
        yield ReadThroughNodes(tuple(others), last, listening.http, publisher)


async def taken(url: str, most: int = 1 << 60) -> bytes:
    """The bytes that a client gets that disconnects after `most` bytes, or when it is cut off."""
    got = b""
    with contextlib.suppress(httpx2.RemoteProtocolError, httpx2.ReadError):
        async with (
            httpx2.AsyncClient(follow_redirects=True, timeout=PATIENCE) as http,
            http.stream("GET", url) as answer,
        ):
            async for part in answer.aiter_raw():
                got += part
                if len(got) >= most:
                    break
    return got[:most]


def weights_of(ready: Release) -> tuple[str, bytes]:
    ((digest, path),) = [(d, path) for d, path in ready.blobs.items() if path.name == "weights.bin"]
    return digest, path.read_bytes()


async def stalling(url: str, path: str) -> socket.socket:
    """A client that asks for a file and reads nothing of it."""
    at = urlsplit(url)
    client = socket.socket()
    client.setblocking(False)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, (at.hostname, at.port))
    await loop.sock_sendall(client, f"GET {path} HTTP/1.1\r\nHost: {at.netloc}\r\n\r\n".encode())
    return client


def _holds(home: NodeHome, ready: Release) -> bool:
    return all(_blob(home, digest).exists() for digest in ready.blobs)


def _blob(home: NodeHome, digest: str) -> Path:
    return home.config().storage.blobs / "blobs" / digest[:2] / digest
