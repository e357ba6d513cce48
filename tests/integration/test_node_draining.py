"""SIGTERM of a node with running transfers, as a process of its own: none is lost, new work is refused with what to do,
and what never ends is cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Unavailable
from comity.wire.addresses import Address
from comity.wire.client import NodeClient
from comity.wire.draining import DRAINING
from comity.wire.tls import CertificatePin, to_pem
from comity_client.client import Client
from comity_client.home import Home
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.federation import WITH_GATEWAY, Founded, NodeHome, NodeProcess, converged, found, holds, until
from support.ports import free_port
from support.publisher import Publisher, Release, model, release, send
from support.slow_links import SlowRelay

pytestmark = pytest.mark.slow
SIZE = 12_000_000
"""Bytes of a file of which the kernel buffers a part only, when the client does not read."""
SLOW = 8_000_000.0
"""Bytes a second of a connection of gRPC, of whose transfers the client reads ahead."""
EACH = 10
"""Transfers by gRPC, and as many over HTTP."""


@dataclass(frozen=True)
class Scene:
    """A node that runs, and what it serves. `http` is the port of its gateway."""

    home: NodeHome
    process: NodeProcess
    release: Release
    http: int

    @property
    def weights(self) -> Digest:
        return sha256(self.data)

    @property
    def data(self) -> bytes:
        return self.release.ingested.files["weights.bin"].read_bytes()

    def ready(self) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def logged(self, event: str) -> list[dict[str, object]]:
        return [each for each in self.process.events if each.get("event") == event]

    async def asked_to_end(self) -> None:
        """Send SIGTERM, and wait until new work is refused."""
        self.process.signal(signal.SIGTERM)
        await until(lambda: self.logged("draining"), what="the node to drain")


@asynccontextmanager
async def scene(folder: Path, drain_seconds: float, files: str = "") -> AsyncIterator[Scene]:
    """`files` is the address of the file server; without one the gateway itself sends files."""
    publisher = Publisher.generate()
    (home,) = found(folder / "nodes", 1, namespaces={"tests": publisher.id}).homes
    port = free_port()
    home.set("gateway", http=f"127.0.0.1:{port}", files=files)
    home.set("node", drain_seconds=drain_seconds)
    what = release(publisher, model(folder / "model", weights=SIZE), "tests/model@v1")
    with closing(NodeProcess(home, main=WITH_GATEWAY)) as process:
        await process.ready()
        async with home.client() as client:
            await send(client, what)
        made = Scene(home, process, what, port)
        await until(lambda: made.ready() == 200, what="the node to be ready")
        yield made


def asked(port: int, path: str = "/tests/model/resolve/main/weights.bin") -> socket.socket:
    """A connection over which a file was asked for, and of whose answer the status was read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    client.settimeout(60)
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    status = client.recv(12)
    if status.endswith(b"200"):
        return client
    head = b""
    with client:
        while b"\r\n\r\n" not in head:
            head += client.recv(16_384)
    fields = [line.partition(": ") for line in head.decode().split("\r\n")]
    where = urlsplit(next(value for name, _, value in fields if name.lower() == "location"))
    assert where.port is not None
    return asked(where.port, f"{where.path}?{where.query}")


def body(client: socket.socket, size: int) -> bytes:
    """The rest of the answer: its last `size` bytes, or what came before the connection was cut."""
    received = bytearray()
    with client, contextlib.suppress(ConnectionResetError):
        while data := client.recv(1 << 20):
            received += data
            if len(received) > size and len(received.partition(b"\r\n\r\n")[2]) == size:
                break
    return bytes(received.partition(b"\r\n\r\n")[2])


async def rest(chunks: AsyncGenerator[bytes, None], first: bytes) -> str:
    digest = hashlib.sha256(first)
    async for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


@asynccontextmanager
async def slow_client(home: NodeHome) -> AsyncIterator[tuple[SlowRelay, NodeClient]]:
    """A client at the open port of a node, over a slow connection."""
    with closing(SlowRelay(home.card.open[0])) as relay:
        relay.rate = SLOW
        where, pin = Address.parse(relay.address), CertificatePin.of(home.record.tls)
        async with NodeClient.connect(where, pin) as client:
            yield relay, client


async def begun(client: NodeClient, digest: Digest) -> tuple[AsyncGenerator[bytes, None], bytes]:
    chunks = client.read(digest, 0, SIZE)
    return chunks, await anext(chunks)


