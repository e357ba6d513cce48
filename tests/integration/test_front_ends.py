"""Front ends of one node: processes that read its PostgreSQL database with a role that may only SELECT, and serve the
node's data while it runs and after it was killed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from comity.content.s3_client import make_client
from comity.gateway.console.page import NODE
from comity.gateway.console.readers import SIGN_IN
from comity.gateway.front_end import serve_reading_gateway
from comity.node.front_end import FrontEndAddresses, serve_front_end
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound, Refused
from comity.wire.access import Caller
from comity.wire.addresses import Address
from comity.wire.messages import LocatedEntry
from comity.wire.services import CALL_RULES
from comity_client.client import Client
from comity_client.home import Home
from support.callers import ConnectedCaller, refusal
from support.ceph import Ceph
from support.console import ReadPage, check_page
from support.federation import Founded, NodeHome, NodeProcess, converged, found, holds, introduced, until
from support.front_ends import FrontEndProcess, behind_an_address, make_front_end
from support.http_callers import (
    UNDECLARED,
    called,
    each_route_is_closed_without_its_declaration,
    each_route_lets_in_whom_it_declares,
    listening,
    pages_of_metrics_are_for_everybody,
    record_served,
)
from support.ports import free_port
from support.postgres import READER, Postgres
from support.publisher import Publisher, Release, model, release, send
from support.s3 import S3Account, keep_in_bucket, may_only_read, write_credentials

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


@dataclass(frozen=True)
class Scene:
    """A node whose advertised open address is that of its first front end, a second front end, and another member's
    node, which cosigns."""

    founded: Founded
    writer: NodeHome
    fronts: tuple[NodeHome, NodeHome]
    peer: NodeHome
    database: str


@pytest.fixture
def scene(tmp_path: Path, postgres: Postgres) -> Scene:
    database = postgres.database()
    postgres.allow_reading(database)
    founded = found(tmp_path / "nodes", 2)
    first, peer = founded.homes
    first.set("storage", database=postgres.url(database))
    writer = behind_an_address(first)
    fronts = (
        make_front_end(tmp_path / "front-0", writer, postgres, database, first.card.open[0]),
        make_front_end(tmp_path / "front-1", writer, postgres, database),
    )
    return Scene(founded, writer, fronts, peer, database)


@contextmanager
def fronts_of(scene: Scene) -> Iterator[tuple[FrontEndProcess, ...]]:
    with ExitStack() as stack:
        yield tuple(stack.enter_context(closing(FrontEndProcess(home))) for home in scene.fronts)


async def published(scene: Scene, folder: Path, name: str) -> Release:
    what = release(Publisher.generate(), model(folder, weights=6_000_000), name)
    async with scene.writer.client() as client:
        await send(client, what)
    return what


async def shown(front: NodeHome, name: str) -> int:
    """Wait until a front end resolves a name. Returns the index of the publication in the node's log."""
    found: list[LocatedEntry] = []
    async with front.client() as client:

        async def resolves() -> bool:
            try:
                found[:] = await client.resolve(name)
            except NotFound:
                return False
            return bool(found)

        await until(resolves, what=f"{front.directory.name} to show {name}")
    return max(entry.index for entry in found)


def user(folder: Path, scene: Scene) -> Client:
    client = Client(Home(folder))
    client.pin(scene.founded.federation.encode())
    return client


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


async def test_front_ends_serve_the_writers_publications_and_continue_without_it(tmp_path: Path, scene: Scene) -> None:
    first, second = scene.fronts
    with closing(NodeProcess(scene.writer)) as writer, closing(NodeProcess(scene.peer)) as peer:
        await writer.ready()
        await peer.ready()
        with fronts_of(scene) as fronts:
            for front in fronts:
                await front.ready()
            one = await published(scene, tmp_path / "one", "tests/one@v1")
            for front_home in scene.fronts:
                index = await shown(front_home, "tests/one")
                await converged((front_home, scene.peer), front_home, least=index + 1)
            status = fronts[0].get("/readyz")
            assert (status.status, status.json()["front_end"]["writer_runs"]) == (200, True)
            assert "X-HF-Warning" not in fronts[0].get("/api/models").headers
            await until(
                lambda: fronts[0].get("/readyz").json()["front_end"]["checkpoint_time"] > 0,
                what="cosignatures of the newest checkpoint",
            )

            writer.kill()
            peer.kill()
            await until(
                lambda: not any(front.get("/readyz").json()["front_end"]["writer_runs"] for front in fronts),
                what="the front ends to notice the death of the writer",
            )
            status = fronts[0].get("/readyz")
            assert (status.status, status.json()["status"]) == (200, "ready")
            listed = fronts[1].get("/api/models")
            assert [item["id"] for item in listed.json()] == ["tests/one"]
            assert "the writer of this node does not run" in listed.headers["X-HF-Warning"]
            part = fronts[1].get("/tests/one/resolve/main/weights.bin")
            assert part.body == (tmp_path / "one" / "weights.bin").read_bytes()
            puller = user(tmp_path / "home", scene)
            await asyncio.to_thread(puller.pull, "tests/one@v1", to=tmp_path / "pulled")
            assert contents(tmp_path / "pulled") == contents(tmp_path / "one")
            assert puller.verify(tmp_path / "pulled").exit_status == 0
            assert (await asyncio.to_thread(puller.show, "tests/one@v1")).artifact == one.artifact

            fronts[1].kill()
            with closing(NodeProcess(scene.writer)) as again, closing(NodeProcess(scene.peer)) as other:
                await again.ready()
                await other.ready()
                await published(scene, tmp_path / "two", "tests/two@v1")
                await shown(first, "tests/two")
                with closing(FrontEndProcess(second)) as restarted:
                    await restarted.ready()
                    await shown(second, "tests/two")
                    await shown(second, "tests/one")
                    assert fronts[0].alive
                    assert again.stop() == 0


