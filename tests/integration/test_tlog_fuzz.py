"""The C2SP routes with invalid requests: each is refused, without a server error or a hang."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import random
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio
from comity.content.secrets import write_keys
from comity.gateway.app import serve_gateway
from comity.trust.keys import PrivateKey
from fuzz.mutate import mutations
from support.federation import introduced, make_home, serving
from support.outside import OutsideLog, TlogRoutes, vkeys

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOG = OutsideLog("outside.example/log").grow(600)
PATIENCE = 600.0
many = pytest.mark.parametrize("inputs", [50, pytest.param(2_000, marks=pytest.mark.long)])
ANSWERS = {200, 202, 400, 403, 404, 409, 413, 422}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def routes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TlogRoutes]:
    home = make_home(tmp_path_factory.mktemp("fuzz") / "home", 0)
    write_keys(home.directory / "keys" / "witness.pem", (PrivateKey.generate("ed25519"),))
    home.set("tlog", witness=vkeys([LOG]), mirror=vkeys([LOG]), witness_name="witness.example/w1")
    home.set("gateway", calls_per_second=100_000)
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        await introduced(home)
        assert (await TlogRoutes(client).add_checkpoint(LOG.submission(0, 300))).status_code == 200
        yield TlogRoutes(client)


@many
async def test_mutated_checkpoints_are_answered(routes: TlogRoutes, inputs: int) -> None:
    samples = [LOG.submission(300, 300), LOG.submission(300, 301), LOG.submission(0, 5), LOG.submission(300, 600)]
    async with asyncio.timeout(PATIENCE):
        for body in itertools.islice(mutations(samples, seed=3), inputs):
            assert (await routes.add_checkpoint(body)).status_code in ANSWERS


@many
@pytest.mark.parametrize("packed", [False, True])
async def test_mutated_entries_are_answered(routes: TlogRoutes, packed: bool, inputs: int) -> None:
    samples = [LOG.upload(0, 300), LOG.upload(200, 300), LOG.upload(300, 300), LOG.upload(0, 0)]
    samples = [gzip.compress(sample) for sample in samples] if packed else samples
    headers = {"Content-Encoding": "gzip"} if packed else {}
    async with asyncio.timeout(PATIENCE):
        for body in itertools.islice(mutations(samples, seed=4), inputs):
            answer = await routes.http.post("/tlog/add-entries", content=body, headers=headers)
            assert answer.status_code in ANSWERS


@many
async def test_invalid_paths_are_answered_and_not_found(routes: TlogRoutes, inputs: int) -> None:
    (own, *_) = (await routes.http.get("/tlog")).json()["logs"]
    samples = [
        f"{own['prefix']}/{path}".encode()
        for path in ("checkpoint", "tile/0/000.p/1", "tile/entries/x001/000", "tile/../checkpoint", "%2e%2e/%00")
    ]
    rng = random.Random(5)
    async with asyncio.timeout(PATIENCE):
        for path in itertools.islice(mutations(samples, seed=5), inputs):
            quoted = "".join(
                chr(byte) if 0x21 <= byte < 0x7F and byte not in b"#?%" else f"%{byte:02x}" for byte in path
            )
            method = rng.choice(("GET", "HEAD", "POST", "PUT", "DELETE"))
            answer = await routes.http.request(method, f"/{quoted.lstrip('/')}"[:4_000])
            assert answer.status_code in {*ANSWERS, 405, 401}


async def test_after_the_invalid_requests_the_routes_still_work(routes: TlogRoutes) -> None:
    assert (await routes.add_checkpoint(LOG.submission(0, 300))).status_code in (200, 409)
    assert (await routes.http.get("/healthz")).status_code == 200
