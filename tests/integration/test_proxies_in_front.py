"""Programs of a site in front of its nodes, with the settings of docs/operations/grow.md: a cache that many readers
share, and a load balancer in front of two front ends, of which one dies.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import IncompleteRead
from pathlib import Path

import pytest
from comity_client.client import Client
from comity_client.events import Event, Progress
from comity_client.home import Home
from support.federation import WITH_GATEWAY, Founded, NodeHome, NodeProcess, found, until
from support.front_ends import FrontEndProcess, behind_an_address, make_front_end
from support.ports import free_port
from support.postgres import Postgres
from support.proxies import haproxy, nginx, settings
from support.publisher import Publisher, Release, model, release, send

pytestmark = pytest.mark.slow

SIZE = 30_000_000
SLICE = 4 * 1024 * 1024
READERS = 50
FILE = "weights.bin"


def gateway_address(home: NodeHome) -> str:
    address = f"127.0.0.1:{free_port()}"
    home.set("gateway", http=address, files="", proxies=["127.0.0.1"])
    return address


async def published(writer: NodeHome, folder: Path) -> Release:
    what = release(Publisher.generate(), model(folder, weights=SIZE), "tests/one@v1")
    async with writer.client() as client:
        await send(client, what)
    return what


def cached(*gateways: str, port: int, folder: Path) -> str:
    first, second = gateways
    return settings(
        "nginx",
        {
            "/var/cache/nginx/comity": str(folder),
            "front-1.example.org:7480": first,
            "front-2.example.org:7480": second,
            "listen 80": f"listen 127.0.0.1:{port}",
            "200 206 1m": "200 206 1s",
        },
    )


def answer(url: str, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def answered(node: NodeProcess, path: str) -> list[dict[str, object]]:
    """The requests for a file that reached the node, by its own log."""
    return [event for event in node.events if event.get("event") == "request" and path in str(event["path"])]


async def test_many_readers_of_a_file_behind_a_cache_cost_the_node_one_copy(tmp_path: Path) -> None:
    (home,) = found(tmp_path / "node", 1)
    gateway, port = gateway_address(home), free_port()
    with closing(NodeProcess(home, main=WITH_GATEWAY)) as node:
        await node.ready()
        what = await published(home, tmp_path / "one")
        data = (tmp_path / "one" / FILE).read_bytes()
        with nginx(tmp_path / "nginx", port, cached(gateway, gateway, port=port, folder=tmp_path / "cache")) as site:
            url = f"{site}/tests/one/resolve/sha256:{what.artifact}/{FILE}"

            def sent() -> tuple[int, list[int]]:
                """The bytes that the node sent of the file, and the status of each answer."""
                requests = answered(node, FILE)
                return sum(int(str(each["sent"])) for each in requests), [int(str(each["status"])) for each in requests]

            await until(lambda: answer(f"{site}/api/models/tests/one")[0] == 200, what="the node to show the artifact")
            with ThreadPoolExecutor(READERS) as readers:
                read = readers.map(lambda _: _digest(url), range(READERS))
                assert set(await asyncio.to_thread(list, read)) == {hashlib.sha256(data).hexdigest()}
            parts = -(-SIZE // SLICE)
            total, statuses = sent()
            assert total == len(data)
            assert statuses.count(206) == parts, "each part was asked for once"

            span = f"bytes={SLICE - 10}-{SLICE + 9}"
            assert answer(url, Range=span) == (206, data[SLICE - 10 : SLICE + 10])
            assert answer(url, If_None_Match=f'"{hashlib.sha256(data).hexdigest()}"')[0] == 304
            before = len(sent()[1])
            time.sleep(3)  # what is kept is asked for again
            assert answer(url) == (200, data)
            total, statuses = sent()
            assert total == len(data)
            assert statuses[before:].count(304) >= parts
            assert set(statuses) == {206, 304}

            for folder in ("first", "second"):  # an unmodified client asks for files under their commit
                await asyncio.to_thread(_downloaded, site, tmp_path / folder)
                assert (tmp_path / folder / FILE).read_bytes() == data
            assert sent()[0] == 2 * len(data), "the copy under the digest, and the one under the commit"

            node.kill()
            time.sleep(3)
            assert answer(url) == (200, data), "the cache goes on without the node"


def _downloaded(site: str, folder: Path) -> None:
    """In a process of its own: the importer of a node, in this one, guards the requests of the library."""
    download = "import sys, huggingface_hub as h; h.snapshot_download('tests/one', local_dir=sys.argv[1], token=False)"
    environment = {**os.environ, "HF_ENDPOINT": site, "HF_HOME": str(folder.with_name("hub"))}
    subprocess.run([sys.executable, "-c", download, str(folder)], check=True, env=environment)


def _digest(url: str) -> str:
    with urllib.request.urlopen(url, timeout=120) as response:
        return hashlib.file_digest(response, "sha256").hexdigest()


@dataclass(frozen=True)
class Site:
    """Two front ends of one writer, whose advertised open address is that of the load balancer."""

    founded: Founded
    writer: NodeHome
    fronts: tuple[NodeHome, NodeHome]
    gateways: tuple[str, str]
    open_port: int


@pytest.fixture(name="site")
def _site(tmp_path: Path, postgres: Postgres) -> Site:
    database = postgres.database()
    postgres.allow_reading(database)
    founded = found(tmp_path / "nodes", 1)
    (first,) = founded.homes
    first.set("storage", database=postgres.url(database))
    writer = behind_an_address(first)
    fronts = tuple(make_front_end(tmp_path / f"front-{n}", writer, postgres, database) for n in (1, 2))
    gateways = tuple(gateway_address(front) for front in fronts)
    return Site(founded, writer, (fronts[0], fronts[1]), (gateways[0], gateways[1]), first.listener_port)


@contextmanager
def balanced(site: Site, folder: Path) -> Iterator[str]:
    """HAProxy in front of the two; yields the URL of the gateway."""
    http = free_port()
    (one, two), (gateway_one, gateway_two) = (front.card.open[0] for front in site.fronts), site.gateways
    text = settings(
        "haproxy",
        {
            "bind :7444": f"bind 127.0.0.1:{site.open_port}",
            "bind :80": f"bind 127.0.0.1:{http}",
            "front-1.example.org:7444 port 7480": f"{one} port {gateway_one.rpartition(':')[2]}",
            "front-2.example.org:7444 port 7480": f"{two} port {gateway_two.rpartition(':')[2]}",
            "front-1.example.org:7480": gateway_one,
            "front-2.example.org:7480": gateway_two,
        },
    )
    with haproxy(folder, (site.open_port, http), text):
        yield f"http://127.0.0.1:{http}"


@pytest.mark.postgres
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "asked to end"])
async def test_a_download_and_a_pull_behind_a_load_balancer_outlive_a_front_end(
    tmp_path: Path, site: Site, killed: bool
) -> None:
    site.fronts[0].set("node", drain_seconds=600.0)
    with ExitStack() as stack:
        writer = stack.enter_context(closing(NodeProcess(site.writer)))
        await writer.ready()
        await published(site.writer, tmp_path / "one")
        data = (tmp_path / "one" / FILE).read_bytes()
        first = stack.enter_context(closing(FrontEndProcess(site.fronts[0])))
        await first.ready()
        url = stack.enter_context(balanced(site, tmp_path / "haproxy"))
        path = f"{url}/tests/one/resolve/main/{FILE}"
        await until(lambda: answer(path, Range="bytes=0-0")[0] == 206, what="the first front end to serve the file")

        # Only the first one runs, so this download is under way there.
        response = urllib.request.urlopen(path, timeout=60)
        begun = response.read(100_000)
        second = stack.enter_context(closing(FrontEndProcess(site.fronts[1])))
        await second.ready()
        client = Client(Home(tmp_path / "user"))
        client.pin(site.founded.federation.encode())
        ended: list[int] = []

        def end_the_first(event: Event) -> None:
            if isinstance(event, Progress) and event.path == FILE and not ended:
                first.kill() if killed else first.signal(signal.SIGTERM)
                ended.append(event.count)

        to = tmp_path / "pulled"
        await asyncio.to_thread(client.pull, "tests/one@v1", to=to, on_event=end_the_first)
        assert ended
        assert (to / FILE).read_bytes() == data
        if not killed:
            with response:
                assert begun + response.read() == data
            assert await asyncio.to_thread(first.ended) == 0
            return
        with response, pytest.raises(IncompleteRead) as cut:
            response.read()
        begun += cut.value.partial
        assert len(begun) < len(data)
        # The load balancer asks each front end now and then; until it knows that the second one is ready, it says 503.
        await until(lambda: answer(path, Range="bytes=0-0")[0] == 206, what="the second front end to be used")
        resumed = answer(path, Range=f"bytes={len(begun)}-")
        assert resumed == (206, data[len(begun) :])
        assert second.alive