async def test_a_write_is_refused_with_the_address_of_the_writer(
    tmp_path: Path, scene: Scene, postgres: Postgres
) -> None:
    front_home, _ = scene.fronts
    what = release(Publisher.generate(), model(tmp_path / "one", weights=1024), "tests/one@v1")
    address = scene.writer.card.open[0]
    with closing(NodeProcess(scene.writer)) as writer:
        await writer.ready()
        with closing(FrontEndProcess(front_home)) as front:
            await front.ready()
            async with front_home.client() as client:
                for call in (
                    partial(client.submit, what.lines, what.inline()),
                    client.next_epoch_entries,
                    partial(client.audits.copies, what.artifact),
                ):
                    with pytest.raises(Refused) as caught:
                        await call()
                    assert caught.value.code == "FRONT-END"
                    assert address in caught.value.hint
                with pytest.raises(Refused) as caught:  # no stranger may make this call anywhere
                    await client.status()
                assert caught.value.code == "OPERATORS-ONLY"
                where = f"on the machine of the writer of this node, which is reached at {address}"
                assert caught.value.hint == f"{where}: comity status --node HOME"
                assert (await client.charter()).epoch == 0
                assert [charter.epoch for charter in await client.epochs(0)] == [0]
            for path in ("/tlog/add-checkpoint", "/tlog/add-entries"):
                answer = front.get(path, body=b"anything")
                assert (answer.status, answer.headers["X-Error-Code"]) == (403, "FRONT-END")
            await introduced(front_home)
            logs = front.get("/tlog").json()
            (own,) = (log for log in logs["logs"] if log["own"])
            prefix = own["prefix"].removeprefix(scene.writer.config().gateway.url)
            assert front.get(f"{prefix}/checkpoint").body.startswith(scene.writer.origin.encode())
            assert writer.stop() == 0
    granted = postgres.admin(
        "SELECT DISTINCT privilege_type FROM information_schema.table_privileges WHERE grantee = '" + READER + "'",
        scene.database,
    )
    assert granted == [("SELECT",)]


async def test_a_front_end_without_an_open_port_needs_no_key_of_the_node(scene: Scene) -> None:
    _, home = scene.fronts
    (home.directory / "keys" / "tls.pem").unlink()
    home.set("listen", open="")
    home.set("gateway", console=False)
    with closing(NodeProcess(scene.writer)) as writer:
        await writer.ready()
        with closing(FrontEndProcess(home)) as front:
            await front.ready()
            assert front.get("/readyz").status == 200
            assert front.get("/").json()["front_end"]["writer_runs"] is True


