"""The gateway as a part of its node: it starts and ends with the node, and bounds requests."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import httpx2
import pytest
from comity.gateway import http as bounds
from comity.gateway import http_listener as server
from comity.gateway.app import serve_gateway
from comity.node.listeners import ConnectionLimits
from comity.trust.errors import Unavailable
from support.federation import NodeHome, make_home, serving
from support.ports import free_port
from support.waiting import PATIENCE


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    return make_home(tmp_path / "home", 0)


async def test_the_gateway_answers_beside_its_node_and_ends_with_it(home: NodeHome) -> None:
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        async with home.client() as node:
            assert (await node.node()).origin == home.origin
    with pytest.raises(httpx2.ConnectError):
        async with httpx2.AsyncClient(timeout=PATIENCE) as client:
            await client.get(f"{listening.http}/healthz")


async def test_a_node_whose_settings_name_no_address_has_no_gateway(home: NodeHome) -> None:
    home.set("gateway", http="")
    async with serving(home, companion=serve_gateway) as (listening,):
        assert listening.http == ""


async def test_an_address_that_is_in_use_is_named(home: NodeHome) -> None:
    port = free_port()
    home.set("gateway", http=f"127.0.0.1:{port}")
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", port)
    async with server:
        with pytest.raises(Unavailable) as refused:
            async with serving(home, companion=serve_gateway):
                pass
    assert refused.value.code == "LISTEN"


async def test_missing_pages_and_refused_methods_are_answered_with_a_text(home: NodeHome) -> None:
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        nowhere = await client.get("/no/such/thing/anywhere")
        assert (nowhere.status_code, nowhere.headers["X-Error-Code"]) == (404, "NO-SUCH-ROUTE")
        posted = await client.post("/healthz")
        assert (posted.status_code, posted.headers["X-Error-Code"]) == (405, "METHOD")
        long = await client.get(f"/healthz?{'x' * 9000}")
        assert (long.status_code, long.headers["X-Error-Code"]) == (400, "MALFORMED")


async def test_no_answer_can_be_run_or_framed_by_a_browser(home: NodeHome) -> None:
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        headers = (await client.get("/healthz")).headers
    assert "sandbox" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


async def test_a_request_without_a_complete_head_is_cut_off(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.2)
    async with serving(home, companion=serve_gateway) as (listening,):
        port = int(listening.http.rpartition(":")[2])
        for begun in (b"", b"GET /healthz HTTP/1.1\r\nHost: ", b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 400_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begun)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()


async def test_bytes_that_are_not_http_are_refused(home: NodeHome) -> None:
    async with serving(home, companion=serve_gateway) as (listening,):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(listening.http.rpartition(":")[2]))
        writer.write(b"\x16\x03\x01\x00\xa5 not http at all\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_an_address_that_asks_too_often_gets_a_retry_time(home: NodeHome) -> None:
    home.set("gateway", calls_per_second=0.1)
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        answers = [await client.get("/healthz") for _ in range(4)]
    assert answers[0].status_code == 200
    assert (answers[-1].status_code, answers[-1].headers["X-Error-Code"]) == (429, "RATE")
    assert int(answers[-1].headers["Retry-After"]) > 0


async def test_silent_connections_of_one_block_are_closed_for_a_client_of_another_block(
    home: NodeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "connection_limits", lambda: ConnectionLimits(mutual=8, open=8, http=8, blobs=8))
    async with serving(home, companion=serve_gateway) as (listening,), contextlib.AsyncExitStack() as stack:
        port = int(listening.http.rpartition(":")[2])
        for _ in range(12):
            silent = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.66.0.1", 0))
            stack.callback(silent[1].close)
        for _ in range(3):
            async with httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client:
                assert (await client.get("/healthz")).status_code == 200


async def test_a_body_that_arrives_byte_by_byte_is_cut_off(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "STALLED", 0.5)
    async with serving(home, companion=serve_gateway) as (listening,):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(listening.http.rpartition(":")[2]))
        writer.write(b"POST /tlog/add-entries HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        answer = asyncio.ensure_future(reader.readline())
        while not answer.done():
            writer.write(b"x")
            await asyncio.sleep(0.05)
        assert b" 400 " in await answer or b" 503 " in await answer
        writer.close()
