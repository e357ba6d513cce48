"""A node's logs as tlog-tiles: an outsider reads them, computes every hash again, and checks the cosignatures."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio
from comity.gateway.app import serve_gateway
from comity.rules.cosigned_times import verified_cosigners
from comity.trust.encoding import sha256
from comity.trust.tlog.note import Checkpoint, SignedNote, open_checkpoint
from support.federation import Founded, converged, found, serving
from support.outside import TlogRoutes, read_log
from support.waiting import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def founded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Founded, list[TlogRoutes]]]:
    founded = found(tmp_path_factory.mktemp("founded"), 2)
    async with serving(*founded, companion=serve_gateway) as listenings:
        clients = [httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) for listening in listenings]
        for home in founded.homes:
            await converged(founded.homes, home, least=2)
        yield founded, [TlogRoutes(client) for client in clients]
        for client in clients:
            await client.aclose()


@pytest.mark.slow
async def test_an_outsider_reads_an_own_and_a_mirrored_log_alike(founded: tuple[Founded, list[TlogRoutes]]) -> None:
    (home, other), routes = founded[0].homes, founded[1]
    prefix = hashlib.sha256(home.origin.encode()).hexdigest()
    own = await read_log(routes[0], prefix, home.record.log)
    mirrored = await read_log(routes[1], prefix, home.record.log)
    assert own[1][: len(mirrored[1])] == mirrored[1]
    note = SignedNote.parse((await routes[1].get(f"{prefix}/checkpoint")).content)
    cosigned = verified_cosigners(note, other.record.cosigners, open_checkpoint(note, home.record.log))
    assert set(cosigned) == set(other.record.cosigners)


async def test_the_index_names_every_log_and_its_cosigners(founded: tuple[Founded, list[TlogRoutes]]) -> None:
    (home, other), routes = founded[0].homes, founded[1]
    index = (await routes[0].http.get("/tlog")).json()
    assert {log["origin"]: log["own"] for log in index["logs"]} == {home.origin: True, other.origin: False}
    assert index["mirror"]["vkeys"] == [str(key) for key in home.record.cosigners]
    assert index["witness"] is None
    for log in index["logs"]:
        answer = await routes[0].http.get(f"{log['prefix']}/checkpoint")
        assert Checkpoint.parse(SignedNote.parse(answer.content).text).size >= log["size"]


async def test_a_log_is_also_found_by_its_key(founded: tuple[Founded, list[TlogRoutes]]) -> None:
    home = founded[0].homes[0]
    answer = await founded[1][0].get(f"{sha256(str(home.record.log).encode())}/checkpoint")
    assert open_checkpoint(SignedNote.parse(answer.content), home.record.log).origin == home.origin


async def test_cache_headers_separate_mutable_and_immutable_answers(founded: tuple[Founded, list[TlogRoutes]]) -> None:
    home, routes = founded[0].homes[0], founded[1][0]
    prefix = hashlib.sha256(home.origin.encode()).hexdigest()
    checkpoint = await routes.get(f"{prefix}/checkpoint")
    assert checkpoint.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert checkpoint.headers["Cache-Control"] == "public, max-age=1"
    tile = await routes.get(f"{prefix}/tile/0/000.p/1")
    assert tile.headers["Content-Type"] == "application/octet-stream"
    assert tile.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert "Content-Encoding" not in tile.headers
    missing = await routes.get(f"{prefix}/tile/0/001")
    assert (missing.status_code, missing.headers["Cache-Control"]) == (404, "no-store")


async def test_entries_are_compressed_for_clients_that_accept_it(founded: tuple[Founded, list[TlogRoutes]]) -> None:
    home, routes = founded[0].homes[0], founded[1][0]
    path = f"/tlog/{hashlib.sha256(home.origin.encode()).hexdigest()}/tile/entries/000.p/2"
    async with routes.http.stream("GET", path, headers={"Accept-Encoding": "gzip, identity"}) as packed:
        assert packed.headers["Content-Encoding"] == "gzip"
        raw = b"".join([part async for part in packed.aiter_raw()])
    plain = await routes.http.get(path, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"
    assert gzip.decompress(raw) == plain.content


async def test_no_tile_goes_beyond_the_checkpoint_that_is_shown(founded: tuple[Founded, list[TlogRoutes]]) -> None:
    home, routes = founded[0].homes[0], founded[1][0]
    prefix = hashlib.sha256(home.origin.encode()).hexdigest()
    size = Checkpoint.parse(SignedNote.parse((await routes.get(f"{prefix}/checkpoint")).content).text).size
    assert (await routes.get(f"{prefix}/tile/0/000.p/{size}")).status_code == 200
    for path in (f"0/000.p/{size + 9}", "0/000", "1/000.p/1", "entries/000", "63/000.p/1", "entries/001.p/1"):
        assert (await routes.get(f"{prefix}/tile/{path}")).status_code == 404


async def test_a_tile_has_one_spelling(founded: tuple[Founded, list[TlogRoutes]]) -> None:
    prefix = hashlib.sha256(founded[0].homes[0].origin.encode()).hexdigest()
    for path in (
        "0/000.p/0",
        "0/000.p/256",
        "0/000.p/01",
        "00/000.p/1",
        "64/000",
        "0/x000/000",
        "0/0",
        "-1/000",
        "0/000/",
    ):
        assert (await founded[1][0].get(f"{prefix}/tile/{path}")).status_code == 404
