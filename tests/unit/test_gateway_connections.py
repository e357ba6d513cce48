"""Connections of the gateway: what a client may send ahead, and what ends when it goes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import uvicorn
from comity.gateway.http import (
    HEAD_SECONDS,
    MAX_HEAD,
    MAX_PIPELINED,
    _Connection,
)
from comity.wire.limits import FairShares
from starlette.types import ASGIApp, Receive, Scope, Send
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
    """An application that answers when it is let, and keeps what each request was told."""

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
async def test_what_comes_before_a_response_is_complete_is_bounded_like_a_head(begun: bytes) -> None:
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


async def test_each_request_of_a_connection_is_told_that_the_client_has_gone() -> None:
    """Otherwise the body of a file would be read and verified to its end for nobody."""
    async with waiting() as (app, connection, transport):
        connection.data_received(2 * REQUEST)
        await settle()
        transport.closing = True
        connection.connection_lost(None)
        await settle()
        assert [told[-1] for told in app.told] == ["http.disconnect"]


async def test_a_connection_that_closes_does_not_wait_for_ever_until_the_answer_is_taken() -> None:
    timers = list[float]()
    async with waiting() as (app, connection, transport):
        app.may_answer.set()
        connection.data_received(b"GET / HTTP/1.0\r\n\r\n")
        await settle()
        assert transport.closing
        assert connection._timer is not None
        timers.append(connection._timer.when() - asyncio.get_running_loop().time())
    assert 0 < timers[0] <= HEAD_SECONDS