async def health(home: NodeHome) -> int:
    pem, name = to_pem(home.record.tls), CertificatePin.of(home.record.tls).server_name
    options = (("grpc.ssl_target_name_override", name), ("grpc.enable_http_proxy", 0))
    address = f"ipv4:{home.card.open[0]}"
    async with grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(pem), options=options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its type has no methods
        return int((await stub.Check(health_pb2.HealthCheckRequest(), timeout=20)).status)


@pytest.mark.parametrize("files", ["", "127.0.0.1:0"], ids=["gateway", "file server"])
async def test_a_node_that_ends_loses_no_running_transfer_and_refuses_new_ones(tmp_path: Path, files: str) -> None:
    async with scene(tmp_path, 600.0, files) as node, slow_client(node.home) as (relay, client):
        reading = await asyncio.gather(*(begun(client, node.weights) for _ in range(EACH)))
        relay.rate = SLOW / 40
        sockets = [asked(node.http) for _ in range(EACH)]
        await node.asked_to_end()
        assert node.logged("draining")[0]["transfers"] == 2 * EACH

        assert node.ready() == 503
        assert await health(node.home) == health_pb2.HealthCheckResponse.NOT_SERVING
        async with node.home.client() as other:
            with pytest.raises(Unavailable) as refused:
                await other.stat([node.weights])
            assert (refused.value.code, refused.value.hint) == (
                DRAINING, "ask another node, or this one again in a minute",
            )  # fmt: skip
            assert await other.checkpoint(node.home.origin), "its log can be read until it has ended"
        with pytest.raises(urllib.error.HTTPError) as failed:
            urllib.request.urlopen(f"http://127.0.0.1:{node.http}/api/models", timeout=20)
        with failed.value as answer:
            assert (answer.code, answer.headers["X-Error-Code"]) == (503, DRAINING)
            assert answer.headers["Connection"] == "close"
        assert node.process.alive

        relay.rate = None
        assert [await rest(*each) for each in reading] == [node.weights] * EACH
        bodies = await asyncio.gather(*(asyncio.to_thread(body, each, SIZE) for each in sockets))
        assert [sha256(each) for each in bodies] == [node.weights] * EACH
        assert await asyncio.to_thread(node.process.ended) == 0
        assert not node.logged("cutting transfers")


async def test_a_transfer_that_never_ends_is_cut_with_the_reason(tmp_path: Path) -> None:
    async with scene(tmp_path, drain_seconds=0.5) as node, slow_client(node.home) as (relay, client):
        chunks, first = await begun(client, node.weights)
        relay.rate = SLOW / 40
        stalled = asked(node.http)
        await node.asked_to_end()
        await until(lambda: node.logged("cutting transfers"), what="the transfers to be cut")
        relay.rate = None
        with pytest.raises(Unavailable) as failed:
            await rest(chunks, first)
        assert (failed.value.code, "drain_seconds" in failed.value.why) == (DRAINING, True)
        assert len(await asyncio.to_thread(body, stalled, SIZE)) < SIZE
        assert await asyncio.to_thread(node.process.ended) == 0
        (cut,) = node.logged("cutting transfers")
        assert cut["transfers"] == 2


async def test_a_second_signal_ends_a_node_that_drains(tmp_path: Path) -> None:
    async with scene(tmp_path, drain_seconds=86_400.0) as node, slow_client(node.home) as (_, client):
        chunks, _ = await begun(client, node.weights)
        await node.asked_to_end()
        assert await asyncio.to_thread(node.process.stop) == 0
        await chunks.aclose()
        assert node.logged("ending at once")


def user(folder: Path, founded: Founded) -> Client:
    client = Client(Home(folder))
    client.pin(founded.federation.encode())
    return client


async def test_a_pull_goes_on_at_another_node_and_the_last_entries_are_copied(tmp_path: Path) -> None:
    founded = found(tmp_path / "nodes", 2)
    first, second = founded.homes
    with closing(NodeProcess(first)) as process, closing(NodeProcess(second)) as other:
        await process.ready()
        await other.ready()
        what = release(Publisher.generate(), model(tmp_path / "model", weights=SIZE), "tests/one@v1")
        async with first.client() as client:
            size = (await send(client, what)).receipts[-1].index + 1
        await until(lambda: holds(first, what.artifact, second), what="the copy of the second node")
        await converged(founded.homes, first, least=size)
        client_home = user(tmp_path / "home", founded)
        pulling = asyncio.create_task(asyncio.to_thread(client_home.pull, "tests/one@v1", to=tmp_path / "pulled"))
        process.signal(signal.SIGTERM)
        await pulling
        assert (tmp_path / "pulled/weights.bin").read_bytes() == (tmp_path / "model/weights.bin").read_bytes()
        assert await asyncio.to_thread(process.ended) == 0
        assert "no other node has the last entries" not in process.words