async def test_the_console_of_a_front_end_shows_what_is_logged_and_invents_nothing(
    tmp_path: Path, scene: Scene, postgres: Postgres
) -> None:
    home, _ = scene.fronts
    home.set("node", writer="publish.example.org:7444")
    with ExitStack() as stack:
        writer = stack.enter_context(closing(NodeProcess(scene.writer)))
        peer = stack.enter_context(closing(NodeProcess(scene.peer)))
        await writer.ready()
        await peer.ready()
        front = stack.enter_context(closing(FrontEndProcess(home)))
        await front.ready()
        what = await published(scene, tmp_path / "one", "tests/one@v1")
        await until(lambda: holds(home, what.artifact, scene.peer), what="the front end to know both copies")

        def page(path: str, status: int = 200) -> ReadPage:
            answer = front.get(path, accept="text/html")
            assert answer.status == status, answer.body
            return check_page(answer.body.decode())

        await until(lambda: "tests/one" in page("/-/catalogue").text, what="the catalogue to have a name")
        await until(lambda: "1 of 1" in page("/").text, what="the front end to count both copies")
        for path in ("/", "/-/catalogue", "/-/members", "/-/logs", "/-/alerts", "/tests/one"):
            assert all(form["method"] == "get" for form in page(path).found("form")), "it changes something"
        overview = page("/").text
        assert "This is a front end of the node" in overview
        assert "publish.example.org:7444" in overview
        assert "Sign in" not in overview
        assert "Answers" not in page("/-/members").text, "which members answer, the writer knows"
        assert "The writer knows" in page("/-/members").text
        for path, invented in (
            ("/-/proposals", "No change of the charter is open"),
            ("/-/compute", "No offer is open"),
        ):
            assert "Only the process that writes" in page(path).text
            assert invented not in page(path).text
        assert "not known here" in page("/tests/one").text, "pulls are counted by the writer"
        assert scene.peer.record.name in page("/-/members").text
        for path in (SIGN_IN, NODE, f"{NODE}/tokens"):
            assert "ask the writer of this node: publish.example.org:7444" in page(path, 403).text
        feed = front.get("/-/feeds/versions.atom")
        assert feed.status == 200

        writer.kill()
        await until(lambda: "writer of this node does not run" in page("/-/alerts").text, what="the alert")
        assert "tests/one" in page("/-/catalogue").text

        postgres.admin(f"ALTER DATABASE {scene.database} ALLOW_CONNECTIONS false")
        postgres.end(scene.database, "")
        await until(lambda: front.get("/-/logs", accept="text/html").status == 503, what="an error page")
        assert "This page cannot be shown" in page("/-/logs", 503).text
        postgres.admin(f"ALTER DATABASE {scene.database} ALLOW_CONNECTIONS true")
        await until(lambda: front.get("/-/logs", accept="text/html").status == 200, what="the page again")


async def test_a_second_front_end_in_one_home_is_refused(scene: Scene) -> None:
    home, _ = scene.fronts
    with closing(NodeProcess(scene.writer)) as writer:
        await writer.ready()
        with closing(FrontEndProcess(home)) as front:
            await front.ready()
            with closing(FrontEndProcess(home)) as other:
                await until(lambda: not other.alive, what="the second front end to end")
                assert "another front end uses this home" in other.words


async def test_a_front_end_without_a_ledger_says_what_to_do_first(scene: Scene) -> None:
    with closing(FrontEndProcess(scene.fronts[0])) as front:
        assert front.ended() != 0
        assert "it has no tables yet" in front.words


async def test_a_front_end_without_the_blobs_of_its_node_does_not_start(tmp_path: Path, scene: Scene) -> None:
    home, other = scene.fronts
    with closing(NodeProcess(scene.writer)) as writer:
        await writer.ready()
        await published(scene, tmp_path / "one", "tests/one@v1")
        async with scene.writer.operator() as operator:

            async def held() -> bool:
                return (await operator.status()).holds == 1

            await until(held, what="the writer to hold what was published")
        home.set("storage", blobs=str(tmp_path / "not mounted"))
        other.set("storage", blobs=str(tmp_path / "of another node"))
        (tmp_path / "of another node" / "blobs").mkdir(parents=True)
        for each, why in (
            (home, "is not a folder"),
            (other, "no manifest of 1 artifacts that the node holds is there"),
        ):
            with closing(FrontEndProcess(each)) as front:
                assert front.ended() != 0
                assert "the files of the node are not where this front end looks" in front.words
                assert why in front.words
        assert not (tmp_path / "not mounted").exists()


async def test_a_front_end_whose_blobs_vanish_is_not_ready(scene: Scene) -> None:
    blobs = scene.writer.config().storage.blobs / "blobs"
    with closing(NodeProcess(scene.writer)) as writer:
        await writer.ready()
        with closing(FrontEndProcess(scene.fronts[0])) as front:
            await front.ready()
            assert front.get("/readyz").status == 200
            blobs.rename(blobs.with_name("elsewhere"))

            async def not_ready() -> bool:
                return front.get("/readyz").json()["checks"]["store"] is False

            await until(not_ready, what="the front end to miss its blobs")


