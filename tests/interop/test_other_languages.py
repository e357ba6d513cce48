"""The readers of docs/examples, in Go and JavaScript, with real nodes: what they verify, and what they refuse."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from comity.federation_file import Federation
from comity.gateway.app import serve_gateway
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, sha256
from comity.trust.statement import parse_entry
from comity.trust.statements import Advisory
from support.federation import NodeHome, converged, found, serving, until
from support.publisher import Publisher, model, release, send
from support.tools import needs
from support.waiting import PATIENCE

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
NAME = "tests/tiny@v1"
FILE = "weights.bin"
Rewrite = Callable[[str, bytes], bytes]

pytestmark = pytest.mark.slow


@pytest.fixture(name="reader", params=["go", "javascript"], scope="module")
def _reader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    if request.param == "javascript":
        return (needs("node", unlock="apt-get install nodejs"), str(EXAMPLES / "javascript" / "reader.mjs"))
    go = needs("go", unlock="apt-get install golang-go")
    built = tmp_path_factory.mktemp("go") / "reader"
    environ = {**os.environ, "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
    subprocess.run([go, "build", "-o", str(built), "."], cwd=EXAMPLES / "go", env=environ, check=True)
    return (str(built),)


@dataclass(frozen=True)
class Scene:
    """Three nodes; `gateway` is that of a node that only mirrored artifacts which were published at another."""

    federation: Path
    body: str
    gateway: str
    publisher: Publisher
    data: bytes

    def read(self, reader: Sequence[str], out: Path, **given: str) -> subprocess.CompletedProcess[str]:
        options = {"federation": str(self.federation), "body": self.body, "gateway": self.gateway, "out": str(out)}
        dashes = "--" if reader[-1].endswith(".mjs") else "-"
        named = [word for key, value in {**options, **given}.items() for word in (dashes + key, value)]
        environ = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        command = [*reader, *named, NAME, FILE]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE, env=environ)


@contextlib.asynccontextmanager
async def staged(folder: Path, *, bound: bool = True) -> AsyncIterator[Scene]:
    publisher = Publisher.generate()
    homes = found(folder, 3, namespaces={"tests": publisher.id} if bound else {}).homes
    source, mirror, _ = homes
    data = model(folder / "model", weights=300_000)
    ready = release(publisher, data, NAME)
    async with serving(*homes, companion=serve_gateway) as listening:
        async with source.client() as client:
            await send(client, ready)
            warning = Advisory(publisher.inception.author, ready.artifact, "yank", "info", "")
            await client.submit([sign_content(warning, publisher.signer).line], [])
        await converged(homes, source, least=6)
        await until(lambda: _holds(mirror, list(ready.blobs)), what="the mirror to hold the model")
        await until(lambda: _warns(mirror, ready.artifact), what="the mirror to know of the warning")
        federation = source.directory / "federation.json"
        body = Federation.parse(federation.read_bytes()).body.digest
        yield Scene(federation, body, listening[1].http, publisher, (data / FILE).read_bytes())


async def _holds(home: NodeHome, blobs: Sequence[Digest]) -> bool:
    async with home.client() as client:
        return all(stat.have for stat in await client.stat(blobs))


async def _warns(home: NodeHome, artifact: Digest) -> bool:
    async with home.client() as client:
        return any(parse_entry(each.line).statement.predicate == "advisory" for each in await client.claims(artifact))


@contextlib.contextmanager
def proxied(gateway: str, rewrite: Rewrite) -> Iterator[str]:
    """A proxy of the gateway, which changes each answer by `rewrite`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(gateway + self.path) as answer:
                    status, data = 200, rewrite(self.path, answer.read())
            except urllib.error.HTTPError as error:
                status, data = error.code, b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def turned(data: bytes, at: int = -1) -> bytes:
    copy = bytearray(data)
    copy[at] ^= 1
    return bytes(copy)


def in_(part: str, change: Callable[[bytes], bytes]) -> Rewrite:
    return lambda path, data: change(data) if part in path else data


LIES: dict[str, tuple[Rewrite, str]] = {
    "one bit of the file": (in_("/resolve/", turned), "not the bytes that were published"),
    "a longer file": (in_("/resolve/", lambda data: data + b"!"), "weights.bin"),
    "a shorter file": (in_("/resolve/", lambda data: data[:-1]), "not the bytes that were published"),
    "another list of files": (
        in_("/api/models/", lambda data: data.replace(b'"rfilename": "weights.bin"', b'"rfilename": "other.bin"')),
        "not those of the artifact",
    ),
    "an entry of a log": (in_("/tile/entries/", turned), "not those of its checkpoint"),
    "the root of a checkpoint": (in_("/checkpoint", lambda data: turned(data, data.index(b"\n\n") - 9)), "checkpoint"),
}


async def test_a_reader_verifies_a_file_from_a_node_that_mirrored_it(tmp_path: Path, reader: Sequence[str]) -> None:
    async with staged(tmp_path) as scene:
        out = tmp_path / "out"
        ran = await asyncio.to_thread(scene.read, reader, out)
        assert ran.returncode == 0, ran.stderr
        said = json.loads(ran.stdout)
        assert out.read_bytes() == scene.data
        assert (said["sha256"], said["size"]) == (sha256(scene.data), len(scene.data))
        assert (said["publisher"], said["log"]) == (scene.publisher.id, "node-ch.example/log")
        assert said["cosigners"] == ["Example Institute 1", "Example Institute 2"]
        assert said["advisories"] == [{"kind": "yank", "claimed_by": scene.publisher.id}]
        assert "ml-dsa-65" in said["not_checked"]
        for what, (rewrite, why) in LIES.items():
            with proxied(scene.gateway, rewrite) as gateway:
                refused = await asyncio.to_thread(scene.read, reader, tmp_path / "wrong", gateway=gateway)
            assert (refused.returncode, why in refused.stderr) == (3, True), f"{what}: {refused.stderr}"
            assert not (tmp_path / "wrong").exists()
        other = await asyncio.to_thread(scene.read, reader, tmp_path / "wrong", body="0" * 64)
        assert (other.returncode, "you pinned" in other.stderr) == (3, True)
        forged = tmp_path / "forged.json"
        document = json.loads(scene.federation.read_text())
        document["nodes"][0]["record"] = _signed_by_nobody(document["nodes"][0]["record"])
        forged.write_text(json.dumps(document))
        unsigned = await asyncio.to_thread(scene.read, reader, tmp_path / "wrong", federation=str(forged))
        assert (unsigned.returncode, "not signed by its member" in unsigned.stderr) == (3, True), unsigned.stderr


def _signed_by_nobody(record: str) -> str:
    envelope = json.loads(record)
    envelope["signatures"] = []
    return json.dumps(envelope)


async def test_a_reader_asks_for_the_publisher_where_no_charter_names_one(
    tmp_path: Path, reader: Sequence[str]
) -> None:
    async with staged(tmp_path, bound=False) as scene:
        asked = await asyncio.to_thread(scene.read, reader, tmp_path / "out")
        assert (asked.returncode, scene.publisher.id in asked.stderr) == (3, True), asked.stderr
        named = await asyncio.to_thread(scene.read, reader, tmp_path / "out", publisher=scene.publisher.id)
        assert named.returncode == 0, named.stderr
        other = await asyncio.to_thread(scene.read, reader, tmp_path / "no", publisher="0" * 64)
        assert (other.returncode, (tmp_path / "no").exists()) == (3, False)
