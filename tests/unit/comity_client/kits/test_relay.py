"""The relay passes on each direction by itself, and keeps no connection longer than its block."""

from __future__ import annotations

import asyncio
import socket

from comity_client.kits import relay
from comity_client.kits.relay import Streams, relaying
from pytest import MonkeyPatch


class Reverser:
    """A server that answers when the caller has said all: the bytes in reverse."""

    async def connect(self) -> Streams:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._answers.add(task)
        writer.write((await reader.read())[::-1])
        writer.close()
        await writer.wait_closed()

    async def __aenter__(self) -> Reverser:
        self._answers = set[asyncio.Task[None]]()
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.gather(*self._answers, return_exceptions=True)


def listening() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


async def caller(listener: socket.socket) -> Streams:
    return await asyncio.open_connection(*listener.getsockname())


async def said(streams: Streams, data: bytes) -> bytes:
    """All that comes back for `data`."""
    streams[1].write(data)
    streams[1].write_eof()
    answer = await streams[0].read()
    await closed(streams)
    return answer


async def closed(streams: Streams) -> None:
    streams[1].close()
    await streams[1].wait_closed()


async def test_each_direction_ends_by_itself_and_nothing_is_lost() -> None:
    data = bytes(range(256)) * 4096
    listener = listening()
    async with Reverser() as server, relaying(listener, server.connect):
        answers = await asyncio.gather(*[said(await caller(listener), data) for _ in range(4)])
    assert answers == [data[::-1]] * 4


async def test_a_caller_is_told_by_a_closed_connection_that_nothing_serves() -> None:
    async def nobody() -> Streams:
        raise ConnectionRefusedError

    listener = listening()
    async with relaying(listener, nobody):
        streams = await caller(listener)
        assert await streams[0].read() == b""
        await closed(streams)


async def test_another_server_answers_the_next_connection() -> None:
    target = [Reverser(), Reverser()]
    listener = listening()

    async def connect() -> Streams:
        return await target[0].connect()

    async with target[0], target[1], relaying(listener, connect):
        first = await said(await caller(listener), b"ab")
        target[0]._server.close()
        target.reverse()
        assert [first, await said(await caller(listener), b"cd")] == [b"ba", b"dc"]


async def test_more_connections_than_are_relayed_are_closed(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_CONNECTIONS", 1)
    listener = listening()
    async with Reverser() as server, relaying(listener, server.connect):
        first = await caller(listener)
        first[1].write(b"12")
        second = await caller(listener)
        assert await second[0].read() == b""
        assert await said(first, b"3") == b"321"
        await closed(second)


async def test_no_connection_outlives_the_block() -> None:
    listener = listening()
    async with Reverser() as server, relaying(listener, server.connect):
        streams = await caller(listener)
        streams[1].write(b"half a question")
        await streams[1].drain()
        answers = await said(await caller(listener), b"1")  # so that the first one was accepted
        assert answers == b"1"
    assert await streams[0].read() == b""
    await closed(streams)
    assert listener.fileno() == -1


async def test_a_connection_that_ends_with_the_block_is_no_error_of_the_program() -> None:
    """What the program prints then would stand behind the last words of an engine."""
    reported, asked, never = list[object](), asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def connect() -> Streams:
        asked.set()
        await never.wait()
        raise AssertionError

    listener = listening()
    async with relaying(listener, connect):
        streams = await caller(listener)
        await asked.wait()
    await closed(streams)
    await asyncio.sleep(0)
    assert reported == []