async def test_a_front_end_continues_after_an_outage_of_its_database_and_ends_after_a_rollback(
    tmp_path: Path, scene: Scene, postgres: Postgres
) -> None:
    home, _ = scene.fronts
    with closing(NodeProcess(scene.writer)) as writer:
        await writer.ready()
        await published(scene, tmp_path / "one", "tests/one@v1")
        assert writer.stop() == 0
    with closing(FrontEndProcess(home)) as front:
        await front.ready()
        assert front.get("/readyz").status == 200
        postgres.admin(f"ALTER DATABASE {scene.database} ALLOW_CONNECTIONS false")
        postgres.end(scene.database, "")
        await until(lambda: front.get("/readyz").status == 503, what="the front end to be not ready")
        assert front.get("/api/models/tests/one").status == 503
        assert front.get("/healthz").status == 200
        postgres.admin(f"ALTER DATABASE {scene.database} ALLOW_CONNECTIONS true")
        await until(lambda: front.get("/readyz").status == 200, what="the front end to be ready again")
        assert front.get("/api/models/tests/one").status == 200
        await until(
            lambda: any(event["event"] == "the ledger answers again" for event in front.events),
            what="the front end to look again",
        )
        postgres.admin("UPDATE logs SET size = size - 1 WHERE own", scene.database)
        assert front.ended() != 0
        (said,) = (event for event in front.events if event["event"] == "the front end ends")
        assert said["code"] == "LEDGER-REPLACED"


@pytest.mark.ceph
async def test_a_front_end_serves_the_blobs_of_a_bucket_with_keys_that_may_only_read(
    tmp_path: Path, scene: Scene, postgres: Postgres, ceph_cluster: Ceph, ceph_s3: S3Account
) -> None:
    bucket = keep_in_bucket(scene.writer, ceph_s3)
    home = make_front_end(tmp_path / "front-s3", scene.writer, postgres, scene.database)
    reader = ceph_cluster.user("front")
    may_only_read(ceph_s3, reader, "front")
    home.set("storage.s3", credentials_file=str(write_credentials(home.directory / "s3.toml", reader)))
    home.set("storage", blobs="data/blobs")
    with closing(NodeProcess(scene.writer)) as writer:
        await writer.ready()
        with closing(FrontEndProcess(home)) as front:
            await front.ready()
            what = await published(scene, tmp_path / "one", "tests/one@v1")
            await shown(home, "tests/one")
            writer.kill()
            whole = front.get("/tests/one/resolve/main/weights.bin")
            assert whole.body == (tmp_path / "one" / "weights.bin").read_bytes()
            async with home.client() as client:
                stats = await client.stat([*what.objects, *what.blobs, sha256(b"in no bucket")])
            assert [stat.have for stat in stats] == [*[True] * (len(stats) - 1), False]
            assert front.get("/readyz").status == 200
    keys = make_client(ceph_s3.endpoint, "default", home.directory / "s3.toml")
    for forbidden in (keys.put_object, keys.delete_object):
        with pytest.raises(ClientError, match="AccessDenied"):
            forbidden(Bucket=ceph_s3.bucket, Key=bucket.key(next(iter(what.blobs))))


@asynccontextmanager
async def front_end_here(home: NodeHome) -> AsyncIterator[FrontEndAddresses]:
    """A front end on this event loop."""
    ready: asyncio.Future[FrontEndAddresses] = asyncio.get_running_loop().create_future()
    serving = serve_front_end(home.config(), clock=time.time, ready=ready.set_result, companion=serve_reading_gateway)
    running = asyncio.create_task(serving)
    try:
        await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        yield ready.result()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_every_listener_of_a_front_end_asks_its_declarations(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = scene.fronts[0]
    front.set("limits", open_calls_per_second=1000.0)
    front.set("gateway", calls_per_second=10_000.0, public=False)
    front.set("listen", metrics=f"127.0.0.1:{free_port()}")
    served, before = record_served(monkeypatch), listening()
    with closing(NodeProcess(scene.writer)) as process:
        await process.ready()
        async with front_end_here(front) as at, front.client() as client:
            (app,), (metrics,) = served.apps, served.metrics
            ports = {str(Address.parse(at.open).port), str(urlsplit(at.http).port), str(metrics.port)}
            assert (listening() - before, served.files) == (ports, [])
            await each_call(ConnectedCaller(client, Caller("127.0.0.1")), monkeypatch)
            async with called(app, at.http, front.directory) as gateway:
                await each_route_lets_in_whom_it_declares(gateway, public=False)
                await each_route_is_closed_without_its_declaration(gateway, monkeypatch)
            await pages_of_metrics_are_for_everybody(metrics, monkeypatch)


async def each_call(stranger: ConnectedCaller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A front end applies the rule of each call, and refuses what only the writer does."""
    announced = await stranger.services()
    for path in list(CALL_RULES):
        code, wanted = await stranger.code(path), refusal(path, stranger.caller)
        if not wanted and path.split("/")[1] not in announced and not path.startswith("/grpc."):
            wanted = "FRONT-END"
        assert code == wanted if wanted else code not in ("ACCESS-UNDECLARED", "PEER-FAULT"), (path, code)
        with monkeypatch.context() as removed:
            removed.delitem(CALL_RULES, path)
            assert await stranger.code(path) in (UNDECLARED, "DEADLINE-REQUIRED"), path
