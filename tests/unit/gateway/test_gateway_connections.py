"""Connections and requests of the gateway: what a client may send early, what ends when it disconnects, and who is
served when all slots are used.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import uvicorn
from comity.gateway.http import LONG, LONG_AT_ONCE, PART, SLOWEST, STALLED, RequestBounds
from comity.gateway.http_listener import ABORT, HEAD_SECONDS, MAX_HEAD, MAX_PIPELINED, _Connection
from comity.node.metrics import Metrics
from comity.wire.access import BLOCK
from comity.wire.addresses import address_block
from comity.wire.draining import Draining
from comity.wire.throttle import FairShares
from comity.wire.unsent import IDLE_LIMIT
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from support.virtual_time import run
from uvicorn.server import ServerState

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Transport(asyncio.Transport):
    """The server's side of a connection whose client reads nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = self.closing = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.aborted = self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def connected(app: ASGIApp) -> tuple[_Connection, Transport]:
    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    made, transport = _Connection(config, ServerState(), {}), Transport()
    made.attach_slot(FairShares(1, time.monotonic), cast(socket.socket, object()))
    made.connection_made(transport)
    return made, transport


class Waiting:
    """An application that answers when the test lets it, and records the messages for each request."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.told: list[list[str]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        told = list[str]()
        self.told.append(told)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self.may_answer.is_set() else None):
                while "http.disconnect" not in told:
                    told.append((await receive())["type"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@contextlib.asynccontextmanager
async def waiting() -> AsyncIterator[tuple[Waiting, _Connection, Transport]]:
    app = Waiting()
    connection, transport = connected(app)
    yield app, connection, transport
    if not transport.closing:
        transport.abort()
    connection.connection_lost(None)
    await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "begun",
    [
        REQUEST + b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n",
    ],
    ids=["the next head", "trailers"],
)
async def test_bytes_received_before_a_response_is_complete_are_bounded_like_a_head(begun: bytes) -> None:
    async with waiting() as (_, connection, transport):
        connection.data_received(begun)
        await settle()
        for _ in range(4):
            if not transport.aborted:
                connection.data_received(b"x: y\r\n" * 10_000)
        assert transport.aborted


async def test_a_body_in_small_chunks_is_no_head() -> None:
    async with waiting() as (_, connection, transport):
        connection.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(2 * MAX_HEAD // 600):
            connection.data_received(b"1\r\nx\r\n" * 100)
        assert not transport.aborted


async def test_only_some_requests_are_kept_while_an_earlier_one_is_answered() -> None:
    async with waiting() as (_, connection, transport):
        connection.data_received(REQUEST * 10_000)
        assert transport.aborted
        assert len(connection.pipeline) <= MAX_PIPELINED + 1


async def test_requests_that_come_together_are_answered_in_turn() -> None:
    async with waiting() as (app, connection, transport):
        app.may_answer.set()
        connection.data_received(REQUEST * (1 + MAX_PIPELINED))
        for _ in range(3 * MAX_PIPELINED):
            await settle()
        assert transport.written.count(b"200 OK") == 1 + MAX_PIPELINED
        assert not transport.aborted


async def test_each_request_of_a_connection_is_told_that_the_client_disconnected() -> None:
    """Otherwise the body of a file would be read and verified to its end for no reader."""
    async with waiting() as (app, connection, transport):
        connection.data_received(2 * REQUEST)
        await settle()
        transport.closing = True
        connection.connection_lost(None)
        await settle()
        assert [told[-1] for told in app.told] == ["http.disconnect"]


async def test_a_closing_connection_does_not_wait_forever_until_the_answer_is_read() -> None:
    timers = list[float]()
    async with waiting() as (app, connection, transport):
        app.may_answer.set()
        connection.data_received(b"GET / HTTP/1.0\r\n\r\n")
        await settle()
        assert transport.closing
        assert connection._timer is not None
        timers.append(connection._timer.when() - asyncio.get_running_loop().time())
    assert 0 < timers[0] <= HEAD_SECONDS


def scope_of(host: str, cut: list[str]) -> Scope:
    client = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "client": (host, 1)}
    return {**client, ABORT: lambda: cut.append(host)}


async def nothing(message: Message) -> None:
    pass


async def no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


@pytest.mark.parametrize(
    "hosts",
    [
        [host for host in ("192.0.2.1", "203.0.113.1") for _ in range(512)],
        [f"2001:db8:1:{network:x}::1" for network in range(1_024)],
    ],
    ids=["two addresses", "the networks of one site"],
)
async def test_a_block_that_has_all_requests_keeps_no_other_block_out(hosts: list[str]) -> None:
    answer, cut, statuses = asyncio.Event(), list[str](), list[int]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["client"][0] in hosts:
            await answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Message) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    bounds = RequestBounds(app, metrics=Metrics(), draining=Draining(), calls_per_second=500)
    held = [asyncio.create_task(bounds(scope_of(host, cut), no_body, nothing)) for host in hosts]
    await settle()
    await bounds(scope_of("198.51.100.1", cut), no_body, send)
    assert statuses == [200]
    assert len(cut) == 1
    answer.set()
    await asyncio.gather(*held)


async def test_a_long_answer_is_sent_in_parts_each_after_the_client_read_the_last_one() -> None:
    body, sizes = bytes(range(256)) * 5_000, list[tuple[int, bool]]()
    taken = bytearray()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            sizes.append((len(message["body"]), message.get("more_body", False)))
            taken.extend(message["body"])

    await RequestBounds(app, metrics=Metrics(), draining=Draining(), calls_per_second=500)(
        scope_of("192.0.2.1", []), no_body, send
    )
    assert bytes(taken) == body
    assert max(size for size, _ in sizes) == PART
    assert [more for _, more in sizes] == [True] * (len(sizes) - 1) + [False]


def test_a_client_that_stops_reading_an_answer_is_cut_off() -> None:
    """The server alone would close the connection only after the client has read what was sent."""
    cut = list[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def main() -> None:
        await RequestBounds(app, metrics=Metrics(), draining=Draining(), calls_per_second=500)(
            scope_of("192.0.2.1", cut), no_body, send
        )
        await asyncio.sleep(STALLED)

    _, seconds = run(main())
    assert cut == ["192.0.2.1"]
    assert seconds <= 2 * STALLED + PART / SLOWEST


def test_few_long_answers_are_in_memory_and_one_address_block_does_not_have_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken, cut, begun = asyncio.Event(), list[str](), list[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse("x" * LONG)(scope, receive, send)

    bounds = RequestBounds(app, metrics=Metrics(), draining=Draining(), calls_per_second=500)
    monkeypatch.setattr(bounds._long, "_wait", IDLE_LIMIT / 2)  # when it is over, nobody is idle yet

    async def ask(host: str) -> list[int]:
        statuses = list[int]()

        async def send(message: Message) -> None:
            if "status" in message:
                statuses.append(message["status"])
            elif message["body"] and statuses == [200]:
                begun.append(host)
                await taken.wait()

        await bounds(scope_of(host, cut), no_body, send)
        return statuses

    async def main() -> None:
        held = [asyncio.create_task(ask("192.0.2.1")) for _ in range(LONG_AT_ONCE)]
        await settle()
        assert len(begun) == LONG_AT_ONCE
        assert await ask("192.0.2.2") == [503]
        assert cut == []
        newcomer = asyncio.create_task(ask("198.51.100.1"))
        await settle()
        assert (begun[-1], cut) == ("198.51.100.1", ["192.0.2.1"])
        taken.set()
        assert await asyncio.gather(*held, newcomer) == [[200]] * (LONG_AT_ONCE + 1)

    run(main())


async def test_work_for_a_request_is_charged_to_the_address_block_of_its_client() -> None:
    charged = list[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        charged.append(BLOCK.get())
        await JSONResponse("x")(scope, receive, send)

    async def send(message: Message) -> None:
        pass

    bounds = RequestBounds(app, metrics=Metrics(), draining=Draining(), calls_per_second=500)
    await asyncio.gather(*(bounds(scope_of(host, []), no_body, send) for host in ("192.0.2.9", "2001:db8:1:2::3")))
    assert charged == ["192.0.2.0/24", "2001:db8:1::/48"]


PROXIES = ("192.0.2.1", "2001:db8::1")


@pytest.mark.parametrize(
    ("host", "forwarded", "charged"),
    [
        ("192.0.2.1", ["198.51.100.7"], "198.51.100.7"),
        ("192.0.2.1", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
        ("192.0.2.1", ["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
        ("192.0.2.1", ["198.51.100.7, 2001:DB8:0::1"], "198.51.100.7"),
        ("2001:db8::1", ["2001:db8:5::9"], "2001:db8:5::9"),
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["2001:db8::1"], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7, unknown"], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7:4711"], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7,"], "192.0.2.1"),
        ("198.51.100.7", ["203.0.113.9"], "198.51.100.7"),
    ],
)
async def test_a_listed_proxy_names_the_address_that_is_charged_and_nobody_else_does(
    host: str, forwarded: list[str], charged: str
) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(BLOCK.get())
        await JSONResponse("")(scope, receive, send)

    headers = [(b"x-forwarded-for", text.encode()) for text in forwarded]
    bounds = RequestBounds(app, metrics=Metrics(), draining=Draining(), calls_per_second=500, proxies=PROXIES)
    scope: Scope = {**scope_of(host, []), "headers": headers}
    await bounds(scope, no_body, nothing)
    assert seen == [address_block(charged)]
    assert scope["client"] == (host, 1), "what depends on the connection itself still sees it"
